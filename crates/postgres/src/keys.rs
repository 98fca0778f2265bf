//! Keys by which what a client does may be cancelled from elsewhere. They are ours, and hold whatever server
//! the client is at; a request reaches a server only while that client holds it.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use tieline_base::EndpointAddr;
use tieline_pool::Endpoint;
use tieline_transport::{DialOptions, dial_first};
use tieline_wire::postgres::frontend::{PROTOCOL_3_0, cancel_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::login::{Encryption, secured};

/// What proves that a query may be cancelled. Its `Debug` shows nothing of it.
#[derive(PartialEq, Eq)]
pub(crate) struct Proof(Box<[u8]>);

impl From<&[u8]> for Proof {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Proof {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// A client's key. It is void once this is dropped.
#[derive(Debug)]
pub(crate) struct Key {
    process: u32,
    entry: Arc<Entry>,
}

#[derive(Debug)]
struct Entry {
    secret: Proof,
    // Held for a few instructions, nearly always by the client's own worker.
    #[allow(clippy::disallowed_types)]
    doing: std::sync::Mutex<Doing>,
    /// Its wait is not wanted any more.
    is_cancelled: AtomicBool,
    cancelled: AtomicWaker,
}

/// What a client does.
#[derive(Debug, Default)]
enum Doing {
    #[default]
    Nothing,
    /// It waits for a server.
    Waiting,
    /// Its query runs there.
    Running(Arc<Backend>),
}

/// A server's process, as requests to cancel reach it.
#[derive(Debug)]
pub(crate) struct Backend {
    process: u32,
    secret: Proof,
    addresses: Box<[EndpointAddr]>,
    dial: DialOptions,
    /// How it is spoken to under TLS, where it is, and whose its certificate must be.
    encryption: Option<(Encryption, Box<str>)>,
    /// A request is on its way: until it has arrived nobody else may get this server.
    asking: AtomicBool,
    /// One was sent and not heard of again: it may still arrive.
    lost: AtomicBool,
    arrived: Notify,
}

impl Backend {
    pub(crate) fn new(
        (process, secret): (u32, Proof),
        endpoint: &Endpoint,
        encryption: Option<Encryption>,
    ) -> Arc<Self> {
        Arc::new(Self {
            process,
            secret,
            addresses: endpoint.addresses().into(),
            dial: endpoint.dial_options(),
            encryption: encryption.map(|encryption| (encryption, (*endpoint.host()).into())),
            asking: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            arrived: Notify::new(),
        })
    }

    /// The number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Whether a request may still reach it.
    pub(crate) fn is_asked(&self) -> bool {
        self.asking.load(Ordering::Acquire)
    }

    /// Whether no request can reach it any more.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.is_asked() && !self.lost.load(Ordering::Acquire)
    }

    /// Returns when no request is on its way any more; false if one was lost.
    pub(crate) async fn until_quiet(&self) -> bool {
        loop {
            let arrived = self.arrived.notified();
            if !self.is_asked() {
                return !self.lost.load(Ordering::Acquire);
            }
            arrived.await;
        }
    }

    /// Asks it to cancel what it does, whoever it is for.
    pub(crate) async fn cancel(self: &Arc<Self>) {
        if let Some(asking) = Asking::begin(self) {
            asking.send(|| true).await;
        }
    }
}

/// A request on its way: it is from the moment that there is one of these.
pub(crate) struct Asking(Arc<Backend>);

impl Asking {
    /// `None` if one is on its way already: that will do.
    pub(crate) fn begin(backend: &Arc<Backend>) -> Option<Self> {
        let taken = backend.asking.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire);
        taken.is_ok().then(|| Self(backend.clone()))
    }

    /// Sends it if it is still `wanted` when it could be sent. May be dropped: if it was sent by then, it is
    /// not known whether it arrived.
    pub(crate) async fn send(self, wanted: impl FnOnce() -> bool) {
        // Whoever waits for it hears by the drop of `self`.
        let _ = timeout(CANCEL_WITHIN, ask(&self.0, wanted)).await;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::Release);
        self.0.arrived.notify_waiters();
    }
}

/// The server closes when it has done what was asked.
async fn ask(backend: &Backend, wanted: impl FnOnce() -> bool) -> io::Result<()> {
    let (_, mut io) = dial_first(&backend.addresses, &backend.dial).await?;
    if let Some((encryption, host)) = &backend.encryption {
        io = secured(io, Some(encryption), host).await.map_err(io::Error::other)?;
    }
    if !wanted() {
        return Ok(());
    }
    let others = backend.lost.swap(true, Ordering::AcqRel);
    io.write_all(&cancel_request(backend.process, &backend.secret)).await?;
    io.flush().await?;
    // An end of any kind: whoever read it is through with it.
    let ended = io.read(&mut [0]).await.map(drop);
    backend.lost.store(others, Ordering::Release);
    ended
}

/// How long a request may take.
const CANCEL_WITHIN: Duration = Duration::from_secs(10);

/// So many requests are on their way at once; those beyond are void.
const CANCELS_MAX: u32 = 256;

static CANCELS: AtomicU32 = AtomicU32::new(0);

// Held for a look-up: once for each client that comes or goes, and each request.
#[allow(clippy::disallowed_types)]
static KEYS: LazyLock<std::sync::Mutex<HashMap<u32, Arc<Entry>>>> = LazyLock::new(Default::default);

impl Key {
    /// A key for a client that speaks `protocol`.
    ///
    /// # Errors
    /// There are no random numbers to be had.
    pub(crate) fn new(protocol: u32) -> io::Result<Self> {
        let mut secret = vec![0; if protocol == PROTOCOL_3_0 { 4 } else { 32 }];
        fill(&mut secret)?;
        let (doing, is_cancelled, cancelled) = Default::default();
        let entry = Arc::new(Entry { secret: Proof(secret.into()), doing, is_cancelled, cancelled });
        let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut bytes = [0; 4];
            fill(&mut bytes)?;
            // Positive also where it is taken for a signed number.
            let process = u32::from_be_bytes(bytes) & 0x7fff_ffff;
            if process != 0 && !keys.contains_key(&process) {
                keys.insert(process, entry.clone());
                return Ok(Self { process, entry });
            }
        }
    }

    /// As the client is told.
    pub(crate) fn parts(&self) -> (u32, &[u8]) {
        (self.process, &self.entry.secret)
    }

    pub(crate) fn waiting(&self) {
        // Before the line below: who cancels does so under its lock.
        self.entry.is_cancelled.store(false, Ordering::Relaxed);
        self.set(Doing::Waiting);
    }

    pub(crate) fn running(&self, backend: Option<&Arc<Backend>>) {
        self.set(backend.cloned().map_or(Doing::Nothing, Doing::Running));
    }

    pub(crate) fn idle(&self) {
        self.set(Doing::Nothing);
    }

    /// Whether somebody has cancelled the wait. Wakes nobody later.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.entry.is_cancelled.load(Ordering::Acquire)
    }

    /// Whether somebody has cancelled the wait; else the task of `cx` is woken when somebody does.
    pub(crate) fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.entry.cancelled.register(cx.waker());
        if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Returns when somebody has cancelled the wait.
    pub(crate) async fn cancelled(&self) {
        poll_fn(|cx| self.poll_cancelled(cx)).await;
    }

    fn set(&self, doing: Doing) {
        *self.entry.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        KEYS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.process);
    }
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    rand::fill(bytes).map_err(|_| io::Error::other("no random numbers"))
}

/// Does what a request to cancel asks for. Whether it did anything is told to nobody.
pub(crate) async fn cancel(process: u32, secret: &[u8]) {
    let entry = KEYS.lock().unwrap_or_else(PoisonError::into_inner).get(&process).cloned();
    let Some(entry) = entry.filter(|entry| verify_slices_are_equal(&entry.secret, secret).is_ok()) else {
        return;
    };
    let (_counted, before) = Counted::begin();
    if before < CANCELS_MAX {
        entry.cancel().await;
    }
}

/// A request that is counted for as long as it lasts, however it ends.
struct Counted;

impl Counted {
    fn begin() -> (Self, u32) {
        (Self, CANCELS.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CANCELS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entry {
    async fn cancel(&self) {
        let asking = match &*self.doing.lock().unwrap_or_else(PoisonError::into_inner) {
            Doing::Nothing => return,
            Doing::Waiting => {
                self.is_cancelled.store(true, Ordering::Release);
                return self.cancelled.wake();
            }
            // Begun under the lock, which its client takes before it lets go of the server.
            Doing::Running(backend) => Asking::begin(backend),
        };
        let Some(asking) = asking else { return };
        let backend = asking.0.clone();
        asking.send(|| self.is_at(&backend)).await;
    }

    fn is_at(&self, backend: &Arc<Backend>) -> bool {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*doing, Doing::Running(running) if Arc::ptr_eq(running, backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_positive_and_gone_with_their_client() {
        let keys: Vec<_> = (0..1000).map(|_| Key::new(PROTOCOL_3_0).unwrap()).collect();
        assert!(keys.iter().all(|key| key.process as i32 > 0 && key.parts().1.len() == 4));
        assert_eq!(Key::new(196_610).unwrap().parts().1.len(), 32);
        let process = keys[0].process;
        assert!(!format!("{:?}", keys[0]).contains(&format!("{:?}", keys[0].parts().1)));
        drop(keys);
        assert!(!KEYS.lock().unwrap().contains_key(&process));
    }

    #[tokio::test]
    async fn a_wait_is_cancelled_by_its_key_alone() {
        let key = Key::new(PROTOCOL_3_0).unwrap();
        let (process, secret) = key.parts();
        key.waiting();
        let mut cancelled = Box::pin(key.cancelled());
        assert!(futures_poll(&mut cancelled).is_pending());
        cancel(process, b"none").await;
        assert!(futures_poll(&mut cancelled).is_pending());
        cancel(process, secret).await;
        assert!(futures_poll(&mut cancelled).is_ready());
    }

    /// In a storm of requests with keys of nobody's each costs as much as if there were hardly any.
    #[tokio::test]
    async fn a_key_is_looked_up_as_fast_among_a_hundred_thousand() {
        let make =
            |count: usize| -> Vec<Key> { (0..count).map(|_| Key::new(PROTOCOL_3_0).unwrap()).collect() };
        let few = make(100);
        let among_few = fastest(&few).await;
        let many = make(100_000);
        let among_many = fastest(&many).await;
        // Who looked at them one by one would take a thousand times as long.
        assert!(among_many < among_few * 50, "{among_few:?} among few, {among_many:?} among many");
    }

    /// How long a thousand requests with wrong secrets take, at the least.
    async fn fastest(keys: &[Key]) -> Duration {
        let mut least = Duration::MAX;
        for _ in 0..5 {
            let began = tieline_base::Clock::now();
            for key in keys.iter().cycle().step_by(97).take(1_000) {
                cancel(key.process, b"none").await;
            }
            least = least.min(tieline_base::Clock::now().since(began));
        }
        least
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
