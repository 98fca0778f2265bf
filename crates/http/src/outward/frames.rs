//! What passes in frames that `h2` does not tell: which streams a GOAWAY spares.

/// Follows the frames that come (RFC 9113 §4.1), however they are cut.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// How much of a header is there; all of it while its payload passes.
    have: usize,
    /// What is missing of the payload.
    left: usize,
    /// The first bytes of the payload, where it is looked into.
    payload: [u8; 4],
    taken: usize,
}

const HEADER: usize = 9;
const GOAWAY: u8 = 7;

impl Frames {
    /// The next bytes; the last stream that the peer may have processed, if a GOAWAY among them says so.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Option<u32> {
        let mut last = None;
        while !bytes.is_empty() {
            if self.have < HEADER {
                let count = (HEADER - self.have).min(bytes.len());
                self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
                if self.have == HEADER {
                    self.begin_payload();
                }
                continue;
            }
            let count = self.left.min(bytes.len());
            last = self.look(&bytes[..count]).or(last);
            bytes = &bytes[count..];
            self.left -= count;
            if self.left == 0 {
                self.have = 0;
            }
        }
        last
    }

    fn begin_payload(&mut self) {
        let [a, b, c, ..] = self.header;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.taken = 0;
        if self.left == 0 {
            self.have = 0;
        }
    }

    /// RFC 9113 §6.8: the payload begins with a reserved bit and the stream.
    fn look(&mut self, bytes: &[u8]) -> Option<u32> {
        if self.header[3] != GOAWAY || self.taken == self.payload.len() {
            return None;
        }
        let count = (self.payload.len() - self.taken).min(bytes.len());
        self.payload[self.taken..self.taken + count].copy_from_slice(&bytes[..count]);
        self.taken += count;
        (self.taken == self.payload.len()).then(|| u32::from_be_bytes(self.payload) & 0x7fff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    fn goaway(last: u32) -> Vec<u8> {
        frame(7, &[&last.to_be_bytes()[..], &[0, 0, 0, 0], b"bye"].concat())
    }

    proptest! {
        #[test]
        fn a_goaway_is_found_however_the_frames_are_cut(
            before in prop::collection::vec((0u8..7, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            last in 0u32..1 << 31,
            cuts in prop::collection::vec(1usize..12, 1..8),
        ) {
            let frames = before.iter().flat_map(|(kind, payload)| frame(*kind, payload));
            let mut bytes: Vec<u8> = frames.collect();
            bytes.extend(goaway(last));
            bytes.extend(frame(0, b"more"));
            let (mut frames, mut found, mut rest) = (Frames::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                found.extend(frames.pass(piece));
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, [last]);
        }
    }

    #[test]
    fn the_reserved_bit_is_not_looked_at() {
        assert_eq!(Frames::default().pass(&goaway(5 | 1 << 31)), Some(5));
    }
}
