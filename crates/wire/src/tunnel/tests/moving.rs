//! Planned moves: the carrier in use is emptied first, and nothing goes twice.

use std::time::Duration;

use super::face_to_face::{Pair, at, deliver, events, frames, read};
use crate::tunnel::*;

/// Bytes both ways that are under way over the carrier in use, and arrive behind a goodbye.
fn under_way() -> (Pair, StreamId) {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.write(stream, b"there", pair.now);
    pair.acceptor.write(stream, b"back", pair.now);
    (pair, stream)
}

/// What either end repeated at the last change of carriers.
fn replayed(link: &mut Link) -> Vec<u64> {
    let bytes = |event| match event {
        Event::Resumed { replayed, .. } => Some(replayed),
        _ => None,
    };
    events(link).into_iter().filter_map(bytes).collect()
}

#[test]
fn a_planned_move_repeats_nothing_though_both_ends_never_stop() {
    let (mut pair, stream) = under_way();
    let by = pair.dialer.prepare_move(pair.now).unwrap();
    assert_eq!(by, pair.now.after(SETTLE_MAX));
    assert!(!pair.dialer.may_move());
    let mut rounds = 0;
    while !pair.dialer.may_move() {
        deliver(&mut pair.dialer, &mut pair.acceptor, pair.now);
        deliver(&mut pair.acceptor, &mut pair.dialer, pair.now);
        // What comes to be said after the goodbye waits.
        pair.dialer.write(stream, b", later", pair.now);
        pair.acceptor.write(stream, b", later", pair.now);
        rounds += 1;
        assert!(rounds < 3, "the pause is longer than two round trips");
    }
    pair.resume(2);
    assert_eq!((replayed(&mut pair.dialer), replayed(&mut pair.acceptor)), (vec![0], vec![0]));
    pair.talk();
    assert!(read(&mut pair.acceptor, stream, pair.now).starts_with(b"there, later"));
    assert!(read(&mut pair.dialer, stream, pair.now).starts_with(b"back, later"));
}

#[test]
fn a_move_without_a_goodbye_repeats_what_is_under_way() {
    let (mut pair, _) = under_way();
    let (mut there, mut back) = (Vec::new(), Vec::new());
    pair.dialer.fill(&mut there, usize::MAX, pair.now);
    pair.acceptor.fill(&mut back, usize::MAX, pair.now);
    pair.resume(2);
    assert_eq!((replayed(&mut pair.dialer), replayed(&mut pair.acceptor)), (vec![5], vec![4]));
}

#[test]
fn a_move_that_comes_to_nothing_holds_bytes_back_for_so_long_and_no_longer() {
    let (mut pair, stream) = under_way();
    pair.dialer.prepare_move(pair.now).unwrap();
    pair.talk();
    pair.dialer.write(stream, b", later", pair.now);
    pair.acceptor.write(stream, b", later", pair.now);
    pair.talk();
    assert!(pair.dialer.may_move(), "what is held back is not under way");
    assert_eq!(pair.dialer.deadline(), at(0).after(HOLD_MAX));
    pair.later(HOLD_MAX.as_millis() as u64);
    assert_eq!(read(&mut pair.acceptor, stream, pair.now), b"there, later");
    assert_eq!(read(&mut pair.dialer, stream, pair.now), b"back, later");
}

#[test]
fn a_carrier_that_is_gone_or_in_doubt_is_not_waited_for() {
    let (mut pair, _) = under_way();
    let mut lost = Vec::new();
    pair.dialer.fill(&mut lost, usize::MAX, pair.now);
    pair.now = pair.now.after(Duration::from_secs(10));
    pair.dialer.on_time(pair.now);
    assert_eq!(events(&mut pair.dialer), [Event::Doubt]);
    assert_eq!(pair.dialer.prepare_move(pair.now), None);
    let (mut pair, _) = under_way();
    pair.dialer.prepare_move(pair.now).unwrap();
    pair.lose();
    assert!(pair.dialer.may_move());
    assert_eq!(pair.dialer.prepare_move(pair.now), None);
}

#[test]
fn a_goodbye_is_for_the_acceptor_and_its_patience_is_bounded() {
    let (mut pair, stream) = under_way();
    let goodbye = || {
        let (deadline, next) = (Duration::from_secs(3600), Endpoints::default());
        Frame::GoAway(GoAway { deadline, spread: Duration::ZERO, next })
    };
    let epoch = pair.dialer.epoch();
    assert_eq!(pair.acceptor.receive(epoch, goodbye(), pair.now), Ok(None));
    assert!(pair.acceptor.deadline() <= at(0).after(HOLD_MAX));
    // The dialer is asked to move by the same frame, and whoever drives it decides when.
    assert_eq!(pair.dialer.receive(epoch, goodbye(), pair.now), Ok(Some(goodbye())));
    pair.talk();
    assert!(pair.dialer.readable(stream).is_empty());
    pair.later(HOLD_MAX.as_millis() as u64);
    assert_eq!(read(&mut pair.dialer, stream, pair.now), b"back");
}

#[test]
fn only_the_answer_to_its_own_question_empties_a_carrier() {
    let mut pair = Pair::new(Limits::DEFAULT);
    pair.open();
    // A question is under way already; its answer was said before the goodbye is heard.
    pair.dialer.hurry(pair.now);
    let mut bytes = Vec::new();
    pair.dialer.fill(&mut bytes, usize::MAX, pair.now);
    let Frame::Ping(early) = frames(&bytes)[0] else { panic!("PING") };
    pair.dialer.prepare_move(pair.now).unwrap();
    let epoch = pair.dialer.epoch();
    pair.dialer.receive(epoch, Frame::Pong(early), pair.now).unwrap();
    pair.dialer.receive(epoch, Frame::Pong(early + 1), pair.now).unwrap();
    assert!(!pair.dialer.may_move(), "it has not been asked yet");
    pair.talk();
    assert!(pair.dialer.may_move());
}
