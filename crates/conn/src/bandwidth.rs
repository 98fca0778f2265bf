//! How fast bytes may go by a route, and what shares that.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tieline_base::{ClientAddr, Clock, Moment};
use tieline_transport::{Bucket, Throttle};

/// The bandwidth of a route. Outlives snapshots, so that a reload forgives nothing.
pub struct Bandwidth {
    up: Option<Limit>,
    down: Option<Limit>,
}

/// What shares a bandwidth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedBy {
    /// Nothing: each exchange has it for itself.
    Exchange,
    /// The exchanges of one client; an IPv6 /64 counts as one.
    Client,
    /// All exchanges.
    Route,
}

impl Bandwidth {
    /// So many bytes a second from clients and to them; `None`: as many as go.
    pub fn new(up: Option<u64>, down: Option<u64>, shared_by: SharedBy) -> Self {
        let limit = |rate: u64| Limit::new(rate, shared_by);
        Self { up: up.map(limit), down: down.map(limit) }
    }

    /// What holds back an exchange for `client` in sending.
    pub fn up(&self, client: ClientAddr) -> Option<Throttle> {
        self.up.as_ref().map(|limit| limit.throttle(client))
    }

    /// What holds back the answer of an exchange for `client`.
    pub fn down(&self, client: ClientAddr) -> Option<Throttle> {
        self.down.as_ref().map(|limit| limit.throttle(client))
    }
}

/// One direction.
enum Limit {
    Each(u64),
    All(Arc<Bucket>),
    Clients(Lock<Clients>),
}

/// Held for one look, once for an exchange of a route that has a bandwidth.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

impl Limit {
    fn new(rate: u64, shared_by: SharedBy) -> Self {
        match shared_by {
            SharedBy::Exchange => Limit::Each(rate),
            SharedBy::Route => Limit::All(Arc::new(Bucket::new(rate))),
            SharedBy::Client => Limit::Clients(Lock::new(Clients::new(rate, CLIENTS_MAX))),
        }
    }

    fn throttle(&self, client: ClientAddr) -> Throttle {
        Throttle::new(match self {
            Limit::Each(rate) => Arc::new(Bucket::new(*rate)),
            Limit::All(bucket) => bucket.clone(),
            Limit::Clients(clients) => {
                let mut clients = clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                clients.bucket(key(client), Clock::now())
            }
        })
    }
}

/// Clients that are told apart at once; those beyond share one bucket.
const CLIENTS_MAX: usize = 65_536;

/// How many are looked through at first, so that those who owe nothing are forgotten.
const SWEEP_FIRST: usize = 1_024;

struct Clients {
    rate: u64,
    most: usize,
    buckets: HashMap<u128, Arc<Bucket>>,
    /// How many there are before they are looked through.
    sweep_at: usize,
    others: Arc<Bucket>,
}

impl Clients {
    fn new(rate: u64, most: usize) -> Self {
        let (buckets, others) = (HashMap::new(), Arc::new(Bucket::new(rate)));
        Self { rate, most, buckets, sweep_at: SWEEP_FIRST.min(most), others }
    }

    fn bucket(&mut self, key: u128, now: Moment) -> Arc<Bucket> {
        if let Some(bucket) = self.buckets.get(&key) {
            return bucket.clone();
        }
        if self.buckets.len() >= self.sweep_at {
            // Whoever owes nothing and uses nothing is as good as unknown.
            self.buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_even(now));
            self.sweep_at = (self.buckets.len() * 2).clamp(SWEEP_FIRST.min(self.most), self.most);
        }
        if self.buckets.len() >= self.most {
            return self.others.clone();
        }
        self.buckets.entry(key).or_insert_with(|| Arc::new(Bucket::new(self.rate))).clone()
    }
}

/// A client as a number: its IPv4 address, or the half of its IPv6 address that one site is given.
fn key(client: ClientAddr) -> u128 {
    match client.ip().map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(v4)) => u128::from(v4.to_bits()) | (1 << 64),
        Some(IpAddr::V6(v6)) => v6.to_bits() >> 64,
        None => u128::MAX,
    }
}

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (up, down) = (self.up.is_some(), self.down.is_some());
        f.debug_struct("Bandwidth").field("up", &up).field("down", &down).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::from_socket(text.parse().unwrap())
    }

    #[test]
    fn a_client_is_an_address_or_a_site() {
        assert_eq!(key(client("10.0.0.1:1")), key(client("[::ffff:10.0.0.1]:2")));
        assert_eq!(key(client("[2001:db8::1]:1")), key(client("[2001:db8::2]:1")));
        assert_ne!(key(client("[2001:db8::1]:1")), key(client("[2001:db8:0:1::1]:1")));
        assert_ne!(key(client("10.0.0.1:1")), key(client("10.0.0.2:1")));
    }

    #[test]
    fn who_owes_is_remembered_and_who_is_even_is_forgotten() {
        let (mut clients, now) = (Clients::new(1_000, 2), Moment(1 << 40));
        let debtor = clients.bucket(1, now);
        debtor.take(10_000, now);
        drop(debtor);
        let user = clients.bucket(2, now);
        // Two is all: who comes now shares with whoever comes too.
        assert!(Arc::ptr_eq(&clients.bucket(3, now), &clients.bucket(4, now)));
        drop(user);
        let third = clients.bucket(3, now);
        assert!(!Arc::ptr_eq(&third, &clients.others), "the place of one who is even");
        assert!(!clients.bucket(1, now).is_even(now), "what is owed is not forgiven");
    }

    #[test]
    fn each_or_all_or_those_of_one_client_share() {
        let held = |shared_by: SharedBy, other: &str| {
            let bandwidth = Bandwidth::new(None, Some(1), shared_by);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(bandwidth.up(client("10.0.0.1:1")).is_none());
            let mut first = bandwidth.down(client("10.0.0.1:1")).unwrap();
            let mut second = bandwidth.down(client(other)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            assert!(first.poll_grant(512, &mut context).is_ready());
            first.went(512);
            second.poll_grant(512, &mut context).is_pending()
        };
        assert!(!held(SharedBy::Exchange, "10.0.0.1:1"));
        assert!(held(SharedBy::Client, "10.0.0.1:2") && !held(SharedBy::Client, "10.0.0.2:1"));
        assert!(held(SharedBy::Route, "10.0.0.2:1"));
    }
}
