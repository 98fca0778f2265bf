//! A lease without a wait: there is room, and a connection to the endpoint whose turn it is rests here. By
//! far the most are such, so this road is short: one look at the roster, and no future.

use std::sync::Arc;

use tieline_base::{Fault, Moment, Reason, Whose};
use tieline_policy::Permit;
use tieline_transport::Io;

use crate::balance::Why;
use crate::endpoint::Endpoint;
use crate::gate::Ledger;
use crate::hand_over::{Handed, Wants};
use crate::idle::{Making, Parked, Reuse, Wanted};
use crate::lease::{Ask, Event, Lease, LeaseError, fault};
use crate::leasing::Leasing;
use crate::loan::Loan;
use crate::place::{Granted, Place};
use crate::roster::Roster;
use crate::settings::Settings;
use crate::sleeper::Sleeper;
use crate::state::{EndpointId, Ticket};
use crate::trunk;
use crate::upstream::Upstream;

/// How far a lease comes without a wait.
// The larger one is the usual one.
#[allow(clippy::large_enum_variant)]
pub enum AtOnce<'a> {
    /// All the way.
    Lent(Lease),
    /// Something has to be waited for.
    Waits(Leasing<'a>),
}

/// How far it comes for those who can stand in line by themselves.
// The larger one is the usual one.
#[allow(clippy::large_enum_variant)]
pub enum InLine {
    /// All the way.
    Lent(Lease),
    /// Into the line.
    Waits(Place),
    /// There is room, and a connection has to be made.
    Dials(Granted),
    /// Something else has to be waited for, or it is refused: [`Upstream::lease`] says which.
    Nowhere,
}

/// The same, before what rests was looked for.
#[allow(clippy::large_enum_variant)] // the same
enum Sat {
    Seated(Seat),
    InLine(Ticket, Arc<Sleeper>),
    Nowhere,
}

/// A roster that stays what it is while it is looked at.
type Rostered = arc_swap::Guard<Arc<Roster>>;

/// A counted place at an endpoint.
pub(crate) struct Seat {
    pub(crate) loan: Loan,
    /// The place under the upstream's own cap, where it has one.
    pub(crate) ticket: Option<Ticket>,
    why: Why,
    /// What rested there, if that was looked for already.
    taken: Option<(Io, Making)>,
    /// What was found there that is to be closed, without the gate's lock.
    useless: Vec<Parked>,
}

impl Seat {
    fn tidy(&mut self, upstream: &Upstream) {
        upstream.close_useless(self.loan.endpoint(), std::mem::take(&mut self.useless));
    }
}

impl Upstream {
    /// The beginning of [`Upstream::lease`], at `now`: as far as it comes without a wait. What is left is to
    /// be run.
    ///
    /// # Errors
    /// The permit names another upstream.
    pub fn lease_at_once<'a>(
        self: &'a Arc<Self>,
        permit: &Permit,
        ask: &Ask,
        now: Moment,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<AtOnce<'a>, Fault> {
        self.check(permit)?;
        let (roster, sat) = self.seat_at_once(ask, now, false);
        let settings = &roster.settings;
        Ok(match sat {
            Sat::Seated(seat) => match self.taken(seat, ask, settings, now, observe) {
                Ok(lease) => AtOnce::Lent(lease),
                Err(seat) => AtOnce::Waits(Leasing::begin(self, settings, *ask, now).seated(seat)),
            },
            Sat::InLine(..) | Sat::Nowhere => AtOnce::Waits(Leasing::begin(self, settings, *ask, now)),
        })
    }

    /// The same for those who can stand in line by themselves, where that is all there is to wait for.
    ///
    /// # Errors
    /// The permit names another upstream.
    pub fn lease_or_line_up(
        self: &Arc<Self>,
        permit: &Permit,
        ask: &Ask,
        now: Moment,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<InLine, Fault> {
        self.check(permit)?;
        let (roster, sat) = self.seat_at_once(ask, now, true);
        let settings = &roster.settings;
        Ok(match sat {
            Sat::Seated(seat) => match self.taken(seat, ask, settings, now, observe) {
                Ok(lease) => InLine::Lent(lease),
                Err(Seat { loan, ticket, .. }) => {
                    let mut place = self.no_place(ask, settings, now);
                    (place.ticket, place.spent) = (ticket, true);
                    InLine::Dials(Granted { place, seat: Some(loan) })
                }
            },
            Sat::InLine(ticket, sleeper) => {
                InLine::Waits(self.no_place(ask, settings, now).in_line(now, ticket, sleeper))
            }
            Sat::Nowhere => InLine::Nowhere,
        })
    }

    /// Behind [`Upstream::lease_or_line_up`], once the place is granted: a connection that rests, if one
    /// does.
    ///
    /// # Errors
    /// None does, and more has to be waited for ([`Upstream::lease_granted`]).
    pub fn take_granted(
        self: &Arc<Self>,
        mut place: Place,
        ask: &Ask,
        now: Moment,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<Lease, Granted> {
        if let Some(handed) = place.take_handed() {
            return Ok(self.take_handed(handed, &mut place, ask, now, observe));
        }
        let (ticket, tried) = (place.ticket, ask.tried.ids());
        let (roster, seat) = self.gate().with(|ledger| {
            let roster = self.roster();
            let seat = ticket.and_then(|ticket| self.sit(ledger, &roster, ticket, ask, &tried, now));
            (roster, seat)
        });
        let Some(mut seat) = seat else { return Err(Granted { place, seat: None }) };
        seat.tidy(self);
        place.spent = true;
        let taken = self.taken(seat, ask, &roster.settings, now, observe);
        taken.map_err(|seat| Granted { place, seat: Some(seat.loan) })
    }

    /// What whoever had the place before has given to `place`.
    fn take_handed(
        self: &Arc<Self>,
        handed: Handed,
        place: &mut Place,
        ask: &Ask,
        now: Moment,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Lease {
        let Handed { endpoint, why, io, making } = handed;
        place.spent = true;
        let loan = Loan::at(self, endpoint, ask.share);
        observe(Event::Chosen { endpoint: loan.endpoint(), why });
        observe(Event::Reused { endpoint: loan.endpoint() });
        Lease { io, loan, connected_at: now, making, knock: None }
    }

    /// The rest of the road for a place that was granted.
    pub fn lease_granted(self: &Arc<Self>, granted: Granted, ask: &Ask, now: Moment) -> Leasing<'_> {
        Leasing::begin(self, &self.roster().settings, *ask, now).granted(granted)
    }

    fn check(&self, permit: &Permit) -> Result<(), Fault> {
        if permit.upstream() == self.name() {
            return Ok(());
        }
        let (permitted, upstream) = (permit.upstream().to_owned(), self.name().to_owned());
        let error = LeaseError::WrongPermit { permitted, upstream };
        Err(fault(Whose::Us, Reason::Internal).because(error))
    }

    fn no_place(self: &Arc<Self>, ask: &Ask, settings: &Settings, now: Moment) -> Place {
        Place::none(self, (ask.priority, ask.purpose, ask.share), now.after(settings.acquire))
    }

    /// What rests at a seat.
    ///
    /// # Errors
    /// Nothing does.
    #[allow(clippy::result_large_err)] // no larger than a lease
    fn taken(
        &self,
        mut seat: Seat,
        ask: &Ask,
        settings: &Settings,
        now: Moment,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<Lease, Seat> {
        observe(Event::Chosen { endpoint: seat.loan.endpoint(), why: seat.why });
        let taken = seat.taken.take().or_else(|| self.at_hand(seat.loan.endpoint(), ask, settings, now));
        let Some((io, making)) = taken else { return Err(seat) };
        observe(Event::Reused { endpoint: seat.loan.endpoint() });
        self.earn(ask, settings);
        Ok(Lease { io, loan: seat.loan, connected_at: now, making, knock: None })
    }

    /// A seat, if one is to be had without standing in a line; else a place there, for those who line up.
    /// Also the roster by which that was decided.
    fn seat_at_once(self: &Arc<Self>, ask: &Ask, now: Moment, lines_up: bool) -> (Rostered, Sat) {
        let tried = ask.tried.ids();
        if !self.gate().is_governed() {
            let roster = self.roster();
            let chosen = self.choose(&roster, ask, &tried, now).ok();
            let counted = chosen.filter(|(endpoint, _)| endpoint.tally.enter());
            let sat = counted.map_or(Sat::Nowhere, |(endpoint, why)| {
                let loan = Loan::at(self, endpoint, ask.share);
                Sat::Seated(Seat { loan, ticket: None, why, taken: None, useless: Vec::new() })
            });
            return (roster, sat);
        }
        let (roster, mut sat) = self.gate().with(|ledger| {
            // It changes under this lock only.
            let roster = self.roster();
            let sat = self.seat_at_the_gate(ledger, &roster, ask, &tried, now, lines_up);
            (roster, sat)
        });
        if let Sat::Seated(seat) = &mut sat {
            seat.tidy(self);
        }
        (roster, sat)
    }

    /// The same where there are caps, under the gate's lock.
    fn seat_at_the_gate(
        self: &Arc<Self>,
        ledger: &mut Ledger,
        roster: &Roster,
        ask: &Ask,
        tried: &[EndpointId],
        now: Moment,
        lines_up: bool,
    ) -> Sat {
        // Who may be refused is asked for more than its place in line.
        if roster.settings.pool.shed.is_some() {
            return Sat::Nowhere;
        }
        if let Some(ticket) = ledger.state.ask_at_once(ask.priority, ask.purpose, ask.share) {
            if let Some(seat) = self.sit(ledger, roster, ticket, ask, tried, now) {
                return Sat::Seated(seat);
            }
            ledger.leave(ticket);
            return Sat::Nowhere;
        }
        // Without an endpoint in use, one is waited for, and not for room.
        if !lines_up || !ledger.state.is_open_for(ask.purpose) {
            return Sat::Nowhere;
        }
        let lined = ledger.line_up((ask.priority, ask.purpose, ask.share), Wants::of(ask));
        // The line is full: where there is time for it, that is told.
        lined.map_or(Sat::Nowhere, |(ticket, sleeper)| Sat::InLine(ticket, sleeper))
    }

    /// Chooses and claims an endpoint for a place that was granted, and takes what rests there, under the
    /// gate's lock.
    fn sit(
        self: &Arc<Self>,
        ledger: &mut Ledger,
        roster: &Roster,
        ticket: Ticket,
        ask: &Ask,
        tried: &[EndpointId],
        now: Moment,
    ) -> Option<Seat> {
        let settings = &roster.settings;
        let (endpoint, why) = self.choose(roster, ask, tried, now).ok()?;
        if !ledger.claim(ticket, &endpoint) {
            return None;
        }
        let (mut taken, mut useless) = (None, Vec::new());
        if settings.trunks.is_none() {
            let wanted = Wanted { endpoint: &endpoint, reuse: ask.reuse, login: ask.login, settings, now };
            taken = endpoint.shelf.take_counted(&wanted, &mut useless);
            ledger.closed_at_rest(&endpoint, u32::from(taken.is_some()));
        }
        Some(Seat { loan: Loan::at(self, endpoint, ask.share), ticket: Some(ticket), why, taken, useless })
    }

    /// A connection to `endpoint` that is open, for whoever has a seat there.
    pub(crate) fn at_hand(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        settings: &Settings,
        now: Moment,
    ) -> Option<(Io, Making)> {
        let trunking = settings.trunks.filter(|trunking| trunking.serves(ask.reuse));
        let shares = trunking.is_some() && !endpoint.has_no_trunks();
        // Where none will do, this still makes room for another by closing one.
        let reuse = if shares { Reuse::Never } else { ask.reuse };
        let rested = self.rested(&Wanted { endpoint, reuse, login: ask.login, settings, now });
        if shares { rested.or_else(|| trunk::take(endpoint, settings, now)) } else { rested }
    }

    /// A first attempt pays for those that follow others.
    pub(crate) fn earn(&self, ask: &Ask, settings: &Settings) {
        if ask.tried.count() == 0 {
            self.budget.earn(settings.retry.budget);
            if let Some(hedge) = settings.hedge {
                self.load.earn_hedge(hedge.budget);
            }
        }
    }
}
