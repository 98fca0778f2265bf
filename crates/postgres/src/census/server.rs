//! What is known of one server.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};

use tieline_base::{Clock, Moment};

use super::{LISTENERS, Pool, SERVERS, Table};
use crate::keys::Backend;

/// What a server is from its log-in on.
#[derive(Debug)]
pub(crate) struct ServerRow {
    /// No two have the same.
    pub(crate) id: u64,
    /// The endpoint, as the config and the live table call it.
    pub(crate) endpoint: Arc<str>,
    /// The address that was dialed; none for a unix socket.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) is_encrypted: bool,
    pub(crate) backend: Option<Arc<Backend>>,
    pub(crate) since: Moment,
    pool: AtomicU32,
    client: AtomicU64,
    lent: AtomicU64,
    is_doomed: AtomicBool,
    prepared: AtomicU32,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl ServerRow {
    pub(crate) fn new(endpoint: Arc<str>, backend: Option<Arc<Backend>>, pool: &Pool) -> Self {
        let now = Clock::now();
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            endpoint,
            remote: None,
            local: None,
            is_encrypted: false,
            backend,
            since: now,
            pool: AtomicU32::new(pool.id),
            client: AtomicU64::new(0),
            lent: AtomicU64::new(now.0),
            is_doomed: AtomicBool::new(false),
            prepared: AtomicU32::new(0),
        }
    }

    /// The id of the pool that it serves, or served last.
    pub(crate) fn pool(&self) -> u32 {
        self.pool.load(Relaxed)
    }

    /// The id of the client that holds it; 0 for none.
    pub(crate) fn client(&self) -> u64 {
        self.client.load(SeqCst)
    }

    /// The number of its process, as far as it told it.
    pub(crate) fn process(&self) -> u32 {
        self.backend.as_ref().map_or(0, |backend| backend.process())
    }

    /// Whether a request to cancel what it does is on its way.
    pub(crate) fn is_being_cancelled(&self) -> bool {
        self.backend.as_ref().is_some_and(|backend| backend.is_asked())
    }

    /// When it was lent last.
    pub(crate) fn lent(&self) -> Moment {
        Moment(self.lent.load(Relaxed))
    }

    /// How many statements it had prepared when it was given back last.
    pub(crate) fn prepared(&self) -> u32 {
        self.prepared.load(Relaxed)
    }

    /// So many are prepared.
    pub(crate) fn has_prepared(&self, count: usize) {
        self.prepared.store(u32::try_from(count).unwrap_or(u32::MAX), Relaxed);
    }

    /// `client` of `pool` holds it from now on.
    pub(crate) fn is_lent(&self, client: u64, pool: &Pool, now: Moment) {
        self.pool.store(pool.id, Relaxed);
        self.lent.store(now.0, Relaxed);
        self.client.store(client, SeqCst);
    }

    /// Nobody holds it.
    pub(crate) fn is_free(&self) {
        self.client.store(0, Relaxed);
    }

    /// It is closed as soon as nobody holds it.
    pub(crate) fn doom(&self) {
        self.is_doomed.store(true, SeqCst);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.is_doomed.load(SeqCst)
    }
}

/// A server on the list, for as long as this lives.
pub(crate) struct Listed {
    row: Arc<ServerRow>,
    table: &'static Table<u64, ServerRow>,
}

impl Listed {
    pub(crate) fn list(row: ServerRow) -> Self {
        Self::at(&SERVERS, row)
    }

    /// Lists one that is nobody's, and hears for many.
    pub(crate) fn list_listener(row: ServerRow) -> Self {
        Self::at(&LISTENERS, row)
    }

    fn at(table: &'static Table<u64, ServerRow>, row: ServerRow) -> Self {
        let row = Arc::new(row);
        table.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id, row.clone());
        Self { row, table }
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.row.fmt(f)
    }
}

impl Deref for Listed {
    type Target = ServerRow;

    fn deref(&self) -> &ServerRow {
        &self.row
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.row.id);
    }
}
