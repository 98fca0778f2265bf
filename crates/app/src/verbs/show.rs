//! `tieline show`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tieline_base::Bytes;

use super::client::{Client, segment};
use super::target::Target;
use super::text::{Span, printable};

/// Which connection, and how to print.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The connection's id
    id: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Deserialize)]
struct Story {
    id: u64,
    listener: String,
    protocol: String,
    client: String,
    peer: Option<String>,
    identity: Option<String>,
    sni: Option<String>,
    carrier: Option<String>,
    route: Option<String>,
    upstream: Option<String>,
    endpoint: Option<String>,
    stage: String,
    stage_seconds: f64,
    age_seconds: f64,
    idle_seconds: f64,
    bytes_up: u64,
    bytes_down: u64,
    generation: u32,
    worker: u16,
    reason: Option<String>,
    opened_unix_seconds: f64,
    road: Vec<Mark>,
    detail: Option<String>,
    #[serde(default)]
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    number: u32,
    at_seconds: f64,
    duration_seconds: f64,
    asked: String,
    status: Option<u16>,
    reason: String,
    detail: Option<String>,
    route: Option<String>,
    endpoint: Option<String>,
    acquire_seconds: Option<f64>,
    first_byte_seconds: Option<f64>,
    #[serde(default)]
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Mark {
    stage: String,
    at_seconds: f64,
    detail: Option<String>,
}

/// Prints the whole story of one connection.
///
/// # Errors
/// When there is none with that id, or the server does not answer.
pub(crate) async fn run(client: &Client, args: ShowArgs) -> anyhow::Result<ExitCode> {
    let answer = client.get(&format!("/api/v1/connections/{}", segment(&args.id.to_string()))).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        out.write_all(&answer)?;
        writeln!(out)?;
    } else {
        let story: Story = serde_json::from_slice(&answer)?;
        let streams =
            if story.reason.is_none() { streams(client, story.id).await? } else { Streams::default() };
        print(&mut out, &story, &streams)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The streams that a connection carries now.
#[derive(Deserialize, Default)]
struct Streams {
    connections: Vec<Stream>,
    total: usize,
}

#[derive(Deserialize)]
struct Stream {
    id: u64,
}

/// So many are named.
const STREAMS_MAX: usize = 20;

async fn streams(client: &Client, of: u64) -> anyhow::Result<Streams> {
    let filter = segment(&format!("parent={of}"));
    let path = format!("/api/v1/connections?limit={STREAMS_MAX}&finished=false&filter={filter}");
    Ok(serde_json::from_slice(&client.get(&path).await?)?)
}

impl Streams {
    fn told(&self) -> String {
        let ids: Vec<String> = self.connections.iter().map(|stream| stream.id.to_string()).collect();
        match self.total.saturating_sub(ids.len()) {
            0 => ids.join(", "),
            more => format!("{} and {more} more", ids.join(", ")),
        }
    }
}

fn print(out: &mut impl Write, story: &Story, streams: &Streams) -> io::Result<()> {
    let opened = SignedDuration::from_secs_f64(story.opened_unix_seconds);
    let opened = Timestamp::from_duration(opened).unwrap_or(Timestamp::UNIX_EPOCH);
    writeln!(out, "connection {}, {} by listener \"{}\"", story.id, story.protocol, story.listener)?;
    let mut line = |name: &str, text: &str| writeln!(out, "  {name:<9} {}", printable(text));
    line("client", &story.client)?;
    for (name, value) in [
        ("peer", &story.peer),
        ("identity", &story.identity),
        ("sni", &story.sni),
        ("carrier", &story.carrier),
        ("route", &story.route),
        ("upstream", &story.upstream),
        ("endpoint", &story.endpoint),
    ] {
        if let Some(value) = value {
            line(name, value)?;
        }
    }
    if streams.total > 0 {
        line("streams", &streams.told())?;
    }
    line("opened", &format!("{opened:.3}"))?;
    line("stands", &standing(story))?;
    line("bytes", &format!("{} up, {} down", Bytes(story.bytes_up), Bytes(story.bytes_down)))?;
    line("config", &format!("generation {}, worker {}", story.generation, story.worker))?;
    writeln!(out)?;
    for mark in &story.road {
        let at = format!("{:.3}ms", mark.at_seconds * 1e3);
        let detail = printable(mark.detail.as_deref().unwrap_or_default());
        writeln!(out, "{}", format!("  {at:>14}  {:<9} {detail}", mark.stage).trim_end())?;
    }
    if !story.exchanges.is_empty() {
        writeln!(out, "\nexchanges")?;
    }
    story.exchanges.iter().try_for_each(|exchange| print_exchange(out, exchange))
}

fn print_exchange(out: &mut impl Write, exchange: &Exchange) -> io::Result<()> {
    let ms = |seconds: f64| format!("{:.3}ms", seconds * 1e3);
    let (at, took) = (ms(exchange.at_seconds), ms(exchange.duration_seconds));
    // Not every protocol asks in words of its own, nor answers with a code.
    let mut what = String::new();
    if !exchange.asked.is_empty() {
        let status = exchange.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        what = format!("{} -> {status} ", printable(&exchange.asked));
    }
    writeln!(out, "  {at:>14}  #{:<4} {what}in {took}", exchange.number)?;
    let mut parts = vec![exchange.reason.clone()];
    parts.extend(exchange.detail.clone());
    parts.extend(exchange.route.as_ref().map(|route| format!("route \"{route}\"")));
    parts.extend(exchange.endpoint.as_ref().map(|endpoint| format!("endpoint {endpoint}")));
    parts.extend(exchange.acquire_seconds.map(|waited| format!("waited {}", ms(waited))));
    parts.extend(exchange.first_byte_seconds.map(|waited| format!("first byte after {}", ms(waited))));
    writeln!(out, "  {:>14}        {}", "", printable(&parts.join("; ")))?;
    exchange.notes.iter().try_for_each(|note| writeln!(out, "  {:>14}        {}", "", printable(note)))
}

fn standing(story: &Story) -> String {
    let (age, idle) = (Span(story.age_seconds), Span(story.idle_seconds));
    match (&story.reason, &story.detail) {
        (Some(reason), Some(detail)) => format!("ended after {age}: {reason} ({detail})"),
        (Some(reason), None) => format!("ended after {age}: {reason}"),
        (None, _) => {
            let here = Span(story.stage_seconds);
            format!("in {} for {here}, {age} old, idle for {idle}", story.stage)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_reads_downwards_and_steers_no_terminal() {
        let story = serde_json::json!({
            "id": 17, "listener": "web", "protocol": "tcp", "client": "10.0.0.1:5", "identity": "ana",
            "sni": "a\u{1b}[2Jb", "route": "shop", "upstream": "shop", "endpoint": null, "stage": "release",
            "stage_seconds": 0.0, "age_seconds": 310.5, "idle_seconds": 1.0,
            "bytes_up": 2048, "bytes_down": 0, "generation": 3, "worker": 1, "reason": "unreachable",
            "opened_unix_seconds": 1_700_000_000.25,
            "road": [
                { "stage": "accept", "at_seconds": 0.0, "detail": "from 10.0.0.1:5 by listener \"web\"" },
                { "stage": "admit", "at_seconds": 0.000_012 },
                { "stage": "note", "at_seconds": 5.0, "detail": "endpoint x failed" },
            ],
            "detail": "connection refused",
        });
        let mut out = Vec::new();
        print(&mut out, &serde_json::from_value(story).unwrap(), &Streams::default()).unwrap();
        let expected = r#"connection 17, tcp by listener "web"
  client    10.0.0.1:5
  identity  ana
  sni       a\u{1b}[2Jb
  route     shop
  upstream  shop
  opened    2023-11-14T22:13:20.250Z
  stands    ended after 5m10s: unreachable (connection refused)
  bytes     2KiB up, 0B down
  config    generation 3, worker 1

         0.000ms  accept    from 10.0.0.1:5 by listener "web"
         0.012ms  admit
      5000.000ms  note      endpoint x failed
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
