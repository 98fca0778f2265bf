//! Links that move because somebody wants them to: nothing is lost, next to nothing goes twice, and nobody
//! waits.

use crate::oracle::Oracle;
use crate::site::{Site, TCP, server_draining};
use crate::support::{await_finished, connect, finished, order_with, story};

/// So often.
const MOVES: usize = 6;

/// What must come through in each direction between two moves.
const STEP: u64 = 128 << 10;

impl Site {
    /// Asks the agent to go on over another connection than the one that carries its link.
    fn drain_link(&self) {
        let filter = serde_json::json!({ "filter": format!("id={}", self.await_link()["id"]) });
        order_with(&self.server, "/api/v1/connections/drain", &filter);
    }

    /// How many bytes each change of carriers repeated, as the server and the agent tell it.
    fn repeated(&mut self) -> Vec<u64> {
        let mut rows = finished(&self.server, "listener=gate");
        rows.extend(self.links());
        let stories: Vec<String> = rows.iter().map(|row| story(&self.server, row)).collect();
        let told = stories.iter().filter_map(|story| number_before(story, " bytes again"));
        let log = self.agent.process().log();
        told.chain(log.lines().filter_map(|line| number_behind(line, "replayed="))).collect()
    }
}

fn number_before(text: &str, mark: &str) -> Option<u64> {
    text.split_once(mark)?.0.rsplit(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
}

fn number_behind(text: &str, mark: &str) -> Option<u64> {
    text.split_once(mark)?.1.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
}

/// Where a machine stands still for longer than the old carrier is waited for, what is under way goes again.
#[track_caller]
fn assert_next_to_nothing(repeated: &[u64], changes: usize) {
    assert_eq!(repeated.len(), 2 * changes, "{repeated:?}");
    let nothing = repeated.iter().filter(|bytes| **bytes == 0).count();
    assert!(nothing > changes, "{repeated:?}");
}

#[test]
fn a_link_that_is_drained_amid_transfers_repeats_nothing() {
    let oracle = Oracle::start();
    let mut site = Site::of(server_draining("1m", TCP), oracle.address());
    let client = connect(site.address());
    oracle.during(&client, || {
        for done in 0..MOVES {
            oracle.moves(STEP, &format!("before move {done}"));
            site.drain_link();
            await_finished(&site.server, "listener=gate reason=moved", done + 1);
        }
    });
    site.await_link();
    assert_next_to_nothing(&site.repeated(), MOVES);
}
