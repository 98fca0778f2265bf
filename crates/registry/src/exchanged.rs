//! What is remembered of one finished exchange of a connection that carries many.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tieline_base::{ClientAddr, ConnectionId, Moment, Reason};

use crate::meter::RouteRow;

/// One finished exchange: one request and its answer.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// The connection that carried it.
    pub connection: ConnectionId,
    /// The row of its own that it had inside that connection, if it had one; known once the table has it.
    pub stream: Option<ConnectionId>,
    /// Which one of its connection it was, from 1; 0 until the table has it.
    pub number: u32,
    /// For whom it was asked.
    pub client: ClientAddr,
    /// When its first byte came.
    pub began: Moment,
    /// When its last byte went, or it was given up.
    pub ended: Moment,
    /// How long it waited for its upstream connection, if it wanted one.
    pub acquired_after: Option<Duration>,
    /// How long the upstream took to begin its answer, once it had the request.
    pub answered_after: Option<Duration>,
    /// The route it took.
    pub route: Option<Arc<RouteRow>>,
    /// The endpoint that answered, or was asked last.
    pub endpoint: Option<Arc<str>>,
    /// What was asked, in the protocol's words.
    pub asked: Asked,
    /// What both sides were told to call it by; 0 if neither was told.
    pub tag: u64,
    /// What a trusted forwarder calls it, where one does; it counts before the tag.
    pub called: Option<Box<str>>,
    /// The code that the client was answered with.
    pub status: Option<u16>,
    /// Bytes from the client, heads included.
    pub bytes_up: u64,
    /// Bytes to the client, heads included.
    pub bytes_down: u64,
    /// How it ended.
    pub reason: Reason,
    /// What lay beneath.
    pub detail: Option<Box<str>>,
    /// What happened on the way out of the ordinary: tries that failed, waits.
    pub notes: Vec<Box<str>>,
}

/// How long what is asked usually is at most, in bytes.
const ASKED_USUAL: usize = 64;

/// What was asked. One piece of text, which takes no memory of its own unless it is long.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    text: SmallVec<[u8; ASKED_USUAL]>,
    verb: u32,
    host: u32,
}

impl Asked {
    /// `verb` (a method) of `target` (a path) at `host`.
    pub fn new(verb: &str, host: &str, target: &str) -> Self {
        let text = Self::text_of([verb, host, target].map(str::as_bytes));
        let length = |part: &str| u32::try_from(part.len()).unwrap_or(u32::MAX);
        Self { text, verb: length(verb), host: length(verb) + length(host) }
    }

    fn text_of(parts: [&[u8]; 3]) -> SmallVec<[u8; ASKED_USUAL]> {
        let length = parts.iter().map(|part| part.len()).sum();
        if length > ASKED_USUAL {
            return SmallVec::from_vec(parts.concat());
        }
        // Nearly always: without asking before each part whether it fits.
        let (mut room, mut at) = ([0; ASKED_USUAL], 0);
        for part in parts {
            room[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        SmallVec::from_buf_and_len(room, length)
    }

    /// The verb; empty if it never became clear.
    pub fn verb(&self) -> &str {
        self.part(0, self.verb as usize)
    }

    /// Whom it was asked of.
    pub fn host(&self) -> &str {
        self.part(self.verb as usize, self.host as usize)
    }

    /// What was asked for.
    pub fn target(&self) -> &str {
        self.part(self.host as usize, self.text.len())
    }

    fn part(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).and_then(|part| str::from_utf8(part).ok()).unwrap_or_default()
    }
}
