//! The table of Tieline beside PgBouncer.

use crate::arguments::Options;
use crate::figure::median;
use crate::product::Product;
use crate::scenario::beside::Beside;
use crate::table::{Table, Verdict};

/// Those of the products asked for that speak PostgreSQL; ours first.
pub(crate) fn poolers(options: &Options) -> Vec<Product> {
    [Product::Tieline, Product::PgBouncer].into_iter().filter(|&product| options.asks_for(product)).collect()
}

/// The columns of [`add_to`], with the first saying what is measured.
pub(crate) fn columns(what: &str) -> [&str; 6] {
    [what, "Tieline", "PgBouncer", "÷ PgBouncer", "Bar", "Verdict"]
}

/// Adds the row of `beside`; ours may cost at most `most` times what the other's costs, if there is a bar.
pub(crate) fn add_to(
    table: &mut Table,
    what: &str,
    beside: &Beside,
    most: Option<f64>,
    format: impl Fn(f64) -> String,
) {
    let shown = |product| beside.of(product).map_or_else(dash, |figures| format(median(figures)));
    let ratio = beside.ratio(Product::PgBouncer);
    let verdict = match (&ratio, most) {
        (Some(ratio), Some(most)) => Verdict::at_most(ratio.median, most),
        _ => Verdict::None,
    };
    table.row([
        what.to_owned(),
        shown(Product::Tieline),
        shown(Product::PgBouncer),
        ratio.map_or_else(dash, |ratio| ratio.to_string()),
        most.map_or_else(String::new, |most| format!("≤ {most} × PgBouncer")),
        verdict.to_string(),
    ]);
}

fn dash() -> String {
    "–".to_owned()
}
