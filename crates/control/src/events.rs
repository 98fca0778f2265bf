//! What happens, told as it happens to whoever listens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::Clock;
use tieline_conn::Server;
use tieline_pool::Standing;
use tieline_registry::Record;
use tokio::sync::broadcast;

use crate::plane::Reloaded;

/// The way from what happens to who listens. Bounded: a listener that is too slow loses the oldest events and
/// is told how many; nobody else waits for it. While nobody listens, telling costs one atomic read.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<Event>);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection ended.
    Ended(Arc<Record>),
    /// A reload: what it did, or why it did nothing.
    Reload(Result<Reloaded, Vec<String>>),
    /// An endpoint's standing changed.
    Endpoint {
        /// Its upstream.
        upstream: String,
        /// Its label.
        endpoint: String,
        /// How it stood; `None` if it is new.
        was: Option<Standing>,
        /// How it stands; `None` if it is gone.
        is: Option<Standing>,
    },
}

/// How many events a slow listener may be behind.
pub(crate) const EVENTS_MAX: usize = 1_024;

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(EVENTS_MAX))
    }
}

impl Events {
    /// Tells of a connection that ended. Fit for the worker that served it: it waits for nobody.
    pub fn ended(&self, record: &Arc<Record>) {
        self.tell(|| Event::Ended(record.clone()));
    }

    /// Tells what `event` makes, if anybody listens.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.0.receiver_count() > 0 {
            // The last listener may have left in this instant.
            let _ = self.0.send(event());
        }
    }

    /// Listens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    /// Tells of endpoints whose standing changes, looking once a second while somebody listens. Never
    /// returns.
    pub(crate) async fn watch_endpoints(&self, server: &Server) {
        let mut known: Option<Standings> = None;
        loop {
            tokio::time::sleep(WATCHED_EVERY).await;
            if self.0.receiver_count() == 0 {
                known = None;
                continue;
            }
            let standing = standings(server);
            if let Some(known) = &known {
                changes(known, &standing).into_iter().for_each(|event| self.tell(|| event));
            }
            known = Some(standing);
        }
    }
}

const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// By upstream and label.
type Standings = HashMap<(String, String), Standing>;

fn standings(server: &Server) -> Standings {
    let now = Clock::now();
    let snapshot = server.snapshot();
    let endpoints = snapshot.upstreams.values().flat_map(|upstream| {
        let name = upstream.name().to_owned();
        let endpoints = upstream.endpoints().into_iter();
        endpoints.map(move |endpoint| ((name.clone(), endpoint.label().to_owned()), endpoint.standing(now)))
    });
    endpoints.collect()
}

fn changes(before: &Standings, after: &Standings) -> Vec<Event> {
    let event = |(upstream, endpoint): &(String, String), was: Option<Standing>, is: Option<Standing>| {
        Event::Endpoint { upstream: upstream.clone(), endpoint: endpoint.clone(), was, is }
    };
    let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
    let gone = gone.map(|(key, was)| event(key, Some(*was), None));
    let changed = after.iter().filter(|(key, is)| before.get(*key) != Some(*is));
    gone.chain(changed.map(|(key, is)| event(key, before.get(key).copied(), Some(*is)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standings_of(list: &[(&str, Standing)]) -> Standings {
        list.iter().map(|(label, standing)| (("db".into(), (*label).into()), *standing)).collect()
    }

    #[test]
    fn only_endpoints_that_changed_are_told_of() {
        let before =
            standings_of(&[("a", Standing::Healthy), ("b", Standing::Healthy), ("c", Standing::Ejected)]);
        let after =
            standings_of(&[("a", Standing::Healthy), ("b", Standing::Unhealthy), ("d", Standing::Healthy)]);
        let mut told: Vec<String> = changes(&before, &after)
            .into_iter()
            .map(|event| match event {
                Event::Endpoint { endpoint, was, is, .. } => format!("{endpoint} {was:?} {is:?}"),
                other => panic!("{other:?}"),
            })
            .collect();
        told.sort();
        let expected = ["b Some(Healthy) Some(Unhealthy)", "c Some(Ejected) None", "d None Some(Healthy)"];
        assert_eq!(told, expected);
    }

    #[test]
    fn nobody_pays_for_events_while_nobody_listens() {
        let events = Events::default();
        events.tell(|| panic!("made for nobody"));
        let _listener = events.listen();
        let mut made = false;
        events.tell(|| {
            made = true;
            Event::Reload(Err(Vec::new()))
        });
        assert!(made);
    }
}
