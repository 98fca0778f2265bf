//! Products side by side: a figure a round for each, and the table of their medians and ratios.

use crate::figure::{Ratio, median};
use crate::product::Product;
use crate::table::{Table, Verdict};

/// Ours may cost at most `most` times what `peer` costs.
#[derive(Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) peer: Product,
    pub(crate) most: f64,
}

/// The figures of one measurement: for each product, one a round.
pub(crate) struct Beside {
    figures: Vec<(Product, Vec<f64>)>,
}

impl Beside {
    /// Measures each of `products` in turn, `rounds` times; every round begins with another one.
    pub(crate) fn measure(
        products: &[Product],
        rounds: u32,
        mut figure: impl FnMut(Product) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Beside> {
        let mut beside = Beside { figures: products.iter().map(|&product| (product, Vec::new())).collect() };
        for round in 0..rounds as usize {
            for turn in 0..products.len() {
                let (product, figures) = &mut beside.figures[(round + turn) % products.len()];
                figures.push(figure(*product)?);
            }
        }
        Ok(beside)
    }

    /// The columns of [`Beside::add_to`], with the first saying what is measured.
    pub(crate) fn columns(what: &str) -> [&str; 8] {
        [what, "Tieline", "HAProxy", "nginx", "÷ HAProxy", "÷ nginx", "Bar", "Verdict"]
    }

    /// Adds the row of this measurement.
    pub(crate) fn add_to(&self, table: &mut Table, what: &str, bars: &[Bar], format: impl Fn(f64) -> String) {
        let shown = |product| self.of(product).map_or_else(dash, |figures| format(median(figures)));
        let divided = |peer| self.ratio(peer).map_or_else(dash, |ratio| ratio.to_string());
        let judged = bars.iter().filter_map(|bar| Some(self.ratio(bar.peer)?.median <= bar.most));
        let verdict = judged.map(Verdict::holds).reduce(Verdict::and).unwrap_or(Verdict::None);
        let bars: Vec<String> =
            bars.iter().map(|bar| format!("≤ {} × {}", bar.most, bar.peer.name())).collect();
        table.row([
            what.to_owned(),
            shown(Product::Tieline),
            shown(Product::Haproxy),
            shown(Product::Nginx),
            divided(Product::Haproxy),
            divided(Product::Nginx),
            bars.join(", "),
            verdict.to_string(),
        ]);
    }

    /// The same rounds with the figures of `variant` in the column of `product`.
    pub(crate) fn with(&self, variant: Product, product: Product) -> Beside {
        let figures = self.figures.iter().filter(|(other, _)| *other != product).cloned();
        let renamed =
            figures.map(|(other, figures)| (if other == variant { product } else { other }, figures));
        Beside { figures: renamed.collect() }
    }

    /// The figures of `product`, one a round; `None` if it was not measured.
    pub(crate) fn of(&self, product: Product) -> Option<&[f64]> {
        let found = self.figures.iter().find(|(other, _)| *other == product);
        found.map(|(_, figures)| figures.as_slice())
    }

    fn ratio(&self, peer: Product) -> Option<Ratio> {
        Ratio::of(self.of(Product::Tieline)?, self.of(peer)?)
    }
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Bar, Beside};
    use crate::product::Product;
    use crate::table::Table;

    #[test]
    fn products_take_turns_and_every_round_begins_with_another() {
        let mut order = Vec::new();
        let all = [Product::Tieline, Product::Haproxy, Product::Nginx];
        Beside::measure(&all, 2, |product| {
            order.push(product);
            Ok(1.0)
        })
        .unwrap();
        assert_eq!(order[..3], all);
        assert_eq!(order[3..], [Product::Haproxy, Product::Nginx, Product::Tieline]);
    }

    #[test]
    fn one_missed_bar_fails_the_row_and_a_missing_peer_judges_nothing() {
        let bars = [Bar { peer: Product::Haproxy, most: 1.0 }, Bar { peer: Product::Nginx, most: 0.7 }];
        let verdict = |products: &[Product], tieline: f64| {
            let cost = |product| Ok(if product == Product::Tieline { tieline } else { 1.0 });
            let beside = Beside::measure(products, 3, cost).unwrap();
            let mut table = Table::new("x", &Beside::columns("x"));
            beside.add_to(&mut table, "x", &bars, |figure| figure.to_string());
            let row = table.to_string();
            let row = row.lines().last().unwrap();
            (row.contains("pass"), row.contains("FAIL"))
        };
        let all = [Product::Tieline, Product::Haproxy, Product::Nginx];
        assert_eq!(verdict(&all, 0.6), (true, false));
        assert_eq!(verdict(&all, 0.9), (false, true));
        assert_eq!(verdict(&all[..2], 0.9), (true, false));
        assert_eq!(verdict(&all[1..], 0.9), (false, false));
    }
}
