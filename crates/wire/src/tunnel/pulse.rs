//! Whether the other side is there, judged by nothing but what it says over the carrier in use.
//!
//! Owns when to ask, and when to begin to doubt. Doubt ends nothing: it asks for a new carrier, and the old
//! one is dead when the new one has taken over, or alive when it answers after all.

use std::time::Duration;

use tieline_base::Moment;

/// Silence after which the peer is asked whether it is there, on a link that has streams.
pub const SILENCE: Duration = Duration::from_secs(5);

/// The least time for an answer.
pub const ANSWER_MIN: Duration = Duration::from_secs(2);

/// The time for an answer after the network or the clock has jumped.
pub const ANSWER_IN_HURRY: Duration = Duration::from_secs(1);

/// The round trip assumed before one was measured.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Pulse {
    /// The peer's last sign of life.
    heard: Moment,
    /// Since when something waits for confirmation, with none coming.
    waiting: Option<Moment>,
    ping: Option<Ping>,
    next_ping: u64,
    round_trip: Option<Duration>,
    doubts: bool,
    /// Silence after which to ask, on a link without streams.
    heartbeat: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    number: u64,
    sent: Moment,
    answer_by: Moment,
    /// Whether a carrier has it.
    told: bool,
}

/// What the time brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    Nothing,
    /// The peer should have spoken: a new carrier is needed.
    Doubt,
}

impl Pulse {
    pub(super) fn new(heartbeat: Duration, now: Moment) -> Self {
        Self {
            heard: now,
            waiting: None,
            ping: None,
            next_ping: 1,
            round_trip: None,
            doubts: false,
            heartbeat,
        }
    }

    /// The carrier is a new one, and the peer has just spoken over it.
    pub(super) fn renew(&mut self, now: Moment) {
        self.heard = now;
        self.waiting = None;
        self.ping = None;
        self.doubts = false;
        self.ask(now, self.patience());
    }

    pub(super) fn heard(&mut self, now: Moment) {
        self.heard = now;
    }

    pub(super) fn last_heard(&self) -> Moment {
        self.heard
    }

    /// Something that we sent is known to have arrived.
    pub(super) fn progress(&mut self, now: Moment) {
        self.waiting = self.waiting.map(|_| now);
        self.doubts = false;
    }

    /// Whether something waits for confirmation.
    pub(super) fn waits(&mut self, waits: bool, now: Moment) {
        self.waiting = waits.then(|| self.waiting.unwrap_or(now));
    }

    /// The answer to a ping; one that was not asked for says nothing.
    pub(super) fn pong(&mut self, number: u64, now: Moment) {
        if let Some(ping) = self.ping.take_if(|ping| ping.told && ping.number == number) {
            let sample = now.since(ping.sent);
            // RFC 6298 §2.
            self.round_trip = Some(self.round_trip.map_or(sample, |smooth| smooth * 7 / 8 + sample / 8));
            self.progress(now);
        }
    }

    /// Asks at once, and gives less time: the network or the clock has jumped.
    pub(super) fn hurry(&mut self, now: Moment) {
        self.ping = None;
        self.ask(now, ANSWER_IN_HURRY);
    }

    /// Asks at once; the number of the question.
    pub(super) fn inquire(&mut self, now: Moment) -> u64 {
        self.ask(now, self.patience());
        self.next_ping - 1
    }

    /// The ping to send now, if one is due.
    pub(super) fn take_ping(&mut self) -> Option<u64> {
        let ping = self.ping.as_mut().filter(|ping| !ping.told)?;
        ping.told = true;
        Some(ping.number)
    }

    /// Whether a ping waits to be sent.
    pub(super) fn ping_due(&self) -> bool {
        self.ping.is_some_and(|ping| !ping.told)
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(ROUND_TRIP_UNKNOWN)
    }

    pub(super) fn measured(&self) -> Option<Duration> {
        self.round_trip
    }

    pub(super) fn doubts(&self) -> bool {
        self.doubts
    }

    /// Looks at the time. `busy` says whether the link has streams.
    pub(super) fn beat(&mut self, now: Moment, busy: bool) -> Beat {
        if now >= self.ask_at(busy) {
            self.ask(now, self.patience());
        }
        if self.doubts || now < self.doubt_at() {
            return Beat::Nothing;
        }
        self.doubts = true;
        // Another question, in case the path comes back before another carrier does.
        self.ping = None;
        self.ask(now, self.patience());
        Beat::Doubt
    }

    /// When [`Pulse::beat`] is next needed.
    pub(super) fn deadline(&self, busy: bool) -> Moment {
        let doubt_at = if self.doubts { Moment(u64::MAX) } else { self.doubt_at() };
        self.ask_at(busy).min(doubt_at)
    }

    fn ask(&mut self, now: Moment, patience: Duration) {
        self.ping =
            Some(Ping { number: self.next_ping, sent: now, answer_by: now.after(patience), told: false });
        self.next_ping += 1;
    }

    fn ask_at(&self, busy: bool) -> Moment {
        let silence = if busy { SILENCE } else { self.heartbeat };
        match self.ping {
            // While there is doubt: again and again.
            Some(ping) if self.doubts => ping.answer_by,
            Some(_) => Moment(u64::MAX),
            None => self.heard.after(silence),
        }
    }

    fn doubt_at(&self) -> Moment {
        let unanswered = self.ping.map_or(Moment(u64::MAX), |ping| ping.answer_by);
        let unconfirmed = self.waiting.map_or(Moment(u64::MAX), |since| since.after(self.patience()));
        unanswered.min(unconfirmed)
    }

    fn patience(&self) -> Duration {
        ANSWER_MIN.max(4 * self.round_trip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(15);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// Lets time pass in steps of 50 ms until there is doubt, and says when that was.
    fn doubt(pulse: &mut Pulse, from_ms: u64, busy: bool) -> u64 {
        let mut now = from_ms;
        while pulse.beat(at(now), busy) == Beat::Nothing {
            pulse.take_ping();
            now += 50;
            assert!(now < from_ms + 60_000, "never in doubt");
        }
        now
    }

    #[test]
    fn a_dead_link_with_bytes_in_flight_is_noticed_within_three_seconds() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.waits(true, at(1000));
        assert_eq!(doubt(&mut pulse, 1000, true), 3000);
    }

    #[test]
    fn a_dead_link_with_idle_streams_is_noticed_within_eight_seconds() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        assert_eq!(doubt(&mut pulse, 0, true), 7000);
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        assert_eq!(doubt(&mut pulse, 0, false), 17_000);
    }

    #[test]
    fn progress_keeps_doubt_away_and_silence_from_the_other_side_does_not_matter() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.waits(true, at(0));
        for second in 1..100 {
            pulse.heard(at(second * 1000));
            pulse.progress(at(second * 1000));
            assert_eq!(pulse.beat(at(second * 1000 + 500), true), Beat::Nothing);
        }
        // Heard, but nothing of ours arrives: dead one way is dead.
        pulse.heard(at(101_500));
        assert_eq!(pulse.beat(at(101_500), true), Beat::Doubt);
    }

    #[test]
    fn a_long_way_gets_more_time() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.hurry(at(0));
        pulse.take_ping();
        pulse.pong(1, at(900));
        assert_eq!(pulse.round_trip(), Duration::from_millis(900));
        pulse.heard(at(900));
        pulse.waits(true, at(1000));
        assert_eq!(doubt(&mut pulse, 1000, true), 4600);
    }

    #[test]
    fn an_answer_that_was_not_asked_for_says_nothing() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.hurry(at(0));
        pulse.pong(1, at(1));
        pulse.take_ping();
        pulse.pong(2, at(1));
        assert_eq!(pulse.beat(at(1000), true), Beat::Doubt);
    }

    #[test]
    fn in_doubt_it_asks_again_and_an_answer_ends_the_doubt() {
        let mut pulse = Pulse::new(HEARTBEAT, at(0));
        pulse.waits(true, at(0));
        assert_eq!(pulse.beat(at(2000), true), Beat::Doubt);
        assert_eq!(pulse.take_ping(), Some(1));
        assert_eq!(pulse.beat(at(4000), true), Beat::Nothing);
        assert_eq!(pulse.take_ping(), Some(2));
        pulse.pong(2, at(4100));
        assert!(!pulse.doubts());
    }
}
