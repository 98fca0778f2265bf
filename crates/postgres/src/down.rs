//! The way down: what the server says, and what of it the client hears.

use std::sync::Arc;
use std::task::{Context, Poll};

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_wire::postgres::backend::{self, Notice, Status, kind, push_bare};
use tieline_wire::postgres::sql::Suspicion;
use tieline_wire::postgres::{HEADER, Head};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::has_budget_remaining;

use crate::again;
use crate::census::Count;
use crate::held::Held;
use crate::link::Link;
use crate::listening;
use crate::outstanding::{Asked, Entry, Reply};
use crate::patience;
use crate::scratch::{self, Cut};
use crate::settings::{Reported, Settings};
use crate::settle::{hold, lasting};
use crate::site::Mode;
use crate::statements::{NAME_PREFIX, Names};
use crate::talk::{Next, Talk, client_gone, server_gone};
use crate::up::{Up, needed};

/// The client's side of the way down.
#[derive(Debug, Default)]
pub(crate) struct Down {
    /// What the client does not take yet.
    pub(crate) held: Held,
    /// The beginning of a message of which more must be known.
    pending: Vec<u8>,
    /// It is gone through again when there is so much of it.
    needs: usize,
    /// How much of a message that passes is still to come.
    left: u32,
    /// Whether it is left out.
    swallows: bool,
    /// What was read is to be gone through.
    again: bool,
    /// The next byte of the server wakes it.
    pub(crate) armed: bool,
}

/// The server, or the transaction, takes no writes.
const READ_ONLY: &[u8] = b"25006";

/// The longest message of those that are read whole.
const READ_MAX: usize = 1 << 20;

impl Down {
    /// Goes on with `bytes`, which somebody else has read.
    pub(crate) fn resume(&mut self, bytes: Vec<u8>) {
        (self.pending, self.again, self.armed) = (bytes, true, false);
    }

    /// Forgets what the server said and the client was not told.
    pub(crate) fn forget(&mut self) {
        (self.pending, self.left, self.again) = (Vec::new(), 0, false);
    }

    /// Whether the client is between two messages.
    pub(crate) fn is_between(&self) -> bool {
        self.left == 0
    }

    /// Whether the server is between two messages.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_between() && self.pending.is_empty()
    }
}

impl Talk {
    /// Passes on what the server says.
    pub(crate) fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<Poll<Option<Next>>, Fault> {
        if self.ears.is_some() && self.poll_heard(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if self.down.held.poll_flush(&mut self.io, cx).map_err(client_gone)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let Some(link) = &self.link else { return Ok(Poll::Pending) };
        let again = std::mem::take(&mut self.down.again);
        if !again && link.io.poll_readable(cx).is_pending() {
            self.down.armed = has_budget_remaining();
            return Ok(Poll::Pending);
        }
        scratch::with(|input, out| {
            if again {
                let read = std::mem::take(&mut self.down.pending);
                return self.pass_down(&read, out, cx).map(Poll::Ready);
            }
            let Some(link) = &mut self.link else { return Ok(Poll::Pending) };
            let mut space = ReadBuf::new(input);
            let lost = match std::pin::Pin::new(&mut link.io).poll_read(cx, &mut space) {
                Poll::Pending => {
                    self.down.armed = has_budget_remaining();
                    return Ok(Poll::Pending);
                }
                Poll::Ready(Err(error)) => Some(error),
                Poll::Ready(Ok(())) if space.filled().is_empty() => {
                    Some(std::io::ErrorKind::UnexpectedEof.into())
                }
                Poll::Ready(Ok(())) => None,
            };
            if let Some(error) = lost {
                return if self.loses_nothing() { Ok(Poll::Ready(None)) } else { Err(server_gone(error)) };
            }
            let read = space.filled();
            if link.answered == Moment::default() {
                link.answered = *self.clock.get_or_insert_with(Clock::now);
                link.loan.first_byte(link.began, link.answered);
            }
            if self.down.pending.is_empty() {
                return self.pass_down(read, out, cx).map(Poll::Ready);
            }
            self.down.pending.extend_from_slice(read);
            if self.down.pending.len() < self.down.needs {
                return Ok(Poll::Ready(None));
            }
            let whole = std::mem::take(&mut self.down.pending);
            self.pass_down(&whole, out, cx).map(Poll::Ready)
        })
    }

    fn pass_down(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Next>, Fault> {
        // Its last words, and nobody has asked it anything.
        if bytes.first() == Some(&kind::ERROR_RESPONSE) && self.is_untouched() && self.loses_nothing() {
            return Ok(None);
        }
        if self.hears_nothing_yet(bytes) {
            (self.down.pending, self.down.needs) = (bytes.to_vec(), 0);
            return Ok(None);
        }
        let mut cut = Cut::new(bytes, out);
        let end = self.scan_down(bytes, &mut cut)?;
        let outgoing = cut.finish(end);
        let (now, length) = (self.now(), outgoing.len() as u64);
        let record = self.connection.record();
        record.moved_by(false, length, now);
        self.way.pool.count(record.worker(), Count::Sent, length);
        self.down.held.send(&mut self.io, outgoing, cx).map_err(client_gone)?;
        if end < bytes.len() {
            self.down.pending = bytes[end..].to_vec();
            self.down.needs = needed(&self.down.pending);
        }
        self.answered();
        self.after_down()
    }

    /// What comes behind what the server said.
    fn after_down(&mut self) -> Result<Option<Next>, Fault> {
        self.ask_the_primary();
        let keeps = self.keeps_server();
        let Some(link) = &mut self.link else { return Ok(None) };
        let is_certain = link.awaits && link.tracked.is_empty();
        if link.full && (is_certain || link.server.outstanding.is_empty()) && !link.owes_ready {
            link.awaits = false;
            // Either the server goes to others, or the client is in a transaction that nobody else can end.
            link.full = false;
            self.up.again = !self.up.pending.is_empty();
        }
        if link.fatal && !keeps && link.owes_nothing() && self.down.is_whole() && self.up.is_between() {
            self.key.idle();
            self.tell_and_drop();
            self.up.again = !self.up.pending.is_empty();
            return Ok(None);
        }
        let next = self.let_go()?;
        if next.is_none() {
            if self.link.is_some() {
                self.wait_for_what();
            } else {
                self.up.again = !self.up.pending.is_empty();
            }
        }
        Ok(next)
    }

    /// Lets go of the server if the client owes it nothing, nor it the client.
    pub(crate) fn let_go(&mut self) -> Result<Option<Next>, Fault> {
        let is_free = |link: &Link| link.is_free() && !link.fatal;
        if !self.link.as_ref().is_some_and(is_free) || !self.down.is_whole() || !self.up.is_between() {
            return Ok(None);
        }
        let keeps = self.keeps_server();
        let Some(link) = &mut self.link else { return Ok(None) };
        // RESET goes back to what the server began with, and the client may have begun otherwise.
        let whole_session = self.way.target.mode == Mode::Session;
        let asks = link.suspicion.has(Suspicion::SETTINGS) && !self.who.settings.is_empty();
        if whole_session && !asks {
            let lasting = lasting(std::mem::take(&mut link.suspicion));
            hold(self, self.pins | lasting);
            return Ok(None);
        }
        if self.way.target.resets && link.acted && !keeps {
            link.suspicion |= Suspicion::ALL;
        }
        if !link.suspicion.is_none() || link.owes_ready || link.listens && !keeps {
            return Ok(Some(Next::Settle));
        }
        Ok((!keeps && !self.release()).then_some(Next::Settle))
    }

    /// Goes through the messages in `bytes`; says how far they are whole.
    fn scan_down(&mut self, bytes: &[u8], cut: &mut Cut<'_>) -> Result<usize, Fault> {
        let keeps = self.keeps_server();
        let Talk { link, up, down, names, unnamed, view, way, ears, key, pins, who, .. } = self;
        let Some(link) = link else { return Ok(bytes.len()) };
        let mut at = down.end_body(bytes, link, cut);
        while at < bytes.len() {
            at = skim(bytes, at, link);
            let rest = &bytes[at..];
            let Some(head) = Head::read(rest).map_err(nonsense)? else { break };
            if must_be_whole(head.kind, link) && head.whole() <= READ_MAX {
                let Some(body) = rest.get(HEADER..head.whole()) else { break };
                hear(head.kind, body, link, view, &who.settings);
                let only_reads = takes_no_writes(head.kind, body);
                if let Some(cluster) = way.target.cluster.as_ref().filter(|_| only_reads) {
                    cluster.suspect();
                }
            }
            fits(head)?;
            let is_farewell = is_farewell(head.kind, link, keeps);
            let reply = link.server.outstanding.on_reply(head.kind).map_err(nonsense)?;
            if way.target.mode == Mode::Statement && head.kind == kind::READY_FOR_QUERY {
                is_over(link.server.status)?;
            }
            let is_refused = link.reading.as_ref().is_some_and(|reading| reading.is_refused);
            // Only then it may be the turn of an answer of ours.
            let ends = matches!(reply, Reply::Ends(_) | Reply::Fails(_));
            let swallows = match reply {
                Reply::Pass if head.kind == kind::NOTIFICATION_RESPONSE => {
                    if !link.listens && !pins.has(Suspicion::LISTENING) {
                        // Whatever had it listen was not seen.
                        link.suspicion |= Suspicion::LISTENING;
                    }
                    let told = rest
                        .get(HEADER..head.whole())
                        .and_then(|body| listening::told(body, ears.as_deref(), &link.server, key.parts().0));
                    cut.skip(at, at + head.whole());
                    cut.insert(at + head.whole()).extend_from_slice(&told.unwrap_or_default());
                    false
                }
                Reply::Pass => false,
                Reply::Swallow => true,
                Reply::Done(entry) => {
                    link.ended(entry);
                    false
                }
                Reply::Ends(entry) => {
                    link.ended(entry);
                    let is_ready = head.kind == kind::READY_FOR_QUERY;
                    is_ready && is_not_the_end(link, up, way.target.mode) || entry.is_swallowed()
                }
                Reply::Fails(failed) => {
                    let about = link.void(failed, names, &mut unnamed.number);
                    again::heed(link, failed, about, rest.get(HEADER..head.whole()).unwrap_or_default());
                    // Behind that: what was believed of names since is taken back first.
                    let body = rest.get(HEADER..head.whole()).filter(|_| !is_refused);
                    if let Some(error) = body.and_then(|body| in_its_words(link, failed, body, names)) {
                        cut.skip(at, at + head.whole());
                        cut.insert(at + head.whole()).extend_from_slice(&error);
                    }
                    link.server.again.is_due()
                }
            };
            let swallows = swallows || is_farewell || (is_refused && head.kind != kind::PARAMETER_STATUS);
            at = down.begin(bytes, at, head, swallows, cut);
            if ends && down.is_between() {
                push_synthetic(link, at, cut);
            }
        }
        Ok(at)
    }
}

/// Servers say no more in a notification: whom it is for has to be read in it.
fn fits(head: Head) -> Result<(), Fault> {
    if head.kind == kind::NOTIFICATION_RESPONSE && head.whole() > READ_MAX {
        return Err(nonsense(std::io::Error::other("a notification is longer than any")));
    }
    Ok(())
}

/// Passes over what is plainly an answer to the client and as plainly not the end of it: by far the most of
/// what servers say. Says where the first message lies that is to be looked at, or is not there in whole.
fn skim(bytes: &[u8], mut at: usize, link: &Link) -> usize {
    if link.reading.is_some() || !link.server.outstanding.passes_rows() {
        return at;
    }
    let hears_tags = link.suspicion.has(Suspicion::DISCARDED) || !link.tracked.is_empty();
    while let Some([kind, length @ ..]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
        let end = (at + 1).saturating_add(u32::from_be_bytes(*length) as usize);
        let is_plain = match *kind {
            kind::DATA_ROW => true,
            kind::ROW_DESCRIPTION => link.server.outstanding.is_query(),
            kind::COMMAND_COMPLETE => link.server.outstanding.is_query() && !hears_tags,
            _ => false,
        };
        if !is_plain || end < at + HEADER || end > bytes.len() {
            break;
        }
        at = end;
    }
    at
}

/// Whether the client is not told yet that its server is ready: something is asked again, or what was said
/// of channels goes before.
fn is_not_the_end(link: &mut Link, up: &mut Up, mode: Mode) -> bool {
    if link.server.again.is_due() {
        again::ask(link, up.held.bytes());
        up.armed = false;
        return true;
    }
    let channels = mode != Mode::Session && link.waits_for_channels();
    // What it began with it may get back, and is told so before it goes on.
    let waits = (channels || link.resets && link.is_free()) && up.is_between();
    if waits {
        (link.owes_ready, link.full) = (true, true);
    }
    waits
}

/// Whether a statement is over, and not the beginning of a transaction of several: asked when its server owes
/// no answer to it any more, and may be put in order.
fn is_over(status: Status) -> Result<(), Fault> {
    if status == Status::Idle {
        return Ok(());
    }
    let fault = Fault::new(Stage::Relay, Whose::Client, Reason::ProtocolError);
    Err(fault.because("transactions of several statements are not allowed here"))
}

impl Down {
    /// Lets a message of `head` at `at` pass, or leaves it out, as far as it is there; says where the next
    /// one begins.
    fn begin(&mut self, bytes: &[u8], at: usize, head: Head, swallows: bool, cut: &mut Cut<'_>) -> usize {
        (self.left, self.swallows) = (head.length, swallows);
        if swallows {
            cut.skip(at, at + HEADER);
        }
        self.pass_body(bytes, at + HEADER, cut)
    }

    /// Passes on what `bytes` have of a message that was passed on in part, and behind its end what stands
    /// there of ours; says where the next one begins.
    fn end_body(&mut self, bytes: &[u8], link: &mut Link, cut: &mut Cut<'_>) -> usize {
        if self.is_between() {
            return 0;
        }
        let at = self.pass_body(bytes, 0, cut);
        if self.is_between() {
            push_synthetic(link, at, cut);
        }
        at
    }

    fn pass_body(&mut self, bytes: &[u8], at: usize, cut: &mut Cut<'_>) -> usize {
        if self.left == 0 {
            return at;
        }
        let there = (self.left as usize).min(bytes.len() - at);
        self.left -= there as u32;
        if self.swallows {
            cut.skip(at, at + there);
        }
        at + there
    }
}

/// Whether the server goes, and owes nothing: its client gets another when it asks for one.
fn is_farewell(kind: u8, link: &Link, keeps: bool) -> bool {
    kind == kind::ERROR_RESPONSE && link.fatal && link.owes_nothing() && !keeps
}

/// Whether a message of `kind` is read, and not just passed on.
fn must_be_whole(kind: u8, link: &Link) -> bool {
    match kind {
        kind::READY_FOR_QUERY
        | kind::PARAMETER_STATUS
        | kind::ERROR_RESPONSE
        | kind::NOTIFICATION_RESPONSE => true,
        kind::COMMAND_COMPLETE => link.suspicion.has(Suspicion::DISCARDED),
        _ => false,
    }
}

/// Whether a message says that the server, or the transaction, only reads.
fn takes_no_writes(kind: u8, body: &[u8]) -> bool {
    kind == kind::ERROR_RESPONSE && Notice::read(body).is_some_and(|said| said.code == Some(READ_ONLY))
}

/// Takes note of a message.
fn hear(kind: u8, body: &[u8], link: &mut Link, view: &mut Arc<Reported>, began: &Settings) {
    let server = &mut *link.server;
    match kind {
        kind::READY_FOR_QUERY => {
            server.status = body.first().and_then(|byte| Status::from_byte(*byte)).unwrap_or(Status::Failed);
            link.clocked.answered();
            link.pace.ready(server.status);
        }
        kind::PARAMETER_STATUS => {
            if let Some((name, value)) = backend::parameter(body) {
                server.reported = server.reported.with(name, value);
                *view = server.reported.clone();
                link.suspicion |= Suspicion::SETTINGS;
                link.resets |= began.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
            }
        }
        kind::ERROR_RESPONSE => {
            link.fatal |= Notice::read(body).is_some_and(|notice| notice.is_fatal());
        }
        // Only the tag proves that it was done.
        kind::COMMAND_COMPLETE => {
            if matches!(backend::tag(body), Some(b"DISCARD ALL" | b"DEALLOCATE ALL")) {
                server.prepared.clear();
                link.all_gone = true;
            }
        }
        _ => {}
    }
}

/// Appends the answers that are ours to give, now that their turn has come.
#[inline]
pub(crate) fn push_synthetic(link: &mut Link, at: usize, cut: &mut Cut<'_>) {
    if link.server.outstanding.is_synthetic() {
        push_all_synthetic(link, at, cut);
    }
}

fn push_all_synthetic(link: &mut Link, at: usize, cut: &mut Cut<'_>) {
    while let Some(entry) = link.server.outstanding.take_synthetic() {
        let kind = if entry.asked() == Asked::Close { kind::CLOSE_COMPLETE } else { kind::PARSE_COMPLETE };
        push_bare(cut.insert(at), kind);
        link.ended(entry);
    }
}

/// What the client is told in place of the error of `body`, where that is not what the server said: it speaks
/// of what `failed` as the server knows it.
fn in_its_words(link: &mut Link, failed: Entry, body: &[u8], names: &Names) -> Option<Vec<u8>> {
    let renamed = link.renamed.take().filter(|_| failed.is_unnamed());
    let told = patience::cancelled(link, body).or_else(|| rename(body, names));
    let placed = renamed.and_then(|renamed| {
        let body = told.as_deref().map_or(body, |told| &told[HEADER..]);
        renamed.in_error(body)
    });
    placed.or(told)
}

/// The error of `body` in the client's words, if it names a statement as we call it.
fn rename(body: &[u8], names: &Names) -> Option<Vec<u8>> {
    let at = memchr::memmem::find(body, NAME_PREFIX)?;
    let length = body[at + NAME_PREFIX.len()..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let ours = &body[at..at + NAME_PREFIX.len() + length];
    let theirs = names.called(ours)?;
    let mut error = vec![kind::ERROR_RESPONSE, 0, 0, 0, 0];
    error.extend_from_slice(&body[..at]);
    error.extend_from_slice(theirs);
    error.extend_from_slice(&body[at + ours.len()..]);
    let stated = u32::try_from(error.len() - 1).ok()?;
    error[1..HEADER].copy_from_slice(&stated.to_be_bytes());
    Some(error)
}

fn nonsense(error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::new(Stage::Relay, Whose::Upstream, Reason::UpstreamProtocolError).because(error)
}
