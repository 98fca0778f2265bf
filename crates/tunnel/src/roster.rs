//! What is known of every agent, in memory: what a certificate is worth is asked at every hello, by workers
//! that wait for no disk.
//!
//! Owns how the folder and the memory come together. What this process changes it knows at once; what another
//! does, `tieline agent revoke` above all, is seen by [`Roster::refresh`], which is called a few times a
//! second. What blocks says so.

#![allow(clippy::disallowed_types)] // read by every worker that greets; held for look-ups alone

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tieline_base::Clock;

use crate::known::{Good, Known, Standing};
use crate::store::{Proof, Store, StoreError, now};

/// All agents that have joined.
#[derive(Debug)]
pub(crate) struct Roster {
    store: Store,
    lines: RwLock<HashMap<String, Line>>,
    /// As the folder was when it was last read.
    seen: Mutex<Option<SystemTime>>,
}

#[derive(Clone, Debug)]
struct Line {
    /// The number of the file that it was read from; `None`: it was written by us.
    file: Option<u64>,
    known: Arc<Known>,
}

/// More than a tick of any file system.
const SETTLED: Duration = Duration::from_secs(3);

impl Roster {
    /// What `store` has; nothing is read before [`Roster::refresh`].
    pub(crate) fn of(store: Store) -> Roster {
        Roster { store, lines: RwLock::default(), seen: Mutex::default() }
    }

    /// The roster of the server whose data folder is `data`.
    pub(crate) fn at(data: &Path) -> Roster {
        Roster::of(Store::of(data))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What the certificate `serial` of `agent` is worth now.
    pub(crate) fn standing(&self, agent: &str, serial: &str) -> Standing {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.get(agent).map_or(Standing::Unknown, |line| line.known.standing(serial, now()))
    }

    /// What is known of `agent`.
    pub(crate) fn get(&self, agent: &str) -> Option<Arc<Known>> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.get(agent).map(|line| line.known.clone())
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Known>)> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = lines.iter().map(|(name, line)| (name.clone(), line.known.clone())).collect();
        drop(lines);
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// [`Store::admit`]. Blocks.
    pub(crate) fn admit(&self, agent: &str, issued: Good, proof: Proof<'_>) -> Result<bool, StoreError> {
        self.store.admit(agent, issued, proof, |known| self.put(agent, known))
    }

    /// Whether it has to be kept that `agent` has shown `serial`; then [`Roster::used`] does.
    pub(crate) fn is_first_use(&self, agent: &str, serial: &str) -> bool {
        self.get(agent).is_some_and(|known| Known::clone(&known).used(serial, now()))
    }

    /// The agent links up by this certificate: older ones are good no longer. Blocks.
    pub(crate) fn used(&self, agent: &str, serial: &str) -> Result<bool, StoreError> {
        self.change(agent, |known| known.used(serial, now()))
    }

    /// Nobody links up as `agent` any more until it joins anew; whether that is news. Blocks.
    pub(crate) fn lock_out(&self, agent: &str) -> Result<bool, StoreError> {
        self.change(agent, |known| known.lock(now()))
    }

    fn change(&self, agent: &str, change: impl FnOnce(&mut Known) -> bool) -> Result<bool, StoreError> {
        let then = |known| self.put(agent, known);
        self.store.change(agent, then, |known| {
            let mut known = known?;
            change(&mut known).then_some(known)
        })
    }

    fn put(&self, agent: &str, known: Known) {
        let line = Line { file: None, known: Arc::new(known) };
        self.lines.write().unwrap_or_else(PoisonError::into_inner).insert(agent.to_owned(), line);
    }

    /// Reads what has changed in the folder since the last time; whether anything may have. Costs one `stat`
    /// if nothing did. Blocks.
    pub(crate) fn refresh(&self) -> bool {
        let changed_at = self.store.changed_at();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let same = std::mem::replace(&mut *seen, changed_at) == changed_at;
        drop(seen);
        // The file system's clock ticks: what changed a moment ago may have changed once more since.
        let age = changed_at.and_then(|at| Clock::wall().duration_since(at).ok());
        if same && age.is_none_or(|age| age > SETTLED) {
            return false;
        }
        let before = self.lines.read().unwrap_or_else(PoisonError::into_inner).clone();
        let found: HashMap<String, u64> = self.store.names().into_iter().collect();
        let mut changes: Vec<(String, Option<Line>)> = Vec::new();
        for (name, file) in &found {
            if before.get(name).and_then(|line| line.file) != Some(*file) {
                match self.store.read(name) {
                    Ok(Some(known)) => {
                        let line = Line { file: Some(*file), known: Arc::new(known) };
                        changes.push((name.clone(), Some(line)));
                    }
                    // It has just gone: the next look sees that.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!("nobody links up as \"{name}\": {error}");
                        changes.push((name.clone(), None));
                    }
                }
            }
        }
        let gone = before.keys().filter(|name| !found.contains_key(*name));
        changes.extend(gone.map(|name| (name.clone(), None)));
        self.apply(&before, changes);
        true
    }

    /// What this process has changed meanwhile is newer than what was read.
    fn apply(&self, before: &HashMap<String, Line>, changes: Vec<(String, Option<Line>)>) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        for (name, line) in changes {
            let (was, is) = (before.get(&name), lines.get(&name));
            let same = match (was, is) {
                (Some(was), Some(is)) => Arc::ptr_eq(&was.known, &is.known),
                (None, None) => true,
                _ => false,
            };
            match line {
                _ if !same => {}
                Some(line) => drop(lines.insert(name, line)),
                None => drop(lines.remove(&name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_base::Labels;
    use tieline_transport::tls::Fingerprint;

    fn good(serial: &str) -> Good {
        Good { serial: serial.into(), since: now(), until: now() + 3600 }
    }

    /// A roster, and the same folder as another process has it.
    fn rosters() -> (tempfile::TempDir, Roster, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        store.make().unwrap();
        (folder, Roster::of(store.clone()), store)
    }

    fn join(roster: &Roster, agent: &str, serial: &str) {
        let hash = Fingerprint([1; 32]);
        let token =
            roster.store().issue_token(agent, Labels::default(), Duration::from_secs(60), hash).unwrap();
        roster.store().redeem(&token, hash).unwrap();
        assert!(roster.admit(agent, good(serial), Proof::Token(&token)).unwrap());
    }

    #[test]
    fn what_this_process_does_is_known_at_once_and_what_another_does_at_the_next_look() {
        let (_folder, roster, other) = rosters();
        join(&roster, "a", "01");
        join(&roster, "b", "01");
        assert_eq!(roster.standing("a", "01"), Standing::Good);
        assert!(roster.refresh());
        other.revoke("a").unwrap();
        assert!(roster.refresh());
        assert_eq!(roster.standing("a", "01"), Standing::Unknown);
        assert_eq!(roster.standing("b", "01"), Standing::Good);
        // Another process changes what one says.
        other.change("b", |_| {}, |known| known.map(|mut known| (known.lock(1), known).1)).unwrap();
        roster.refresh();
        assert_eq!(roster.standing("b", "01"), Standing::Locked);
    }

    #[test]
    fn a_roster_that_begins_knows_what_the_one_before_it_knew() {
        let (_folder, roster, other) = rosters();
        join(&roster, "a", "01");
        let again = Roster::of(other);
        assert_eq!(again.standing("a", "01"), Standing::Unknown);
        again.refresh();
        assert_eq!(again.standing("a", "01"), Standing::Good);
        assert!(again.admit("a", good("02"), Proof::Certificate("01")).unwrap());
        assert!(again.is_first_use("a", "02") && again.used("a", "02").unwrap());
        assert!(!again.is_first_use("a", "02") && !again.used("a", "02").unwrap());
    }

    #[test]
    fn what_was_read_does_not_undo_what_was_done_since() {
        let (_folder, roster, _) = rosters();
        join(&roster, "a", "01");
        let before = roster.lines.read().unwrap().clone();
        let read = before["a"].clone();
        assert!(roster.lock_out("a").unwrap());
        roster.apply(&before, vec![("a".into(), Some(read)), ("a".into(), None)]);
        assert_eq!(roster.standing("a", "01"), Standing::Locked);
    }

    #[test]
    fn a_file_that_says_nothing_lets_nobody_in() {
        let (folder, roster, _) = rosters();
        join(&roster, "a", "01");
        std::fs::write(folder.path().join("agents/known/b"), "nonsense").unwrap();
        roster.refresh();
        assert_eq!(roster.standing("b", "nonsense"), Standing::Unknown);
        assert_eq!(roster.standing("a", "01"), Standing::Good);
    }
}
