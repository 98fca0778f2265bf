//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::product::Product;
use crate::scenario::Scenario;

/// Measures Tieline beside its peers and prints Markdown tables.
#[derive(Parser)]
#[command(name = "tieline-bench")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) suite: Suite,
}

#[derive(Subcommand)]
pub(crate) enum Suite {
    /// Relaying TCP: bulk, short and idle connections beside HAProxy and nginx; reload, kill and ls alone.
    Tcp(Tcp),
}

#[derive(Args)]
pub(crate) struct Tcp {
    /// Which scenarios to run; all if none is named
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Which products to run
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Product>,
    /// How often each measurement is repeated, the products taking turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Smaller amounts and three rounds: a first look, no figure to publish
    #[arg(long)]
    pub(crate) quick: bool,
    /// Count user-space instructions per short connection with valgrind's callgrind
    #[arg(long)]
    pub(crate) callgrind: bool,
    /// Count system calls per short connection with strace
    #[arg(long)]
    pub(crate) strace: bool,
    /// Let the scheduler place proxies and load, instead of giving each its own CPUs
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Use the release binary that is there, instead of building it first
    #[arg(long)]
    pub(crate) no_build: bool,
}

impl Tcp {
    /// The scenarios asked for, in the order of the documentation.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let asked = |scenario: &Scenario| self.scenarios.is_empty() || self.scenarios.contains(scenario);
        Scenario::value_variants().iter().copied().filter(asked).collect()
    }

    /// The products asked for; ours first.
    pub(crate) fn products(&self) -> Vec<Product> {
        let asked = |product: &Product| self.only.is_empty() || self.only.contains(product);
        Product::value_variants().iter().copied().filter(asked).collect()
    }

    /// How often each measurement is repeated.
    pub(crate) fn repeat(&self) -> u32 {
        if self.quick { self.rounds.min(3) } else { self.rounds }
    }

    /// An amount of work, or a tenth of it for a first look.
    pub(crate) fn amount(&self, whole: usize) -> usize {
        if self.quick { (whole / 10).max(1) } else { whole }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Suite, Tcp};
    use crate::product::Product;
    use clap::Parser;

    fn tcp(words: &[&str]) -> Tcp {
        let words = ["tieline-bench", "tcp"].iter().chain(words);
        let Suite::Tcp(tcp) = Arguments::try_parse_from(words).unwrap().suite;
        tcp
    }

    #[test]
    fn naming_nothing_means_everything() {
        let all = tcp(&[]);
        assert_eq!((all.scenarios().len(), all.products().len()), (6, 3));
    }

    #[test]
    fn scenarios_and_products_can_be_picked() {
        let some = tcp(&["short", "bulk", "--only", "haproxy,nginx", "--quick"]);
        let names: Vec<_> = some.scenarios().iter().map(|scenario| scenario.name()).collect();
        assert_eq!(names, ["bulk", "short"]);
        assert_eq!(some.products(), [Product::Haproxy, Product::Nginx]);
        assert_eq!((some.repeat(), some.amount(50), some.amount(5)), (3, 5, 1));
    }
}
