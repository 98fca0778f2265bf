//! What quiet users feel of one that floods.

use anyhow::Context;
use tieline_testkit::Postgres;

use super::beside::{add_to, columns, poolers};
use super::cost::filled_server;
use super::pgbench::Load;
use super::pooler::{Pooler, Setup};
use crate::arguments::Options;
use crate::figure::{median, percentile};
use crate::machine::Placement;
use crate::product::Product;
use crate::scenario::beside::Beside;
use crate::table::{Table, Verdict};

const QUIET: usize = 10;
const LOUD_CLIENTS: usize = 400;
const SIZE: usize = 10;
const SECONDS: usize = 6;
/// Transactions a second of each quiet user.
const RATE: usize = 20;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let (postgres, products) = (filled_server(), poolers(options));
    let users: Vec<String> = (0..QUIET).map(|at| format!("quiet{at}")).chain(["loud".to_owned()]).collect();
    make(&postgres, &users);
    let mut alone = Vec::new();
    let beside = Beside::measure(&products, options.repeat(), |product| {
        let pooler = Pooler::start(product, &postgres, &Setup { users: &users, ..Setup::of(SIZE) })?;
        placement.place(pooler.pid())?;
        alone.push((product, worst_p99(&pooler, &users[..QUIET])?));
        let loud = Load { clients: LOUD_CLIENTS, seconds: SECONDS + 2, user: "loud", ..Load::default() };
        std::thread::scope(|scope| {
            let noise = scope.spawn(|| loud.run(pooler.address()));
            let worst = worst_p99(&pooler, &users[..QUIET]);
            noise.join().expect("the noise does not panic").context("the noisy user")?;
            worst
        })
    })?;
    let alone = Beside::from_rounds(&products, &alone);
    let title = format!(
        "The worst p99 among {QUIET} quiet users ({RATE} transactions a second each) over {SIZE} servers"
    );
    let mut table = Table::new(title, &columns("ms"));
    add_to(&mut table, "alone", &alone, None, |ms| format!("{ms:.2}"));
    add_to(&mut table, &format!("beside {LOUD_CLIENTS} clients of one user"), &beside, None, |ms| {
        format!("{ms:.2}")
    });
    if let (Some(beside), Some(alone)) = (beside.of(Product::Tieline), alone.of(Product::Tieline)) {
        let ratios: Vec<f64> = beside.iter().zip(alone).map(|(beside, alone)| beside / alone).collect();
        let (ours, verdict) = (median(&ratios), Verdict::holds(median(&ratios) < 2.0).to_string());
        table.row([
            "Tieline, ÷ alone".into(),
            format!("{ours:.2}"),
            "".into(),
            "".into(),
            "< 2".into(),
            verdict,
        ]);
    }
    Ok(vec![table])
}

fn make(postgres: &Postgres, users: &[String]) {
    for user in users {
        postgres.query(&format!("create role {user} login in role pg_read_all_data"));
    }
}

/// The p99 of that quiet user who fares worst.
fn worst_p99(pooler: &Pooler, users: &[String]) -> anyhow::Result<f64> {
    std::thread::scope(|scope| {
        let runs: Vec<_> = users
            .iter()
            .map(|user| {
                let load = Load { rate: RATE, seconds: SECONDS, user, ..Load::default() };
                scope.spawn(move || load.run(pooler.address()))
            })
            .collect();
        let mut worst = 0.0_f64;
        for run in runs {
            let seen = run.join().expect("a load does not panic")?;
            worst = worst.max(percentile(&seen.took_ms, 99.0));
        }
        Ok(worst)
    })
}
