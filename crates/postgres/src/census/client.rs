//! What is known of one client.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use tieline_base::Moment;
use tieline_conn::Connection;
use tieline_registry::Record;
use tieline_transport::Io;
use tieline_wire::postgres::startup::Replication;

use super::seats::{self, Full};
use super::{CLIENTS, Pool};

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    Idle,
    /// It waits for a server.
    Waiting,
    /// It holds one.
    Active,
}

/// What a client is from its log-in on.
#[derive(Debug)]
pub(crate) struct ClientRow {
    pub(crate) record: Arc<Record>,
    pub(crate) database: Box<str>,
    pub(crate) user: Box<str>,
    /// As it called itself at first.
    pub(crate) application: Box<str>,
    /// Where it connected to.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) tls: Box<str>,
    /// What it replicates, if that is what it is for.
    pub(crate) replication: Option<Replication>,
    pool: AtomicU32,
    doing: AtomicU8,
    since: AtomicU64,
    server: AtomicU64,
    prepared: AtomicU32,
}

impl ClientRow {
    /// The client at `io`, who asks for `database` as `user` and calls itself `application`.
    pub(crate) fn new(
        connection: &Connection,
        io: &Io,
        (database, user): (&str, &str),
        application: Option<&[u8]>,
        replication: Option<Replication>,
    ) -> Self {
        let record = connection.record();
        Self {
            record: record.clone(),
            database: database.into(),
            user: user.into(),
            application: String::from_utf8_lossy(application.unwrap_or_default()).into(),
            local: connection.addresses(io).map(|(_, local)| local),
            tls: connection.tls().map(|tls| tls.version.as_str().into()).unwrap_or_default(),
            replication,
            pool: AtomicU32::new(0),
            doing: AtomicU8::new(Doing::Idle as u8),
            since: AtomicU64::new(record.opened().0),
            server: AtomicU64::new(0),
            prepared: AtomicU32::new(0),
        }
    }

    /// The id of its connection.
    pub(crate) fn id(&self) -> u64 {
        self.record.id().0
    }

    /// The id of its pool.
    pub(crate) fn pool(&self) -> u32 {
        self.pool.load(Relaxed)
    }

    /// From now on it belongs to `pool`.
    pub(crate) fn joins(&self, pool: &Pool) {
        self.pool.store(pool.id, Relaxed);
    }

    /// What it does, and since when.
    pub(crate) fn doing(&self) -> (Doing, Moment) {
        let doing = match self.doing.load(Relaxed) {
            0 => Doing::Idle,
            1 => Doing::Waiting,
            _ => Doing::Active,
        };
        (doing, Moment(self.since.load(Relaxed)))
    }

    /// The id of the server that it holds; 0 for none.
    pub(crate) fn server(&self) -> u64 {
        self.server.load(Relaxed)
    }

    /// How many statements it has prepared by name, when it held a server last.
    pub(crate) fn prepared(&self) -> u32 {
        self.prepared.load(Relaxed)
    }

    /// So many are prepared.
    pub(crate) fn has_prepared(&self, count: usize) {
        self.prepared.store(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    pub(crate) fn waits(&self, since: Moment) {
        self.does(Doing::Waiting, since, 0);
    }

    pub(crate) fn holds(&self, server: u64, since: Moment) {
        self.does(Doing::Active, since, server);
    }

    pub(crate) fn rests(&self, since: Moment) {
        self.does(Doing::Idle, since, 0);
    }

    fn does(&self, doing: Doing, since: Moment, server: u64) {
        self.since.store(since.0, Relaxed);
        self.server.store(server, Relaxed);
        self.doing.store(doing as u8, Relaxed);
    }
}

/// A client on the list, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Client {
    row: Arc<ClientRow>,
    /// It is one of those of its user and its database.
    is_seated: bool,
}

impl Client {
    /// Lists a client of the console, which is not counted.
    pub(crate) fn list(row: ClientRow) -> Self {
        let row = Arc::new(row);
        CLIENTS.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id(), row.clone());
        Self { row, is_seated: false }
    }

    /// Lists a client, where so many may be of its user, and at its database; `None`: any number.
    ///
    /// # Errors
    /// It would be one too many.
    pub(crate) fn seat(row: ClientRow, limits: (Option<u32>, Option<u32>)) -> Result<Self, Full> {
        seats::enter(&row.user, &row.database, limits)?;
        let mut client = Self::list(row);
        client.is_seated = true;
        Ok(client)
    }
}

impl Deref for Client {
    type Target = ClientRow;

    fn deref(&self) -> &ClientRow {
        &self.row
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        CLIENTS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.row.id());
        if self.is_seated {
            seats::leave(&self.row.user, &self.row.database);
        }
    }
}
