//! How many servers users may have: `max_user_connections`, for all of them and for some.

use super::counts;
use super::globals::Globals;
use super::ini::{Setting, pairs};
use super::notes::Notes;

/// What a user may have of the servers of an upstream.
#[derive(Debug)]
pub(super) struct Share {
    /// `None`: each that no other share names.
    pub(super) user: Option<String>,
    /// `None`: as many as there are.
    pub(super) cap: Option<u32>,
}

/// The shares of `globals`, and of `[users]`.
pub(super) fn shares(globals: &mut Globals, settings: &[Setting], notes: &mut Notes) -> Vec<Share> {
    let mut counted = globals.line_of("max_user_connections");
    let usual = globals.whole("max_user_connections", 0, notes);
    let mut shares = Vec::new();
    if usual > 0 {
        shares.push(Share { user: None, cap: Some(usual) });
    }
    for Setting { key: user, value, line, .. } in settings.iter().filter(|it| it.section == "users") {
        let Some(pairs) = pairs(value) else {
            notes.tell(*line, format!("\"{value}\" is nothing that is said of a user"));
            continue;
        };
        for (key, value) in pairs.into_iter().filter(|(key, _)| !counts::is_of_user(key)) {
            let cap = value.parse::<u32>().ok().filter(|_| key == "max_user_connections");
            let Some(cap) = cap else {
                let what = format!(
                    "{key}={value} of user \"{user}\": write a route with user = \"{user}\" \
                     and an upstream of its own"
                );
                notes.tell(*line, what);
                continue;
            };
            shares.retain(|share| share.user.as_ref() != Some(user));
            if cap > 0 || usual > 0 {
                counted = counted.or(Some(*line));
                shares.push(Share { user: Some(user.clone()), cap: Some(cap).filter(|cap| *cap > 0) });
            }
        }
    }
    if let Some(line) = counted.filter(|_| !shares.is_empty()) {
        let what = "max_user_connections counts at all databases together there, at each upstream here";
        notes.tell(line, what.into());
    }
    shares
}
