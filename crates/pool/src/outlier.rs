//! Passive health: an endpoint whose leases keep failing rests for a while.
//!
//! After Envoy's outlier detection: consecutive failures, a rest that grows with each ejection, and a limit
//! to how many rest at once, since a fault that all share is not theirs.

use std::num::NonZeroU32;
use std::time::Duration;

use tieline_base::{Moment, Percent};

/// No rest is longer, unless `base` itself is.
const REST_MAX: Duration = Duration::from_secs(300);

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutlierSettings {
    /// Failures in a row that eject it.
    pub consecutive: NonZeroU32,
    /// The first rest; the n-th is n times as long, up to 5 minutes.
    pub base: Duration,
    /// How many of the endpoints may rest at once. One always may, unless this is 0 % or it is the only one.
    pub max: Percent,
}

impl Default for OutlierSettings {
    /// Five in a row, 10 s, at most half of the endpoints: the config's defaults.
    fn default() -> Self {
        let consecutive = NonZeroU32::MIN.saturating_add(4);
        OutlierSettings { consecutive, base: Duration::from_secs(10), max: Percent(50) }
    }
}

/// What failed. The rows are counted apart: an endpoint that accepts every connection and breaks each fails
/// too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// No connection was made.
    Connect,
    /// A connection was made, and broke.
    Service,
}

/// How the endpoints of an upstream stand, the one in question included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Census {
    /// How many rest now.
    pub ejected: usize,
    /// How many there are.
    pub total: usize,
}

/// One endpoint's failures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outlier {
    connect_row: u32,
    service_row: u32,
    ejections: u32,
    rests_until: Moment,
}

impl Outlier {
    /// Takes a failure; says how long the endpoint rests, if this ejects it.
    pub(crate) fn failed(
        &mut self,
        failure: Failure,
        now: Moment,
        settings: &OutlierSettings,
        census: Census,
    ) -> Option<Duration> {
        // It may be used while it rests, when too few others are left; that is no news.
        if now < self.rests_until {
            return None;
        }
        let row = match failure {
            Failure::Connect => &mut self.connect_row,
            Failure::Service => &mut self.service_row,
        };
        *row = row.saturating_add(1);
        if *row < settings.consecutive.get() || !may_eject(census, settings.max) {
            return None;
        }
        let rest = self.next_rest(now, settings.base);
        (self.connect_row, self.service_row) = (0, 0);
        self.rests_until = now.after(rest);
        Some(rest)
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self) {
        self.connect_row = 0;
    }

    /// The endpoint did what it is there for.
    pub(crate) fn served(&mut self) {
        (self.connect_row, self.service_row) = (0, 0);
    }

    /// Whether a success would change anything.
    pub(crate) fn has_failures(&self) -> bool {
        self.connect_row > 0 || self.service_row > 0
    }

    /// Every `base` spent in peace since the last rest makes up for one ejection.
    fn next_rest(&mut self, now: Moment, base: Duration) -> Duration {
        let peace = now.since(self.rests_until).as_nanos() / base.as_nanos().max(1);
        let forgiven = u32::try_from(peace).unwrap_or(u32::MAX);
        self.ejections = self.ejections.saturating_sub(forgiven).saturating_add(1);
        base.saturating_mul(self.ejections).min(REST_MAX.max(base))
    }
}

/// Whether one more may be ejected. The only endpoint never is: there is nowhere else to go.
fn may_eject(census: Census, max: Percent) -> bool {
    let allowed = (census.total * usize::from(max.0) / 100).max(1);
    max.0 > 0 && census.total > 1 && census.ejected < allowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: Census = Census { ejected: 0, total: 2 };

    fn settings() -> OutlierSettings {
        OutlierSettings { base: Duration::from_secs(30), max: Percent(30), ..OutlierSettings::default() }
    }

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn fail(outlier: &mut Outlier, times: u32, now: Moment) -> Option<Duration> {
        (0..times).filter_map(|_| outlier.failed(Failure::Connect, now, &settings(), TWO)).last()
    }

    #[test]
    fn a_row_ejects_and_a_success_breaks_the_row() {
        let mut outlier = Outlier::default();
        assert_eq!(fail(&mut outlier, 4, at(100)), None);
        outlier.connected();
        assert_eq!(fail(&mut outlier, 4, at(100)), None);
        assert_eq!(fail(&mut outlier, 1, at(100)), Some(Duration::from_secs(30)));
    }

    #[test]
    fn connecting_does_not_excuse_breaking() {
        let (mut outlier, settings) = (Outlier::default(), settings());
        let mut rests = (0..5).filter_map(|_| {
            outlier.connected();
            outlier.failed(Failure::Service, at(100), &settings, TWO)
        });
        assert_eq!(rests.next(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn rests_grow_and_peace_shrinks_them_again() {
        let mut outlier = Outlier::default();
        assert_eq!(fail(&mut outlier, 5, at(100)), Some(Duration::from_secs(30)));
        assert_eq!(fail(&mut outlier, 5, at(129)), None, "it rests already");
        assert_eq!(fail(&mut outlier, 5, at(131)), Some(Duration::from_secs(60)));
        assert_eq!(fail(&mut outlier, 5, at(192)), Some(Duration::from_secs(90)));
        assert_eq!(fail(&mut outlier, 5, at(10_000)), Some(Duration::from_secs(30)));
    }

    #[test]
    fn the_only_endpoint_is_never_ejected_and_zero_percent_means_never() {
        assert!(!may_eject(Census { ejected: 0, total: 1 }, Percent(100)));
        assert!(!may_eject(Census { ejected: 0, total: 9 }, Percent(0)));
        assert!(may_eject(Census { ejected: 0, total: 2 }, Percent(1)));
    }

    proptest! {
        #[test]
        fn never_more_rest_at_once_than_allowed(
            total in 1usize..30,
            max in 0u8..=100,
            failures in prop::collection::vec((any::<prop::sample::Index>(), 0u64..3_000_000_000), 1..800),
        ) {
            let mut outliers = vec![Outlier::default(); total];
            let settings = OutlierSettings { max: Percent(max), ..settings() };
            let mut now = at(100);
            for (who, pause_ns) in failures {
                now = now.after(Duration::from_nanos(pause_ns));
                let ejected = outliers.iter().filter(|o| now < o.rests_until).count();
                let census = Census { ejected, total };
                outliers[who.index(total)].failed(Failure::Connect, now, &settings, census);
                let ejected = outliers.iter().filter(|o| now < o.rests_until).count();
                let never = total == 1 || max == 0;
                let allowed = if never { 0 } else { (total * usize::from(max) / 100).max(1) };
                prop_assert!(ejected <= allowed, "{} of {} rest", ejected, total);
                prop_assert!(outliers.iter().all(|o| o.rests_until.since(now) <= REST_MAX));
            }
        }
    }
}
