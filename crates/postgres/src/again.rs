//! A statement that was prepared before its tables changed: the server refuses it, though nobody did anything
//! wrong, and other clients share what it has prepared. It is prepared anew. Where nothing else was asked and
//! nothing told, and the client asks what the rows look like, its batch is asked again, and it sees none of
//! it; whoever goes by what rows looked like before must be told.

use std::sync::Arc;

use tieline_wire::postgres::HEADER;
use tieline_wire::postgres::backend::{Notice, Status};
use tieline_wire::postgres::frontend::{self, Bind};

use crate::link::{Link, Tracked};
use crate::outstanding::{Asked, Entry, Outstanding};
use crate::statements::Statement;

/// A batch that binds, describes and runs one prepared statement, as its server was told it.
#[derive(Debug, Default)]
pub(crate) struct Again {
    batch: Vec<u8>,
    /// It was refused, and is to be asked again when the server is ready.
    is_due: bool,
}

/// A longer one is not kept.
const BATCH_MAX: usize = 16 * 1024;

impl Again {
    /// Keeps `outgoing` if that is all that was asked: it `is_first`, and `asked` is one statement.
    pub(crate) fn keep(&mut self, outgoing: &[u8], is_first: bool, asked: &Outstanding) {
        self.batch.clear();
        if is_first && outgoing.len() <= BATCH_MAX && asked.is_one_statement() {
            self.batch.extend_from_slice(outgoing);
        }
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&mut self) {
        self.batch.clear();
        self.is_due = false;
    }

    /// Whether it is to be asked again.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }

    /// What the server calls the statement that it binds.
    fn statement(&self) -> &[u8] {
        self.batch.get(HEADER..).and_then(Bind::read).map(|bind| bind.statement).unwrap_or_default()
    }
}

/// Takes note of an error, the body of which is `said` and which answers `failed`, a message `about` a
/// statement.
pub(crate) fn heed(link: &mut Link, failed: Entry, about: Option<Arc<Statement>>, said: &[u8]) {
    let Some(code) = Notice::read(said).and_then(|notice| notice.code) else { return };
    let server = &mut *link.server;
    match code {
        // Its words are in the server's language; the name of what raised it is not.
        b"0A000" if memchr::memmem::find(said, b"\0RRevalidateCachedQuery\0").is_some() => {
            server.found_stale();
            let alone = failed.asked() == Asked::Bind && server.outstanding.len() == 1;
            // Prepared anew by other settings it would be another one.
            let scope = link.scope();
            let server = &mut *link.server;
            let ours = server.prepared.called(server.again.statement()).is_some_and(|it| it.is_of(&scope));
            server.again.is_due = alone && ours && server.status == Status::Idle;
        }
        // It was deallocated behind our back.
        b"26000" => {
            let name = said.split(|byte| *byte == b'"').nth(1).unwrap_or_default();
            if let Some(statement) = server.prepared.called(name) {
                server.prepared.spoil(statement);
            }
        }
        // It was prepared there behind our back.
        b"42P05" => {
            let is_ours = |it: &Arc<Statement>| memchr::memmem::find(said, &it.name).is_some();
            if let Some(statement) = about.filter(is_ours) {
                server.prepared.spoil(statement);
            }
        }
        _ => {}
    }
}

/// Asks what is due: appends it to `out`, which goes to the server.
pub(crate) fn ask(link: &mut Link, out: &mut Vec<u8>) {
    let Link { server, tracked, batches, .. } = link;
    server.again.is_due = false;
    if let Some(statement) = server.prepared.called(server.again.statement()) {
        server.prepared.take_stale(&statement);
        frontend::push_about_statement(out, frontend::kind::CLOSE, &statement.name);
        frontend::push_parse(out, &statement.name, &statement.sql, &statement.types);
        server.outstanding.push(Entry::swallowed(Asked::Close));
        server.outstanding.push(Entry::swallowed(Asked::Parse).tracked());
        server.prepared.insert(statement.clone());
        tracked.push(*batches, Tracked::Renewed(statement));
    }
    // It is a batch of its own.
    *batches += 1;
    // Once: whatever is said of it now, the client is told.
    out.append(&mut server.again.batch);
    for asked in [Asked::Bind, Asked::Describe, Asked::Execute, Asked::Sync] {
        server.outstanding.push(Entry::of(asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(entries: &[Asked]) -> Outstanding {
        let mut outstanding = Outstanding::default();
        entries.iter().for_each(|asked| assert!(outstanding.push(Entry::of(*asked))));
        outstanding
    }

    #[test]
    fn one_statement_is_kept_and_nothing_more() {
        use Asked::{Bind, Describe, Execute, Parse, Query, Sync};
        let (mut again, mut bind) = (Again::default(), Vec::new());
        frontend::push_bind_head(&mut bind, b"", b"tieline_1", 0);
        for (entries, is_first, kept) in [
            (&[Bind, Describe, Execute, Sync][..], true, true),
            (&[Bind, Describe, Execute, Sync], false, false),
            (&[Bind, Execute, Sync], true, false),
            (&[Bind, Describe, Execute], true, false),
            (&[Bind, Describe, Execute, Sync, Query], true, false),
            (&[Bind, Bind, Execute, Sync], true, false),
            (&[Parse, Bind, Execute, Sync], true, false),
        ] {
            again.keep(&bind, is_first, &asked(entries));
            assert_eq!(again.statement() == b"tieline_1", kept, "{entries:?}");
        }
        let mut injected = asked(&[Bind, Describe, Execute]);
        injected.push(Entry::swallowed(Sync));
        again.keep(&bind, true, &injected);
        assert_eq!(again.statement(), b"");
    }
}
