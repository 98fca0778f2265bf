//! What an echo feels of a bulk stream beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::road::{Peer, Place, Road};
use crate::arguments::Options;
use crate::backend::{Bulk, Echo};
use crate::bulk_load::{Direction, transfer};
use crate::figure::percentile;
use crate::rounds::Rounds;
use crate::scenario::ls::probe_each;
use crate::table::{Table, Verdict};

const CALM: Duration = Duration::from_secs(4);
const BUSY: Duration = Duration::from_secs(4);
/// Moved again and again while the echo is probed.
const PIECE: u64 = 256 << 20;
/// Rarely enough that one echo has come back before the next is due, beside bulk too.
const PROBE_EVERY: Duration = Duration::from_millis(20);
const STALL_MAX: f64 = 2.0;

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    measure(options, &Place::here(), "on one machine")
}

fn measure(options: &Options, place: &Place, whereabouts: &str) -> anyhow::Result<Vec<Table>> {
    let (bulk, echo) = (Bulk::start(PIECE)?, Echo::start(1)?);
    let mut table = Table::new(
        format!("p99 of a 64-byte echo {whereabouts}: alone → beside one bulk stream of the same tunnel"),
        &["Beside", "Peer", "alone", "beside", "times", "Bar", "Verdict"],
    );
    for direction in [Direction::Download, Direction::Upload] {
        for peer in options.peers() {
            let road = Road::start(peer, place, &[bulk.address(), echo.addresses()[0]])?;
            let (mut calm, mut busy) = (Vec::new(), Vec::new());
            let times = Rounds::measure(&[peer], options.repeat(), |_| {
                let alone = p99(probe_each(PROBE_EVERY, road.services[1], || std::thread::sleep(CALM))?.1);
                let (moved, beside) =
                    probe_each(PROBE_EVERY, road.services[1], || bulk_for(BUSY, &road, direction))?;
                moved.with_context(|| format!("bulk through {}", peer.name()))?;
                let beside = p99(beside);
                calm.push(alone);
                busy.push(beside);
                Ok(beside / alone)
            })?;
            let shown = |figures: &[f64]| format!("{:.2} ms", crate::figure::median(figures));
            let median = times.median(peer).unwrap_or(f64::NAN);
            let ours = peer == Peer::Tieline;
            table.row([
                format!("{direction:?}"),
                peer.name().to_owned(),
                shown(&calm),
                shown(&busy),
                format!("{median:.2}"),
                if ours { "≤ 2".to_owned() } else { String::new() },
                if ours { Verdict::at_most(median, STALL_MAX) } else { Verdict::None }.to_string(),
            ]);
        }
    }
    Ok(vec![table])
}

fn p99(latencies: Vec<f64>) -> f64 {
    percentile(&latencies, 99.0)
}

/// Moves bytes for at least so long, one transfer behind the other.
fn bulk_for(least: Duration, road: &Road, direction: Direction) -> std::io::Result<()> {
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                transfer(road.services[0], direction, 1, PIECE)?;
            }
            Ok(())
        });
        std::thread::sleep(least);
        enough.store(true, Ordering::Relaxed);
        moving.join().expect("a transfer does not panic")
    })
}
