//! A person's side: one link to his server, and streams to the services that he may reach through it.
//!
//! Start with [`Person::prove`], then [`Person::link`].

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tieline_base::Address;
use tieline_transport::Io;
use tieline_transport::tls::{CertificateFiles, ClientTls};
use tieline_wire::tunnel::{Code, Party, Patience, Refusal, Request};
use tokio::sync::watch;

use crate::agent::{Over, beat, ways_to};
use crate::enrol::{EnrolError, believed, enrol_person};
use crate::flow::LinkFlow;
use crate::greeting::Caller;
use crate::host::AWAY_MAX;
use crate::identity::shown_by;
use crate::life::{Dialer, Life, Standing};
use crate::live::LiveLink;
use crate::people::PersonToken;
use crate::sha::random;
use crate::stream::{LinkStream, code_in};
use crate::ways::Proxy;

/// Somebody whom the server has believed.
#[derive(Debug)]
pub struct Person {
    server: Address,
    proxy: Option<Proxy>,
    name: String,
    tls: Arc<ClientTls>,
}

/// The way through a person's link, for as many streams as he likes.
#[derive(Clone, Debug)]
pub struct UserLink {
    standing: watch::Receiver<Standing>,
}

/// How a link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// It is not carried, and will be as soon as the server can be reached.
    Down,
    /// It is.
    Up,
    /// The server wants no link of this person any more.
    Refused,
}

/// Why a stream did not come about, or did not end by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server, or the agent, says no.
    #[error("{0}")]
    Refused(String),
    /// The service, or its site, does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// An operator ended it.
    #[error("it was ended by an operator")]
    Killed,
    /// Nothing moved for as long as it may be idle.
    #[error("its time was over: {0}")]
    Idle(String),
    /// The link was down for too long, or the time of the token or route was over.
    #[error("its time was over: {0}")]
    Expired(String),
    /// It broke.
    #[error("{0}")]
    Broken(String),
}

impl Person {
    /// Proves to the server at `server` whose `token` it is, through `proxy` where there is one. The key that
    /// is made for it lives as long as what is answered, and is written nowhere.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn prove(
        server: &Address,
        proxy: Option<Proxy>,
        token: &PersonToken,
    ) -> Result<Person, EnrolError> {
        let (name, tls) = enrol_person(server, proxy.as_ref(), token).await?;
        Ok(Person { server: server.clone(), proxy, name, tls: Arc::new(tls) })
    }

    /// Shows `certificate` to the server at `server`, which must be of the authority whose certificate is in
    /// the file `authority`, and hears whom that takes him for. Every connection of the link is proved by it
    /// again.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn show(
        server: &Address,
        proxy: Option<Proxy>,
        certificate: CertificateFiles,
        authority: &Path,
    ) -> Result<Person, EnrolError> {
        let tls = Arc::new(shown_by(certificate, authority)?);
        let name = believed(server, proxy.as_ref(), &tls).await?;
        Ok(Person { server: server.clone(), proxy, name, tls })
    }

    /// Whom the server took him for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` with a link to the server, on a runtime of one thread that takes local tasks. The link is
    /// kept up meanwhile over whatever connection works, and ended afterwards.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    #[allow(clippy::disallowed_methods)] // the link's own beat, for as long as it is wanted
    pub async fn link<T>(self, work: impl AsyncFnOnce(UserLink) -> T) -> io::Result<T> {
        let (server, proxy, tls, offers) = (self.server, self.proxy, self.tls, None);
        // Nobody tells it of another network: it looks by itself.
        let (_told, roused) = watch::channel(());
        let (ways, boot) = (ways_to(&server, &[Over::Quic, Over::Tls, Over::WebSocket]), random()?);
        let caller = Caller { party: Party::Connect, boot, place: 0 };
        let dialer = Dialer { server, proxy, tls, ways, roused, caller, offers };
        let mut life = Life::begin(dialer, None);
        let work = work(UserLink { standing: life.standing() });
        let beat = tokio::task::spawn_local(beat());
        // Both arms may be dropped: the first is polled again where it stands, the second is done.
        let done = tokio::select! {
            never = poll_fn(|cx| life.poll(cx)) => match never {},
            done = work => done,
        };
        life.leave().await;
        beat.abort();
        Ok(done)
    }
}

impl UserLink {
    /// How it stands.
    pub fn state(&self) -> LinkState {
        match &*self.standing.borrow() {
            Standing::Up(_) => LinkState::Up,
            Standing::Refused(refusal) if is_final(*refusal) => LinkState::Refused,
            Standing::Down | Standing::Refused(_) => LinkState::Down,
        }
    }

    /// Waits until it stands otherwise. May be dropped at any time.
    pub async fn changed(&mut self) {
        // Who keeps it up outlives all who speak through it.
        let _ = self.standing.changed().await;
    }

    /// Opens a stream to `service`, as `AGENT/SERVICE`, and says `why` to those who have to agree, if any do:
    /// `tell` is told who, and the wait is theirs. Waits for a link, and has no deadline of its own.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(&self, service: &str, why: &str, tell: impl Fn(&str)) -> Result<Io, ConnectError> {
        let link = self.up().await?;
        let stream = self.ask(&link, service, why, false)?;
        let (_, id) = stream.handle();
        link.act(|core| core.link.set_patience(id, Patience { detached: AWAY_MAX, idle: None }));
        stream.opened_telling(tell).await.map_err(|error| self.error(&error))?;
        Ok(Io::Stream(Box::new(stream)))
    }

    /// Asks for a flow of datagrams to `service`; `None` while the link is down. Datagrams may be sent at
    /// once; whether the flow is refused shows where they are received.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn flow(&self, service: &str, why: &str) -> Result<Option<LinkFlow>, ConnectError> {
        let link = match &*self.standing.borrow() {
            Standing::Up(link) => link.clone(),
            Standing::Refused(refusal) if is_final(*refusal) => {
                return Err(ConnectError::Refused(NOT_WELCOME.into()));
            }
            Standing::Down | Standing::Refused(_) => return Ok(None),
        };
        self.ask(&link, service, why, true).map(|stream| Some(LinkFlow::new(stream)))
    }

    fn ask(
        &self,
        link: &Arc<LiveLink>,
        service: &str,
        why: &str,
        flow: bool,
    ) -> Result<LinkStream, ConnectError> {
        let request = Request {
            service: service.into(),
            subject: "".into(),
            permit: 0,
            trace: random().map_err(|error| ConnectError::Broken(error.to_string()))?,
            why: why.into(),
            flow,
        };
        link.open(request).map_err(|code| self.why(Some(code), code.to_string()))
    }

    /// What `error` of one of its streams means.
    pub fn error(&self, error: &io::Error) -> ConnectError {
        self.why(code_in(error), error.to_string())
    }

    async fn up(&self) -> Result<Arc<LiveLink>, ConnectError> {
        let mut standing = self.standing.clone();
        let is_settled = |standing: &Standing| match standing {
            Standing::Up(_) => true,
            Standing::Refused(refusal) => is_final(*refusal),
            Standing::Down => false,
        };
        match standing.wait_for(is_settled).await.map(|settled| settled.clone()) {
            Ok(Standing::Up(link)) => Ok(link),
            _ => Err(ConnectError::Refused(NOT_WELCOME.into())),
        }
    }

    fn why(&self, code: Option<Code>, text: String) -> ConnectError {
        match code {
            Some(Code::Denied | Code::Unknown) => ConnectError::Refused(text),
            Some(Code::Unreachable | Code::Timeout) => ConnectError::Unreachable(text),
            Some(Code::Killed) => ConnectError::Killed,
            Some(Code::Idle) => ConnectError::Idle(text),
            Some(Code::Expired) => ConnectError::Expired(text),
            // The link is over because the server wants it no more.
            _ if self.state() == LinkState::Refused => ConnectError::Refused(NOT_WELCOME.into()),
            _ => ConnectError::Broken(text),
        }
    }
}

/// What somebody is told whose link is refused.
const NOT_WELCOME: &str = "the server takes no link by this token any more";

/// Whether to ask again is no use.
fn is_final(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Denied | Refusal::Version)
}
