//! Frames of tunnels.

use tieline_wire::Parsed;
use tieline_wire::tunnel::{
    BODY_MAX, Frame, FrameError, OFFERS_MAX, Offers, StreamId, Table, VARINT_MAX, parse,
};

use crate::prefixes::assert_final;

/// Type and length, at most.
const HEADER_MAX: usize = 10;

/// Answers are final; a frame stays within its limit; there is one way to write what it says; and whatever it
/// says is bounded and printable.
pub fn tunnel_frame(data: &[u8]) {
    assert_final(data, written);
    let mut rest = data;
    while let Ok(Parsed::Done { value, consumed }) = parse(rest) {
        assert!((2..=HEADER_MAX + BODY_MAX).contains(&consumed));
        if !matches!(value, Frame::Skipped(_)) {
            let mut again = Vec::new();
            value.encode(&mut again);
            assert_eq!(again, rest[..consumed], "{value:?} is written another way");
        }
        match &value {
            Frame::Resume(resume) => assert_table(&resume.table),
            Frame::Resumed(resumed) => assert_table(&resumed.table),
            Frame::Stats(stats) => assert!(stats.iter().count() <= consumed / 2),
            Frame::Offers(offers) => assert_rising(offers),
            Frame::OpenRefused { text, .. } => assert_plain(text),
            Frame::Open(open) => [open.service, open.subject].into_iter().for_each(assert_plain),
            Frame::Kill(kill) => assert_plain(kill.actor),
            Frame::Hello(hello) => assert_plain(hello.release),
            Frame::Welcome(welcome) => welcome.endpoints.iter().for_each(assert_plain),
            Frame::Refused(refused) => refused.elsewhere.iter().for_each(assert_plain),
            Frame::GoAway(away) => away.next.iter().for_each(assert_plain),
            _ => {}
        }
        rest = &rest[consumed..];
    }
}

/// The frame, as it is written: what it says, without a borrow.
fn written(data: &[u8]) -> Result<Parsed<Vec<u8>>, FrameError> {
    Ok(match parse(data)? {
        Parsed::Incomplete { at_most } => Parsed::Incomplete { at_most },
        Parsed::Done { value, consumed } => {
            let mut written = Vec::new();
            value.encode(&mut written);
            Parsed::Done { value: written, consumed }
        }
    })
}

/// No line of a log can be forged with it.
fn assert_plain(text: &str) {
    assert!(!text.contains(char::is_control) && text.len() <= 255, "{text:?}");
}

/// Names, each of them once, and no more than an agent may tell of.
fn assert_rising(offers: &Offers<'_>) {
    let names: Vec<&str> = offers.iter().map(|offer| offer.name).collect();
    assert!(names.len() <= OFFERS_MAX && names.is_sorted_by(|one, next| one < next), "{names:?}");
    names.into_iter().for_each(assert_plain);
}

fn assert_table(table: &Table<'_>) {
    let rises = |streams: Vec<StreamId>| assert!(streams.is_sorted_by(|one, next| one < next), "{streams:?}");
    rises(table.live().map(|entry| entry.stream).collect());
    rises(table.dead().map(|dead| dead.stream).collect());
    assert!(table.seen().max(table.opened()) <= VARINT_MAX);
}
