//! Logging in: clients to us ([`arrive`]), and us to servers ([`server`]).

mod credential;
mod encryption;
mod failures;
mod greeting;
mod hashing;
mod line;
mod lookup;
mod proof;
pub(crate) mod server;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tieline_base::{Fault, Identity, Reason, Stage, Whose};
use tieline_conn::Connection;
use tieline_transport::Io;
use tieline_transport::tls::ServerTls;
use tieline_wire::postgres::backend::{Notice, push_error};
use tieline_wire::postgres::startup::Replication;
use tokio::sync::Semaphore;

pub(crate) use credential::{Blinded, Credential, blinded};
pub use encryption::Encryption;
pub(crate) use encryption::secured;
use failures::Place;
pub use greeting::ALPN;
pub(crate) use line::Line;
pub use lookup::{Lookup, LookupSettings};
pub use users::{User, Users};

use crate::keys::Proof;

/// A setting by its name, and its value; neither need be UTF-8.
pub(crate) type Parameter = (Box<[u8]>, Box<[u8]>);

/// How clients of a listener log in.
#[derive(Clone, Debug)]
pub struct Front {
    /// How they prove who they are.
    pub auth: Auth,
    /// Who may log in with a password.
    pub users: Arc<Users>,
    /// Where others are looked up; `None`: there are no others.
    pub lookup: Option<Arc<Lookup>>,
    /// How TLS ends here; `None`: it is refused.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether clients that come over a network must use it, where there is one.
    pub tls_required: bool,
    /// From the first byte until a client has proved who it is.
    pub handshake: Duration,
    /// Seats for those who have not yet.
    pub seats: Arc<Semaphore>,
}

impl Front {
    /// Why somebody who proved to be `identity` could not do so again; `None` if they could. Certificates are
    /// judged elsewhere.
    pub(crate) fn disowns(&self, identity: &Identity) -> Option<String> {
        let user = identity.name()?;
        let asked = matches!(self.auth, Auth::Scram | Auth::Md5);
        // Of who was looked up it is not known here, and a server keeps sessions of users who are gone too.
        let gone = asked && self.users.find(user).is_none() && self.lookup.is_none();
        gone.then(|| format!("user \"{user}\" is gone"))
    }
}

/// How clients prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    /// By a password, by SCRAM-SHA-256.
    Scram,
    /// By a password, by MD5 for users whose verifier is of that kind.
    Md5,
    /// By a certificate whose name is the user's.
    Certificate,
    /// They do not: they are believed.
    Trust,
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Startup {
    /// The protocol that both sides speak: 3.0 or 3.2.
    pub(crate) protocol: u32,
    /// Who it says it is.
    pub(crate) user: Box<str>,
    /// The database that it asks for; empty where it replicates the whole server.
    pub(crate) database: Box<str>,
    /// The settings that it begins with, those of `options` among them, in the order in which they count.
    pub(crate) parameters: Vec<Parameter>,
    /// What it would replicate, if that is what it is for.
    pub(crate) replication: Option<Replication>,
}

/// What a client wants of us.
#[derive(Debug)]
enum Greeting {
    Startup(Startup),
    Cancel { process: u32, secret: Proof },
}

/// A client past its first messages.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// It has proved who it is, and was told so.
    Client {
        line: Line,
        startup: Startup,
        /// What it proved, for servers to which we log in as the client.
        credential: Credential,
    },
    /// It would cancel what somebody else does. The connection ends without an answer.
    Cancel {
        /// Whose.
        process: u32,
        /// What proves that it may.
        secret: Proof,
        /// Until its end the other side waits.
        line: Line,
    },
}

/// Hears what a client wants, and has it prove who it is, all within the time that the front allows.
///
/// # Errors
/// It breaks the protocol, goes away, is too slow or not who it says. It has been told what it may know.
pub(crate) async fn arrive(io: Io, front: &Front, connection: &mut Connection) -> Result<Arrived, Fault> {
    let _counted = LoggingIn::begin();
    let Ok(_seat) = front.seats.try_acquire() else {
        let mut line = Line::new(io);
        let message = "too many clients are logging in";
        return Err(refuse(&mut line, "53300", message, Reason::LimitLogins).await);
    };
    let arriving = tokio::time::timeout(front.handshake, greet_and_prove(io, front, connection));
    // Boxed: what a login needs should not be part of a connection for life.
    let late = || Fault::new(Stage::Identify, Whose::Client, Reason::TimeoutHandshake);
    Box::pin(arriving).await.map_err(|_| late())?
}

/// A client that logs in, counted for as long as that lasts.
struct LoggingIn;

static LOGGING_IN: AtomicU64 = AtomicU64::new(0);

/// How many clients are logging in.
pub(crate) fn logging_in() -> u64 {
    LOGGING_IN.load(Relaxed)
}

impl LoggingIn {
    fn begin() -> Self {
        LOGGING_IN.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for LoggingIn {
    fn drop(&mut self) {
        LOGGING_IN.fetch_sub(1, Relaxed);
    }
}

async fn greet_and_prove(io: Io, front: &Front, connection: &mut Connection) -> Result<Arrived, Fault> {
    let greeted = greeting::greet(io, front.tls.as_ref(), front.tls_required, connection).await?;
    let (mut line, startup) = match greeted {
        (line, Greeting::Startup(startup)) => (line, startup),
        (line, Greeting::Cancel { process, secret }) => {
            return Ok(Arrived::Cancel { process, secret, line });
        }
    };
    let judge = proof::Judge {
        auth: front.auth,
        users: &front.users,
        lookup: front.lookup.as_deref(),
        tls: front.tls.as_ref(),
    };
    let place = Place::of(connection.record().client(), &startup.user);
    let asks = matches!(front.auth, Auth::Scram | Auth::Md5);
    let mut heard = None;
    if asks {
        // Within what a log-in may take in all.
        let Ok(turn) = failures::turn(place).await else {
            let message = "too many clients are logging in as this user";
            return Err(refuse(&mut line, "53300", message, Reason::LimitLogins).await);
        };
        heard = Some(turn);
    }
    let proved = proof::prove(&mut line, &startup, &judge, connection).await;
    match (&proved, heard) {
        (Ok(_), Some(heard)) => heard.judged(true),
        (Err(fault), Some(heard)) if fault.reason == Reason::RefusedLogin => heard.judged(false),
        _ => {}
    }
    let credential = proved?;
    Ok(Arrived::Client { line, startup, credential })
}

/// Tells a client that it is over, and why as far as it may know.
async fn refuse(line: &mut Line, code: &str, message: &str, reason: Reason) -> Fault {
    let mut out = Vec::new();
    let error = Notice {
        severity: Some(b"FATAL"),
        code: Some(code.as_bytes()),
        message: Some(message.as_bytes()),
        ..Notice::default()
    };
    push_error(&mut out, &error);
    // Whether it hears it or not, it is over.
    let _ = line.write(&out).await;
    Fault::new(Stage::Identify, Whose::Client, reason).because(message.to_owned())
}

fn broken(error: std::io::Error) -> Fault {
    let reason = match error.kind() {
        std::io::ErrorKind::InvalidData => Reason::ProtocolError,
        std::io::ErrorKind::UnexpectedEof => Reason::ClientClosed,
        _ => Reason::ClientReset,
    };
    Fault::new(Stage::Identify, Whose::Client, reason).because(error)
}
