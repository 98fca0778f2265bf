//! The pure brain of an upstream's caps: who may have a lease now, who waits, and who is next.
//!
//! An ask is granted a *place* (one of `size`), and then claims an endpoint that has room for it. Between the
//! two it is promised that some open endpoint has room. Who cannot be granted waits in line: the more
//! important first, and the oldest of the equally important.
//!
//! Caps bound connections, and those at rest are connections too. They keep nobody waiting, since they can be
//! lent or closed: a place is granted by the leases alone, and whoever has one asks before it dials
//! ([`PoolState::may_dial`]), and makes room by taking one from its rest.

use std::sync::atomic::{AtomicU64, Ordering};

use tieline_base::Priority;

use crate::demand::Demand;
use crate::line::Line;
use crate::purpose::{Fit, Purpose};
use crate::share::{Dues, Share, Shares};

/// Names one ask; later asks have greater tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Number `sequence`, of `priority`.
    pub(crate) fn new(sequence: u64, priority: Priority) -> Self {
        Ticket(sequence << 20 | priority as u64)
    }

    /// The same, for `purpose`.
    pub(crate) fn meant_for(self, purpose: Purpose) -> Self {
        Ticket(self.0 | (purpose.number() as u64) << 2)
    }

    /// The same, which counts for `share`.
    pub(crate) fn counting_for(self, share: Share) -> Self {
        Ticket(self.0 | share.bits() << 4)
    }

    /// Whom it counts for.
    pub(crate) fn share(self) -> Share {
        Share::from_bits(self.0 >> 4)
    }

    /// What asks is for this.
    pub(crate) fn purpose(self) -> Purpose {
        Purpose::new((self.0 >> 2) as u8)
    }

    /// How important what asks is.
    pub(crate) fn priority(self) -> Priority {
        Priority::ALL[(self.0 & 3) as usize]
    }
}

/// Names one endpoint for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct EndpointId(pub u64);

impl EndpointId {
    /// One that nobody has: one count for the process, so it stands for one endpoint of one upstream.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What becomes of an ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It has a place, and claims an endpoint next.
    Granted(Ticket),
    /// It waits behind so many others. A later event grants it. The line was full, and who stood last among
    /// the least important has lost its place to it, if one did.
    Queued(Ticket, usize, Option<Ticket>),
    /// The queue is full.
    Refused,
}

/// A place in line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lined {
    /// Its own.
    pub(crate) ticket: Ticket,
    /// Who stood last among the least important, and has lost its place to it as the line was full.
    pub(crate) displaced: Option<Ticket>,
}

/// Whether a new connection may be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialing {
    /// It may.
    Now,
    /// Once one of the same endpoint has been taken from its rest.
    AfterOneHere,
    /// Once one of any endpoint has been taken from its rest.
    AfterOne,
}

/// What is between an ask in line and a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ahead {
    /// Asks that are older and no less important.
    pub(crate) asks: usize,
    /// Places that are taken.
    pub(crate) places: u32,
    /// Who holds most of those, and how many.
    pub(crate) most: Option<(Share, u32)>,
    /// It waits because its share has all that it may have: so many.
    pub(crate) cap: Option<u32>,
}

/// The caps, the line, and all leases out. Every event that may free a place pushes the tickets it grants,
/// oldest first, to `grants`.
#[derive(Debug)]
pub(crate) struct PoolState {
    size: u32,
    queue: usize,
    /// How many leases of limited time may be out, whatever `size` is.
    limit: u32,
    next: u64,
    /// Places taken: granted and not yet given back.
    lent: u32,
    /// How many of those lent are out for as long as they like, and not counted against `limit`.
    exempt: u32,
    /// Connections at rest.
    idle: u32,
    /// Granted, with no endpoint claimed yet.
    unclaimed: Vec<Ticket>,
    waiting: Line,
    /// How many places whoever has some has.
    held: Shares,
    /// How many places were wanted at once.
    demand: Demand,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    id: EndpointId,
    cap: u32,
    lent: u32,
    idle: u32,
    /// In use by the balancer for these: asks may be promised its room.
    open: Fit,
    /// Gone from the config; kept until its leases are back.
    leaving: bool,
}

impl Slot {
    fn room(&self) -> u32 {
        if self.leaving { 0 } else { self.cap.saturating_sub(self.lent) }
    }
}

impl PoolState {
    /// No leases, no endpoints; at most `size` leases at once, and at most `queue` asks waiting for one.
    pub(crate) fn new(size: u32, queue: usize) -> Self {
        let (unclaimed, waiting, held, slots) = (Vec::new(), Line::default(), Shares::default(), Vec::new());
        let (limit, next, lent, exempt, idle) = (u32::MAX, 0, 0, 0, 0);
        let demand = Demand::default();
        Self { size, queue, limit, next, lent, exempt, idle, unclaimed, waiting, held, demand, slots }
    }

    /// A lease is wanted for the usual.
    #[cfg(test)]
    pub(crate) fn ask(&mut self, priority: Priority) -> Answer {
        self.ask_for(priority, Purpose::USUAL, Share::NOBODY)
    }

    /// A lease is wanted. It is granted at once if there is room; then nobody was waiting for such a one.
    pub(crate) fn ask_for(&mut self, priority: Priority, purpose: Purpose, share: Share) -> Answer {
        if let Some(ticket) = self.ask_at_once(priority, purpose, share) {
            return Answer::Granted(ticket);
        }
        let Some(Lined { ticket, displaced }) = self.line_up(priority, purpose, share) else {
            return Answer::Refused;
        };
        Answer::Queued(ticket, self.waiting.ahead_of(ticket), displaced)
    }

    /// A lease is wanted that was not granted at once: it waits. `None` if the line is full.
    pub(crate) fn line_up(&mut self, priority: Priority, purpose: Purpose, share: Share) -> Option<Lined> {
        let ticket = Ticket::new(self.next, priority).meant_for(purpose).counting_for(share);
        let mut displaced = None;
        // Whoever is not even let into the line wants one too.
        self.demand.note(self.wanted().saturating_add(1));
        if self.waiting.len() >= self.queue {
            displaced = Some(self.waiting.displace(priority)?);
        }
        self.next += 1;
        self.waiting.put_back(ticket);
        Some(Lined { ticket, displaced })
    }

    /// A lease is wanted now or not at all.
    pub(crate) fn ask_at_once(
        &mut self,
        priority: Priority,
        purpose: Purpose,
        share: Share,
    ) -> Option<Ticket> {
        // Where not all are alike, those in line may have to wait for what this one may have; whoever may
        // have it is in line for nothing.
        let overtakes = self.waiting.has(purpose) && !self.held.is_uneven();
        if overtakes || !self.can_grant(purpose) || !self.held.may_have(share, self.spare()) {
            return None;
        }
        let ticket = Ticket::new(self.next, priority).meant_for(purpose).counting_for(share);
        self.next += 1;
        self.grant(ticket);
        self.demand.note(self.wanted());
        Some(ticket)
    }

    /// Places that are taken, and those that are waited for.
    fn wanted(&self) -> u32 {
        self.lent.saturating_add(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX))
    }

    /// The most places that were wanted at once of late.
    pub(crate) fn demand(&self) -> u32 {
        self.demand.most()
    }

    /// Another stretch of time begins in which that is counted.
    pub(crate) fn turn_demand(&mut self) {
        self.demand.turn(self.wanted());
    }

    /// The ask gives up: it leaves the line, or gives back the place that it had not used yet.
    pub(crate) fn leave(&mut self, ticket: Ticket, grants: &mut Vec<Ticket>) {
        if self.waiting.remove(ticket) {
            // Others are no nearer to a place by that.
        } else if self.take_unclaimed(ticket) {
            self.lent -= 1;
            self.held.leave(ticket.share());
            self.grant_waiting(grants);
        }
    }

    /// The granted ask takes `endpoint`; false, with nothing changed, if it has no room or the ask no place.
    /// Taking a closed one leaves the room that it was promised to the next in line.
    pub(crate) fn claim(&mut self, ticket: Ticket, endpoint: EndpointId, grants: &mut Vec<Ticket>) -> bool {
        let Some(index) = self.slots.iter().position(|slot| slot.id == endpoint && slot.room() > 0) else {
            return false;
        };
        if !self.take_unclaimed(ticket) {
            return false;
        }
        self.slots[index].lent += 1;
        self.grant_waiting(grants);
        true
    }

    /// The ask gives `endpoint` up, which failed it, but keeps its place to claim another.
    pub(crate) fn unclaim(&mut self, ticket: Ticket, endpoint: EndpointId, grants: &mut Vec<Ticket>) {
        if self.free(endpoint) {
            self.unclaimed.push(ticket);
            self.forget_the_gone();
            self.grant_waiting(grants);
        }
    }

    /// The granted ask found no endpoint with room, as endpoints have closed meanwhile: back to its old place
    /// in line.
    pub(crate) fn put_back(&mut self, ticket: Ticket, grants: &mut Vec<Ticket>) {
        if self.take_unclaimed(ticket) {
            self.lent -= 1;
            self.held.leave(ticket.share());
            self.waiting.put_back(ticket);
            self.grant_waiting(grants);
        }
    }

    /// A lease of `endpoint` has ended, which counted for `share`.
    pub(crate) fn give_back(&mut self, endpoint: EndpointId, share: Share, grants: &mut Vec<Ticket>) {
        if self.free(endpoint) {
            self.lent -= 1;
            self.held.leave(share);
            self.forget_the_gone();
            self.grant_waiting(grants);
        }
    }

    /// A lease of `endpoint` has ended, and its connection rests.
    pub(crate) fn rest(&mut self, endpoint: EndpointId, share: Share, grants: &mut Vec<Ticket>) {
        if let Some(slot) = self.slot(endpoint) {
            slot.idle += 1;
            self.idle += 1;
        }
        self.give_back(endpoint, share, grants);
    }

    /// A lease of `endpoint` has ended, which counted for `share`, and whoever is next in line has it from
    /// here on, endpoint and all: as by [`PoolState::give_back`], a grant and [`PoolState::claim`]. `None`,
    /// with nothing changed, if nobody is next, or might get another endpoint.
    pub(crate) fn pass_on(&mut self, endpoint: EndpointId, share: Share) -> Option<Ticket> {
        let is_limited = self.lent - self.exempt.min(self.lent) > self.limit;
        if self.waiting.is_empty() || !self.unclaimed.is_empty() || self.lent > self.size || is_limited {
            return None;
        }
        let slot = self.slots.iter().find(|slot| slot.id == endpoint)?;
        if slot.leaving || slot.lent == 0 || slot.lent > slot.cap {
            return None;
        }
        let may = std::array::from_fn(|number| slot.open.has(Purpose::new(number as u8)));
        self.held.leave(share);
        let next = self.waiting.pop(may, &self.held, self.spare() + 1);
        self.held.enter(next.map_or(share, Ticket::share));
        next
    }

    /// What was passed on to `ticket` is not what it wants: it has its place, and the connection rests.
    pub(crate) fn not_passed_on(&mut self, endpoint: EndpointId, ticket: Ticket) {
        if let Some(slot) = self.slot(endpoint) {
            (slot.lent, slot.idle) = (slot.lent.saturating_sub(1), slot.idle + 1);
            self.idle += 1;
        }
        self.unclaimed.push(ticket);
    }

    /// A connection of `endpoint` rests no more: it is lent, or closed.
    pub(crate) fn wake(&mut self, endpoint: EndpointId) {
        if let Some(slot) = self.slot(endpoint)
            && slot.idle > 0
        {
            slot.idle -= 1;
            self.idle -= 1;
            self.forget_the_gone();
        }
    }

    /// Whether a claim of `endpoint` may be made good by a new connection. If not, one at rest must be taken
    /// first: one of this endpoint if its own cap is reached.
    pub(crate) fn may_dial(&self, endpoint: EndpointId) -> Dialing {
        let slot = self.slots.iter().find(|slot| slot.id == endpoint);
        if slot.is_some_and(|slot| slot.idle > 0 && slot.lent + slot.idle > slot.cap) {
            return Dialing::AfterOneHere;
        }
        // Who has claimed nothing yet asks when it has.
        let open = self.lent - self.unclaimed.len() as u32 + self.idle;
        if self.idle > 0 && open > self.size { Dialing::AfterOne } else { Dialing::Now }
    }

    /// From now on at most so many leases may be out, those that are exempt left out.
    pub(crate) fn limit(&mut self, limit: u32, grants: &mut Vec<Ticket>) {
        self.limit = limit;
        self.grant_waiting(grants);
    }

    /// A lease that is out is exempt from the limit from now on.
    pub(crate) fn exempt(&mut self, grants: &mut Vec<Ticket>) {
        self.exempt += 1;
        self.grant_waiting(grants);
    }

    /// An exempt lease is about to be given back.
    pub(crate) fn exempt_no_more(&mut self) {
        self.exempt = self.exempt.saturating_sub(1);
    }

    /// A new endpoint, closed for now, of which `lent` leases are out already, and `idle` connections rest.
    pub(crate) fn add(&mut self, id: EndpointId, cap: u32, lent: u32, idle: u32) {
        self.lent += lent;
        self.idle += idle;
        self.slots.push(Slot { id, cap, lent, idle, open: Fit::NONE, leaving: false });
    }

    /// `endpoint` is gone; its leases count until they are back.
    pub(crate) fn remove(&mut self, endpoint: EndpointId) {
        if let Some(slot) = self.slot(endpoint) {
            (slot.leaving, slot.open) = (true, Fit::NONE);
        }
        self.forget_the_gone();
    }

    /// Changes the cap of `endpoint`. Leases above it are not taken away.
    pub(crate) fn set_cap(&mut self, endpoint: EndpointId, cap: u32, grants: &mut Vec<Ticket>) {
        if let Some(slot) = self.slot(endpoint) {
            slot.cap = cap;
        }
        self.grant_waiting(grants);
    }

    /// Tells which endpoints the balancer uses now, whatever for.
    #[cfg(test)]
    pub(crate) fn set_open(&mut self, is_open: impl Fn(EndpointId) -> bool, grants: &mut Vec<Ticket>) {
        self.open_for(|id| if is_open(id) { Fit::ALL } else { Fit::NONE }, grants);
    }

    /// Tells which endpoints the balancer uses now for what.
    pub(crate) fn open_for(&mut self, what_for: impl Fn(EndpointId) -> Fit, grants: &mut Vec<Ticket>) {
        for slot in &mut self.slots {
            slot.open = if slot.leaving { Fit::NONE } else { what_for(slot.id) };
        }
        self.grant_waiting(grants);
    }

    /// Whether an endpoint is in use for `purpose`.
    pub(crate) fn is_open_for(&self, purpose: Purpose) -> bool {
        self.slots.iter().any(|slot| slot.open.has(purpose))
    }

    /// Changes the caps of the whole. Leases above `size` are not taken away, nor are those in line sent
    /// home.
    pub(crate) fn resize(&mut self, size: u32, queue: usize, grants: &mut Vec<Ticket>) {
        (self.size, self.queue) = (size, queue);
        self.grant_waiting(grants);
    }

    /// Changes what is due to whom. Places that are taken are not taken away.
    pub(crate) fn owe(&mut self, dues: &Dues, grants: &mut Vec<Ticket>) {
        self.held.owe(dues);
        self.grant_waiting(grants);
    }

    /// Places taken.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> u32 {
        self.lent
    }

    /// Asks waiting.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many are ahead of `ticket`, how many places there are, and who holds most of them.
    pub(crate) fn ahead_of(&self, ticket: Ticket) -> Ahead {
        let cap = self.held.cap_of(ticket.share());
        Ahead { asks: self.waiting.ahead_of(ticket), places: self.lent, most: self.held.most(), cap }
    }

    /// Connections at rest.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> u32 {
        self.idle
    }

    fn grant_waiting(&mut self, grants: &mut Vec<Ticket>) {
        // Whether somebody waits is asked first: nearly always nobody does, and room has to be counted.
        while self.lent < self.size && !self.waiting.is_empty() {
            let may = std::array::from_fn(|number| {
                let purpose = Purpose::new(number as u8);
                self.waiting.has(purpose) && self.can_grant(purpose)
            });
            let Some(ticket) = self.waiting.pop(may, &self.held, self.spare()) else { return };
            self.grant(ticket);
            grants.push(ticket);
        }
    }

    /// Places that are not taken.
    fn spare(&self) -> u32 {
        self.size.saturating_sub(self.lent)
    }

    fn grant(&mut self, ticket: Ticket) {
        self.lent += 1;
        self.held.enter(ticket.share());
        self.unclaimed.push(ticket);
    }

    /// Whether one more place is free, and room at an endpoint that is fit, beyond what the unclaimed places
    /// were promised; some of them elsewhere, which the next claim shows.
    fn can_grant(&self, purpose: Purpose) -> bool {
        let limited = self.lent - self.exempt.min(self.lent) >= self.limit;
        if self.lent >= self.size || limited {
            return false;
        }
        let open = self.slots.iter().filter(|slot| slot.open.has(purpose));
        let room: u64 = open.map(|slot| u64::from(slot.room())).sum();
        room > self.unclaimed.len() as u64
    }

    fn take_unclaimed(&mut self, ticket: Ticket) -> bool {
        let index = self.unclaimed.iter().position(|other| *other == ticket);
        index.map(|index| self.unclaimed.swap_remove(index)).is_some()
    }

    fn free(&mut self, endpoint: EndpointId) -> bool {
        match self.slot(endpoint) {
            Some(slot) if slot.lent > 0 => {
                slot.lent -= 1;
                true
            }
            _ => false,
        }
    }

    fn forget_the_gone(&mut self) {
        self.slots.retain(|slot| !slot.leaving || slot.lent > 0 || slot.idle > 0);
    }

    fn slot(&mut self, endpoint: EndpointId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == endpoint)
    }
}

#[cfg(test)]
mod dues;
#[cfg(test)]
mod fairness;
#[cfg(test)]
mod purposes;
#[cfg(test)]
mod tests;
