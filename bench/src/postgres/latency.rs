//! The time of a transaction when many clients wait for few servers.

use super::beside::{add_to, columns, poolers};
use super::cost::filled_server;
use super::pgbench::{Load, Manner};
use super::pooler::{Pooler, Setup};
use crate::arguments::Options;
use crate::figure::percentile;
use crate::machine::Placement;
use crate::scenario::beside::Beside;
use crate::table::Table;

const CLIENTS: usize = 500;
const SIZE: usize = 10;
const TRANSACTIONS: usize = 40_000;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let (postgres, products) = (filled_server(), poolers(options));
    let title = format!("{CLIENTS} clients over {SIZE} servers, as fast as they can");
    let mut table = Table::new(title, &columns("ms"));
    for manner in [Manner::Simple, Manner::Extended] {
        let transactions = (options.amount(TRANSACTIONS) / CLIENTS).max(5);
        let load = Load { manner, clients: CLIENTS, transactions, ..Load::default() };
        let mut medians = Vec::new();
        let p99 = Beside::measure(&products, options.repeat(), |product| {
            let pooler = Pooler::start(product, &postgres, &Setup::of(SIZE))?;
            placement.place(pooler.pid())?;
            let seen = load.run(pooler.address())?;
            medians.push((product, percentile(&seen.took_ms, 50.0)));
            Ok(percentile(&seen.took_ms, 99.0))
        })?;
        let median = Beside::from_rounds(&products, &medians);
        add_to(&mut table, &format!("{}, p99", manner.name()), &p99, Some(0.8), |ms| format!("{ms:.1}"));
        add_to(&mut table, &format!("{}, median", manner.name()), &median, None, |ms| format!("{ms:.1}"));
    }
    Ok(vec![table])
}
