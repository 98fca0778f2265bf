//! The whole file as it is obeyed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::agent::{self, Agent};
use crate::check;
use crate::fields::Fields;
use crate::group::{self, Group};
use crate::keys::FILE;
use crate::listener::{self, Listener};
use crate::node::{self, Entry};
use crate::place::Place;
use crate::problem::{Problem, Problems};
use crate::server::{self, Boot, Server};
use crate::upstream::{self, Upstream, UpstreamDraft};
use crate::user::{self, User};

/// A config that holds together: every name that it uses is one that it has, and nothing clashes.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// What only a restart changes.
    pub boot: Boot,
    /// What a reload changes.
    pub live: Live,
}

/// What a reload changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Live {
    /// The keys of `[server]` that need no restart.
    pub server: Server,
    /// The listeners, in the order of the file, all of different names and addresses.
    pub listeners: Vec<Listener>,
    /// The upstreams, in the order of the file, all of different names.
    pub upstreams: Vec<Upstream>,
    /// The groups, in the order of the file, all of different names.
    pub groups: Vec<Group>,
    /// Those who may log in with a password, in the order of the file, all of different names.
    pub users: Vec<User>,
    /// What an agent's file says; `None` in a server's.
    pub agent: Option<Agent>,
}

/// A config without an error, and what is to be said about it nevertheless.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked {
    /// The config.
    pub config: Config,
    /// The risks it takes, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// The largest file that is read: one with ten thousand routes is smaller.
pub const FILE_BYTES_MAX: usize = 1 << 20;

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Every problem of the file, warnings among them, in its order; or the one that it cannot be read.
    pub fn load(path: &Path) -> Result<Checked, Vec<Problem>> {
        let name = path.display().to_string();
        let unreadable =
            |error: std::io::Error| vec![Problem::of_file(&name, format!("cannot be read: {error}"))];
        let mut bytes = Vec::new();
        // One byte more than allowed, so that an endless file is found out and never held.
        let limit = FILE_BYTES_MAX as u64 + 1;
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| vec![not_utf8(&name, &error)])?;
        // The folder in full, so that paths within it can be told from those outside, and compared.
        let path = std::path::absolute(path).map_err(unreadable)?;
        parse(&name, folder(&path), &text)
    }

    /// Reads and checks `text`, the content of the file `file_name`. Relative paths start at that file's
    /// folder.
    ///
    /// # Errors
    /// Every problem of the text, warnings among them, in its order.
    pub fn parse(file_name: &str, text: &str) -> Result<Checked, Vec<Problem>> {
        parse(file_name, folder(Path::new(file_name)), text)
    }
}

impl Live {
    /// The upstream called `name`.
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// The listener called `name`.
    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// The group called `name`.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

/// The keys that differ between both configs and that only a restart changes: `server.workers`.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.boot, &new.boot);
    let changed = [
        ("server.data", old.data != new.data),
        ("server.workers", old.workers != new.workers),
        ("server.log_format", old.log_format != new.log_format),
        ("admin.listen", old.admin_listen != new.admin_listen),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_string()).collect()
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Problem {
    let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let before = String::from_utf8_lossy(sound);
    let place = crate::place::Lines::of(&before).place(before.len());
    let mut problem = Problem::of_file(name, "is not UTF-8 from here on");
    (problem.line, problem.column) = (place.line, place.column);
    problem
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn parse(name: &str, folder: &Path, text: &str) -> Result<Checked, Vec<Problem>> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("is larger than {} MiB, the most that is read", FILE_BYTES_MAX >> 20);
        return Err(vec![Problem::of_file(name, message)]);
    }
    let mut problems = Problems::of(name);
    let config = node::parse(text, &mut problems).map(|entries| read(&entries, folder, &mut problems));
    let problems = problems.into_sorted();
    match config {
        Some(config) if problems.iter().all(Problem::is_warning) => {
            Ok(Checked { config, warnings: problems })
        }
        _ => Err(problems),
    }
}

fn read(entries: &[Entry], folder: &Path, problems: &mut Problems) -> Config {
    let mut file = Fields::read(&FILE, Place::START, entries, problems);
    let (boot, server) = server::read(file.table("server"), file.table("admin"), folder, problems);
    let listeners = file.named("listener").into_iter();
    let listeners: Vec<_> =
        listeners.map(|(name, fields)| listener::read(name, fields, folder, problems)).collect();
    let upstreams = file.named("upstream").into_iter();
    let upstreams = upstreams.map(|(name, fields)| upstream::read(name, fields, folder, problems));
    let (upstreams, confined): (Vec<_>, Vec<_>) =
        upstreams.map(|UpstreamDraft { upstream, confined }| (upstream, confined)).unzip();
    let groups = file.named("group").into_iter();
    let groups = groups.map(|(name, fields)| group::read(name, fields, problems)).collect();
    let users = file.named("user").into_iter();
    let users = users.filter_map(|(name, fields)| user::read(name, fields, folder, problems)).collect();
    let agent = agent::read(&mut file, folder, problems);
    file.done();
    let listeners = check::references(listeners, &upstreams, problems);
    let config = Config { boot, live: Live { server, listeners, upstreams, groups, users, agent } };
    check::protocols(&config, &confined, problems);
    check::postgres(&config, problems);
    check::clashes(&config, problems);
    check::loops(&config, problems);
    check::identities(&config.live, problems);
    check::agents(&config.live, problems);
    check::risks(&config, problems);
    config
}
