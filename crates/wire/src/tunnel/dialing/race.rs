//! Which way to the server is open, found out by trying all of them, the likeliest first.
//!
//! A handshake that ends proves little: only an answer to HELLO or RESUME does (with TLS 1.3 the dialer is
//! done before the server has judged it). So the race ends with an answer, and until then each way that is
//! through gets its turn to ask.

use std::time::Duration;

use tieline_base::Moment;

/// A kind of carrier, and the family of addresses that it goes over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Way {
    /// QUIC over IPv6.
    Quic6,
    /// QUIC over IPv4.
    Quic4,
    /// TLS over TCP.
    Tls,
    /// A WebSocket, through a proxy where one is set.
    WebSocket,
}

impl Way {
    /// Every way, the best first.
    pub const ALL: [Way; 4] = [Way::Quic6, Way::Quic4, Way::Tls, Way::WebSocket];

    /// Whether streams on it do not hold each other up when a packet is lost.
    pub fn is_best(self) -> bool {
        matches!(self, Way::Quic6 | Way::Quic4)
    }

    /// When it is dialed, after the start of the race.
    fn delay(self) -> Duration {
        Duration::from_millis(match self {
            Way::Quic6 => 0,
            Way::Quic4 => 250,
            Way::Tls => 300,
            Way::WebSocket => 1200,
        })
    }
}

/// The longest that a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// The least time for an answer before the next way may ask.
pub const ASK_MIN: Duration = Duration::from_secs(1);

/// What to do about a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Begin a handshake.
    Dial(Way),
    /// Ask over it: HELLO, or a RESUME of its own.
    Ask(Way),
    /// Close it.
    Close(Way),
}

/// What became of a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    /// To be dialed then.
    Starts(Moment),
    /// The handshake must be through by then.
    Dials(Moment),
    /// Through since then, and waits for its turn.
    Through(Moment),
    /// Asked, and has until then.
    Asks(Moment),
    /// Without success.
    Over,
}

/// One race. It ends with an answer, or when no way is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Race {
    lanes: [Lane; Way::ALL.len()],
    answer_within: Duration,
}

impl Race {
    /// Starts a race between `ways`; `first`, if it is one of them, has a start of its own. What is
    /// remembered changes delays and nothing else: no way is ever left out. `round_trip` is the last
    /// that was measured.
    pub(super) fn new(ways: &[Way], first: Option<Way>, round_trip: Duration, now: Moment) -> Self {
        let head_start = match first {
            // The others begin when the favourite has had as long as the best way has before the next kind.
            Some(favourite) if ways.contains(&favourite) && favourite.delay() > Duration::ZERO => {
                Way::Tls.delay()
            }
            _ => Duration::ZERO,
        };
        let mut lanes = [Lane::Over; Way::ALL.len()];
        for &way in ways {
            let delay = if Some(way) == first { Duration::ZERO } else { head_start + way.delay() };
            lanes[way as usize] = Lane::Starts(now.after(delay));
        }
        Self { lanes, answer_within: ASK_MIN.max(4 * round_trip) }
    }

    /// The way has finished its handshake.
    pub(super) fn through(&mut self, way: Way, now: Moment) {
        if matches!(self.lane(way), Lane::Dials(_)) {
            self.set(way, Lane::Through(now));
        }
    }

    /// The way has failed, at whatever and for whatever reason: a refusal, an alert, silence, or a proxy that
    /// lets nothing through. All count alike.
    pub(super) fn failed(&mut self, way: Way) {
        self.set(way, Lane::Over);
    }

    /// The way brought the answer: all others are given up.
    pub(super) fn won(&mut self, way: Way, acts: &mut Vec<Act>) {
        for other in Way::ALL.into_iter().filter(|other| *other != way) {
            self.give_up(other, acts);
        }
    }

    /// All ways are given up.
    pub(super) fn abandon(&mut self, acts: &mut Vec<Act>) {
        Way::ALL.into_iter().for_each(|way| self.give_up(way, acts));
    }

    /// Whether no way is left.
    pub(super) fn over(&self) -> bool {
        self.lanes.iter().all(|lane| *lane == Lane::Over)
    }

    /// Does what is due.
    pub(super) fn on_time(&mut self, now: Moment, acts: &mut Vec<Act>) {
        for way in Way::ALL {
            match self.lane(way) {
                Lane::Dials(until) if until <= now => self.give_up(way, acts),
                // The next to ask gets an epoch of its own, and with that an answer here would be too late.
                Lane::Asks(until) if until <= now => self.give_up(way, acts),
                Lane::Starts(start) if start <= now => self.dial(way, now, acts),
                _ => {}
            }
        }
        self.start_early(now, acts);
        if !self.lanes.iter().any(|lane| matches!(lane, Lane::Asks(_)))
            && let Some(way) = self.first_through()
        {
            self.set(way, Lane::Asks(now.after(self.answer_within)));
            acts.push(Act::Ask(way));
        }
    }

    /// When [`Race::on_time`] is next needed.
    pub(super) fn deadline(&self) -> Moment {
        let due = self.lanes.iter().filter_map(|lane| match lane {
            Lane::Starts(at) | Lane::Dials(at) | Lane::Asks(at) => Some(*at),
            Lane::Through(_) | Lane::Over => None,
        });
        due.min().unwrap_or(Moment(u64::MAX))
    }

    /// Where nothing is under way there is nothing to wait for: the next way starts now.
    fn start_early(&mut self, now: Moment, acts: &mut Vec<Act>) {
        if self.lanes.iter().all(|lane| matches!(lane, Lane::Starts(_) | Lane::Over)) {
            let start = |way: &Way| match self.lane(*way) {
                Lane::Starts(at) => Some((at, *way)),
                _ => None,
            };
            if let Some((_, way)) = Way::ALL.iter().filter_map(start).min() {
                self.dial(way, now, acts);
            }
        }
    }

    fn first_through(&self) -> Option<Way> {
        let through = |way: &Way| match self.lane(*way) {
            Lane::Through(at) => Some((at, *way)),
            _ => None,
        };
        Way::ALL.iter().filter_map(through).min().map(|(_, way)| way)
    }

    fn dial(&mut self, way: Way, now: Moment, acts: &mut Vec<Act>) {
        self.set(way, Lane::Dials(now.after(HANDSHAKE_MAX)));
        acts.push(Act::Dial(way));
    }

    fn give_up(&mut self, way: Way, acts: &mut Vec<Act>) {
        if !matches!(self.lane(way), Lane::Starts(_) | Lane::Over) {
            acts.push(Act::Close(way));
        }
        self.set(way, Lane::Over);
    }

    fn lane(&self, way: Way) -> Lane {
        self.lanes[way as usize]
    }

    fn set(&mut self, way: Way, lane: Lane) {
        self.lanes[way as usize] = lane;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn race(first: Option<Way>) -> Race {
        Race::new(&Way::ALL, first, Duration::from_millis(20), at(0))
    }

    /// What is due up to `ms`, with the time of each.
    fn until(race: &mut Race, ms: u64) -> Vec<(u64, Act)> {
        let mut all = Vec::new();
        while race.deadline() <= at(ms) {
            let now = race.deadline();
            let mut acts = Vec::new();
            race.on_time(now, &mut acts);
            all.extend(acts.into_iter().map(|act| (now.0 / 1_000_000, act)));
        }
        all
    }

    fn now(race: &mut Race, ms: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        race.on_time(at(ms), &mut acts);
        acts
    }

    #[test]
    fn ways_start_one_after_the_other() {
        let dialed = [
            (0, Act::Dial(Way::Quic6)),
            (250, Act::Dial(Way::Quic4)),
            (300, Act::Dial(Way::Tls)),
            (1200, Act::Dial(Way::WebSocket)),
        ];
        assert_eq!(until(&mut race(None), 4000), dialed);
        assert_eq!(until(&mut race(Some(Way::Quic6)), 4000), dialed);
    }

    #[test]
    fn what_is_remembered_changes_delays_and_leaves_nobody_out() {
        let dialed = until(&mut race(Some(Way::WebSocket)), 4000);
        assert_eq!(
            dialed,
            [
                (0, Act::Dial(Way::WebSocket)),
                (300, Act::Dial(Way::Quic6)),
                (550, Act::Dial(Way::Quic4)),
                (600, Act::Dial(Way::Tls))
            ]
        );
    }

    #[test]
    fn a_way_that_fails_early_makes_room_for_the_next() {
        let mut race = race(None);
        assert_eq!(now(&mut race, 0), [Act::Dial(Way::Quic6)]);
        race.failed(Way::Quic6);
        assert_eq!(now(&mut race, 10), [Act::Dial(Way::Quic4)]);
        race.failed(Way::Quic4);
        assert_eq!(now(&mut race, 20), [Act::Dial(Way::Tls)]);
        race.failed(Way::Tls);
        assert_eq!(now(&mut race, 30), [Act::Dial(Way::WebSocket)]);
        race.failed(Way::WebSocket);
        assert_eq!(now(&mut race, 40), []);
        assert!(race.over());
    }

    #[test]
    fn the_first_that_is_through_asks_and_the_next_when_no_answer_comes() {
        let mut race = race(None);
        until(&mut race, 300);
        race.through(Way::Tls, at(400));
        assert_eq!(now(&mut race, 400), [Act::Ask(Way::Tls)]);
        race.through(Way::Quic6, at(500));
        assert_eq!(now(&mut race, 500), []);
        // A carrier that swallows what it is given: connected, but dead.
        let after = until(&mut race, 1400);
        assert_eq!(
            after,
            [(1200, Act::Dial(Way::WebSocket)), (1400, Act::Close(Way::Tls)), (1400, Act::Ask(Way::Quic6))]
        );
        let mut acts = Vec::new();
        race.won(Way::Quic6, &mut acts);
        assert_eq!(acts, [Act::Close(Way::Quic4), Act::Close(Way::WebSocket)]);
    }

    #[test]
    fn a_slow_path_gets_more_time_to_answer() {
        let mut race = Race::new(&[Way::Tls], None, Duration::from_millis(600), at(0));
        now(&mut race, 300);
        race.through(Way::Tls, at(1500));
        assert_eq!(now(&mut race, 1500), [Act::Ask(Way::Tls)]);
        assert_eq!(race.deadline(), at(3900));
    }

    #[test]
    fn silence_everywhere_ends_the_race() {
        let mut race = race(None);
        let last = until(&mut race, 10_000);
        assert_eq!(last.last(), Some(&(6200, Act::Close(Way::WebSocket))));
        assert!(race.over());
    }
}
