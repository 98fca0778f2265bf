//! Writing heads and chunks, in one canonical form.

use std::num::NonZeroUsize;

use tieline_base::text::push_decimal;

use super::{Method, Target};

/// Stands behind the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Ends a body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes what stands before the data of a chunk; a chunk without data would end the body.
pub fn encode_chunk_head(length: NonZeroUsize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let highest = (usize::BITS - 1 - length.leading_zeros()) / 4;
    let digits = (0..=highest).rev().map(|digit| DIGITS[length.get() >> (4 * digit) & 0xf]);
    out.extend(digits);
    out.extend_from_slice(b"\r\n");
}

/// Ends a body with `trailers`: whole lines as [`ChunkedDecoder::trailers`](super::ChunkedDecoder::trailers)
/// gives them, or nothing.
pub fn encode_last_chunk(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

/// Writes the first line of a request to an origin server.
pub fn encode_request_line(method: &Method<'_>, target: &Target<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    target.push(out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes the first line of a response. `status` has three digits, `reason` no control characters.
pub fn encode_status_line(status: u16, reason: &str, out: &mut Vec<u8>) {
    debug_assert!((100..=999).contains(&status) && !reason.contains(char::is_control));
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(status.into(), out);
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes one field. `name` is a token, `value` has no control characters.
pub fn push_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    debug_assert!(super::bytes::is_token(name.as_bytes()) && super::bytes::is_value(value));
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
