//! CPU per small request; on demand, instructions and system calls.

use std::net::SocketAddr;

use anyhow::Context;

use super::load::ask;
use super::origin::{Origin, Page, SMALL};
use crate::arguments::Options;
use crate::figure::median;
use crate::machine::Placement;
use crate::product::{Product, Proxy, Traffic};
use crate::scenario::beside::{Bar, Beside};
use crate::scenario::calls::{self, Unit};
use crate::table::{JUDGED, Table, Verdict};
use crate::tools;

const REQUESTS: usize = 60_000;
const AT_ONCE: usize = 16;
/// Run lengths under callgrind, whose difference counts; strace sees the greater.
const COUNTED: (usize, usize) = (1_000, 6_000);
const BARS: [Bar; 2] = [Bar { peer: Product::Haproxy, most: 0.8 }, Bar { peer: Product::Nginx, most: 0.8 }];
const INSTRUCTIONS_MAX: f64 = 10_000.0;
const CALLS_MAX: f64 = 4.5;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let origin = Origin::start(&[SMALL])?;
    let count = options.amount(REQUESTS);
    let title = format!(
        "Small requests ({count} a round, {AT_ONCE} connections kept alive, answers of {SMALL} bytes)"
    );
    let mut table = Table::new(title, &Beside::columns("Per request"));
    for (what, traffic) in [("CPU µs", Traffic::Http), ("CPU µs, access log on", Traffic::HttpLogged)] {
        let cost = cpu_us(options, &placement, traffic, origin.address(), count)?;
        cost.add_to(&mut table, what, &BARS, |us| format!("{us:.1}"));
    }
    let mut judged = Table::new("A small request in Tieline", &JUDGED);
    let by_name = options
        .strace
        .then(|| system_calls(options, &placement, &mut table, &mut judged, origin.address()))
        .transpose()?;
    if options.callgrind {
        instructions(options, &mut table, &mut judged, origin.address())?;
    }
    let counted = (options.strace || options.callgrind) && options.products().contains(&Product::Tieline);
    Ok([table].into_iter().chain(counted.then_some(judged)).chain(by_name).collect())
}

/// Asks `count` times through `proxy`.
fn ask_small(proxy: &Proxy, count: usize) -> anyhow::Result<()> {
    Ok(ask(proxy.address(), &Page::of(SMALL), count, AT_ONCE)?)
}

fn cpu_us(
    options: &Options,
    placement: &Placement,
    traffic: Traffic,
    origin: SocketAddr,
    count: usize,
) -> anyhow::Result<Beside> {
    let proxies = placement.start_all(&options.products(), traffic, &[origin])?;
    // What only first requests cost is not the price of each.
    proxies.values().try_for_each(|proxy| ask_small(proxy, AT_ONCE * 4))?;
    Beside::measure(&options.products(), options.repeat(), |product| {
        let proxy = &proxies[&product];
        let before = proxy.cpu_time();
        ask_small(proxy, count).with_context(|| format!("through {}", product.name()))?;
        Ok((proxy.cpu_time() - before).as_secs_f64() * 1e6 / count as f64)
    })
}

/// Adds the totals to `table` and judges ours; returns a table of the calls by name.
fn system_calls(
    options: &Options,
    placement: &Placement,
    table: &mut Table,
    judged: &mut Table,
    origin: SocketAddr,
) -> anyhow::Result<Table> {
    let proxies = placement.start_all(&options.products(), Traffic::Http, &[origin])?;
    let unit = Unit { name: "small request", count: COUNTED.1 };
    let (totals, named) = calls::add_to(table, unit, &options.products(), |product| {
        let proxy = &proxies[&product];
        tools::system_calls(proxy.pid(), || ask_small(proxy, COUNTED.1))
    })?;
    if let Some(ours) = totals.of(Product::Tieline).map(median) {
        let verdict = Verdict::at_most(ours, CALLS_MAX);
        judged.judge("system calls", format!("{ours:.2}"), "≤ 4.5", verdict);
    }
    Ok(named)
}

/// Adds the instructions of those that run under callgrind to `table` and judges ours.
fn instructions(
    options: &Options,
    table: &mut Table,
    judged: &mut Table,
    origin: SocketAddr,
) -> anyhow::Result<()> {
    let mut products = options.products();
    products.retain(|&product| product != Product::Nginx);
    let counted = Beside::measure(&products, 1, |product| {
        tools::instructions_per_unit(product, Traffic::Http, &[origin], COUNTED, ask_small)
    })?;
    counted.add_to(table, "user-space instructions", &[], |count| format!("{count:.0}"));
    if let Some(ours) = counted.of(Product::Tieline).map(median) {
        let verdict = Verdict::at_most(ours, INSTRUCTIONS_MAX);
        judged.judge("user-space instructions", format!("{ours:.0}"), "≤ 10,000", verdict);
    }
    Ok(())
}
