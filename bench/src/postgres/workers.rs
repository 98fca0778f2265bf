//! What a second worker brings, where the database takes no time.

use anyhow::Context;
use tieline_base::Clock;
use tieline_testkit::{Tieline, free_port, loopback, usage};

use super::backend::AtOnce;
use super::load::ask;
use super::pooler::{Setup, tieline_config};
use crate::arguments::Options;
use crate::figure::{Ratio, median};
use crate::machine;
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

const QUERIES: usize = 60_000;
/// Threads of load, each with connections of its own: one alone could not feed two workers.
const LOADS: usize = 2;
const AT_ONCE: usize = 32;
const SIZE: usize = 40;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

/// A running Tieline with so many workers.
struct Crew {
    tieline: Tieline,
    address: std::net::SocketAddr,
}

impl Crew {
    fn start(workers: usize, backend: &AtOnce) -> anyhow::Result<Crew> {
        let address = loopback(free_port());
        let config = tieline_config(address, &[backend.address().to_string()], &Setup::of(SIZE));
        let config = config.replace("workers = 1", &format!("workers = {workers}"));
        Ok(Crew { tieline: Tieline::start_from(&machine::tieline_binary()?, &config), address })
    }

    /// Queries a second, and CPU µs of each.
    fn measure(&self, count: usize) -> anyhow::Result<(f64, f64)> {
        let (began, before) = (Clock::now(), usage::cpu_time(self.tieline.pid()));
        let load = || ask(self.address, count / LOADS, AT_ONCE);
        std::thread::scope(|scope| {
            let loads: Vec<_> = (0..LOADS).map(|_| scope.spawn(load)).collect();
            loads.into_iter().try_for_each(|load| load.join().expect("the load does not panic"))
        })?;
        let seconds = Clock::now().since(began).as_secs_f64();
        let cpu = usage::cpu_time(self.tieline.pid()) - before;
        Ok((count as f64 / seconds, cpu.as_secs_f64() * 1e6 / count as f64))
    }
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let backend = AtOnce::start()?;
    let crews = [Crew::start(1, &backend)?, Crew::start(2, &backend)?];
    let count = options.amount(QUERIES);
    let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..options.repeat() as usize {
        for turn in 0..2 {
            let at = (round + turn) % 2;
            let (rate, cost) = crews[at].measure(count).with_context(|| format!("{} workers", at + 1))?;
            rates[at].push(rate);
            costs[at].push(cost);
        }
    }
    let title = format!(
        "Tieline with one worker and with two, before a server that answers at once ({count} queries)"
    );
    let mut table = Table::new(title, &JUDGED);
    let cells = |of: &[Vec<f64>; 2]| format!("{:.1} → {:.1}", median(&of[0]), median(&of[1]));
    if let (Some(rate), Some(cost)) = (Ratio::of(&rates[1], &rates[0]), Ratio::of(&costs[1], &costs[0])) {
        // Load, server and pooler share the machine: where it has two cores, both are busy with one worker.
        let alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 3 + LOADS);
        let verdict = if alone { Verdict::holds(rate.median >= 1.8) } else { Verdict::None };
        table.judge(
            "queries a second",
            format!("{}: {rate}", cells(&rates)),
            "≥ 1.8 ×, cores allowing",
            verdict,
        );
        table.judge("CPU µs a query", format!("{}: {cost}", cells(&costs)), "", Verdict::None);
    }
    Ok(vec![table])
}
