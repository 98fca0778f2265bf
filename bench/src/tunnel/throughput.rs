//! Bytes a second through the tunnel, on one machine.

use std::collections::HashMap;

use anyhow::Context;
use tieline_base::Clock;

use super::road::{Peer, Place, Road};
use crate::arguments::Options;
use crate::backend::Bulk;
use crate::bulk_load::{Direction, transfer};
use crate::rounds::Rounds;
use crate::table::{Table, Verdict};

const STREAMS: [usize; 2] = [1, 16];
const MIB: f64 = (1 << 20) as f64;

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let total = options.amount(2 << 30) as u64;
    let peers = options.peers();
    let mut speeds = table("MiB a second on one machine (no CPU of their own)", total, "≥ 1.0 × rathole");
    let mut costs = table("CPU seconds of both ends per GiB", total, "");
    for streams in STREAMS {
        let each = total / streams as u64;
        let backend = Bulk::start(each)?;
        let roads: HashMap<Peer, Road> = peers
            .iter()
            .map(|&peer| Ok((peer, Road::start(peer, &Place::here(), &[backend.address()])?)))
            .collect::<anyhow::Result<_>>()?;
        for direction in [Direction::Download, Direction::Upload] {
            let mut cost: Vec<(Peer, f64)> = Vec::new();
            let speed = Rounds::measure(&peers, options.repeat(), |peer| {
                let (road, begin) = (&roads[&peer], Clock::now());
                let before = road.cpu_time();
                transfer(road.services[0], direction, streams, each)
                    .with_context(|| format!("{direction:?} through {}", peer.name()))?;
                let took = Clock::now().since(begin).as_secs_f64();
                cost.push((peer, (road.cpu_time() - before).as_secs_f64() * 1024.0 * MIB / total as f64));
                Ok(total as f64 / MIB / took)
            })?;
            let mut figures = cost.into_iter();
            let cost = Rounds::measure(&peers, options.repeat(), |peer| {
                // The same turns in the same order.
                figures.next().filter(|(other, _)| *other == peer).map(|it| it.1).context("a figure a turn")
            })?;
            let what = format!("{direction:?}, {streams} stream{}", if streams == 1 { "" } else { "s" });
            row(&mut speeds, &what, &speed, |it| format!("{it:.0}"), Some(1.0));
            row(&mut costs, &what, &cost, |it| format!("{it:.2}"), None);
        }
    }
    Ok(vec![speeds, costs])
}

fn table(what: &str, total: u64, bar: &str) -> Table {
    let title = format!("{what}, {:.1} GiB a round", total as f64 / MIB / 1024.0);
    Table::new(title, &["What", "Tieline", "rathole", "ssh -L", "ssh -R", "÷ rathole", bar, "Verdict"])
}

/// Adds the row; with `least`, ours must be so many times rathole's.
pub(super) fn row(
    table: &mut Table,
    what: &str,
    rounds: &Rounds<Peer>,
    format: impl Fn(f64) -> String,
    least: Option<f64>,
) {
    let ratio = rounds.ratio(Peer::Tieline, Peer::Rathole);
    let verdict = least.zip(ratio.as_ref());
    let verdict = verdict.map_or(Verdict::None, |(least, ratio)| Verdict::holds(ratio.median >= least));
    table.row([
        what.to_owned(),
        rounds.shown(Peer::Tieline, &format),
        rounds.shown(Peer::Rathole, &format),
        rounds.shown(Peer::SshLocal, &format),
        rounds.shown(Peer::SshRemote, &format),
        ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.to_string()),
        least.map_or_else(String::new, |least| format!("≥ {least}")),
        verdict.to_string(),
    ]);
}
