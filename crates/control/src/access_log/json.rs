//! One line of JSON, written by hand: every finished exchange pays for it.

use std::fmt::Display;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tieline_base::ClientAddr;
use tieline_base::text::{hexadecimal, push_decimal, push_decimal_of, push_ip, push_json};

/// An object that is being written. What is `word` and `key` is ours and needs no escape.
pub(super) struct Object<'l> {
    out: &'l mut Vec<u8>,
    /// What stands before the next key.
    before: u8,
}

impl<'l> Object<'l> {
    pub(super) fn begin(out: &'l mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    /// Ends it, and its line.
    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    pub(super) fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        push_decimal(number, self.out);
    }

    pub(super) fn number_or_null(&mut self, key: &'static str, number: Option<u64>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    /// To the microsecond: what is measured, and short enough to read.
    pub(super) fn milliseconds(&mut self, key: &'static str, duration: Option<Duration>) {
        let Some(duration) = duration else { return self.null(key) };
        self.key(key);
        let us = u64::try_from(duration.as_nanos().saturating_add(500) / 1_000).unwrap_or(u64::MAX);
        push_decimal(us / 1_000, self.out);
        self.out.push(b'.');
        push_decimal_of(us % 1_000, 3, self.out);
    }

    pub(super) fn word(&mut self, key: &'static str, word: &'static str) {
        self.quoted(key, word.as_bytes());
    }

    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        push_json(text, self.out);
    }

    pub(super) fn text_or_null(&mut self, key: &'static str, text: Option<&str>) {
        match text {
            Some(text) => self.text(key, text),
            None => self.null(key),
        }
    }

    pub(super) fn texts(&mut self, key: &'static str, texts: &[Box<str>]) {
        self.key(key);
        self.out.push(b'[');
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            push_json(text, self.out);
        }
        self.out.push(b']');
    }

    pub(super) fn hexadecimal(&mut self, key: &'static str, number: u64) {
        self.quoted(key, &hexadecimal(number));
    }

    /// `second` ends where its fraction begins.
    pub(super) fn time(&mut self, key: &'static str, second: &str, milliseconds: u32) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(second.as_bytes());
        push_decimal_of(milliseconds.into(), 3, self.out);
        self.out.extend_from_slice(b"Z\"");
    }

    pub(super) fn address(&mut self, key: &'static str, address: ClientAddr) {
        self.key(key);
        self.out.push(b'"');
        match address {
            // By far the most, and formatting costs ten times as much.
            ClientAddr::Socket(SocketAddr::V4(socket)) if socket.port() != 0 => {
                push_ip((*socket.ip()).into(), self.out);
                self.out.push(b':');
                push_decimal(socket.port().into(), self.out);
            }
            other => push_displayed(&other, self.out),
        }
        self.out.push(b'"');
    }

    fn null(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }

    fn quoted(&mut self, key: &'static str, text: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(text);
        self.out.push(b'"');
    }

    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(&[std::mem::replace(&mut self.before, b','), b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Writing into memory cannot fail.
fn push_displayed(value: &impl Display, out: &mut Vec<u8>) {
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Object<'_>)) -> serde_json::Value {
        let mut line = Vec::new();
        let mut object = Object::begin(&mut line);
        write(&mut object);
        object.end();
        serde_json::from_slice(&line).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            text in ".{0,40}",
            texts in prop::collection::vec(".{0,9}", 0..3),
            number: u64,
            us in 0u64..1 << 40,
            socket: SocketAddr,
        ) {
            let boxed: Vec<Box<str>> = texts.iter().map(|text| text.as_str().into()).collect();
            let address = ClientAddr::from_socket(socket);
            let value = written(|line| {
                line.text("text", &text);
                line.number("number", number);
                line.milliseconds("ms", Some(Duration::from_micros(us)));
                line.address("address", address);
                line.texts("texts", &boxed);
                line.hexadecimal("hex", number);
                line.number_or_null("null", None);
            });
            prop_assert_eq!(&value["text"], &text);
            prop_assert_eq!(&value["number"], number);
            prop_assert_eq!(&value["ms"], us as f64 / 1e3);
            prop_assert_eq!(&value["address"], &address.to_string());
            prop_assert_eq!(&value["texts"], &serde_json::json!(texts));
            prop_assert_eq!(&value["hex"], &format!("{number:016x}"));
            prop_assert!(value["null"].is_null());
        }
    }
}
