//! What running queries feel of many logins at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::beside::{add_to, columns, poolers};
use super::cost::filled_server;
use super::pgbench::Load;
use super::pooler::{Pooler, Setup};
use super::scram::{Login, Secret};
use crate::arguments::Options;
use crate::figure::{median, percentile};
use crate::machine::Placement;
use crate::product::Product;
use crate::scenario::beside::Beside;
use crate::table::{Table, Verdict};

const LOGINS: usize = 500;
const SECONDS: usize = 4;
const CLIENTS: usize = 10;
const SIZE: usize = 10;
/// Transactions a second: little enough that the calm is calm.
const RATE: usize = 500;
/// How long the load runs before the first storm.
const HEAD_START: Duration = Duration::from_millis(500);
/// From the end of a storm to the next.
const BETWEEN: Duration = Duration::from_secs(1);
const PASSWORD: &str = "storm";
const MS_MAX: f64 = 5.0;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let (postgres, products) = (filled_server(), poolers(options));
    let secret = Secret::of(PASSWORD);
    let verifier = secret.verifier();
    let setup = Setup { verifier: Some(&verifier), ..Setup::of(SIZE) };
    let load = Load { clients: CLIENTS, rate: RATE, seconds: SECONDS, password: PASSWORD, ..Load::default() };
    let mut calms = Vec::new();
    let storm = Beside::measure(&products, options.repeat(), |product| {
        let pooler = Pooler::start(product, &postgres, &setup)?;
        placement.place(pooler.pid())?;
        let calm = load.run(pooler.address())?;
        calms.push((product, percentile(&calm.took_ms, 99.0)));
        let seen =
            in_a_storm(&pooler, &secret, &load).with_context(|| format!("through {}", product.name()))?;
        Ok(percentile(&seen, 99.0))
    })?;
    let calm = Beside::from_rounds(&products, &calms);
    let title = format!(
        "p99 of queries ({RATE} a second) while {LOGINS} clients at once log in by SCRAM, \
         a second after each other"
    );
    let mut table = Table::new(title, &columns("ms"));
    add_to(&mut table, "p99 in the calm", &calm, None, |ms| format!("{ms:.2}"));
    add_to(&mut table, "p99 in the storm", &storm, None, |ms| format!("{ms:.2}"));
    if let (Some(storm), Some(calm)) = (storm.of(Product::Tieline), calm.of(Product::Tieline)) {
        let more: Vec<f64> = storm.iter().zip(calm).map(|(storm, calm)| storm - calm).collect();
        let verdict = Verdict::at_most(median(&more), MS_MAX).to_string();
        let ours = format!("{:+.2}", median(&more));
        table.row(["Tieline's delay".into(), ours, "".into(), "".into(), "≤ 5 ms".into(), verdict]);
    }
    Ok(vec![table])
}

/// The times of the load's transactions while storms go on.
fn in_a_storm(pooler: &Pooler, secret: &Secret, load: &Load<'_>) -> anyhow::Result<Vec<f64>> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storms = scope.spawn(|| -> std::io::Result<usize> {
            // The load's own clients log in before.
            std::thread::sleep(HEAD_START);
            let mut logins = 0;
            while !over.load(Ordering::Relaxed) {
                logins += storm(pooler, secret)?;
                std::thread::sleep(BETWEEN); // the pace of the measurement, not a wait
            }
            Ok(logins)
        });
        let seen = load.run(pooler.address());
        over.store(true, Ordering::Relaxed);
        let logins = storms.join().expect("a storm does not panic")?;
        anyhow::ensure!(logins >= LOGINS, "only {logins} logged in");
        Ok(seen?.took_ms)
    })
}

/// So many logins at once, all in the same step at a time. By one thread: as many threads would take the CPU
/// from the load and the database, and what they feel of that says nothing about the pooler.
fn storm(pooler: &Pooler, secret: &Secret) -> std::io::Result<usize> {
    let mut logins = (0..LOGINS).map(|_| secret.begin(pooler.address())).collect::<Result<Vec<_>, _>>()?;
    logins.iter_mut().try_for_each(Login::introduce)?;
    logins.iter_mut().try_for_each(Login::prove)?;
    logins.into_iter().try_for_each(|login| login.finish().map(drop))?;
    Ok(LOGINS)
}
