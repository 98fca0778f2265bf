//! CPU per transaction and per login; on demand, instructions and system calls.

use anyhow::Context;
use tieline_testkit::{Authority, Postgres};

use super::beside::{add_to, columns, poolers};
use super::pgbench::{Load, Manner};
use super::pooler::{Pooler, Setup, Way};
use crate::arguments::Options;
use crate::figure::median;
use crate::machine::Placement;
use crate::product::Product;
use crate::scenario::beside::Beside;
use crate::scenario::calls::{self, Unit};
use crate::table::{JUDGED, Table, Verdict};
use crate::tools;

const TRANSACTIONS: usize = 20_000;
/// One client alone cannot ask as fast.
const TRANSACTIONS_ALONE: usize = 4_000;
const LOGINS: usize = 1_000;
/// Servers of each pool.
const SIZE: usize = 10;
const CLIENTS: [usize; 4] = [1, 16, 64, 500];
/// Run lengths under callgrind, whose difference counts; strace sees the greater.
const COUNTED: (usize, usize) = (500, 3_000);
/// Clients of a counted run.
const AT_ONCE: usize = 16;

/// What is measured: who asks how, and over what.
#[derive(Clone, Copy)]
struct Case {
    manner: Manner,
    clients: usize,
    tls: bool,
    way: Way,
}

impl Case {
    fn name(self) -> String {
        let clients = if self.clients == 1 { "1 client".into() } else { format!("{} clients", self.clients) };
        let tls = if self.tls { ", TLS" } else { "" };
        let way = if self.way == Way::Unix { ", server on a unix socket" } else { "" };
        format!("{}, {clients}{tls}{way}", self.manner.name())
    }

    /// PgBouncer 1.18 has no prepared statements in transaction mode: each client gets a server there.
    fn setup<'a>(self, product: Product, authority: &'a tieline_testkit::Pair) -> Setup<'a> {
        let session = self.manner == Manner::Prepared && product == Product::PgBouncer;
        let size = if session { self.clients } else { SIZE };
        let certificate = self.tls.then_some(authority);
        Setup { way: self.way, certificate, session, ..Setup::of(size) }
    }
}

fn cases() -> Vec<Case> {
    let plain = |manner| CLIENTS.map(|clients| Case { manner, clients, tls: false, way: Way::Tcp });
    let mut cases: Vec<Case> = plain(Manner::Simple).into_iter().chain(plain(Manner::Extended)).collect();
    cases.extend(plain(Manner::Prepared).into_iter().take(3));
    for manner in [Manner::Simple, Manner::Extended] {
        cases.push(Case { manner, clients: 64, tls: true, way: Way::Tcp });
        cases.push(Case { manner, clients: 64, tls: false, way: Way::Unix });
    }
    cases
}

/// A server with pgbench's tables.
pub(crate) fn filled_server() -> Postgres {
    let postgres = Postgres::start_with(&[("max_connections", "300"), ("shared_buffers", "128MB")]);
    postgres.pgbench(postgres.address(), &["-i", "-q", "-s", "1"]).expect("pgbench -i");
    postgres
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let postgres = filled_server();
    let (authority, products) = (Authority::new(), poolers(options));
    let pair = authority.server(&["localhost"]);
    let title =
        format!("pgbench -S over {SIZE} servers ({} transactions a round)", options.amount(TRANSACTIONS));
    let mut table = Table::new(title, &columns("CPU µs per transaction"));
    for case in cases() {
        let whole = if case.clients == 1 { TRANSACTIONS_ALONE } else { TRANSACTIONS };
        let each = (options.amount(whole) / case.clients).max(1);
        let load = Load { manner: case.manner, clients: case.clients, tls: case.tls, ..Load::default() };
        let load = Load { transactions: each, ..load };
        let beside = cpu_us(options, &placement, &postgres, |product| case.setup(product, &pair), &load)
            .with_context(|| case.name())?;
        add_to(&mut table, &case.name(), &beside, Some(1.0), |us| format!("{us:.1}"));
    }
    let mut tables = vec![table];
    if options.callgrind {
        tables.extend(instructions(&postgres, &products)?);
    }
    if options.strace {
        tables.extend(system_calls(&postgres, &products)?);
    }
    Ok(tables)
}

pub(crate) fn run_reconnecting(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let postgres = filled_server();
    let (count, clients) = (options.amount(LOGINS), 16);
    let authority = Authority::new();
    let pair = authority.server(&["localhost"]);
    let title = format!("pgbench -S -C over {SIZE} servers ({count} logins a round, {clients} clients)");
    let mut table = Table::new(title, &columns("CPU µs per login and transaction"));
    for tls in [false, true] {
        let load =
            Load { clients, tls, reconnect: true, transactions: (count / clients).max(1), ..Load::default() };
        let setup = |_| Setup { certificate: tls.then_some(&pair), ..Setup::of(SIZE) };
        let beside = cpu_us(options, &placement, &postgres, setup, &load)?;
        add_to(&mut table, if tls { "TLS" } else { "plain" }, &beside, None, |us| format!("{us:.1}"));
    }
    Ok(vec![table])
}

fn cpu_us<'a>(
    options: &Options,
    placement: &Placement,
    postgres: &Postgres,
    setup: impl Fn(Product) -> Setup<'a>,
    load: &Load<'_>,
) -> anyhow::Result<Beside> {
    let products = poolers(options);
    let mut running = Vec::new();
    for &product in &products {
        let pooler = Pooler::start(product, postgres, &setup(product))?;
        placement.place(pooler.pid())?;
        // What only first transactions cost is not the price of each.
        Load { transactions: 4, ..*load }.run_unlogged(pooler.address())?;
        running.push((product, pooler));
    }
    let count = (load.clients * load.transactions) as f64;
    Beside::measure(&products, options.repeat(), |product| {
        let pooler = running.iter().find(|(other, _)| *other == product).map(|(_, pooler)| pooler);
        let pooler = pooler.context("every product was started")?;
        let before = pooler.cpu_time();
        load.run_unlogged(pooler.address()).with_context(|| format!("through {}", product.name()))?;
        Ok((pooler.cpu_time() - before).as_secs_f64() * 1e6 / count)
    })
}

/// User-space instructions per transaction.
fn instructions(postgres: &Postgres, products: &[Product]) -> anyhow::Result<Vec<Table>> {
    let mut table = Table::new("User-space instructions per transaction", &columns("pgbench -S"));
    let mut judged = Table::new("A transaction in Tieline", &JUDGED);
    for (manner, most) in [(Manner::Simple, 3_600.0), (Manner::Extended, 4_900.0)] {
        let load = Load { manner, clients: AT_ONCE, ..Load::default() };
        let counted = Beside::measure(products, 1, |product| {
            tools::instructions_between(COUNTED, |tool, count| {
                let pooler = Pooler::start_under(tool, product, postgres, &Setup::of(SIZE))?;
                Load { transactions: count.div_ceil(AT_ONCE), ..load }.run_unlogged(pooler.address())?;
                pooler.stop();
                Ok(())
            })
        })?;
        add_to(&mut table, manner.name(), &counted, None, |count| format!("{count:.0}"));
        if let Some(ours) = counted.of(Product::Tieline).map(median) {
            let bar = format!("≤ {most}");
            judged.judge(manner.name(), format!("{ours:.0}"), &bar, Verdict::at_most(ours, most));
        }
    }
    let counted = products.contains(&Product::Tieline);
    Ok([table].into_iter().chain(counted.then_some(judged)).collect())
}

fn system_calls(postgres: &Postgres, products: &[Product]) -> anyhow::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for manner in [Manner::Simple, Manner::Extended] {
        let load =
            Load { manner, clients: AT_ONCE, transactions: COUNTED.1.div_ceil(AT_ONCE), ..Load::default() };
        let unit = Unit { name: manner.name(), count: AT_ONCE * load.transactions };
        let (totals, named) = calls::measure(unit, products, |product| {
            let pooler = Pooler::start(product, postgres, &Setup::of(SIZE))?;
            Load { transactions: 4, ..load }.run_unlogged(pooler.address())?;
            tools::system_calls(pooler.pid(), || load.run_unlogged(pooler.address()))
        })?;
        let mut table = Table::new(format!("System calls per {} transaction", manner.name()), &columns(""));
        add_to(&mut table, "all", &totals, None, |calls| format!("{calls:.1}"));
        tables.extend([table, named]);
    }
    Ok(tables)
}
