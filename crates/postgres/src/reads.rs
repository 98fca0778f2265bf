//! What of a client's work servers that only read are asked, though its route leads to the primary:
//! transactions that are said to only read, and single statements that surely do. What is not sure goes to
//! the primary.

use tieline_base::{Clock, Moment};
use tieline_pool::Purpose;
use tieline_wire::postgres::backend::{self, Notice, Status};
use tieline_wire::postgres::frontend::{self, Bind, Object, Parse, kind};
use tieline_wire::postgres::reading::{Sort, may_allow_writes, sort};
use tieline_wire::postgres::{HEADER, Head};

use crate::link::Link;
use crate::roles::WRITES;
use crate::site::Target;
use crate::statements::Names;
use crate::talk::{Talk, Unnamed};

/// What a route that leads to the primary leaves to replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaReads {
    /// Single statements that surely only read, and not only transactions that are said to.
    pub statements: bool,
    /// A client reads only from replicas that have all that it has written.
    pub own_writes: bool,
}

/// A batch, up to the Sync that ends it, or a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Batch {
    /// It surely only reads. So long it is; whether it may be asked again elsewhere while nothing was
    /// answered.
    Reads { length: usize, repeats: bool },
    /// It begins a transaction that is said to only read.
    Begins,
    /// It ends a transaction.
    Ends,
    /// It may do anything.
    Other,
    /// More of it must be there.
    More,
}

/// What a client does that such a route leads.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// What it wants a server for.
    next: Option<Batch>,
    /// When it last gave back a server that it may have written at; the beginning of time if it never did.
    wrote: Moment,
    /// Where it asked was refused: the same goes to the primary.
    refused: bool,
}

impl Reads {
    /// The client holds `link` no more.
    pub(crate) fn ends(&mut self, link: &Link) {
        if link.reading.is_none() && (link.acted || link.batches > 0) {
            // Behind the last answer, so behind all that it wrote.
            self.wrote = Clock::now();
        }
    }
}

/// A link that began with a batch that only reads, or a transaction that is said to.
#[derive(Debug)]
pub(crate) struct Reading {
    /// What it began with, until that is on its way.
    first: Option<Batch>,
    /// The server takes no writes.
    is_replica: bool,
    /// What was asked and is not answered yet, as the client said it; empty if it is not to be asked again.
    asked: Vec<u8>,
    /// The server cannot do what it was asked: what it says of it is heard by nobody.
    pub(crate) is_refused: bool,
}

/// What a batch may do is not looked for beyond so many bytes.
const LENGTH_MAX: usize = 32 * 1024;

/// After so many servers in a row that were lost before they were asked anything, the client is told.
const LOST_MAX: u8 = 8;

/// An answer that has not really begun after so many bytes is passed on as it is.
const PREAMBLE_MAX: usize = 64 * 1024;

/// What the batch that begins `bytes` is.
fn batch(bytes: &[u8], names: &Names, unnamed: &Unnamed) -> Batch {
    match Head::read(bytes) {
        Ok(None) => Batch::More,
        Ok(Some(head)) if head.kind == kind::QUERY => match whole(bytes, 0, head) {
            Ok(body) => simple(body, head.whole()),
            Err(batch) => batch,
        },
        Ok(Some(_)) => extended(bytes, names, unnamed),
        Err(_) => Batch::Other,
    }
}

/// The body of the message of `head` at `at`.
fn whole(bytes: &[u8], at: usize, head: Head) -> Result<&[u8], Batch> {
    let end = at + head.whole();
    if end > LENGTH_MAX {
        return Err(Batch::Other);
    }
    bytes.get(at + HEADER..end).ok_or(Batch::More)
}

fn simple(body: &[u8], length: usize) -> Batch {
    match frontend::query(body).map(sort) {
        Some(Sort::Read) => Batch::Reads { length, repeats: true },
        Some(Sort::BeginsReadOnly) => Batch::Begins,
        Some(Sort::Ends) => Batch::Ends,
        _ => Batch::Other,
    }
}

/// A batch of the extended protocol, up to its Sync: all of it is one transaction at one server.
fn extended(bytes: &[u8], names: &Names, unnamed: &Unnamed) -> Batch {
    let mut all = Texts { names, unnamed, new: Vec::new(), of_batch: None, repeats: true, is_bound: false };
    let mut at = 0;
    loop {
        let head = match Head::read(&bytes[at..]) {
            Ok(Some(head)) => head,
            Ok(None) if bytes.len() < LENGTH_MAX => return Batch::More,
            _ => return Batch::Other,
        };
        let body = match whole(bytes, at, head) {
            Ok(body) => body,
            Err(batch) => return batch,
        };
        at += head.whole();
        if head.kind == kind::SYNC {
            break;
        }
        if all.take(head.kind, body).is_none() {
            return Batch::Other;
        }
    }
    match all.of_batch {
        Some(Sort::Read) => Batch::Reads { length: at, repeats: all.repeats },
        Some(Sort::BeginsReadOnly) => Batch::Begins,
        Some(Sort::Ends) => Batch::Ends,
        _ => Batch::Other,
    }
}

/// The texts that a batch speaks of.
struct Texts<'b> {
    names: &'b Names,
    unnamed: &'b Unnamed,
    /// The statements that the batch itself prepares, by name.
    new: Vec<(&'b [u8], Sort)>,
    of_batch: Option<Sort>,
    repeats: bool,
    is_bound: bool,
}

impl<'b> Texts<'b> {
    /// Takes a message; `None` if it may be anything.
    fn take(&mut self, message: u8, body: &'b [u8]) -> Option<()> {
        match message {
            kind::PARSE => {
                let parse = Parse::read(body)?;
                let sort = sort(parse.sql);
                // A name can be given once.
                self.repeats &= parse.name.is_empty();
                self.new.retain(|(name, _)| *name != parse.name);
                self.new.push((parse.name, sort));
                self.join(sort)
            }
            kind::BIND => {
                self.is_bound = true;
                let sort = self.of(Bind::read(body)?.statement)?;
                self.join(sort)
            }
            kind::DESCRIBE => match Object::read(body)? {
                Object::Statement(name) => {
                    let sort = self.of(name)?;
                    self.join(sort)
                }
                Object::Portal(_) => self.is_bound.then_some(()),
            },
            kind::EXECUTE => self.is_bound.then_some(()),
            // Behind a Flush the rest is not known, and a name that was closed is gone.
            _ => None,
        }
    }

    /// What the statement is that is called so.
    fn of(&self, name: &[u8]) -> Option<Sort> {
        if let Some((_, sort)) = self.new.iter().find(|(new, _)| *new == name) {
            return Some(*sort);
        }
        if !name.is_empty() {
            return self.names.get(name).map(|statement| statement.sort());
        }
        let kept = self.unnamed.number != 0 && !self.unnamed.types.is_empty();
        kept.then(|| sort(&self.unnamed.sql))
    }

    fn join(&mut self, sort: Sort) -> Option<()> {
        let joined = match (self.of_batch, sort) {
            (_, Sort::Other) => return None,
            (None, sort) => sort,
            (Some(before), sort) if before == sort => sort,
            (Some(Sort::BeginsReadOnly), Sort::Read) => Sort::BeginsReadOnly,
            _ => return None,
        };
        self.of_batch = Some(joined);
        Some(())
    }
}

/// What a client needs of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// What its route says.
    Usual,
    /// One that can be read from, with all that the client wrote: for the last time then, or never if that is
    /// the beginning of time.
    Reads { wrote: Moment },
}

impl Need {
    /// What the pool is asked for, now.
    fn purpose(self, target: &Target) -> Purpose {
        match (self, &target.cluster) {
            (Need::Reads { wrote }, Some(cluster)) => cluster.reads(wrote),
            _ => target.purpose(),
        }
    }

    /// Returns when servers that are fit for `purpose` are not what is needed any more.
    pub(crate) async fn changes_from(self, purpose: Purpose, target: &Target) {
        let Some(cluster) = &target.cluster else { return std::future::pending().await };
        loop {
            // Before it is looked at, so that no change is missed.
            let changed = cluster.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.purpose(target) != purpose {
                return;
            }
            changed.await;
        }
    }
}

/// What becomes of a batch at the server that its client holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    Pass,
    /// More of it must be there.
    More,
    /// It waits until the server is free, and may go elsewhere then.
    Wait,
}

impl Talk {
    /// Notes what the client wants a server for; true if more of that must be there.
    pub(crate) fn foresee(&mut self, rest: &[u8]) -> bool {
        let Talk { reads, names, unnamed, way, .. } = self;
        let (Some(reads), Some(_)) = (reads, way.target.reads) else { return false };
        let batch = batch(rest, names, unnamed);
        reads.next = Some(batch);
        batch == Batch::More
    }

    /// What the client needs of a server.
    pub(crate) fn need(&self) -> Need {
        let (Some(reads), Some(wanted)) = (&self.reads, self.way.target.reads) else { return Need::Usual };
        let leaves = match reads.next {
            _ if reads.refused || self.settings.are_serializable() => false,
            Some(Batch::Reads { .. }) => wanted.statements,
            next => next == Some(Batch::Begins),
        };
        let wrote = if wanted.own_writes { reads.wrote } else { Moment::default() };
        if leaves { Need::Reads { wrote } } else { Need::Usual }
    }

    /// What the pool is asked for, now.
    pub(crate) fn purpose(&self) -> Purpose {
        self.need().purpose(&self.way.target)
    }

    /// Whether a server that was asked for `purpose` is still what the client needs.
    pub(crate) fn still_needs(&self, purpose: Purpose) -> bool {
        self.reads.is_none() || purpose == self.purpose()
    }

    /// What was foreseen gets no server.
    pub(crate) fn forget_foreseen(&mut self) {
        if let Some(reads) = &mut self.reads {
            (reads.next, reads.refused) = (None, false);
        }
    }

    /// The client holds a server for what was foreseen.
    pub(crate) fn begin_reading(&mut self) {
        let (Some(reads), Some(link)) = (&mut self.reads, &mut self.link) else { return };
        let refused = std::mem::take(&mut reads.refused);
        if let Some(first @ (Batch::Reads { .. } | Batch::Begins)) = reads.next.take() {
            let is_replica = !refused && !link.loan.endpoint().fit().has(WRITES);
            let (first, asked) = (Some(first), Vec::new());
            link.reading = Some(Box::new(Reading { first, is_replica, asked, is_refused: false }));
        }
    }

    /// Whether the message that begins `rest` may go to the server, which is only asked to read so far.
    pub(crate) fn gate(&mut self, head: Head, rest: &[u8]) -> Gate {
        const BEGINS: &[u8] = b"QPBDECF";
        let kept = self.keeps_server();
        let Talk { link, names, unnamed, way, .. } = self;
        let Some(link) = link else { return Gate::Pass };
        let outstanding = &link.server.outstanding;
        let Some(reading) = &mut link.reading else { return Gate::Pass };
        if reading.is_refused {
            return Gate::Wait;
        }
        if kept || outstanding.is_open() {
            return Gate::Pass;
        }
        if !BEGINS.contains(&head.kind) {
            // A Sync of its own has an answer of its own.
            reading.asked.clear();
            return Gate::Pass;
        }
        let is_empty = outstanding.is_empty();
        if is_empty && link.server.status != Status::Idle {
            if !reading.is_replica && may_unlock(head, rest, names, unnamed) {
                link.reading = None;
            }
            return Gate::Pass;
        }
        let statements = way.target.reads.is_some_and(|reads| reads.statements);
        reading.asked.clear();
        match reading.first.take().unwrap_or_else(|| batch(rest, names, unnamed)) {
            Batch::More => Gate::More,
            Batch::Reads { length, repeats } if statements || !reading.is_replica => {
                if repeats && reading.is_replica && is_empty {
                    reading.asked.extend_from_slice(rest.get(..length).unwrap_or_default());
                }
                Gate::Pass
            }
            Batch::Begins | Batch::Ends => Gate::Pass,
            Batch::Reads { .. } | Batch::Other if reading.is_replica && !is_empty => Gate::Wait,
            Batch::Reads { .. } | Batch::Other => {
                link.reading = None;
                Gate::Pass
            }
        }
    }

    /// Takes what a server that only reads has begun to say; true if nobody is to hear of it before more is
    /// known.
    pub(crate) fn hears_nothing_yet(&mut self, bytes: &[u8]) -> bool {
        let reading = self.link.as_mut().and_then(|link| link.reading.as_mut());
        let Some(reading) = reading.filter(|reading| reading.listens()) else { return false };
        match reading.hear(bytes) {
            Heard::Nothing => true,
            Heard::Answers => false,
            Heard::Refuses => {
                self.connection.record().note("the replica cannot do that: the primary is asked");
                false
            }
        }
    }

    /// The server cannot do what it was asked, and has said so to the end: the primary is asked the same.
    pub(crate) fn ask_the_primary(&mut self) {
        let refuses = |link: &Link| link.reading.as_ref().is_some_and(|reading| reading.is_refused);
        if self.link.as_ref().is_some_and(|link| refuses(link) && link.is_free()) {
            self.ask_again();
        }
    }

    /// Whether the server was asked nothing yet: what it says now is its farewell, and another will do.
    pub(crate) fn is_untouched(&self) -> bool {
        let Some(link) = &self.link else { return false };
        let asked = link.acted || link.batches > 0 || !self.down.is_between();
        !asked && link.owes_nothing() && !self.keeps_server() && self.up.is_between() && self.lost < LOST_MAX
    }

    /// The server is gone; true if nothing is lost by that, as what it was asked is asked again elsewhere, or
    /// it was asked nothing.
    pub(crate) fn loses_nothing(&mut self) -> bool {
        if self.is_untouched() {
            self.up.again = !self.up.pending.is_empty();
            self.lost += 1;
        } else if !self.ask_again() {
            return false;
        } else {
            self.connection.record().note("the replica is gone: the primary is asked");
        }
        if let Some(cluster) = &self.way.target.cluster {
            cluster.suspect();
        }
        self.key.idle();
        self.up.held = Default::default();
        self.tell_and_drop();
        true
    }

    /// What was asked and not answered is asked again, at the primary. False if it was answered in part, or
    /// that is not known.
    fn ask_again(&mut self) -> bool {
        let (Some(reads), Some(link)) = (&mut self.reads, &mut self.link) else { return false };
        let Some(reading) = link.reading.as_mut().filter(|reading| !reading.asked.is_empty()) else {
            return false;
        };
        let mut again = std::mem::take(&mut reading.asked);
        again.append(&mut self.up.pending);
        (self.up.pending, self.up.again) = (again, true);
        reads.refused = true;
        true
    }
}

/// Whether a message in a transaction that is said to only read may take that back.
fn may_unlock(head: Head, rest: &[u8], names: &Names, unnamed: &Unnamed) -> bool {
    let body = rest.get(HEADER..head.whole());
    let may = match head.kind {
        kind::QUERY => body.and_then(frontend::query).map(may_allow_writes),
        kind::PARSE => body.and_then(Parse::read).map(|parse| may_allow_writes(parse.sql)),
        kind::BIND => body.and_then(Bind::read).map(|bind| match bind.statement {
            b"" => may_allow_writes(&unnamed.sql),
            name => names.get(name).is_none_or(|statement| may_allow_writes(&statement.sql)),
        }),
        kind::DESCRIBE | kind::EXECUTE | kind::CLOSE => Some(false),
        _ => None,
    };
    may.unwrap_or(true)
}

/// What a server has begun to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Nothing that tells yet.
    Nothing,
    /// It answers.
    Answers,
    /// It cannot do that, where the primary may.
    Refuses,
}

impl Reading {
    /// Whether what the server says is listened to before the client hears of it.
    pub(crate) fn listens(&self) -> bool {
        !self.asked.is_empty() && !self.is_refused
    }

    /// Takes what the server has said so far.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Heard {
        let heard = heard(bytes);
        match heard {
            Heard::Nothing if bytes.len() <= PREAMBLE_MAX => return Heard::Nothing,
            Heard::Refuses => self.is_refused = true,
            Heard::Answers | Heard::Nothing => {
                self.asked.clear();
                return Heard::Answers;
            }
        }
        heard
    }
}

fn heard(bytes: &[u8]) -> Heard {
    let mut at = 0;
    while let Ok(Some(head)) = Head::read(&bytes[at..]) {
        use backend::kind;
        match head.kind {
            kind::PARSE_COMPLETE
            | kind::BIND_COMPLETE
            | kind::PARAMETER_DESCRIPTION
            | kind::ROW_DESCRIPTION
            | kind::NO_DATA
            | kind::NOTICE_RESPONSE
            | kind::PARAMETER_STATUS => at += head.whole(),
            kind::ERROR_RESPONSE => {
                let Some(body) = bytes.get(at + HEADER..at + head.whole()) else { return Heard::Nothing };
                let code = Notice::read(body).and_then(|said| said.code);
                return if code.is_some_and(is_of_replicas) { Heard::Refuses } else { Heard::Answers };
            }
            _ => return Heard::Answers,
        }
        if at > bytes.len() {
            break;
        }
    }
    Heard::Nothing
}

/// Errors of which the primary may know better: it writes, what a replica lacks is there, and nothing that is
/// replayed is in its way.
fn is_of_replicas(code: &[u8]) -> bool {
    const CODES: &[u8] = b"25006 0A000 40001 40P01 42P01 42703 42704 42883 3F000 57P01";
    CODES.split(|byte| *byte == b' ').any(|known| known == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    fn parse(name: &str, sql: &str) -> Vec<u8> {
        message(kind::PARSE, format!("{name}\0{sql}\0\0\0").as_bytes())
    }

    fn bind(statement: &str) -> Vec<u8> {
        message(kind::BIND, format!("\0{statement}\0\0\0\0\0\0\0").as_bytes())
    }

    fn execute() -> Vec<u8> {
        message(kind::EXECUTE, &[0; 5])
    }

    fn sync() -> Vec<u8> {
        message(kind::SYNC, b"")
    }

    fn query(sql: &str) -> Vec<u8> {
        message(kind::QUERY, format!("{sql}\0").as_bytes())
    }

    fn of(parts: &[Vec<u8>]) -> Batch {
        let mut names = Names::default();
        names.insert(b"reads"[..].into(), statements::statement(b"select 1", &[0; 2], b""));
        names.insert(b"writes"[..].into(), statements::statement(b"delete from t", &[0; 2], b""));
        batch(&parts.concat(), &names, &Unnamed::default())
    }

    #[test]
    fn a_batch_is_what_all_of_its_texts_are() {
        let length = |parts: &[Vec<u8>]| parts.concat().len();
        let reads = |parts: &[Vec<u8>], repeats| Batch::Reads { length: length(parts), repeats };
        let unnamed = [parse("", "select $1"), bind(""), execute(), sync()];
        assert_eq!(of(&unnamed), reads(&unnamed, true));
        let named = [bind("reads"), execute(), sync()];
        assert_eq!(of(&named), reads(&named, true));
        let new = [parse("new", "select 1"), bind("new"), execute(), bind("reads"), execute(), sync()];
        assert_eq!(of(&new), reads(&new, false));
        for parts in [
            vec![parse("", "select 1"), bind(""), execute(), bind("writes"), execute(), sync()],
            vec![parse("", "select 1"), bind(""), execute(), parse("", "delete from t"), sync()],
            vec![parse("", "select 1"), message(kind::FLUSH, b"")],
            vec![bind("unknown"), execute(), sync()],
            vec![bind(""), execute(), sync()],
            vec![execute(), sync()],
            vec![message(kind::FUNCTION_CALL, b"x")],
            vec![parse("", "select 1"), query("select 1"), sync()],
            vec![query("delete from t")],
            vec![parse("", "begin read only"), bind(""), execute(), parse("", "commit"), sync()],
        ] {
            assert_eq!(of(&parts), Batch::Other, "{parts:?}");
        }
        assert_eq!(of(&[query("begin read only")]), Batch::Begins);
        let begins = [parse("", "begin read only"), bind(""), execute(), bind("reads"), execute(), sync()];
        assert_eq!(of(&begins), Batch::Begins);
        assert_eq!(of(&[query("commit")]), Batch::Ends);
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for_and_what_is_long_is_not() {
        let whole = [parse("", "select 1"), bind(""), execute(), sync()].concat();
        for end in 0..whole.len() {
            assert_eq!(of(&[whole[..end].to_vec()]), Batch::More, "{end}");
        }
        let long = query(&format!("select '{}'", "x".repeat(LENGTH_MAX)));
        assert_eq!(of(&[long[..100].to_vec()]), Batch::Other);
        let many: Vec<_> = (0..LENGTH_MAX / 6).map(|_| bind("reads")).collect();
        assert_eq!(of(&many), Batch::Other);
    }

    #[test]
    fn only_an_error_before_the_answer_is_a_refusal() {
        let error = |code: &str| message(b'E', format!("SERROR\0C{code}\0Mno\0\0").as_bytes());
        let rows = [message(b'1', b""), message(b'2', b""), message(b'T', b"\0\0")].concat();
        assert_eq!(heard(&rows), Heard::Nothing);
        assert_eq!(heard(&[rows.clone(), error("25006")].concat()), Heard::Refuses);
        assert_eq!(heard(&[rows.clone(), error("22012")].concat()), Heard::Answers);
        assert_eq!(heard(&[rows.clone(), message(b'D', b"\0\0"), error("25006")].concat()), Heard::Answers);
        let cut = [rows, error("25006")].concat();
        assert_eq!(heard(&cut[..cut.len() - 1]), Heard::Nothing);
        assert_eq!(heard(&message(b'Z', b"I")), Heard::Answers);
    }
}
