//! The time of an answer at half of what the peer can do.

use std::time::Duration;

use anyhow::Context;
use tieline_base::Clock;

use super::load::ask;
use super::origin::{Origin, Page, SMALL};
use super::pace::Pace;
use crate::arguments::Options;
use crate::figure::percentile;
use crate::machine::Placement;
use crate::product::{Product, Traffic};
use crate::scenario::beside::{Bar, Beside};
use crate::table::Table;

const REQUESTS: usize = 60_000;
const AT_ONCE: usize = 16;
/// A stretch at the pace, in milliseconds.
const STRETCH_MS: usize = 5_000;
const BARS: [Bar; 2] = [Bar { peer: Product::Haproxy, most: 1.0 }, Bar { peer: Product::Nginx, most: 1.0 }];

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let origin = Origin::start(&[SMALL])?;
    let (products, page) = (options.products(), Page::of(SMALL));
    let proxies = placement.start_all(&products, Traffic::Http, &[origin.address()])?;
    let peers: Vec<Product> =
        products.iter().copied().filter(|&product| product != Product::Tieline).collect();
    let title = format!(
        "p99 of an answer of {SMALL} bytes at half of the peer's peak ({} s a round, open loop)",
        options.amount(STRETCH_MS) as f64 / 1e3
    );
    let mut table = Table::new(title, &Beside::columns("ms"));
    for peer in peers {
        let count = options.amount(REQUESTS);
        let began = Clock::now();
        ask(proxies[&peer].address(), &page, count, AT_ONCE)?;
        let peak = count as f64 / Clock::now().since(began).as_secs_f64();
        let pace = Pace { per_second: peak / 2.0, connections: AT_ONCE, connections_max: 4 * AT_ONCE };
        let stretch = Duration::from_millis(options.amount(STRETCH_MS) as u64);
        let pair = [Product::Tieline, peer].map(|it| products.contains(&it).then_some(it));
        let pair: Vec<Product> = pair.into_iter().flatten().collect();
        let beside = Beside::measure(&pair, options.repeat(), |product| {
            let paced = pace
                .ask(proxies[&product].address(), &page, |since| since >= stretch)
                .with_context(|| format!("through {}", product.name()))?;
            anyhow::ensure!(paced.failed == 0, "{} requests failed", paced.failed);
            Ok(percentile(&paced.took_ms, 99.0))
        })?;
        let what = format!("p99 at {:.0} requests/s, half of {}'s {peak:.0}", peak / 2.0, peer.name());
        let bars = BARS.iter().filter(|bar| bar.peer == peer).copied().collect::<Vec<_>>();
        beside.add_to(&mut table, &what, &bars, |ms| format!("{ms:.3}"));
    }
    Ok(vec![table])
}
