//! Memory per idle connection.

use std::time::Duration;

use anyhow::{Context, ensure};
use tieline_testkit::{PATIENCE, usage, wait_for, wait_until};

use super::beside::Beside;
use crate::arguments::Options;
use crate::backend::Echo;
use crate::crowd::Crowd;
use crate::figure::median;
use crate::machine;
use crate::product::{Product, Proxy, Traffic};
use crate::table::{JUDGED, Table, Verdict};

pub(crate) const CONNECTIONS: usize = 10_000;
const BACKEND_PORTS: usize = 4;
const KIB_MAX: f64 = 2.0;
/// One reading of each is enough: memory repeats where time does not. Two show that it does.
pub(crate) const ROUNDS: u32 = 2;

pub(crate) fn run(arguments: &Options) -> anyhow::Result<Vec<Table>> {
    let count = arguments.amount(CONNECTIONS).min(machine::connections_max());
    let echo = Echo::start(BACKEND_PORTS)?;
    let mut table = Table::new(
        format!("Memory of its own per idle connection ({count} connections, one byte echoed on each)"),
        &JUDGED,
    );
    let beside = Beside::measure(&arguments.products(), ROUNDS, |product| {
        let proxy = Proxy::start(product, Traffic::Tcp, echo.addresses())?;
        kib_each(&proxy, &echo, count).with_context(|| format!("through {}", product.name()))
    })?;
    judge(&mut table, &beside, &arguments.products());
    Ok(vec![table])
}

/// Adds the KiB of each product; ours are judged.
pub(crate) fn judge(table: &mut Table, beside: &Beside, products: &[Product]) {
    for &product in products {
        let kib = median(beside.of(product).unwrap_or_default());
        let ours = product == Product::Tieline;
        let (bar, verdict) =
            if ours { ("≤ 2 KiB", Verdict::at_most(kib, KIB_MAX)) } else { ("", Verdict::None) };
        table.judge(product.name(), format!("{kib:.2} KiB"), bar, verdict);
    }
}

/// What `count` idle connections add to the memory of a proxy that has just served its first ones.
fn kib_each(proxy: &Proxy, echo: &Echo, count: usize) -> anyhow::Result<f64> {
    // What the first connections allocate once and for all is not the price of each.
    drop(Crowd::gather(proxy.address(), 16)?);
    ensure!(wait_until(PATIENCE, || echo.open() == 0), "the first connections were not closed");
    let before = settled_memory_kib(proxy);
    let crowd = Crowd::gather(proxy.address(), count)?;
    let with_crowd = settled_memory_kib(proxy);
    drop(crowd);
    ensure!(
        wait_until(PATIENCE, || echo.open() == 0),
        "{} connections were left open behind it",
        echo.open()
    );
    Ok((with_crowd as f64 - before as f64) / count as f64)
}

/// The memory once it stays the same: some give buffers back a moment later.
pub(crate) fn settled_memory_kib(proxy: &Proxy) -> u64 {
    settled_own_memory_kib(proxy.pid())
}

/// [`settled_memory_kib`] of any process.
pub(crate) fn settled_own_memory_kib(pid: u32) -> u64 {
    let read = || usage::own_memory_kib(pid);
    let mut last = (read(), 0);
    let settled = wait_for(Duration::from_secs(5), || {
        let now = read();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (last.1 >= 100).then_some(now)
    });
    settled.unwrap_or(last.0)
}
