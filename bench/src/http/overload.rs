//! Three times as much as the endpoint can do, a part of it important.

use std::net::SocketAddr;
use std::time::Duration;

use tieline_testkit::{Tieline, free_port, loopback};

use super::fickle::Fickle;
use super::origin::Page;
use super::pace::{Pace, Paced};
use crate::arguments::Options;
use crate::config::TIELINE_SERVER;
use crate::figure::percentile;
use crate::machine;
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

/// The endpoint answers so many at once, each after so long: 500 a second.
const AT_ONCE: f64 = 10.0;
const THINKS: Duration = Duration::from_millis(20);
const CRITICAL: f64 = 100.0;
const LASTS_MS: usize = 20_000;
const SUCCESS_MIN: f64 = 99.0;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

fn measure(options: &Options) -> anyhow::Result<Vec<Table>> {
    let (endpoint, address) = (Fickle::thinking(THINKS)?, loopback(free_port()));
    let route = |priority: &str| {
        format!(
            "\n[[listener.bench.route]]\nname = \"{priority}\"\npath = \"/{priority}\"\n\
             priority = \"{priority}\"\nupstream = \"bench\"\naccess = \"public\"\n"
        )
    };
    let config = format!(
        "{TIELINE_SERVER}\n[listener.bench]\nbind = \"{address}\"\nprotocol = \"http\"\n{}{}\n\
         [upstream.bench]\nendpoints = [\"{}\"]\npool = {{ size = {AT_ONCE}, queue = 200 }}\n\
         timeouts = {{ acquire = \"1s\" }}\n",
        route("critical"),
        route("low"),
        endpoint.address()
    );
    let _tieline = Tieline::start_from(&machine::tieline_binary()?, &config);
    let capacity = AT_ONCE / THINKS.as_secs_f64();
    let lasts = Duration::from_millis(options.amount(LASTS_MS) as u64);
    let low = 3.0 * capacity - CRITICAL;
    let (critical, others) = std::thread::scope(|scope| {
        let others = scope.spawn(|| ask(address, "/low", low, lasts));
        let critical = ask(address, "/critical", CRITICAL, lasts);
        (critical, others.join().expect("a load does not panic"))
    });
    let (critical, others) = (critical?, others?);
    let title = format!(
        "{:.0} requests/s to an endpoint that does {capacity:.0}: {CRITICAL:.0} critical, {low:.0} low \
         ({} s)",
        3.0 * capacity,
        lasts.as_secs()
    );
    let mut table = Table::new(title, &JUDGED);
    let verdict = Verdict::holds(success(&critical) >= SUCCESS_MIN);
    let what = "critical: answered; p50, p99";
    table.judge(what, in_words(&critical), "≥ 99 %", verdict);
    table.judge("low: answered; p50, p99", in_words(&others), "", Verdict::None);
    Ok(vec![table])
}

fn ask(proxy: SocketAddr, path: &str, per_second: f64, lasts: Duration) -> anyhow::Result<Paced> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\n\r\n").into_bytes();
    let page = Page { request, body: b"ok".to_vec() };
    let pace = Pace { per_second, connections: 8, connections_max: 2_000 };
    Ok(pace.ask(proxy, &page, |since| since >= lasts)?)
}

fn success(paced: &Paced) -> f64 {
    let all = paced.took_ms.len() + paced.failed;
    100.0 * paced.took_ms.len() as f64 / all.max(1) as f64
}

fn in_words(paced: &Paced) -> String {
    let at = |percent| percentile(&paced.took_ms, percent);
    format!(
        "{:.1} % of {}; {:.0}, {:.0} ms",
        success(paced),
        paced.took_ms.len() + paced.failed,
        at(50.0),
        at(99.0)
    )
}
