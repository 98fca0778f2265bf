//! Passwords hashed away from where connections are served: it takes milliseconds by intention.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use tieline_base::{Clock, Moment, Secret};
use tieline_wire::postgres::scram::{Keys, derive};
use tokio::sync::oneshot;

use super::{Blinded, blinded};

// Held for a look-up by the threads that hash, and once by each log-in to a server by password.
#[allow(clippy::disallowed_types)]
type Shared<T> = std::sync::Mutex<T>;

/// Passwords that may wait to be hashed; a log-in beyond fails, and is tried again by who waits for it.
const QUEUE_MAX: usize = 256;

/// Results that are kept. Servers keep a salt until a password changes, so one is found for each login.
const KEPT_MAX: usize = 1_024;

/// The hash of a password could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many passwords wait to be hashed")]
pub(crate) struct Busy;

/// A result that nobody used for so long is forgotten: its password may be another by now.
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);

/// What is to be hashed: the password, with which salt, how often.
struct Asked {
    password: Secret,
    salt: Box<[u8]>,
    iterations: NonZeroU32,
}

impl Asked {
    fn key(&self) -> Blinded {
        blinded(&[self.password.reveal().as_bytes(), &self.salt, &self.iterations.get().to_be_bytes()])
    }
}

/// What passwords came to, by what stands for what was asked.
#[derive(Default)]
struct Kept(HashMap<Blinded, (Arc<Keys>, Moment)>);

impl Kept {
    fn get(&mut self, key: &Blinded, now: Moment) -> Option<Arc<Keys>> {
        let (keys, used) = self.0.get_mut(key)?;
        *used = now;
        Some(keys.clone())
    }

    /// Another one, and nothing of what nobody used of late.
    fn put(&mut self, key: Blinded, keys: Arc<Keys>, now: Moment) {
        self.0.retain(|_, (_, used)| now.since(*used) < KEPT_FOR);
        if self.0.len() >= KEPT_MAX {
            // Rather all at once than in an order: a password that is still used is hashed once more.
            self.0.clear();
        }
        self.0.insert(key, (keys, now));
    }
}

struct Job {
    asked: Asked,
    answer: oneshot::Sender<Arc<Keys>>,
}

static KEPT: LazyLock<Shared<Kept>> = LazyLock::new(Default::default);
static QUEUE: LazyLock<SyncSender<Job>> = LazyLock::new(start);

/// What `password` comes to with a server's salt.
///
/// # Errors
/// Too much waits already.
pub(crate) async fn keys(password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Result<Arc<Keys>, Busy> {
    let asked = Asked { password: password.clone(), salt: salt.into(), iterations };
    if let Some(kept) = kept(&asked.key()) {
        return Ok(kept);
    }
    let (answer, answered) = oneshot::channel();
    match QUEUE.try_send(Job { asked, answer }) {
        Ok(()) => answered.await.map_err(|_| Busy),
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
    }
}

/// One thread: what it takes from the cores of the data plane is bounded by it.
fn start() -> SyncSender<Job> {
    let (jobs, queue) = sync_channel(QUEUE_MAX);
    let started = std::thread::Builder::new().name("hashing".into()).spawn(move || work(&queue));
    if let Err(error) = started {
        tracing::error!("no thread to hash passwords on: {error}");
    }
    jobs
}

fn work(queue: &Receiver<Job>) {
    while let Ok(Job { asked, answer }) = queue.recv() {
        // Many that wait want the same, as after a server came back.
        let key = asked.key();
        let keys = kept(&key).unwrap_or_else(|| hash(&asked, key));
        // Who asked may have gone.
        let _ = answer.send(keys);
    }
}

fn kept(key: &Blinded) -> Option<Arc<Keys>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(key, Clock::coarse())
}

fn hash(asked: &Asked, key: Blinded) -> Arc<Keys> {
    let keys = Arc::new(derive(asked.password.reveal().as_bytes(), &asked.salt, asked.iterations));
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).put(key, keys.clone(), Clock::coarse());
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let (mut kept, begin) = (Kept::default(), Moment(1));
        let keys = Arc::new(derive(b"pencil", b"salt", NonZeroU32::MIN));
        kept.put([1; 32], keys.clone(), begin);
        kept.put([2; 32], keys.clone(), begin);
        let later = begin.after(KEPT_FOR / 2);
        assert!(kept.get(&[1; 32], later).is_some());
        kept.put([3; 32], keys, begin.after(KEPT_FOR));
        assert!(kept.get(&[1; 32], later).is_some() && kept.get(&[2; 32], later).is_none());
    }

    #[tokio::test]
    async fn a_password_is_hashed_once() {
        let (password, iterations) = (Secret::new("pencil".into()), NonZeroU32::new(2).unwrap());
        let first = keys(&password, b"salt", iterations).await.unwrap();
        assert_eq!(*first, derive(b"pencil", b"salt", iterations));
        let again = keys(&password, b"salt", iterations).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = keys(&password, b"pepper", iterations).await.unwrap();
        assert_ne!(*other, *first);
    }
}
