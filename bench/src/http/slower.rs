//! One endpoint of four that is ten times slower than the others.

use std::time::Duration;

use super::fickle::Fickle;
use super::origin::Page;
use super::pace::Pace;
use crate::arguments::Options;
use crate::figure::{median, percentile};
use crate::product::{Product, Proxy, Traffic};
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

const ENDPOINTS: usize = 4;
const HEALTHY: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(50);
/// Requests a second: a quarter of it on each endpoint keeps five of its connections busy.
const PACE: Pace = Pace { per_second: 1_000.0, connections: 32, connections_max: 256 };
/// A stretch at the pace, in milliseconds, and what is left out of it: the first answers teach.
const STRETCH_MS: usize = 20_000;
const P99_MAX: f64 = 2.0;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let stretch = Duration::from_millis(options.amount(STRETCH_MS) as u64);
    let (mut calm, mut one_slow, mut failed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.repeat().min(3) {
        for (slow, p99s) in [(HEALTHY, &mut calm), (SLOW, &mut one_slow)] {
            let mut thinking = [HEALTHY; ENDPOINTS];
            thinking[0] = slow;
            let (p99, broken) = p99_of(&thinking, stretch)?;
            p99s.push(p99);
            failed += broken;
        }
    }
    let title = format!(
        "{ENDPOINTS} endpoints of {} ms, then one of them of {} ms ({} requests/s, {} s each, peak-ewma)",
        HEALTHY.as_millis(),
        SLOW.as_millis(),
        PACE.per_second,
        stretch.as_secs()
    );
    let mut table = Table::new(title, &JUDGED);
    let (before, after) = (median(&calm), median(&one_slow));
    let measured = format!("{before:.1} → {after:.1} ms ({:.2} ×)", after / before);
    table.judge("p99 of an answer", measured, "< 2 ×", Verdict::holds(after < P99_MAX * before));
    table.judge("failed", failed.to_string(), "0", Verdict::holds(failed == 0));
    Ok(vec![table])
}

/// The p99 in milliseconds through a proxy before endpoints that think so long; and how many failed.
fn p99_of(thinking: &[Duration], stretch: Duration) -> anyhow::Result<(f64, usize)> {
    let endpoints: Vec<Fickle> =
        thinking.iter().map(|&think| Fickle::thinking(think)).collect::<Result<_, _>>()?;
    let addresses: Vec<_> = endpoints.iter().map(Fickle::address).collect();
    let proxy = Proxy::start_balancing(Product::Tieline, Traffic::Http, &addresses)?;
    let page = Page { body: b"ok".to_vec(), ..Page::of(2) };
    let learned = PACE.ask(proxy.address(), &page, |since| since >= stretch / 4)?;
    let paced = PACE.ask(proxy.address(), &page, |since| since >= stretch)?;
    Ok((percentile(&paced.took_ms, 99.0), learned.failed + paced.failed))
}
