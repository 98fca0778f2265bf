//! Limits of bandwidth: how many bytes may go, and when.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tokio::time::{Instant, Sleep, sleep_until};

/// A rate of bytes, for one or shared by many: one number, the moment at which all that it let go is paid
/// for. Whoever takes from it learns when its bytes may go, so those who share it are served in the order in
/// which they came, and nobody has to look again and again.
#[derive(Debug)]
pub struct Bucket {
    bytes_per_s: u64,
    paid_ns: AtomicU64,
}

/// So much of a rate goes at once, after a silence, and is taken at once: small enough to be smooth, large
/// enough that hardly anybody is woken ten times a second.
const PIECE: Duration = Duration::from_millis(100);

/// What is taken at once, in bytes, however low or high the rate is.
const PIECE_LEAST: usize = 512;
const PIECE_MOST: usize = 256 * 1024;

impl Bucket {
    /// A bucket of so many bytes a second, at least one.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), paid_ns: AtomicU64::new(0) }
    }

    /// How many bytes are taken at once.
    pub fn piece(&self) -> usize {
        let piece = u128::from(self.bytes_per_s) * PIECE.as_nanos() / 1_000_000_000;
        usize::try_from(piece).unwrap_or(usize::MAX).clamp(PIECE_LEAST, PIECE_MOST)
    }

    /// Takes `bytes`, and tells when they may go: when all is paid for but a piece, which is what a silence
    /// is worth.
    pub fn take(&self, bytes: usize, now: Moment) -> Moment {
        let cost = self.cost_ns(bytes);
        let paid = |before: u64| before.max(now.0).saturating_add(cost);
        let before = self.paid_ns.fetch_update(Relaxed, Relaxed, |before| Some(paid(before)));
        let paid = paid(before.unwrap_or_else(|before| before));
        Moment(paid.saturating_sub(self.cost_ns(self.piece())).max(now.0))
    }

    /// Whether nothing is owed any more, so that another one in its place would be the same.
    pub fn is_even(&self, now: Moment) -> bool {
        self.paid_ns.load(Relaxed) <= now.0
    }

    fn cost_ns(&self, bytes: usize) -> u64 {
        let ns = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// One direction of one transfer, held to the rate of a [`Bucket`].
pub struct Throttle {
    bucket: Arc<Bucket>,
    /// Bytes that were taken from the bucket and have not gone.
    granted: usize,
    /// Until they may go; made when it is needed first.
    until: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl Throttle {
    /// A transfer that takes from `bucket`.
    pub fn new(bucket: Arc<Bucket>) -> Self {
        Self { bucket, granted: 0, until: None, waits: false }
    }

    /// How many of `wanted` bytes (more than 0) may go now: one at least. Until [`Throttle::went`] says that
    /// they did, they are its own.
    pub fn poll_grant(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<usize> {
        if self.granted == 0 {
            let (now, bytes) = (Clock::now(), wanted.clamp(1, self.bucket.piece()));
            let at = self.bucket.take(bytes, now);
            self.granted = bytes;
            if at > now {
                self.sleep_until(at);
            }
        }
        if let Some(until) = self.until.as_mut().filter(|_| self.waits) {
            ready!(until.as_mut().poll(cx));
            self.waits = false;
        }
        Poll::Ready(self.granted.min(wanted))
    }

    /// So many of those bytes went.
    pub fn went(&mut self, bytes: usize) {
        self.granted = self.granted.saturating_sub(bytes);
    }

    fn sleep_until(&mut self, at: Moment) {
        let at = Instant::from_std(Clock::instant_of(at));
        match &mut self.until {
            Some(until) => until.as_mut().reset(at),
            None => self.until = Some(Box::pin(sleep_until(at))),
        }
        self.waits = true;
    }
}

/// What holds back the two directions of a conversation.
#[derive(Debug, Default)]
pub struct Throttles {
    /// What its client sends.
    pub up: Option<Throttle>,
    /// What its client gets.
    pub down: Option<Throttle>,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(ns: u64) -> Moment {
        Moment((1 << 40) + ns)
    }

    #[test]
    fn a_silence_is_worth_a_tenth_of_a_second() {
        let bucket = Bucket::new(1 << 20);
        assert_eq!(bucket.piece(), (1 << 20) / 10);
        assert_eq!(bucket.take(bucket.piece(), at(0)), at(0));
        assert!(bucket.take(1, at(0)) > at(0));
        assert!(!bucket.is_even(at(0)) && bucket.is_even(at(SECOND)));
    }

    #[test]
    fn those_who_share_are_served_in_turn() {
        let bucket = Bucket::new(1000);
        let moments: Vec<Moment> = (0..5).map(|_| bucket.take(1000, at(0))).collect();
        let waited: Vec<u64> = moments.iter().map(|moment| moment.since(at(0)).as_millis() as u64).collect();
        // The piece of 512 bytes is worth 512 ms.
        assert_eq!(waited, [488, 1488, 2488, 3488, 4488]);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_lets_more_go_than_the_rate_and_a_piece(
            rate in 1u64..10_000_000,
            takes in prop::collection::vec((0u64..200_000_000, 1usize..100_000), 1..200),
        ) {
            let bucket = Bucket::new(rate);
            let (mut now, mut went) = (0, Vec::new());
            for (gap, bytes) in takes {
                now += gap;
                let bytes = bytes.min(bucket.piece());
                went.push((bucket.take(bytes, at(now)).0, bytes));
            }
            for (first, (from, _)) in went.iter().enumerate() {
                let mut sum = 0u128;
                for (to, bytes) in &went[first..] {
                    sum += *bytes as u128;
                    let earned = u128::from(to - from) * u128::from(rate) / u128::from(SECOND);
                    // Costs are rounded down to whole nanoseconds.
                    let slack = went.len() as u128 * (1 + u128::from(rate) / u128::from(SECOND));
                    prop_assert!(sum <= earned + bucket.piece() as u128 + slack, "{sum} in {}", to - from);
                }
            }
        }

        #[test]
        fn who_takes_less_than_the_rate_never_waits(
            rate in 1_000u64..10_000_000, gaps in prop::collection::vec(1u64..1_000_000_000, 1..100),
        ) {
            let bucket = Bucket::new(rate);
            let mut now = 0;
            for gap in gaps {
                now += gap;
                let earned = (u128::from(gap) * u128::from(rate) / u128::from(SECOND)) as usize;
                prop_assert_eq!(bucket.take(earned.clamp(1, bucket.piece()), at(now)), at(now));
            }
        }
    }

    #[tokio::test]
    async fn a_transfer_takes_no_less_than_its_rate_says() {
        const BYTES: usize = 16 * 1024;
        let mut throttle = Throttle::new(Arc::new(Bucket::new(64 * 1024)));
        let (began, mut left) = (Clock::now(), BYTES);
        while left > 0 {
            let count = std::future::poll_fn(|cx| throttle.poll_grant(left, cx)).await;
            assert!(count > 0 && count <= left);
            throttle.went(count);
            left -= count;
        }
        // A quarter of a second, but for what the silence before was worth.
        let took = Clock::now().since(began);
        assert!(took >= Duration::from_millis(140), "{took:?}");
    }
}
