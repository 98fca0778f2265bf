//! What waits to be sent: heads, and pieces of bodies behind them. The room for them is lent by the worker,
//! from one exchange to the next: a small exchange takes no memory of its own.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use tieline_wire::http1::{CHUNK_END, encode_chunk_head};

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How many a worker keeps.
const KEPT: usize = 64;

/// How large one is at least, and how large it may become to be kept, in bytes; larger ones are rare.
const LEAST: usize = 512;
const MOST: usize = 4 * 1024;

/// One for so many bytes, empty.
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    let mut head = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if head.capacity() < bytes {
        head = Vec::with_capacity(bytes.max(LEAST));
    }
    head
}

/// Keeps the room of `head` for another one.
pub(crate) fn keep(mut head: Vec<u8>) {
    if !(LEAST..=MOST).contains(&head.capacity()) {
        return;
    }
    head.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(head);
        }
    });
}

/// Adds a piece of a body to what waits, as a chunk where it goes in chunks.
pub(crate) fn push(pending: &mut Vec<u8>, data: &[u8], chunked: bool) {
    let Some(length) = NonZeroUsize::new(data.len()) else { return };
    if chunked {
        encode_chunk_head(length, pending);
    }
    pending.extend_from_slice(data);
    if chunked {
        pending.extend_from_slice(CHUNK_END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_lent_again_empty() {
        let mut head = take(10);
        head.extend_from_slice(b"GET / HTTP/1.1");
        let room = head.capacity();
        keep(head);
        let again = take(20);
        assert_eq!((again.len(), again.capacity()), (0, room));
        assert!(SPARE.with_borrow(Vec::is_empty));
    }

    #[test]
    fn neither_many_nor_large_ones_are_kept() {
        keep(Vec::with_capacity(MOST + 1));
        keep(Vec::new());
        assert!(SPARE.with_borrow(Vec::is_empty));
        (0..2 * KEPT).for_each(|_| keep(Vec::with_capacity(LEAST)));
        assert_eq!(SPARE.with_borrow(Vec::len), KEPT);
    }
}
