//! CPU per GiB of answers.

use anyhow::Context;

use super::load::ask;
use super::origin::{Origin, Page};
use crate::arguments::Options;
use crate::machine::Placement;
use crate::product::{Product, Traffic};
use crate::scenario::beside::{Bar, Beside};
use crate::scenario::bulk::with_splicing;
use crate::table::Table;

const GIB: usize = 1 << 30;
const AT_ONCE: usize = 16;
const SIZES: [(&str, usize); 2] = [("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];
/// No more than the better peer is no more than each.
const BARS: [Bar; 2] = [Bar { peer: Product::Haproxy, most: 1.0 }, Bar { peer: Product::Nginx, most: 1.0 }];

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let bytes = options.amount(2 * GIB);
    let gib = bytes as f64 / GIB as f64;
    let title = format!("CPU seconds per GiB of answers ({AT_ONCE} connections, {gib:.1} GiB a round)");
    let mut table = Table::new(title, &Beside::columns("Answers of"));
    let placement = Placement::new(options)?;
    let origin = Origin::start(&SIZES.map(|(_, size)| size))?;
    let products = with_splicing(options.products());
    let proxies = placement.start_all(&products, Traffic::Http, &[origin.address()])?;
    for (name, size) in SIZES {
        let (page, count) = (Page::of(size), bytes / size);
        let beside = Beside::measure(&products, options.repeat(), |product| {
            let proxy = &proxies[&product];
            let before = proxy.cpu_time();
            ask(proxy.address(), &page, count, AT_ONCE)
                .with_context(|| format!("{name} through {}", product.name()))?;
            let spent = proxy.cpu_time() - before;
            Ok(spent.as_secs_f64() * GIB as f64 / (count * size) as f64)
        })?;
        let seconds = |seconds: f64| format!("{seconds:.3}");
        beside.add_to(&mut table, name, &BARS, seconds);
        if products.contains(&Product::HaproxySplicing) {
            let what = format!("{name}, HAProxy forced to splice");
            beside.with(Product::HaproxySplicing, Product::Haproxy).add_to(&mut table, &what, &BARS, seconds);
        }
    }
    Ok(vec![table])
}
