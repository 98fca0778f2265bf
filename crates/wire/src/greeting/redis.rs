//! Redis and Valkey: `PING` (RESP2, the protocol every server starts with).
//!
//! Healthy is `+PONG`, and every refusal that shows a serving instance behind a password. An instance that
//! loads its data set (`-LOADING`), lost its master (`-MASTERDOWN`), cannot write its snapshot (`-MISCONF`,
//! which refuses PING on purpose), runs a script for too long (`-BUSY`) or has no place for another client is
//! not. Nothing is logged.

use super::Heard;
use super::text::quote;

/// As an array, because the inline form may be disabled by a proxy in front.
pub(super) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

pub(super) fn hear(bytes: &[u8]) -> Heard {
    if let Some(first) = bytes.first().filter(|first| !matches!(first, b'+' | b'-')) {
        return Heard::Unhealthy(format!("no Redis answer: it starts with byte {first:#04x}"));
    }
    let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return Heard::Nothing };
    let line = &bytes[..end];
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    match word {
        b"+PONG" | b"-NOAUTH" | b"-NOPERM" => Heard::Healthy(&[]),
        _ => Heard::Unhealthy(quote(line)),
    }
}
