//! The ways to a server in words: how each stands, and which of them a link will go.

use tieline_config::Carrier;
use tieline_tunnel::{Findings, Hindrance, Kind, Passage, Step};
use tieline_wire::tunnel::Way;

use super::checks::{Surroundings, is_absent, is_welcome, line, open, timed};
use super::report::{Check, State};

/// The line of `way`.
pub(super) fn check(
    way: Way,
    found: &Result<Passage, Hindrance>,
    findings: &Findings,
    around: &Surroundings<'_>,
) -> Check {
    let check = match way {
        Way::Quic6 => "QUIC over v6",
        Way::Quic4 => "QUIC over v4",
        Way::Tls => "TLS",
        Way::WebSocket => "WebSocket",
    };
    let hindrance = match found {
        Ok(passage) => {
            let kept_out = !around.carriers.contains(&carrier(way));
            let text = if kept_out { ", but `carriers` in the agent's file leaves it out" } else { "" };
            return timed(check, &format!(" round trip{text}"), passage.round_trip);
        }
        Err(hindrance) => hindrance,
    };
    let inspected = open(findings).any(|(_, passage)| passage.between.is_some());
    if way == Way::Tls && inspected && hindrance.kind != Kind::Silent {
        let text = "somebody on the way ends TLS, and passes on nothing but HTTPS";
        return line(check, State::Blocked, text);
    }
    let port = findings.addresses.iter().flatten().next().map_or(0, std::net::SocketAddr::port);
    let carried = if carrier(way) == Carrier::Quic { "UDP" } else { "TCP" };
    let (state, text) = told(carried, hindrance, port);
    line(check, state, text)
}

/// What `hindrance` of a way by `carried` to `port` means, and what to do.
pub(super) fn told(carried: &str, hindrance: &Hindrance, port: u16) -> (State, String) {
    let why = &hindrance.why;
    match (hindrance.kind, hindrance.at) {
        (Kind::NoAddress, _) => (State::None, "the server has no address of this family".to_owned()),
        (Kind::Unreachable, _) => (State::Blocked, format!("this machine has no way there: {why}")),
        (Kind::Refused, _) => (
            State::Blocked,
            format!(
                "refused: nothing listens at {carried} port {port}, or a firewall rejects it; is the port \
                 right, and the server up?"
            ),
        ),
        (Kind::Silent, Step::Connect) => (
            State::Blocked,
            format!(
                "no answer: a firewall swallows it; have it let {carried} port {port} out, and in at \
                 the server"
            ),
        ),
        (Kind::Silent, _) if carried == "UDP" => (
            State::Blocked,
            format!(
                "no answer: a firewall swallows UDP; have it let UDP port {port} out, and in at the server"
            ),
        ),
        (Kind::Silent, at) => (
            State::Blocked,
            format!("connected, then silence{}: somebody on the way holds it up", during(at)),
        ),
        (Kind::Cut, at) => {
            (State::Blocked, format!("broken off{}: {why}; by the server's rules, or on the way", during(at)))
        }
        (Kind::Login | Kind::Proxy, _) => (State::Blocked, why.clone()),
        (Kind::Stranger, _) => (
            State::Wrong,
            format!("whoever answers is not the server that this agent joined{}: {why}", who(hindrance)),
        ),
        (Kind::NoServer, _) => {
            (State::Wrong, format!("whoever answers is no tunnel listener{}: {why}", who(hindrance)))
        }
        (Kind::Other, _) => (State::Blocked, why.clone()),
    }
}

fn during(at: Step) -> &'static str {
    match at {
        Step::Connect => "",
        Step::Handshake => " in the handshake",
        Step::Upgrade => " before a WebSocket",
        Step::Answer => " behind the handshake",
    }
}

fn who(hindrance: &Hindrance) -> String {
    let shown = hindrance.shown.as_ref();
    shown.map_or_else(String::new, |shown| format!(" (it shows {}, by {})", shown.subject, shown.issuer))
}

fn carrier(way: Way) -> Carrier {
    match way {
        Way::Quic6 | Way::Quic4 => Carrier::Quic,
        Way::Tls => Carrier::Tls,
        Way::WebSocket => Carrier::WebSocket,
    }
}

fn called(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Quic => "QUIC",
        Carrier::Tls => "TLS",
        Carrier::WebSocket => "WebSocket",
    }
}

/// What a link will go over, the preferred first; and that in a sentence.
pub(super) fn verdict(findings: &Findings, around: &Surroundings<'_>) -> (Vec<&'static str>, String) {
    let mut carriers: Vec<Carrier> = open(findings).map(|(way, _)| carrier(way)).collect();
    carriers.dedup();
    let passing = carriers.len();
    carriers.retain(|carrier| around.carriers.contains(carrier));
    if !is_welcome(findings) {
        return (Vec::new(), "the ways are open, and the server wants no link of this agent".into());
    }
    let names: Vec<&str> = carriers.iter().copied().map(called).collect();
    let text = match &names[..] {
        [] if passing > 0 => "no way is open that `carriers` in the agent's file names".into(),
        [] => nothing(findings).into(),
        [only] => format!("a link will go over {only}; there is nothing behind it"),
        [first, rest @ ..] => format!("a link will go over {first}; behind it {}", rest.join(", ")),
    };
    (carriers.into_iter().map(Carrier::as_str).collect(), text)
}

/// Why no link will come up.
fn nothing(findings: &Findings) -> &'static str {
    let mut kinds = findings.ways.iter().filter_map(|(_, found)| found.as_ref().err());
    if kinds.clone().any(|hindrance| hindrance.kind == Kind::Stranger) {
        "no link will come up: whoever answers is another server"
    } else if kinds.any(|hindrance| hindrance.kind == Kind::NoServer && !is_absent(hindrance)) {
        "no link will come up: something answers there, and it is no tunnel listener"
    } else {
        "no link will come up: no way is open"
    }
}
