//! What the server keeps of an agent that has joined: which of its certificates are good, and which were.
//!
//! Owns the rules alone: the folder is the store's, the clock the caller's.

use serde::{Deserialize, Serialize};
use tieline_base::Labels;

/// One agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Known {
    /// What is good, the newest first. There are two from a renewal until the newer one is used: the answer
    /// that bore it may be lost.
    good: Vec<Good>,
    /// What was good since it joined, the newest last.
    past: Vec<Past>,
    /// What it is labelled with.
    #[serde(with = "as_text")]
    pub labels: Labels,
    /// Since when it is locked out, for somebody has a copy of its key.
    locked: Option<u64>,
}

/// A certificate that is good. Times are in seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Good {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// When it was issued.
    pub since: u64,
    /// Nobody links up by it after that.
    pub until: u64,
}

/// A certificate that gave way to another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Past {
    serial: String,
    since: u64,
}

/// What a certificate that somebody shows is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its holder may link up.
    Good,
    /// It is over, and may be renewed for some days: its holder was away.
    Expired,
    /// It gave way to another a moment ago, as one does that was under way.
    Stale,
    /// It gave way to another long ago, and whoever has that one would not show it: two have the key.
    Copied,
    /// Two had the key, and neither may link up until it joins anew.
    Locked,
    /// It is none of ours, or was revoked.
    Unknown,
}

/// For so long after its end a certificate can be renewed.
pub(crate) const GRACE_SECONDS: u64 = 7 * 86_400;

/// A certificate that gave way to another may still come in by a connection that was begun before.
const STALE_SECONDS: u64 = 60;

/// So many that gave way are remembered: more than run out in the time that one is good and can be renewed.
const PAST_MAX: usize = 24;

impl Known {
    /// An agent that joins by its first certificate.
    pub(crate) fn joined(first: Good, labels: Labels) -> Known {
        Known { good: vec![first], past: Vec::new(), labels, locked: None }
    }

    /// What the certificate `serial` is worth.
    pub fn standing(&self, serial: &str, now: u64) -> Standing {
        if self.locked.is_some() {
            return Standing::Locked;
        }
        if let Some(good) = self.good.iter().find(|good| good.serial == serial) {
            return match now {
                now if now <= good.until => Standing::Good,
                now if now <= good.until.saturating_add(GRACE_SECONDS) => Standing::Expired,
                _ => Standing::Unknown,
            };
        }
        match self.past.iter().find(|past| past.serial == serial) {
            Some(past) if now <= past.since.saturating_add(STALE_SECONDS) => Standing::Stale,
            Some(_) => Standing::Copied,
            None => Standing::Unknown,
        }
    }

    /// The newest certificate.
    pub fn newest(&self) -> Option<&Good> {
        self.good.first()
    }

    /// Whether it is locked out.
    pub fn is_locked(&self) -> bool {
        self.locked.is_some()
    }

    /// `next` was issued to the holder of `shown`; whether that was worth it. All but these two are past: one
    /// that was issued in between was never used, and whoever shows it has a key that the other has not.
    pub(crate) fn renew(&mut self, shown: &str, next: Good, now: u64) -> bool {
        let worth = matches!(self.standing(shown, now), Standing::Good | Standing::Expired);
        if worth {
            self.retire(|good| good.serial != shown, now);
            self.good.insert(0, next);
        }
        worth
    }

    /// The agent has shown `serial`: what it was renewed by is past. Whether anything changed.
    pub(crate) fn used(&mut self, serial: &str, now: u64) -> bool {
        let newest = self.good.len() > 1 && self.good[0].serial == serial && self.locked.is_none();
        if newest {
            self.retire(|good| good.serial != serial, now);
        }
        newest
    }

    /// Neither holder of the key may link up; whether that is news.
    pub(crate) fn lock(&mut self, now: u64) -> bool {
        self.locked.replace(self.locked.unwrap_or(now)).is_none()
    }

    fn retire(&mut self, which: impl Fn(&Good) -> bool, now: u64) {
        let gone = self.good.extract_if(.., |good| which(good));
        self.past.extend(gone.map(|good| Past { serial: good.serial, since: now }));
        self.past.drain(..self.past.len().saturating_sub(PAST_MAX));
    }
}

/// Labels as their text.
pub(crate) mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use tieline_base::Labels;

    pub(crate) fn serialize<S: Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(labels)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn good(serial: &str, since: u64) -> Good {
        Good { serial: serial.into(), since, until: since + DAY }
    }

    fn known() -> Known {
        Known::joined(good("01", 0), Labels::default())
    }

    #[test]
    fn a_certificate_is_good_until_its_successor_is_used() {
        let mut known = known();
        assert!(known.renew("01", good("02", 100), 100));
        for serial in ["01", "02"] {
            assert_eq!(known.standing(serial, 100), Standing::Good);
        }
        assert!(!known.used("01", 101), "the old one goes on meanwhile");
        assert!(known.used("02", 101) && !known.used("02", 102));
        assert_eq!(known.standing("01", 101), Standing::Stale);
        assert_eq!(known.standing("01", 1_000), Standing::Copied);
        assert_eq!(known.standing("02", 1_000), Standing::Good);
    }

    #[test]
    fn however_many_answers_are_lost_what_it_renews_by_stays_good() {
        let mut known = known();
        for (at, lost) in [(10, "02"), (20, "03"), (30, "04")] {
            assert!(known.renew("01", good(lost, at), at));
            assert_eq!(known.standing("01", at), Standing::Good);
        }
        // One of those was not lost, then, but went to somebody else.
        assert_eq!(known.standing("03", 1_000), Standing::Copied);
        assert_eq!(known.standing("04", 1_000), Standing::Good);
    }

    #[test]
    fn who_was_away_may_renew_for_a_week_and_nothing_else() {
        let mut known = known();
        assert_eq!(known.standing("01", DAY), Standing::Good);
        assert_eq!(known.standing("01", DAY + 1), Standing::Expired);
        assert_eq!(known.standing("01", 8 * DAY), Standing::Expired);
        assert_eq!(known.standing("01", 8 * DAY + 1), Standing::Unknown);
        assert!(!known.renew("01", good("02", 9 * DAY), 9 * DAY));
        assert!(known.renew("01", good("02", 5 * DAY), 5 * DAY));
        assert_eq!(known.standing("02", 5 * DAY), Standing::Good);
    }

    #[test]
    fn who_is_locked_out_stays_so_until_it_joins_anew() {
        let mut known = known();
        assert!(known.lock(5) && !known.lock(6));
        assert_eq!(known.standing("01", 7), Standing::Locked);
        assert!(!known.renew("01", good("02", 8), 8) && !known.used("01", 9));
        assert_eq!(Known::joined(good("03", 10), Labels::default()).standing("03", 10), Standing::Good);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = known();
        for at in 1..200 {
            let (shown, next) = (format!("{at:02}"), format!("{:02}", at + 1));
            assert!(known.renew(&shown, good(&next, at), at) && known.used(&next, at));
        }
        assert_eq!((known.good.len(), known.past.len()), (1, PAST_MAX));
    }
}
