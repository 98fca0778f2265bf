//! `tieline approvals`, `tieline approve` and `tieline deny`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use tieline_base::parse_duration;
use tieline_policy::approval::{ApprovalId, NoApprovalId};

use super::client::Client;
use super::target::Target;
use super::text::{Span, columns, printable};

/// Which requests, and how to print them.
#[derive(Args, Debug)]
pub(crate) struct ApprovalsArgs {
    /// Those that are over, too
    #[arg(long)]
    all: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What is agreed to, and for how long.
#[derive(Args, Debug)]
pub(crate) struct ApproveArgs {
    /// The request, as `tieline approvals` lists it
    #[arg(value_name = "ID", value_parser = id)]
    id: ApprovalId,
    /// For how long, at most as long as its route says; so long if left out
    #[arg(long = "for", value_name = "DURATION", value_parser = held)]
    holds: Option<String>,
    /// A few words for who asked, and for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    #[command(flatten)]
    pub(super) target: Target,
}

/// What is not agreed to, or no longer.
#[derive(Args, Debug)]
pub(crate) struct DenyArgs {
    /// The request, as `tieline approvals` lists it
    #[arg(value_name = "ID", value_parser = id)]
    id: ApprovalId,
    /// A few words for who asked, and for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    #[command(flatten)]
    pub(super) target: Target,
}

fn id(text: &str) -> Result<ApprovalId, NoApprovalId> {
    text.parse()
}

/// A duration, as the server reads it too.
fn held(text: &str) -> Result<String, String> {
    let parsed = parse_duration(text).map_err(|error| error.to_string())?;
    let some = parsed > Duration::ZERO;
    some.then(|| text.to_owned()).ok_or_else(|| "that is no time at all; deny the request instead".into())
}

#[derive(Deserialize)]
struct Approval {
    id: String,
    state: String,
    person: String,
    service: String,
    why: String,
    ask: String,
    asked_seconds: f64,
    left_seconds: Option<f64>,
    answered_by: Option<String>,
    note: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    holds: Option<&'a str>,
    note: &'a str,
}

/// Lists requests and approvals.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn list(client: &Client, args: ApprovalsArgs) -> anyhow::Result<ExitCode> {
    let answer = client.get("/api/v1/approvals").await?;
    let mut out = io::stdout().lock();
    if args.json {
        let mut all: Vec<serde_json::Value> = serde_json::from_slice(&answer)?;
        all.retain(|one| args.all || !one["left_seconds"].is_null());
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        let mut all: Vec<Approval> = serde_json::from_slice(&answer)?;
        all.retain(|one| args.all || one.left_seconds.is_some());
        out.write_all(table(&all).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Approves a request.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn approve(client: &Client, args: ApproveArgs) -> anyhow::Result<ExitCode> {
    let body = Answer { holds: args.holds.as_deref(), note: &args.note };
    let approved = answer(client, args.id, "approve", &body).await?;
    let left = Span(approved.left_seconds.unwrap_or_default());
    writeln!(io::stdout(), "approved {} for {left}", told(&approved))?;
    Ok(ExitCode::SUCCESS)
}

/// Denies a request, or takes its approval back.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn deny(client: &Client, args: DenyArgs) -> anyhow::Result<ExitCode> {
    let denied = answer(client, args.id, "deny", &Answer { holds: None, note: &args.note }).await?;
    let ended = if denied.state == "revoked" { "; what was open by it ends now" } else { "" };
    writeln!(io::stdout(), "{} {}{ended}", denied.state, told(&denied))?;
    Ok(ExitCode::SUCCESS)
}

async fn answer(client: &Client, id: ApprovalId, verb: &str, body: &Answer<'_>) -> anyhow::Result<Approval> {
    let answer = client.post(&format!("/api/v1/approvals/{id}/{verb}"), body).await?;
    Ok(serde_json::from_slice(&answer)?)
}

fn told(approval: &Approval) -> String {
    let Approval { id, person, service, .. } = approval;
    format!("request {} by {} for {}", printable(id), printable(person), printable(service))
}

const HEAD: [&str; 9] = ["ID", "STATE", "WHO", "WHAT", "ASKED", "LEFT", "ASK", "ANSWER", "WHY"];

fn table(all: &[Approval]) -> String {
    columns(std::iter::once(HEAD.map(str::to_owned)).chain(all.iter().map(line)))
}

fn line(approval: &Approval) -> [String; 9] {
    let shown = |text: &str| if text.is_empty() { "-".into() } else { printable(text).into_owned() };
    let answer = match (&approval.answered_by, &*approval.note) {
        (None, _) => "-".into(),
        (Some(by), "") => shown(by),
        (Some(by), note) => format!("{}: {}", shown(by), shown(note)),
    };
    let ask = if approval.ask.is_empty() { "an operator".into() } else { shown(&approval.ask) };
    [
        shown(&approval.id),
        shown(&approval.state),
        shown(&approval.person),
        shown(&approval.service),
        Span(approval.asked_seconds).to_string(),
        approval.left_seconds.map_or_else(|| "-".into(), |left| Span(left).to_string()),
        ask,
        answer,
        shown(&approval.why),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_who_wants_what_and_why() {
        let all: Vec<Approval> = serde_json::from_str(
            r#"[{"id": "003f2a", "state": "waiting", "person": "ana", "service": "plant-7/ssh",
                 "why": "a valve\u001b is stuck", "ask": "lead, group:leads", "asked_seconds": 61.0,
                 "left_seconds": 839.0, "answered_by": null, "note": ""},
                {"id": "00400b", "state": "approved", "person": "bob", "service": "plant-7/db",
                 "why": "", "ask": "", "asked_seconds": 70.0, "left_seconds": 3600.0,
                 "answered_by": "lead", "note": "go ahead"}]"#,
        )
        .unwrap();
        let expected = "\
ID      STATE     WHO  WHAT         ASKED  LEFT    ASK                ANSWER          WHY
003f2a  waiting   ana  plant-7/ssh  1m01s  13m59s  lead, group:leads  -               a valve\\u{1b} is stuck
00400b  approved  bob  plant-7/db   1m10s  1h00m   an operator        lead: go ahead  -
";
        assert_eq!(table(&all), expected);
    }

    #[test]
    fn slips_are_wrong_usage() {
        assert!(held("0s").is_err() && held("x").is_err() && held("30m").is_ok());
        assert!(id("3f2a").is_err() && id("003f2a").is_ok());
    }
}
