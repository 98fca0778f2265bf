//! Products side by side: a figure a round for each, and the table of their medians and ratios.

use crate::figure::Ratio;
use crate::product::Product;
use crate::rounds::Rounds;
use crate::table::{Table, Verdict};

/// Ours may cost at most `most` times what `peer` costs.
#[derive(Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) peer: Product,
    pub(crate) most: f64,
}

/// The figures of one measurement: for each product, one a round.
pub(crate) struct Beside {
    rounds: Rounds<Product>,
}

impl Beside {
    /// Measures each of `products` in turn, `rounds` times; every round begins with another one.
    pub(crate) fn measure(
        products: &[Product],
        rounds: u32,
        figure: impl FnMut(Product) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Beside> {
        Ok(Beside { rounds: Rounds::measure(products, rounds, figure)? })
    }

    /// What was measured elsewhere: figures in the order of their rounds.
    pub(crate) fn from_rounds(products: &[Product], figures: &[(Product, f64)]) -> Beside {
        Beside { rounds: Rounds::told(products, figures) }
    }

    /// The columns of [`Beside::add_to`], with the first saying what is measured.
    pub(crate) fn columns(what: &str) -> [&str; 8] {
        [what, "Tieline", "HAProxy", "nginx", "÷ HAProxy", "÷ nginx", "Bar", "Verdict"]
    }

    /// Adds the row of this measurement.
    pub(crate) fn add_to(&self, table: &mut Table, what: &str, bars: &[Bar], format: impl Fn(f64) -> String) {
        let shown = |product| self.rounds.shown(product, &format);
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
        Beside { rounds: self.rounds.with(variant, product) }
    }

    /// The figures of `product`, one a round; `None` if it was not measured.
    pub(crate) fn of(&self, product: Product) -> Option<&[f64]> {
        self.rounds.of(product)
    }

    /// Ours divided by those of `peer`, round by round.
    pub(crate) fn ratio(&self, peer: Product) -> Option<Ratio> {
        self.rounds.ratio(Product::Tieline, peer)
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
