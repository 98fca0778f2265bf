//! MySQL and MariaDB: the greeting, and a login without a password that is meant to fail.
//!
//! Hanging up on the greeting would be shorter, but the server counts that as an interrupted connection, and
//! after `max_connect_errors` of them (100 by default) it blocks the host. A login refused with error 1045
//! does not count. What it costs is one "Access denied" line a probe in the log where `log_warnings`
//! (MariaDB) or `log_error_verbosity` (MySQL) asks for them.
//!
//! Source: MySQL internals, "Connection Phase Packets"; MariaDB documentation, "Connecting".

use super::Heard;
use super::text::quote;
use crate::cursor::Cursor;

/// Three bytes of length, little-endian, and the sequence number.
const HEADER: usize = 4;

/// Longer packets have no place before a login.
const PACKET_MAX: usize = 4096;

const OK: u8 = 0x00;
const AUTH_MORE_DATA: u8 = 0x01;
const AUTH_SWITCH: u8 = 0xfe;
const ERR: u8 = 0xff;

/// How far the login is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Login {
    /// The server speaks first.
    #[default]
    Greeting,
    /// Our name is sent.
    Answered,
}

impl Login {
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Heard {
        let Some(&[low, middle, high, sequence]) = bytes.first_chunk::<HEADER>() else {
            return Heard::Nothing;
        };
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if length == 0 || length > PACKET_MAX {
            return Heard::Unhealthy(format!("no MySQL answer: it starts with a packet of {length} bytes"));
        }
        let Some(payload) = bytes.get(HEADER..HEADER + length) else { return Heard::Nothing };
        match self {
            Login::Greeting => match greeting(payload) {
                Ok(()) => {
                    *self = Login::Answered;
                    Heard::Answer(HEADER + length, packet(sequence.wrapping_add(1), &handshake_response()))
                }
                Err(why) => Heard::Unhealthy(why),
            },
            Login::Answered => verdict(payload, HEADER + length, sequence),
        }
    }
}

/// Reads Protocol::HandshakeV10, or the error that a server sends in its place (1040 too many connections,
/// 1129 host blocked, 1130 host not allowed).
fn greeting(payload: &[u8]) -> Result<(), String> {
    const VERSION: u8 = 10;
    match payload.first() {
        Some(&VERSION) => {}
        Some(&ERR) => return Err(Refusal::read(payload).to_string()),
        Some(version) => return Err(format!("no MySQL greeting: protocol version {version}")),
        None => return Err("empty MySQL greeting".into()),
    }
    let capabilities = capabilities(payload).ok_or("malformed MySQL greeting")?;
    if capabilities & PROTOCOL_41 == 0 {
        return Err("MySQL server older than 4.1".into());
    }
    Ok(())
}

/// The lower half of the server's capabilities.
fn capabilities(payload: &[u8]) -> Option<u32> {
    let mut payload = Cursor::new(payload);
    payload.take(1)?; // protocol version
    payload.until_nul()?; // server version
    payload.take(4 + 8 + 1)?; // connection id, first part of the nonce, filler
    payload.array().map(u16::from_le_bytes).map(u32::from)
}

const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

/// Protocol::HandshakeResponse41 of a user that need not exist, and should not, without a password.
fn handshake_response() -> Vec<u8> {
    const PACKET_LIMIT: u32 = 1 << 24;
    const UTF8: u8 = 33; // utf8mb3_general_ci: every server knows it
    let flags = LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;
    let mut response = Vec::with_capacity(80);
    response.extend(flags.to_le_bytes());
    response.extend(PACKET_LIMIT.to_le_bytes());
    response.push(UTF8);
    response.extend([0; 23]);
    response.extend(b"tieline_health\0");
    response.push(0); // length of the proof: no password
    response.extend(b"mysql_native_password\0");
    response
}

/// What the server makes of the login.
fn verdict(payload: &[u8], length: usize, sequence: u8) -> Heard {
    const QUIT: &[u8] = &[1, 0, 0, 0, 0x01];
    match payload.first() {
        Some(&OK) => Heard::Healthy(QUIT),
        // caching_sha2_password knew the proof: OK follows by itself.
        Some(&AUTH_MORE_DATA) if payload == [AUTH_MORE_DATA, 3] => Heard::Skip(length),
        // Leaving here would count as an interrupted connection: say that there is no password, as clients
        // do.
        Some(&AUTH_SWITCH) => Heard::Answer(length, packet(sequence.wrapping_add(1), no_password(payload))),
        // It asks for the whole password: there is none, and the server will say so.
        Some(&AUTH_MORE_DATA) => Heard::Answer(length, packet(sequence.wrapping_add(1), &[0])),
        Some(&ERR) => {
            let refusal = Refusal::read(payload);
            if refusal.shows_service() { Heard::Healthy(&[]) } else { Heard::Unhealthy(refusal.to_string()) }
        }
        _ => Heard::Unhealthy("unexpected MySQL answer to a login".into()),
    }
}

/// The empty password in the words of the plugin that an AuthSwitchRequest names: the SHA-2 ones take a NUL
/// for it.
fn no_password(payload: &[u8]) -> &'static [u8] {
    let mut payload = Cursor::new(payload);
    let plugin = payload.take(1).and_then(|_| payload.until_nul()).unwrap_or_default();
    if plugin.ends_with(b"sha2_password") || plugin == b"sha256_password" { &[0] } else { &[] }
}

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = (payload.len() as u32).to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

/// An ERR packet: code, then (after a login began) '#' and an SQLSTATE of 5, then text.
struct Refusal<'a> {
    code: u16,
    text: &'a [u8],
}

impl<'a> Refusal<'a> {
    fn read(payload: &'a [u8]) -> Self {
        let mut payload = Cursor::new(payload);
        let code = payload.take(1).and_then(|_| payload.array().map(u16::from_le_bytes)).unwrap_or_default();
        let text = payload.rest();
        let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
        Self { code, text }
    }

    /// Whether only a server that takes logins answers so.
    fn shows_service(&self) -> bool {
        matches!(
            self.code,
            1045 | 1698 // access denied: by password, or by a plugin that knows none
            | 1251 // asks for an authentication that this client does not offer
            | 1862 | 3118 | 4151 // password expired, account locked (MySQL, MariaDB)
            | 3159 // wants TLS
        )
    }
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", quote(self.text), self.code)
    }
}
