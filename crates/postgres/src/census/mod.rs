//! Who is here: the clients, the servers and the pools of this process, as the console tells of them.
//!
//! A *pool* is what PgBouncer calls so: all that is done for one database, as clients call it, by one user of
//! its servers. Rows are written by the worker of whom they are about, with plain stores; the tables are
//! locked when somebody comes or goes, and when the console looks.

mod client;
mod counts;
mod halts;
mod pool;
mod seats;
mod server;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError};

use tieline_base::{ConnectionId, Fault, Reason, Stage, Whose};

pub(crate) use client::{Client, ClientRow, Doing};
pub(crate) use counts::{Average, COUNTS, Count, Totals};
pub(crate) use halts::{HaltError, Halted};
pub(crate) use pool::{Pool, SigningIn, keep_averages};
pub(crate) use seats::Full;
pub use seats::UserSeats;
pub(crate) use server::{Listed, ServerRow};

use crate::site::Mode;

// Held for a look-up or a copy: once for each client and each server that comes or goes, and by the console.
#[allow(clippy::disallowed_types)]
type Table<K, V> = LazyLock<std::sync::Mutex<HashMap<K, Arc<V>>>>;

static CLIENTS: Table<u64, ClientRow> = LazyLock::new(Default::default);
static SERVERS: Table<u64, ServerRow> = LazyLock::new(Default::default);
/// Those that are nobody's and hear for many: outside of every pool, so that nothing waits for them.
static LISTENERS: Table<u64, ServerRow> = LazyLock::new(Default::default);

// The same; once more for each client when the config has changed.
#[allow(clippy::disallowed_types)]
static POOLS: LazyLock<std::sync::Mutex<Pools>> = LazyLock::new(Default::default);

#[derive(Default)]
struct Pools {
    by_name: HashMap<(Box<str>, Box<str>), Arc<Pool>>,
    halted: Halted,
}

/// Beyond so many pools, those that nobody uses are forgotten, and what they counted with them.
const POOLS_MAX: usize = 4_096;

/// The pool of `user`'s servers for what clients call `database`.
pub(crate) fn pool(database: &str, user: &str, mode: Mode) -> Arc<Pool> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let Pools { by_name, halted } = &mut *pools;
    let key = (database.into(), user.into());
    if let Some(known) = by_name.get(&key) {
        known.set_mode(mode);
        return known.clone();
    }
    if by_name.len() >= POOLS_MAX {
        by_name.retain(|_, pool| Arc::strong_count(pool) > 1);
    }
    let pool = Arc::new(Pool::new(database, user, mode, halted.is_paused(database)));
    by_name.insert(key, pool.clone());
    pool
}

/// Every client that is logged in, by its id.
pub(crate) fn clients() -> Vec<Arc<ClientRow>> {
    let mut rows: Vec<_> = rows(&CLIENTS);
    rows.sort_by_key(|row| row.id());
    rows
}

/// Every server that is logged in to, by its id.
pub(crate) fn servers() -> Vec<Arc<ServerRow>> {
    let mut rows: Vec<_> = rows(&SERVERS);
    rows.sort_by_key(|row| row.id);
    rows
}

/// Every shared listener that is logged in, by its id.
pub(crate) fn listeners() -> Vec<Arc<ServerRow>> {
    let mut rows: Vec<_> = rows(&LISTENERS);
    rows.sort_by_key(|row| row.id);
    rows
}

/// Every pool, by its names.
pub(crate) fn pools() -> Vec<Arc<Pool>> {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows: Vec<_> = pools.by_name.values().cloned().collect();
    rows.sort_by(|one, other| (&one.database, &one.user).cmp(&(&other.database, &other.user)));
    rows
}

/// What operators have halted, as it stands.
pub(crate) fn halted() -> Halted {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner).halted.clone()
}

/// Lets new clients of `database` in.
///
/// # Errors
/// They are turned away for the time being.
pub(crate) fn admits(database: &str) -> Result<(), Fault> {
    if !POOLS.lock().unwrap_or_else(PoisonError::into_inner).halted.is_disabled(database) {
        return Ok(());
    }
    let fault = Fault::new(Stage::Route, Whose::Us, Reason::RefusedDraining);
    Err(fault.because(format!("database \"{database}\" is disabled")))
}

/// Whether the connection `id` is one for replication.
pub(crate) fn replicates(id: ConnectionId) -> bool {
    let clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    clients.get(&id.0).is_some_and(|row| row.replication.is_some())
}

/// Changes what is halted, and tells those who wait.
///
/// # Errors
/// What `change` says; nothing has changed then.
pub(crate) fn halt<R>(change: impl FnOnce(&mut Halted) -> Result<R, HaltError>) -> Result<R, HaltError> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let Pools { by_name, halted } = &mut *pools;
    let result = change(halted)?;
    for pool in by_name.values() {
        pool.pause(halted.is_paused(&pool.database));
    }
    Ok(result)
}

fn rows<V>(table: &Table<u64, V>) -> Vec<Arc<V>> {
    table.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}
