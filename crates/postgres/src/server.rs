//! A server that is logged in to: what is known of it, and who it is logged in as.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, Weak};

use tieline_base::{EndpointAddr, Moment};
use tieline_pool::{Endpoint, Kept, Loan, Making};
use tieline_transport::Io;
use tieline_wire::postgres::backend::Status;

use crate::again::Again;
use crate::census::{Listed, Pool, ServerRow};
use crate::denials::Denials;
use crate::keys::Backend;
use crate::login::server::{LogIn, Ready, ServerLogin};
use crate::login::{Blinded, Credential, Encryption};
use crate::outstanding::Outstanding;
use crate::settings::{Reported, Settings};
use crate::statements::Prepared;

/// What a connection to a server rests and changes hands with.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) login: Arc<Login>,
    /// What others see of it.
    pub(crate) row: Listed,
    /// How its queries are cancelled; `None` if it gave no key for that.
    pub(crate) backend: Option<Arc<Backend>>,
    /// What it told of its settings.
    pub(crate) reported: Arc<Reported>,
    /// What it has that a session which has just begun has not.
    pub(crate) settings: Arc<Settings>,
    pub(crate) status: Status,
    pub(crate) outstanding: Outstanding,
    pub(crate) prepared: Prepared,
    /// It may have settings of applications that nobody knows by name.
    pub(crate) unseen: bool,
    /// Which unnamed statement it has, by its number; 0 for none.
    pub(crate) unnamed: u64,
    /// The change of tables up to which what it has prepared is good ([`Login::changes`]).
    changes: u64,
    /// A batch that may have to be asked again.
    pub(crate) again: Again,
}

impl Server {
    pub(crate) fn new(login: Arc<Login>, ready: Ready, endpoint: &Endpoint, pool: &Pool, io: &Io) -> Self {
        let backend = ready.key.map(|key| Backend::new(key, endpoint, login.tls.clone()));
        Self {
            row: listed(endpoint, backend.clone(), pool, io),
            changes: login.changes.load(Ordering::Relaxed),
            again: Again::default(),
            login,
            backend,
            reported: Reported::new(ready.parameters),
            settings: Settings::default().shared(),
            status: Status::Idle,
            outstanding: Outstanding::default(),
            prepared: Prepared::default(),
            unseen: false,
            unnamed: 0,
        }
    }

    /// Goes back to where others get it from; one that is doomed is closed.
    pub(crate) fn rest(mut self: Box<Self>, io: Io, loan: Loan, mut making: Making, now: Moment) {
        self.row.has_prepared(self.prepared.len());
        self.row.is_free();
        self.again.forget();
        if self.row.is_doomed() {
            // Its place is given away when it is closed, and not before.
            drop(io);
            return;
        }
        making.keep(self);
        loan.park_at(io, making, now);
    }

    /// Whether a client that wants `settings` may use it as it is.
    pub(crate) fn is_dressed(&self, settings: &Arc<Settings>) -> bool {
        Arc::ptr_eq(&self.settings, settings) && !self.login.asks_sequences.load(Ordering::Relaxed)
    }

    /// A statement that was prepared answers by tables that have changed since: what was prepared before is
    /// prepared anew, here and at all servers that are logged in to alike.
    pub(crate) fn found_stale(&mut self) {
        self.login.changes.fetch_add(1, Ordering::Relaxed);
        self.renew();
    }

    /// Prepares anew what was prepared before tables changed.
    pub(crate) fn renew(&mut self) {
        let changes = self.login.changes.load(Ordering::Relaxed);
        if self.changes != changes {
            self.changes = changes;
            self.prepared.spoil_all();
        }
    }

    /// Whether no request to cancel what it did can reach it any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.backend.as_ref().is_none_or(|backend| backend.is_quiet())
    }

    /// Returns when no request to cancel what it did is on its way any more; false if one was lost.
    pub(crate) async fn until_quiet(&self) -> bool {
        match &self.backend {
            Some(backend) => backend.until_quiet().await,
            None => true,
        }
    }

    /// It was made as new: nothing of a session is left in it.
    pub(crate) fn is_new(&mut self) {
        self.settings = Settings::default().shared();
        self.prepared.clear();
        self.unseen = false;
        self.unnamed = 0;
    }
}

/// The row of a server at `io` that was logged in to at `endpoint`.
pub(crate) fn listed(endpoint: &Endpoint, backend: Option<Arc<Backend>>, pool: &Pool, io: &Io) -> Listed {
    Listed::list(row(endpoint, backend, pool, io))
}

/// The same, not listed yet.
pub(crate) fn row(endpoint: &Endpoint, backend: Option<Arc<Backend>>, pool: &Pool, io: &Io) -> ServerRow {
    let mut row = ServerRow::new(endpoint.shared_label(), backend, pool);
    row.remote = endpoint.addresses().first().and_then(|address| match address {
        EndpointAddr::Socket(address) => Some(*address),
        EndpointAddr::Unix(_) | EndpointAddr::Agent(_) => None,
    });
    (row.local, row.is_encrypted) = (io.local_address(), io.is_encrypted());
    row
}

impl Kept for Server {
    fn login(&self) -> u64 {
        // That of a doomed one is nobody's: none is given such a number.
        if self.row.is_doomed() { u64::MAX } else { self.login.id }
    }
}

/// One way of being logged in to a server.
#[derive(Debug)]
pub(crate) struct Login {
    /// No two of this process have the same, now or later: connections are told apart by it.
    pub(crate) id: u64,
    pub(crate) database: Box<str>,
    pub(crate) user: Box<str>,
    pub(crate) credential: Credential,
    /// How the server is spoken to under TLS, where it is.
    pub(crate) tls: Option<Encryption>,
    /// What servers say to it that is not going to change soon.
    pub(crate) denials: Denials,
    /// How often tables were found to have changed under statements that were prepared.
    changes: AtomicU64,
    /// Clients ask what sequences said last: nobody's answer may be found by another.
    pub(crate) asks_sequences: AtomicBool,
    // Held for a look; once for each client that logs in.
    #[allow(clippy::disallowed_types)]
    welcomes: std::sync::Mutex<HashMap<Settings, Welcome>>,
}

/// For so many beginnings of sessions it is remembered what servers made of them.
const WELCOMES_MAX: usize = 256;

/// Database, user and what stands for the credential; and which TLS, by where it lies: it lies there for as
/// long as the login lives.
type Key = (Box<str>, Box<str>, Blinded, (usize, bool));

// Held for a look-up, once for each client that logs in.
#[allow(clippy::disallowed_types)]
static LOGINS: LazyLock<std::sync::Mutex<HashMap<Key, Weak<Login>>>> = LazyLock::new(Default::default);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Login {
    /// The one by which `own` logs in for a client that asked for `database` as `user`, and showed
    /// `credential`.
    pub(crate) fn of(own: &ServerLogin, database: &str, user: &str, credential: &Credential) -> Arc<Self> {
        let database = own.database.as_deref().unwrap_or(database);
        let credential = own.credential(credential);
        let user = own.user.as_deref().unwrap_or(user);
        let place = own.tls.as_ref().map_or((0, false), Encryption::place);
        let key: Key = (database.into(), user.into(), credential.key(), place);
        let mut logins = LOGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = logins.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if logins.len() == logins.capacity() {
            // Before it grows.
            logins.retain(|_, login| login.strong_count() > 0);
        }
        let login = Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            database: database.into(),
            user: user.into(),
            credential,
            tls: own.tls.clone(),
            denials: Denials::default(),
            changes: AtomicU64::new(0),
            asks_sequences: AtomicBool::new(false),
            welcomes: Default::default(),
        });
        logins.insert(key, Arc::downgrade(&login));
        login
    }

    /// One that nobody else has, now or later, by what `own` names; `None` if that is not all.
    pub(crate) fn apart(own: &ServerLogin) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            database: own.database.clone()?,
            user: own.user.clone()?,
            credential: own.credential(&Credential::None),
            tls: own.tls.clone(),
            denials: Denials::default(),
            changes: AtomicU64::new(0),
            asks_sequences: AtomicBool::new(false),
            welcomes: Default::default(),
        }))
    }

    pub(crate) fn log_in(&self) -> LogIn<'_> {
        LogIn { database: &self.database, user: &self.user, credential: &self.credential, parameters: &[] }
    }

    /// What a server makes of a session that begins with `settings`, if one has been asked.
    pub(crate) fn welcome(&self, settings: &Settings) -> Option<Welcome> {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = welcomes.get(settings) {
            return Some(known.clone());
        }
        // Every client may call itself something else: that needs no server's opinion.
        let name = settings.get(APPLICATION_NAME).filter(|name| is_plain(name))?;
        let mut unnamed = settings.clone();
        unnamed.unset(APPLICATION_NAME);
        let known = welcomes.get(&unnamed)?;
        let mut own = (*known.settings).clone();
        own.set(APPLICATION_NAME, name.into());
        let reported = known.reported.with(APPLICATION_NAME, name);
        let own = Welcome { settings: own.shared(), reported };
        remember(&mut welcomes, settings.clone(), own.clone());
        Some(own)
    }

    /// Remembers it.
    pub(crate) fn set_welcome(&self, settings: Settings, welcome: Welcome) {
        remember(&mut self.welcomes.lock().unwrap_or_else(PoisonError::into_inner), settings, welcome);
    }
}

/// What a server makes of the settings that a session begins with.
#[derive(Clone, Debug)]
pub(crate) struct Welcome {
    /// The settings, as the server spells them.
    pub(crate) settings: Arc<Settings>,
    /// What it tells of them.
    pub(crate) reported: Arc<Reported>,
}

const APPLICATION_NAME: &[u8] = b"application_name";

/// Whether a server would take this name for an application as it is.
fn is_plain(name: &[u8]) -> bool {
    const LONGEST: usize = 63;
    name.len() <= LONGEST && name.iter().all(|byte| (b' '..=b'~').contains(byte))
}

fn remember(welcomes: &mut HashMap<Settings, Welcome>, settings: Settings, welcome: Welcome) {
    if welcomes.len() >= WELCOMES_MAX {
        welcomes.retain(|settings, _| settings.get(APPLICATION_NAME).is_none());
    }
    if welcomes.len() >= WELCOMES_MAX {
        // Any one of them: who begins so once more asks once more.
        let any = welcomes.keys().nth(fastrand::usize(..welcomes.len())).cloned();
        any.and_then(|any| welcomes.remove(&any));
    }
    welcomes.insert(settings, welcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_that_nobody_repeats_keep_no_room() {
        let login = Login::of(&ServerLogin::default(), "welcomes", "u", &Credential::None);
        let begins = |at: usize| {
            let mut settings = Settings::default();
            settings.set(b"app.tenant", at.to_string().into_bytes().into());
            settings
        };
        let welcome = |settings: &Settings| Welcome {
            settings: Arc::new(settings.clone()),
            reported: Reported::new(Vec::new()),
        };
        for at in 0..2 * WELCOMES_MAX {
            login.set_welcome(begins(at), welcome(&begins(at)));
            assert!(login.welcome(&begins(at)).is_some(), "the newest is always known");
        }
        assert_eq!(login.welcomes.lock().unwrap().len(), WELCOMES_MAX);
    }

    #[test]
    fn a_login_is_the_same_by_all_that_it_is_made_of() {
        let own = ServerLogin::default();
        let secret = |text: &str| Credential::Password(tieline_base::Secret::new(text.into()));
        let of = |database: &str, user: &str, shown: &Credential| Login::of(&own, database, user, shown);
        let one = of("a", "u", &secret("x"));
        assert_eq!(one.id, of("a", "u", &secret("x")).id);
        assert_ne!(one.id, of("a", "u", &secret("y")).id);
        assert_ne!(one.id, of("a", "u", &Credential::None).id);
        assert_ne!(one.id, of("u", "a", &secret("x")).id);
        let id = one.id;
        drop(one);
        assert_ne!(id, of("a", "u", &secret("x")).id, "a number stands for one login only");
    }
}
