//! The way up: what the client says, and what of it the server hears.

use std::task::{Context, Poll};

use tieline_base::{Fault, Reason};
use tieline_transport::Watch;
use tieline_wire::postgres::backend::{Status, push_ready};
use tieline_wire::postgres::frontend::kind;
use tieline_wire::postgres::sql::{Scan, Suspicion};
use tieline_wire::postgres::{BadFrame, HEADER, Head};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::has_budget_remaining;

use crate::at_once::Got;
use crate::census::Count;
use crate::down::push_synthetic;
use crate::held::Held;
use crate::link::Link;
use crate::outstanding::Asked;
use crate::placed::{NAMED_MAX, NAMES_MAX, Placed, Step, UNNAMED_KEPT, asked_by, outstanding_push};
use crate::reads::Gate;
use crate::scratch::{self, Cut};
use crate::site::Mode;
use crate::talk::{Next, Talk, client_gone, violation};

/// The client's side of the way up.
#[derive(Debug, Default)]
pub(crate) struct Up {
    /// What the client said and was not passed on: the beginning of a message of which more must be known, or
    /// what waits for a server.
    pub(crate) pending: Vec<u8>,
    /// It is gone through again when there is so much of it.
    needs: usize,
    /// What waits may go on.
    pub(crate) again: bool,
    /// What the server does not take yet.
    pub(crate) held: Held,
    /// The next byte of the client wakes it.
    pub(crate) armed: bool,
    /// While it waits in line, whether it is still there is looked at now and then.
    pub(crate) watch: Watch,
    /// How much of a message that passes is still to come.
    left: u32,
    /// Whether it is left out.
    drops: bool,
    /// Its SQL is looked at as it passes.
    scan: Option<Box<Scan>>,
    /// What the client says up to its next Sync is void.
    pub(crate) voids: bool,
    /// How many bytes were told of so far: from the client, and to it.
    pub(crate) told: (u64, u64),
}

/// Why the way up stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// There is no more, or more is needed of what there is.
    More,
    /// A server is needed.
    Link,
    /// It is waited for.
    Waits,
    /// Others have their turn first.
    Full,
    /// The client takes leave.
    Leave,
    /// What it says means nothing: it is told so behind the answers to what came before.
    Break,
}

/// So much may be owed by a server before the client must listen first.
const OUTSTANDING_MAX: usize = 1 << 14;

/// So much of what the client does not take may be held before nothing more is heard of it. Only answers of
/// our own come to that: what servers say waits for them.
const HELD_MAX: usize = 256 * 1024;

/// After so many batches a client lets others have a turn, if any wait.
const BATCHES_MAX: u32 = 16;

impl Up {
    pub(crate) fn new(pending: Vec<u8>) -> Self {
        Self { again: !pending.is_empty(), pending, ..Self::default() }
    }

    /// Leaves out the rest of a message, so many bytes of which are still to come.
    pub(crate) fn skip_rest(&mut self, left: u32) {
        (self.left, self.drops, self.scan) = (left, left > 0, None);
    }

    /// Leaves out the message of `head`, with which what waits begins.
    pub(crate) fn drop_first(&mut self, head: Head) {
        let there = head.whole().min(self.pending.len());
        self.pending.drain(..there);
        self.skip_rest((head.whole() - there.max(HEADER)) as u32);
    }

    /// Whether nothing of the client's waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.is_between()
    }

    /// Whether no message is on its way in part.
    pub(crate) fn is_between(&self) -> bool {
        self.left == 0 && self.held.is_empty()
    }
}

impl Talk {
    /// Passes on what the client says.
    pub(crate) fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<Poll<Option<Next>>, Fault> {
        if self.down.held.len() > HELD_MAX {
            // Whoever does not listen is waited for on the way down.
            return Ok(Poll::Pending);
        }
        if let Some(link) = &mut self.link {
            if let Err(error) = match self.up.held.poll_flush(&mut link.io, cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(flushed) => flushed,
            } {
                return self.unheard(error);
            }
            // What is asked again goes before what the client asks next.
            let is_due = link.server.again.is_due();
            if link.full || is_due || link.server.outstanding.len() > OUTSTANDING_MAX {
                return Ok(Poll::Pending);
            }
        }
        if self.leaving {
            // What was asked in whole is done, and what was not is void.
            if self.link.as_ref().is_some_and(|link| link.server.outstanding.will_be_ready()) {
                return Ok(Poll::Pending);
            }
            let left = Next::Leave(Reason::ClientClosed);
            return self.broke.take().map_or(Ok(Poll::Ready(Some(left))), Err);
        }
        let again = std::mem::take(&mut self.up.again);
        if !again && self.io.poll_readable(cx).is_pending() {
            self.up.armed = has_budget_remaining();
            return Ok(Poll::Pending);
        }
        scratch::with(|input, out| {
            if again {
                let pending = std::mem::take(&mut self.up.pending);
                return self.pass_up(&pending, out, cx).map(Poll::Ready);
            }
            let mut space = ReadBuf::new(input);
            if std::pin::Pin::new(&mut self.io).poll_read(cx, &mut space).map_err(client_gone)?.is_pending() {
                self.up.armed = has_budget_remaining();
                return Ok(Poll::Pending);
            }
            let read = space.filled();
            if read.is_empty() {
                return Ok(Poll::Ready(Some(Next::Leave(Reason::ClientClosed))));
            }
            let (now, length) = (self.now(), read.len() as u64);
            let record = self.connection.record();
            record.moved_by(true, length, now);
            self.way.pool.count(record.worker(), Count::Received, length);
            if self.up.pending.is_empty() {
                return self.pass_up(read, out, cx).map(Poll::Ready);
            }
            self.up.pending.extend_from_slice(read);
            if self.up.pending.len() < self.up.needs {
                return Ok(Poll::Ready(None));
            }
            let whole = std::mem::take(&mut self.up.pending);
            self.pass_up(&whole, out, cx).map(Poll::Ready)
        })
    }

    /// The server does not listen any more: what it said last says why.
    fn unheard(&mut self, _error: std::io::Error) -> Result<Poll<Option<Next>>, Fault> {
        self.up.held = Held::default();
        Ok(Poll::Pending)
    }

    fn pass_up(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Next>, Fault> {
        let mut cut = Cut::new(bytes, out);
        let mut end = 0;
        let is_first = self.up.left == 0 && self.link.as_ref().is_none_or(Link::is_free);
        let stop = self.scan_up(bytes, &mut cut, &mut end).unwrap_or_else(|fault| {
            self.broke = Some(fault);
            Stop::Break
        });
        let outgoing = cut.finish(end);
        if let Some(link) = &mut self.link {
            link.server.again.keep(outgoing, is_first && self.up.left == 0, &link.server.outstanding);
            if !outgoing.is_empty() && self.up.held.send(&mut link.io, outgoing, cx).is_err() {
                self.up.held = Held::default();
            }
            if self.down.is_between() {
                let answers = self.down.held.bytes();
                push_synthetic(link, 0, &mut Cut::new(&[], answers));
            }
        }
        self.asked();
        if end < bytes.len() {
            self.up.pending = bytes[end..].to_vec();
            self.up.needs = needed(&self.up.pending);
        }
        // Whoever does not listen is waited for on the way down.
        let _ = self.down.held.poll_flush(&mut self.io, cx).map_err(client_gone)?;
        self.wait_for_what();
        match stop {
            // Whoever heard all from us that it asked has no need of a server.
            Stop::More => self.let_go(),
            Stop::Waits => Ok(None),
            Stop::Link => Ok(Some(Next::Link)),
            Stop::Full => {
                if let Some(link) = &mut self.link {
                    link.full = true;
                }
                Ok(None)
            }
            Stop::Leave | Stop::Break => {
                self.leaving = true;
                self.up.pending = Vec::new();
                Ok(None)
            }
        }
    }

    /// Goes through the messages in `bytes` and says why no further; `at` is how far they are passed on.
    fn scan_up(&mut self, bytes: &[u8], cut: &mut Cut<'_>, at: &mut usize) -> Result<Stop, Fault> {
        *at = self.up.pass_body(bytes, 0, &mut self.link, cut);
        while *at < bytes.len() {
            let rest = &bytes[*at..];
            let Some(head) = Head::read(rest).map_err(violation)? else { break };
            fits(head)?;
            if head.kind == kind::TERMINATE {
                return Ok(Stop::Leave);
            }
            if self.up.voids || self.link.is_none() {
                match self.alone(head)? {
                    Alone::Drops => *at = self.up.begin(bytes, *at, head, true, &mut self.link, cut),
                    // Whoever is slow to say it all holds no server meanwhile.
                    Alone::Links if must_be_whole(head, rest) => break,
                    Alone::Links if self.reads.is_some() && self.foresee(rest) => break,
                    Alone::Links => match self.link_at_once() {
                        Got::Server => {}
                        Got::Place => return Ok(Stop::Waits),
                        Got::Nothing => return Ok(Stop::Link),
                    },
                }
                continue;
            }
            if self.link.as_ref().is_some_and(|link| link.reading.is_some()) {
                match self.gate(head, rest) {
                    Gate::Pass => {}
                    Gate::More => break,
                    Gate::Wait => return Ok(Stop::Full),
                }
            }
            if must_be_whole(head, rest) && self.is_between_transactions() {
                // Nor does whoever had one a moment ago.
                break;
            }
            match self.linked(head, rest, *at, cut)? {
                Step::Pass => *at = self.up.begin(bytes, *at, head, false, &mut self.link, cut),
                Step::Drop => *at = self.up.begin(bytes, *at, head, true, &mut self.link, cut),
                Step::Begun(taken) => {
                    (self.up.left, self.up.drops) = ((head.whole() - taken) as u32, false);
                    *at = self.up.pass_body(bytes, *at + taken, &mut self.link, cut);
                }
                Step::More => break,
                Step::Wait => {
                    if let Some(link) = &mut self.link {
                        link.awaits = true;
                    }
                    return Ok(Stop::Full);
                }
            }
            if self.is_full() {
                return Ok(Stop::Full);
            }
        }
        Ok(Stop::More)
    }

    /// Whether its server goes to others when all that was asked so far is answered.
    fn is_between_transactions(&self) -> bool {
        let ends = |link: &Link| link.server.status == Status::Idle && !link.server.outstanding.is_open();
        self.link.as_ref().is_some_and(ends) && !self.keeps_server()
    }

    /// Whether what follows must wait, because others do and this client had its turn.
    fn is_full(&self) -> bool {
        let Some(link) = &self.link else { return false };
        link.batches >= BATCHES_MAX
            && !link.server.outstanding.is_open()
            && self.up.left == 0
            && !self.keeps_server()
            && link.loan.others_wait()
    }

    /// What becomes of a message while no server is held, or after an error of ours.
    fn alone(&mut self, head: Head) -> Result<Alone, Fault> {
        match head.kind {
            // What is malformed is the server's to refuse.
            kind::SYNC | kind::FLUSH if head.length > 0 && !self.up.voids => Ok(Alone::Links),
            kind::SYNC => {
                self.up.voids = false;
                let status = self.status();
                push_ready(self.down.held.bytes(), status);
                Ok(Alone::Drops)
            }
            // Nothing is owed that could be sent sooner; what is left of a COPY that failed is of no use.
            kind::FLUSH | kind::COPY_DATA | kind::COPY_DONE | kind::COPY_FAIL => Ok(Alone::Drops),
            kind::QUERY
            | kind::PARSE
            | kind::BIND
            | kind::DESCRIBE
            | kind::EXECUTE
            | kind::CLOSE
            | kind::FUNCTION_CALL => Ok(if self.up.voids { Alone::Drops } else { Alone::Links }),
            other => Err(violation(format!("invalid frontend message type {other}"))),
        }
    }

    /// What becomes of the message that begins `rest`, which lies at `at`.
    fn linked(&mut self, head: Head, rest: &[u8], at: usize, cut: &mut Cut<'_>) -> Result<Step, Fault> {
        let whole_session = self.way.target.mode == Mode::Session;
        let Talk { link, up, names, unnamed, .. } = self;
        let Some(link) = link else { return Ok(Step::More) };
        let body = &rest[HEADER..head.whole().min(rest.len())];
        let is_whole = rest.len() >= head.whole();
        let outstanding = &mut link.server.outstanding;
        if outstanding.is_skipping() && head.kind != kind::SYNC {
            return if is_known(head.kind) { Ok(Step::Pass) } else { Err(unknown(head.kind)) };
        }
        let mut place = Placed { link, names, unnamed, at, cut };
        match head.kind {
            kind::QUERY => {
                let step = place.query(head, body, is_whole, whole_session);
                if step == Step::Pass && !is_whole {
                    up.scan = Some(Box::default());
                }
                Ok(step)
            }
            kind::SYNC => {
                outstanding_push(place.link, Asked::Sync);
                place.link.batches += 1;
                Ok(Step::Pass)
            }
            kind::EXECUTE if whole_session => {
                // Which of its statements that is nobody has kept.
                place.link.suspicion |= place.unnamed.suspicion;
                Ok(place.execute(body))
            }
            kind::EXECUTE => Ok(place.execute(body)),
            kind::FUNCTION_CALL => {
                place.link.acted = true;
                outstanding_push(place.link, Asked::Function);
                // A function by its number: it may be any.
                place.link.suspicion |= Suspicion::ALL | Suspicion::UNSEEN;
                Ok(Step::Pass)
            }
            kind::COPY_DATA | kind::FLUSH => Ok(Step::Pass),
            kind::COPY_DONE | kind::COPY_FAIL => {
                place.link.server.outstanding.copy_ended();
                Ok(Step::Pass)
            }
            kind::PARSE | kind::BIND | kind::DESCRIBE | kind::CLOSE if whole_session => {
                if head.kind == kind::PARSE {
                    if is_whole {
                        place.reads(body);
                    } else {
                        up.scan = Some(Box::default());
                    }
                }
                place.link.pace.passed(head.kind);
                outstanding_push(place.link, asked_by(head.kind));
                Ok(Step::Pass)
            }
            kind::PARSE => {
                let step = place.parse(head, body, is_whole)?;
                if step == Step::Pass && !is_whole {
                    up.scan = Some(Box::default());
                }
                Ok(step)
            }
            kind::BIND => place.bind(head, body, is_whole),
            kind::DESCRIBE | kind::CLOSE => place.about(head, body, is_whole),
            other => Err(unknown(other)),
        }
    }
}

/// What becomes of a message where there is no server.
enum Alone {
    Drops,
    Links,
}

impl Up {
    /// Lets a message of `head` at `at` pass, or leaves it out, as far as it is there; says where the next
    /// one begins.
    fn begin(
        &mut self,
        bytes: &[u8],
        at: usize,
        head: Head,
        drops: bool,
        link: &mut Option<Link>,
        cut: &mut Cut<'_>,
    ) -> usize {
        (self.left, self.drops) = (head.length, drops);
        if drops {
            cut.skip(at, at + HEADER);
        }
        let at = self.pass_body(bytes, at + HEADER, link, cut);
        self.drops = drops && self.left > 0;
        at
    }

    fn pass_body(&mut self, bytes: &[u8], at: usize, link: &mut Option<Link>, cut: &mut Cut<'_>) -> usize {
        let there = (self.left as usize).min(bytes.len() - at);
        self.left -= there as u32;
        if self.drops {
            cut.skip(at, at + there);
        }
        if let Some(scan) = &mut self.scan {
            scan.feed(&bytes[at..at + there]);
            if self.left == 0
                && let (Some(scan), Some(link)) = (self.scan.take(), link)
            {
                let found = scan.finish();
                // What it is about is not known of a text that was not kept.
                let unsure = if found.has(Suspicion::SETTINGS) { Suspicion::LASTING } else { found };
                link.suspicion |= (found | unsure).without(Suspicion::SEQUENCES);
            }
        }
        at + there
    }
}

/// Whether nothing is done with the message of `head`, with which `rest` begins, before more of it is there.
fn must_be_whole(head: Head, rest: &[u8]) -> bool {
    if rest.len() >= head.whole() {
        return false;
    }
    match head.kind {
        kind::PARSE => match rest.get(HEADER) {
            None => true,
            Some(0) => head.whole() <= UNNAMED_KEPT,
            Some(_) => head.whole() <= NAMED_MAX,
        },
        kind::QUERY | kind::BIND | kind::DESCRIBE | kind::EXECUTE | kind::CLOSE | kind::FUNCTION_CALL => {
            head.whole() <= NAMES_MAX
        }
        _ => false,
    }
}

/// How much of the message of which there is only `pending` must be there for another look at it: twice as
/// much, so that one that comes byte by byte is not gone through for each of them, or all of it.
pub(crate) fn needed(pending: &[u8]) -> usize {
    let whole = Head::read(pending).ok().flatten().map_or(HEADER, Head::whole);
    whole.min(2 * pending.len())
}

/// Servers take no more of messages that are names and numbers.
///
/// # Errors
/// It is longer: no server would find the end of it.
fn fits(head: Head) -> Result<(), Fault> {
    const SMALL_MAX: u32 = 10_000;
    let small = b"DCEHScX".contains(&head.kind);
    if small && head.length + 4 > SMALL_MAX {
        return Err(violation(BadFrame { kind: head.kind, stated: head.length + 4 }));
    }
    Ok(())
}

fn is_known(message: u8) -> bool {
    const KNOWN: &[u8] = b"QPBDECHFSdcf";
    KNOWN.contains(&message)
}

fn unknown(message: u8) -> Fault {
    violation(format!("invalid frontend message type {message}"))
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn a_message_that_comes_byte_by_byte_is_looked_at_a_few_times() {
        let mut message = vec![b'P'];
        message.extend_from_slice(&4_000_000_u32.to_be_bytes());
        message.resize(4_000_001, b'x');
        let (mut looks, mut there) = (0, 1);
        while there < message.len() {
            there = needed(&message[..there]);
            looks += 1;
        }
        assert_eq!(there, message.len(), "nothing behind it is waited for");
        assert!(looks < 30, "{looks}");
    }
}
