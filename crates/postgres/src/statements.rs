//! Prepared statements: clients call them as they like, servers know each by a name of ours, and every text
//! is kept once.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, Weak};

use tieline_wire::postgres::reading::{Sort, sort};
use tieline_wire::postgres::sql::{Suspicion, suspect};

/// A statement as servers know it.
#[derive(Debug)]
pub(crate) struct Statement {
    /// No two statements of this process have the same.
    id: u64,
    /// What servers call it.
    pub(crate) name: Box<[u8]>,
    pub(crate) sql: Box<[u8]>,
    /// The types of its parameters, as they stand in Parse.
    pub(crate) types: Box<[u8]>,
    /// The settings by which its text is understood.
    scope: Box<[u8]>,
    pub(crate) suspicion: Suspicion,
    sort: OnceLock<Sort>,
    /// Where it stands among those that are known.
    hash: u64,
}

impl Statement {
    /// What it is to a server that only reads.
    pub(crate) fn sort(&self) -> Sort {
        *self.sort.get_or_init(|| sort(&self.sql))
    }

    /// Whether its text was understood by `scope`.
    pub(crate) fn is_of(&self, scope: &[u8]) -> bool {
        *self.scope == *scope
    }

    fn is(&self, sql: &[u8], types: &[u8], scope: &[u8]) -> bool {
        *self.sql == *sql && *self.types == *types && *self.scope == *scope
    }

    /// How many bytes it costs, with what is kept of it beside its text.
    fn cost(&self) -> usize {
        const BESIDE: usize = 200;
        self.sql.len() + self.types.len() + self.scope.len() + BESIDE
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get_mut(&self.hash) {
            same.retain(|statement| statement.strong_count() > 0);
            if same.is_empty() {
                known.remove(&self.hash);
            }
        }
    }
}

/// What the names of ours begin with.
pub(crate) const NAME_PREFIX: &[u8] = b"tieline_";

/// By the hash of what makes two statements the same: nothing of a statement is kept but by those who use it.
type Known = HashMap<u64, Vec<Weak<Statement>>, Plain>;

// Held for a look-up; once for each Parse of a named statement, never for its use. No statement may be
// dropped under it: that takes it too.
#[allow(clippy::disallowed_types)]
static KNOWN: LazyLock<std::sync::Mutex<Known>> = LazyLock::new(Default::default);

/// By a key that nobody knows: clients choose what is hashed.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The statement of this text, these types, and this `scope`: what differs by settings is never shared.
pub(crate) fn statement(sql: &[u8], types: &[u8], scope: &[u8]) -> Arc<Statement> {
    let hash = HASHES.hash_one((sql, types, scope));
    let is_it = |one: &&Arc<Statement>| one.is(sql, types, scope);
    // Hashed before the lock, and compared behind it: texts may be long.
    let seen = alike(&KNOWN.lock().unwrap_or_else(PoisonError::into_inner), hash);
    if let Some(found) = seen.iter().find(is_it) {
        return found.clone();
    }
    let new = new(sql, types, scope, hash);
    // Dropped behind the lock.
    let now: Vec<Arc<Statement>>;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    now = alike(&known, hash);
    // Another worker may have been quicker.
    let unseen = |one: &&Arc<Statement>| !seen.iter().any(|seen| Arc::ptr_eq(seen, one));
    let found = now.iter().filter(unseen).find(is_it).cloned();
    found.unwrap_or_else(|| {
        known.entry(hash).or_default().push(Arc::downgrade(&new));
        new
    })
}

/// Those of `hash` that live. Not to be dropped under the lock.
fn alike(known: &Known, hash: u64) -> Vec<Arc<Statement>> {
    known.get(&hash).into_iter().flatten().filter_map(Weak::upgrade).collect()
}

/// How many statements clients and servers have, each counted once.
pub(crate) fn count() -> usize {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.values().flatten().filter(|statement| statement.strong_count() > 0).count()
}

fn new(sql: &[u8], types: &[u8], scope: &[u8], hash: u64) -> Arc<Statement> {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let mut name = NAME_PREFIX.to_vec();
    // Into a vector: it cannot fail.
    let _ = write!(name, "{id:x}");
    let (suspicion, sql, types, scope) = (suspect(sql), sql.into(), types.into(), scope.into());
    let sort = OnceLock::new();
    Arc::new(Statement { id, name: name.into(), sql, types, scope, suspicion, sort, hash })
}

type Named = HashMap<Box<[u8]>, Arc<Statement>>;

/// What a client calls its statements.
#[derive(Debug, Default)]
pub(crate) struct Names {
    named: Option<Box<Named>>,
    /// How many bytes are kept for it, each text counted wherever else it is kept too.
    bytes: usize,
}

/// How many bytes of named statements one client may have, and one server.
const BYTES_MAX: usize = 16 << 20;

/// The longest name of a statement. Servers tell names apart by 63 bytes.
pub(crate) const NAME_MAX: usize = 1024;

impl Names {
    /// How many it has named.
    pub(crate) fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.as_ref().is_none_or(|named| named.is_empty())
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.as_ref()?.get(name)
    }

    /// Whether there is room for another statement that is called so.
    pub(crate) fn has_room(&self, name: &[u8], statement: &Statement) -> bool {
        self.bytes.saturating_add(name.len() + statement.cost()) <= BYTES_MAX
    }

    pub(crate) fn insert(&mut self, name: Box<[u8]>, statement: Arc<Statement>) {
        let named = name.len();
        self.bytes += named + statement.cost();
        if let Some(old) = self.named.get_or_insert_default().insert(name, statement) {
            self.bytes = self.bytes.saturating_sub(named + old.cost());
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        let removed = self.named.as_mut()?.remove(name)?;
        self.bytes = self.bytes.saturating_sub(name.len() + removed.cost());
        Some(removed)
    }

    /// What the client calls the statement that servers know by `ours`.
    pub(crate) fn called(&self, ours: &[u8]) -> Option<&[u8]> {
        let mut named = self.named.as_ref()?.iter();
        named.find(|(_, statement)| *statement.name == *ours).map(|(name, _)| &**name)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The statements that a server has prepared, as far as they are ours.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    held: HashMap<u64, (Arc<Statement>, u64), Plain>,
    /// Those that it has, and that may not be used again as they are.
    stale: HashMap<u64, Arc<Statement>, Plain>,
    clock: u64,
    bytes: usize,
}

/// Ids are counted up, and no client chooses them.
type Plain = std::hash::BuildHasherDefault<Spread>;

#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the table goes by the upper bits.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// So many statements one server keeps prepared.
pub(crate) const PREPARED_MAX: usize = 200;

impl Prepared {
    /// How many it has.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the server has it; then it counts as used now.
    pub(crate) fn uses(&mut self, statement: &Statement) -> bool {
        self.clock += 1;
        match self.held.get_mut(&statement.id) {
            Some((_, used)) => {
                *used = self.clock;
                true
            }
            None => false,
        }
    }

    pub(crate) fn insert(&mut self, statement: Arc<Statement>) {
        self.clock += 1;
        self.bytes += statement.cost();
        if let Some((old, _)) = self.held.insert(statement.id, (statement, self.clock)) {
            self.bytes = self.bytes.saturating_sub(old.cost());
        }
    }

    /// Takes it out; false if the server has not got it.
    pub(crate) fn remove(&mut self, statement: &Statement) -> bool {
        let removed = self.held.remove(&statement.id).is_some();
        if removed {
            self.bytes = self.bytes.saturating_sub(statement.cost());
        }
        removed
    }

    /// Whether it has as many, or as long ones, as it is to keep.
    pub(crate) fn is_full(&self) -> bool {
        self.held.len() + self.stale.len() >= PREPARED_MAX || self.bytes >= BYTES_MAX
    }

    /// What the server has prepared answers by tables that were another then: each must be prepared anew.
    pub(crate) fn spoil_all(&mut self) {
        self.stale.extend(self.held.drain().map(|(id, (statement, _))| (id, statement)));
    }

    /// The same of one; the server may not even have it.
    pub(crate) fn spoil(&mut self, statement: Arc<Statement>) {
        self.remove(&statement);
        self.bytes += statement.cost();
        if let Some(old) = self.stale.insert(statement.id, statement) {
            self.bytes = self.bytes.saturating_sub(old.cost());
        }
    }

    /// Whether the server has it as it may not be used again: it must be closed first.
    pub(crate) fn take_stale(&mut self, statement: &Statement) -> bool {
        let taken = !self.stale.is_empty() && self.stale.remove(&statement.id).is_some();
        if taken {
            self.bytes = self.bytes.saturating_sub(statement.cost());
        }
        taken
    }

    /// The one that the server knows by `name`.
    pub(crate) fn called(&self, name: &[u8]) -> Option<Arc<Statement>> {
        let held = self.held.values().map(|(statement, _)| statement);
        held.chain(self.stale.values()).find(|statement| *statement.name == *name).cloned()
    }

    /// Takes out the one that was not used for longest, if there are too many: to be closed.
    pub(crate) fn surplus(&mut self) -> Option<Arc<Statement>> {
        if !self.is_full() {
            return None;
        }
        let statement = match self.stale.keys().next().copied() {
            Some(id) => self.stale.remove(&id)?,
            None => {
                let oldest = self.held.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id)?;
                self.held.remove(&oldest)?.0
            }
        };
        self.bytes = self.bytes.saturating_sub(statement.cost());
        Some(statement)
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
        self.stale.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_the_same_statement_and_nothing_else_is() {
        let one = statement(b"select 1", &[0, 0], b"");
        assert_eq!(one.id, statement(b"select 1", &[0, 0], b"").id);
        assert_ne!(one.id, statement(b"select 1", &[0, 1, 0, 0, 0, 23], b"").id);
        assert_ne!(one.id, statement(b"select 1", &[0, 0], b"path").id);
        let name = one.name.clone();
        drop(one);
        assert_ne!(name, statement(b"select 1", &[0, 0], b"").name, "a name is never used twice");
    }

    #[test]
    fn names_are_each_clients_own() {
        let mut names = Names::default();
        let one = statement(b"select 'names'", &[0, 0], b"");
        names.insert((*b"s").into(), one.clone());
        assert_eq!(names.called(&one.name), Some(&b"s"[..]));
        assert!(Names::default().get(b"s").is_none());
        assert!(names.remove(b"s").is_some() && names.remove(b"s").is_none());
        assert_eq!(names.bytes, 0);
        let long = "n".repeat(BYTES_MAX);
        assert!(names.has_room(b"n", &one) && !names.has_room(long.as_bytes(), &one));
    }

    #[test]
    fn nothing_is_kept_of_a_statement_that_nobody_uses() {
        let one = statement(b"select 'kept'", &[0, 0], b"");
        let hash = one.hash;
        let others = (one.clone(), statement(b"select 'kept'", &[0, 0], b""));
        drop(one);
        assert!(KNOWN.lock().unwrap().contains_key(&hash));
        drop(others);
        assert!(!KNOWN.lock().unwrap().contains_key(&hash));
    }

    #[test]
    fn long_statements_are_fewer() {
        let mut prepared = Prepared::default();
        let long = |at: usize| statement(&[b' ', b'0' + at as u8].repeat(BYTES_MAX / 6), &[0, 0], b"long");
        (0..3).for_each(|at| prepared.insert(long(at)));
        assert!(prepared.is_full() && prepared.surplus().is_some() && !prepared.is_full());
        let left = prepared.held.values().next().unwrap().0.clone();
        assert!(prepared.remove(&left) && !prepared.remove(&left));
        prepared.insert(left.clone());
        prepared.insert(left);
        assert_eq!(prepared.bytes, prepared.held.values().map(|(one, _)| one.cost()).sum::<usize>());
    }

    #[test]
    fn what_is_stale_is_closed_before_it_is_prepared_anew() {
        let mut prepared = Prepared::default();
        let (one, other) = (statement(b"select 'stale'", &[0, 0], b""), statement(b"select 2", &[0, 0], b""));
        prepared.insert(one.clone());
        prepared.spoil_all();
        assert!(!prepared.uses(&one) && !prepared.take_stale(&other));
        assert!(prepared.take_stale(&one) && !prepared.take_stale(&one));
        prepared.insert(one.clone());
        assert!(prepared.uses(&one));
        prepared.spoil(one.clone());
        assert!(prepared.called(&one.name).is_some() && !prepared.uses(&one));
        (0..PREPARED_MAX)
            .for_each(|at| prepared.insert(statement(format!("{at}").as_bytes(), &[0, 0], b"x")));
        assert_eq!(prepared.surplus().unwrap().id, one.id, "what is of no use goes first");
    }

    #[test]
    fn a_server_keeps_those_that_are_used() {
        let mut prepared = Prepared::default();
        let first = statement(b"select 'first'", &[0, 0], b"");
        prepared.insert(first.clone());
        for number in 1..PREPARED_MAX {
            prepared.insert(statement(format!("select {number}").as_bytes(), &[0, 0], b"surplus"));
        }
        assert!(prepared.uses(&first));
        let out = prepared.surplus().unwrap();
        assert_eq!(&*out.sql, b"select 1");
        assert!(prepared.surplus().is_none() && prepared.uses(&first));
    }
}
