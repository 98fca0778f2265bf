//! A connection that goes from hand to hand: whoever gives it back gives it to the first in line, if that one
//! waits at the same worker for just such a one. It never rests, and nobody has to look for it again.

use std::sync::Arc;

use tieline_base::Moment;
use tieline_transport::Io;

use crate::balance::{Standing, Why};
use crate::endpoint::Endpoint;
use crate::gate::Ledger;
use crate::idle::{Making, Parked, Reuse, Wanted, my_board};
use crate::lease::Ask;
use crate::roster::Roster;
use crate::share::Share;
use crate::sleeper::Sleeper;
use crate::upstream::Upstream;

/// What whoever stands in line would take from another's hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    reuse: Reuse,
    login: u64,
    /// Where it waits.
    board: usize,
}

impl Wants {
    /// What `ask` wants, which the calling worker makes; `None` if it wants more than can be seen here.
    pub(crate) fn of(ask: &Ask) -> Option<Self> {
        let is_plain = ask.wish.is_none() && ask.tried.count() == 0;
        is_plain.then(|| Self { reuse: ask.reuse, login: ask.login, board: my_board() })
    }
}

/// What it was given, and why that endpoint.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) why: Why,
    pub(crate) io: Io,
    pub(crate) making: Making,
}

/// What became of a connection that was to be handed on.
pub(crate) enum Passed {
    /// Somebody has it, who is to be told.
    To(Arc<Sleeper>),
    /// Somebody has the place: it rests, which is told to the ledger.
    Place(Parked),
    /// Nobody is next. Nothing has changed.
    Nobody(Parked),
}

impl Upstream {
    /// Gives `parked`, whose lease counted for `share`, to whoever is next in line, under the gate's lock.
    pub(crate) fn hand_on(
        &self,
        ledger: &mut Ledger,
        roster: &Roster,
        endpoint: &Arc<Endpoint>,
        share: Share,
        parked: Parked,
        now: Moment,
    ) -> Passed {
        let settings = &roster.settings;
        let is_chosen = matches!(roster.endpoints.as_slice(), [only] if Arc::ptr_eq(only, endpoint))
            && endpoint.standing(now) == Standing::Healthy
            && !endpoint.wants_probe(now)
            && settings.trunks.is_none();
        if !is_chosen {
            return Passed::Nobody(parked);
        }
        let mut hand = Some(parked);
        let passed = ledger.pass_on(endpoint, share, |sleeper, ticket| {
            let (Some(wants), Some(parked)) = (sleeper.wants, &mut hand) else { return false };
            let wanted = Wanted { endpoint, reuse: wants.reuse, login: wants.login, settings, now };
            if wants.board != my_board() || !endpoint.is_fit_for(ticket.purpose()) || !wanted.fits(parked) {
                return false;
            }
            let before = endpoint.in_flight().saturating_sub(1);
            let why = Why::only(settings.balance, before, endpoint.tier());
            if let Some(Parked { io, making, .. }) = hand.take() {
                sleeper.hand(Handed { endpoint: Arc::clone(endpoint), why, io, making });
                // It tried nothing before.
                self.earn(&Ask::default(), settings);
            }
            true
        });
        match (passed, hand) {
            (Some(Some(sleeper)), _) => Passed::To(sleeper),
            (Some(None), Some(parked)) => Passed::Place(parked),
            (_, Some(parked)) => Passed::Nobody(parked),
            (_, None) => unreachable!("it is taken by whom it fits"),
        }
    }
}
