//! What a second worker brings.

use anyhow::Context;
use tieline_base::Clock;
use tieline_testkit::{Tieline, free_port, loopback, usage};

use super::load::ask;
use super::origin::{Origin, Page, SMALL};
use crate::arguments::Options;
use crate::config;
use crate::figure::{Ratio, median};
use crate::machine;
use crate::product::{Product, Traffic};
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

const REQUESTS: usize = 60_000;
/// Threads of load, each with connections of its own: one alone could not feed two workers.
const LOADS: usize = 2;
const AT_ONCE: usize = 32;
const COST_MAX: f64 = 1.0 / 0.9;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

/// A running Tieline with so many workers.
struct Crew {
    tieline: Tieline,
    address: std::net::SocketAddr,
}

impl Crew {
    fn start(workers: usize, origin: &Origin) -> anyhow::Result<Crew> {
        let address = loopback(free_port());
        let config = config::tieline(Traffic::Http, address, &[origin.address()]);
        let config = config.replacen("workers = 1", &format!("workers = {workers}"), 1);
        Ok(Crew { tieline: Tieline::start_from(&machine::tieline_binary()?, &config), address })
    }

    /// Requests a second, and CPU microseconds for each.
    fn measure(&self, count: usize) -> anyhow::Result<(f64, f64)> {
        let (began, before) = (Clock::now(), usage::cpu_time(self.tieline.pid()));
        let page = Page::of(SMALL);
        std::thread::scope(|scope| {
            let loads: Vec<_> = (0..LOADS)
                .map(|_| scope.spawn(|| ask(self.address, &page, count / LOADS, AT_ONCE / LOADS)))
                .collect();
            loads.into_iter().try_for_each(|load| load.join().expect("a load does not panic"))
        })?;
        let (took, cpu) = (Clock::now().since(began), usage::cpu_time(self.tieline.pid()) - before);
        let count = count as f64;
        Ok((count / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count))
    }
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let origin = Origin::start(&[SMALL])?;
    let crews = [Crew::start(1, &origin)?, Crew::start(2, &origin)?];
    let count = options.amount(REQUESTS);
    let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..options.repeat() as usize {
        for turn in 0..2 {
            let at = (round + turn) % 2;
            let (rate, cost) = crews[at].measure(count).with_context(|| format!("{} workers", at + 1))?;
            rates[at].push(rate);
            costs[at].push(cost);
        }
    }
    let title =
        format!("{} with one worker and with two ({count} requests a round)", Product::Tieline.name());
    let mut table = Table::new(title, &JUDGED);
    let cells = |of: &[Vec<f64>; 2]| format!("{:.1} → {:.1}", median(&of[0]), median(&of[1]));
    let ratio = |of: &[Vec<f64>; 2]| Ratio::of(&of[1], &of[0]);
    if let (Some(rate), Some(cost)) = (ratio(&rates), ratio(&costs)) {
        // Load, origin and proxy share the machine: where it has two cores, both are busy with one worker.
        let alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 2 + LOADS);
        let verdict = if alone { Verdict::holds(rate.median >= 1.8) } else { Verdict::None };
        table.judge(
            "requests a second",
            format!("{}: {rate}", cells(&rates)),
            "≥ 1.8 ×, cores allowing",
            verdict,
        );
        let verdict = Verdict::at_most(cost.median, COST_MAX);
        table.judge("CPU µs a request", format!("{}: {cost}", cells(&costs)), "≤ 1.11 ×", verdict);
    }
    Ok(vec![table])
}
