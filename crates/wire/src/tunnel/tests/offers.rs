//! What an agent offers, as its server hears it.

use super::face_to_face::{Pair, frames};
use crate::Parsed;
use crate::tunnel::*;

fn tcp(name: &str) -> Offered<'_> {
    Offered { name, kind: OfferKind::Tcp }
}

/// The names in every OFFERS that `link` has to say now.
fn told(link: &mut Link, now: tieline_base::Moment) -> Vec<Vec<String>> {
    let mut bytes = Vec::new();
    link.fill(&mut bytes, usize::MAX, now);
    let names = |frame| match frame {
        Frame::Offers(offers) => Some(offers.iter().map(|offer| offer.name.to_owned()).collect()),
        _ => None,
    };
    frames(&bytes).into_iter().filter_map(names).collect()
}

#[test]
fn offers_are_told_once_over_each_carrier_and_anew_when_they_change() {
    let mut pair = Pair::new(Limits::DEFAULT);
    assert!(told(&mut pair.dialer, pair.now).is_empty(), "who offers nothing says nothing");
    pair.dialer.tell_offers([tcp("db"), tcp("ssh")]);
    assert!(pair.dialer.wants_to_send());
    assert_eq!(told(&mut pair.dialer, pair.now), [["db", "ssh"]]);
    assert!(told(&mut pair.dialer, pair.now).is_empty());
    // The carrier takes it along, however much of it was heard.
    pair.lose();
    pair.dialer.tell_offers([tcp("web")]);
    assert!(!pair.dialer.wants_to_send(), "nothing carries it");
    pair.resume(2);
    assert_eq!(told(&mut pair.dialer, pair.now), [["web"]]);
    pair.lose();
    pair.resume(3);
    assert_eq!(told(&mut pair.dialer, pair.now), [["web"]]);
    // None left is news as well.
    pair.dialer.tell_offers([]);
    assert_eq!(told(&mut pair.dialer, pair.now), [[""; 0]]);
}

#[test]
fn a_list_is_bounded_and_in_order() {
    let names: Vec<String> = (0..OFFERS_MAX + 9).map(|at| format!("{at:063}")).collect();
    let mut lines = Vec::new();
    let offers = Offers::write(names.iter().map(|name| tcp(name)), &mut lines);
    assert_eq!(offers.iter().count(), OFFERS_MAX);
    let mut bytes = Vec::new();
    Frame::Offers(offers).encode(&mut bytes);
    assert!(matches!(parse(&bytes), Ok(Parsed::Done { value: Frame::Offers(_), .. })));
    let refused = |body: &[u8]| {
        let mut bytes = vec![0x24, body.len() as u8];
        bytes.extend_from_slice(body);
        parse(&bytes) == Err(FrameError::Body(0x24))
    };
    assert!(!refused(b"") && !refused(b"\x01\x02db\x07\x03ssh"));
    for (wrong, what) in [
        (&b"\x01\x03ssh\x01\x02db"[..], "falling"),
        (b"\x01\x02db\x02\x02db", "twice"),
        (b"\x01\x00", "without a name"),
        (b"\x01\x02d/", "no name"),
        (b"\x01\x02\x1b[", "an escape"),
        (b"\x01\x03db", "cut"),
    ] {
        assert!(refused(wrong), "{what}");
    }
    let too_many: Vec<u8> = (0..=OFFERS_MAX).flat_map(|at| format!("\x01\x03{at:03}").into_bytes()).collect();
    let mut bytes = vec![0x24];
    bytes.extend((0x4000_u16 | too_many.len() as u16).to_be_bytes());
    bytes.extend(too_many);
    assert_eq!(parse(&bytes), Err(FrameError::Body(0x24)));
}
