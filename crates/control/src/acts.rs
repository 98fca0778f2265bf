//! What operators order: ends and drains of connections, endpoints and listeners.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tieline_base::{Clock, Reason};
use tieline_conn::Snapshot;
use tieline_policy::AdminPermit;
use tieline_pool::{Endpoint, UnknownEndpoint};
use tieline_registry::{Filter, Record, Verdict};
use utoipa::ToSchema;

use crate::plane::Plane;

/// What came of an order to end connections.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema, Debug)]
pub struct Acted {
    /// How many connections were ordered to end.
    pub matched: usize,
    /// How many of them have ended by now.
    pub ended: usize,
}

/// An operator's words: why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Words(pub Option<String>);

/// What an order names does not exist.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ActError {
    /// No such listener.
    #[error("there is no listener \"{name}\"; {}", there_are(.known))]
    Listener {
        /// What was named.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No such upstream.
    #[error("there is no upstream \"{name}\"; {}", there_are(.known))]
    Upstream {
        /// What was named.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No such endpoint.
    #[error(transparent)]
    Endpoint(#[from] UnknownEndpoint),
}

fn there_are(known: &[String]) -> String {
    if known.is_empty() { "there is none at all".into() } else { format!("there are: {}", known.join(", ")) }
}

impl Plane {
    /// Ends what matches `filter`, now, and waits until it has ended: 2 s at the most.
    pub async fn kill(&self, permit: &AdminPermit, filter: &Filter, words: &Words) -> Acted {
        let records = self.server(permit).registry().live(filter);
        let order = Verdict { at: Clock::now(), reason: Reason::Killed };
        for record in &records {
            record.note(words.after("killed by an operator"));
            record.end(order);
        }
        Acted { matched: records.len(), ended: ended(&records, KILL_WAIT).await }
    }

    /// Lets what matches `filter` end by itself until its listener's `timeouts.drain` is over, then ends it.
    /// Does not wait for that.
    pub fn drain(&self, permit: &AdminPermit, filter: &Filter, words: &Words) -> Acted {
        let server = self.server(permit);
        drain(&server.snapshot(), &server.registry().live(filter), &words.after("drained by an operator"))
    }

    /// Takes the endpoints called `address` out of use, and drains the connections to them.
    ///
    /// # Errors
    /// [`ActError`] if there is none.
    pub fn drain_endpoint(
        &self,
        permit: &AdminPermit,
        upstream: &str,
        address: &str,
        words: &Words,
    ) -> Result<Acted, ActError> {
        let server = self.server(permit);
        let snapshot = server.snapshot();
        let endpoints = find_upstream(&snapshot, upstream)?.drain_endpoint(address)?;
        let mut records = Vec::new();
        server.registry().each_live(|record| {
            if goes_to(record, upstream, &endpoints) {
                records.push(record.clone());
            }
        });
        Ok(drain(&snapshot, &records, &words.after("its endpoint is drained by an operator")))
    }

    /// Takes the endpoints called `address` into use again.
    ///
    /// # Errors
    /// [`ActError`] if there is none.
    pub fn enable_endpoint(
        &self,
        permit: &AdminPermit,
        upstream: &str,
        address: &str,
    ) -> Result<(), ActError> {
        let snapshot = self.server(permit).snapshot();
        find_upstream(&snapshot, upstream)?.enable_endpoint(address)?;
        Ok(())
    }

    /// Refuses every further connection at the listener `name`, and drains those that it has.
    ///
    /// # Errors
    /// [`ActError::Listener`] if there is none.
    pub fn drain_listener(&self, permit: &AdminPermit, name: &str, words: &Words) -> Result<Acted, ActError> {
        let server = self.server(permit);
        let snapshot = server.snapshot();
        find_listener(&snapshot, name)?.admission.close();
        let mut records = Vec::new();
        server.registry().each_live(|record| {
            if *record.listener().name == *name {
                records.push(record.clone());
            }
        });
        Ok(drain(&snapshot, &records, &words.after("its listener is drained by an operator")))
    }

    /// Lets connections in again at the listener `name`.
    ///
    /// # Errors
    /// [`ActError::Listener`] if there is none.
    pub fn enable_listener(&self, permit: &AdminPermit, name: &str) -> Result<(), ActError> {
        find_listener(&self.server(permit).snapshot(), name)?.admission.open();
        Ok(())
    }
}

impl Words {
    /// `what`, and why.
    fn after(&self, what: &str) -> String {
        match &self.0 {
            Some(words) => format!("{what}: {words}"),
            None => what.into(),
        }
    }
}

fn find_listener<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s tieline_conn::Listener, ActError> {
    let known = || snapshot.listeners.keys().map(|name| name.to_string()).collect();
    let listener = snapshot.listeners.get(name).map(|listener| &**listener);
    listener.ok_or_else(|| ActError::Listener { name: name.into(), known: known() })
}

fn find_upstream<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s tieline_pool::Upstream, ActError> {
    let known = || snapshot.upstreams.keys().map(|name| name.to_string()).collect();
    let upstream = snapshot.upstreams.get(name).map(|upstream| &**upstream);
    upstream.ok_or_else(|| ActError::Upstream { name: name.into(), known: known() })
}

fn goes_to(record: &Record, upstream: &str, endpoints: &[Arc<Endpoint>]) -> bool {
    let (Some(route), Some(chosen)) = (record.route(), record.endpoint()) else { return false };
    route.upstream_name() == Some(upstream) && endpoints.iter().any(|endpoint| *endpoint.label() == *chosen)
}

fn drain(snapshot: &Snapshot, records: &[Arc<Record>], note: &str) -> Acted {
    let now = Clock::now();
    for record in records {
        let listener = snapshot.listeners.get(&*record.listener().name);
        // A reload may have removed its listener: then it has what its route gave it at that time.
        let of_route = || record.route().map_or(Duration::ZERO, |route| route.grace);
        let grace = listener.map_or_else(of_route, |listener| listener.timeouts.drain);
        record.note(note);
        record.end(Verdict { at: now.after(grace), reason: Reason::Drained });
    }
    Acted { matched: records.len(), ended: count_ended(records) }
}

const KILL_WAIT: Duration = Duration::from_secs(2);

/// A worker ends what it is told to within microseconds: looking often costs less than the answer's delay.
const LOOKED_EVERY: Duration = Duration::from_millis(2);

/// How many of `records` have ended: when all have, or when `within` is over.
async fn ended(records: &[Arc<Record>], within: Duration) -> usize {
    let deadline = Clock::now().after(within);
    let mut living = records;
    loop {
        while let [first, rest @ ..] = living
            && first.ended().is_some()
        {
            living = rest;
        }
        if living.is_empty() || Clock::now() >= deadline {
            return count_ended(records);
        }
        tokio::time::sleep(LOOKED_EVERY).await;
    }
}

fn count_ended(records: &[Arc<Record>]) -> usize {
    records.iter().filter(|record| record.ended().is_some()).count()
}
