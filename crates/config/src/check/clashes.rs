//! Addresses and paths that two parts of the file both want for themselves.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::bind::{BindAddress, every_address_of};
use crate::config::Config;
use crate::place::Place;
use crate::problem::Problems;
use crate::server::AccessLog;

/// Tells of every address and path that has two owners.
pub(crate) fn clashes(config: &Config, problems: &mut Problems) {
    let mut sockets = Sockets::default();
    let mut paths = Paths::default();
    let data = &config.boot.data;
    for (file, owner) in
        [("", "the data folder"), ("admin.sock", "the admin socket"), ("admin.token", "the admin token")]
    {
        paths.own(data.join(file), owner.into(), Place::START, problems);
    }
    if let Some(listen) = config.boot.admin_listen {
        sockets.own(listen, "the admin API".into(), config.boot.admin_place, problems);
    }
    if let AccessLog::File { path, place } = &config.live.server.access_log {
        paths.own(path.clone(), "the access log".into(), *place, problems);
    }
    for listener in &config.live.listeners {
        for bind in &listener.bind {
            let owner = format!("listener \"{}\"", listener.name);
            match &bind.address {
                BindAddress::Socket(socket) => sockets.own(*socket, owner, bind.place, problems),
                BindAddress::Unix(path) => paths.own(path.clone(), owner, bind.place, problems),
            }
        }
    }
}

/// Who owns which socket address.
#[derive(Default)]
struct Sockets {
    owners: HashMap<SocketAddr, String>,
    /// For each family (by its "every address") and port: one address of it that is owned, and by whom.
    specific: HashMap<SocketAddr, (SocketAddr, String)>,
}

impl Sockets {
    fn own(&mut self, socket: SocketAddr, owner: String, place: Place, problems: &mut Problems) {
        // Port 0 is a free port, and so never another's.
        if socket.port() == 0 {
            return;
        }
        let everywhere = SocketAddr::new(every_address_of(socket.ip()), socket.port());
        if let Some(other) = self.owners.get(&socket) {
            problems.error(place, format!("{socket} belongs to {other} already"));
        } else if socket == everywhere
            && let Some((taken, other)) = self.specific.get(&everywhere)
        {
            problems.error(place, format!("{socket} takes in {taken}, which belongs to {other}"));
        } else if let Some(other) = self.owners.get(&everywhere) {
            problems.error(place, format!("{socket} is part of {everywhere}, which belongs to {other}"));
        } else {
            if socket != everywhere {
                self.specific.insert(everywhere, (socket, owner.clone()));
            }
            self.owners.insert(socket, owner);
        }
    }
}

/// Who owns which path.
#[derive(Default)]
struct Paths {
    owners: HashMap<PathBuf, String>,
}

impl Paths {
    fn own(&mut self, path: PathBuf, owner: String, place: Place, problems: &mut Problems) {
        // Two spellings of a path are one: `a//b`, `a/./b`. Links are not followed, because the disk may
        // change.
        let path: PathBuf = path.components().collect();
        match self.owners.entry(path) {
            Entry::Vacant(free) => {
                free.insert(owner);
            }
            Entry::Occupied(taken) => {
                problems
                    .error(place, format!("{} belongs to {} already", taken.key().display(), taken.get()));
            }
        }
    }
}
