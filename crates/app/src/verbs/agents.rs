//! `tieline agents`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::Client;
use super::target::Target;
use super::text::{Span, columns, printable};

/// Which server, and how to print.
#[derive(Args, Debug)]
pub(crate) struct AgentsArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Deserialize)]
struct Agent {
    name: String,
    labels: BTreeMap<String, String>,
    state: String,
    copied: bool,
    version: Option<String>,
    away_seconds: Option<f64>,
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    attached: bool,
    carrier: Option<String>,
    client: String,
    age_seconds: f64,
    round_trip_ms: Option<f64>,
    loss_percent: Option<f64>,
    streams: u64,
    offers: Option<Vec<Offer>>,
}

#[derive(Deserialize)]
struct Offer {
    name: String,
    kind: String,
}

/// Lists the agents.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn run(client: &Client, args: AgentsArgs) -> anyhow::Result<ExitCode> {
    let answer = client.get("/api/v1/agents").await?;
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(&answer)?;
        writeln!(out)?;
    } else {
        let agents: Vec<Agent> = serde_json::from_slice(&answer)?;
        out.write_all(table(&agents).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

const HEAD: [&str; 11] =
    ["AGENT", "STATE", "SINCE", "CARRIER", "RTT", "LOSS", "STREAMS", "FROM", "VERSION", "LABELS", "OFFERS"];

fn table(agents: &[Agent]) -> String {
    columns(std::iter::once(HEAD.map(str::to_owned)).chain(agents.iter().flat_map(lines_of)))
}

/// A line for each link; one alone where there is none.
fn lines_of(agent: &Agent) -> Vec<[String; 11]> {
    match &*agent.links {
        [] => vec![line(agent, None)],
        links => links.iter().map(|link| line(agent, Some(link))).collect(),
    }
}

fn line(agent: &Agent, link: Option<&Link>) -> [String; 11] {
    let none = || "-".to_owned();
    // One of two may wait while the other is up.
    let state = match link {
        Some(link) if !link.attached && agent.state == "linked" => "resuming",
        _ => &agent.state,
    };
    let state = if agent.copied { format!("{state}, copied") } else { state.to_owned() };
    let since = link.map(|link| link.age_seconds).or(agent.away_seconds);
    let labels: Vec<String> = agent.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    [
        printable(&agent.name).into_owned(),
        state,
        since.map_or_else(none, |seconds| Span(seconds).to_string()),
        link.and_then(|link| link.carrier.clone()).unwrap_or_else(none),
        link.and_then(|link| link.round_trip_ms).map_or_else(none, |time| format!("{time:.1}ms")),
        link.and_then(|link| link.loss_percent).map_or_else(none, |percent| format!("{percent:.1}%")),
        link.map_or_else(none, |link| link.streams.to_string()),
        link.map_or_else(none, |link| printable(&link.client).into_owned()),
        agent.version.as_deref().map_or_else(none, |version| printable(version).into_owned()),
        if labels.is_empty() { none() } else { printable(&labels.join(",")).into_owned() },
        link.and_then(|link| link.offers.as_deref()).filter(|all| !all.is_empty()).map_or_else(none, offers),
    ]
}

/// `db,ssh,cache(unix)`: those of TCP go without saying.
fn offers(offers: &[Offer]) -> String {
    let told = |Offer { name, kind }: &Offer| match kind.as_str() {
        "tcp" => name.clone(),
        kind => format!("{name}({kind})"),
    };
    printable(&offers.iter().map(told).collect::<Vec<_>>().join(",")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_who_is_there_and_who_is_not() {
        let agents: Vec<Agent> = serde_json::from_str(
            r#"[{"name": "p7", "labels": {"a": "b"}, "state": "linked", "copied": false,
                 "version": "0.1.0", "away_seconds": null,
                 "links": [{"attached": true, "carrier": "quic", "client": "[::1]:4", "age_seconds": 61.0,
                            "round_trip_ms": 12.34, "loss_percent": 0.251, "streams": 3,
                            "offers": [{"name": "x", "kind": "unix"}, {"name": "y", "kind": "tcp"}]},
                           {"attached": false, "carrier": "tls", "client": "[::1]:5", "age_seconds": 2.0,
                            "round_trip_ms": null, "loss_percent": null, "streams": 0, "offers": null}]},
                {"name": "p8", "labels": {}, "state": "away", "copied": true,
                 "version": null, "away_seconds": null, "links": []}]"#,
        )
        .unwrap();
        let lines = [
            "AGENT  STATE         SINCE  CARRIER  RTT     LOSS  STREAMS  FROM     VERSION  LABELS  OFFERS",
            "p7     linked        1m01s  quic     12.3ms  0.3%  3        [::1]:4  0.1.0    a=b     x(unix),y",
            "p7     resuming      2.0s   tls      -       -     0        [::1]:5  0.1.0    a=b     -",
            "p8     away, copied  -      -        -       -     -        -        -        -       -\n",
        ];
        assert_eq!(table(&agents), lines.join("\n"));
    }
}
