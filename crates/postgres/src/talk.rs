//! A client that is logged in: what it is between its exchanges, and what moves while it holds a server. The
//! way up is in `up.rs`, the way down in `down.rs`; what takes turns with either is in `aside.rs`.

use std::sync::Arc;
use std::task::{Context, Poll};

use tieline_base::{Clock, Fault, Generation, Moment, Reason, Stage, Whose};
use tieline_conn::Connection;
use tieline_pool::Share;
use tieline_registry::{Asked, Exchanged};
use tieline_transport::Io;
use tieline_wire::postgres::backend::Status;
use tieline_wire::postgres::sql::Suspicion;

use crate::Postgres;
use crate::census::{Client, Pool};
use crate::down::Down;
use crate::in_line::{Wait, Waited};
use crate::keys::Key;
use crate::link::Link;
use crate::listening::Ears;
use crate::login::Credential;
use crate::reads::Reads;
use crate::refusal::Refusal;
use crate::server::Login;
use crate::settings::{Reported, Settings};
use crate::site::{Mode, Target};
use crate::statements::Names;
use crate::up::Up;

/// A client that is logged in.
pub(crate) struct Talk {
    pub(crate) connection: Connection,
    pub(crate) io: Io,
    pub(crate) who: Who,
    pub(crate) way: Way,
    /// The settings that it wants its session to have.
    pub(crate) settings: Arc<Settings>,
    /// What it was told of them.
    pub(crate) view: Arc<Reported>,
    pub(crate) names: Names,
    pub(crate) unnamed: Unnamed,
    pub(crate) up: Up,
    pub(crate) down: Down,
    pub(crate) link: Option<Link>,
    /// When something moved, if that was asked.
    pub(crate) clock: Option<Moment>,
    /// It waits in line for a server.
    pub(crate) wait: Option<Wait>,
    /// A place that it got without a server.
    pub(crate) waited: Option<Box<Waited>>,
    /// A server that it got and that has not the settings that it wants.
    pub(crate) undressed: Option<Box<Link>>,
    /// Why it keeps its server beyond a transaction.
    pub(crate) pins: Suspicion,
    /// The channels that it listens to wherever it is served; `None`: there are none.
    pub(crate) ears: Option<Box<Ears>>,
    /// What others see of it.
    pub(crate) row: Client,
    /// What replicas are asked for it; `None` if nothing is.
    pub(crate) reads: Option<Box<Reads>>,
    /// By which others may cancel what it does.
    pub(crate) key: Key,
    /// How many servers were lost in a row that it had asked nothing yet.
    pub(crate) lost: u8,
    /// It has taken leave.
    pub(crate) leaving: bool,
    /// Not of its own will: what it said last means nothing.
    pub(crate) broke: Option<Fault>,
}

/// What a client asked for when it logged in.
pub(crate) struct Who {
    pub(crate) database: Box<str>,
    pub(crate) user: Box<str>,
    /// Whom the servers that it holds count for.
    pub(crate) share: Share,
    /// What it proved, for servers that are logged in to as the client.
    pub(crate) credential: Credential,
    /// The settings that it began with, to which RESET returns.
    pub(crate) settings: Arc<Settings>,
}

/// Which way its exchanges go, by the config of `generation`.
pub(crate) struct Way {
    pub(crate) postgres: Arc<Postgres>,
    pub(crate) generation: Generation,
    pub(crate) target: Arc<Target>,
    pub(crate) login: Arc<Login>,
    pub(crate) pool: Arc<Pool>,
}

/// The unnamed statement of a client, which may have to be made again at another server.
#[derive(Debug, Default)]
pub(crate) struct Unnamed {
    /// Which one it is; 0 while there is none. No two clients have the same.
    pub(crate) number: u64,
    /// Its text and its types as Parse has them; empty if it was too long to keep.
    pub(crate) sql: Vec<u8>,
    pub(crate) types: Vec<u8>,
    pub(crate) suspicion: Suspicion,
    /// The statement that it deallocates, as the client calls it.
    pub(crate) deallocates: Option<Box<[u8]>>,
    /// The unnamed portal is to do that.
    pub(crate) is_bound: bool,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// It wants a server.
    Link,
    /// It does not get one.
    Refuse(Refusal),
    /// Its transaction is over, and may have left something behind.
    Settle,
    /// It goes, and what it leaves at its server must be put in order.
    Leave(Reason),
}

/// So many reads a turn, before the neighbours of this worker get theirs.
const STEPS: u32 = 8;

impl Talk {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Fault>> {
        let mut quiet = true;
        self.hear_who_woke_it();
        for _ in 0..STEPS {
            self.clock = None;
            if self.wait.is_some() {
                match self.poll_wait(cx) {
                    Poll::Ready(Some(next)) => return Poll::Ready(Ok(next)),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            let mut moved = false;
            if !self.down.armed || !self.down.held.is_empty() || self.ears.is_some() {
                match self.poll_down(cx)? {
                    Poll::Ready(Some(next)) => return Poll::Ready(Ok(next)),
                    Poll::Ready(None) => moved = true,
                    Poll::Pending => {}
                }
            }
            if !self.up.armed || self.up.again || self.leaving || !self.up.held.is_empty() {
                match self.poll_up(cx)? {
                    Poll::Ready(Some(next)) => return Poll::Ready(Ok(next)),
                    Poll::Ready(None) => moved = true,
                    Poll::Pending => {}
                }
            }
            if !moved {
                let next = if quiet { self.look()? } else { None };
                self.look_at_the_clock()?;
                return next.map_or(Poll::Pending, |next| Poll::Ready(Ok(next)));
            }
            quiet = false;
        }
        self.look_at_the_clock()?;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Who will still wake it need not be asked.
    fn hear_who_woke_it(&mut self) {
        let server = self.link.as_ref().map(|link| &link.io);
        // What TLS holds back is known to those alone who ask.
        let plain = !self.io.is_encrypted() && !server.is_some_and(Io::is_encrypted);
        self.up.armed = self.up.armed && plain && self.io.has_heard_nothing();
        self.down.armed = self.down.armed && plain && server.is_some_and(Io::has_heard_nothing);
    }

    /// Something else than its own moves is done with it, or was: what was asked and read so far is outdated.
    pub(crate) fn look_anew(&mut self) {
        (self.up.armed, self.down.armed, self.clock) = (false, false, None);
    }

    /// The moment at which something moved: the clock is read once for all that follows from it.
    pub(crate) fn now(&mut self) -> Moment {
        *self.clock.get_or_insert_with(Clock::now)
    }

    /// Nothing moved: it was woken for something else, by its patience or by an order from outside.
    fn look(&mut self) -> Result<Option<Next>, Fault> {
        if let Some(reason) = self.connection.overdue() {
            self.overdue(reason)?;
        }
        if self.link.is_none()
            && self.up.is_empty()
            && let Some(reason) = self.connection.record().leaving()
        {
            return Ok(Some(Next::Leave(reason)));
        }
        Ok(None)
    }

    /// Something moved, and may have moved for too long.
    fn look_at_the_clock(&mut self) -> Result<(), Fault> {
        self.late().map_or(Ok(()), |reason| self.overdue(reason))
    }

    /// The state that the client believes its session to be in.
    pub(crate) fn status(&self) -> Status {
        self.link.as_ref().map_or(Status::Idle, |link| link.server.status)
    }

    /// Whether it keeps its server whatever ends.
    pub(crate) fn keeps_server(&self) -> bool {
        !self.pins.is_none() || self.way.target.mode == Mode::Session
    }

    /// The client holds the server of `link`, and may have what that does cancelled.
    #[inline]
    pub(crate) fn keep(&mut self, link: Link) {
        self.key.running(link.server.backend.as_ref());
        self.link = Some(link);
    }

    /// Takes its server from the client: from here on nobody cancels by the client's key what that server
    /// does.
    pub(crate) fn unlink(&mut self) -> Option<Link> {
        self.key.idle();
        self.link.take()
    }

    /// Its exchange is over: the server goes back, and is as new. False: a request to cancel what it did may
    /// still reach it, which is waited for first.
    pub(crate) fn release(&mut self) -> bool {
        // From here on nobody cancels what this server does; who did a moment ago is waited for.
        self.key.idle();
        let Some(link) = &self.link else { return true };
        if !link.server.is_quiet() {
            return false;
        }
        if let Some(reads) = &mut self.reads {
            reads.ends(link);
        }
        self.lost = 0;
        let now = self.now();
        // Taken apart where it lies: it is large.
        let Some(Link { io, server, loan, making, began, acquired_after, .. }) = self.link.take() else {
            return true;
        };
        self.tell(began, now, acquired_after, Reason::Answered);
        server.rest(io, loan, making, now);
        self.rest(now);
        true
    }

    /// Its exchange is over, and the server of no more use.
    pub(crate) fn tell_and_drop(&mut self) {
        self.down.forget();
        if let Some(link) = self.unlink() {
            if let Some(reads) = &mut self.reads {
                reads.ends(&link);
            }
            let now = Clock::now();
            self.tell(link.began, now, link.acquired_after, Reason::Answered);
            self.rest(now);
        }
    }

    /// It holds no server, and may be silent for as long as its listener allows.
    pub(crate) fn rest(&mut self, now: Moment) {
        self.row.rests(now);
        self.row.has_prepared(self.names.len());
        let record = self.connection.record();
        record.expect(self.way.postgres.settings.idle, Reason::Idle);
        record.enter(Stage::Settle, now);
    }

    /// Tells of an exchange: into the history, the metrics and the access log.
    pub(crate) fn tell(&mut self, began: Moment, ended: Moment, waited: std::time::Duration, reason: Reason) {
        let record = self.connection.record();
        let ((up, down), (route, endpoint)) = (record.bytes(), record.way());
        let (up_before, down_before) = std::mem::replace(&mut self.up.told, (up, down));
        self.connection.exchanged(Exchanged {
            connection: record.id(),
            stream: None,
            number: 0,
            client: record.sender(),
            began,
            ended,
            acquired_after: Some(waited),
            answered_after: None,
            route,
            endpoint,
            asked: Asked::default(),
            tag: 0,
            called: None,
            status: None,
            bytes_up: up.saturating_sub(up_before),
            bytes_down: down.saturating_sub(down_before),
            reason,
            detail: None,
            notes: Vec::new(),
        });
    }
}

/// A client that broke off, or broke.
pub(crate) fn client_gone(error: std::io::Error) -> Fault {
    Fault::new(Stage::Relay, Whose::Client, Reason::ClientReset).because(error)
}

/// A server that broke off, or broke.
pub(crate) fn server_gone(error: std::io::Error) -> Fault {
    Fault::new(Stage::Relay, Whose::Upstream, Reason::UpstreamReset).because(error)
}

/// A client whose bytes mean nothing.
pub(crate) fn violation(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(Stage::Relay, Whose::Client, Reason::ProtocolError).because(what)
}
