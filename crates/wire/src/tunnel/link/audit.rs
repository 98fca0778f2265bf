//! What must hold of a link between any two calls, computed from nothing but its streams.

use std::collections::BTreeSet;

use super::flows::WAITING_MAX;
use super::{Link, Tally};
use crate::tunnel::ids::StreamId;
use crate::tunnel::stream::QUEUE_MAX;

impl Link {
    /// Panics where a sum, a line or a bound is not what the streams say.
    pub(in crate::tunnel) fn audit(&self) {
        let mut sum = Tally::default();
        for (id, stream) in &self.streams {
            let Tally { promise, outbound, inbound, waits, flows, datagrams } = Tally::of(stream);
            sum.promise += promise;
            sum.outbound += outbound;
            sum.inbound += inbound;
            sum.waits += waits;
            sum.flows += flows;
            sum.datagrams += datagrams;
            assert!(outbound <= self.limits.window_max, "{id}: the replay exceeds the window");
            assert!(stream.inbound.held() <= promise, "{id}: more is held than was promised");
            assert!(promise <= self.limits.window_max, "{id}: more is promised than a window");
            assert_eq!(stream.queued, self.due.contains(id), "{id} in line");
            assert!(stream.queued || !stream.due.any(), "{id} has something due, and is in no line");
            assert_eq!(stream.scheduled, self.schedule.contains(*id), "{id} scheduled");
            assert!(stream.scheduled || !stream.sends(), "{id} has bytes to send, and no turn");
            assert_eq!(stream.confirms_later, self.later.contains(id), "{id} confirms later");
            let scheduled = stream.flow.as_ref().is_some_and(|flow| flow.scheduled);
            assert_eq!(scheduled, self.flows.contains(*id), "{id} scheduled for its datagrams");
            assert!(scheduled || !stream.sends_datagrams(), "{id} has datagrams to send, and no turn");
            assert!(datagrams <= 2 * QUEUE_MAX, "{id}: more datagrams wait than may");
            assert!(!stream.done(), "{id} is done and still there");
        }
        assert_eq!(self.sum, sum);
        assert!(sum.promise <= self.limits.budget, "more is promised than the budget");
        assert!(sum.datagrams <= WAITING_MAX, "more datagrams wait than may");
        assert!(self.streams.len() <= self.limits.streams);
        assert!(self.answers.len() <= 2 * self.limits.streams);
        let once: BTreeSet<&StreamId> = self.due.iter().collect();
        assert_eq!(once.len(), self.due.len(), "a stream stands in line twice");
    }
}
