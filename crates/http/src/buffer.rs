//! Room for bytes on their way. Borrowed from the worker while bytes are pending, so that a connection at
//! rest owns none.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tieline_transport::Io;
use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once, in bytes; heads may need more.
pub(crate) const SIZE: usize = 16 * 1024;

/// What is read at once of a body that is larger than that.
const LARGE: usize = 64 * 1024;

/// How many of each a worker keeps for the next who needs one.
const KEPT: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SPARE_LARGE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// How many large ones are in use.
    static LARGE_OUT: Cell<usize> = const { Cell::new(0) };
}

/// How many large ones a worker has in use at once: when more bodies than that are on their way, slow readers
/// among them, the rest make do with small ones.
const LARGE_MAX: usize = 128;

/// Bytes that were read and not used up yet. While there are none and none come, it owns nothing.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Of length 0 while it owns none.
    room: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn take() -> Buffer {
        Buffer { room: Vec::new(), start: 0, end: 0 }
    }

    /// Makes the most of what comes next, which is a body of so many bytes.
    pub(crate) fn expect(&mut self, bytes: u64) {
        let small = self.room.is_empty() || self.room.len() == SIZE;
        if self.is_empty() && bytes > SIZE as u64 && small && LARGE_OUT.get() < LARGE_MAX {
            LARGE_OUT.set(LARGE_OUT.get() + 1);
            let large = SPARE_LARGE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE]);
            keep(std::mem::replace(&mut self.room, large));
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
            self.room = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE]);
        } else if self.end == self.room.len() {
            self.make_room(most);
        }
        let mut space = ReadBuf::new(&mut self.room[self.end..]);
        let read = Pin::new(io).poll_read(cx, &mut space);
        let count = space.filled().len();
        if read.is_pending() && self.is_empty() {
            // Others have bytes for it meanwhile.
            keep(std::mem::take(&mut self.room));
        }
        self.end += count;
        read.map_ok(|()| count)
    }

    fn make_room(&mut self, most: usize) {
        if self.start > 0 {
            self.room.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else {
            self.room.resize((self.room.len() * 2).min(most.max(SIZE)), 0);
            if self.room.len() == LARGE {
                LARGE_OUT.set(LARGE_OUT.get() + 1);
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        keep(std::mem::take(&mut self.room));
    }
}

fn keep(room: Vec<u8>) {
    let spare = match room.len() {
        SIZE => &SPARE,
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
