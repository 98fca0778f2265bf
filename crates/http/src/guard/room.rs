//! Memory for bodies that are held: so much for all of a listener's, however many clients send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What bodies that are held may take together, in bytes.
#[derive(Clone, Debug)]
pub struct Room {
    most: u64,
    taken: Arc<AtomicU64>,
}

/// A part of it; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Part {
    room: Room,
    bytes: u64,
}

/// There is no more.
#[derive(Debug, thiserror::Error)]
#[error("bodies that are checked take all the memory that `limits.validated_bodies` gives them")]
pub(super) struct Full;

impl Room {
    /// So many bytes, those counted in `taken` among them, which outlives configs.
    pub fn new(most: u64, taken: Arc<AtomicU64>) -> Self {
        Self { most, taken }
    }

    /// No bytes yet.
    pub(super) fn part(&self) -> Part {
        Part { room: self.clone(), bytes: 0 }
    }
}

impl Part {
    /// Makes it so large, if it is smaller.
    pub(super) fn grow(&mut self, to: u64) -> Result<(), Full> {
        let more = to.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let before = self.room.taken.fetch_add(more, Relaxed);
        self.bytes += more;
        // What was taken too much goes back with all the rest: the body is refused.
        if before.saturating_add(more) > self.room.most { Err(Full) } else { Ok(()) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_never_hold_more_than_there_is() {
        let taken = Arc::new(AtomicU64::new(0));
        let room = Room::new(100, taken.clone());
        let (mut one, mut other) = (room.part(), room.part());
        assert!(one.grow(60).is_ok() && one.grow(30).is_ok() && other.grow(40).is_ok());
        assert!(other.grow(41).is_err());
        drop(other);
        assert!(one.grow(100).is_ok() && one.grow(101).is_err());
        drop(one);
        assert_eq!(taken.load(Relaxed), 0);
    }
}
