//! Memory per idle client.

use std::io;

use anyhow::{Context, ensure};
use tieline_testkit::Postgres;

use super::beside::poolers;
use super::load::{Client, ask_once, log_in, log_in_over_tls};
use super::pooler::{Pooler, Setup};
use crate::arguments::Options;
use crate::figure::median;
use crate::http::Trust;
use crate::machine;
use crate::product::Product;
use crate::scenario::beside::Beside;
use crate::scenario::idle::{CONNECTIONS, ROUNDS, settled_own_memory_kib};
use crate::table::{JUDGED, Table, Verdict};

const SIZE: usize = 10;
/// A pooler needs files for its servers beside those for clients.
const FILES_OF_SERVERS: usize = 100;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let count = options.amount(CONNECTIONS).min(machine::sockets_max() - FILES_OF_SERVERS);
    let postgres = Postgres::start();
    let trust = Trust::for_protocol("postgresql")?;
    let plain = measure(options, &postgres, count, None, 4.0)?;
    Ok(vec![plain, measure(options, &postgres, count, Some(&trust), 20.0)?])
}

fn measure(
    options: &Options,
    postgres: &Postgres,
    count: usize,
    trust: Option<&Trust>,
    most: f64,
) -> anyhow::Result<Table> {
    let setup = Setup { certificate: trust.map(Trust::pair), ..Setup::of(SIZE) };
    let products = poolers(options);
    let kind = if trust.is_some() { "TLS 1.3" } else { "plain" };
    let title = format!("Memory of its own per idle {kind} client ({count} clients, one query of each)");
    let mut table = Table::new(title, &JUDGED);
    let beside = Beside::measure(&products, ROUNDS, |product| {
        let pooler = Pooler::start(product, postgres, &setup)?;
        let address = pooler.address();
        let each = match trust {
            None => kib_each(&pooler, count, |source| log_in(address, source)),
            Some(trust) => kib_each(&pooler, count, |source| log_in_over_tls(address, source, trust)),
        };
        each.with_context(|| format!("through {}", product.name()))
    })?;
    for product in products {
        let kib = median(beside.of(product).unwrap_or_default());
        let ours = product == Product::Tieline;
        let bar = if ours { format!("≤ {most} KiB") } else { String::new() };
        let verdict = if ours { Verdict::at_most(kib, most) } else { Verdict::None };
        table.judge(product.name(), format!("{kib:.2} KiB"), &bar, verdict);
    }
    Ok(table)
}

/// What `count` idle clients add to the memory of a pooler that has just served its first ones.
fn kib_each<C: Client>(
    pooler: &Pooler,
    count: usize,
    log_in: impl Fn(usize) -> io::Result<C>,
) -> anyhow::Result<f64> {
    let gather = |count: usize| -> io::Result<Vec<C>> {
        let asked = |source| {
            let mut client = log_in(source)?;
            ask_once(&mut client)?;
            Ok(client)
        };
        (0..count).map(asked).collect()
    };
    drop(gather(16)?);
    let before = settled_own_memory_kib(pooler.pid());
    let mut clients = gather(count)?;
    let with_clients = settled_own_memory_kib(pooler.pid());
    let answered = clients.iter_mut().step_by(50).all(|client| ask_once(client).is_ok());
    ensure!(answered, "some were not idle but closed");
    Ok((with_clients as f64 - before as f64) / count as f64)
}
