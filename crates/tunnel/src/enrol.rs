//! How an agent gets its certificate: the first one for a token, each later one for the one before.
//!
//! One question and one answer, each JSON behind its length in two bytes, inside TLS whose server was judged
//! by the authority that the agent knows already, be it only by the hash in its token.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tieline_base::Address;
use tieline_transport::Io;
use tieline_transport::tls::{Alpn, ClientTls, Fingerprint, TlsConnectError, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agents::Agents;
use crate::authority::{Authority, AuthorityError, der};
use crate::identity::{Fresh, Identity, IdentityError, first_contact, to_enrol, to_probe};
use crate::people::{self, People, PersonToken};
use crate::probe;
use crate::roster::Roster;
use crate::server::Shown;
use crate::store::{Issued, Proof, now};
use crate::token::{Token, TokenError};
use crate::ways::{Proxy, Reach, WayError};

/// Why an agent got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The server does not answer.
    #[error("cannot reach {server}: {error}")]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        error: io::Error,
    },
    /// Whoever answers is not the server that the token, or the certificate, is of.
    #[error("{server} is not the server that was meant: {error}")]
    Stranger {
        /// Which.
        server: String,
        /// Why.
        error: TlsConnectError,
    },
    /// No way leads there.
    #[error("cannot reach {server}: {why}")]
    NoWay {
        /// Which.
        server: String,
        /// What is in the way.
        why: String,
    },
    /// It took too long.
    #[error("the server does not answer within {0:?}")]
    Late(Duration),
    /// The server says no.
    #[error("the server says no: {0}")]
    Refused(String),
    /// What it answers is none.
    #[error("the server's answer is none")]
    Malformed,
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity cannot be made or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[derive(Serialize, Deserialize)]
struct Question {
    /// `None`: the certificate that was shown is to be renewed.
    token: Option<String>,
    /// The certificate request, in DER.
    request: String,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    #[serde(rename = "issued")]
    Issued { agent: String, chain: String, authority: String },
    #[serde(rename = "refused")]
    Refused(String),
}

/// The longest question or answer.
const LENGTH_MAX: usize = 16 * 1024;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Joins: redeems `token` at `server`, through `proxy` where there is one, and keeps the certificate in
/// `identity`. Answers the agent's name.
///
/// # Errors
/// [`EnrolError`]; nothing is kept then.
pub async fn enrol(
    server: &Address,
    proxy: Option<&Proxy>,
    token: &str,
    identity: &Identity,
) -> Result<String, EnrolError> {
    identity.must_be_new()?;
    let parsed = Token::parse(token)?;
    let tls = Arc::new(first_contact(parsed.authority)?);
    let fresh = Fresh::make()?;
    let text = Some(parsed.text().reveal().to_owned());
    let (agent, chain, authority) = ask(server, proxy, &tls, text, &fresh).await?;
    if der(&authority).map(|der| Fingerprint::of(&der)) != Some(parsed.authority) {
        return Err(IdentityError::Unfit("its authority is not the one that the token is of").into());
    }
    identity.keep(&fresh, &chain, Some(&authority))?;
    Ok(agent)
}

/// Renews the certificate in `identity`, with a new key.
pub(crate) async fn renew(
    server: &Address,
    proxy: Option<&Proxy>,
    tls: &Arc<ClientTls>,
    identity: &Identity,
) -> Result<(), EnrolError> {
    let fresh = Fresh::make()?;
    let (_, chain, _) = ask(server, proxy, tls, None, &fresh).await?;
    Ok(identity.keep(&fresh, &chain, None)?)
}

/// Proves a person by his token, through `proxy` where there is one: his name, and TLS that shows a
/// certificate for a key that is nowhere but here.
///
/// # Errors
/// [`EnrolError`].
pub(crate) async fn enrol_person(
    server: &Address,
    proxy: Option<&Proxy>,
    token: &PersonToken,
) -> Result<(String, ClientTls), EnrolError> {
    let tls = Arc::new(first_contact(token.authority)?);
    let fresh = Fresh::make()?;
    let text = Some(token.text().reveal().to_owned());
    let (name, chain, _) = ask(server, proxy, &tls, text, &fresh).await?;
    Ok((name, fresh.shown(&chain, token.authority)?))
}

async fn ask(
    server: &Address,
    proxy: Option<&Proxy>,
    tls: &Arc<ClientTls>,
    token: Option<String>,
    fresh: &Fresh,
) -> Result<(String, String, String), EnrolError> {
    let question = Question { token, request: BASE64.encode(&fresh.request) };
    let asking = async {
        let mut io = reached(server, proxy, tls, to_enrol()).await?;
        let unreachable = |error| EnrolError::Unreachable { server: server.to_string(), error };
        say(&mut io, &question).await.map_err(unreachable)?;
        let unreachable = |error| EnrolError::Unreachable { server: server.to_string(), error };
        hear::<Answer>(&mut io).await.map_err(unreachable)
    };
    match tokio::time::timeout(PATIENCE, asking).await.map_err(|_| EnrolError::Late(PATIENCE))?? {
        Some(Answer::Issued { agent, chain, authority }) => Ok((agent, chain, authority)),
        Some(Answer::Refused(why)) => Err(EnrolError::Refused(why.escape_debug().to_string())),
        None => Err(EnrolError::Malformed),
    }
}

/// Whom the server takes a person for who shows what `tls` does.
///
/// # Errors
/// [`EnrolError`].
pub(crate) async fn believed(
    server: &Address,
    proxy: Option<&Proxy>,
    tls: &Arc<ClientTls>,
) -> Result<String, EnrolError> {
    let asking = async {
        let mut io = reached(server, proxy, tls, to_probe()).await?;
        // Our own certificate is judged when ours is done: what is wrong with it comes in place of an answer.
        probe::ask(&mut io).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => EnrolError::Refused(format!("it refuses the certificate: {error}")),
            // It has proved itself, and breaks off where it would judge who we are.
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => {
                EnrolError::Refused(format!("it breaks off behind the certificate ({error})"))
            }
            _ => EnrolError::Unreachable { server: server.to_string(), error },
        })
    };
    let heard = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| EnrolError::Late(PATIENCE))??;
    let nobody = || EnrolError::Refused("it knows nobody by this certificate".into());
    heard.answer.seen.person.ok_or_else(nobody)
}

/// A connection of TLS to the server, for one of `protocols`.
async fn reached(
    server: &Address,
    proxy: Option<&Proxy>,
    tls: &Arc<ClientTls>,
    protocols: Vec<Alpn>,
) -> Result<Io, EnrolError> {
    let reach = Reach { server: server.clone(), proxy: proxy.cloned(), tls: tls.clone() };
    match reach.tls(protocols.clone()).await {
        Ok(io) => Ok(io),
        // Whoever lets no TLS through, or looks into it, may let a WebSocket through.
        Err(error) => reach.websocket(protocols).await.map_err(|_| no_way(server, error)),
    }
}

/// What was in the way of TLS; a WebSocket had no better luck.
fn no_way(server: &Address, error: WayError) -> EnrolError {
    let server = server.to_string();
    match error {
        WayError::Dial(error) => EnrolError::Unreachable { server, error },
        WayError::Tls(error) => EnrolError::Stranger { server, error },
        error => EnrolError::NoWay { server, why: error.to_string() },
    }
}

/// What became of a question, for the one who asked and for the log.
pub(crate) enum Enrolled {
    /// A certificate was issued to this agent.
    Issued(String, Issued),
    /// It was refused.
    Refused(String),
}

/// The server's part: answers one question. `shown` is the agent whose certificate, which can be renewed, was
/// shown. Without a deadline: the caller has one.
pub(crate) async fn answer(
    io: &mut Io,
    agents: &Arc<Agents>,
    authority: &Arc<Authority>,
    shown: Option<Shown>,
) -> io::Result<Enrolled> {
    let Some(question) = hear::<Question>(io).await? else {
        return refuse(io, "the question is none").await;
    };
    let (agents, by) = (agents.clone(), authority.clone());
    // Files are read and written, and keys are looked at: nobody else waits for that.
    let issuing = move || {
        let persons = question.token.as_deref().filter(|token| token.starts_with(people::PREFIX));
        match persons {
            Some(token) => issue_to_person(&question, token, agents.people(), &by),
            None => issue(&question, agents.roster(), &by, shown.as_ref()),
        }
    };
    match tokio::task::spawn_blocking(issuing).await.map_err(io::Error::other)? {
        Ok((agent, issued)) => {
            let (chain, authority) = (issued.chain.clone(), authority.certificate().to_owned());
            say(io, &Answer::Issued { agent: agent.clone(), chain, authority }).await?;
            Ok(Enrolled::Issued(agent, issued))
        }
        Err(why) => refuse(io, &why).await,
    }
}

async fn refuse(io: &mut Io, why: &str) -> io::Result<Enrolled> {
    say(io, &Answer::Refused(why.into())).await?;
    Ok(Enrolled::Refused(why.into()))
}

/// No certificate is renewed that is younger: an agent asks again ten minutes after an answer was lost.
const RENEWAL_MIN_SECONDS: u64 = 300;

/// Blocks.
fn issue(
    question: &Question,
    roster: &Roster,
    authority: &Authority,
    shown: Option<&Shown>,
) -> Result<(String, Issued), String> {
    let token = question.token.as_deref().map(Token::parse).transpose().map_err(|error| told(&error))?;
    // Who may ask comes first: what strangers send is not looked into.
    match (&token, shown) {
        (Some(token), _) if roster.store().has_token(token) => {}
        (Some(_), _) => return Err(told(&TokenError::Unknown)),
        (None, Some(shown)) => {
            let known = roster.store().read(&shown.agent).ok().flatten();
            let newest = known.and_then(|known| Some(known.newest()?.since));
            if newest.is_some_and(|since| now().saturating_sub(since) < RENEWAL_MIN_SECONDS) {
                return Err("a certificate was issued to this agent a moment ago".into());
            }
        }
        (None, None) => return Err("neither a token nor a good certificate was shown".into()),
    }
    let request = BASE64.decode(question.request.as_bytes()).map_err(|_| "the request is none")?;
    let key = Authority::key_of(&request).map_err(|_| "the request is none")?;
    let key = key.ok_or_else(|| told(&TokenError::Key))?;
    let (agent, proof) = match (&token, shown) {
        (Some(token), _) => {
            let agent = roster.store().redeem(token, key).map_err(|error| told(&error))?;
            (agent, Proof::Token(token))
        }
        (None, Some(shown)) => (shown.agent.clone(), Proof::Certificate(&shown.serial)),
        (None, None) => return Err("neither a token nor a good certificate was shown".into()),
    };
    let defect = |error: AuthorityError| {
        tracing::error!(agent, "no certificate: {error}");
        "the server cannot issue certificates; its log says more".to_owned()
    };
    let issued = authority.issue(&agent, &request).map_err(defect)?;
    // It may have been revoked since it began to ask.
    match roster.admit(&agent, issued.good.clone(), proof).map_err(|error| defect(error.into()))? {
        true => Ok((agent, issued)),
        false => Err("the agent is revoked".into()),
    }
}

/// Whoever has a token gets as many certificates as he likes: each is good for as long as the token is.
fn issue_to_person(
    question: &Question,
    token: &str,
    people: &People,
    authority: &Authority,
) -> Result<(String, Issued), String> {
    let token = PersonToken::parse(token).map_err(|error| told(&error))?;
    let who = people.proved_by(&token).map_err(|error| told(&error))?;
    let request = BASE64.decode(question.request.as_bytes()).map_err(|_| "the request is none")?;
    let issued = authority.issue_to_person(&who, &request).map_err(|error| {
        tracing::error!(person = who.name, "no certificate: {error}");
        "the server cannot issue certificates; its log says more".to_owned()
    })?;
    Ok((who.name, issued))
}

/// What a stranger may know of it.
fn told(error: &TokenError) -> String {
    match error {
        TokenError::Store(error) => {
            tracing::error!("a token cannot be looked up: {error}");
            "the server cannot look up tokens; its log says more".into()
        }
        error => error.to_string(),
    }
}

pub(crate) async fn say(io: &mut Io, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    let length = u16::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(&bytes).await?;
    io.flush().await
}

/// `None` if it is not what it should be.
pub(crate) async fn hear<T: for<'de> Deserialize<'de>>(io: &mut Io) -> io::Result<Option<T>> {
    let mut length = [0; 2];
    io.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > LENGTH_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes).ok())
}
