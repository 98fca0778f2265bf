//! Whether each way to a server is open, and what is in it if not: what `tieline doctor` looks at.
//!
//! Every way is gone to its end, all of them side by side, and no link is made: at the end the server is
//! asked what time it is. Owns the facts; what they mean, and what to do, is said where they are shown.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tieline_base::{Address, Clock, EndpointAddr};
use tieline_transport::tls::{
    Alpn, ClientTls, ClientTlsSettings, ServerCertificate, TlsConnectError, TlsError, TlsVersion, Verify,
    connect_tls,
};
use tieline_transport::{DialOptions, Family, Io, QUIC_SIZE_MIN, QuicError, Soundings, dial, resolve, sound};
use tieline_wire::tunnel::Way;
use tokio::sync::Notify;

use crate::authority::SERVER_NAME;
use crate::identity::{Identity, IdentityError};
use crate::probe::{self, AgentSeen, Heard, QUESTIONS_MAX};
use crate::ways::{Proxy, Reach, WayError, host, outer};
use crate::websocket::{self, UpgradeError};
use crate::{ALPN_PROBE, ALPN_QUIC_PROBE};

/// Looks at the ways to a server.
pub struct Examination {
    reach: Reach,
}

/// What was found.
#[derive(Debug)]
pub struct Findings {
    /// Where the server is, or why nobody knows.
    pub addresses: Result<Vec<SocketAddr>, String>,
    /// The first address of each family: how long TCP took to connect, past any proxy.
    pub tcp: Vec<(SocketAddr, Result<Duration, Hindrance>)>,
    /// What came of datagrams to the first address of each family.
    pub udp: Vec<(SocketAddr, Result<Soundings, Hindrance>)>,
    /// How each way ended, in the order in which an agent prefers them.
    pub ways: Vec<(Way, Result<Passage, Hindrance>)>,
}

/// A way that leads to a tunnel listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passage {
    /// The shortest of several.
    pub round_trip: Duration,
    /// How far the server's clock is ahead of ours, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Where the server sees us come from.
    pub client: String,
    /// What the server says of the agent whose certificate we show.
    pub agent: Option<AgentSeen>,
    /// Whom we saw around what was proved: somebody between us and the server, who ends TLS.
    pub between: Option<ServerCertificate>,
}

/// How far a way was gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// To a connection, through the proxy where there is one.
    Connect,
    /// To keys that both ends have.
    Handshake,
    /// To a WebSocket.
    Upgrade,
    /// To an answer of the server's.
    Answer,
}

/// What is in a way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hindrance {
    /// What kind of thing.
    pub kind: Kind,
    /// Where it stands.
    pub at: Step,
    /// What was said, for those who know more.
    pub why: String,
    /// Who answered instead of the server, where somebody did who showed a certificate.
    pub shown: Option<ServerCertificate>,
}

/// What kinds of things are in ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The server has no address of that family.
    NoAddress,
    /// This machine has no way there.
    Unreachable,
    /// Somebody says no: nothing listens, or a firewall that tells so.
    Refused,
    /// Nobody says anything: a firewall that swallows, or nothing is there.
    Silent,
    /// It was broken off.
    Cut,
    /// The proxy wants to know who asks.
    Login,
    /// The proxy cannot be reached, or leads no further.
    Proxy,
    /// Whoever answers is not the server that the agent knows.
    Stranger,
    /// Whoever answers is no tunnel listener.
    NoServer,
    /// Something else.
    Other,
}

/// How long a way may take: long enough for a slow one, short enough to be waited for.
const WAY_MAX: Duration = Duration::from_secs(8);

/// What TCP takes to connect is measured before this machine is busy with keys.
const HEAD_START: Duration = Duration::from_millis(200);

/// Datagrams of the least size: enough to see one loss in twenty.
const SMALL: usize = 20;

/// Larger ones, up to what QUIC uses at the most, each so often.
const LARGER: [usize; 4] = [1_252, 1_352, 1_392, 1_452];
const LARGER_EACH: usize = 3;

/// One datagram each.
const PACE: Duration = Duration::from_millis(25);

/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Round trips that are measured over each way.
const ROUNDS: usize = 4;
const _: () = assert!(ROUNDS <= QUESTIONS_MAX);

impl Examination {
    /// Of the ways to `server`, through `proxy` where it names one. Whoever answers is believed to be the
    /// server: nothing secret is said.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn of(server: Address, proxy: Option<Proxy>) -> Result<Examination, TlsError> {
        let tls = ClientTls::load(&ClientTlsSettings {
            verify: Verify::DangerouslyNone,
            server_name: Some(SERVER_NAME.into()),
            version_min: TlsVersion::Tls13,
            ..ClientTlsSettings::default()
        })?;
        Ok(Examination { reach: Reach { server, proxy, tls: Arc::new(tls) } })
    }

    /// The same as an agent, who believes nobody but the server that it joined.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn by(mut self, identity: &Identity) -> Result<Examination, IdentityError> {
        self.reach.tls = Arc::new(identity.tls()?);
        Ok(self)
    }

    /// Looks at all of them at once, which takes some seconds at the most.
    pub async fn run(&self) -> Findings {
        let resolving = tokio::time::timeout(WAY_MAX, resolve(&self.reach.server)).await;
        let addresses = match resolving {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {WAY_MAX:?}")),
        };
        let all = addresses.as_deref().unwrap_or_default();
        let first = |v6: bool| all.iter().find(move |address| address.is_ipv6() == v6).copied();
        let (no6, no4) = (Notify::new(), Notify::new());
        let (tcp6, tcp4, udp6, udp4, quic6, quic4, tls, websocket) = tokio::join!(
            connected(first(true)),
            connected(first(false)),
            sounded(first(true), &no6),
            sounded(first(false), &no4),
            unless_refused(&no6, self.go(Way::Quic6)),
            unless_refused(&no4, self.go(Way::Quic4)),
            self.go(Way::Tls),
            self.go(Way::WebSocket),
        );
        let ways = [Way::Quic6, Way::Quic4, Way::Tls, Way::WebSocket];
        Findings {
            addresses,
            tcp: [tcp6, tcp4].into_iter().flatten().collect(),
            udp: [udp6, udp4].into_iter().flatten().collect(),
            ways: ways.into_iter().zip([quic6, quic4, tls, websocket]).collect(),
        }
    }

    async fn go(&self, way: Way) -> Result<Passage, Hindrance> {
        let at = Cell::new(Step::Connect);
        let going = async {
            tokio::time::sleep(HEAD_START).await;
            match way {
                Way::Quic6 => self.quic(Family::V6, &at).await,
                Way::Quic4 => self.quic(Family::V4, &at).await,
                Way::Tls => self.tls(&at).await,
                Way::WebSocket => self.websocket(&at).await,
            }
        };
        let silent = |_| Err(Hindrance::new(Kind::Silent, at.get(), format!("nothing within {WAY_MAX:?}")));
        // It may be dropped anywhere: what was opened is closed then.
        tokio::time::timeout(WAY_MAX, going).await.unwrap_or_else(silent)
    }

    async fn quic(&self, family: Family, at: &Cell<Step>) -> Result<Passage, Hindrance> {
        at.set(Step::Handshake);
        let io = self.reach.quic(family, &alpn(ALPN_QUIC_PROBE)).await;
        asked(io.map_err(|error| of_way(error, at.get()))?, at).await
    }

    async fn tls(&self, at: &Cell<Step>) -> Result<Passage, Hindrance> {
        let io = self.reach.tcp().await.map_err(|error| of_way(error, at.get()))?;
        self.inside(io, at).await
    }

    async fn websocket(&self, at: &Cell<Step>) -> Result<Passage, Hindrance> {
        let (name, host) = host(&self.reach.server);
        let io = self.reach.tcp().await.map_err(|error| of_way(error, at.get()))?;
        at.set(Step::Handshake);
        let outer = outer().map_err(|error| of_way(error.into(), at.get()))?;
        let (io, _) = connect_tls(io, &outer, &name, None).await.map_err(|error| of_tls(error, at.get()))?;
        let around = io.server_certificate();
        at.set(Step::Upgrade);
        let by = |hindrance: Hindrance| Hindrance { shown: around.clone(), ..hindrance };
        let io = websocket::ask(io, &host).await.map_err(|error| by(of_upgrade(error, at.get())))?;
        let mut within = None;
        let passage = self.inside_seeing(io, at, &mut within).await.map_err(by)?;
        // The server shows the same outside and inside; whoever shows another one stands before it.
        let between = around.filter(|around| Some(around) != within.as_ref());
        Ok(Passage { between, ..passage })
    }

    /// TLS of our own over `io`, and an answer.
    async fn inside(&self, io: Io, at: &Cell<Step>) -> Result<Passage, Hindrance> {
        self.inside_seeing(io, at, &mut None).await
    }

    async fn inside_seeing(
        &self,
        io: Io,
        at: &Cell<Step>,
        seen: &mut Option<ServerCertificate>,
    ) -> Result<Passage, Hindrance> {
        at.set(Step::Handshake);
        let shaken = connect_tls(io, &self.reach.tls, SERVER_NAME, Some(alpn(ALPN_PROBE))).await;
        let (io, agreed) = shaken.map_err(|error| of_tls(error, at.get()))?;
        *seen = io.server_certificate();
        if agreed.is_none_or(|agreed| agreed.as_bytes() != ALPN_PROBE) {
            let why = "it speaks TLS, and no protocol of tunnels".into();
            return Err(Hindrance { shown: seen.clone(), ..Hindrance::new(Kind::NoServer, at.get(), why) });
        }
        asked(io, at).await
    }
}

fn alpn(name: &[u8]) -> Vec<Alpn> {
    Alpn::new(name).into_iter().collect()
}

/// Asks the server that `io` leads to.
async fn asked(mut io: Io, at: &Cell<Step>) -> Result<Passage, Hindrance> {
    at.set(Step::Answer);
    let mut shortest: Option<Heard> = None;
    for _ in 0..ROUNDS {
        let heard = probe::ask(&mut io).await;
        let heard = heard.map_err(|error| Hindrance::new(Kind::Cut, at.get(), error.to_string()))?;
        if shortest.as_ref().is_none_or(|shortest| heard.round_trip < shortest.round_trip) {
            shortest = Some(heard);
        }
    }
    let Some(Heard { answer, round_trip }) = shortest else {
        return Err(Hindrance::new(Kind::Cut, at.get(), "nothing was asked".into()));
    };
    // The answer was said half a round trip ago.
    let now = Clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ours = now.saturating_sub(round_trip / 2).as_millis();
    let ahead = i128::from(answer.clock_ms) - i128::try_from(ours).unwrap_or(i128::MAX);
    Ok(Passage {
        round_trip,
        clock_ahead_ms: i64::try_from(ahead).unwrap_or(i64::MAX),
        client: answer.client.escape_debug().to_string(),
        agent: answer.seen.agent,
        between: None,
    })
}

async fn connected(to: Option<SocketAddr>) -> Option<(SocketAddr, Result<Duration, Hindrance>)> {
    let (to, begin) = (to?, Clock::now());
    let (endpoint, options) = (EndpointAddr::Socket(to), DialOptions::default());
    let dialed = match tokio::time::timeout(WAY_MAX, dial(&endpoint, &options)).await {
        Ok(Ok(_)) => Ok(Clock::now().since(begin)),
        Ok(Err(error)) => Err(of_io(&error, Step::Connect)),
        Err(_) => Err(Hindrance::new(Kind::Silent, Step::Connect, format!("nothing within {WAY_MAX:?}"))),
    };
    Some((to, dialed))
}

async fn sounded(to: Option<SocketAddr>, no: &Notify) -> Option<(SocketAddr, Result<Soundings, Hindrance>)> {
    let to = to?;
    let larger = LARGER.into_iter().flat_map(|size| [size; LARGER_EACH]);
    let sizes: Vec<usize> = [QUIC_SIZE_MIN; SMALL].into_iter().chain(larger).collect();
    let found = sound(to, &sizes, PACE, PATIENCE).await;
    if found.as_ref().is_ok_and(|found| found.refused) {
        no.notify_one();
    }
    Some((to, found.map_err(|error| of_io(&error, Step::Connect))))
}

/// QUIC does not hear that nothing listens, and would wait.
async fn unless_refused(
    no: &Notify,
    going: impl Future<Output = Result<Passage, Hindrance>>,
) -> Result<Passage, Hindrance> {
    // Both arms may be dropped: what was opened is closed then.
    tokio::select! {
        found = going => found,
        () = no.notified() => Err(Hindrance::new(Kind::Refused, Step::Connect, "port unreachable".into())),
    }
}

impl Hindrance {
    fn new(kind: Kind, at: Step, why: String) -> Hindrance {
        Hindrance { kind, at, why, shown: None }
    }
}

fn of_io(error: &io::Error, at: Step) -> Hindrance {
    let kind = match error.kind() {
        ErrorKind::ConnectionRefused => Kind::Refused,
        ErrorKind::TimedOut => Kind::Silent,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => {
            Kind::Unreachable
        }
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => Kind::Cut,
        _ => Kind::Other,
    };
    Hindrance::new(kind, at, error.to_string())
}

fn of_way(error: WayError, at: Step) -> Hindrance {
    let why = error.to_string();
    match error {
        WayError::Dial(error) => of_io(&error, at),
        WayError::Login(_) => Hindrance::new(Kind::Login, at, why),
        WayError::Proxy(..) | WayError::Connect(..) => Hindrance::new(Kind::Proxy, at, why),
        WayError::Tls(error) | WayError::Outer(error) => of_tls(error, at),
        WayError::Upgrade(error) => of_upgrade(error, at),
        WayError::Quic(error) => of_quic(error, at),
        WayError::Settings(_) => Hindrance::new(Kind::Other, at, why),
    }
}

fn of_tls(error: TlsConnectError, at: Step) -> Hindrance {
    let why = error.to_string();
    match error {
        TlsConnectError::Io(error) => of_io(&error, at),
        TlsConnectError::Closed => Hindrance::new(Kind::Cut, at, why),
        TlsConnectError::Certificate(_) => Hindrance::new(Kind::Stranger, at, why),
        TlsConnectError::Protocol(_) | TlsConnectError::ServerName(_) => {
            Hindrance::new(Kind::NoServer, at, why)
        }
    }
}

fn of_upgrade(error: UpgradeError, at: Step) -> Hindrance {
    match error {
        UpgradeError::Io(error) => of_io(&error, at),
        error => Hindrance::new(Kind::NoServer, at, error.to_string()),
    }
}

fn of_quic(error: QuicError, at: Step) -> Hindrance {
    let why = error.to_string();
    let kind = match error {
        QuicError::NoAddress => Kind::NoAddress,
        QuicError::Io(error) => return of_io(&error, at),
        QuicError::Silent => Kind::Silent,
        QuicError::Certificate(_) => Kind::Stranger,
        QuicError::Closed | QuicError::Protocol(_) => Kind::NoServer,
        QuicError::NoCipher => Kind::Other,
    };
    Hindrance::new(kind, at, why)
}
