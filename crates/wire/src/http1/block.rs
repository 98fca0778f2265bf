//! Sixteen bytes looked at at once. What they are is a bit for each of them, the first one's the lowest.

use wide::u8x16;

/// How many bytes are looked at at once.
const WIDTH: usize = 16;

/// How many bytes `bytes` begin with that are visible ASCII characters or spaces.
#[inline]
pub(super) fn text(bytes: &[u8]) -> usize {
    until(bytes, |block| !within(block, b' ', b'~').to_bitmask())
}

/// How many bytes `bytes` begin with that are letters, digits or hyphens.
#[inline]
pub(super) fn word(bytes: &[u8]) -> usize {
    until(bytes, |block| {
        // A bit more makes capitals small, and nothing else a letter.
        let letters = within(block | u8x16::splat(0x20), b'a', b'z');
        let digits = within(block, b'0', b'9');
        !(letters | digits | block.simd_eq(u8x16::splat(b'-'))).to_bitmask()
    })
}

/// Those from `first` to `last`.
#[inline(always)]
fn within(block: u8x16, first: u8, last: u8) -> u8x16 {
    let moved = block - u8x16::splat(first);
    moved.min(u8x16::splat(last - first)).simd_eq(moved)
}

/// How many bytes stand before the first one that is marked; only the lowest sixteen marks count.
#[inline(always)]
fn until(bytes: &[u8], marks: impl Fn(u8x16) -> u32) -> usize {
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk() {
        let marked = marks(u8x16::new(*block)) & COUNTED;
        if marked != 0 {
            return bytes.len() - rest.len() + marked.trailing_zeros() as usize;
        }
        rest = behind;
    }
    bytes.len() - rest.len() + until_in_rest(rest, marks)
}

/// The same of fewer than a block.
#[inline(never)]
fn until_in_rest(rest: &[u8], marks: impl Fn(u8x16) -> u32) -> usize {
    let mut block = [0; WIDTH];
    block[..rest.len()].copy_from_slice(rest);
    let marked = marks(u8x16::new(block)) & COUNTED;
    (marked.trailing_zeros() as usize).min(rest.len())
}

/// A mark for each byte.
const COUNTED: u32 = (1 << WIDTH) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{text, word};

    fn is_text(byte: u8) -> bool {
        matches!(byte, b' '..=b'~')
    }

    fn is_word(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || byte == b'-'
    }

    #[test]
    fn every_byte_is_judged_alike_at_every_place() {
        for byte in 0..=u8::MAX {
            for at in 0..40 {
                let mut bytes = [b'a'; 40];
                bytes[at] = byte;
                assert_eq!(text(&bytes), if is_text(byte) { 40 } else { at }, "{byte} at {at}");
                assert_eq!(word(&bytes), if is_word(byte) { 40 } else { at }, "{byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn ends_are_found_in_bytes_of_any_length(
            bytes in prop::collection::vec(prop::sample::select(&b"aaaaaaaZ-09 ~:\r\x7f\x80"[..]), 0..70),
        ) {
            let before = |goes_on: fn(u8) -> bool| bytes.iter().take_while(|byte| goes_on(**byte)).count();
            prop_assert_eq!(text(&bytes), before(is_text));
            prop_assert_eq!(word(&bytes), before(is_word));
        }
    }
}
