//! Logging in to servers.

use std::io;
use std::sync::Arc;

use aws_lc_rs::rand;
use tieline_base::Secret;
use tieline_wire::postgres::authentication::{Demand, push_password, push_sasl_initial, push_sasl_response};
use tieline_wire::postgres::backend::{self, Notice, kind};
use tieline_wire::postgres::frontend::push_startup;
use tieline_wire::postgres::md5;
use tieline_wire::postgres::scram::client::{Challenge, Channel, Exchange, Unverified};
use tieline_wire::postgres::scram::{Keys, NONCE_BYTES, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError};

use super::credential::Credential;
use super::encryption::Encryption;
use super::hashing::{self, Busy};
use super::{Line, Parameter};
use crate::keys::Proof;

/// As whom an upstream's servers are logged in to; what is left out is the client's own.
#[derive(Clone, Debug, Default)]
pub struct ServerLogin {
    /// The database.
    pub database: Option<Box<str>>,
    /// The user.
    pub user: Option<Box<str>>,
    /// The user's password.
    pub password: Option<Secret>,
    /// How servers are spoken to under TLS; `None`: without it.
    pub tls: Option<Encryption>,
}

impl ServerLogin {
    /// What is shown to servers for a client that has shown `client` to us.
    pub(crate) fn credential(&self, client: &Credential) -> Credential {
        match (&self.user, &self.password) {
            (None, _) => client.clone(),
            (Some(_), None) => Credential::None,
            (Some(_), Some(password)) => Credential::Password(password.clone()),
        }
    }
}

/// One log-in to a server, with nothing left open.
#[derive(Debug)]
pub(crate) struct LogIn<'l> {
    pub(crate) database: &'l str,
    pub(crate) user: &'l str,
    pub(crate) credential: &'l Credential,
    /// Settings that the server is to begin with.
    pub(crate) parameters: &'l [Parameter],
}

/// What a server says when it is ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Its parameters, each with its value.
    pub(crate) parameters: Vec<Parameter>,
    /// What cancels its queries; not all servers have such a key.
    pub(crate) key: Option<(u32, Proof)>,
}

/// Why a server could not be logged in to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogInError {
    /// It said no: the body of its ErrorResponse.
    #[error("the server says: {}", said(.0))]
    Refused(Box<[u8]>),
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What it says is not what a server says.
    #[error("{0}")]
    Protocol(String),
    /// It wants what we do not have.
    #[error("{0}")]
    Credential(&'static str),
    /// Its part of the proof is wrong, or no proof at all.
    #[error("the server's part of the log-in: {0}")]
    Scram(#[from] ScramError),
    /// Our part of the proof takes too long.
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// The longest message of a log-in.
const MESSAGE_MAX: usize = 64 * 1024;

/// Logs in at `line`.
///
/// # Errors
/// The server says no, breaks off, or speaks otherwise.
pub(crate) async fn log_in(line: &mut Line, login: &LogIn<'_>) -> Result<Ready, LogInError> {
    let mut out = Vec::new();
    let names = [(&b"user"[..], login.user.as_bytes()), (b"database", login.database.as_bytes())];
    let own = login.parameters.iter().map(|(name, value)| (&**name, &**value));
    push_startup(&mut out, names.into_iter().chain(own));
    line.write(&out).await?;
    let (mut ready, mut proving) = (Ready::default(), Proving::Unasked);
    loop {
        let (kind, body) = line.message(MESSAGE_MAX).await?;
        match kind {
            kind::ERROR_RESPONSE => return Err(LogInError::Refused(body.into())),
            kind::AUTHENTICATION => {
                let demand = Demand::read(&body).ok_or_else(malformed)?;
                proving = proving.meet(demand, line, login).await?;
            }
            // Nothing it says counts before it has said that it takes us.
            _ if !matches!(proving, Proving::Done) && kind != kind::NOTICE_RESPONSE => {
                return Err(LogInError::Protocol(format!("message {kind:#04x} before the log-in is over")));
            }
            kind::PARAMETER_STATUS => {
                let (name, value) = backend::parameter(&body).ok_or_else(malformed)?;
                ready.parameters.push((name.into(), value.into()));
            }
            kind::BACKEND_KEY_DATA => {
                let (process, secret) = backend::key(&body).ok_or_else(malformed)?;
                ready.key = (!secret.is_empty()).then(|| (process, secret.into()));
            }
            kind::NOTICE_RESPONSE => {}
            kind::READY_FOR_QUERY => return Ok(ready),
            other => {
                return Err(LogInError::Protocol(format!("message {other:#04x} in a server's log-in")));
            }
        }
    }
}

/// How far a proof is.
enum Proving {
    /// Nothing was asked for.
    Unasked,
    /// A password, or the hash of one, was sent.
    Answered,
    /// An exchange by SCRAM was begun.
    Begun(Exchange),
    /// We have proved it, and the server has yet to prove that it knows us.
    Proved(Unverified),
    /// Both have.
    Verified,
    /// The server takes us.
    Done,
}

impl Proving {
    async fn meet(
        self,
        demand: Demand<'_>,
        line: &mut Line,
        login: &LogIn<'_>,
    ) -> Result<Proving, LogInError> {
        let mut out = Vec::new();
        let next = match (self, demand) {
            // A server that has proved nothing may be one that took the place of ours.
            (Proving::Begun(_) | Proving::Proved(_), Demand::Ok) => return Err(ScramError::Proof.into()),
            (Proving::Unasked | Proving::Answered | Proving::Verified, Demand::Ok) => Proving::Done,
            (Proving::Unasked, Demand::Cleartext) => {
                push_password(&mut out, in_the_clear(line, login.credential)?);
                Proving::Answered
            }
            (Proving::Unasked, Demand::Md5(salt)) => {
                push_password(&mut out, by_md5(login, salt)?.as_bytes());
                Proving::Answered
            }
            (Proving::Unasked, Demand::Sasl(offered)) => {
                let end_point = line.io.peer_end_point();
                let (mechanism, channel) = match &end_point {
                    Some(hash) if offered.has(SCRAM_SHA_256_PLUS) => {
                        (SCRAM_SHA_256_PLUS, Channel::Bound(hash))
                    }
                    Some(_) => (SCRAM_SHA_256, Channel::NotOffered),
                    None => (SCRAM_SHA_256, Channel::Unable),
                };
                if !offered.has(mechanism) {
                    return Err(LogInError::Credential(
                        "the server asks for a proof that is not SCRAM-SHA-256",
                    ));
                }
                let (exchange, first) = Exchange::begin(channel, &nonce()?);
                push_sasl_initial(&mut out, mechanism, first.as_bytes());
                Proving::Begun(exchange)
            }
            (Proving::Begun(exchange), Demand::SaslContinue(first)) => {
                let challenge = exchange.hear(first)?;
                let keys = keys(&challenge, login.credential).await?;
                let (unverified, last) = challenge.prove(&keys);
                push_sasl_response(&mut out, last.as_bytes());
                Proving::Proved(unverified)
            }
            (Proving::Proved(unverified), Demand::SaslFinal(last)) => {
                unverified.verify(last)?;
                Proving::Verified
            }
            (_, Demand::Other(_)) => {
                return Err(LogInError::Credential("the server asks for a proof that nobody here knows"));
            }
            _ => return Err(malformed()),
        };
        if !out.is_empty() {
            line.write(&out).await?;
        }
        Ok(next)
    }
}

/// A password goes over the wire as it is only where nobody can read it.
fn in_the_clear<'l>(line: &Line, credential: &'l Credential) -> Result<&'l [u8], LogInError> {
    let Credential::Password(password) = credential else { return Err(no_password(credential)) };
    if line.io.is_encrypted() || line.io.is_local() {
        return Ok(password.reveal().as_bytes());
    }
    Err(LogInError::Credential("the server asks for the password in the clear, and there is no TLS"))
}

fn by_md5(login: &LogIn<'_>, salt: [u8; 4]) -> Result<String, LogInError> {
    match login.credential {
        Credential::Password(password) => {
            let hash = md5::hash(login.user.as_bytes(), password.reveal().as_bytes());
            Ok(md5::answer(&hash, salt))
        }
        Credential::Md5(hash) => Ok(md5::answer(hash, salt)),
        Credential::None | Credential::Keys { .. } => Err(no_password(login.credential)),
    }
}

async fn keys(challenge: &Challenge, credential: &Credential) -> Result<Arc<Keys>, LogInError> {
    match credential {
        Credential::Password(password) => {
            Ok(hashing::keys(password, &challenge.salt, challenge.iterations).await?)
        }
        Credential::Keys { keys, iterations, salt } => {
            if challenge.iterations.get() == *iterations && challenge.salt == **salt {
                return Ok(keys.clone());
            }
            Err(LogInError::Credential(
                "the server keeps another verifier of the user than ours, so what the client proved is of no \
                 use there; copy the server's into [user.NAME], or name its `password_file`",
            ))
        }
        Credential::None | Credential::Md5(_) => Err(no_password(credential)),
    }
}

fn no_password(credential: &Credential) -> LogInError {
    LogInError::Credential(match credential {
        Credential::None => "the server wants a password, and none is known",
        _ => "the server wants the password itself, and only a proof of it is known",
    })
}

fn nonce() -> Result<[u8; NONCE_BYTES], LogInError> {
    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    Ok(nonce)
}

fn malformed() -> LogInError {
    LogInError::Protocol("a malformed message in a server's log-in".into())
}

pub(crate) fn said(body: &[u8]) -> String {
    let notice = Notice::read(body).unwrap_or_default();
    let text = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or(b"?")).into_owned();
    format!("{} ({})", text(notice.message), text(notice.code)).replace(char::is_control, " ")
}
