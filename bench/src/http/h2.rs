//! Small requests over HTTP/2, as h2load asks them: CPU per request, beside nginx as such a front.

use std::process::Command;

use anyhow::{Context, ensure};
use tieline_testkit::{finish, program};

use super::origin::{Origin, SMALL};
use super::secure::Trust;
use crate::arguments::Options;
use crate::machine::Placement;
use crate::product::{Product, Proxy, Traffic};
use crate::scenario::beside::{Bar, Beside};
use crate::table::Table;

const REQUESTS: usize = 60_000;
const CONNECTIONS: usize = 16;
/// Streams of each connection at once.
const STREAMS: usize = 8;
const BARS: [Bar; 1] = [Bar { peer: Product::Nginx, most: 1.0 }];

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let placement = Placement::new(options)?;
    let (trust, origin) = (Trust::new()?, Origin::start(&[SMALL])?);
    let count = options.amount(REQUESTS);
    let title = format!(
        "HTTP/2 towards clients ({count} requests a round by h2load, {CONNECTIONS} connections of {STREAMS} \
         streams each; HTTP/1.1 towards the backend)"
    );
    let mut table = Table::new(title, &Beside::columns("CPU µs per request"));
    for (what, scheme, trust) in [("over TLS 1.3", "https", Some(&trust)), ("prior knowledge", "http", None)]
    {
        let proxies = placement.start_all_with(&options.products(), |product| {
            Proxy::start_http2(product, Traffic::Http, trust, &[origin.address()])
        })?;
        // What only first requests cost is not the price of each.
        proxies.values().try_for_each(|proxy| ask(proxy, scheme, STREAMS * CONNECTIONS * 4))?;
        let cost = Beside::measure(&options.products(), options.repeat(), |product| {
            let proxy = &proxies[&product];
            let before = proxy.cpu_time();
            ask(proxy, scheme, count).with_context(|| format!("through {}", product.name()))?;
            Ok((proxy.cpu_time() - before).as_secs_f64() * 1e6 / count as f64)
        })?;
        cost.add_to(&mut table, what, &BARS, |us| format!("{us:.1}"));
    }
    Ok(vec![table])
}

/// Has h2load ask `count` times, and every one of them answered.
fn ask(proxy: &Proxy, scheme: &str, count: usize) -> anyhow::Result<()> {
    let url = format!("{scheme}://{}/{SMALL}", proxy.address());
    let [count, connections, streams] = [count, CONNECTIONS, STREAMS].map(|number| number.to_string());
    let mut h2load = Command::new(program("h2load"));
    h2load.args(["-t", "1", "-n", &count, "-c", &connections, "-m", &streams, &url]);
    let ended = finish(&mut h2load);
    ensure!(ended.success(), "h2load failed: {}", ended.stderr);
    let told = ended.stdout;
    let whole = format!("{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout");
    ensure!(told.contains(&whole), "h2load tells of failures: {told}");
    ensure!(told.contains(&format!("{count} 2xx")), "h2load was answered otherwise: {told}");
    Ok(())
}
