//! Users that the config does not name, looked up in a database.
//!
//! Each is asked for once, however many log in as them, on a connection that no client ever gets: it has
//! settings of its own, so that nobody else's decide what the query means (CVE-2025-12819).

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Identity, Moment, Verifier};
use tieline_policy::{Access, Rule, Subject};
use tieline_pool::{Ask, Reuse, Upstream};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::failures::address_of;
use super::server::{LogIn, LogInError, ServerLogin};
use super::users::User;
use super::{Encryption, Line};
use crate::ask::{AskError, Row, ask_with};
use crate::census::{self, SigningIn};
use crate::server::{Login, Server};
use crate::sign_in::sign_in;
use crate::site::Mode;

/// Where users are looked up.
#[derive(Clone, Debug)]
pub struct LookupSettings {
    /// Who is asked.
    pub upstream: Arc<Upstream>,
    /// As whom: its user and its database are given.
    pub login: ServerLogin,
    /// What is asked; $1 is the user's name. The answer is a name and what is kept of the password.
    pub query: Box<str>,
    /// How long an answer is believed.
    pub ttl: Duration,
    /// All that a log-in to a server may take, connecting left out.
    pub connect: Duration,
}

impl LookupSettings {
    fn is(&self, other: &Self) -> bool {
        let tls = |one: &Self| one.login.tls.as_ref().map(Encryption::place);
        let login = |one: &Self| (one.login.database.clone(), one.login.user.clone());
        Arc::ptr_eq(&self.upstream, &other.upstream)
            && login(self) == login(other)
            && self.login.password == other.login.password
            && tls(self) == tls(other)
            && (&self.query, self.ttl, self.connect) == (&other.query, other.ttl, other.connect)
    }
}

/// Users by their names, as a database knows them.
#[derive(Debug)]
pub struct Lookup {
    settings: LookupSettings,
    login: Arc<Login>,
    rule: Rule,
    turns: Semaphore,
    /// The turns of clients of one address, while any of them waits or asks.
    places: Lock<HashMap<Option<IpAddr>, Arc<Semaphore>>>,
    known: Lock<HashMap<Box<str>, Arc<OnceCell<Found>>>>,
    /// How many of those who were found hash their password so often.
    iterations: Lock<HashMap<u32, u64>>,
}

/// Held for a look-up in a table; once for each client that logs in.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

/// What was found.
#[derive(Debug)]
struct Found {
    at: Moment,
    /// `None`: there is no such user.
    user: Option<User>,
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
#[error("users cannot be looked up: {0}")]
pub(crate) struct NoAnswer(Box<str>);

/// So many are asked for at once.
const AT_ONCE: usize = 8;

/// So many of them for clients of one address: whoever makes up names keeps no others waiting.
const AT_ONCE_OF_ONE: usize = 4;

/// So many answers are kept.
const KNOWN_MAX: usize = 10_000;

/// How long it is believed that there is no such user.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// What is asked for means the same whoever the login's settings would have it otherwise for.
const PARAMETERS: [(&[u8], &[u8]); 1] = [(b"search_path", b"pg_catalog")];

impl Lookup {
    /// Looks up by `settings`; what `before` found is kept where they are the same. `None` if they name no
    /// user or no database.
    pub fn new(settings: LookupSettings, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        if let Some(same) = before.filter(|before| before.settings.is(&settings)) {
            return Some(same.clone());
        }
        let login = Login::apart(&settings.login)?;
        let rule = Rule::new("auth_query", settings.upstream.name(), "auth_query", Access::Public);
        let (turns, places) = (Semaphore::new(AT_ONCE), Lock::default());
        let (known, iterations) = (Lock::default(), Lock::default());
        Some(Arc::new(Self { settings, login, rule, turns, places, known, iterations }))
    }

    /// How often most of those who were found hash their password: strangers are asked the same. `None`:
    /// nobody was found yet.
    pub(crate) fn usual_iterations(&self) -> Option<u32> {
        let counts = self.iterations.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().max_by_key(|(iterations, count)| (**count, **iterations)).map(|(usual, _)| *usual)
    }

    fn note_iterations(&self, verifier: &Verifier) {
        /// A server has one setting of that, and had some before.
        const DIFFERENT_MAX: usize = 16;
        let Verifier::Scram(scram) = verifier else { return };
        let mut counts = self.iterations.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() < DIFFERENT_MAX || counts.contains_key(&scram.iterations) {
            *counts.entry(scram.iterations).or_default() += 1;
        }
    }

    /// The user called `name`, whom `client` says it is; `None` if there is none who may log in. May be
    /// dropped at any time.
    ///
    /// # Errors
    /// Nobody could be asked.
    pub(crate) async fn find(&self, name: &str, client: ClientAddr) -> Result<Option<User>, NoAnswer> {
        let entry = self.entry(name);
        // Who asks first asks for all; if that one is dropped, another of them does.
        let found = entry.get_or_try_init(async || {
            let place = self.place(address_of(client));
            let _own = place.acquire().await;
            let _turn = self.turns.acquire().await;
            let user = self.ask(name).await?;
            Ok(Found { at: Clock::now(), user })
        });
        found.await.map(|found| found.user.clone()).map_err(|error: LogInError| {
            tracing::warn!(upstream = self.settings.upstream.name(), %error, "users cannot be looked up");
            NoAnswer(error.to_string().into())
        })
    }

    fn place(&self, address: Option<IpAddr>) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, turns| Arc::strong_count(turns) > 1);
        places.entry(address).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_OF_ONE))).clone()
    }

    fn entry(&self, name: &str) -> Arc<OnceCell<Found>> {
        let now = Clock::now();
        let is_fresh = |entry: &Arc<OnceCell<Found>>| match entry.get() {
            Some(Found { at, user: Some(_) }) => now.since(*at) < self.settings.ttl,
            Some(Found { at, user: None }) => now.since(*at) < self.settings.ttl.min(UNKNOWN_FOR),
            None => true,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.get(name).filter(|entry| is_fresh(entry)) {
            return entry.clone();
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, entry| is_fresh(entry));
        }
        if known.len() >= KNOWN_MAX {
            // Names that somebody makes up push out no user.
            known.retain(|_, entry| entry.get().is_some_and(|found| found.user.is_some()));
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let entry = Arc::new(OnceCell::new());
        known.insert(name.into(), entry.clone());
        entry
    }

    async fn ask(&self, name: &str) -> Result<Option<User>, LogInError> {
        let rows = self.rows(name).await?;
        let [row] = &rows[..] else {
            if !rows.is_empty() {
                tracing::warn!(user = name, "auth_query answers with several rows, so with nobody");
            }
            return Ok(None);
        };
        let text =
            |at: usize| row.get(at).and_then(Option::as_deref).and_then(|it| std::str::from_utf8(it).ok());
        // Whoever is found must be who was asked for (CVE-2015-6817).
        let (Some(found), Some(kept)) = (text(0), text(1)) else { return Ok(None) };
        if found != name {
            tracing::warn!(user = name, found, "auth_query answers with another user, so with nobody");
            return Ok(None);
        }
        match kept.parse::<Verifier>() {
            Ok(verifier) => {
                self.note_iterations(&verifier);
                Ok(Some(User { verifier, password: None }))
            }
            Err(error) => {
                tracing::warn!(user = name, %error, "auth_query answers with what is no verifier");
                Ok(None)
            }
        }
    }

    /// What a server answers.
    async fn rows(&self, name: &str) -> Result<Vec<Row>, LogInError> {
        let failed = |error: &dyn std::fmt::Display| LogInError::Protocol(error.to_string());
        // Nobody is the client of this: it is done for all who log in.
        let nobody = Subject { client: ClientAddr::Unix, identity: &Identity::Anonymous };
        let permit = self.rule.decide(&nobody).map_err(|error| failed(&error))?;
        let ask = Ask { reuse: Reuse::Any, login: self.login.id, ..Ask::default() };
        let leased = self.settings.upstream.lease(&permit, ask, &mut |_| {}).await;
        let mut lease = leased.map_err(|fault| failed(&fault))?;
        let knock = lease.take_knock();
        let (io, loan, mut making) = lease.into_parts();
        let kept: Option<Box<dyn std::any::Any>> =
            making.take_kept().map(|kept| -> Box<dyn std::any::Any> { kept });
        let (io, mut server) = match kept.and_then(|kept| kept.downcast::<Server>().ok()) {
            Some(server) => (io, server),
            None => {
                let late = |_| LogInError::from(io::Error::from(io::ErrorKind::TimedOut));
                let new = timeout(self.settings.connect, self.log_in(io, loan.endpoint()));
                let signed_in = new.await.map_err(late)??;
                drop(knock);
                signed_in
            }
        };
        let mut line = Line::new(io);
        let rows = ask_with(&mut line, &mut server, self.settings.query.as_bytes(), name.as_bytes()).await;
        match rows {
            Err(AskError::Io(error)) => Err(error.into()),
            said => {
                // A query that fails does so as a whole: the server is what it was.
                if let Ok(io) = line.into_quiet_io() {
                    server.rest(io, loan, making, Clock::now());
                }
                said.map_err(|error| match error {
                    AskError::Said(body) => LogInError::Refused(body),
                    AskError::Io(error) => error.into(),
                })
            }
        }
    }

    async fn log_in(
        &self,
        io: tieline_transport::Io,
        endpoint: &Arc<tieline_pool::Endpoint>,
    ) -> Result<(tieline_transport::Io, Box<Server>), LogInError> {
        let pool = census::pool(&self.login.database, &self.login.user, Mode::Transaction);
        let _counted = SigningIn::begin(&pool);
        let parameters = PARAMETERS.map(|(name, value)| (name.into(), value.into()));
        let by = LogIn { parameters: &parameters, ..self.login.log_in() };
        let (line, ready) = sign_in(io, &endpoint.host(), self.login.tls.as_ref(), &by).await?;
        let io = line.into_quiet_io()?;
        let server = Server::new(self.login.clone(), ready, endpoint, &pool, &io);
        Ok((io, Box::new(server)))
    }
}
