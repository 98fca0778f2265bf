//! Which way a client goes: the routes of one listener, by database and user.

use std::sync::Arc;
use std::time::Duration;

use tieline_conn::Route;
use tieline_pool::Purpose;
use tieline_registry::RouteRow;

use crate::cluster::{Cluster, Wants};
use crate::login::server::ServerLogin;
use crate::patience::Patience;
use crate::reads::ReplicaReads;

/// What a route wants of a client. What is empty is not looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// Its databases, as clients call them.
    pub databases: Vec<Box<str>>,
    /// Its users.
    pub users: Vec<Box<str>>,
}

impl Match {
    fn fits(&self, database: &str, user: &str) -> bool {
        let named = |names: &[Box<str>], name: &str| names.is_empty() || names.iter().any(|it| **it == *name);
        named(&self.databases, database) && named(&self.users, user)
    }

    /// Greater is more exact; a database counts for more than a user.
    fn rank(&self) -> (bool, bool) {
        (!self.databases.is_empty(), !self.users.is_empty())
    }
}

/// How long a client holds a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// For as long as it is connected.
    Session,
    /// For a transaction.
    #[default]
    Transaction,
    /// For a statement: a transaction of more than one is refused.
    Statement,
}

/// Where a route leads, and how its servers are used.
#[derive(Debug)]
pub struct Target {
    /// The route.
    pub route: Arc<Route>,
    /// How long clients hold a server.
    pub mode: Mode,
    /// Everything is undone at a server before another client gets it, and not only what is known to be
    /// there.
    pub resets: bool,
    /// Which of its servers it leads to.
    pub wants: Wants,
    /// What of its clients' work it leaves to replicas; `None`: nothing.
    pub reads: Option<ReplicaReads>,
    /// Whether it takes connections for replication too.
    pub replication: bool,
    /// What is known of them; `None` if nobody asks what they are, and any will do.
    pub cluster: Option<Arc<Cluster>>,
    /// As whom servers are logged in to.
    pub login: ServerLogin,
    /// How many clients may be logged in to each of its databases; `None`: any number.
    pub clients: Option<u32>,
    /// How long a client may wait for a server, tries that failed counted in.
    pub acquire: Duration,
    /// After how long one that waits is told so; `None`: never.
    pub notice: Option<Duration>,
    /// All that a log-in to a server may take, connecting left out.
    pub connect: Duration,
    /// How long a client that holds a server may take.
    pub patience: Patience,
}

impl Target {
    /// What the pool is asked for, now.
    pub(crate) fn purpose(&self) -> Purpose {
        self.cluster.as_ref().map_or(Purpose::USUAL, |cluster| cluster.purpose(self.wants))
    }
}

/// The routes of a listener.
#[derive(Debug, Default)]
pub struct Site {
    /// The more exact first.
    entries: Vec<(Match, Arc<Target>)>,
}

impl Site {
    /// The site of `entries`; of those that fit equally well, the first is taken.
    pub fn new(mut entries: Vec<(Match, Arc<Target>)>) -> Self {
        entries.sort_by_key(|(wanted, _)| std::cmp::Reverse(wanted.rank()));
        Self { entries }
    }

    /// Where a client goes that asks for `database` as `user`; one that replicates a whole server asks for
    /// none, so routes that name databases are not its own.
    pub(crate) fn find(&self, database: &str, user: &str) -> Option<&Arc<Target>> {
        self.entries.iter().find(|(wanted, _)| wanted.fits(database, user)).map(|(_, target)| target)
    }

    /// The databases that routes name.
    pub(crate) fn databases(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|(wanted, _)| wanted.databases.iter().map(|name| &**name))
    }

    /// Where clients go that ask for `database`, where that does not depend on who they are.
    pub(crate) fn of_database(&self, database: &str) -> Option<&Arc<Target>> {
        let fits = |wanted: &Match| {
            wanted.databases.is_empty() || wanted.databases.iter().any(|name| **name == *database)
        };
        let any_user = self.entries.iter().find(|(wanted, _)| fits(wanted) && wanted.users.is_empty());
        any_user.or_else(|| self.entries.iter().find(|(wanted, _)| fits(wanted))).map(|(_, target)| target)
    }

    /// The target that is what `old` was, if there still is one.
    pub(crate) fn heir(&self, old: &RouteRow) -> Option<&Arc<Target>> {
        let targets = self.entries.iter().map(|(_, target)| target);
        targets.into_iter().find(|target| target.route.row.identity == old.identity)
    }
}
