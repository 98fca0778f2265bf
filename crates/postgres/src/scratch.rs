//! The worker's own room for bytes on their way: a connection owns some only for what its peer does not take.

use std::cell::RefCell;

/// What is read at once, in bytes.
const INPUT: usize = 32 * 1024;

/// Room beyond this is given back once it is empty.
const OUTPUT_KEPT: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<(Box<[u8]>, Vec<u8>)> = RefCell::new((vec![0; INPUT].into(), Vec::new()));
}

/// Runs `work` with the room to read into, and room for what is made of it. Not to be called within itself.
pub(crate) fn with<R>(work: impl FnOnce(&mut [u8], &mut Vec<u8>) -> R) -> R {
    SCRATCH.with_borrow_mut(|(input, output)| {
        let result = work(input, output);
        output.clear();
        if output.capacity() > OUTPUT_KEPT {
            *output = Vec::new();
        }
        result
    })
}

/// What goes out of a piece that came in. While nothing is left out or put in, that is the piece itself, and
/// nothing is copied.
pub(crate) struct Cut<'b> {
    bytes: &'b [u8],
    out: &'b mut Vec<u8>,
    /// What lies before this is in `out`, or left out.
    from: usize,
}

impl<'b> Cut<'b> {
    /// `out` is empty.
    pub(crate) fn new(bytes: &'b [u8], out: &'b mut Vec<u8>) -> Self {
        Self { bytes, out, from: 0 }
    }

    /// Leaves out what lies from `at` to `to`.
    pub(crate) fn skip(&mut self, at: usize, to: usize) {
        self.copy_to(at);
        self.from = to;
    }

    /// Where to append what is put in before `at`.
    pub(crate) fn insert(&mut self, at: usize) -> &mut Vec<u8> {
        self.copy_to(at);
        self.out
    }

    /// What goes out, as far as `end`.
    pub(crate) fn finish(self, end: usize) -> &'b [u8] {
        if self.out.is_empty() {
            return &self.bytes[self.from.min(end)..end];
        }
        self.out.extend_from_slice(&self.bytes[self.from.min(end)..end]);
        self.out
    }

    fn copy_to(&mut self, at: usize) {
        if self.from < at {
            self.out.extend_from_slice(&self.bytes[self.from..at]);
            self.from = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cut;

    #[test]
    fn what_is_not_changed_is_not_copied() {
        let (bytes, mut out) = (b"abcdef".to_vec(), Vec::new());
        let mut cut = Cut::new(&bytes, &mut out);
        cut.skip(0, 2);
        assert_eq!(cut.finish(6).as_ptr(), bytes[2..].as_ptr());
    }

    #[test]
    fn parts_are_left_out_and_put_in() {
        let mut out = Vec::new();
        let mut cut = Cut::new(b"abcdef", &mut out);
        cut.skip(1, 3);
        cut.insert(4).extend_from_slice(b"--");
        cut.insert(4).extend_from_slice(b"++");
        assert_eq!(cut.finish(5), b"ad--++e");
    }
}
