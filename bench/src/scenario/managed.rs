//! A Tieline with several listeners, for the scenarios that manage its live connections.

use std::net::SocketAddr;

use tieline_testkit::{Tieline, free_port, loopback};

use crate::arguments::Options;
use crate::config::TIELINE_SERVER;
use crate::machine;
use crate::product::Product;
use crate::table::Table;

/// Runs `scenario` if Tieline is among the products: nobody else has what it measures.
pub(crate) fn only_with_tieline(
    arguments: &Options,
    scenario: fn(&Options) -> anyhow::Result<Vec<Table>>,
) -> anyhow::Result<Vec<Table>> {
    if arguments.products().contains(&Product::Tieline) { scenario(arguments) } else { Ok(Vec::new()) }
}

/// A listener with one public route of the same name to an upstream of the same name.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    pub(crate) bind: SocketAddr,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// More lines for its upstream.
    pub(crate) upstream: &'static str,
}

impl Site {
    /// A site on a free port.
    pub(crate) fn new(name: &'static str, endpoints: &[SocketAddr]) -> Site {
        Site { name, bind: loopback(free_port()), endpoints: endpoints.to_vec(), upstream: "" }
    }
}

/// Live connections of a removed route may go on for so long.
pub(crate) const GRACE_S: u64 = 2;

/// The config of `sites`.
pub(crate) fn config(sites: &[Site]) -> String {
    let blocks = sites.iter().map(|Site { name, bind, endpoints, upstream }| {
        let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
        format!(
            "\n[listener.{name}]\nbind = \"{bind}\"\nprotocol = \"tcp\"\n\n\
             [[listener.{name}.route]]\nname = \"{name}\"\nupstream = \"{name}\"\naccess = \"public\"\n\
             grace = \"{GRACE_S}s\"\n\n\
             [upstream.{name}]\nendpoints = [{}]\nbalance = \"round-robin\"\n{upstream}",
            endpoints.join(", ")
        )
    });
    [TIELINE_SERVER.to_owned()].into_iter().chain(blocks).collect()
}

/// Starts it.
pub(crate) fn start(sites: &[Site]) -> anyhow::Result<Tieline> {
    Ok(Tieline::start_from(&machine::tieline_binary()?, &config(sites)))
}

/// How many connections ended by each reason since `before`, as the metrics count them: `drained 5000, idle
/// 2`.
pub(crate) fn reasons_since(before: &str, now: &str) -> Vec<(String, u64)> {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for (reason, series, value) in now.lines().filter_map(reason_of) {
        let earlier = before.lines().filter_map(reason_of).find(|(_, other, _)| *other == series);
        *counts.entry(reason.to_owned()).or_default() += value - earlier.map_or(0, |(_, _, value)| value);
    }
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The reason, the name and the value of a series of `tieline_connections_closed_total`.
fn reason_of(line: &str) -> Option<(&str, &str, u64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (_, labels) = series.strip_prefix("tieline_connections_closed_total{")?.split_once("reason=\"")?;
    let (reason, _) = labels.split_once('"')?;
    Some((reason, series, value.parse::<f64>().ok()? as u64))
}

/// The reasons in words, the most frequent first.
pub(crate) fn in_words(reasons: &[(String, u64)]) -> String {
    let mut sorted = reasons.to_vec();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> = sorted.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if words.is_empty() { "none told".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{in_words, reasons_since};

    #[test]
    fn reasons_are_counted_from_the_metrics_and_over_all_listeners() {
        let line = |listener: &str, reason: &str, count: u64| {
            format!(
                "tieline_connections_closed_total{{listener=\"{listener}\",reason=\"{reason}\"}} {count}\n"
            )
        };
        let before = line("a", "killed", 2) + "# HELP up\nup{reason=\"killed\"} 1\n";
        let now = line("a", "killed", 5) + &line("b", "killed", 4) + &line("a", "idle", 1) + "up 1\n";
        let since = reasons_since(&before, &now);
        assert_eq!(since, [("idle".into(), 1), ("killed".into(), 7)]);
        assert_eq!(in_words(&since), "killed 7, idle 1");
    }
}
