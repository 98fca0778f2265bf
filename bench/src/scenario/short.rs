//! CPU per short connection; on demand, instructions and system calls.

use anyhow::{Context, ensure};
use tieline_testkit::{PATIENCE, wait_until};

use super::beside::{Bar, Beside};
use super::calls::{self, Unit};
use crate::arguments::Options;
use crate::backend::Echo;
use crate::crowd::{MESSAGE, short_connections};
use crate::machine::Placement;
use crate::product::{Product, Proxy, Traffic};
use crate::table::Table;
use crate::tools;

const CONNECTIONS: usize = 20_000;
const AT_ONCE: usize = 16;
/// Each proxy connects from one address: more backend ports are more connections it can make a minute.
const BACKEND_PORTS: usize = 4;
/// Run lengths under callgrind, whose difference counts.
const COUNTED: (usize, usize) = (500, 2_500);
const BARS: [Bar; 1] = [Bar { peer: Product::Haproxy, most: 1.0 }];

pub(crate) fn run(arguments: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(arguments)?;
    let echo = Echo::start(BACKEND_PORTS)?;
    let count = arguments.amount(CONNECTIONS);
    let title = format!(
        "Short connections ({count} a round, {AT_ONCE} at once, {MESSAGE} bytes each way, the client closes)"
    );
    let mut table = Table::new(title, &Beside::columns("Per connection"));
    let proxies = placement.start_all(&arguments.products(), Traffic::Tcp, echo.addresses())?;
    let beside = Beside::measure(&arguments.products(), arguments.repeat(), |product| {
        let proxy = &proxies[&product];
        let before = proxy.cpu_time();
        relay(proxy, &echo, count).with_context(|| format!("through {}", product.name()))?;
        Ok((proxy.cpu_time() - before).as_secs_f64() * 1e6 / count as f64)
    })?;
    beside.add_to(&mut table, "CPU µs", &BARS, |us| format!("{us:.1}"));
    let mut by_name = None;
    if arguments.strace {
        let count_calls = |product: Product| {
            tools::system_calls(proxies[&product].pid(), || relay(&proxies[&product], &echo, COUNTED.1))
        };
        let unit = Unit { name: "connection", count: COUNTED.1 };
        by_name = Some(calls::add_to(&mut table, unit, &arguments.products(), count_calls)?.1);
    }
    drop(proxies);
    if arguments.callgrind {
        let counted = Beside::measure(&arguments.products(), 1, |product| {
            let (traffic, backends) = (Traffic::Tcp, echo.addresses());
            tools::instructions_per_unit(product, traffic, backends, COUNTED, |proxy, n| {
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
