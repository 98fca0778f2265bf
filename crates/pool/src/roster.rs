//! What a lease reads: the settings and endpoints of an upstream as of its last change.

use std::cell::RefCell;
use std::sync::Arc;

use tieline_base::Moment;

use crate::balance::{Candidate, Choice, NoChoice, Selection, Standing, Turn, Why, pick, select};
use crate::endpoint::Endpoint;
use crate::outlier::Census;
use crate::purpose::{Fit, Purpose};
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
    pub(crate) fn choose(
        &self,
        now: Moment,
        turn: Turn,
        purpose: Purpose,
        tried: &[EndpointId],
    ) -> Result<Choice, NoChoice> {
        let only = self.only(now, turn, purpose, tried);
        only.map_or_else(|| self.weigh(now, turn, purpose, tried), Ok)
    }

    /// The same by weighing all there are.
    fn weigh(
        &self,
        now: Moment,
        turn: Turn,
        purpose: Purpose,
        tried: &[EndpointId],
    ) -> Result<Choice, NoChoice> {
        self.survey(now, purpose, tried, |scratch| {
            let Settings { balance, panic, .. } = &*self.settings;
            pick(*balance, *panic, &scratch.candidates, turn, &mut scratch.eligible)
        })
    }

    /// The only endpoint there is, if nothing speaks against it: nothing of it has to be weighed then.
    fn only(&self, now: Moment, turn: Turn, purpose: Purpose, tried: &[EndpointId]) -> Option<Choice> {
        let [only] = self.endpoints.as_slice() else { return None };
        let in_flight = only.in_flight();
        let fits = only.standing(now) == Standing::Healthy && in_flight < only.cap();
        if !fits || !only.is_fit_for(purpose) || turn.wish.is_some() || !tried.is_empty() {
            return None;
        }
        Some(Choice { index: 0, why: Why::only(self.settings.balance, in_flight, only.tier()) })
    }

    /// An endpoint whose breaker lets one through, and this one it is.
    pub(crate) fn probed(
        &self,
        now: Moment,
        purpose: Purpose,
        tried: &[EndpointId],
    ) -> Option<(Arc<Endpoint>, Why)> {
        let due = |endpoint: &&Arc<Endpoint>| {
            endpoint.wants_probe(now)
                && endpoint.is_fit_for(purpose)
                && endpoint.standing(now) == Standing::Healthy
                && endpoint.in_flight() < endpoint.cap()
                && !tried.contains(&endpoint.id)
        };
        let endpoint = self.endpoints.iter().find(due)?;
        let selection = self.selection(now, purpose)?;
        let why = Why::probe(self.settings.balance, endpoint.in_flight(), selection);
        endpoint.take_probe(now).then(|| (Arc::clone(endpoint), why))
    }

    /// When the first of the breakers that are open lets one through; `None` if none is.
    pub(crate) fn opens_at(&self, now: Moment) -> Option<Moment> {
        let open = self.endpoints.iter().filter(|e| e.standing(now) == Standing::BreakerOpen);
        open.filter_map(|endpoint| endpoint.next_return(now)).min()
    }

    /// The tier in use for `purpose`; `None` if there is no endpoint to be used.
    pub(crate) fn selection(&self, now: Moment, purpose: Purpose) -> Option<Selection> {
        self.survey(now, purpose, &[], |scratch| select(&scratch.candidates, self.settings.panic))
    }

    /// Every endpoint, and what it is in use for.
    pub(crate) fn open(&self, now: Moment) -> Vec<(EndpointId, Fit)> {
        let mut open: Vec<_> = self.endpoints.iter().map(|endpoint| (endpoint.id, Fit::NONE)).collect();
        if self.endpoints.iter().all(|endpoint| endpoint.fit() == Fit::ALL) {
            self.open_for(now, Purpose::USUAL, Fit::ALL, &mut open);
            return open;
        }
        for purpose in Purpose::all() {
            self.open_for(now, purpose, Fit::of([purpose]), &mut open);
        }
        open
    }

    /// Adds `what_for` to those that are in use for `purpose`.
    fn open_for(&self, now: Moment, purpose: Purpose, what_for: Fit, open: &mut [(EndpointId, Fit)]) {
        self.survey(now, purpose, &[], |scratch| {
            let Some(selection) = select(&scratch.candidates, self.settings.panic) else { return };
            let in_use = scratch.candidates.iter().zip(open).filter(|(it, _)| selection.admits(it));
            in_use.for_each(|(_, (_, fit))| *fit = Fit::from_bits(fit.bits() | what_for.bits()));
        });
    }

    /// How many endpoints are healthy, fit for `purpose` and not among `tried`.
    pub(crate) fn hopeful(&self, now: Moment, purpose: Purpose, tried: &[EndpointId]) -> usize {
        let is_hopeful = |endpoint: &&Arc<Endpoint>| {
            endpoint.standing(now) == Standing::Healthy
                && endpoint.is_fit_for(purpose)
                && !tried.contains(&endpoint.id)
        };
        self.endpoints.iter().filter(is_hopeful).count()
    }

    pub(crate) fn census(&self, now: Moment) -> Census {
        let ejected = self.endpoints.iter().filter(|endpoint| now < endpoint.ejected_until()).count();
        Census { ejected, total: self.endpoints.len() }
    }

    fn survey<R>(
        &self,
        now: Moment,
        purpose: Purpose,
        tried: &[EndpointId],
        act: impl FnOnce(&mut Scratch) -> R,
    ) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.candidates.clear();
            let slow_start = self.settings.slow_start;
            let candidate = |e: &Arc<Endpoint>| {
                let tried = !tried.is_empty() && tried.contains(&e.id);
                let candidate = e.candidate(now, slow_start, tried);
                // Whoever is unfit is no member here, in panic neither.
                let unfit = Candidate { standing: Standing::Draining, room: false, ..candidate };
                if e.is_fit_for(purpose) { candidate } else { unfit }
            };
            scratch.candidates.extend(self.endpoints.iter().map(candidate));
            act(scratch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Balance;
    use crate::settings::EndpointSettings;
    use crate::upstream::Upstream;
    use tieline_base::Clock;

    #[test]
    fn the_only_endpoint_is_chosen_as_it_would_be_among_others() {
        let mut quickly = 0;
        for (balance, cap, in_flight, drained, wish) in every_case() {
            let endpoint = EndpointSettings {
                cap: std::num::NonZeroU32::new(cap),
                ..EndpointSettings::new("127.0.0.1:1".parse().unwrap())
            };
            let settings = Settings { balance, ..Settings::new("db", vec![endpoint]) };
            let upstream = Upstream::new(settings, Arc::new(|_| ()));
            if drained {
                upstream.drain_endpoint("127.0.0.1:1").unwrap();
            }
            let roster = upstream.roster();
            let only = &roster.endpoints[0];
            (0..in_flight).for_each(|_| only.tally.enter_governed());
            let wish = wish.then(|| only.key());
            let (now, turn) = (Clock::now(), Turn { random: 7, hash: 7, wish, clock: 0 });
            let told = |choice: Choice| (choice.index, choice.why.to_string());
            let slowly = roster.weigh(now, turn, Purpose::USUAL, &[]).map(told);
            if let Some(choice) = roster.only(now, turn, Purpose::USUAL, &[]) {
                quickly += 1;
                assert_eq!(Ok(told(choice)), slowly);
            }
            assert_eq!(roster.choose(now, turn, Purpose::USUAL, &[]).map(told), slowly);
        }
        assert!(quickly > 0, "else nothing was compared");
    }

    fn every_case() -> impl Iterator<Item = (Balance, u32, u32, bool, bool)> {
        let cases = Balance::ALL.into_iter().flat_map(|balance| (0..3).map(move |cap| (balance, cap)));
        cases.flat_map(|(balance, cap)| {
            (0..12).map(move |n: u32| (balance, cap, n % 3, n / 3 % 2 == 1, n / 6 == 1))
        })
    }
}
