//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::http;
use crate::http::Nuisance;
use crate::postgres;
use crate::product::Product;
use crate::scenario;
use crate::tunnel;
use crate::tunnel::Peer;

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
    /// Pooling PostgreSQL: transactions, logins, idle clients, nuisances and failures, beside PgBouncer.
    Postgres(Chosen<postgres::Scenario>),
    /// Leading to far services: throughput, delays, cuts and many agents, beside rathole and ssh.
    Tunnel(Chosen<tunnel::Scenario>),
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
    /// Which nuisances of `http floods` to run, like `closed-windows`; all if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    only_nuisance: Vec<Nuisance>,
    /// Which peers to run of `tunnel`
    #[arg(long, value_enum, value_delimiter = ',')]
    only_peer: Vec<Peer>,
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
    /// Those of the products asked for that relay TCP and HTTP; ours first.
    pub(crate) fn products(&self) -> Vec<Product> {
        let relays = Product::value_variants().iter().filter(|&&product| product != Product::PgBouncer);
        relays.copied().filter(|&product| self.asks_for(product)).collect()
    }

    /// The peers asked for that lead to far services; ours first.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let all = Peer::value_variants().iter().copied();
        all.filter(|peer| self.only_peer.is_empty() || self.only_peer.contains(peer)).collect()
    }

    /// Whether `product` is to be measured.
    pub(crate) fn asks_for(&self, product: Product) -> bool {
        self.only.is_empty() || self.only.contains(&product)
    }

    /// The nuisances asked for, in the order of the documentation.
    pub(crate) fn nuisances(&self) -> impl Iterator<Item = Nuisance> {
        let all = Nuisance::value_variants().iter().copied();
        all.filter(|nuisance| self.only_nuisance.is_empty() || self.only_nuisance.contains(nuisance))
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
    use crate::http::Nuisance;
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
    fn a_nuisance_can_be_picked() {
        let nuisances = |words: &[&str]| {
            let Suite::Http(http) = suite(words) else { panic!("http was asked for") };
            http.options.nuisances().collect::<Vec<_>>()
        };
        assert_eq!(nuisances(&["http", "floods"]).len(), 12);
        let some = nuisances(&["http", "floods", "--only-nuisance", "closed-windows,slow-head"]);
        assert_eq!(some, [Nuisance::SlowHead, Nuisance::ClosedWindows]);
    }

    #[test]
    fn each_suite_has_its_own_scenarios() {
        let Suite::Http(http) = suite(&["http", "small"]) else { panic!("http was asked for") };
        assert_eq!(http.scenarios(), [http::Scenario::Small]);
        assert!(Arguments::try_parse_from(["tieline-bench", "http", "kill"]).is_err());
        assert!(matches!(suite(&["postgres", "cost"]), Suite::Postgres(_)));
    }
}
