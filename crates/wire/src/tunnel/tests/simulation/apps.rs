//! The applications at both ends of every stream, and what they find out.

use aws_lc_rs::digest::{Context, SHA256};
use fastrand::Rng;

use super::flow::FlowApp;
use crate::tunnel::Code;

/// One application: what it has to send, and what it received.
pub(super) struct App {
    to_send: usize,
    /// Generated, and not taken by the link.
    rest: Vec<u8>,
    sent: Context,
    received: Context,
    pub(super) received_bytes: usize,
    pub(super) sent_bytes: usize,
    pub(super) finished: bool,
    pub(super) at_end: bool,
    /// It breaks its stream off when so many bytes have arrived.
    pub(super) gives_up_at: Option<usize>,
    /// The most that it reads at a time, with a pause behind it.
    pub(super) reads: Option<usize>,
    single_bytes: bool,
    /// What it says and hears by datagrams, if that is what its stream carries.
    pub(super) flow: Option<FlowApp>,
    pub(super) fate: Fate,
}

/// What became of a stream, as one end sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Lives,
    Closed,
    Refused,
    GaveUp,
    Reset(Code),
}

impl App {
    pub(super) fn new(random: &mut Rng) -> Self {
        let to_send = match random.u8(..8) {
            0 => 0,
            1..=3 => random.usize(1..200),
            4..=6 => random.usize(200..20_000),
            _ => random.usize(20_000..150_000),
        };
        Self {
            to_send,
            rest: Vec::new(),
            sent: Context::new(&SHA256),
            received: Context::new(&SHA256),
            received_bytes: 0,
            sent_bytes: 0,
            finished: false,
            at_end: false,
            gives_up_at: (random.u8(..12) == 0).then(|| random.usize(..5000)),
            reads: (random.u8(..4) == 0).then(|| random.usize(100..4000)),
            single_bytes: to_send < 200 && random.bool(),
            flow: None,
            fate: Fate::Lives,
        }
    }

    /// One at the end of a flow.
    pub(super) fn of_datagrams(random: &mut Rng) -> Self {
        Self { to_send: 0, gives_up_at: None, flow: Some(FlowApp::new(random)), ..Self::new(random) }
    }

    /// What is to be written now; what was not taken before comes first.
    pub(super) fn next_write(&mut self, random: &mut Rng) -> &[u8] {
        if self.rest.is_empty() && self.to_send > 0 {
            let most = if self.single_bytes { 1 } else { random.usize(1..=12_000) };
            self.rest = vec![0; most.min(self.to_send)];
            self.to_send -= self.rest.len();
            random.fill(&mut self.rest);
            self.sent.update(&self.rest);
        }
        &self.rest
    }

    /// The link took so many bytes.
    pub(super) fn wrote(&mut self, count: usize) {
        self.sent_bytes += count;
        self.rest.drain(..count);
    }

    pub(super) fn has_more(&self) -> bool {
        let datagrams = self.flow.as_ref().is_some_and(FlowApp::has_more);
        datagrams || self.to_send > 0 || !self.rest.is_empty()
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.received.update(bytes);
        self.received_bytes += bytes.len();
    }

    /// Whether its end is one of a stream that the other side never had. A refusal that is lost with its
    /// carrier is told as a reset by the next one.
    pub(super) fn never_began(&self) -> bool {
        matches!(self.fate, Fate::Refused | Fate::GaveUp | Fate::Reset(Code::Denied | Code::Busy))
    }

    /// What both ends must agree on, of a direction from here.
    pub(super) fn hash_sent(&self) -> Vec<u8> {
        self.sent.clone().finish().as_ref().to_vec()
    }

    pub(super) fn hash_received(&self) -> Vec<u8> {
        self.received.clone().finish().as_ref().to_vec()
    }
}
