//! How much may be under way over a long path: as much as it delivers, whatever it loses.
//!
//! A lost packet says little about a path: radio and crowded exchanges lose one in a hundred with room to
//! spare. So the window follows the rate at which bytes are confirmed, and loss counts where it is heavy.
//! It is what BBR does (draft-cardwell-iccrg-bbr-congestion-control), by the round and without its pacing,
//! which quinn derives from the window. Start with [`Estimate`], which knows no socket and no clock.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

/// Makes an [`Estimate`] for each path.
#[derive(Debug)]
pub(super) struct PaceConfig;

/// What a path delivers, and what may be under way for that.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    window: u64,
    packet: u64,
    round: Round,
    /// Whether nothing is under way: the next round begins with the next packet.
    idle: bool,
    /// Of the last rounds, in bytes a second.
    rates: [u64; ROUNDS],
    rounds: usize,
    startup: Option<Startup>,
    /// What may be under way, in quarters of what the path holds.
    quarters: u64,
    /// The shortest round trip of late, and when it was seen.
    shortest: Option<(Duration, Instant)>,
    /// Rounds in a row that were longer than any queue of ours makes them.
    longer: u8,
    /// Until when little is under way, so that queues empty and the path shows how short it is.
    emptied: Option<Instant>,
}

/// From when a packet leaves to when it, or a later one, is confirmed.
#[derive(Clone, Copy, Debug)]
struct Round {
    begun: Instant,
    acked: u64,
    lost: u64,
    /// Its shortest round trip.
    shortest: Duration,
    /// Whether there was too little to send to tell what the path takes.
    limited: bool,
    over: bool,
}

/// The window grows with all that is confirmed until that makes nothing faster.
#[derive(Clone, Copy, Default, Debug)]
struct Startup {
    best: u64,
    without_gain: u8,
}

/// How many rounds a rate counts for.
const ROUNDS: usize = 10;

/// One round in so many asks whether the path takes more.
const ASKS_EVERY: usize = 8;

/// What may be under way, in quarters of what the path holds: usually, and more when it is asked. Less
/// than twice would starve where processes and radios answer late, and every late round would leave less.
const USUAL: u64 = 8;
const ASKED: u64 = 3;

/// The same when the path was full a moment ago: it has room for no queue.
const FULL: u64 = 4;

/// On a short path processes take longer to have their turns than bytes to arrive.
const PATH_MIN: Duration = Duration::from_millis(2);

/// What begins a path, and is enough for one that takes next to nothing; in packets.
const FIRST: u64 = 32;

/// The least that may be under way, in packets: of a path that was silent, or is let run empty.
const LEAST: u64 = 4;

/// Rounds without a quarter more end the start.
const WITHOUT_GAIN_MAX: u8 = 3;

/// More loss than this in a round, in percent, and the path is full.
const LOSS_MAX: u64 = 10;

/// So few lost packets say nothing.
const LOST_MIN: u64 = 8;

/// A shortest round trip is looked for anew after so long, for so long.
const SHORTEST_FOR: Duration = Duration::from_secs(10);
const EMPTIED_FOR: Duration = Duration::from_millis(200);

/// So many longer rounds make a longer path.
const LONGER_MIN: u8 = 3;

impl Estimate {
    fn new(now: Instant, packet: u64) -> Self {
        Self {
            window: FIRST * packet,
            packet,
            round: Round::begin(now),
            idle: true,
            rates: [0; ROUNDS],
            rounds: 0,
            startup: Some(Startup::default()),
            quarters: USUAL,
            shortest: None,
            longer: 0,
            emptied: None,
        }
    }

    /// A packet leaves.
    fn sent(&mut self, now: Instant) {
        if std::mem::take(&mut self.idle) {
            self.round = Round::begin(now);
        }
    }

    /// A packet of so many bytes that left at `sent` is confirmed. `limited`: there was nothing more to send.
    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, limited: bool) {
        let took = now.saturating_duration_since(sent);
        if self.shortest.is_none_or(|(shortest, _)| took <= shortest) {
            self.shortest = Some((took, now));
        }
        self.round.shortest = self.round.shortest.min(took);
        self.round.acked += bytes;
        self.round.limited |= limited;
        self.round.over |= sent >= self.round.begun;
        if self.startup.is_some() && !limited {
            self.window += bytes;
        }
    }

    /// All that is confirmed at once was told; so much is still under way.
    fn acks_end(&mut self, now: Instant, in_flight: u64) {
        self.idle = in_flight == 0;
        if !self.round.over {
            return;
        }
        let round = std::mem::replace(&mut self.round, Round::begin(now));
        self.count(&round, now);
        self.look_for_shortest(now);
        self.look_for_longer(&round, now);
        if self.startup.is_none() {
            let asks = self.rounds.is_multiple_of(ASKS_EVERY);
            self.quarters = (self.quarters + u64::from(asks)).min(USUAL);
            self.window = self.holds() * (self.quarters + if asks { ASKED } else { 0 }) / 4;
        }
        let least = if round.is_heavy(self.packet) { LEAST } else { FIRST };
        self.window = self.window.max(least * self.packet);
    }

    fn count(&mut self, round: &Round, now: Instant) {
        let took = now.saturating_duration_since(round.begun).max(Duration::from_micros(1));
        let rate = u64::try_from(u128::from(round.acked) * 1_000_000 / took.as_micros()).unwrap_or(u64::MAX);
        if round.limited && rate <= self.rate() {
            return;
        }
        self.rounds += 1;
        self.rates[self.rounds % ROUNDS] = rate;
        if round.is_heavy(self.packet) {
            // What comes through now is all there is.
            self.startup = None;
            self.quarters = FULL;
            let best = self.rate() * 7 / 10;
            self.rates.iter_mut().for_each(|it| *it = (*it).min(best.max(rate)));
        }
        if let Some(startup) = &mut self.startup {
            let gains = rate >= startup.best + startup.best / 4;
            startup.best = startup.best.max(rate);
            startup.without_gain = if gains { 0 } else { startup.without_gain + 1 };
            if startup.without_gain >= WITHOUT_GAIN_MAX {
                self.startup = None;
            }
        }
    }

    /// A queue of our own would pass for a longer path: from time to time it is let run empty.
    fn look_for_shortest(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        match (self.emptied, self.shortest) {
            (Some(until), _) if now >= until => self.emptied = None,
            (None, Some((_, at))) if since(at) >= SHORTEST_FOR => {
                self.emptied = Some(now + EMPTIED_FOR);
                self.shortest = None;
            }
            _ => {}
        }
    }

    /// With so little under way there is no queue of ours: who takes longer then has another path, and need
    /// not wait until the shortest round trip of the one before is forgotten.
    fn look_for_longer(&mut self, round: &Round, now: Instant) {
        let shortest = self.shortest.map_or(PATH_MIN, |(shortest, _)| shortest.max(PATH_MIN));
        let longer = round.shortest > 2 * shortest && self.window <= FIRST * self.packet;
        self.longer = if longer { self.longer + 1 } else { 0 };
        if self.longer >= LONGER_MIN {
            (self.shortest, self.longer) = (Some((round.shortest, now)), 0);
        }
    }

    /// Bytes were lost. If all were for a long time (RFC 9002 §7.6), the path is another.
    fn lost(&mut self, now: Instant, bytes: u64, all: bool) {
        self.round.lost += bytes;
        if all {
            *self = Self { window: LEAST * self.packet, ..Self::new(now, self.packet) };
        }
    }

    /// The fastest of the last rounds, in bytes a second.
    fn rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or_default()
    }

    /// What the path holds when it is full and no queue is, in bytes.
    fn holds(&self) -> u64 {
        let shortest = self.shortest.map_or(PATH_MIN, |(shortest, _)| shortest.max(PATH_MIN));
        u64::try_from(u128::from(self.rate()) * shortest.as_micros() / 1_000_000).unwrap_or(u64::MAX)
    }

    /// How many bytes may be under way.
    fn may(&self) -> u64 {
        match self.emptied {
            Some(_) => (self.window / 2).max(LEAST * self.packet),
            None => self.window,
        }
    }
}

impl Round {
    fn begin(now: Instant) -> Self {
        Self { begun: now, acked: 0, lost: 0, shortest: Duration::MAX, limited: false, over: false }
    }

    /// Whether so much was lost that the path must be full.
    fn is_heavy(&self, packet: u64) -> bool {
        self.lost >= LOST_MIN * packet && self.lost * 100 > (self.lost + self.acked) * LOSS_MAX
    }
}

impl ControllerFactory for PaceConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Estimate::new(now, mtu.into()))
    }
}

impl Controller for Estimate {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last: u64) {
        self.sent(now);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, limited: bool, _: &RttEstimator) {
        self.acked(now, sent, bytes, limited);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _limited: bool, _largest: Option<u64>) {
        self.acks_end(now, in_flight);
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, all: bool, bytes: u64) {
        self.lost(now, bytes, all);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.packet = mtu.into();
    }

    fn window(&self) -> u64 {
        self.may()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        FIRST * self.packet
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
