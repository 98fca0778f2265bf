//! What is known of a stream at this end of a link, and of what became of the link's carriers.

use std::task::Waker;
use std::time::Duration;

use tieline_base::Reason;
use tieline_wire::tunnel::{Code, Epoch, Patience};

/// How long a stream that nobody speaks through any more may take to end in order.
pub(crate) const ORPHAN: Patience =
    Patience { detached: Duration::from_secs(120), idle: Some(Duration::from_secs(60)) };

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// Both directions were whole.
    InOrder,
    /// It was refused or broken off.
    Broken(Code, Option<Box<str>>),
}

/// What a change of carriers brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Resumption {
    /// The new carrier's.
    pub(crate) epoch: Epoch,
    /// Since the peer's last sign of life over the one before.
    pub(crate) gap: Duration,
    /// Bytes that went again.
    pub(crate) replayed: u64,
}

/// Why a carrier has no say any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotOurs {
    /// The link is over.
    Over(Code),
    /// It goes on over another carrier.
    Elsewhere,
}

/// One stream's end here.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) watcher: Option<Waker>,
    /// The peer agreed to it.
    pub(crate) open: bool,
    pub(crate) ended: Option<Ended>,
    /// What for the peer's answer waits; told once.
    pub(crate) waits: Option<Box<str>>,
    /// Nobody speaks through it any more: it only ends in order.
    pub(crate) orphan: bool,
}

impl End {
    /// The peer says what for its answer waits.
    pub(crate) fn wait(&mut self, text: Box<str>) {
        self.waits = Some(text);
        wake(&mut self.reader);
    }

    pub(crate) fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
        wake(&mut self.watcher);
    }
}

pub(crate) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// As what a link that is over by `code` stands in its row.
pub(crate) fn reason_of(code: Code) -> Reason {
    match code {
        Code::Lost => Reason::Moved,
        Code::Denied => Reason::Revoked,
        Code::Killed => Reason::Killed,
        Code::Protocol => Reason::ProtocolError,
        _ => Reason::ClientClosed,
    }
}
