//! A client's hold on a server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::Moment;
use tieline_pool::{Loan, Making};
use tieline_transport::Io;
use tieline_wire::postgres::backend::Status;
use tieline_wire::postgres::sql::Suspicion;

use crate::custom::{self, Followed};
use crate::outstanding::{Asked, Entry};
use crate::pace::Pace;
use crate::patience::Clocked;
use crate::reads::Reading;
use crate::scope::scope;
use crate::server::Server;
use crate::statements::{Names, Statement};
use crate::translate::Renamed;

/// A server on loan, and what is under way at it.
pub(crate) struct Link {
    pub(crate) io: Io,
    pub(crate) server: Box<Server>,
    pub(crate) loan: Loan,
    pub(crate) making: Making,
    /// When its exchange began.
    pub(crate) began: Moment,
    /// How long the server was waited for.
    pub(crate) acquired_after: Duration,
    /// When its first byte came; the beginning of time if none has.
    pub(crate) answered: Moment,
    /// What may be left behind.
    pub(crate) suspicion: Suspicion,
    /// Names of settings that were seen in texts, of those that servers do not list.
    pub(crate) custom: Vec<Box<[u8]>>,
    /// The client's statements are gone, by its own wish.
    pub(crate) all_gone: bool,
    /// What is known of the entries that say so, in their order.
    pub(crate) tracked: Tracks,
    /// The client's next message is about something that is not certain yet: it waits until it is.
    pub(crate) awaits: bool,
    /// Something was run, which may have had sequences say something.
    pub(crate) acted: bool,
    /// How many batches were begun.
    pub(crate) batches: u32,
    /// Others wait: what the client sends from here on waits too, until this one is over.
    pub(crate) full: bool,
    /// It listens to what its client listens to.
    pub(crate) listens: bool,
    /// The client was not told yet that the server is ready: what its transaction said of channels goes
    /// before.
    pub(crate) owes_ready: bool,
    /// The text that was asked last, alone, has another name in it than the client wrote.
    pub(crate) renamed: Option<Renamed>,
    /// The server told of a setting that the client began with.
    pub(crate) resets: bool,
    /// The server has said its last word.
    pub(crate) fatal: bool,
    /// It began with what only reads, and that its client may have another server for what does not.
    pub(crate) reading: Option<Box<Reading>>,
    pub(crate) clocked: Clocked,
    /// What is counted of it.
    pub(crate) pace: Pace,
}

/// What tracked entries are about, in their order, each with the batch that it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Tracks(VecDeque<(u32, Tracked)>);

impl Tracks {
    pub(crate) fn push(&mut self, batch: u32, about: Tracked) {
        self.0.push_back((batch, about));
    }

    /// The statement that the first of them is about.
    fn first(&self) -> Option<Arc<Statement>> {
        self.0.front().map(|(_, about)| about.statement().clone())
    }

    fn pop(&mut self) -> Option<Tracked> {
        self.0.pop_front().map(|(_, about)| about)
    }

    /// Whether all is certain.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is uncertain what `name`, or `statement`, is in `batch`: what an earlier batch did to it is
    /// not answered yet. What fails within a batch takes along what follows there.
    pub(crate) fn leave_open(&self, batch: u32, name: &[u8], statement: Option<&Statement>) -> bool {
        /// Whoever has more under way waits in any case.
        const LOOK_AT: usize = 64;
        if self.0.front().is_none_or(|(first, _)| *first == batch) {
            return false;
        }
        self.0.len() > LOOK_AT || self.0.iter().any(|(of, about)| *of != batch && about.is(name, statement))
    }
}

/// What an entry is about.
#[derive(Debug)]
pub(crate) enum Tracked {
    /// The client named a statement; `sent`: the server is preparing it.
    Named { name: Box<[u8]>, statement: Arc<Statement>, sent: bool },
    /// We have the server prepare it.
    Injected(Arc<Statement>),
    /// We have the server forget it, and prepare it anew.
    Renewed(Arc<Statement>),
    /// The client closed it.
    Closed { name: Box<[u8]>, statement: Arc<Statement> },
    /// SQL of the client's deallocated it, or the client closed it and the server has to as well.
    Deallocated { name: Box<[u8]>, statement: Arc<Statement> },
}

impl Tracked {
    fn statement(&self) -> &Arc<Statement> {
        match self {
            Tracked::Named { statement, .. }
            | Tracked::Closed { statement, .. }
            | Tracked::Deallocated { statement, .. }
            | Tracked::Injected(statement)
            | Tracked::Renewed(statement) => statement,
        }
    }

    /// Whether it changes what `name` is, or whether the server has `statement`.
    fn is(&self, name: &[u8], statement: Option<&Statement>) -> bool {
        let (own, changes) = match self {
            Tracked::Named { name, sent, .. } => (Some(name), *sent),
            Tracked::Closed { name, .. } => (Some(name), false),
            Tracked::Deallocated { name, .. } => (Some(name), true),
            Tracked::Injected(_) | Tracked::Renewed(_) => (None, true),
        };
        let is_same = |statement: &Statement| statement.name == self.statement().name;
        own.is_some_and(|own| **own == *name) || changes && statement.is_some_and(is_same)
    }
}

impl Link {
    pub(crate) fn new(
        io: Io,
        server: Box<Server>,
        (loan, making): (Loan, Making),
        began: Moment,
        acquired: Moment,
    ) -> Self {
        Self {
            io,
            server,
            loan,
            making,
            began,
            acquired_after: acquired.since(began),
            answered: Moment::default(),
            suspicion: Suspicion::NONE,
            custom: Vec::new(),
            all_gone: false,
            tracked: Tracks::default(),
            awaits: false,
            acted: false,
            batches: 0,
            full: false,
            listens: false,
            owes_ready: false,
            renamed: None,
            resets: false,
            fatal: false,
            reading: None,
            clocked: Clocked::default(),
            pace: Pace::default(),
        }
    }

    /// Whether nothing is under way and nothing owed, in no transaction.
    pub(crate) fn is_free(&self) -> bool {
        self.server.status == Status::Idle && self.server.outstanding.is_empty()
    }

    /// Whether its transaction is over, and what it said of channels is to be told before the client is told
    /// so.
    pub(crate) fn waits_for_channels(&self) -> bool {
        (self.listens || self.suspicion.has(Suspicion::LISTENING)) && self.is_free()
    }

    /// Whether the server may go without a loss to the client: all is answered, and nothing that the client
    /// did is to be noted.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.is_free() && self.suspicion.is_none() && !self.owes_ready && !self.listens
    }

    /// `failed`, and with it what was asked up to the next Sync: what was believed of it is taken back. The
    /// statement that it was about.
    pub(crate) fn void(
        &mut self,
        failed: Entry,
        names: &mut Names,
        unnamed: &mut u64,
    ) -> Option<Arc<Statement>> {
        let Link { server, tracked, .. } = self;
        let Server { outstanding, prepared, unnamed: server_unnamed, .. } = &mut **server;
        let first = failed.is_tracked().then(|| tracked.first()).flatten();
        let mut undo = |entry: Entry| {
            if entry.is_tracked()
                && let Some(about) = tracked.pop()
            {
                take_back(about, names, prepared);
            }
            match entry.asked() {
                _ if !entry.is_unnamed() => {}
                Asked::Parse => {
                    // A Parse that failed leaves none behind, wherever it failed.
                    *server_unnamed = UNKNOWN;
                    if !entry.is_swallowed() {
                        *unnamed = 0;
                    }
                }
                // A query that could not even be read, or was not, leaves it there; and so does a Close.
                _ if *server_unnamed == 0 => *server_unnamed = UNKNOWN,
                _ => {}
            }
        };
        if failed.asked() == Asked::Query {
            // What it deallocates it begins with, and has not done. Its own ReadyForQuery still comes.
            outstanding.untrack();
            undo(failed);
        } else {
            outstanding.void(undo);
        }
        first
    }

    /// `sql`, which may leave `found` behind, is on its way.
    pub(crate) fn suspect(&mut self, found: Suspicion, sql: &[u8]) {
        let found = found.without(Suspicion::SEQUENCES);
        if found.is_none() {
            return;
        }
        self.suspicion |= found;
        if found.has(Suspicion::SETTINGS) {
            self.suspicion |= match custom::names(sql, &mut self.custom) {
                // What is not known by name can neither be asked for nor undone.
                _ if custom::hides_a_name(sql) => Suspicion::LASTING,
                Followed::NotAll => Suspicion::LASTING,
                Followed::NoneSoLong => Suspicion::UNSEEN,
                Followed::All => Suspicion::NONE,
            };
        }
    }

    /// By what the server understands the text of a statement that it prepares now.
    pub(crate) fn scope(&self) -> Vec<u8> {
        scope(&self.server.settings, self.suspicion.has(Suspicion::SETTINGS))
    }

    /// An entry has its answer.
    pub(crate) fn ended(&mut self, entry: Entry) {
        if entry.is_tracked() {
            self.tracked.pop();
        }
    }
}

/// An unnamed statement of which nothing is known but that it may be there.
pub(crate) const UNKNOWN: u64 = u64::MAX;

fn take_back(about: Tracked, names: &mut Names, prepared: &mut crate::statements::Prepared) {
    match about {
        Tracked::Named { name, statement, sent } => {
            if names.get(&name).is_some_and(|named| Arc::ptr_eq(named, &statement)) {
                names.remove(&name);
            }
            if sent {
                prepared.remove(&statement);
            }
        }
        Tracked::Injected(statement) => drop(prepared.remove(&statement)),
        Tracked::Renewed(statement) => prepared.spoil(statement),
        Tracked::Closed { name, statement } => names.insert(name, statement),
        Tracked::Deallocated { name, statement } => {
            prepared.insert(statement.clone());
            names.insert(name, statement);
        }
    }
}
