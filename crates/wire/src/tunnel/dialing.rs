//! How a dialer keeps a link on the best carrier that the network lets through.
//!
//! Owns the race between ways, what is remembered of networks, the way back up, and how long to wait after
//! failures. Refuses to know sockets and streams: whoever drives it dials what [`Act`]s say, tells what
//! became of that, and asks again at [`Dialing::deadline`]. The carrier in use goes on until another has
//! taken over; who judges that it is dead is [`Link`](super::Link), by nothing but what comes over it.

mod backoff;
mod healing;
mod race;

use std::time::Duration;

use tieline_base::Moment;

pub use healing::NetworkId;
pub use race::{ASK_MIN, Act, HANDSHAKE_MAX, Way};

use backoff::{Backoff, part};
use healing::{Healing, Memory};
use race::Race;

use super::frame::Refusal;

/// Keeps a link on a carrier. See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialing {
    ways: Vec<Way>,
    network: NetworkId,
    state: State,
    /// What carries the link.
    in_use: Option<Way>,
    /// It is to move within so long, whatever the race that goes on brings.
    moves: Option<Duration>,
    /// The last round trip that was measured.
    round_trip: Duration,
    backoff: Backoff,
    healing: Healing,
    memory: Memory,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The carrier in use is good.
    Rests,
    /// A race starts then.
    Waits(Moment),
    Races(Race, Need),
}

/// What a race is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    /// There is no carrier, or one in doubt.
    Carrier,
    /// There is a lesser one.
    Better,
}

/// What the dialer cannot know by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// What time it is.
    pub time: Moment,
    /// Whether a stream waits for the link.
    pub awaited: bool,
    /// Any number, another one each time.
    pub random: u64,
}

impl Dialing {
    /// Over `ways`, each at most once, in this network. The first race is due at once.
    pub fn new(ways: &[Way], network: NetworkId, now: Moment) -> Self {
        Self {
            ways: ways.to_vec(),
            network,
            state: State::Waits(now),
            in_use: None,
            moves: None,
            round_trip: Duration::ZERO,
            backoff: Backoff::default(),
            healing: Healing::default(),
            memory: Memory::default(),
        }
    }

    /// What carries the link, if anything does.
    pub fn in_use(&self) -> Option<Way> {
        self.in_use
    }

    /// The link doubts its carrier: a race starts at once. The carrier in use goes on.
    pub fn look_elsewhere(&mut self, now: Now) {
        if !matches!(self.state, State::Races(_, Need::Carrier)) {
            self.state = State::Waits(now.time);
        }
    }

    /// The server asks it to move, or it proves itself by something else from now on: a race starts at a
    /// random moment within `spread`, and the carrier in use goes on. What was dialed before does not count.
    pub fn move_within(&mut self, spread: Duration, now: Now) {
        let then = now.time.after(part(spread, now.random));
        match &mut self.state {
            State::Races(_, Need::Carrier) => self.moves = Some(spread),
            // Without a carrier, whatever comes is dialed anew.
            State::Waits(until) if self.in_use.is_some() => *until = then.min(*until),
            State::Waits(_) => {}
            State::Rests | State::Races(_, Need::Better) => self.state = State::Waits(then),
        }
    }

    /// The carrier in use is gone.
    pub fn lost(&mut self, round_trip: Duration, now: Now) {
        if self.in_use.take().is_none() {
            return;
        }
        self.round_trip = round_trip;
        self.backoff.lost(now.time);
        match &mut self.state {
            State::Races(_, need) => *need = Need::Carrier,
            State::Rests | State::Waits(_) => self.wait(Duration::ZERO, now),
        }
    }

    /// The server has ended the link, for it goes away itself: whoever was asked to move before keeps to the
    /// time of that, and does not come with all the others.
    pub fn sent_away(&mut self, round_trip: Duration, now: Now) {
        let planned = match self.state {
            State::Waits(until) => until,
            State::Rests | State::Races(..) => now.time,
        };
        self.lost(round_trip, now);
        if let State::Waits(until) = &mut self.state {
            *until = planned.max(*until);
        }
    }

    /// A handshake is through; whether it may ask says [`Dialing::on_time`].
    pub fn through(&mut self, way: Way, now: Now) {
        if let State::Races(race, _) = &mut self.state {
            race.through(way, now.time);
        }
    }

    /// A way of the race failed, for whatever reason.
    pub fn failed(&mut self, way: Way) {
        if let State::Races(race, _) = &mut self.state {
            race.failed(way);
        }
    }

    /// The way brought WELCOME or RESUMED: it carries the link now. The carrier before is to be closed too.
    pub fn answered(&mut self, way: Way, now: Now, acts: &mut Vec<Act>) {
        if let State::Races(mut race, _) = self.state {
            race.won(way, acts);
        }
        self.healing.carried(self.in_use, way, now.time, now.random);
        self.memory.learn(self.network, way, now.time);
        self.backoff.connected(now.time);
        self.in_use = Some(way);
        self.state = State::Rests;
        if let Some(spread) = self.moves.take() {
            self.move_within(spread, now);
        }
    }

    /// The server said no to a HELLO or RESUME, on any way: it would say so on every other. It asks not to be
    /// asked again for `retry_after`.
    pub fn refused(&mut self, refusal: Refusal, retry_after: Duration, now: Now, acts: &mut Vec<Act>) {
        if let State::Races(mut race, _) = self.state {
            race.abandon(acts);
        }
        self.backoff.failed(refusal == Refusal::Denied);
        self.wait(retry_after, now);
    }

    /// The machine is in another network, or woke up: what failed before says nothing, and whoever waits need
    /// not wait any longer. The carrier in use, if any, is the link's to question ([`Link::hurry`]).
    ///
    /// [`Link::hurry`]: super::Link::hurry
    pub fn network_changed(&mut self, network: NetworkId, now: Now) {
        self.network = network;
        self.backoff.forget();
        self.healing.network_changed(now.time);
        if matches!(self.state, State::Waits(_)) {
            self.state = State::Waits(now.time);
        }
    }

    /// Does what is due. To be called at [`Dialing::deadline`] and after every other call.
    pub fn on_time(&mut self, now: Now, acts: &mut Vec<Act>) {
        match &mut self.state {
            State::Waits(until) if *until <= now.time => self.race(Need::Carrier, now, acts),
            State::Rests if self.healing.deadline() <= now.time => self.race(Need::Better, now, acts),
            State::Rests | State::Waits(_) => {}
            State::Races(race, _) => race.on_time(now.time, acts),
        }
        let State::Races(race, need) = &self.state else { return };
        if !race.over() {
            return;
        }
        if *need == Need::Better {
            self.state = State::Rests;
            self.healing.plan(now.time, now.random);
        } else {
            self.backoff.failed(false);
            self.wait(Duration::ZERO, now);
        }
    }

    /// When [`Dialing::on_time`] is next needed.
    pub fn deadline(&self) -> Moment {
        match &self.state {
            State::Rests => self.healing.deadline(),
            State::Waits(until) => *until,
            State::Races(race, _) => race.deadline(),
        }
    }

    fn race(&mut self, need: Need, now: Now, acts: &mut Vec<Act>) {
        let first = self.memory.best(self.network, now.time);
        let best: Vec<Way> = self.ways.iter().copied().filter(|way| way.is_best()).collect();
        let (ways, first) = if need == Need::Better { (&best, None) } else { (&self.ways, first) };
        let mut race = Race::new(ways, first, self.round_trip, now.time);
        race.on_time(now.time, acts);
        self.state = State::Races(race, need);
        self.moves = None;
    }

    /// Waits for as long as failures of late say, and at least for `asked` and a random part of it: whoever
    /// is asked to stay away comes back at another time than the others that were.
    fn wait(&mut self, asked: Duration, now: Now) {
        let asked = asked + part(asked, now.random);
        let wait = self.backoff.wait(now.awaited, now.random).max(asked);
        self.state = State::Waits(now.time.after(wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: NetworkId = NetworkId(1);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// Time, and a network that lets some ways through.
    struct Site {
        dialing: Dialing,
        now: Moment,
        open: Vec<Way>,
        /// Whether the others say so at once.
        refuses: bool,
        awaited: bool,
        random: u64,
        /// What was done, and when.
        log: Vec<(u64, Act)>,
    }

    impl Site {
        fn new(open: &[Way]) -> Self {
            let dialing = Dialing::new(&Way::ALL, HOME, Moment(0));
            let (refuses, awaited, random) = (false, true, u64::MAX / 2);
            let (open, log) = (open.to_vec(), Vec::new());
            Self { dialing, now: Moment(0), open, refuses, awaited, random, log }
        }

        fn now(&self) -> Now {
            Now { time: self.now, awaited: self.awaited, random: self.random }
        }

        /// Runs until `ms`. Open ways shake hands and answer at once; the others say nothing.
        fn until(&mut self, ms: u64) {
            let end = Moment(ms * 1_000_000);
            while self.dialing.deadline() <= end {
                self.now = self.now.max(self.dialing.deadline());
                let mut acts = Vec::new();
                self.dialing.on_time(self.now(), &mut acts);
                self.obey(acts);
            }
            self.now = end;
        }

        fn obey(&mut self, acts: Vec<Act>) {
            for act in acts {
                self.log.push((self.now.0 / 1_000_000, act));
                let mut more = Vec::new();
                match act {
                    Act::Dial(way) if self.open.contains(&way) => {
                        self.dialing.through(way, self.now());
                        self.dialing.on_time(self.now(), &mut more);
                    }
                    Act::Ask(way) => self.dialing.answered(way, self.now(), &mut more),
                    Act::Dial(way) if self.refuses => {
                        self.dialing.failed(way);
                        self.dialing.on_time(self.now(), &mut more);
                    }
                    Act::Dial(_) | Act::Close(_) => {}
                }
                self.obey(more);
            }
        }

        fn lost(&mut self) {
            self.dialing.lost(Duration::from_millis(20), self.now());
        }
    }

    #[test]
    fn a_network_without_udp_goes_by_tls_and_heals_when_udp_is_back() {
        let mut site = Site::new(&[Way::Tls, Way::WebSocket]);
        site.until(1000);
        assert_eq!(site.dialing.in_use(), Some(Way::Tls));
        assert_eq!(site.log.last(), Some(&(300, Act::Close(Way::Quic4))));
        site.log.clear();
        // Probes in vain, and the link stays where it is.
        site.until(20 * 60_000);
        assert_eq!(site.dialing.in_use(), Some(Way::Tls));
        assert!(site.log.iter().all(|(_, act)| !matches!(act, Act::Dial(Way::Tls | Way::WebSocket))));
        assert!(site.log.iter().filter(|(_, act)| *act == Act::Dial(Way::Quic6)).count() >= 2);
        site.open.push(Way::Quic4);
        site.until(31 * 60_000);
        assert_eq!(site.dialing.in_use(), Some(Way::Quic4));
    }

    #[test]
    fn the_way_that_was_open_goes_first_next_time() {
        let mut site = Site::new(&[Way::Tls]);
        site.until(60_000);
        site.lost();
        site.log.clear();
        site.until(60_100);
        assert_eq!(site.log, [(60_000, Act::Dial(Way::Tls)), (60_000, Act::Ask(Way::Tls))]);
    }

    #[test]
    fn a_carrier_that_dies_young_again_and_again_is_dialed_less_often() {
        let mut site = Site::new(&[Way::Tls]);
        let mut dialed = Vec::new();
        for _ in 0..12 {
            let before = site.now;
            while site.dialing.in_use().is_none() {
                site.until(site.now.0 / 1_000_000 + 10);
            }
            dialed.push(site.now.since(before).as_millis());
            site.lost();
        }
        assert!(dialed.is_sorted() || dialed[1..].is_sorted(), "{dialed:?}");
        assert!((990..=1100).contains(&dialed[11]), "{dialed:?}: half of two seconds");
    }

    #[test]
    fn doubt_races_and_keeps_the_carrier_until_another_answers() {
        let mut site = Site::new(&[Way::Tls]);
        site.until(40_000);
        site.open.clear();
        site.dialing.look_elsewhere(site.now());
        site.until(41_000);
        assert_eq!(site.dialing.in_use(), Some(Way::Tls));
        site.lost();
        site.open.push(Way::WebSocket);
        site.until(50_000);
        assert_eq!(site.dialing.in_use(), Some(Way::WebSocket));
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_and_more() {
        let mut site = Site::new(&[]);
        site.until(0);
        let mut acts = Vec::new();
        site.dialing.refused(Refusal::Busy, Duration::from_secs(20), site.now(), &mut acts);
        assert_eq!(acts, [Act::Close(Way::Quic6)]);
        let wait = site.dialing.deadline().since(site.now);
        assert!((Duration::from_secs(29)..=Duration::from_secs(30)).contains(&wait), "{wait:?}");
        site.dialing.network_changed(NetworkId(2), site.now());
        assert_eq!(site.dialing.deadline(), site.now);
    }

    #[test]
    fn who_is_denied_asks_every_few_minutes_and_never_gives_up() {
        let mut site = Site::new(&[]);
        let mut waits = Vec::new();
        for _ in 0..20 {
            site.until(site.dialing.deadline().0 / 1_000_000 + 1);
            let now = Now { awaited: false, ..site.now() };
            site.dialing.refused(Refusal::Denied, Duration::ZERO, now, &mut Vec::new());
            waits.push(site.dialing.deadline().since(site.now).as_secs());
        }
        assert!(waits.is_sorted() && waits[19] >= 149, "{waits:?}");
    }

    #[test]
    fn a_move_that_is_asked_for_is_spread() {
        let mut site = Site::new(&[Way::Quic6]);
        site.until(1000);
        site.dialing.move_within(Duration::from_secs(10), site.now());
        let moves = site.dialing.deadline().since(site.now);
        assert!((Duration::from_secs(4)..=Duration::from_secs(6)).contains(&moves), "{moves:?}");
    }

    #[test]
    fn a_move_that_is_asked_for_while_it_is_dialed_comes_after_it() {
        let mut site = Site::new(&[Way::Tls]);
        site.until(100);
        assert_eq!(site.dialing.in_use(), None);
        site.dialing.move_within(Duration::from_secs(10), site.now());
        site.until(1000);
        assert_eq!(site.dialing.in_use(), Some(Way::Tls));
        site.log.clear();
        site.until(11_000);
        assert!(site.log.iter().any(|(_, act)| *act == Act::Ask(Way::Tls)), "{:?}", site.log);
        // Once is enough.
        site.log.clear();
        site.until(30_000);
        assert_eq!(site.log, []);
    }

    #[test]
    fn who_is_sent_away_keeps_to_the_time_that_it_was_asked_for() {
        let mut site = Site::new(&[Way::Quic6]);
        site.until(60_000);
        site.dialing.move_within(Duration::from_secs(10), site.now());
        let due = site.dialing.deadline();
        site.until(61_000);
        site.dialing.sent_away(Duration::from_millis(20), site.now());
        assert_eq!((site.dialing.in_use(), site.dialing.deadline()), (None, due));
        // Where nobody was asked, there is nothing to wait for.
        let mut site = Site::new(&[Way::Quic6]);
        site.until(60_000);
        site.dialing.sent_away(Duration::from_millis(20), site.now());
        assert_eq!(site.dialing.deadline(), site.now);
    }

    /// A server with a thousand links is gone for three seconds, and its machine says so: each dials at once,
    /// for it may have been the carrier alone, and then at a time of its own.
    #[test]
    fn a_crowd_that_lost_its_server_comes_back_spread_out() {
        const CROWD: u64 = 1000;
        let (lost, back) = (60_000, 63_000);
        let mut random = fastrand::Rng::with_seed(5);
        let mut returns: Vec<u64> = Vec::new();
        for _ in 0..CROWD {
            let mut site = Site::new(&[Way::Tls]);
            site.dialing = Dialing::new(&[Way::Tls], HOME, Moment(0));
            site.until(lost);
            (site.open, site.refuses, site.awaited) = (Vec::new(), true, false);
            site.lost();
            while site.dialing.in_use().is_none() {
                site.random = random.u64(..);
                if site.dialing.deadline() >= at(back) {
                    site.open = vec![Way::Tls];
                }
                site.until(site.dialing.deadline().0 / 1_000_000 + 1);
            }
            returns.push(site.now.since(at(back)).as_millis() as u64);
        }
        returns.sort_unstable();
        let within = |ms| returns.partition_point(|at| *at < ms) as u64;
        assert!(within(60_000) >= CROWD * 99 / 100, "{:?}", returns.last());
        // In no second more than a part of them.
        let fullest = (0..60).map(|second| within(second * 1000 + 1000) - within(second * 1000)).max();
        assert!(fullest.is_some_and(|most| most < CROWD / 3), "{fullest:?} in a second");
        println!("half within {} ms, all within {:?} ms", returns[500], returns.last());
    }

    #[test]
    fn whoever_has_no_carrier_gets_one_no_later_for_being_asked_to_move() {
        let mut site = Site::new(&[Way::Tls]);
        site.until(1000);
        site.lost();
        let due = site.dialing.deadline();
        site.dialing.move_within(Duration::from_secs(10), site.now());
        assert_eq!(site.dialing.deadline(), due);
    }
}
