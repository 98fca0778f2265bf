//! Log-ins that servers refuse for good: a database that does not exist, a password that is wrong. Whoever
//! waits for such a log-in when it is refused is told so at once, with the server's words; those who come
//! later wait until it is tried anew, which is done now and then, however many they are. Nobody is told what
//! was true before they asked: who makes a database because there was none finds it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tieline_base::Moment;
use tieline_wire::postgres::backend::Notice;
use tokio::sync::Notify;

/// From a refusal to the next try.
pub(crate) const BETWEEN: Duration = Duration::from_millis(250);

/// What servers said to one way of being logged in, by their labels.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    /// Whether there are any: by far the most ways never have one.
    any: AtomicBool,
    // Held for a look.
    #[allow(clippy::disallowed_types)]
    said: std::sync::Mutex<HashMap<Arc<str>, Denial>>,
    changed: Notify,
}

#[derive(Debug)]
struct Denial {
    at: Moment,
    /// When it may be tried again.
    again: Moment,
    /// The body of its ErrorResponse.
    body: Box<[u8]>,
}

/// Where a client stands that wants to be logged in.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It may try.
    Free,
    /// It was refused after it asked: so.
    Denied(Box<[u8]>),
    /// It was refused a moment before: not before that is over.
    Later(Moment),
}

/// Whether what a server says to a log-in is true for longer than a moment: it knows no such database
/// (3D000), or does not take this user, or what it proves (class 28).
pub(crate) fn is_lasting(body: &[u8]) -> bool {
    let code = Notice::read(body).and_then(|notice| notice.code);
    code.is_some_and(|code| code == b"3D000" || code.starts_with(b"28"))
}

impl Denials {
    /// The server called so said `body` at `now`.
    pub(crate) fn note(&self, server: &Arc<str>, body: &[u8], now: Moment) {
        self.said().insert(server.clone(), Denial { at: now, again: now.after(BETWEEN), body: body.into() });
        self.any.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether a server has refused it and not taken it since.
    pub(crate) fn are_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The server called so takes it.
    pub(crate) fn forget(&self, server: &str) {
        if !self.are_any() {
            return;
        }
        let mut said = self.said();
        if said.remove(server).is_some() {
            self.any.store(!said.is_empty(), Ordering::Release);
            self.changed.notify_waiters();
        }
    }

    /// What one of `servers` said, if all of them have refused it since it was `asked` for.
    pub(crate) fn since(&self, servers: impl Fn() -> Vec<Arc<str>>, asked: Moment) -> Option<Box<[u8]>> {
        if !self.are_any() {
            return None;
        }
        let (servers, said) = (servers(), self.said());
        let denied = |server: &Arc<str>| said.get(server).filter(|denial| denial.at >= asked);
        let all = servers.iter().all(|server| denied(server).is_some());
        servers.first().and_then(denied).filter(|_| all).map(|denial| denial.body.clone())
    }

    /// Where somebody stands who asked at `asked` for any of `servers`, all that there are. Whoever is free
    /// is so alone: others have to wait until the outcome is known, or is overdue.
    pub(crate) fn standing(
        &self,
        servers: impl Fn() -> Vec<Arc<str>>,
        asked: Moment,
        now: Moment,
    ) -> Standing {
        if !self.are_any() {
            return Standing::Free;
        }
        if let Some(body) = self.since(&servers, asked) {
            return Standing::Denied(body);
        }
        let (servers, mut said) = (servers(), self.said());
        said.retain(|server, _| servers.contains(server));
        if said.is_empty() || said.len() < servers.len() {
            return Standing::Free;
        }
        let again = said.values().map(|denial| denial.again).min().unwrap_or(now);
        if again > now {
            return Standing::Later(again);
        }
        said.values_mut().for_each(|denial| denial.again = now.after(BETWEEN));
        Standing::Free
    }

    /// Waits until something is otherwise, from this call on.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    // Held for a look; what is in it is whole at any time.
    #[allow(clippy::disallowed_types)]
    fn said(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Denial>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_DATABASE: &[u8] = b"SFATAL\0C3D000\0Mdatabase \"x\" does not exist\0\0";

    fn at(ms: u64) -> Moment {
        Moment::default().after(Duration::from_millis(1_000 + ms))
    }

    fn servers() -> Vec<Arc<str>> {
        vec!["one".into(), "two".into()]
    }

    #[test]
    fn only_what_lasts_is_kept() {
        assert!(is_lasting(NO_DATABASE) && is_lasting(b"C28P01\0\0") && is_lasting(b"C28000\0\0"));
        for passing in [&b"C57P03\0\0"[..], b"C53300\0\0", b"C42501\0\0", b"Mno code\0\0", b""] {
            assert!(!is_lasting(passing));
        }
    }

    #[test]
    fn who_asked_before_is_told_and_who_asks_after_waits_for_one_to_try() {
        let denials = Denials::default();
        assert_eq!(denials.standing(servers, at(0), at(0)), Standing::Free);
        denials.note(&"one".into(), NO_DATABASE, at(10));
        assert_eq!(denials.standing(servers, at(0), at(10)), Standing::Free, "the other may know better");
        denials.note(&"two".into(), NO_DATABASE, at(20));
        assert_eq!(denials.standing(servers, at(0), at(20)), Standing::Denied(NO_DATABASE.into()));
        let again = at(10).after(BETWEEN);
        assert_eq!(denials.standing(servers, at(30), at(40)), Standing::Later(again));
        assert_eq!(denials.standing(servers, at(30), again), Standing::Free);
        let later = again.after(BETWEEN);
        assert_eq!(denials.standing(servers, at(30), again), Standing::Later(later), "one tries it already");
        // What became of it is the others' answer too.
        denials.note(&"one".into(), NO_DATABASE, again.after(BETWEEN / 2));
        assert_eq!(denials.standing(servers, at(30), again.after(BETWEEN / 2)), Standing::Later(later));
        denials.note(&"two".into(), NO_DATABASE, again.after(BETWEEN / 2));
        let told = denials.standing(servers, at(30), again.after(BETWEEN / 2));
        assert_eq!(told, Standing::Denied(NO_DATABASE.into()));
    }

    #[test]
    fn what_works_again_is_free_for_all() {
        let denials = Denials::default();
        denials.note(&"one".into(), NO_DATABASE, at(10));
        denials.note(&"two".into(), NO_DATABASE, at(10));
        denials.forget("two");
        assert_eq!(denials.standing(servers, at(30), at(30)), Standing::Free);
        denials.forget("one");
        assert!(!denials.any.load(Ordering::Acquire));
        // A server that is one of them no more has no say.
        denials.note(&"gone".into(), NO_DATABASE, at(10));
        assert_eq!(denials.standing(|| vec!["one".into()], at(0), at(20)), Standing::Free);
    }
}
