//! Back up to the best way while streams run over a lesser one, and what is remembered of networks.

use std::collections::VecDeque;
use std::time::Duration;

use tieline_base::Moment;

use super::backoff::part;
use super::race::Way;

/// The first wait before the best way is tried again: once to twice this.
const PROBE: Duration = Duration::from_secs(300);

/// The longest.
const PROBE_MAX: Duration = Duration::from_secs(7200);

/// Two falls within this are one too many.
const FALLS_WITHIN: Duration = Duration::from_secs(600);

/// When to try the best way again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Healing {
    interval: Duration,
    probe_at: Option<Moment>,
    fell: Option<Moment>,
}

impl Default for Healing {
    fn default() -> Self {
        Self { interval: PROBE, probe_at: None, fell: None }
    }
}

impl Healing {
    /// The link goes over `way` now; before, over `old`.
    pub(super) fn carried(&mut self, old: Option<Way>, way: Way, now: Moment, random: u64) {
        if way.is_best() {
            self.probe_at = None;
            return;
        }
        if old.is_some_and(Way::is_best) {
            let again = self.fell.is_some_and(|before| now.since(before) < FALLS_WITHIN);
            self.interval = if again { (2 * self.interval).min(PROBE_MAX) } else { self.interval };
            self.fell = Some(now);
        }
        self.plan(now, random);
    }

    /// A probe found nothing better.
    pub(super) fn plan(&mut self, now: Moment, random: u64) {
        self.probe_at = Some(now.after(self.interval + part(self.interval, random)));
    }

    /// Another network: what the last one could not says nothing about this one.
    pub(super) fn network_changed(&mut self, now: Moment) {
        self.interval = PROBE;
        self.fell = None;
        self.probe_at = self.probe_at.map(|_| now);
    }

    /// When to try the best way; the end of time where it is in use.
    pub(super) fn deadline(&self) -> Moment {
        self.probe_at.unwrap_or(Moment(u64::MAX))
    }
}

/// How many networks are remembered.
const NETWORKS_MAX: usize = 16;

/// For how long.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// A network, by a hash of its gateway and prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NetworkId(pub u64);

/// Which way was open in which network. A hint, no more.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Memory {
    /// The last learnt last.
    networks: VecDeque<(NetworkId, Way, Moment)>,
}

impl Memory {
    pub(super) fn learn(&mut self, network: NetworkId, way: Way, now: Moment) {
        self.networks.retain(|(known, ..)| *known != network);
        if self.networks.len() == NETWORKS_MAX {
            self.networks.pop_front();
        }
        self.networks.push_back((network, way, now));
    }

    pub(super) fn best(&self, network: NetworkId, now: Moment) -> Option<Way> {
        let (_, way, learnt) = self.networks.iter().find(|(known, ..)| *known == network)?;
        (now.since(*learnt) < REMEMBERED).then_some(*way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    #[test]
    fn the_best_way_is_tried_again_within_ten_minutes() {
        let mut healing = Healing::default();
        healing.carried(None, Way::Tls, at(0), 0);
        assert_eq!(healing.deadline(), at(300));
        healing.plan(at(300), u64::MAX);
        assert!((at(899)..=at(900)).contains(&healing.deadline()));
        healing.carried(Some(Way::Tls), Way::Quic4, at(900), 0);
        assert_eq!(healing.deadline(), Moment(u64::MAX));
    }

    #[test]
    fn who_falls_twice_waits_longer_and_no_longer_than_two_hours() {
        let mut healing = Healing::default();
        healing.carried(Some(Way::Quic6), Way::Tls, at(0), 0);
        healing.carried(Some(Way::Tls), Way::Quic6, at(300), 0);
        healing.carried(Some(Way::Quic6), Way::WebSocket, at(301), 0);
        assert_eq!(healing.deadline(), at(301 + 600));
        for _ in 0..20 {
            healing.carried(Some(Way::Quic6), Way::Tls, at(302), 0);
        }
        assert_eq!(healing.deadline(), at(302 + 7200));
        // Two falls that are far apart are two misfortunes.
        let mut healing = Healing::default();
        healing.carried(Some(Way::Quic6), Way::Tls, at(0), 0);
        healing.carried(Some(Way::Quic6), Way::Tls, at(601), 0);
        assert_eq!(healing.deadline(), at(901));
    }

    #[test]
    fn another_network_is_tried_at_once() {
        let mut healing = Healing::default();
        healing.carried(None, Way::WebSocket, at(0), 0);
        healing.network_changed(at(5));
        assert_eq!(healing.deadline(), at(5));
        let mut best = Healing::default();
        best.network_changed(at(5));
        assert_eq!(best.deadline(), Moment(u64::MAX));
    }

    #[test]
    fn networks_are_remembered_for_a_day_and_only_so_many() {
        let mut memory = Memory::default();
        for network in 0..20 {
            memory.learn(NetworkId(network), Way::Tls, at(network));
        }
        memory.learn(NetworkId(10), Way::Quic4, at(20));
        assert_eq!(memory.best(NetworkId(3), at(30)), None);
        assert_eq!(memory.best(NetworkId(10), at(30)), Some(Way::Quic4));
        assert_eq!(memory.best(NetworkId(10), at(20 + 24 * 3600)), None);
        assert_eq!(memory.networks.len(), NETWORKS_MAX);
    }
}
