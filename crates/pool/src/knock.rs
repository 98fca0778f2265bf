//! How many connections are on their way to one endpoint at once: one at a time starves a cold pool, all at
//! once buries a server that recovers.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many at once.
const AT_ONCE: usize = 4;

// Held for a look-up; once for each connection that is made.
#[allow(clippy::disallowed_types)]
static DOORS: LazyLock<std::sync::Mutex<HashMap<Arc<str>, Arc<Semaphore>>>> = LazyLock::new(Default::default);

/// A turn at the door of an endpoint, from before it is dialed until this is dropped: when it has let in whom
/// it shall, or has not.
#[derive(Debug)]
pub struct Knock {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Waits for a turn at the endpoint called so, whichever upstream it is of. May be dropped.
pub async fn knock(endpoint: &Arc<str>) -> Knock {
    // It is never closed.
    Knock { _permit: door(endpoint).acquire_owned().await.ok() }
}

/// A turn that need not be waited for.
pub(crate) fn knock_at_once(endpoint: &Arc<str>) -> Option<Knock> {
    let permit = door(endpoint).try_acquire_owned().ok()?;
    Some(Knock { _permit: Some(permit) })
}

fn door(endpoint: &Arc<str>) -> Arc<Semaphore> {
    let mut doors = DOORS.lock().unwrap_or_else(PoisonError::into_inner);
    // At the others nobody knocks just now.
    doors.retain(|name, door| Arc::strong_count(door) > 1 || name == endpoint);
    doors.entry(endpoint.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_no_more_until_one_is_through() {
        let name: Arc<str> = "knocked-at".into();
        let mut knocks: Vec<_> = (0..AT_ONCE).map_while(|_| knock_at_once(&name)).collect();
        assert_eq!(knocks.len(), AT_ONCE);
        assert!(knock_at_once(&name).is_none());
        assert!(knock_at_once(&"another".into()).is_some());
        knocks.pop();
        assert!(knock_at_once(&name).is_some());
    }
}
