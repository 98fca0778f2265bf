//! Bytes a second over a long path that loses packets.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use tieline_base::Clock;

use super::linkem::{Path, There};
use super::road::{Peer, Road};
use super::throughput::row;
use crate::arguments::Options;
use crate::backend::Bulk;
use crate::bulk_load::{Direction, transfer};
use crate::rounds::Rounds;
use crate::table::Table;

const DELAY_US: u64 = 50_000;
const LOST_PPM: u32 = 10_000;
const STREAMS: [usize; 2] = [1, 16];
const BYTES: usize = 16 << 20;
const LEAST: f64 = 3.0;
const MBIT: f64 = 1e6 / 8.0;
/// A tunnel that lost its connection over the path may take so long for a new one.
const ROUNDS_MAX: u32 = 3;

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let bytes = options.amount(BYTES) as u64;
    let title = format!(
        "Mbit/s over 100 ms of round trip with 1 % of the packets lost each way ({} MiB a round)",
        bytes >> 20
    );
    let columns = ["What", "Tieline", "rathole", "ssh -L", "ssh -R", "÷ rathole", "Bar", "Verdict"];
    let mut table = Table::new(title, &columns);
    // `ssh -L` would need a server of its own at the far side; `-R` is the same bytes the same way.
    let peers: Vec<Peer> = options.peers().into_iter().filter(|&peer| peer != Peer::SshLocal).collect();
    for streams in STREAMS {
        let each = bytes / streams as u64;
        let path = Path::open(1, 1)?;
        let backend = There::begin(&path, || Bulk::start(each))?;
        let roads = peers
            .iter()
            .map(|&peer| Ok((peer, Road::start(peer, &path.place(), &[backend.get().address()])?)))
            .collect::<anyhow::Result<std::collections::HashMap<_, _>>>()?;
        path.conditions.delay_us.store(DELAY_US, Relaxed);
        path.conditions.lost_ppm.store(LOST_PPM, Relaxed);
        for direction in [Direction::Download, Direction::Upload] {
            let speed = Rounds::measure(&peers, options.repeat().min(ROUNDS_MAX), |peer| {
                let begin = Clock::now();
                transfer(roads[&peer].services[0], direction, streams, each)
                    .with_context(|| format!("{direction:?} through {}", peer.name()))?;
                let speed = bytes as f64 / MBIT / Clock::now().since(begin).as_secs_f64();
                eprintln!("{direction:?}, {streams} streams, {}: {speed:.1} Mbit/s", peer.name());
                Ok(speed)
            })?;
            let what = format!("{direction:?}, {streams} stream{}", if streams == 1 { "" } else { "s" });
            row(&mut table, &what, &speed, |it| format!("{it:.1}"), Some(LEAST));
        }
        path.conditions.lost_ppm.store(0, Relaxed);
    }
    Ok(vec![table])
}
