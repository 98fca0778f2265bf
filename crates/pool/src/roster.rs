//! What a lease reads: the settings and endpoints of an upstream as of its last change.

use std::cell::RefCell;
use std::sync::Arc;

use tieline_base::Moment;

use crate::balance::{Candidate, Choice, NoChoice, Selection, Standing, Turn, Why, pick, select};
use crate::endpoint::Endpoint;
use crate::outlier::Census;
use crate::settings::Settings;
use crate::state::EndpointId;

#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) settings: Arc<Settings>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// Some name has not been asked for yet, so there may be more endpoints in a moment.
    pub(crate) unresolved: bool,
}

#[derive(Default)]
struct Scratch {
    candidates: Vec<Candidate>,
    eligible: Vec<usize>,
}

thread_local! {
    /// Room for one choice, so that choosing allocates nothing.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Roster {
    /// Chooses an endpoint for an ask that has tried `tried` in vain.
    pub(crate) fn choose(&self, now: Moment, turn: Turn, tried: &[EndpointId]) -> Result<Choice, NoChoice> {
        self.survey(now, tried, |scratch| {
            let Settings { balance, panic, .. } = &*self.settings;
            pick(*balance, *panic, &scratch.candidates, turn, &mut scratch.eligible)
        })
    }

    /// An endpoint whose breaker lets one through, and this one it is.
    pub(crate) fn probed(&self, now: Moment, tried: &[EndpointId]) -> Option<(Arc<Endpoint>, Why)> {
        let due = |endpoint: &&Arc<Endpoint>| {
            endpoint.wants_probe(now)
                && endpoint.standing(now) == Standing::Healthy
                && endpoint.in_flight() < endpoint.cap()
                && !tried.contains(&endpoint.id)
        };
        let endpoint = self.endpoints.iter().find(due)?;
        let selection = self.selection(now)?;
        let why = Why::probe(self.settings.balance, endpoint.in_flight(), selection);
        endpoint.take_probe(now).then(|| (Arc::clone(endpoint), why))
    }

    /// When the first of the breakers that are open lets one through; `None` if none is.
    pub(crate) fn opens_at(&self, now: Moment) -> Option<Moment> {
        let open = self.endpoints.iter().filter(|e| e.standing(now) == Standing::BreakerOpen);
        open.filter_map(|endpoint| endpoint.next_return(now)).min()
    }

    /// The tier in use; `None` if there is no endpoint to be used.
    pub(crate) fn selection(&self, now: Moment) -> Option<Selection> {
        self.survey(now, &[], |scratch| select(&scratch.candidates, self.settings.panic))
    }

    /// Calls `each` with every endpoint, and whether it is in use.
    pub(crate) fn for_each_open(&self, now: Moment, mut each: impl FnMut(&Endpoint, bool)) {
        self.survey(now, &[], |scratch| {
            let selection = select(&scratch.candidates, self.settings.panic);
            for (endpoint, candidate) in self.endpoints.iter().zip(&scratch.candidates) {
                each(endpoint, selection.is_some_and(|selection| selection.admits(candidate)));
            }
        });
    }

    /// How many endpoints are healthy and not among `tried`.
    pub(crate) fn hopeful(&self, now: Moment, tried: &[EndpointId]) -> usize {
        let is_hopeful = |endpoint: &&Arc<Endpoint>| {
            endpoint.standing(now) == Standing::Healthy && !tried.contains(&endpoint.id)
        };
        self.endpoints.iter().filter(is_hopeful).count()
    }

    pub(crate) fn census(&self, now: Moment) -> Census {
        let ejected = self.endpoints.iter().filter(|endpoint| now < endpoint.ejected_until()).count();
        Census { ejected, total: self.endpoints.len() }
    }

    fn survey<R>(&self, now: Moment, tried: &[EndpointId], act: impl FnOnce(&mut Scratch) -> R) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.candidates.clear();
            let slow_start = self.settings.slow_start;
            let candidate =
                |e: &Arc<Endpoint>| e.candidate(now, slow_start, !tried.is_empty() && tried.contains(&e.id));
            scratch.candidates.extend(self.endpoints.iter().map(candidate));
            act(scratch)
        })
    }
}
