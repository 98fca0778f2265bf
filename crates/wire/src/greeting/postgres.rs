//! PostgreSQL: a startup packet, as `pg_isready` sends it.
//!
//! Healthy is a server that asks for a password, lets the nobody of this probe in, or refuses it for a reason
//! of its own ("no such role", "no pg_hba.conf entry"): all of these need a server that takes logins.
//! Starting up, shutting down and out of connections are not healthy. A server whose pg_hba.conf says `trust`
//! or `reject` for this source logs one FATAL line a probe; one that asks for a password logs nothing.
//!
//! Source: PostgreSQL documentation, "Message Formats" and "PostgreSQL Error Codes".

use super::Heard;
use super::text::quote;
use crate::cursor::Cursor;

/// The type and its length.
const HEADER: usize = 5;

/// libpq's rule: a longer error is none, but the bare text of protocol 2, in which a server that cannot fork
/// answers.
const ERROR_MAX: usize = 30_000;

/// Who the probe says it is. The user need not exist, and should not.
pub(super) fn startup() -> Vec<u8> {
    const PROTOCOL_3_0: u32 = 196_608;
    const PARAMETERS: &[u8] =
        b"user\0tieline_health\0database\0postgres\0application_name\0tieline-health\0\0";
    let length = (4 + 4 + PARAMETERS.len()) as u32;
    [&length.to_be_bytes(), &PROTOCOL_3_0.to_be_bytes(), PARAMETERS].concat()
}

pub(super) fn hear(bytes: &[u8]) -> Heard {
    let Some((&kind, behind)) = bytes.split_first() else { return Heard::Nothing };
    if !matches!(kind, b'R' | b'E' | b'N' | b'v') {
        return Heard::Unhealthy(format!("no PostgreSQL answer: it starts with byte {kind:#04x}"));
    }
    let Some(stated) = behind.first_chunk::<4>() else { return Heard::Nothing };
    let stated = u32::from_be_bytes(*stated) as usize;
    if !(4..=ERROR_MAX).contains(&stated) {
        return bare_text(kind, behind);
    }
    let Some(content) = bytes.get(HEADER..1 + stated) else { return Heard::Nothing };
    match kind {
        b'R' => authentication(content),
        b'E' => refusal(content),
        // NoticeResponse, NegotiateProtocolVersion: the answer is still to come.
        _ => Heard::Skip(1 + stated),
    }
}

/// Any demand will do; only AuthenticationOk is worth a Terminate message, before that the server expects
/// silence.
fn authentication(content: &[u8]) -> Heard {
    const TERMINATE: &[u8] = b"X\0\0\0\x04";
    match content.first_chunk::<4>() {
        Some([0, 0, 0, 0]) => Heard::Healthy(TERMINATE),
        Some(_) => Heard::Healthy(&[]),
        None => Heard::Unhealthy("malformed authentication request".into()),
    }
}

fn refusal(content: &[u8]) -> Heard {
    let (code, message) = (field(content, b'C'), field(content, b'M').unwrap_or_default());
    match code {
        Some(code) if cannot_serve(code) => Heard::Unhealthy(format!("{} ({})", quote(message), quote(code))),
        Some(_) => Heard::Healthy(&[]),
        // Every field is optional by the protocol; without a code nothing can be told.
        None => Heard::Unhealthy(format!("{} (no SQLSTATE)", quote(message))),
    }
}

/// Class 53: insufficient resources, too many connections. 57P01 to 57P03: shutting down, crashed, starting
/// up.
fn cannot_serve(code: &[u8]) -> bool {
    code.starts_with(b"53") || matches!(code, b"57P01" | b"57P02" | b"57P03")
}

/// The value of one field of an ErrorResponse: (type byte, text, NUL)*, NUL.
fn field(content: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut content = Cursor::new(content);
    loop {
        match content.u8()? {
            0 => return None,
            kind => {
                let text = content.until_nul()?;
                if kind == wanted {
                    return Some(text);
                }
            }
        }
    }
}

fn bare_text(kind: u8, text: &[u8]) -> Heard {
    if kind != b'E' {
        return Heard::Unhealthy(format!("PostgreSQL message {:?} of impossible length", char::from(kind)));
    }
    match text.iter().position(|byte| *byte == 0) {
        Some(end) => Heard::Unhealthy(quote(&text[..end])),
        None => Heard::Nothing,
    }
}
