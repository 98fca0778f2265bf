//! Statements by the names that clients give them: in SQL, and while it is not certain yet what a name is.

use std::sync::Arc;

use tieline_wire::postgres::Head;
use tieline_wire::postgres::frontend;
use tieline_wire::postgres::sql::suspect;

use crate::link::Tracked;
use crate::outstanding::{Asked, Entry};
use crate::placed::{Placed, Step};
use crate::statements::Statement;
use crate::translate::{Named, Verb};

impl Placed<'_, '_, '_> {
    /// A query that names one of the client's statements; `None` if it is anything else.
    pub(crate) fn translated(&mut self, head: Head, body: &[u8]) -> Option<Step> {
        let sql = frontend::query(body)?;
        let is_alone = self.link.server.outstanding.is_empty();
        let named = self.says_a_name(sql)?;
        if self.is_uncertain(&named.name, None) {
            return Some(Step::Wait);
        }
        let more = named.behind(sql);
        let found = suspect(more);
        self.forget_sequences(found);
        let statement = self.named(&named)?;
        self.link.suspect(found, more);
        let (at, end) = (self.at, self.at + head.whole());
        self.cut.skip(at, end);
        frontend::push_query(self.cut.insert(end), &named.with(sql, &statement.name));
        self.link.renamed = is_alone.then(|| named.renamed(sql, &statement.name));
        let query = Entry::of(Asked::Query).unnamed();
        if named.verb == Verb::Execute {
            self.link.server.outstanding.push(query);
        } else {
            self.names.remove(&named.name);
            self.link.server.prepared.remove(&statement);
            self.link.server.outstanding.push(query.tracked());
            self.track(Tracked::Deallocated { name: named.name.into(), statement });
        }
        Some(Step::Begun(head.whole()))
    }

    /// Whether the client has given names, or what it did about one is not certain yet.
    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty() || !self.link.tracked.is_empty()
    }

    /// Whether what an earlier batch did to `name`, or to `statement`, is not certain yet.
    pub(crate) fn is_uncertain(&self, name: &[u8], statement: Option<&Statement>) -> bool {
        let tracked = &self.link.tracked;
        if tracked.is_empty() {
            return false;
        }
        let statement = statement.or_else(|| self.names.get(name).map(|statement| &**statement));
        tracked.leave_open(self.link.batches, name, statement)
    }

    pub(crate) fn track(&mut self, about: Tracked) {
        self.link.tracked.push(self.link.batches, about);
    }

    /// What `sql` says of a statement by its name.
    pub(crate) fn says_a_name(&self, sql: &[u8]) -> Option<Named> {
        if self.has_names() { Named::read(sql) } else { None }
    }

    /// The client's statement that is `named`, which the server has from here on.
    pub(crate) fn named(&mut self, named: &Named) -> Option<Arc<Statement>> {
        let statement = self.names.get(&named.name).cloned()?;
        self.uses(&statement);
        Some(self.ensure_named(&named.name, statement))
    }
}
