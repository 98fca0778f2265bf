//! What was found, and what it means. Knows no socket: the facts are an argument.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tieline_base::Address;
use tieline_config::Carrier;
use tieline_tunnel::{AgentSeen, Findings, Hindrance, Kind, Passage, Soundings, Term};
use tieline_wire::tunnel::Way;

use super::report::{Check, Report, State};
use super::ways;
use super::{Out, Proxy};
use crate::verbs::text::Span;

/// What is known without asking anybody.
pub(super) struct Surroundings<'a> {
    pub(super) server: &'a Address,
    pub(super) out: &'a Out,
    /// What the agent's file lets a link go over.
    pub(super) carriers: &'a [Carrier],
    pub(super) now: SystemTime,
    /// The agent's certificate, where a folder was named.
    pub(super) term: Option<Term>,
    /// How many files a process may have open.
    pub(super) files: u64,
}

/// Round trips from which on somebody who types feels it.
const SLOW_FROM: Duration = Duration::from_millis(300);

/// Clocks that differ by more are a fault of one of them.
const CLOCK_MAX_MS: i64 = 300_000;

/// Losses from which on everything slows down, and from which on hardly anything works, in percent.
const LOSS_SLOW: usize = 2;
const LOSS_BAD: usize = 20;

/// What an agent with many streams needs.
const FILES_MIN: u64 = 1_024;

/// What is found, as lines and a verdict.
pub(super) fn report(findings: &Findings, around: &Surroundings<'_>) -> Report {
    let mut checks = vec![name(findings, around), proxy(around.out)];
    checks.extend(findings.tcp.iter().map(|(to, found)| tcp(to, found, around)));
    checks.extend(findings.udp.iter().flat_map(|(to, found)| udp(to, found)));
    checks.extend(findings.ways.iter().map(|(way, found)| ways::check(*way, found, findings, around)));
    checks.extend(between(findings));
    checks.extend(clock(findings));
    checks.extend(certificate(findings, around));
    checks.push(files(around.files));
    let (carriers, verdict) = ways::verdict(findings, around);
    Report { server: around.server.to_string(), carriers, verdict, checks }
}

pub(super) fn line(check: &'static str, state: State, text: impl Into<String>) -> Check {
    Check { check, state, text: text.into(), microseconds: None }
}

pub(super) fn timed(check: &'static str, text: &str, time: Duration) -> Check {
    let state = if time < SLOW_FROM { State::Ok } else { State::Slow };
    let microseconds = u64::try_from(time.as_micros()).ok();
    Check { microseconds, ..line(check, state, format!("{}{text}", milliseconds(time))) }
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.1}ms", time.as_secs_f64() * 1_000.0)
}

/// Those that lead to a tunnel listener.
pub(super) fn open(findings: &Findings) -> impl Iterator<Item = (Way, &Passage)> {
    findings.ways.iter().filter_map(|(way, found)| Some((*way, found.as_ref().ok()?)))
}

fn name(findings: &Findings, around: &Surroundings<'_>) -> Check {
    match &findings.addresses {
        Ok(found) if found.is_empty() => line("name", State::Wrong, "it has no address"),
        Ok(found) => {
            let mut all: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            all.dedup();
            line("name", State::Ok, all.join(", "))
        }
        Err(why) if around.out.proxy().is_some() => {
            let text = format!("does not resolve here ({why}); the proxy may know it");
            line("name", State::None, text)
        }
        Err(why) => line(
            "name",
            State::Wrong,
            format!("does not resolve: {why}; is it right, and is there a DNS server?"),
        ),
    }
}

fn proxy(out: &Out) -> Check {
    let (state, text) = match out {
        Out::Straight => (State::None, "none: HTTPS_PROXY is not set".to_owned()),
        Out::Through(Proxy { address, login }) => {
            let known = if login.is_some() { ", by name and password" } else { "" };
            (State::Ok, format!("TLS and WebSockets go through {address}{known}; QUIC goes past it"))
        }
        Out::Past(Proxy { address, .. }) => (
            State::Ok,
            format!("HTTPS_PROXY names {address}, and NO_PROXY says that the server is not behind it"),
        ),
    };
    line("proxy", state, text)
}

fn tcp(to: &SocketAddr, found: &Result<Duration, Hindrance>, around: &Surroundings<'_>) -> Check {
    let check = if to.is_ipv6() { "TCP over v6" } else { "TCP over v4" };
    match found {
        Ok(time) => timed(check, " to connect", *time),
        Err(_) if around.out.proxy().is_some() => {
            line(check, State::None, "not past the proxy, and need not")
        }
        Err(hindrance) => {
            let (state, text) = ways::told("TCP", hindrance, to.port());
            line(check, state, text)
        }
    }
}

fn udp(to: &SocketAddr, found: &Result<Soundings, Hindrance>) -> Vec<Check> {
    let check = if to.is_ipv6() { "UDP over v6" } else { "UDP over v4" };
    let soundings = match found {
        Ok(soundings) => soundings,
        Err(hindrance) => {
            let (state, text) = ways::told("UDP", hindrance, to.port());
            return vec![line(check, state, text)];
        }
    };
    if soundings.refused {
        let text = format!(
            "refused: nothing listens at UDP port {}, or a firewall rejects it; at the server, `quic` of the \
             listener and the port's UDP",
            to.port()
        );
        return vec![line(check, State::Blocked, text)];
    }
    let small = soundings.sent.iter().filter(|one| one.size == smallest(soundings));
    let (sent, times) = (small.clone().count(), small.filter_map(|one| one.round_trip));
    let Some(fastest) = times.clone().min() else {
        let text = format!(
            "no answer: a firewall swallows UDP; have it let UDP port {} out, and in at the server",
            to.port()
        );
        return vec![line(check, State::Blocked, text)];
    };
    let lost = sent - times.count();
    vec![loss(check, fastest, lost, sent), size(soundings)]
}

fn smallest(soundings: &Soundings) -> usize {
    soundings.sent.iter().map(|one| one.size).min().unwrap_or_default()
}

fn loss(check: &'static str, fastest: Duration, lost: usize, sent: usize) -> Check {
    let percent = lost * 100 / sent.max(1);
    let told = timed(check, &format!(", {lost} of {sent} datagrams lost"), fastest);
    let advice = match percent {
        LOSS_BAD.. => "; hardly anything works so: is there a Wi-Fi or a line that is full or broken?",
        LOSS_SLOW.. => "; it slows everything down",
        _ => return told,
    };
    Check { state: State::Slow, text: format!("{}{advice}", told.text), ..told }
}

/// The largest datagram that passes whole.
fn size(soundings: &Soundings) -> Check {
    let came = soundings.sent.iter().filter(|one| one.round_trip.is_some()).map(|one| one.size).max();
    let (came, most) = (came.unwrap_or_default(), soundings.sent.iter().map(|one| one.size).max());
    if Some(came) == most {
        return line("MTU", State::Ok, format!("datagrams of {came} bytes pass"));
    }
    let text = format!("datagrams of {came} bytes pass, larger ones do not; QUIC finds that out by itself");
    line("MTU", State::Ok, text)
}

/// Whoever ends TLS on the way.
fn between(findings: &Findings) -> Option<Check> {
    let websocket = open(findings).find(|(way, _)| *way == Way::WebSocket)?.1;
    Some(match &websocket.between {
        Some(shown) => {
            let (subject, issuer) = (&shown.subject, &shown.issuer);
            let text = format!(
                "somebody on the way ends TLS and shows {subject}, by {issuer}; he cannot read \
                 what is inside the WebSocket"
            );
            line("TLS on the way", State::Ok, text)
        }
        None => line("TLS on the way", State::Ok, "nobody looks into it"),
    })
}

fn clock(findings: &Findings) -> Option<Check> {
    // The nearest answer says it best.
    let (_, passage) = open(findings).min_by_key(|(_, passage)| passage.round_trip)?;
    let ahead = passage.clock_ahead_ms;
    let span = Span(ahead.unsigned_abs() as f64 / 1_000.0);
    Some(if ahead.abs() <= CLOCK_MAX_MS {
        line("clock", State::Ok, format!("{span} from the server's"))
    } else {
        let word = if ahead > 0 { "behind" } else { "ahead of" };
        let text = format!(
            "{span} {word} the server's: certificates are renewed too late or look too old; set it, by NTP \
             (`timedatectl set-ntp true`)"
        );
        line("clock", State::Wrong, text)
    })
}

/// What the server says of the agent's certificate; where it was not asked, what the folder does.
fn certificate(findings: &Findings, around: &Surroundings<'_>) -> Option<Check> {
    let term = around.term.as_ref()?;
    let left = term.until.duration_since(around.now).ok().map(|left| Span(left.as_secs_f64()));
    let (state, text) = match (seen(findings), left) {
        (Some(AgentSeen { name, good: true, .. }), Some(left)) => (
            State::Ok,
            format!("\"{name}\" may link up; the certificate is good for {left}, and renewed before"),
        ),
        (Some(AgentSeen { name, good: true, .. }), None) => {
            (State::Wrong, format!("\"{name}\" may link up, and the certificate is over by the clock here"))
        }
        (Some(AgentSeen { name, renewable: true, .. }), _) => {
            (State::Ok, format!("\"{name}\": the certificate is over, and will be renewed first"))
        }
        (Some(AgentSeen { name, told, .. }), _) => (State::Wrong, format!("\"{name}\": {told}; {REJOIN}")),
        (None, Some(left)) => (State::None, format!("good for {left} by its own word; no server was asked")),
        (None, None) if term.renewable_until >= around.now => {
            (State::None, "over, and can be renewed once a way is open".to_owned())
        }
        (None, None) => (State::Wrong, format!("over for more than a week; {REJOIN}")),
    };
    Some(line("certificate", state, text))
}

fn seen(findings: &Findings) -> Option<&AgentSeen> {
    open(findings).find_map(|(_, passage)| passage.agent.as_ref())
}

/// Whether the agent, if one was named, will be let in.
pub(super) fn is_welcome(findings: &Findings) -> bool {
    seen(findings).is_none_or(|seen| seen.good || seen.renewable)
}

const REJOIN: &str = "let it join anew: `tieline agent token` at the server, then `tieline agent join`";

fn files(most: u64) -> Check {
    if most < FILES_MIN {
        let text = format!(
            "{most} open files at the most; streams need one each: raise `ulimit -n`, or LimitNOFILE"
        );
        return line("files", State::Slow, text);
    }
    line("files", State::Ok, format!("{most} open files at the most"))
}

/// Whether a hindrance is that there is no such address.
pub(super) fn is_absent(hindrance: &Hindrance) -> bool {
    hindrance.kind == Kind::NoAddress
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_tunnel::{Sounding, Step};

    fn passage(clock_ahead_ms: i64) -> Passage {
        let round_trip = Duration::from_millis(20);
        Passage { round_trip, clock_ahead_ms, client: "192.0.2.1:5".into(), agent: None, between: None }
    }

    fn findings(ways: Vec<(Way, Result<Passage, Hindrance>)>) -> Findings {
        Findings {
            addresses: Ok(vec!["192.0.2.7:443".parse().unwrap()]),
            tcp: Vec::new(),
            udp: Vec::new(),
            ways,
        }
    }

    fn soundings(came: usize, of: usize) -> Soundings {
        let sounding =
            |at| Sounding { size: 1_200, round_trip: (at < came).then_some(Duration::from_millis(9)) };
        let large = Sounding { size: 1_452, round_trip: None };
        Soundings { sent: (0..of).map(sounding).chain([large]).collect(), refused: false }
    }

    #[test]
    fn a_clock_that_is_wrong_by_minutes_is_told_with_its_direction() {
        let told = |ahead| clock(&findings(vec![(Way::Tls, Ok(passage(ahead)))])).unwrap();
        assert_eq!(told(299_000).state, State::Ok);
        assert_eq!(told(-299_000).state, State::Ok);
        let behind = told(7_500_000);
        assert!(
            behind.state == State::Wrong && behind.text.starts_with("2h05m behind the server's"),
            "{behind:?}"
        );
        assert!(told(-301_000).text.starts_with("5m01s ahead of the server's"));
        assert!(clock(&findings(Vec::new())).is_none(), "nobody was asked");
    }

    #[test]
    fn losses_and_sizes_of_datagrams_are_told() {
        let to = "192.0.2.7:443".parse().unwrap();
        let told = |came, of| udp(&to, &Ok(soundings(came, of)));
        let good = told(20, 20);
        assert!(good[0].state == State::Ok && good[0].text == "9.0ms, 0 of 20 datagrams lost", "{good:?}");
        assert!(good[1].text.starts_with("datagrams of 1200 bytes pass, larger ones do not"), "{good:?}");
        assert!(told(19, 20)[0].text.ends_with("it slows everything down"));
        assert!(told(10, 20)[0].text.contains("hardly anything works"));
        let none = told(0, 20);
        assert!(none.len() == 1 && none[0].state == State::Blocked, "{none:?}");
    }

    #[test]
    fn a_slow_way_is_told_as_one() {
        assert_eq!(timed("TLS", "", Duration::from_millis(40)).state, State::Ok);
        assert_eq!(timed("TLS", "", Duration::from_millis(700)).state, State::Slow);
    }

    #[test]
    fn whoever_is_unwelcome_gets_no_carrier_whatever_is_open() {
        let server: Address = "gate.test:443".parse().unwrap();
        let term = Term { until: SystemTime::UNIX_EPOCH, renewable_until: SystemTime::UNIX_EPOCH };
        let around = Surroundings {
            server: &server,
            out: &Out::Straight,
            carriers: &[Carrier::Quic, Carrier::Tls],
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            term: Some(term),
            files: 20_000,
        };
        let seen = |good, renewable| {
            let agent = AgentSeen { name: "p7".into(), good, renewable, told: "revoked".into() };
            let open = Passage { agent: Some(agent), ..passage(0) };
            report(&findings(vec![(Way::Quic4, Ok(open.clone())), (Way::WebSocket, Ok(open))]), &around)
        };
        assert_eq!(seen(true, false).carriers, ["quic"], "what the file leaves out does not count");
        assert!(seen(false, true).links() && !seen(false, false).links());
        let kind = Kind::Silent;
        let hindrance = Hindrance { kind, at: Step::Connect, why: String::new(), shown: None };
        let nothing = report(&findings(vec![(Way::Tls, Err(hindrance))]), &around);
        assert_eq!(nothing.verdict, "no link will come up: no way is open");
        let told = nothing.checks.iter().find(|check| check.check == "certificate").unwrap();
        assert_eq!(told.state, State::Wrong);
    }
}
