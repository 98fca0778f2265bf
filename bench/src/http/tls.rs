//! TLS 1.3: CPU per request and per full handshake, memory per idle connection.

use std::io;

use anyhow::{Context, ensure};

use super::load::{Client, ask_over};
use super::origin::{Origin, Page, SMALL};
use super::secure::{Secured, Trust};
use crate::arguments::Options;
use crate::crowd::connect;
use crate::figure::median;
use crate::machine::{self, Placement};
use crate::product::{Product, Proxy, Traffic};
use crate::scenario::beside::{Bar, Beside};
use crate::scenario::idle::{CONNECTIONS, ROUNDS, settled_memory_kib};
use crate::table::{JUDGED, Table, Verdict};

const REQUESTS: usize = 40_000;
const HANDSHAKES: usize = 2_000;
const AT_ONCE: usize = 16;
const BARS: [Bar; 1] = [Bar { peer: Product::Haproxy, most: 1.0 }];
const KIB_MAX: f64 = 16.0;

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let trust = Trust::new()?;
    let origin = Origin::start(&[SMALL])?;
    let costs = costs(options, &trust, &origin)?;
    Ok(vec![costs, memory(options, &trust, &origin)?])
}

fn costs(options: &Options, trust: &Trust, origin: &Origin) -> anyhow::Result<Table> {
    let placement = Placement::new(options)?;
    let proxies = placement.start_all_with(&options.products(), |product| {
        Proxy::start_secure(product, Traffic::Http, trust, &[origin.address()])
    })?;
    let (requests, handshakes) = (options.amount(REQUESTS), options.amount(HANDSHAKES));
    let title = format!(
        "TLS 1.3, ECDSA P-256, X25519 ({requests} requests over {AT_ONCE} connections, \
         {handshakes} handshakes, a round)"
    );
    let mut table = Table::new(title, &Beside::columns("CPU µs"));
    let page = Page::of(SMALL);
    let mut measure = |what: &str, count: usize, load: &dyn Fn(&Proxy) -> io::Result<()>| {
        proxies.values().try_for_each(load)?;
        let cost = Beside::measure(&options.products(), options.repeat(), |product| {
            let proxy = &proxies[&product];
            let before = proxy.cpu_time();
            load(proxy).with_context(|| format!("{what} through {}", product.name()))?;
            Ok((proxy.cpu_time() - before).as_secs_f64() * 1e6 / count as f64)
        })?;
        cost.add_to(&mut table, what, &BARS, |us| format!("{us:.1}"));
        anyhow::Ok(())
    };
    measure("a request, kept alive", requests, &|proxy| {
        ask_over(|| trust.connect(proxy.address()), &page, requests, AT_ONCE)
    })?;
    measure("a full handshake and one request", handshakes, &|proxy| shake(proxy, trust, &page, handshakes))?;
    Ok(table)
}

/// Makes `count` connections, one after the other, each with a handshake and a request.
fn shake(proxy: &Proxy, trust: &Trust, page: &Page, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|source| {
        let socket = connect(proxy.address(), source)?;
        Client::from(trust.over(socket)?).ask_once(page)
    })
}

fn memory(options: &Options, trust: &Trust, origin: &Origin) -> anyhow::Result<Table> {
    let count = options.amount(CONNECTIONS).min(machine::connections_max());
    let title =
        format!("Memory of its own per idle TLS 1.3 connection ({count} connections, one request on each)");
    let mut table = Table::new(title, &JUDGED);
    let beside = Beside::measure(&options.products(), ROUNDS, |product| {
        let proxy = Proxy::start_secure(product, Traffic::Http, trust, &[origin.address()])?;
        kib_each(&proxy, trust, count).with_context(|| format!("through {}", product.name()))
    })?;
    for product in options.products() {
        let kib = median(beside.of(product).unwrap_or_default());
        let ours = product == Product::Tieline;
        let (bar, verdict) =
            if ours { ("≤ 16 KiB", Verdict::at_most(kib, KIB_MAX)) } else { ("", Verdict::None) };
        table.judge(product.name(), format!("{kib:.2} KiB"), bar, verdict);
    }
    Ok(table)
}

/// What `count` idle connections add to the memory of a proxy that has just served its first ones.
fn kib_each(proxy: &Proxy, trust: &Trust, count: usize) -> anyhow::Result<f64> {
    let page = Page::of(SMALL);
    drop(gather(proxy, trust, &page, 16)?);
    let before = settled_memory_kib(proxy);
    let mut clients = gather(proxy, trust, &page, count)?;
    let with_clients = settled_memory_kib(proxy);
    let answered = clients.iter_mut().step_by(50).all(|client| client.ask_once(&page).is_ok());
    ensure!(answered, "some were not idle but closed");
    Ok((with_clients as f64 - before as f64) / count as f64)
}

fn gather(proxy: &Proxy, trust: &Trust, page: &Page, count: usize) -> io::Result<Vec<Client<Secured>>> {
    let asked = |source| {
        let mut client = Client::from(trust.over(connect(proxy.address(), source)?)?);
        client.ask_once(page)?;
        Ok(client)
    };
    (0..count).map(asked).collect()
}
