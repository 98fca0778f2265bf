//! From a name's addresses to endpoints: an IPv6 and an IPv4 address make one, and the first to answer wins.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of one endpoint that a name stands for: one of each family, or a surplus one alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Pair {
    /// Both families, IPv6 first (RFC 8305 §4).
    Both(Ipv6Addr, Ipv4Addr),
    /// One address alone.
    One(IpAddr),
}

impl Pair {
    /// The addresses, in the order of dialing.
    pub(crate) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let (first, second) = match self {
            Pair::Both(v6, v4) => (IpAddr::V6(v6), Some(IpAddr::V4(v4))),
            Pair::One(address) => (address, None),
        };
        std::iter::once(first).chain(second)
    }
}

/// Pairs a name's addresses. What was paired `before` and is still there stays paired, so that one address
/// which comes or goes does not disturb the endpoints made of the others; the rest is paired in numeric
/// order, since the order of an answer means nothing (RFC 1035 servers rotate it).
pub(crate) fn pair(before: &[Pair], v6: &[Ipv6Addr], v4: &[Ipv4Addr]) -> Vec<Pair> {
    let mut v6: BTreeSet<Ipv6Addr> = v6.iter().copied().collect();
    let mut v4: BTreeSet<Ipv4Addr> = v4.iter().copied().collect();
    let mut pairs = Vec::new();
    for old in before {
        if let Pair::Both(six, four) = old
            && v6.contains(six)
            && v4.contains(four)
        {
            v6.remove(six);
            v4.remove(four);
            pairs.push(*old);
        }
    }
    // An endpoint that lives with one address alone keeps it alone while the others suffice to pair.
    let (alone6, free6): (Vec<_>, Vec<_>) =
        v6.into_iter().partition(|six| before.contains(&Pair::One(IpAddr::V6(*six))));
    let (alone4, free4): (Vec<_>, Vec<_>) =
        v4.into_iter().partition(|four| before.contains(&Pair::One(IpAddr::V4(*four))));
    let mut six = free6.into_iter().chain(alone6);
    let mut four = free4.into_iter().chain(alone4);
    loop {
        match (six.next(), four.next()) {
            (Some(six), Some(four)) => pairs.push(Pair::Both(six, four)),
            (Some(six), None) => pairs.push(Pair::One(six.into())),
            (None, Some(four)) => pairs.push(Pair::One(four.into())),
            (None, None) => return pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v6(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
    }

    fn v4(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn the_surplus_stands_alone() {
        let pairs = pair(&[], &[v6(2), v6(1)], &[v4(9)]);
        assert_eq!(pairs, [Pair::Both(v6(1), v4(9)), Pair::One(v6(2).into())]);
    }

    #[test]
    fn an_address_that_leaves_disturbs_no_other_pair() {
        let before = pair(&[], &[v6(1), v6(2), v6(3)], &[v4(1), v4(2), v4(3)]);
        let after = pair(&before, &[v6(1), v6(2), v6(3)], &[v4(3), v4(1)]);
        assert!(after.contains(&Pair::Both(v6(1), v4(1))) && after.contains(&Pair::Both(v6(3), v4(3))));
        assert!(after.contains(&Pair::One(v6(2).into())));
    }

    proptest! {
        /// Every address is used once, pairs are as many as can be, and the same answer in another order
        /// changes nothing.
        #[test]
        fn pairing_is_complete_and_stable(
            six in prop::collection::btree_set(0u16..12, 0..8),
            four in prop::collection::btree_set(0u8..12, 0..8),
            six_later in prop::collection::btree_set(0u16..12, 0..8),
            four_later in prop::collection::btree_set(0u8..12, 0..8),
        ) {
            let v6s = |set: &BTreeSet<u16>| set.iter().map(|n| v6(*n)).collect::<Vec<_>>();
            let v4s = |set: &BTreeSet<u8>| set.iter().map(|n| v4(*n)).collect::<Vec<_>>();
            let before = pair(&[], &v6s(&six), &v4s(&four));
            let after = pair(&before, &v6s(&six_later), &v4s(&four_later));
            let mut used: Vec<IpAddr> = after.iter().flat_map(|pair| pair.addresses()).collect();
            used.sort();
            let mut all: Vec<IpAddr> = v6s(&six_later).into_iter().map(IpAddr::V6).collect();
            all.extend(v4s(&four_later).into_iter().map(IpAddr::V4));
            all.sort();
            prop_assert_eq!(used, all);
            prop_assert_eq!(after.len(), six_later.len().max(four_later.len()));
            let reversed: Vec<_> = v6s(&six_later).into_iter().rev().collect();
            let mut again = pair(&after, &reversed, &v4s(&four_later));
            again.sort();
            let mut sorted = after.clone();
            sorted.sort();
            prop_assert_eq!(again, sorted);
        }
    }
}
