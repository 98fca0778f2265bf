//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::http;
use crate::product::Product;
use crate::scenario;

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
    Tcp(Chosen<scenario::Scenario>),
    /// Proxying HTTP: small requests, bodies, idle and stale connections beside HAProxy and nginx.
    Http(Chosen<http::Scenario>),
}

/// What to run of a suite, and how.
#[derive(Args)]
pub(crate) struct Chosen<S: ValueEnum + Send + Sync + 'static> {
    /// Which scenarios to run; all if none is named
    #[arg(value_enum)]
    scenarios: Vec<S>,
    #[command(flatten)]
    pub(crate) options: Options,
}

impl<S: ValueEnum + PartialEq + Send + Sync + 'static> Chosen<S> {
    /// The scenarios asked for, in the order of the documentation.
    pub(crate) fn scenarios(&self) -> Vec<S> {
        let asked = |scenario: &S| self.scenarios.is_empty() || self.scenarios.contains(scenario);
        S::value_variants().iter().filter(|scenario| asked(scenario)).cloned().collect()
    }
}

#[derive(Args)]
pub(crate) struct Options {
    /// Which products to run
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Product>,
    /// How often each measurement is repeated, the products taking turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Smaller amounts and three rounds: a first look, no figure to publish
    #[arg(long)]
    pub(crate) quick: bool,
    /// Count user-space instructions per short connection or small request with valgrind's callgrind
    #[arg(long)]
    pub(crate) callgrind: bool,
    /// Count system calls per short connection or small request with strace
    #[arg(long)]
    pub(crate) strace: bool,
    /// Let the scheduler place proxies and load, instead of giving each its own CPUs
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Use the release binary that is there, instead of building it first
    #[arg(long)]
    pub(crate) no_build: bool,
}

impl Options {
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
    use super::{Arguments, Chosen, Suite};
    use crate::product::Product;
    use crate::{http, scenario};
    use clap::Parser;

    fn suite(words: &[&str]) -> Suite {
        Arguments::try_parse_from(["tieline-bench"].iter().chain(words)).unwrap().suite
    }

    fn tcp(words: &[&str]) -> Chosen<scenario::Scenario> {
        let Suite::Tcp(tcp) = suite(&[&["tcp"], words].concat()) else { panic!("tcp was asked for") };
        tcp
    }

    #[test]
    fn naming_nothing_means_everything() {
        let all = tcp(&[]);
        assert_eq!((all.scenarios().len(), all.options.products().len()), (6, 3));
    }

    #[test]
    fn scenarios_and_products_can_be_picked() {
        let some = tcp(&["short", "bulk", "--only", "haproxy,nginx", "--quick"]);
        assert_eq!(some.scenarios(), [scenario::Scenario::Bulk, scenario::Scenario::Short]);
        let options = some.options;
        assert_eq!(options.products(), [Product::Haproxy, Product::Nginx]);
        assert_eq!((options.repeat(), options.amount(50), options.amount(5)), (3, 5, 1));
    }

    #[test]
    fn each_suite_has_its_own_scenarios() {
        let Suite::Http(http) = suite(&["http", "small"]) else { panic!("http was asked for") };
        assert_eq!(http.scenarios(), [http::Scenario::Small]);
        assert!(Arguments::try_parse_from(["tieline-bench", "http", "kill"]).is_err());
    }
}
