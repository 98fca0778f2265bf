//! Whom servers count for: the users that clients log in as. Where servers are scarce, whoever holds least of
//! them is next.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError};
use std::time::Duration;

use tieline_base::format_duration;
use tieline_pool::{LeaseError, Share};

/// Users by the numbers that stand for them where servers are counted. A number is its user's for good, as
/// places may be held in the name of whoever is gone.
#[derive(Debug, Default)]
struct Numbered {
    numbers: HashMap<Box<str>, u16>,
    /// In the order of their numbers, the first of which is 1.
    users: Vec<Box<str>>,
}

/// The number of all who come when none is left: they count as one.
const BEYOND: u16 = u16::MAX;

/// Servers know longer names by so many bytes.
const NAME_MAX: usize = 63;

// Held for a look-up; once for each client that logs in.
#[allow(clippy::disallowed_types)]
static NUMBERED: LazyLock<std::sync::Mutex<Numbered>> = LazyLock::new(Default::default);

impl Numbered {
    fn share_of(&mut self, user: &str) -> Share {
        let user = &user[..user.floor_char_boundary(NAME_MAX)];
        if let Some(number) = self.numbers.get(user) {
            return Share::of(*number);
        }
        let number = u16::try_from(self.users.len() + 1).unwrap_or(BEYOND);
        if number < BEYOND {
            self.numbers.insert(user.into(), number);
            self.users.push(user.into());
        }
        Share::of(number)
    }

    /// Who that is.
    fn user(&self, share: Share) -> Option<&str> {
        self.users.get(usize::from(share.number()).checked_sub(1)?).map(|user| &**user)
    }
}

/// That of `user`, who is called so where somebody waits behind them, and of nobody else: of as many users as
/// there are numbers.
pub fn share_of(user: &str) -> Share {
    NUMBERED.lock().unwrap_or_else(PoisonError::into_inner).share_of(user)
}

/// Why a client waited in vain, as it is told: for how long, and behind whom. `None`: nothing is known of it.
pub(crate) fn waited(error: &LeaseError) -> Option<String> {
    let (after, behind) = behind(error)?;
    Some(format!("query_wait_timeout: no server became free within {after}: {behind}"))
}

/// The same while it still waits.
pub(crate) fn waits(error: &LeaseError) -> Option<String> {
    let (after, behind) = behind(error)?;
    Some(format!("no server became free for {after}, and the query waits: {behind}"))
}

/// For how long somebody has waited, and what is between it and a server.
fn behind(error: &LeaseError) -> Option<(String, String)> {
    let LeaseError::Waited { after, ahead, places, most, cap, .. } = error else { return None };
    // To the second, where there are any.
    let whole = Duration::from_secs(after.as_secs());
    let after = format_duration(if whole.is_zero() { *after } else { whole });
    if let Some(cap) = cap {
        return Some((after, format!("{cap} servers at once are all that this user may have")));
    }
    let most = most.and_then(|(share, count)| {
        let numbered = NUMBERED.lock().unwrap_or_else(PoisonError::into_inner);
        numbered.user(share).map(|user| format!(", and \"{user}\" has most of them, {count}"))
    });
    let most = most.unwrap_or_default();
    Some((after, format!("{ahead} are ahead in line, {places} servers are busy{most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_a_share_of_its_own_for_as_long_as_there_are_any() {
        let mut numbered = Numbered::default();
        let name = |at: u32| format!("user {at}");
        let shares: std::collections::HashSet<_> =
            (1..65_535).map(|at| numbered.share_of(&name(at))).collect();
        assert_eq!(shares.len(), 65_534);
        assert!(!shares.contains(&Share::NOBODY));
        // Who comes later takes nothing from who has one.
        let late = ["late", "later"].map(|user| numbered.share_of(user));
        assert!(late[0] == late[1] && !shares.contains(&late[0]) && numbered.user(late[0]).is_none());
        let first = numbered.share_of(&name(1));
        assert_eq!((numbered.user(first), numbered.users.len()), (Some("user 1"), 65_534));
    }

    #[test]
    fn long_names_are_as_long_as_servers_know_them() {
        let mut numbered = Numbered::default();
        let long = "\u{e4}".repeat(5_000);
        assert_eq!(numbered.share_of(&long), numbered.share_of(&format!("{long}x")));
        assert!(numbered.users[0].len() <= NAME_MAX);
        assert_ne!(numbered.share_of("a"), numbered.share_of("b"));
    }

    #[test]
    fn whoever_waited_in_vain_is_told_for_how_long_and_behind_whom() {
        let waited_for = |most| LeaseError::Waited {
            upstream: "orders".into(),
            after: Duration::from_secs(120),
            ahead: 37,
            places: 20,
            most,
            cap: None,
        };
        let text = waited(&waited_for(Some((share_of("batch"), 18)))).unwrap();
        assert_eq!(
            text,
            "query_wait_timeout: no server became free within 2m: 37 are ahead in line, 20 servers are busy, \
             and \"batch\" has most of them, 18"
        );
        assert_eq!(
            waits(&waited_for(None)).unwrap(),
            "no server became free for 2m, and the query waits: 37 are ahead in line, 20 servers are busy"
        );
        assert!(waited(&waited_for(None)).unwrap().ends_with("20 servers are busy"));
        assert!(waited(&LeaseError::NoEndpoint("orders".into())).is_none());
    }
}
