//! The pure brain of an upstream's caps: who may have a lease now, who waits, and who is next.
//!
//! An ask is granted a *place* (one of `size`), and then claims an endpoint that has room for it. Between the
//! two it is promised that some open endpoint has room. Who cannot be granted waits in line: the more
//! important first, and the oldest of the equally important.
//!
//! Caps bound connections, and those at rest are connections too. They keep nobody waiting, since they can be
//! lent or closed: a place is granted by the leases alone, and whoever has one asks before it dials
//! ([`PoolState::may_dial`]), and makes room by taking one from its rest.

use tieline_base::Priority;

use crate::line::Line;

/// Names one ask; later asks have greater tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Number `sequence`, of `priority`.
    pub(crate) fn new(sequence: u64, priority: Priority) -> Self {
        Ticket(sequence << 2 | priority as u64)
    }

    /// How important what asks is.
    pub(crate) fn priority(self) -> Priority {
        Priority::ALL[(self.0 & 3) as usize]
    }
}

/// Names one endpoint for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct EndpointId(pub u64);

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
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    id: EndpointId,
    cap: u32,
    lent: u32,
    idle: u32,
    /// In use by the balancer: asks may be promised its room.
    open: bool,
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
        let (unclaimed, waiting, slots) = (Vec::new(), Line::default(), Vec::new());
        let (limit, next, lent, exempt, idle) = (u32::MAX, 0, 0, 0, 0);
        Self { size, queue, limit, next, lent, exempt, idle, unclaimed, waiting, slots }
    }

    /// A lease is wanted. It is granted at once if there is room; then nobody was waiting.
    pub(crate) fn ask(&mut self, priority: Priority) -> Answer {
        let ticket = Ticket::new(self.next, priority);
        if self.can_grant() && self.waiting.is_empty() {
            self.next += 1;
            self.grant(ticket);
            return Answer::Granted(ticket);
        }
        let mut displaced = None;
        if self.waiting.len() >= self.queue {
            displaced = self.waiting.displace(priority);
            if displaced.is_none() {
                return Answer::Refused;
            }
        }
        self.next += 1;
        Answer::Queued(ticket, self.waiting.push(ticket), displaced)
    }

    /// The ask gives up: it leaves the line, or gives back the place that it had not used yet.
    pub(crate) fn leave(&mut self, ticket: Ticket, grants: &mut Vec<Ticket>) {
        if self.waiting.remove(ticket) {
            // Others are no nearer to a place by that.
        } else if self.take_unclaimed(ticket) {
            self.lent -= 1;
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
            self.waiting.put_back(ticket);
            self.grant_waiting(grants);
        }
    }

    /// A lease of `endpoint` has ended.
    pub(crate) fn give_back(&mut self, endpoint: EndpointId, grants: &mut Vec<Ticket>) {
        if self.free(endpoint) {
            self.lent -= 1;
            self.forget_the_gone();
            self.grant_waiting(grants);
        }
    }

    /// A lease of `endpoint` has ended, and its connection rests.
    pub(crate) fn rest(&mut self, endpoint: EndpointId, grants: &mut Vec<Ticket>) {
        if let Some(slot) = self.slot(endpoint) {
            slot.idle += 1;
            self.idle += 1;
        }
        self.give_back(endpoint, grants);
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
        self.slots.push(Slot { id, cap, lent, idle, open: false, leaving: false });
    }

    /// `endpoint` is gone; its leases count until they are back.
    pub(crate) fn remove(&mut self, endpoint: EndpointId) {
        if let Some(slot) = self.slot(endpoint) {
            (slot.leaving, slot.open) = (true, false);
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

    /// Tells which endpoints the balancer uses now.
    pub(crate) fn set_open(&mut self, is_open: impl Fn(EndpointId) -> bool, grants: &mut Vec<Ticket>) {
        for slot in &mut self.slots {
            slot.open = !slot.leaving && is_open(slot.id);
        }
        self.grant_waiting(grants);
    }

    /// Changes the caps of the whole. Leases above `size` are not taken away, nor are those in line sent
    /// home.
    pub(crate) fn resize(&mut self, size: u32, queue: usize, grants: &mut Vec<Ticket>) {
        (self.size, self.queue) = (size, queue);
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

    /// Connections at rest.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> u32 {
        self.idle
    }

    fn grant_waiting(&mut self, grants: &mut Vec<Ticket>) {
        while self.can_grant() {
            let Some(ticket) = self.waiting.pop() else { return };
            self.grant(ticket);
            grants.push(ticket);
        }
    }

    fn grant(&mut self, ticket: Ticket) {
        self.lent += 1;
        self.unclaimed.push(ticket);
    }

    /// Whether one more place is free, and an endpoint's room beyond what the unclaimed places were promised.
    fn can_grant(&self) -> bool {
        let open = self.slots.iter().filter(|slot| slot.open);
        let room: u64 = open.map(|slot| u64::from(slot.room())).sum();
        let limited = self.lent - self.exempt.min(self.lent) >= self.limit;
        self.lent < self.size && !limited && room > self.unclaimed.len() as u64
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
mod tests;
