//! CPU per short connection; on demand, instructions and system calls.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use tieline_testkit::{PATIENCE, wait_until};

use super::beside::{Bar, Beside};
use crate::arguments::Tcp;
use crate::backend::Echo;
use crate::crowd::{MESSAGE, short_connections};
use crate::machine::Placement;
use crate::product::{Product, Proxy};
use crate::table::Table;
use crate::tools;

const CONNECTIONS: usize = 20_000;
const AT_ONCE: usize = 16;
/// Each proxy connects from one address: more backend ports are more connections it can make a minute.
const BACKEND_PORTS: usize = 4;
/// Run lengths under callgrind, whose difference counts.
const COUNTED: (usize, usize) = (500, 2_500);
const BARS: [Bar; 1] = [Bar { peer: Product::Haproxy, most: 1.0 }];

pub(crate) fn run(arguments: &Tcp) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(arguments)?;
    let echo = Echo::start(BACKEND_PORTS)?;
    let count = arguments.amount(CONNECTIONS);
    let title = format!(
        "Short connections ({count} a round, {AT_ONCE} at once, {MESSAGE} bytes each way, the client closes)"
    );
    let mut table = Table::new(title, &Beside::columns("Per connection"));
    let proxies = placement.start_all(&arguments.products(), echo.addresses())?;
    let beside = Beside::measure(&arguments.products(), arguments.repeat(), |product| {
        let proxy = &proxies[&product];
        let before = proxy.cpu_time();
        relay(proxy, &echo, count).with_context(|| format!("through {}", product.name()))?;
        Ok((proxy.cpu_time() - before).as_secs_f64() * 1e6 / count as f64)
    })?;
    beside.add_to(&mut table, "CPU µs", &BARS, |us| format!("{us:.1}"));
    let mut by_name = None;
    if arguments.strace {
        let calls = |product: Product| {
            tools::system_calls(&proxies[&product], || relay(&proxies[&product], &echo, COUNTED.1))
        };
        by_name = system_calls(arguments, &mut table, calls)?;
    }
    drop(proxies);
    if arguments.callgrind {
        let counted = Beside::measure(&arguments.products(), 1, |product| {
            tools::instructions_per_unit(product, echo.addresses(), COUNTED, |proxy, n| {
                relay(proxy, &echo, n)
            })
        })?;
        counted.add_to(&mut table, "user-space instructions", &[], |count| format!("{count:.0}"));
    }
    Ok([table].into_iter().chain(by_name).collect())
}

/// Makes the connections and waits until the proxy has closed its side of all of them.
fn relay(proxy: &Proxy, echo: &Echo, count: usize) -> anyhow::Result<()> {
    short_connections(proxy.address(), count, AT_ONCE)?;
    ensure!(
        wait_until(PATIENCE, || echo.open() == 0),
        "{} connections were left open behind it",
        echo.open()
    );
    Ok(())
}

/// Adds the totals to `table`; returns a table of the calls by name.
fn system_calls(
    arguments: &Tcp,
    table: &mut Table,
    count: impl Fn(Product) -> anyhow::Result<BTreeMap<String, u64>>,
) -> anyhow::Result<Option<Table>> {
    let products = arguments.products();
    let mut by_product = BTreeMap::new();
    for &product in &products {
        by_product.insert(product.name(), count(product)?);
    }
    let per_connection = |calls: u64| calls as f64 / COUNTED.1 as f64;
    let totals = Beside::measure(&products, 1, |product| {
        Ok(per_connection(by_product[product.name()].values().sum()))
    })?;
    totals.add_to(table, "system calls", &[], |calls| format!("{calls:.1}"));
    let mut columns = vec!["System call, per connection"];
    columns.extend(products.iter().map(|product| product.name()));
    let mut named = Table::new("System calls of a short connection", &columns);
    let names: std::collections::BTreeSet<&String> = by_product.values().flat_map(BTreeMap::keys).collect();
    for name in names {
        let cells: Vec<f64> = products
            .iter()
            .map(|product| per_connection(by_product[product.name()].get(name).copied().unwrap_or(0)))
            .collect();
        if cells.iter().any(|&calls| calls >= 0.05) {
            named.row([name.clone()].into_iter().chain(cells.iter().map(|calls| format!("{calls:.1}"))));
        }
    }
    Ok(Some(named))
}
