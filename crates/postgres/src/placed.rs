//! Messages about prepared statements on their way up: what the server is told instead of the client's names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use tieline_base::Fault;
use tieline_wire::postgres::backend::Status;
use tieline_wire::postgres::frontend::{self, Bind, Object, Parse, kind};
use tieline_wire::postgres::sql::{Suspicion, suspect};
use tieline_wire::postgres::{HEADER, Head};

use crate::link::{Link, Tracked, UNKNOWN};
use crate::outstanding::{Asked, Entry};
use crate::scratch::Cut;
use crate::statements::{self, NAME_MAX, Names, Statement};
use crate::talk::{Unnamed, violation};
use crate::translate::{Named, Verb};

/// A statement of this length or less is kept, so that it can be made again at another server.
pub(crate) const UNNAMED_KEPT: usize = 256 * 1024;

/// The longest named statement: it is kept for as long as its name.
pub(crate) const NAMED_MAX: usize = 4 << 20;

/// The longest of the messages that are names alone.
pub(crate) const NAMES_MAX: usize = 64 * 1024;

/// It is closed again at once: a client may call its own so.
const PORTAL: &[u8] = b"tieline";

static FORGETS: LazyLock<Arc<Statement>> =
    LazyLock::new(|| statements::statement(b"DISCARD SEQUENCES", &[0; 2], b""));

static NEXT_UNNAMED: AtomicU64 = AtomicU64::new(1);

/// What becomes of a message where there is one.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It passes as it is.
    Pass,
    /// It is left out.
    Drop,
    /// So much of it was replaced; the rest passes as it is.
    Begun(usize),
    /// More of it must be there first.
    More,
    /// What it is about must be certain first.
    Wait,
}

/// Where a message about statements stands, and what it may change.
pub(crate) struct Placed<'p, 'c, 'b> {
    pub(crate) link: &'p mut Link,
    pub(crate) names: &'p mut Names,
    pub(crate) unnamed: &'p mut Unnamed,
    pub(crate) at: usize,
    pub(crate) cut: &'c mut Cut<'b>,
}

impl Placed<'_, '_, '_> {
    pub(crate) fn parse(&mut self, head: Head, body: &[u8], is_whole: bool) -> Result<Step, Fault> {
        let Some(&first) = body.first() else { return Ok(Step::More) };
        if first == 0 {
            return Ok(self.parse_unnamed(head, body, is_whole));
        }
        if !is_whole {
            return if head.whole() > NAMED_MAX {
                Err(too_long("a named statement"))
            } else {
                Ok(Step::More)
            };
        }
        let Some(parse) = Parse::read(body) else {
            outstanding_push(self.link, Asked::Parse);
            return Ok(Step::Pass);
        };
        let (at, end) = (self.at, self.at + head.whole());
        if self.is_uncertain(parse.name, None) {
            return Ok(Step::Wait);
        }
        if let Some(taken) = self.names.get(parse.name).cloned() {
            // The server says itself that there is one of that name, wherever in the batch that is.
            let taken = self.ensure_named(parse.name, taken);
            outstanding_push(self.link, Asked::Parse);
            self.cut.skip(at, end);
            frontend::push_parse(self.cut.insert(end), &taken.name, parse.sql, parse.types);
            return Ok(Step::Begun(head.whole()));
        }
        self.parse_new(head, &parse)
    }

    /// A statement by a name that the client has not given yet.
    fn parse_new(&mut self, head: Head, parse: &Parse<'_>) -> Result<Step, Fault> {
        let (at, end) = (self.at, self.at + head.whole());
        if parse.name.len() > NAME_MAX {
            return Err(too_long("a name"));
        }
        let statement = statements::statement(parse.sql, parse.types, &self.link.scope());
        if self.is_uncertain(parse.name, Some(&statement)) {
            return Ok(Step::Wait);
        }
        self.link.pace.client_parses += 1;
        if !self.names.has_room(parse.name, &statement) {
            return Err(too_long("all named statements of a client"));
        }
        let name: Box<[u8]> = parse.name.into();
        self.names.insert(name.clone(), statement.clone());
        self.renew(&statement);
        let held = self.link.server.prepared.uses(&statement);
        if held && (self.link.server.status == Status::Failed || self.link.server.outstanding.owes_a_batch())
        {
            // What the server says of it in a transaction that failed goes by the text.
            self.cut.skip(at, end);
            frontend::push_parse(self.cut.insert(end), b"", parse.sql, parse.types);
            self.link.server.unnamed = UNKNOWN;
            self.link.server.outstanding.push(Entry::of(Asked::Parse).tracked());
            self.track(Tracked::Named { name, statement, sent: false });
            return Ok(Step::Begun(head.whole()));
        }
        if held {
            self.link.server.outstanding.push(Entry::synthetic(Asked::Parse).tracked());
            self.track(Tracked::Named { name, statement, sent: false });
            return Ok(Step::Drop);
        }
        self.make_room();
        self.link.pace.server_parses += 1;
        self.cut.skip(at, end);
        frontend::push_parse(self.cut.insert(end), &statement.name, parse.sql, parse.types);
        self.link.server.outstanding.push(Entry::of(Asked::Parse).tracked());
        self.link.server.prepared.insert(statement.clone());
        self.track(Tracked::Named { name, statement, sent: true });
        Ok(Step::Begun(head.whole()))
    }

    /// A query, which destroys what has no name.
    pub(crate) fn query(&mut self, head: Head, body: &[u8], is_whole: bool, whole_session: bool) -> Step {
        if !is_whole && !whole_session && self.may_be_translated(head, body) {
            return Step::More;
        }
        self.link.renamed = None;
        let may_name = !whole_session && is_whole && self.has_names();
        let translated = if may_name { self.translated(head, body) } else { None };
        if translated == Some(Step::Wait) {
            return Step::Wait;
        }
        let step = translated.unwrap_or_else(|| {
            // A query that does not end is the server's to refuse.
            if let Some(sql) = frontend::query(body).filter(|_| is_whole) {
                let found = suspect(sql);
                if whole_session {
                    // Whatever it sets is reset behind it, known by name or not.
                    self.link.suspicion |= found.without(Suspicion::SEQUENCES);
                } else {
                    self.link.suspect(found, sql);
                    self.forget_sequences(found);
                }
            }
            self.link.server.outstanding.push(Entry::of(Asked::Query).unnamed());
            Step::Pass
        });
        (self.unnamed.number, self.unnamed.is_bound, self.link.server.unnamed) = (0, false, 0);
        self.link.acted = true;
        self.link.batches += 1;
        step
    }

    /// Whether more of a query must be there before it is known whose name it says.
    fn may_be_translated(&self, head: Head, body: &[u8]) -> bool {
        self.has_names() && head.whole() <= NAMES_MAX && Named::may_begin(body)
    }

    fn parse_unnamed(&mut self, head: Head, body: &[u8], is_whole: bool) -> Step {
        if !is_whole && head.whole() <= UNNAMED_KEPT {
            return Step::More;
        }
        let parse = Parse::read(body).filter(|_| is_whole);
        let (mut step, mut deallocates) = (Step::Pass, None);
        let is_alone = self.link.server.outstanding.is_empty();
        let named = parse.as_ref().and_then(|parse| self.says_a_name(parse.sql));
        if named.as_ref().is_some_and(|named| self.is_uncertain(&named.name, None)) {
            return Step::Wait;
        }
        self.link.renamed = None;
        if let (Some(parse), Some(named)) = (&parse, named)
            && let Some(statement) = self.named(&named)
        {
            let (at, end) = (self.at, self.at + head.whole());
            self.cut.skip(at, end);
            let told = named.with(parse.sql, &statement.name);
            frontend::push_parse(self.cut.insert(end), b"", &told, parse.types);
            self.link.renamed = is_alone.then(|| named.renamed(parse.sql, &statement.name));
            deallocates = (named.verb == Verb::Deallocate).then(|| named.name.into());
            step = Step::Begun(head.whole());
        }
        self.link.server.outstanding.push(Entry::of(Asked::Parse).unnamed());
        self.link.pace.passed(kind::PARSE);
        let unnamed = &mut *self.unnamed;
        unnamed.number = NEXT_UNNAMED.fetch_add(1, Ordering::Relaxed);
        self.link.server.unnamed = unnamed.number;
        unnamed.sql.clear();
        unnamed.types.clear();
        (unnamed.suspicion, unnamed.deallocates) = (Suspicion::NONE, deallocates);
        if let Some(parse) = parse {
            unnamed.sql.extend_from_slice(parse.sql);
            unnamed.types.extend_from_slice(parse.types);
            unnamed.suspicion = suspect(parse.sql);
            self.link.suspect(unnamed.suspicion, parse.sql);
        }
        step
    }

    /// A statement of a client that keeps its server: what any of them may leave behind is noted.
    pub(crate) fn reads(&mut self, body: &[u8]) {
        let found = Parse::read(body).map_or(Suspicion::NONE, |parse| suspect(parse.sql));
        self.unnamed.suspicion |= found.without(Suspicion::SEQUENCES);
    }

    pub(crate) fn execute(&mut self, body: &[u8]) -> Step {
        self.link.acted = true;
        if self.unnamed.is_bound {
            match body.first() {
                None => return Step::More,
                Some(0) => {
                    self.unnamed.is_bound = false;
                    if self.deallocate() {
                        return Step::Pass;
                    }
                }
                Some(_) => {}
            }
        }
        outstanding_push(self.link, Asked::Execute);
        Step::Pass
    }

    /// The client deallocates a statement by the extended protocol; false if it has none of that name.
    fn deallocate(&mut self) -> bool {
        let Placed { link, names, unnamed, .. } = self;
        let Some(name) = unnamed.deallocates.clone() else { return false };
        let Some(statement) = names.remove(&name) else { return false };
        link.server.prepared.remove(&statement);
        link.server.outstanding.push(Entry::of(Asked::Execute).tracked());
        link.tracked.push(link.batches, Tracked::Deallocated { name, statement });
        true
    }

    pub(crate) fn bind(&mut self, head: Head, body: &[u8], is_whole: bool) -> Result<Step, Fault> {
        let Some(bind) = Bind::read(body) else {
            if !is_whole {
                return if body.len() > NAMES_MAX { Err(too_long("a name")) } else { Ok(Step::More) };
            }
            outstanding_push(self.link, Asked::Bind);
            return Ok(Step::Pass);
        };
        if !bind.statement.is_empty() && self.is_uncertain(bind.statement, None) {
            return Ok(Step::Wait);
        }
        self.link.pace.binds += 1;
        if bind.portal.is_empty() {
            self.unnamed.is_bound = bind.statement.is_empty() && self.unnamed.deallocates.is_some();
        }
        if bind.statement.is_empty() {
            self.forget_sequences(self.unnamed.suspicion);
            self.ensure_unnamed();
            outstanding_push(self.link, Asked::Bind);
            return Ok(Step::Pass);
        }
        let Some(statement) = self.names.get(bind.statement).cloned() else {
            // The server knows no statement by a name of the client's, and says so itself.
            outstanding_push(self.link, Asked::Bind);
            return Ok(Step::Pass);
        };
        self.uses(&statement);
        let statement = self.ensure_named(bind.statement, statement);
        outstanding_push(self.link, Asked::Bind);
        let names = bind.portal.len() + bind.statement.len() + 2;
        let (at, behind) = (self.at, self.at + HEADER + names);
        self.cut.skip(at, behind);
        let rest = head.length as usize - names;
        frontend::push_bind_head(self.cut.insert(behind), bind.portal, &statement.name, rest);
        Ok(Step::Begun(HEADER + names))
    }

    /// Describe or Close.
    pub(crate) fn about(&mut self, head: Head, body: &[u8], is_whole: bool) -> Result<Step, Fault> {
        if !is_whole {
            return if head.whole() > NAMES_MAX { Err(too_long("a name")) } else { Ok(Step::More) };
        }
        let asked = asked_by(head.kind);
        let closes = asked == Asked::Close;
        let Some(Object::Statement(name)) = Object::read(body) else {
            outstanding_push(self.link, asked);
            return Ok(Step::Pass);
        };
        if name.is_empty() {
            if closes {
                (self.unnamed.number, self.link.server.unnamed) = (0, 0);
                self.link.server.outstanding.push(Entry::of(asked).unnamed());
            } else {
                self.ensure_unnamed();
                outstanding_push(self.link, asked);
            }
            return Ok(Step::Pass);
        }
        if self.is_uncertain(name, None) {
            return Ok(Step::Wait);
        }
        let Some(statement) = self.names.get(name).cloned() else {
            outstanding_push(self.link, asked);
            return Ok(Step::Pass);
        };
        if closes {
            let name = Box::from(name);
            self.names.remove(&name);
            if self.link.server.prepared.is_full() && self.link.server.prepared.remove(&statement) {
                self.link.server.outstanding.push(Entry::of(Asked::Close).tracked());
                let (at, end) = (self.at, self.at + head.whole());
                self.cut.skip(at, end);
                frontend::push_about_statement(self.cut.insert(end), kind::CLOSE, &statement.name);
                self.track(Tracked::Deallocated { name, statement });
                return Ok(Step::Begun(head.whole()));
            }
            // Others may use it too: the server keeps it.
            self.link.server.outstanding.push(Entry::synthetic(Asked::Close).tracked());
            self.track(Tracked::Closed { name, statement });
            return Ok(Step::Drop);
        }
        let statement = self.ensure_named(name, statement);
        outstanding_push(self.link, asked);
        let (at, end) = (self.at, self.at + head.whole());
        self.cut.skip(at, end);
        frontend::push_about_statement(self.cut.insert(end), kind::DESCRIBE, &statement.name);
        Ok(Step::Begun(head.whole()))
    }

    /// Has the server have `statement`, which the client calls `name`: the one that it is from here on.
    pub(crate) fn ensure_named(&mut self, name: &[u8], statement: Arc<Statement>) -> Arc<Statement> {
        if self.link.server.prepared.uses(&statement) {
            return statement;
        }
        // What is prepared by other settings than before is another one, and no client of those may get it.
        let scope = self.link.scope();
        let statement = if statement.is_of(&scope) {
            statement
        } else {
            let own = statements::statement(&statement.sql, &statement.types, &scope);
            self.names.insert(name.into(), own.clone());
            own
        };
        self.ensure(&statement);
        statement
    }

    /// Has the server prepare `statement`, if it has not.
    fn ensure(&mut self, statement: &Arc<Statement>) {
        if self.link.server.prepared.uses(statement) {
            return;
        }
        if self.renew(statement) {
            return;
        }
        self.make_room();
        self.prepare(statement);
        self.track(Tracked::Injected(statement.clone()));
    }

    /// Has the server prepare `statement` anew, if it has it as it is of no use any more; whether it did.
    fn renew(&mut self, statement: &Arc<Statement>) -> bool {
        let is_stale = self.link.server.prepared.take_stale(statement);
        if is_stale {
            frontend::push_about_statement(self.cut.insert(self.at), kind::CLOSE, &statement.name);
            self.link.server.outstanding.push(Entry::swallowed(Asked::Close));
            self.prepare(statement);
            self.track(Tracked::Renewed(statement.clone()));
        }
        is_stale
    }

    fn prepare(&mut self, statement: &Arc<Statement>) {
        self.link.pace.server_parses += 1;
        let out = self.cut.insert(self.at);
        frontend::push_parse(out, &statement.name, &statement.sql, &statement.types);
        self.link.server.outstanding.push(Entry::swallowed(Asked::Parse).tracked());
        self.link.server.prepared.insert(statement.clone());
    }

    /// Has the server have the client's unnamed statement, or none.
    fn ensure_unnamed(&mut self) {
        let number = self.unnamed.number;
        if self.link.server.unnamed == number {
            return;
        }
        if number == 0 || self.unnamed.types.is_empty() {
            // That of another client must not be taken for its own.
            frontend::push_about_statement(self.cut.insert(self.at), kind::CLOSE, b"");
            self.link.server.outstanding.push(Entry::swallowed(Asked::Close).unnamed());
            self.link.server.unnamed = 0;
            return;
        }
        let sql = std::mem::take(&mut self.unnamed.sql);
        let named = self.says_a_name(&sql);
        let told = named.and_then(|named| Some(named.with(&sql, &self.named(&named)?.name)));
        let out = self.cut.insert(self.at);
        frontend::push_parse(out, b"", told.as_deref().unwrap_or(&sql), &self.unnamed.types);
        self.link.server.outstanding.push(Entry::swallowed(Asked::Parse).unnamed());
        self.link.server.unnamed = number;
        self.link.suspect(self.unnamed.suspicion, &sql);
        self.unnamed.sql = sql;
    }

    /// Before anything was run at this server, what sequences said there last was said to others.
    pub(crate) fn forget_sequences(&mut self, found: Suspicion) {
        if !found.has(Suspicion::SEQUENCES) {
            return;
        }
        // From here on every server begins so: others may ask only after they have done something.
        self.link.server.login.asks_sequences.store(true, Ordering::Relaxed);
        if self.link.acted {
            return;
        }
        self.link.acted = true;
        self.ensure(&FORGETS);
        let out = self.cut.insert(self.at);
        // No formats, no values: six bytes of nothing.
        frontend::push_bind_head(out, PORTAL, &FORGETS.name, 6);
        out.extend_from_slice(&[0; 6]);
        frontend::push_execute(out, PORTAL);
        frontend::push_about_portal(out, kind::CLOSE, PORTAL);
        for asked in [Asked::Bind, Asked::Execute, Asked::Close] {
            self.link.server.outstanding.push(Entry::swallowed(asked));
        }
    }

    /// Closes the statements that the server has not used for longest, if it has too many. Their portals
    /// would go with them, so only where there are none.
    fn make_room(&mut self) {
        if !self.link.is_free() {
            return;
        }
        while let Some(surplus) = self.link.server.prepared.surplus() {
            frontend::push_about_statement(self.cut.insert(self.at), kind::CLOSE, &surplus.name);
            self.link.server.outstanding.push(Entry::swallowed(Asked::Close));
        }
    }

    pub(crate) fn uses(&mut self, statement: &Statement) {
        self.forget_sequences(statement.suspicion);
        self.link.suspect(statement.suspicion, &statement.sql);
    }
}

pub(crate) fn outstanding_push(link: &mut Link, asked: Asked) {
    link.server.outstanding.push(Entry::of(asked));
}

pub(crate) fn asked_by(message: u8) -> Asked {
    match message {
        kind::PARSE => Asked::Parse,
        kind::BIND => Asked::Bind,
        kind::DESCRIBE => Asked::Describe,
        _ => Asked::Close,
    }
}

fn too_long(what: &str) -> Fault {
    violation(format!("{what} is longer than this server keeps"))
}
