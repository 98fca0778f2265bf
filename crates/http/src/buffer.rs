//! Room for bytes on their way. Borrowed from the worker while bytes are pending, so that a connection at
//! rest owns none.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tieline_transport::Io;
use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once, in bytes; heads may need more.
pub(crate) const SIZE: usize = 16 * 1024;

/// What is read at once of a body that is larger than that, or of an answer: 64 KiB and a head.
const LARGE: usize = 68 * 1024;

/// What makes do where very many are in use.
const LITTLE: usize = 4 * 1024;

/// How many of each a worker keeps for the next who needs one.
const KEPT: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SPARE_LARGE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SPARE_LITTLE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// How many usual ones are in use.
    static USUAL_OUT: Cell<usize> = const { Cell::new(0) };
    /// How many large ones are in use.
    static LARGE_OUT: Cell<usize> = const { Cell::new(0) };
}

/// How many large ones a worker has in use at once: when more bodies than that are on their way, slow readers
/// among them, the rest make do with small ones.
const LARGE_MAX: usize = 128;

/// How many usual ones a worker has in use at once. A buffer is in use while bytes are in it, which is long
/// only where somebody is slow: a thousand of those are served four KiB at a time.
const USUAL_MAX: usize = 512;

/// Bytes that were read and not used up yet. While there are none and none come, it owns nothing.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Of length 0 while it owns none.
    room: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether much may come at once.
    roomy: bool,
}

impl Buffer {
    pub(crate) fn take() -> Buffer {
        Buffer { room: Vec::new(), start: 0, end: 0, roomy: false }
    }

    /// One for answers, whose bodies come with their heads.
    pub(crate) fn roomy() -> Buffer {
        Buffer { room: Vec::new(), start: 0, end: 0, roomy: true }
    }

    /// Makes the most of what comes next, which is a body of so many bytes.
    pub(crate) fn expect(&mut self, bytes: u64) {
        let small = self.room.len() <= SIZE;
        if self.is_empty()
            && bytes > SIZE as u64
            && small
            && let Some(large) = large()
        {
            keep(std::mem::replace(&mut self.room, large));
        }
    }

    /// Owns nothing while nothing is in it: others have bytes for it meanwhile.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            keep(std::mem::take(&mut self.room));
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads once behind what there is: 0 is the end. Makes room as far as `most` bytes; there must be some
    /// left.
    pub(crate) fn poll_fill(
        &mut self,
        io: &mut Io,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.room.is_empty() {
            // Before it takes any: others have bytes for it meanwhile.
            ready!(io.poll_readable(cx));
            self.room = self.roomy.then(large).flatten().unwrap_or_else(usual);
        } else if self.end == self.room.len() {
            self.make_room(most);
        }
        let mut space = ReadBuf::new(&mut self.room[self.end..]);
        let read = Pin::new(io).poll_read(cx, &mut space);
        let count = space.filled().len();
        if read.is_pending() {
            self.rest();
        }
        self.end += count;
        read.map_ok(|()| count)
    }

    fn make_room(&mut self, most: usize) {
        if self.start > 0 {
            self.room.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else {
            let size = self.room.len();
            let wanted = (size * 2).min(most).max(size);
            // What grows is no longer one of those that are lent.
            let mut room = Vec::with_capacity(wanted);
            room.extend_from_slice(&self.room);
            room.resize(wanted, 0);
            if wanted == SIZE && size < SIZE {
                USUAL_OUT.set(USUAL_OUT.get() + 1);
            }
            keep(std::mem::replace(&mut self.room, room));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.room));
    }
}

/// One of the usual ones, or a little one where too many of them are lent.
fn usual() -> Vec<u8> {
    if USUAL_OUT.get() >= USUAL_MAX {
        return SPARE_LITTLE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LITTLE]);
    }
    USUAL_OUT.set(USUAL_OUT.get() + 1);
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE])
}

/// One of the large ones, if another may be lent.
fn large() -> Option<Vec<u8>> {
    if LARGE_OUT.get() >= LARGE_MAX {
        return None;
    }
    LARGE_OUT.set(LARGE_OUT.get() + 1);
    Some(SPARE_LARGE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE]))
}

fn keep(room: Vec<u8>) {
    let spare = match room.len() {
        LITTLE => &SPARE_LITTLE,
        SIZE => {
            USUAL_OUT.set(USUAL_OUT.get().saturating_sub(1));
            &SPARE
        }
        LARGE => {
            LARGE_OUT.set(LARGE_OUT.get().saturating_sub(1));
            &SPARE_LARGE
        }
        // It owned none, or a large head had to grow into it.
        _ => return,
    };
    spare.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(room);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent() -> Buffer {
        let mut buffer = Buffer::take();
        buffer.room = usual();
        buffer
    }

    #[test]
    fn where_many_are_in_use_the_rest_are_little_and_all_are_counted() {
        let held: Vec<Buffer> = (0..USUAL_MAX).map(|_| lent()).collect();
        assert!(held.iter().all(|buffer| buffer.room.len() == SIZE));
        let mut little = lent();
        assert_eq!(little.room.len(), LITTLE);
        // A head that does not fit grows, and counts while it is of the usual size.
        for size in [2 * LITTLE, SIZE, 2 * SIZE] {
            little.end = little.room.len();
            little.make_room(64 * 1024);
            assert_eq!(little.room.len(), size);
            assert_eq!(USUAL_OUT.get(), USUAL_MAX + usize::from(size == SIZE));
        }
        drop((held, little));
        assert_eq!(USUAL_OUT.get(), 0);
        assert_eq!(lent().room.len(), SIZE);
    }

    #[test]
    fn so_many_large_ones_are_lent_and_no_more() {
        let mut held: Vec<Vec<u8>> = (0..LARGE_MAX).map(|_| large().unwrap()).collect();
        assert!(large().is_none());
        held.pop().into_iter().for_each(keep);
        assert!(large().is_some_and(|room| room.len() == LARGE));
    }
}
