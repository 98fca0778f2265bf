//! How many clients users and databases may have: `max_user_client_connections`, and
//! `max_db_client_connections`.

use super::globals::Globals;
use super::ini::{Setting, pairs};
use super::notes::Notes;
use super::write::{Route, User};

/// A number of clients; 0, as there, is any number.
pub(super) type Count = u32;

const OF_USER: &str = "max_user_client_connections";
const OF_DATABASE: &str = "max_db_client_connections";

/// What holds where nothing else is said.
#[derive(Clone, Copy)]
pub(super) struct Usual {
    pub(super) per_user: Option<Count>,
    pub(super) per_database: Option<Count>,
}

/// What `globals` say of all; more than the `connections` of the listener is not needed.
pub(super) fn usual(globals: &mut Globals, connections: u32, notes: &mut Notes) -> Usual {
    let mut most = |key| Some(globals.whole(key, 0, notes)).filter(|count| *count > 0);
    let [per_user, per_database] = [OF_USER, OF_DATABASE].map(&mut most);
    Usual {
        per_user: per_user.map(|count| count.min(connections)),
        per_database: per_database.map(|count| count.min(connections)),
    }
}

/// Whether `key` of a line of `[users]` is carried over here.
pub(super) fn is_of_user(key: &str) -> bool {
    key == OF_USER
}

/// Has `users`, and `routes` in the order of `[databases]`, say what their lines say.
pub(super) fn carry(settings: &[Setting], users: &mut Vec<User>, routes: &mut [Route], notes: &mut Notes) {
    for (name, count, line) in said(settings, "users", OF_USER, notes) {
        match users.iter_mut().find(|user| user.name == name) {
            Some(user) => user.connections = Some(count),
            None if tieline_config::is_name(&name) => {
                users.push(User { name, verifier: None, password_file: None, connections: Some(count) });
            }
            None => {
                let name = name.escape_debug();
                notes.tell(
                    line,
                    format!("{OF_USER} of user \"{name}\": its name cannot be that of a [user.NAME]"),
                );
            }
        }
    }
    for (name, count, _) in said(settings, "databases", OF_DATABASE, notes) {
        let named = (name != "*").then_some(name);
        for route in routes.iter_mut().filter(|route| route.database == named) {
            route.connections = Some(count);
        }
    }
}

/// What the lines of `section` say of `key`: whose, the number, the line.
fn said(settings: &[Setting], section: &str, key: &str, notes: &mut Notes) -> Vec<(String, Count, usize)> {
    let mut all = Vec::new();
    for Setting { key: name, value, line, .. } in settings.iter().filter(|it| it.section == section) {
        // What is no list of pairs is told elsewhere.
        let pairs = pairs(value).unwrap_or_default();
        let Some((_, value)) = pairs.iter().rev().find(|(other, _)| other == key) else { continue };
        match value.parse() {
            Ok(count) => all.push((name.clone(), count, *line)),
            Err(_) => notes.tell(*line, format!("{key}={value} of \"{name}\" is no number, and left out")),
        }
    }
    all
}

/// `count` as TOML.
pub(super) fn toml(count: Count) -> String {
    if count == 0 { "\"off\"".into() } else { count.to_string() }
}
