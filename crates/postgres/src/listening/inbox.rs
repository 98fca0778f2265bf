//! What a client is to hear and was not told yet.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};

use tieline_wire::postgres::backend::{Notice, push_notice, push_notification};

/// A notification as the shared listener heard it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Notification {
    /// The server's process whose client sent it.
    pub(crate) process: u32,
    /// Channel and payload, each with its end.
    pub(crate) said: Box<[u8]>,
}

/// So many bytes may wait for a client.
const BYTES_MAX: usize = 4 << 20;

/// What one of them takes beside its text.
const EACH: usize = 64;

/// What waits for one client.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    // Held for a few instructions: once for each notification, and whenever its client has something to hear.
    #[allow(clippy::disallowed_types)]
    heard: std::sync::Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    queue: VecDeque<Item>,
    bytes: usize,
    /// The process that the client holds: what comes from there is its own; 0 if it holds none.
    own: u32,
    waker: Option<Waker>,
    end: Option<End>,
}

#[derive(Debug)]
enum Item {
    Notification {
        it: Arc<Notification>,
        is_own: bool,
    },
    /// Some may have been missed before the next one.
    Gap,
}

/// Why a client hears nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It does not read.
    Overflown,
    /// Nobody listens for it any more, and that cannot be mended.
    Lost,
}

impl Inbox {
    /// Something is to be told.
    pub(super) fn push(&self, it: &Arc<Notification>) {
        self.with(|heard| {
            let is_own = it.process == heard.own;
            heard.push(Item::Notification { it: it.clone(), is_own }, it.said.len() + EACH);
        });
    }

    /// The client is told that it may have missed something.
    pub(super) fn push_gap(&self) {
        self.with(|heard| heard.push(Item::Gap, EACH));
    }

    /// The client hears nothing more.
    pub(super) fn end(&self, end: End) {
        self.with(|heard| heard.end(end));
    }

    /// The process that the client holds from here on; 0 for none.
    pub(super) fn own(&self, process: u32) {
        self.with(|heard| heard.own = process);
    }

    /// Why it hears nothing more, if so. Who asks is woken when there is something to tell.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Option<End> {
        self.with(|heard| {
            if !heard.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                heard.waker = Some(cx.waker().clone());
            }
            heard.end
        })
    }

    /// Appends all that is to be told to `out`; what the client said itself is said by `own`.
    pub(super) fn drain(&self, own: u32, out: &mut Vec<u8>) {
        self.with(|heard| {
            heard.bytes = 0;
            for item in std::mem::take(&mut heard.queue) {
                match item {
                    Item::Notification { it, is_own } => {
                        push_notification(out, if is_own { own } else { it.process }, &it.said);
                    }
                    Item::Gap => push_notice(out, &GAP),
                }
            }
        });
    }

    /// Of `others`, those that do not wait here too.
    pub(super) fn without_known(&self, others: Vec<Notification>) -> Vec<Notification> {
        self.with(|heard| {
            let mut known: Vec<_> = heard.queue.iter().filter_map(Item::notification).collect();
            let is_new = |other: &Notification| {
                let at = known.iter().position(|known| **known == *other);
                at.map(|at| known.swap_remove(at)).is_none()
            };
            others.into_iter().filter(is_new).collect()
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut Heard) -> R) -> R {
        work(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const GAP: Notice<'static> = Notice {
    severity: Some(b"WARNING"),
    code: Some(b"01000"),
    message: Some(b"the server was lost for a while: notifications may have been missed"),
    detail: None,
    hint: Some(b"Look at what they are about, as after a new connection."),
};

impl Heard {
    fn push(&mut self, item: Item, bytes: usize) {
        if self.end.is_some() {
            return;
        }
        if self.bytes + bytes > BYTES_MAX {
            return self.end(End::Overflown);
        }
        self.bytes += bytes;
        self.queue.push_back(item);
        self.wake();
    }

    fn end(&mut self, end: End) {
        self.end = self.end.or(Some(end));
        (self.queue, self.bytes) = (VecDeque::new(), 0);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Item {
    fn notification(&self) -> Option<&Notification> {
        match self {
            Item::Notification { it, .. } => Some(it),
            Item::Gap => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notification(process: u32, said: &[u8]) -> Arc<Notification> {
        Arc::new(Notification { process, said: said.into() })
    }

    fn told(inbox: &Inbox, own: u32) -> Vec<u8> {
        let mut out = Vec::new();
        inbox.drain(own, &mut out);
        out
    }

    #[test]
    fn what_comes_from_the_process_that_is_held_is_the_clients_own() {
        let inbox = Inbox::default();
        inbox.push(&notification(7, b"a\0before\0"));
        inbox.own(7);
        inbox.push(&notification(7, b"a\0own\0"));
        inbox.push(&notification(8, b"a\0other\0"));
        inbox.own(0);
        inbox.push(&notification(7, b"a\0after\0"));
        let mut expected = Vec::new();
        for (process, said) in
            [(7, &b"a\0before\0"[..]), (99, b"a\0own\0"), (8, b"a\0other\0"), (7, b"a\0after\0")]
        {
            push_notification(&mut expected, process, said);
        }
        assert_eq!(told(&inbox, 99), expected);
        assert!(told(&inbox, 99).is_empty());
    }

    #[test]
    fn who_does_not_read_is_told_no_more() {
        let inbox = Inbox::default();
        let large = notification(1, &vec![b'x'; BYTES_MAX / 4]);
        (0..3).for_each(|_| inbox.push(&large));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(inbox.poll(&cx), None);
        inbox.push(&large);
        assert_eq!(inbox.poll(&cx), Some(End::Overflown));
        inbox.end(End::Lost);
        assert_eq!(inbox.poll(&cx), Some(End::Overflown));
        assert!(told(&inbox, 1).is_empty());
    }

    #[test]
    fn a_gap_stands_where_it_was() {
        let inbox = Inbox::default();
        inbox.push_gap();
        inbox.push(&notification(1, b"a\0\0"));
        assert_eq!(told(&inbox, 1).first(), Some(&b'N'));
    }

    proptest! {
        /// Whatever two ways have heard, and what only one of them has: each is told as often as it was
        /// said.
        #[test]
        fn what_two_ways_heard_is_told_once(
            both in prop::collection::vec(0u8..3, 0..6),
            first in prop::collection::vec(0u8..3, 0..6),
        ) {
            let inbox = Inbox::default();
            let make = |it: &u8| Notification { process: 1, said: [*it].into() };
            both.iter().for_each(|it| inbox.push(&Arc::new(make(it))));
            let server: Vec<_> = first.iter().chain(&both).map(make).collect();
            let left = inbox.without_known(server);
            prop_assert_eq!(left.len(), first.len());
            let mut left: Vec<u8> = left.iter().map(|it| it.said[0]).collect();
            let mut first = first;
            left.sort_unstable();
            first.sort_unstable();
            prop_assert_eq!(left, first);
        }
    }
}
