//! What the servers of an upstream are to each other, from what each says of itself. Pure: no sockets, no
//! clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tieline_base::Moment;
use tieline_pool::{Fit, Purpose, Said};

/// Leases that may write.
pub(crate) const WRITES: Purpose = Purpose::new(1);
/// Leases that only read, from a copy of the data.
pub(crate) const READS: Purpose = Purpose::new(2);

/// What a server may be used as, whatever it is found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allowed {
    /// As what it is.
    #[default]
    Either,
    /// As the primary alone.
    Primary,
    /// As a replica alone.
    Replica,
}

/// How far behind replicas may be that serve reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaxLag {
    /// How old their data may be.
    pub time: Duration,
    /// How much of the primary's log they may lack, in bytes.
    pub bytes: u64,
}

/// What a server said of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sight {
    pub(crate) state: State,
    pub(crate) origin: Origin,
}

/// What a server is just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It takes writes.
    Primary {
        /// Each promotion begins a higher one.
        timeline: u32,
        /// How far its log goes, in bytes.
        end: u64,
    },
    /// It follows a primary.
    Replica {
        /// How far it has come in its log, in bytes.
        replayed: u64,
    },
}

/// Which server it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Origin {
    /// What all copies of the same data have in common; timelines of others say nothing.
    pub(crate) system: u64,
    /// When it was started, in microseconds: of two endpoints that are one server the same.
    pub(crate) started: u64,
}

/// What a server is good for, by all that was seen.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Verdict {
    pub(crate) fit: Fit,
    pub(crate) said: Said,
    /// It has all that was written before, if that is known.
    pub(crate) caught_up: Option<Moment>,
    /// It takes writes, and another server has taken its place: nothing may be asked of it.
    pub(crate) is_superseded: bool,
}

/// All servers of an upstream, by the keys of their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    members: BTreeMap<u64, Member>,
    /// When the primary was asked, and how far its log went then; the newest last.
    samples: VecDeque<(Moment, u64)>,
    /// Whose log that is: the system, and the timeline.
    log: (u64, u32),
    /// How many servers were found to take writes so far.
    promotions: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    sight: Option<Sight>,
    /// The last question had no answer.
    is_silent: bool,
    /// How far behind it was when it was asked last; `None` if there was no primary to compare it with, and
    /// [`Duration::MAX`] if it has not come to where the primary was when it was first asked.
    lag: Option<Duration>,
    /// It has all that was written before, if that is known.
    caught_up: Option<Moment>,
    /// Which one of all it was to take writes on its timeline: of two the first one is believed.
    promotion: u64,
}

impl Member {
    /// As what it takes writes: its system and its timeline.
    fn writes(&self) -> Option<(Origin, u32)> {
        match self.sight {
            Some(Sight { state: State::Primary { timeline, .. }, origin }) => Some((origin, timeline)),
            _ => None,
        }
    }
}

/// So many samples are kept: when there are more, every second one of the older half goes.
const SAMPLES_MAX: usize = 128;

impl Roles {
    /// The server `key`, asked at `began`, has said so, or nothing at all.
    pub(crate) fn saw(&mut self, key: u64, began: Moment, sight: Option<Sight>) {
        let Some(sight) = sight else {
            self.members.entry(key).or_default().is_silent = true;
            return;
        };
        let mut member = self.members.get(&key).copied().unwrap_or_default();
        match sight.state {
            State::Primary { timeline, .. } => {
                let as_before = member.writes().is_some_and(|(origin, before)| {
                    (origin.system, before) == (sight.origin.system, timeline)
                });
                if !as_before {
                    self.promotions += 1;
                    member.promotion = self.promotions;
                }
                (member.lag, member.caught_up) = (None, Some(began));
            }
            State::Replica { replayed } => {
                let is_copy = self.log.0 == sight.origin.system;
                member.lag = self.lag(replayed).filter(|_| is_copy);
                member.caught_up = self.caught_up(replayed).filter(|_| is_copy);
            }
        }
        (member.sight, member.is_silent) = (Some(sight), false);
        self.members.insert(key, member);
        if let State::Primary { timeline, end } = sight.state
            && self.is_believed(&member)
        {
            self.sample(began, (sight.origin.system, timeline), end);
        }
    }

    /// Forgets all servers but those of `keys`.
    pub(crate) fn keep(&mut self, keys: &[u64]) {
        self.members.retain(|key, _| keys.contains(key));
    }

    /// What the server `key` is good for, where replicas may be behind by `max_lag`.
    pub(crate) fn verdict(&self, key: u64, allowed: Allowed, max_lag: MaxLag) -> Verdict {
        let member = self.members.get(&key).copied().unwrap_or_default();
        let (mut said, mut fit) = (Said::default(), vec![Purpose::USUAL]);
        match member.sight.map(|sight| sight.state) {
            Some(State::Primary { .. }) if !self.is_believed(&member) => {
                said.role = Some("superseded");
                return Verdict { fit: Fit::NONE, said, caught_up: None, is_superseded: true };
            }
            // Whoever does not answer just now may be restarting: nobody else has taken its place.
            Some(State::Primary { .. }) => {
                said.role = Some("primary");
                fit.push(if allowed == Allowed::Replica { READS } else { WRITES });
            }
            Some(State::Replica { replayed }) => {
                said.role = Some("replica");
                said.lag = member.lag.filter(|lag| *lag != Duration::MAX);
                let lacks = self.samples.back().map_or(0, |(_, end)| end.saturating_sub(replayed));
                let near = member.lag.is_none_or(|lag| lag <= max_lag.time && lacks <= max_lag.bytes);
                if near && !member.is_silent && allowed != Allowed::Primary {
                    fit.push(READS);
                }
            }
            None => {}
        }
        Verdict { fit: Fit::of(fit), said, caught_up: member.caught_up, is_superseded: false }
    }

    /// Whether a primary answers.
    pub(crate) fn has_primary(&self) -> bool {
        let writes = |member: &&Member| member.writes().is_some() && self.is_believed(member);
        self.members.values().filter(writes).any(|member| !member.is_silent)
    }

    /// Whether nobody has taken the place of `member`, which takes writes: no other server of the same data
    /// is on a higher timeline, or was first on the same.
    fn is_believed(&self, member: &Member) -> bool {
        let Some((origin, timeline)) = member.writes() else { return true };
        let replaces = |other: &Member| {
            other.writes().is_some_and(|(its, higher)| {
                let as_high = (higher, std::cmp::Reverse(other.promotion));
                its.system == origin.system
                    && its.started != origin.started
                    && as_high > (timeline, std::cmp::Reverse(member.promotion))
            })
        };
        !self.members.values().any(replaces)
    }

    fn sample(&mut self, began: Moment, log: (u64, u32), end: u64) {
        if self.log != log {
            self.log = log;
            self.samples.clear();
        }
        if self.samples.back().is_some_and(|(last, _)| *last >= began) {
            return;
        }
        self.samples.push_back((began, page_end(end)));
        if self.samples.len() > SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index > SAMPLES_MAX / 2 || index % 2 == 0
            });
        }
    }

    /// How old the data of a server is that has come so far. Measured on our clock, and while the primary
    /// does not answer it stands still: nothing new is known to be missing then.
    fn lag(&self, replayed: u64) -> Option<Duration> {
        let (last, end) = *self.samples.back()?;
        if replayed >= end {
            return Some(Duration::ZERO);
        }
        Some(self.caught_up(replayed).map_or(Duration::MAX, |at| last.since(at)))
    }

    /// When the primary was asked last how far its log goes and had not gone further than that: whatever was
    /// written before is there.
    fn caught_up(&self, replayed: u64) -> Option<Moment> {
        self.samples.iter().rev().find(|(_, end)| *end <= replayed).map(|(at, _)| *at)
    }
}

/// The place behind the last record before `end`: where a page is full, the log "ends" behind the header of
/// the next one, which no replica ever reaches before there is a record in it.
fn page_end(end: u64) -> u64 {
    const PAGE: u64 = 8_192;
    // The headers of a page and of a segment's first page.
    match end % PAGE {
        header @ (24 | 40) => end - header,
        _ => end,
    }
}

/// Reads a place in the log, as `16/B374D848`.
pub(crate) fn lsn(text: &[u8]) -> Option<u64> {
    let (high, low) = std::str::from_utf8(text).ok()?.split_once('/')?;
    let part = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_LAG: MaxLag = MaxLag { time: Duration::from_secs(5), bytes: u64::MAX };

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(1_000 + seconds))
    }

    /// Of whatever is seen here each endpoint is a server of its own, unless it is said otherwise.
    fn primary(timeline: u32, end: u64) -> Option<Sight> {
        Some(Sight { state: State::Primary { timeline, end }, origin: Origin::default() })
    }

    fn replica(replayed: u64) -> Option<Sight> {
        Some(Sight { state: State::Replica { replayed }, origin: Origin::default() })
    }

    /// The same, of that system.
    fn of(system: u64, sight: Option<Sight>) -> Option<Sight> {
        sight.map(|sight| Sight { origin: Origin { system, ..sight.origin }, ..sight })
    }

    fn saw(roles: &mut Roles, key: u64, began: Moment, sight: Option<Sight>) {
        let own = |sight: Sight| Sight { origin: Origin { started: key, ..sight.origin }, ..sight };
        roles.saw(key, began, sight.map(own));
    }

    fn fit(roles: &Roles, key: u64) -> (bool, bool) {
        let Verdict { fit, .. } = roles.verdict(key, Allowed::Either, MAX_LAG);
        (fit.has(WRITES), fit.has(READS))
    }

    #[test]
    fn each_is_what_it_says() {
        let mut roles = Roles::default();
        assert_eq!(fit(&roles, 1), (false, false));
        saw(&mut roles, 1, at(0), primary(1, 100));
        saw(&mut roles, 2, at(0), replica(100));
        assert_eq!((fit(&roles, 1), fit(&roles, 2)), ((true, false), (false, true)));
        let verdict = |key, allowed| roles.verdict(key, allowed, MAX_LAG).fit;
        assert!(!verdict(1, Allowed::Replica).has(WRITES));
        assert!(!verdict(2, Allowed::Primary).has(READS));
    }

    #[test]
    fn the_higher_timeline_wins_and_the_lower_one_is_asked_nothing() {
        let mut roles = Roles::default();
        saw(&mut roles, 1, at(0), primary(1, 100));
        saw(&mut roles, 2, at(0), replica(100));
        saw(&mut roles, 1, at(1), None);
        assert_eq!(fit(&roles, 1), (true, false), "it may be restarting");
        assert!(!roles.has_primary());
        saw(&mut roles, 2, at(2), primary(2, 100));
        assert!(roles.has_primary());
        assert_eq!((fit(&roles, 1), fit(&roles, 2)), ((false, false), (true, false)));
        saw(&mut roles, 1, at(3), primary(1, 500));
        let old = roles.verdict(1, Allowed::Either, MAX_LAG);
        assert!(old.is_superseded && !old.fit.has(Purpose::USUAL));
        saw(&mut roles, 1, at(4), replica(100));
        assert_eq!(fit(&roles, 1), (false, true));
    }

    #[test]
    fn who_is_too_far_behind_or_silent_serves_no_reads() {
        let mut roles = Roles::default();
        for second in 0..10 {
            saw(&mut roles, 1, at(second), primary(1, 1_000 + second));
        }
        saw(&mut roles, 2, at(10), replica(1_005));
        assert_eq!(roles.verdict(2, Allowed::Either, MAX_LAG).said.lag, Some(Duration::from_secs(4)));
        assert!(fit(&roles, 2).1);
        saw(&mut roles, 2, at(10), replica(1_003));
        assert!(!fit(&roles, 2).1);
        saw(&mut roles, 2, at(10), replica(9));
        assert_eq!(roles.verdict(2, Allowed::Either, MAX_LAG).said.lag, None);
        saw(&mut roles, 2, at(10), replica(2_000));
        assert!(fit(&roles, 2).1);
        saw(&mut roles, 2, at(11), None);
        assert!(!fit(&roles, 2).1);
    }

    #[test]
    fn who_lacks_too_much_of_the_log_serves_no_reads() {
        let mut roles = Roles::default();
        saw(&mut roles, 1, at(0), primary(1, 1_000));
        for (replayed, reads) in [(900, true), (899, false), (1_000, true)] {
            saw(&mut roles, 2, at(0), replica(replayed));
            let max_lag = MaxLag { time: Duration::MAX, bytes: 100 };
            assert_eq!(roles.verdict(2, Allowed::Either, max_lag).fit.has(READS), reads, "{replayed}");
        }
    }

    #[test]
    fn a_replica_has_what_was_written_before_the_primary_was_asked_that_far() {
        let mut roles = Roles::default();
        for second in 0..4 {
            saw(&mut roles, 1, at(second), primary(1, 1_000 + second));
        }
        for (replayed, caught_up) in
            [(999, None), (1_000, Some(at(0))), (1_002, Some(at(2))), (9_999, Some(at(3)))]
        {
            saw(&mut roles, 2, at(9), replica(replayed));
            assert_eq!(roles.verdict(2, Allowed::Either, MAX_LAG).caught_up, caught_up, "{replayed}");
        }
        // On another timeline nothing that was known of the log counts.
        saw(&mut roles, 1, at(10), primary(2, 50));
        saw(&mut roles, 2, at(11), replica(49));
        assert_eq!(roles.verdict(2, Allowed::Either, MAX_LAG).caught_up, None);
    }

    #[test]
    fn places_in_the_log_are_read() {
        assert_eq!(lsn(b"16/B374D848"), Some(0x16_b374_d848));
        assert_eq!((lsn(b"16"), lsn(b"/"), lsn(b"1/x")), (None, None, None));
        assert_eq!((page_end(8_192 + 24), page_end(8_192 + 40), page_end(8_192 + 80)), (8_192, 8_192, 8_272));
    }

    #[test]
    fn of_two_on_one_timeline_the_first_is_believed() {
        let mut roles = Roles::default();
        saw(&mut roles, 1, at(0), primary(2, 100));
        saw(&mut roles, 2, at(0), primary(2, 100));
        assert_eq!((fit(&roles, 1), fit(&roles, 2)), ((true, false), (false, false)));
        saw(&mut roles, 1, at(1), None);
        assert_eq!(fit(&roles, 2), (false, false), "the first may be restarting");
        saw(&mut roles, 1, at(2), replica(100));
        assert_eq!(fit(&roles, 2), (true, false));
        // Two endpoints may be one server.
        roles.saw(
            3,
            at(3),
            Some(Sight { origin: Origin { system: 0, started: 2 }, ..primary(2, 100).unwrap() }),
        );
        assert_eq!((fit(&roles, 2), fit(&roles, 3)), ((true, false), (true, false)));
    }

    #[test]
    fn other_data_begins_its_own_timelines() {
        let mut roles = Roles::default();
        saw(&mut roles, 1, at(0), of(7, primary(5, 100)));
        saw(&mut roles, 2, at(0), of(7, replica(100)));
        // Upgraded: it is another system, and its first timeline.
        saw(&mut roles, 1, at(1), of(8, primary(1, 50)));
        assert_eq!(fit(&roles, 1), (true, false));
        saw(&mut roles, 2, at(2), of(8, replica(50)));
        assert_eq!(
            (fit(&roles, 2).1, roles.verdict(2, Allowed::Either, MAX_LAG).caught_up),
            (true, Some(at(1)))
        );
    }

    #[test]
    fn a_server_that_is_gone_from_the_config_supersedes_nobody() {
        let mut roles = Roles::default();
        saw(&mut roles, 1, at(0), primary(1, 100));
        saw(&mut roles, 2, at(1), primary(2, 100));
        assert_eq!(fit(&roles, 1), (false, false));
        roles.keep(&[1]);
        saw(&mut roles, 1, at(2), primary(1, 200));
        assert_eq!(fit(&roles, 1), (true, false));
    }

    proptest! {
        /// Whatever is seen: at most one server takes writes, and none that does is on a higher timeline.
        #[test]
        fn one_server_takes_writes(
            sights in prop::collection::vec((0u64..4, 0u8..3, 1u32..5, 0u64..99_999), 1..300),
        ) {
            let (mut roles, mut last) = (Roles::default(), BTreeMap::new());
            for (second, (key, kind, timeline, place)) in (0..).zip(sights) {
                let sight = match kind {
                    0 => primary(timeline, place),
                    1 => replica(place),
                    _ => None,
                };
                saw(&mut roles, key, at(second), sight);
                if let Some(sight) = sight {
                    last.insert(key, sight);
                }
                prop_assert!(roles.samples.len() <= SAMPLES_MAX);
                let timelines = last.iter().filter_map(|(key, sight)| match sight.state {
                    State::Primary { timeline, .. } => Some((*key, timeline)),
                    State::Replica { .. } => None,
                });
                let highest = timelines.clone().map(|(_, timeline)| timeline).max();
                let writing: Vec<_> = timelines.filter(|(key, _)| fit(&roles, *key).0).collect();
                prop_assert_eq!(writing.len(), usize::from(highest.is_some()));
                prop_assert!(writing.iter().all(|(_, timeline)| Some(*timeline) == highest));
            }
        }
    }
}
