//! System calls of the products, side by side and by name.

use std::collections::{BTreeMap, BTreeSet};

use super::beside::Beside;
use crate::product::Product;
use crate::table::Table;

/// What the calls are divided by.
#[derive(Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) count: usize,
}

impl Unit {
    fn share(self, calls: u64) -> f64 {
        calls as f64 / self.count as f64
    }
}

/// Adds the totals to `table`; returns them, and a table of the calls by name.
pub(crate) fn add_to(
    table: &mut Table,
    unit: Unit,
    products: &[Product],
    count: impl Fn(Product) -> anyhow::Result<BTreeMap<String, u64>>,
) -> anyhow::Result<(Beside, Table)> {
    let (totals, named) = measure(unit, products, count)?;
    totals.add_to(table, "system calls", &[], |calls| format!("{calls:.1}"));
    Ok((totals, named))
}

/// The totals, and a table of the calls by name.
pub(crate) fn measure(
    unit: Unit,
    products: &[Product],
    count: impl Fn(Product) -> anyhow::Result<BTreeMap<String, u64>>,
) -> anyhow::Result<(Beside, Table)> {
    let mut by_product = BTreeMap::new();
    for &product in products {
        by_product.insert(product.name(), count(product)?);
    }
    let totals =
        Beside::measure(products, 1, |product| Ok(unit.share(by_product[product.name()].values().sum())))?;
    let first = format!("System call, per {}", unit.name);
    let mut columns = vec![first.as_str()];
    columns.extend(products.iter().map(|product| product.name()));
    let mut named = Table::new(format!("System calls per {}", unit.name), &columns);
    let names: BTreeSet<&String> = by_product.values().flat_map(BTreeMap::keys).collect();
    for name in names {
        let calls_of = |product: &Product| by_product[product.name()].get(name).copied().unwrap_or(0);
        let cells: Vec<f64> = products.iter().map(|product| unit.share(calls_of(product))).collect();
        if cells.iter().any(|&calls| calls >= 0.05) {
            named.row([name.clone()].into_iter().chain(cells.iter().map(|calls| format!("{calls:.1}"))));
        }
    }
    Ok((totals, named))
}
