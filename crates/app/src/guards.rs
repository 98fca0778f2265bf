//! What stands between routes and their upstreams, compiled from the config.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Weak};

use tieline_base::ByteRate;
use tieline_config as config;
use tieline_conn::{Bandwidth, SharedBy};
use tieline_http as http;
use tieline_openapi::Part;
use tieline_registry::{Registry, Tally};

use crate::apis::Apis;

/// What outlives a config.
pub(crate) struct Guards {
    registry: Arc<Registry>,
    apis: Apis,
    /// Limits by what they are and where they stand: those that the last config had.
    rates: Lock<HashMap<RateKey, Weak<http::RateLimit>>>,
    /// Bandwidths by their listener and route, and what they are: those that the last config had.
    bandwidths: Lock<HashMap<(String, String, config::Bandwidth), Weak<Bandwidth>>>,
    /// How many requests are under way, by listener and route.
    under_way: Lock<HashMap<(String, String), Arc<AtomicU32>>>,
    /// What bodies that are held take, by listener.
    held: Lock<HashMap<String, Arc<AtomicU64>>>,
}

/// Held while a config is compiled, which one thread does.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

/// A listener, its route (none: all of them), the limit, and which one of several like it.
type RateKey = (String, Option<String>, config::RateLimit, usize);

impl Guards {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: registry.clone(),
            apis: Apis::default(),
            rates: Lock::default(),
            bandwidths: Lock::default(),
            under_way: Lock::default(),
            held: Lock::default(),
        }
    }

    /// The documents that `live` names, for [`Guards::keep_to`].
    ///
    /// # Errors
    /// Everything that is wrong with them; nothing has changed then.
    pub(crate) fn load(&self, live: &config::Live) -> Result<Apis, Vec<String>> {
        Apis::load(live, &self.apis)
    }

    /// Uses these documents from now on; whether one of them says something new.
    pub(crate) fn keep_to(&mut self, apis: Apis) -> bool {
        let differs = apis.differs(&self.apis);
        self.apis = apis;
        differs
    }

    /// What stands before a route; most have nothing.
    pub(crate) fn of(&self, listener: &config::Listener, route: &config::Route) -> Option<http::Guards> {
        let guards = http::Guards {
            rates: self.rates(listener, route),
            concurrent: self.concurrent(listener, route),
            interface: self.interface(listener, route),
        };
        let any = !guards.rates.is_empty() || guards.concurrent.is_some() || guards.interface.is_some();
        any.then_some(guards)
    }

    /// How fast the bytes of a route may go, if that is limited: the same as before, as long as it is written
    /// the same.
    pub(crate) fn bandwidth(
        &self,
        listener: &config::Listener,
        route: &config::Route,
    ) -> Option<Arc<Bandwidth>> {
        let written = route.bandwidth?;
        let mut known = held(&self.bandwidths);
        known.retain(|_, bandwidth| bandwidth.strong_count() > 0);
        let key = (listener.name.clone(), route.name.clone(), written);
        if let Some(standing) = known.get(&key).and_then(Weak::upgrade) {
            return Some(standing);
        }
        let shared_by = match written.per {
            config::BandwidthPer::Exchange => SharedBy::Exchange,
            config::BandwidthPer::Ip => SharedBy::Client,
            config::BandwidthPer::Route => SharedBy::Route,
        };
        let rate = |rate: Option<ByteRate>| rate.map(|rate| rate.0);
        let made = Arc::new(Bandwidth::new(rate(written.up), rate(written.down), shared_by));
        known.insert(key, Arc::downgrade(&made));
        Some(made)
    }

    fn rates(&self, listener: &config::Listener, route: &config::Route) -> Vec<Arc<http::RateLimit>> {
        let of_listener = listener.rates.iter().map(|limit| (None, limit));
        let of_route = route.rates.iter().map(|limit| (Some(route.name.clone()), limit));
        let mut known = held(&self.rates);
        known.retain(|_, limit| limit.strong_count() > 0);
        let mut rates: Vec<Arc<http::RateLimit>> = Vec::new();
        for (at, (of, limit)) in of_listener.chain(of_route).enumerate() {
            let key = (listener.name.clone(), of, limit.clone(), at);
            let rate = known.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                let made = Arc::new(self.rate(listener, key.1.as_deref(), limit, at));
                known.insert(key, Arc::downgrade(&made));
                made
            });
            rates.push(rate);
        }
        rates
    }

    fn rate(
        &self,
        listener: &config::Listener,
        route: Option<&str>,
        limit: &config::RateLimit,
        at: usize,
    ) -> http::RateLimit {
        let per = match &limit.per {
            config::RatePer::Ip => http::Per::Ip,
            config::RatePer::Route => http::Per::Route,
            config::RatePer::Header(name) => http::Per::Header(name.clone()),
        };
        let refused = self.refused(listener, route.unwrap_or_default(), &limit.per.to_string());
        // No two of a route have the same place, so no two have the same name.
        let name = if at == 0 { limit.per.to_string() } else { format!("{}-{}", limit.per, at + 1) };
        let tells_as = limit.tell.then_some(name.as_str());
        http::RateLimit::new(per, limit.rate, limit.burst, tells_as, refused)
    }

    fn concurrent(&self, listener: &config::Listener, route: &config::Route) -> Option<http::Concurrent> {
        let most = route.concurrent?;
        let mut under_way = held(&self.under_way);
        let now = under_way.entry((listener.name.clone(), route.name.clone())).or_default().clone();
        Some(http::Concurrent::new(most, now, self.refused(listener, &route.name, "concurrent")))
    }

    fn refused(&self, listener: &config::Listener, route: &str, limit: &str) -> Arc<Tally> {
        let labels = [("listener", listener.name.as_str()), ("route", route), ("limit", limit)];
        self.registry.tally("tieline_limited", LIMITED, &labels)
    }

    fn interface(&self, listener: &config::Listener, route: &config::Route) -> Option<http::Interface> {
        let written = route.api.as_ref()?;
        let mode = match written.mode {
            config::ApiMode::Enforce => http::Mode::Enforce,
            config::ApiMode::Report => http::Mode::Report,
        };
        let counts = Part::ALL.map(|part| {
            let labels = [
                ("listener", listener.name.as_str()),
                ("route", &route.name),
                ("kind", part.as_str()),
                ("mode", written.mode.as_str()),
            ];
            self.registry.tally("tieline_api_violations", VIOLATIONS, &labels)
        });
        let taken = held(&self.held).entry(listener.name.clone()).or_default().clone();
        let room = http::Room::new(listener.limits.validated_bodies.0, taken);
        Some(http::Interface { api: self.apis.of(written)?, mode, counts, room })
    }
}

const LIMITED: &str = "Requests refused because there were too many, by the limit that refused them";

const VIOLATIONS: &str = "Requests that did not keep to their route's interface, by the part that was wrong";

fn held<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
