//! What is told of an exchange when it is over.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use tieline_base::text::hexadecimal;
use tieline_base::{ClientAddr, Clock, Fault, Moment, Reason};
use tieline_conn::{Connection, Outcome};
use tieline_registry::{Asked, Exchanged};

use crate::answer::Form;
use crate::site::Target;

/// An exchange, as far as it went.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) began: Moment,
    pub(crate) asked: Asked,
    /// What both sides are told to call it by.
    pub(crate) tag: Tag,
    /// What a trusted forwarder calls it; counts before the tag.
    pub(crate) called: Option<Box<str>>,
    /// For whom it was asked, if that is known to be another than who holds the connection.
    pub(crate) client: Option<ClientAddr>,
    pub(crate) form: Form,
    /// Whether the answer has no body, as those to HEAD.
    pub(crate) bodyless: bool,
    pub(crate) routed: bool,
    /// The route that changes answers, once it is known that the client may take it.
    pub(crate) route: Option<Arc<Target>>,
    /// What any answer tells of the route's rates, in whole lines.
    pub(crate) quota: Option<Rc<[u8]>>,
    pub(crate) acquiring: Option<Moment>,
    pub(crate) acquired: Option<Moment>,
    pub(crate) sent: Option<Moment>,
    pub(crate) answered: Option<Moment>,
    pub(crate) status: Option<u16>,
    pub(crate) bytes: (u64, u64),
    pub(crate) notes: Vec<Box<str>>,
}

impl Story {
    pub(crate) fn begin(connection: &Connection) -> Self {
        Self { began: Clock::now(), tag: Tag::new(), bytes: connection.record().bytes(), ..Self::default() }
    }

    /// Tells it: into the history, the metrics and the access log.
    /// When it ended is returned.
    pub(crate) fn end(self, connection: &Connection, outcome: &Outcome) -> Moment {
        let record = connection.record();
        let ended = Clock::now();
        let (up, down) = record.bytes();
        let (route, endpoint) = record.way();
        let (reason, detail) = match outcome {
            Ok(reason) => (*reason, None),
            Err(fault) => (fault.reason, detail(fault)),
        };
        connection.exchanged(Exchanged {
            connection: record.id(),
            stream: None,
            number: 0,
            client: self.client.unwrap_or_else(|| record.sender()),
            began: self.began,
            ended,
            acquired_after: self.acquiring.map(|asked| self.acquired.unwrap_or(ended).since(asked)),
            answered_after: self.sent.zip(self.answered).map(|(sent, answered)| answered.since(sent)),
            route: route.filter(|_| self.routed),
            endpoint: endpoint.filter(|_| self.acquired.is_some()),
            asked: self.asked,
            tag: self.tag.0,
            called: self.called,
            status: self.status,
            bytes_up: up.saturating_sub(self.bytes.0),
            bytes_down: down.saturating_sub(self.bytes.1),
            reason,
            detail,
            notes: self.notes,
        });
        ended
    }

    /// What both sides are told to call it by.
    pub(crate) fn request_id(&self) -> RequestId<'_> {
        match &self.called {
            Some(called) => RequestId::Theirs(called),
            None => RequestId::Ours(self.tag.digits()),
        }
    }

    /// Whether the answer has begun, so that no other can be given.
    pub(crate) fn is_answered(&self) -> bool {
        self.status.is_some()
    }
}

/// The name of one exchange, as it is written.
pub(crate) enum RequestId<'s> {
    Ours([u8; 16]),
    Theirs(&'s str),
}

impl Deref for RequestId<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            RequestId::Ours(digits) => digits,
            RequestId::Theirs(name) => name.as_bytes(),
        }
    }
}

fn detail(fault: &Fault) -> Option<Box<str>> {
    fault.source.as_ref().map(|source| source.to_string().into())
}

/// The name of one exchange in headers and logs: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tag(u64);

impl Tag {
    pub(crate) fn new() -> Self {
        // 0 stands for none.
        Tag(fastrand::u64(1..))
    }

    pub(crate) fn digits(self) -> [u8; 16] {
        hexadecimal(self.0)
    }
}

/// The reason of an exchange that went as it should.
pub(crate) const DONE: Reason = Reason::Answered;
