//! CPU per GiB relayed.

use anyhow::Context;

use super::beside::{Bar, Beside};
use crate::arguments::Options;
use crate::backend::Bulk;
use crate::bulk_load::{Direction, transfer};
use crate::machine::Placement;
use crate::product::{Product, Traffic};
use crate::table::Table;

const CONNECTIONS: usize = 4;
const GIB: f64 = (1u64 << 30) as f64;
const BARS: [Bar; 2] = [Bar { peer: Product::Haproxy, most: 1.0 }, Bar { peer: Product::Nginx, most: 0.7 }];

pub(crate) fn run(arguments: &Options) -> anyhow::Result<Vec<Table>> {
    let bytes_each = arguments.amount(1 << 30) as u64;
    let total_gib = (bytes_each * CONNECTIONS as u64) as f64 / GIB;
    let title =
        format!("CPU seconds per GiB relayed ({CONNECTIONS} connections, {total_gib:.1} GiB a round)");
    let mut table = Table::new(title, &Beside::columns("Direction"));
    let placement = Placement::new(arguments)?;
    let backend = Bulk::start(bytes_each)?;
    let products = with_splicing(arguments.products());
    let proxies = placement.start_all(&products, Traffic::Tcp, &[backend.address()])?;
    for direction in [Direction::Download, Direction::Upload] {
        let beside = Beside::measure(&products, arguments.repeat(), |product| {
            let proxy = &proxies[&product];
            let before = proxy.cpu_time();
            transfer(proxy.address(), direction, CONNECTIONS, bytes_each)
                .with_context(|| format!("{direction:?} through {}", product.name()))?;
            Ok((proxy.cpu_time() - before).as_secs_f64() / total_gib)
        })?;
        let seconds = |seconds: f64| format!("{seconds:.3}");
        beside.add_to(&mut table, &format!("{direction:?}"), &BARS, seconds);
        if products.contains(&Product::HaproxySplicing) {
            let what = format!("{direction:?}, HAProxy forced to splice");
            beside.with(Product::HaproxySplicing, Product::Haproxy).add_to(&mut table, &what, &[], seconds);
        }
    }
    Ok(vec![table])
}

/// HAProxy twice: as most configure it, and at its best.
pub(crate) fn with_splicing(mut products: Vec<Product>) -> Vec<Product> {
    if products.contains(&Product::Haproxy) {
        products.push(Product::HaproxySplicing);
    }
    products
}
