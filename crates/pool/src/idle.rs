//! Connections that wait, open, for the next lease of their endpoint. Each worker keeps its own, newest first
//! out, so that a surplus ages and closes.
//!
//! The danger is the endpoint that closes while we choose (the keep-alive race). Three things stand against
//! it: a connection is looked at before it is lent; one that is nearly as old as its endpoint is known to
//! allow is not lent; and an exchange that must not be repeated gets a young one or none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_transport::Io;
use tokio::io::{AsyncRead, ReadBuf};

use crate::endpoint::Endpoint;
use crate::settings::{PoolSettings, Secured, Settings};
use crate::state::EndpointId;

/// Whether a lease may be a connection that others have used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reuse {
    /// A connection of its own.
    #[default]
    Never,
    /// One that was idle for a short time only: what it is for must not be done twice.
    Young,
    /// Any that is alive: what it is for may be done again.
    Any,
}

/// How a connection was made. It is lent again only for leases that would make it the same way.
#[derive(Clone, Debug)]
pub struct Making {
    /// When.
    pub(crate) born: Moment,
    /// What TLS it speaks.
    pub(crate) tls: Option<Secured>,
}

/// A connection at rest.
struct Parked {
    io: Io,
    endpoint: Arc<Endpoint>,
    since: Moment,
    making: Making,
    idle: Duration,
    max_age: Option<Duration>,
}

thread_local! {
    /// By endpoint. An id is that of one endpoint of one upstream for the life of the process: a connection
    /// must never come to another, which may have another TLS and another tenant.
    static PARKED: RefCell<BTreeMap<EndpointId, Vec<Parked>>> = RefCell::default();
}

/// The most connections to one endpoint that a worker keeps at rest.
const PARKED_MAX: usize = 512;

/// What share of the time that an endpoint allows is used: by anything, and by what must not be done twice.
const SHARE_ANY: f64 = 0.8;
const SHARE_YOUNG: f64 = 0.5;

/// How old "young" is at most where nothing is known of the endpoint.
const YOUNG: Duration = Duration::from_millis(500);

/// Takes the connection to `endpoint` that was parked last, if it is alive and not too old for `reuse`.
pub(crate) fn take(
    endpoint: &Endpoint,
    reuse: Reuse,
    settings: &Settings,
    now: Moment,
) -> Option<(Io, Making)> {
    if reuse == Reuse::Never {
        return None;
    }
    PARKED.with_borrow_mut(|parked| {
        let line = parked.get_mut(&endpoint.id)?;
        while let Some(last) = line.last() {
            let idle = now.since(last.since);
            if idle > last.limit() {
                // What lies below has rested longer.
                line.clear();
                return None;
            }
            if reuse == Reuse::Young && idle > young(endpoint) {
                return None;
            }
            let mut last = line.pop()?;
            if last.making.tls != settings.tls {
                continue;
            }
            if last.is_quiet() {
                debug_assert!(std::ptr::eq(&*last.endpoint, endpoint), "an id names one endpoint");
                return Some((last.io, last.making));
            }
            endpoint.closed_idle(idle);
        }
        None
    })
}

/// Keeps `io`, which owes nobody anything, for the next lease of `endpoint`.
pub(crate) fn park(io: Io, endpoint: Arc<Endpoint>, making: Making, settings: &PoolSettings) {
    if endpoint.is_leaving() || endpoint.is_drained() || settings.idle.is_zero() {
        return;
    }
    let (idle, max_age) = (settings.idle, settings.max_age);
    PARKED.with_borrow_mut(|parked| {
        let line = parked.entry(endpoint.id).or_default();
        if line.len() < PARKED_MAX {
            line.push(Parked { io, endpoint, since: Clock::coarse(), making, idle, max_age });
        }
    });
}

/// Closes what rested too long, what its endpoint has closed, and what leads to endpoints out of use. To be
/// called every second or so by each thread that leases.
pub fn tidy_idle() {
    let now = Clock::now();
    PARKED.with_borrow_mut(|parked| {
        parked.retain(|_, line| {
            line.retain_mut(|parked| parked.is_worth_keeping(now));
            !line.is_empty()
        });
    });
}

fn young(endpoint: &Endpoint) -> Duration {
    endpoint.idle_allowed().map_or(YOUNG, |allowed| allowed.mul_f64(SHARE_YOUNG))
}

impl Parked {
    fn limit(&self) -> Duration {
        self.endpoint.idle_allowed().map_or(self.idle, |allowed| allowed.mul_f64(SHARE_ANY).min(self.idle))
    }

    fn is_worth_keeping(&mut self, now: Moment) -> bool {
        let idle = now.since(self.since);
        let out_of_use = self.endpoint.is_leaving() || self.endpoint.is_drained();
        if out_of_use
            || idle > self.limit()
            || self.max_age.is_some_and(|age| now.since(self.making.born) > age)
        {
            return false;
        }
        let quiet = self.is_quiet();
        if !quiet {
            self.endpoint.closed_idle(idle);
        }
        quiet
    }

    /// Whether nothing came, neither an end nor bytes that nobody asked for. Costs a system call only if
    /// something did.
    fn is_quiet(&mut self) -> bool {
        let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
        matches!(Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)), Poll::Pending)
    }
}
