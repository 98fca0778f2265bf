//! Listeners and upstreams of PostgreSQL, and who can log in at all.

use std::collections::HashMap;

use tieline_base::Verifier;

use crate::config::Config;
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::route::Route;
use crate::upstream::Upstream;
use crate::user::Password;
use crate::words::{Auth, PoolMode, ReplicaReads};

/// Tells of routes between listeners and upstreams of which one alone speaks PostgreSQL, of listeners at
/// which nobody can log in, and of users who can log in nowhere.
pub(crate) fn postgres(config: &Config, problems: &mut Problems) {
    // Beside an error it may be the error's own echo.
    if problems.any_error() {
        return;
    }
    ends(config, problems);
    lookups(config, problems);
    consoles(config, problems);
    users(config, problems);
}

fn ends(config: &Config, problems: &mut Problems) {
    let upstreams: HashMap<&str, &Upstream> =
        config.live.upstreams.iter().map(|upstream| (upstream.name.as_str(), upstream)).collect();
    for listener in &config.live.listeners {
        let named = |route| Route::named_upstreams(route).map(move |(name, place)| (route, name, place));
        for (route, name, place) in listener.routes.iter().flat_map(named) {
            let Some(upstream) = upstreams.get(name) else { continue };
            let has_user = upstream.postgres.as_ref().is_none_or(|servers| servers.asker().is_some());
            let reads = route.replica_reads != ReplicaReads::Off;
            if (route.role.is_some() || reads) && !has_user {
                let key = if reads { "replica_reads" } else { "role" };
                let message = format!(
                    "`{key}` is found out by asking, and upstream \"{name}\" has no `user` to ask as"
                );
                problems.error(place, message).hint("write user = \"app\" in it");
            }
            let whole_session = upstream.postgres.as_ref().is_some_and(|it| it.mode == PoolMode::Session);
            if reads && whole_session {
                let message = format!(
                    "`replica_reads` means nothing with upstream \"{name}\", whose clients keep one server"
                );
                problems.error(place, message).hint("write pool.mode = \"transaction\" in it");
            }
            match (listener.protocol == Protocol::Postgres, upstream.postgres.is_some()) {
                (true, false) => {
                    let message =
                        format!("upstream \"{name}\" does not speak \"postgres\", as this listener does");
                    let hint = format!("write protocol = \"postgres\" in [upstream.{name}]");
                    problems.error(place, message).hint(hint);
                }
                (false, true) => {
                    let message = format!(
                        "upstream \"{name}\" speaks \"postgres\", and this listener speaks \"{}\"",
                        listener.protocol
                    );
                    let hint =
                        "make it a listener of protocol \"postgres\", or take `protocol` out of the upstream";
                    problems.error(place, message).hint(hint);
                }
                _ => {}
            }
        }
    }
}

/// Users are looked up where servers are logged in to as somebody who may do that, whoever the client is.
fn lookups(config: &Config, problems: &mut Problems) {
    for asked in config.live.listeners.iter().filter_map(|listener| listener.auth_query.as_ref()) {
        let name = &asked.upstream;
        let Some(upstream) = config.live.upstream(name) else { continue };
        let lacks = match &upstream.postgres {
            None => {
                let message =
                    format!("upstream \"{name}\" does not speak \"postgres\", as `auth_query` does");
                let hint = format!("write protocol = \"postgres\" in [upstream.{name}]");
                problems.error(asked.place, message).hint(hint);
                continue;
            }
            Some(servers) if servers.user.is_none() => "user",
            Some(servers) if servers.database.is_none() => "database",
            Some(_) => continue,
        };
        let message = format!("upstream \"{name}\" names no `{lacks}`, which `auth_query` needs");
        problems.error(asked.place, message).hint(format!("write `{lacks}` in [upstream.{name}]"));
    }
}

/// The names of the console, as clients call it.
const CONSOLE_NAMES: [&str; 2] = ["tieline", "pgbouncer"];

fn consoles(config: &Config, problems: &mut Problems) {
    for listener in &config.live.listeners {
        let Some(console) = &listener.console else { continue };
        for route in &listener.routes {
            let names = &route.logins.databases;
            if let Some(name) = names.iter().find(|name| CONSOLE_NAMES.contains(&name.as_str())) {
                let message = format!("`database`: \"{name}\" is the console of this listener");
                problems
                    .error(route.place, message)
                    .hint("take `console` out, or call the database otherwise");
            }
        }
        let known = |name: &String| {
            config.live.users.iter().any(|user| user.name == *name && user.password.is_some())
        };
        let asks = matches!(listener.auth, Auth::Scram | Auth::Md5) && listener.auth_query.is_none();
        let users = console.admins.iter().chain(&console.readers);
        for user in users.filter(|user| asks && !known(user)) {
            let message =
                format!("user \"{user}\" may use the console of \"{}\", and cannot log in", listener.name);
            let warning = problems.warning(listener.place, message);
            warning.hint(format!("write [user.{user}] with what `tieline user password {user}` prints"));
        }
        // Whoever may make roles there could make one of that name.
        let found = |name: &&String| listener.auth_query.is_some() && !known(name);
        for user in console.admins.iter().filter(found) {
            let message = format!(
                "user \"{user}\" may give orders at the console of \"{}\", and is whoever `auth_query` finds \
                 by that name",
                listener.name
            );
            let warning = problems.warning(listener.place, message);
            warning.hint(format!("write [user.{user}] with what `tieline user password {user}` prints"));
        }
    }
}

fn users(config: &Config, problems: &mut Problems) {
    let (mut asks, mut takes_md5, mut believes) = (false, false, false);
    let any = config.live.users.iter().any(|user| user.password.is_some());
    for listener in config.live.listeners.iter().filter(|it| it.protocol == Protocol::Postgres) {
        let for_passwords = matches!(listener.auth, Auth::Scram | Auth::Md5);
        asks |= for_passwords;
        takes_md5 |= listener.auth == Auth::Md5;
        believes |= !for_passwords || listener.auth_query.is_some();
        if for_passwords && !any && listener.auth_query.is_none() {
            let message =
                format!("nobody can log in at listener \"{}\", because there is no user", listener.name);
            let warning = problems.warning(listener.place, message);
            warning.hint("write a [user.NAME] with what `tieline user password NAME` prints");
        }
    }
    for user in &config.live.users {
        let Some(password) = &user.password else {
            if !believes {
                let message = format!(
                    "user \"{}\" has no password, and no listener looks users up or believes them",
                    user.name
                );
                let warning = problems.warning(user.place, message);
                warning
                    .hint(format!("write the `verifier` that `tieline user password {}` prints", user.name));
            }
            continue;
        };
        if !asks {
            let message =
                format!("no listener asks for passwords, so that of user \"{}\" is of no use", user.name);
            problems.warning(user.place, message);
        } else if !takes_md5 && matches!(password, Password::Verifier(Verifier::Md5(_))) {
            let message =
                format!("user \"{}\" has a verifier of md5, and no listener has auth = \"md5\"", user.name);
            let warning = problems.warning(user.place, message);
            warning.hint(format!("write the `verifier` that `tieline user password {}` prints", user.name));
        }
    }
}
