//! Whom a place counts for: what is scarce goes to whoever holds least of it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A user, by a number that whoever asks for places has given to that user and to no other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Share(u16);

impl Share {
    /// Nobody's: such asks are served in their order alone.
    pub const NOBODY: Share = Share(0);

    /// That of the user with this number; 0 is [`Share::NOBODY`]'s.
    pub const fn of(number: u16) -> Share {
        Share(number)
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Share {
        Share(bits as u16)
    }

    pub(crate) fn bits(self) -> u64 {
        u64::from(self.0)
    }
}

/// What is due to a share where places are scarce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// What it gets of the places beside the weights of others who want more; 1 to 1000.
    pub weight: u32,
    /// So many places nobody else may take.
    pub floor: u32,
    /// It has no more at once; `None`: no limit of its own.
    pub cap: Option<u32>,
}

impl Default for Due {
    /// As much as anybody.
    fn default() -> Self {
        Due { weight: 1, floor: 0, cap: None }
    }
}

/// What is due to whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dues {
    /// To these. Of a share that is named twice, the last counts.
    pub named: Vec<(Share, Due)>,
    /// To each other one. It has no floor, as nobody knows how many there will be.
    pub others: Due,
}

impl Dues {
    /// Whether all are alike.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Dues::default()
    }

    pub(crate) fn of(&self, share: Share) -> Due {
        let named = self.named.iter().rev().find(|(other, _)| *other == share);
        named.map_or(Due { floor: 0, ..self.others }, |(_, due)| *due)
    }
}

type ByShare<T> = HashMap<u16, T, BuildHasherDefault<Itself>>;

/// How many places everybody holds, and what is due to them.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    held: ByShare<u32>,
    /// `None`: all are alike.
    dues: Option<Box<Books>>,
}

/// What is due, with what follows from it.
#[derive(Debug)]
struct Books {
    named: ByShare<Due>,
    others: Due,
    /// How many places are kept for those who hold less than their floors.
    kept: u32,
}

impl Books {
    fn of(&self, share: Share) -> Due {
        match share {
            Share::NOBODY => Due::default(),
            share => self.named.get(&share.0).copied().unwrap_or(self.others),
        }
    }
}

impl Shares {
    pub(crate) fn of(&self, share: Share) -> u32 {
        self.held.get(&share.0).copied().unwrap_or_default()
    }

    /// From now on that is due. Places that are taken are not taken away.
    pub(crate) fn owe(&mut self, dues: &Dues) {
        if dues.is_nothing() {
            self.dues = None;
            return;
        }
        let named: ByShare<Due> = dues.named.iter().map(|(share, _)| (share.0, dues.of(*share))).collect();
        let lacks = |(share, due): (&u16, &Due)| due.floor.saturating_sub(self.of(Share(*share)));
        let kept = named.iter().map(lacks).sum();
        self.dues = Some(Box::new(Books { named, others: Due { floor: 0, ..dues.others }, kept }));
    }

    /// Whether something is due to some that is not due to all.
    pub(crate) fn is_uneven(&self) -> bool {
        self.dues.is_some()
    }

    /// Whether `share` may have one more place, where so many are free.
    pub(crate) fn may_have(&self, share: Share, free: u32) -> bool {
        let Some(books) = &self.dues else { return true };
        let (held, due) = (self.of(share), books.of(share));
        // What it lacks of its own floor is kept for it.
        let for_others = books.kept - due.floor.saturating_sub(held).min(books.kept);
        due.cap.is_none_or(|cap| held < cap) && free > for_others
    }

    /// The cap of `share`, if it is what keeps it from another place.
    pub(crate) fn cap_of(&self, share: Share) -> Option<u32> {
        let cap = self.dues.as_ref()?.of(share).cap?;
        (self.of(share) >= cap).then_some(cap)
    }

    /// How well `share` would be served by one more place: whoever is served least is next.
    pub(crate) fn level(&self, share: Share) -> u64 {
        let held = u64::from(self.of(share));
        match &self.dues {
            None => held,
            Some(books) => ((held + 1) << 20) / u64::from(books.of(share).weight.max(1)),
        }
    }

    pub(crate) fn enter(&mut self, share: Share) {
        if share == Share::NOBODY {
            return;
        }
        let held = self.held.entry(share.0).or_default();
        *held += 1;
        if let Some(books) = &mut self.dues
            && *held <= books.of(share).floor
        {
            books.kept = books.kept.saturating_sub(1);
        }
    }

    /// One that was lent before places were counted is none of them.
    pub(crate) fn leave(&mut self, share: Share) {
        let Some(held) = self.held.get_mut(&share.0) else { return };
        *held -= 1;
        let left = *held;
        if left == 0 {
            self.held.remove(&share.0);
        }
        if let Some(books) = &mut self.dues
            && left < books.of(share).floor
        {
            books.kept += 1;
        }
    }

    /// Whoever holds most, and how many.
    pub(crate) fn most(&self) -> Option<(Share, u32)> {
        self.held.iter().map(|(share, held)| (Share(*share), *held)).max_by_key(|(_, held)| *held)
    }
}

/// Numbers are given in their order, and need no spreading.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u16(&mut self, share: u16) {
        // The table goes by the lowest bits and by the highest.
        self.0 = u64::from(share) | u64::from(share) << 48;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_by_share() {
        let (one, other) = (Share::of(1), Share::of(2));
        assert_ne!(one, other);
        let mut shares = Shares::default();
        [one, other, one, Share::NOBODY].into_iter().for_each(|share| shares.enter(share));
        assert_eq!((shares.of(one), shares.of(other), shares.of(Share::NOBODY)), (2, 1, 0));
        assert_eq!(shares.most(), Some((one, 2)));
        [one, one, other, other].into_iter().for_each(|share| shares.leave(share));
        assert_eq!((shares.most(), shares.held.len()), (None, 0));
    }

    #[test]
    fn places_are_kept_for_whoever_has_less_than_its_floor() {
        let (quiet, loud) = (Share::of(1), Share::of(2));
        let mut shares = Shares::default();
        let named = vec![(quiet, Due { floor: 2, ..Due::default() })];
        shares.owe(&Dues { named: named.clone(), others: Due { cap: Some(5), ..Due::default() } });
        assert_eq!([2, 3].map(|free| shares.may_have(loud, free)), [false, true]);
        assert!(shares.may_have(quiet, 1));
        shares.enter(quiet);
        assert_eq!([1, 2].map(|free| shares.may_have(loud, free)), [false, true]);
        shares.enter(quiet);
        shares.enter(quiet);
        assert!(shares.may_have(loud, 1) && !shares.may_have(loud, 0));
        shares.leave(quiet);
        assert!(shares.may_have(loud, 1));
        shares.leave(quiet);
        assert!(!shares.may_have(loud, 1));
        (0..5).for_each(|_| shares.enter(loud));
        assert_eq!(
            (shares.may_have(loud, 9), shares.cap_of(loud), shares.cap_of(quiet)),
            (false, Some(5), None)
        );
        // What is due is counted anew, by what is held.
        shares.owe(&Dues::default());
        shares.owe(&Dues { named, others: Due::default() });
        assert_eq!([1, 2].map(|free| shares.may_have(loud, free)), [false, true]);
    }
}
