//! The console: a database named `tieline`, or `pgbouncer`, that answers PgBouncer's commands.
//!
//! `command` reads what is said, `show` makes the tables of `columns` from the census, `act` does what
//! operators order, and `session` talks, by the simple protocol and by the extended one. What lies above this
//! crate is asked through [`House`].

mod act;
mod answer;
mod columns;
mod command;
mod memory;
mod names;
mod session;
mod show;

use std::pin::Pin;
use std::sync::Arc;

use tieline_conn::Server;
use tieline_policy::{AdminPermit, AdminSubject};

pub(crate) use session::serve;

use crate::census;

/// What the console asks of the house that it stands in.
pub trait House: Send + Sync {
    /// The data plane; `None` before it runs.
    fn server(&self) -> Option<Arc<Server>>;

    /// Our version.
    fn version(&self) -> &'static str;

    /// The settings of the listener called so, by the names that PgBouncer has for them.
    fn settings(&self, listener: &str) -> Vec<Setting>;

    /// Reads the config file again and obeys it.
    fn reload(&self, permit: AdminPermit) -> Reloading;
}

/// A reload on its way, or every reason why there was none.
pub type Reloading = Pin<Box<dyn Future<Output = Result<(), Vec<String>>> + Send>>;

/// A setting, as the console shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it is.
    pub value: String,
    /// What it would be if nobody said anything.
    pub default: Option<String>,
}

/// The console of a listener.
#[derive(Clone)]
pub struct Console {
    /// The users who may give orders.
    admins: Arc<[Box<str>]>,
    /// Those who may look.
    readers: Arc<[Box<str>]>,
    house: Arc<dyn House>,
}

/// The databases that are the console, as clients call them.
pub const NAMES: [&str; 2] = ["tieline", "pgbouncer"];

/// What a user may do there.
enum Right {
    Read,
    Act(AdminPermit),
}

impl Console {
    /// The console of `house` for `admins`, who may give orders, and `readers`, who may look.
    pub fn new(admins: Arc<[Box<str>]>, readers: Arc<[Box<str>]>, house: Arc<dyn House>) -> Self {
        census::keep_averages();
        Self { admins, readers, house }
    }

    /// What `user` may do; `None`: nothing, not even look.
    fn right(&self, user: &str) -> Option<Right> {
        let named = |users: &[Box<str>]| users.iter().any(|name| **name == *user);
        match AdminPermit::decide(AdminSubject::User { named: named(&self.admins) }) {
            Ok(permit) => Some(Right::Act(permit)),
            Err(_) => named(&self.readers).then_some(Right::Read),
        }
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { admins, readers, house: _ } = self;
        f.debug_struct("Console").field("admins", admins).field("readers", readers).finish_non_exhaustive()
    }
}

/// Whether `database` is the console.
pub(crate) fn is_console(database: &str) -> bool {
    NAMES.contains(&database)
}
