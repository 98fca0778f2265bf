//! A run of a stream's bytes, each at its offset: appended behind, trimmed in front, shared in between.
//!
//! Owns memory and where in the stream it stands. Refuses to know whether the bytes were sent or received.
//! Bytes are gathered in slabs of [`SLAB`] bytes, taken on demand; a run without bytes holds no memory.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// The size of a slab, in bytes. A run holds at most two slabs more than its bytes need.
pub(super) const SLAB: usize = 16 * 1024;

/// From here on a piece is shared out of the open slab, below it is copied: sharing seals what is there, and
/// many small sealed parts would cost more than the bytes in them.
const SHARED_MIN: usize = 2048;

#[derive(Default, Debug)]
pub(super) struct Slabs {
    /// Parts that no longer change, each with the offset of its first byte.
    sealed: VecDeque<(u64, Bytes)>,
    /// The part that is appended to; it ends at `end`.
    open: BytesMut,
    start: u64,
    end: u64,
}

impl Slabs {
    /// The offset of the first byte held.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The offset behind the last byte held.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> u64 {
        self.end - self.start
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.open.capacity() == self.open.len() {
                self.seal();
                self.open = BytesMut::with_capacity(SLAB);
            }
            let room = self.open.capacity() - self.open.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(now);
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// At most `most` bytes from `offset` on, which must be held; fewer where a slab ends.
    pub(super) fn share(&mut self, offset: u64, most: usize) -> Bytes {
        let start_of_open = self.start_of_open();
        if offset < start_of_open {
            return self.share_sealed(offset, most);
        }
        let at = (offset - start_of_open) as usize;
        let piece = &self.open[at..];
        let length = piece.len().min(most);
        if length < SHARED_MIN {
            return Bytes::copy_from_slice(&piece[..length]);
        }
        self.seal();
        self.share_sealed(offset, most)
    }

    fn share_sealed(&self, offset: u64, most: usize) -> Bytes {
        let behind = self.sealed.partition_point(|(start, _)| *start <= offset);
        let (start, part) = &self.sealed[behind - 1];
        let at = (offset - start) as usize;
        part.slice(at..part.len().min(at + most))
    }

    /// The bytes in front, up to where a part ends.
    pub(super) fn front(&self) -> &[u8] {
        self.sealed.front().map_or(&self.open[..], |(_, part)| &part[..])
    }

    /// Lets go of all below `offset`, which is at most the end.
    pub(super) fn trim(&mut self, offset: u64) {
        let offset = offset.min(self.end);
        if offset <= self.start {
            return;
        }
        while let Some((start, part)) = self.sealed.front_mut() {
            let end = *start + part.len() as u64;
            if end > offset {
                part.advance(offset.saturating_sub(*start) as usize);
                *start = (*start).max(offset);
                break;
            }
            self.sealed.pop_front();
        }
        self.open.advance(offset.saturating_sub(self.start_of_open()) as usize);
        self.start = offset;
        if self.start == self.end {
            self.release();
        }
    }

    /// Lets go of all bytes; the run goes on behind them.
    pub(super) fn clear(&mut self) {
        self.start = self.end;
        self.release();
    }

    fn release(&mut self) {
        self.sealed = VecDeque::new();
        self.open = BytesMut::new();
    }

    fn start_of_open(&self) -> u64 {
        self.end - self.open.len() as u64
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let start = self.start_of_open();
            self.sealed.push_back((start, self.open.split().freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append(usize),
        Trim(u64),
        Share(u64, usize),
        Clear,
    }

    fn a_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..40_000_usize).prop_map(Step::Append),
            4 => (1..20_usize).prop_map(Step::Append),
            3 => (0..50_000_u64).prop_map(Step::Trim),
            6 => (0..50_000_u64, 1..20_000_usize).prop_map(|(at, most)| Step::Share(at, most)),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn every_byte_stays_at_its_offset(steps in prop::collection::vec(a_step(), 1..60)) {
            let mut slabs = Slabs::default();
            let mut model: Vec<u8> = Vec::new();
            let mut trimmed = 0;
            for step in steps {
                match step {
                    Step::Append(length) => {
                        let bytes: Vec<u8> =
                            (model.len()..model.len() + length).map(|at| (at * 7 / 3) as u8).collect();
                        slabs.append(&bytes);
                        model.extend(bytes);
                    }
                    Step::Trim(by) => {
                        trimmed = model.len().min(trimmed + by as usize);
                        slabs.trim(trimmed as u64);
                    }
                    Step::Share(at, most) if trimmed < model.len() => {
                        let at = trimmed + at as usize % (model.len() - trimmed);
                        let shared = slabs.share(at as u64, most);
                        prop_assert!(!shared.is_empty() && shared.len() <= most);
                        prop_assert_eq!(&shared[..], &model[at..at + shared.len()]);
                    }
                    Step::Share(..) => {}
                    Step::Clear => {
                        trimmed = model.len();
                        slabs.clear();
                    }
                }
                prop_assert_eq!((slabs.start(), slabs.end()), (trimmed as u64, model.len() as u64));
                prop_assert_eq!(slabs.front().is_empty(), trimmed == model.len());
                prop_assert!(model[trimmed..].starts_with(slabs.front()));
                if slabs.held() == 0 {
                    prop_assert_eq!((slabs.open.capacity(), slabs.sealed.capacity()), (0, 0));
                }
                let parts = slabs.sealed.len() as u64;
                prop_assert!(parts <= slabs.held() / SHARED_MIN as u64 + 2, "{} parts", parts);
            }
        }
    }

    #[test]
    fn single_bytes_share_one_slab() {
        let mut slabs = Slabs::default();
        for byte in 0..=255 {
            slabs.append(&[byte]);
            assert_eq!(&slabs.share(byte.into(), 100)[..], [byte]);
        }
        assert_eq!((slabs.sealed.len(), slabs.front().len()), (0, 256));
    }
}
