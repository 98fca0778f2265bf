//! Memory per idle connection that was kept alive.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, ensure};

use super::load::Client;
use super::origin::{Origin, Page, SMALL};
use crate::arguments::Options;
use crate::crowd::connect;
use crate::machine;
use crate::product::{Proxy, Traffic};
use crate::scenario::beside::Beside;
use crate::scenario::idle::{CONNECTIONS, ROUNDS, judge, settled_memory_kib};
use crate::table::{JUDGED, Table};

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let count = options.amount(CONNECTIONS).min(machine::connections_max());
    let origin = Origin::start(&[SMALL])?;
    let mut table = Table::new(
        format!("Memory of its own per idle HTTP connection ({count} connections, one request on each)"),
        &JUDGED,
    );
    let beside = Beside::measure(&options.products(), ROUNDS, |product| {
        let proxy = Proxy::start(product, Traffic::Http, &[origin.address()])?;
        kib_each(&proxy, count).with_context(|| format!("through {}", product.name()))
    })?;
    judge(&mut table, &beside, &options.products());
    Ok(vec![table])
}

/// What `count` idle connections add to the memory of a proxy that has just served its first ones.
fn kib_each(proxy: &Proxy, count: usize) -> anyhow::Result<f64> {
    let page = Page::of(SMALL);
    // What the first connections allocate once and for all is not the price of each.
    drop(gather(proxy.address(), &page, 16)?);
    let before = settled_memory_kib(proxy);
    let mut clients = gather(proxy.address(), &page, count)?;
    let with_clients = settled_memory_kib(proxy);
    let answered = clients.iter_mut().step_by(50).all(|client| client.ask_once(&page).is_ok());
    ensure!(answered, "some were not idle but closed");
    Ok((with_clients as f64 - before as f64) / count as f64)
}

/// Opens `count` connections and asks once on each.
fn gather(proxy: SocketAddr, page: &Page, count: usize) -> io::Result<Vec<Client>> {
    let asked = |source| {
        let mut client = Client::from(connect(proxy, source)?);
        client.ask_once(page)?;
        Ok(client)
    };
    (0..count).map(asked).collect()
}
