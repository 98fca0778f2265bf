//! What part of the packets of a link was lost in the last minute. Knows no socket: what was counted is an
//! argument, and so is the time.

use std::collections::VecDeque;
use std::time::Duration;

use tieline_base::Moment;
use tieline_transport::Packets;

/// What was counted, now and then, on the connection that carries a link.
#[derive(Debug, Default)]
pub(crate) struct Losses(VecDeque<(Moment, Packets)>);

/// How far it looks back.
const WINDOW: Duration = Duration::from_secs(60);

/// How often it is worth counting.
pub(crate) const COUNTED_EVERY: Duration = Duration::from_secs(2);

impl Losses {
    /// As many were sent, and lost, by `now` on the connection.
    pub(crate) fn count(&mut self, packets: Packets, now: Moment) {
        // Another connection begins anew.
        if self.0.back().is_some_and(|(_, before)| packets.sent < before.sent) {
            self.0.clear();
        }
        if self.0.is_empty() {
            self.0.push_back((now, Packets::default()));
        }
        self.0.push_back((now, packets));
        // One that is older says where the window began.
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// The part that was lost, in percent; `None` if nothing was sent.
    pub(crate) fn percent(&self) -> Option<f64> {
        let ((_, first), (_, last)) = (self.0.front()?, self.0.back()?);
        let (sent, lost) = (last.sent - first.sent, last.lost.saturating_sub(first.lost));
        (sent > 0).then(|| lost.min(sent) as f64 * 100.0 / sent as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(0).after(Duration::from_secs(seconds))
    }

    fn packets(sent: u64, lost: u64) -> Packets {
        Packets { sent, lost }
    }

    #[test]
    fn a_loss_counts_for_a_minute() {
        let mut losses = Losses::default();
        assert_eq!(losses.percent(), None);
        losses.count(packets(100, 10), at(0));
        assert_eq!(losses.percent(), Some(10.0));
        losses.count(packets(200, 10), at(30));
        assert_eq!(losses.percent(), Some(5.0));
        losses.count(packets(300, 10), at(61));
        assert_eq!(losses.percent(), Some(0.0), "what was lost was lost a minute ago");
        losses.count(packets(300, 10), at(200));
        assert_eq!(losses.percent(), None, "nothing was sent");
    }

    #[test]
    fn another_connection_begins_anew() {
        let mut losses = Losses::default();
        losses.count(packets(100, 50), at(0));
        losses.count(packets(10, 0), at(1));
        assert_eq!(losses.percent(), Some(0.0));
        losses.count(packets(20, 40), at(2));
        assert_eq!(losses.percent(), Some(100.0), "no more is lost than was sent");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut losses = Losses::default();
        for second in 0..1_000 {
            losses.count(packets(second, 0), at(second));
        }
        assert!(losses.0.len() <= 62, "{}", losses.0.len());
    }
}
