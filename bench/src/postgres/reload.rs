//! Reloads under load.

use std::time::Duration;

use tieline_base::Clock;
use tieline_testkit::{Tieline, free_port, loopback};

use super::cost::filled_server;
use super::pgbench::{Load, Manner};
use super::pooler::{Setup, tieline_config};
use crate::arguments::Options;
use crate::figure::{median, milliseconds, percentile};
use crate::machine;
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

const RELOADS: usize = 100;
const SECONDS: usize = 15;
const CLIENTS: usize = 50;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let postgres = filled_server();
    let address = loopback(free_port());
    let endpoints = [postgres.address().to_string()];
    // Each changes another route's limits and the size of the pool, not who may pass.
    let config = |turn: usize| tieline_config(address, &endpoints, &Setup::of(10 + turn % 2));
    let tieline = Tieline::start_from(&machine::tieline_binary()?, &config(0));
    let load = Load { manner: Manner::Extended, clients: CLIENTS, seconds: SECONDS, ..Load::default() };
    let reloads = options.amount(RELOADS);
    let (seen, took) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load.run(address));
        let pause = Duration::from_secs(SECONDS as u64) / u32::try_from(reloads + 10).unwrap_or(1);
        let took: Vec<f64> = (1..=reloads)
            .map(|turn| {
                std::thread::sleep(pause); // the pace of the measurement, not a wait
                let began = Clock::now();
                tieline.reload(&config(turn));
                milliseconds(Clock::now().since(began))
            })
            .collect();
        (load.join().expect("the load does not panic"), took)
    });
    let title = format!("{reloads} reloads while {CLIENTS} clients ask");
    let mut table = Table::new(title, &JUDGED);
    table.judge("a reload", format!("{:.0} ms", median(&took)), "", Verdict::None);
    match seen {
        Ok(seen) => {
            let figures = format!("{:.0} a second, p99 {:.1} ms", seen.rate, percentile(&seen.took_ms, 99.0));
            table.judge("transactions", figures, "", Verdict::None);
            table.judge("errors", "0".into(), "0", Verdict::Pass);
        }
        Err(error) => table.judge("errors", format!("{error:#}"), "0", Verdict::Fail),
    }
    Ok(vec![table])
}
