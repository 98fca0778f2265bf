//! Changes of carriers: who may make them, and what is left when they fail at any byte.

use std::time::Duration;

use super::face_to_face::{Pair, SECOND, at, events, frames, read, request};
use super::hashing::{Sha, key};
use crate::Parsed;
use crate::tunnel::*;

/// A link with bytes under way both ways, both of whose ends have lost the carrier.
fn broken() -> (Pair, StreamId) {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.write(stream, b"there", at(0));
    pair.acceptor.write(stream, b"back", at(0));
    pair.lose();
    (pair, stream)
}

fn both_read(pair: &mut Pair, stream: StreamId) {
    pair.talk();
    assert_eq!(read(&mut pair.acceptor, stream, pair.now), b"there");
    assert_eq!(read(&mut pair.dialer, stream, pair.now), b"back");
}

#[test]
fn what_was_under_way_goes_again_once() {
    let (mut pair, stream) = broken();
    pair.now = at(4000);
    pair.resume(2);
    let gap = Duration::from_secs(4);
    let resumed = |replayed| Event::Resumed { epoch: Epoch(2), gap, replayed };
    assert_eq!(events(&mut pair.dialer), [resumed(5)]);
    assert_eq!(events(&mut pair.acceptor), [resumed(4)]);
    both_read(&mut pair, stream);
}

#[test]
fn everything_that_was_said_is_said_again() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let asked = pair.dialer.open(request("never seen"), at(0)).unwrap();
    pair.lose();
    pair.resume(2);
    pair.talk();
    let offered =
        events(&mut pair.acceptor).into_iter().filter(|event| matches!(event, Event::Offered { .. }));
    assert_eq!(offered.count(), 1);
    pair.acceptor.accept(asked);
    pair.lose();
    pair.resume(3);
    pair.talk();
    assert!(events(&mut pair.dialer).contains(&Event::Opened(asked)));
    pair.dialer.finish(asked);
    pair.lose();
    pair.resume(4);
    pair.talk();
    assert!(pair.acceptor.at_end(asked));
    let refused = pair.acceptor.open(request("forbidden"), at(0)).unwrap();
    pair.talk();
    pair.dialer.refuse(refused, Code::Denied, "");
    pair.acceptor.reset(asked, Code::Killed);
    pair.lose();
    events(&mut pair.dialer);
    events(&mut pair.acceptor);
    pair.resume(5);
    pair.talk();
    let reset = |stream, code| Event::Reset { stream, code };
    assert!(events(&mut pair.dialer).contains(&reset(asked, Code::Killed)));
    assert!(events(&mut pair.acceptor).contains(&reset(refused, Code::Denied)));
    assert_eq!((pair.dialer.streams().count(), pair.acceptor.streams().count()), (0, 0));
}

#[test]
fn a_lost_last_word_is_an_end_in_order() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    for link in [&mut pair.dialer, &mut pair.acceptor] {
        link.finish(stream);
    }
    let mut bytes = Vec::new();
    pair.dialer.fill(&mut bytes, usize::MAX, at(0));
    frames(&bytes).into_iter().for_each(|frame| drop(pair.acceptor.receive(Epoch::FIRST, frame, at(0))));
    bytes.clear();
    pair.acceptor.fill(&mut bytes, usize::MAX, at(0));
    frames(&bytes).into_iter().for_each(|frame| drop(pair.dialer.receive(Epoch::FIRST, frame, at(0))));
    bytes.clear();
    // The dialer's confirmation is lost: it has forgotten the stream, the acceptor has not.
    pair.dialer.fill(&mut bytes, usize::MAX, at(0));
    assert_eq!((pair.dialer.streams().count(), pair.acceptor.streams().count()), (0, 1));
    pair.lose();
    events(&mut pair.acceptor);
    pair.resume(2);
    pair.talk();
    let told = events(&mut pair.acceptor);
    assert!(told.contains(&Event::Closed(stream)), "{told:?}");
    assert_eq!(pair.acceptor.streams().count(), 0);
}

/// The exchange breaks off after each of its bytes, on either side; the next attempt always succeeds.
#[test]
fn a_cut_after_any_byte_of_the_exchange_locks_nobody_out() {
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for cut in 0..400 {
        let (mut pair, stream) = broken();
        let exporter = Exporter([2; 32]);
        there.clear();
        back.clear();
        let offer = pair.dialer.resume(&Sha, exporter, &mut there);
        let mut left = cut;
        let mut arrives = |bytes: &[u8]| {
            let arrived = left >= bytes.len();
            left = left.saturating_sub(bytes.len());
            arrived
        };
        if arrives(&there) {
            let Frame::Resume(resume) = frames(&there).remove(0) else { panic!("RESUME") };
            let judged = pair.acceptor.judge(&Sha, exporter, resume).unwrap();
            pair.acceptor.attach(&Sha, judged, at(0), &mut back).unwrap();
            let first = back.len();
            pair.acceptor.fill(&mut back, usize::MAX, at(0));
            if arrives(&back[..first]) {
                let Frame::Resumed(resumed) = frames(&back[..first]).remove(0) else { panic!("RESUMED") };
                pair.dialer.resumed(&Sha, &offer, &resumed, at(0)).unwrap();
                let mut rest = &back[first..];
                while let Ok(Parsed::Done { value, consumed }) = parse(rest) {
                    if !arrives(&rest[..consumed]) {
                        break;
                    }
                    pair.dialer.receive(Epoch(2), value, at(0)).unwrap();
                    rest = &rest[consumed..];
                }
                there.clear();
                pair.dialer.fill(&mut there, usize::MAX, at(0));
                let mut rest = &there[..];
                while let Ok(Parsed::Done { value, consumed }) = parse(rest) {
                    if !arrives(&rest[..consumed]) {
                        break;
                    }
                    pair.acceptor.receive(Epoch(2), value, at(0)).unwrap();
                    rest = &rest[consumed..];
                }
            }
        }
        pair.lose();
        // Twice, so that whatever key is pending has been used.
        pair.resume(3);
        pair.lose();
        pair.resume(4);
        both_read(&mut pair, stream);
        pair.dialer.audit();
        pair.acceptor.audit();
    }
}

#[test]
fn a_resume_proves_nothing_on_another_carrier_or_with_another_word() {
    let (mut pair, stream) = broken();
    let exporter = Exporter([2; 32]);
    let mut bytes = Vec::new();
    pair.dialer.resume(&Sha, exporter, &mut bytes);
    let judge = |bytes: &[u8], exporter: Exporter, link: &Link| match parse(bytes) {
        Ok(Parsed::Done { value: Frame::Resume(resume), .. }) => {
            link.judge(&Sha, exporter, resume).map(|_| ()).map_err(|error| error.to_string())
        }
        _ => Err("no RESUME".into()),
    };
    assert_eq!(judge(&bytes, exporter, &pair.acceptor), Ok(()));
    assert!(judge(&bytes, Exporter([3; 32]), &pair.acceptor).is_err(), "replayed");
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(judge(&flipped, exporter, &pair.acceptor).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(judge(&bytes[..cut], exporter, &pair.acceptor).is_err(), "cut at {cut}");
    }
    let stranger = Link::new(LinkId([3; 16]), Side::Acceptor, Limits::DEFAULT, key(9), SECOND, at(0));
    let foreign = Link::new(LinkId([4; 16]), Side::Acceptor, Limits::DEFAULT, key(1), SECOND, at(0));
    let unknown = judge(&bytes, exporter, &stranger);
    assert!(unknown.is_err());
    assert_eq!(judge(&bytes, exporter, &foreign), unknown, "a stranger must not learn which");
    // Judging has changed nothing.
    pair.resume(5);
    both_read(&mut pair, stream);
}

#[test]
fn an_answer_is_believed_only_from_who_has_the_key() {
    let (mut pair, _) = broken();
    let exporter = Exporter([2; 32]);
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let offer = pair.dialer.resume(&Sha, exporter, &mut there);
    let Frame::Resume(resume) = frames(&there).remove(0) else { panic!("RESUME") };
    let reflected = Resumed { epoch: resume.epoch, mac: resume.mac, table: resume.table };
    let error = pair.dialer.resumed(&Sha, &offer, &reflected, at(0));
    assert_eq!(error, Err(ResumeError::Unproved), "its own words, sent back");
    let judged = pair.acceptor.judge(&Sha, exporter, resume).unwrap();
    pair.acceptor.attach(&Sha, judged, at(0), &mut back).unwrap();
    for bit in 0..back.len() * 8 {
        let mut flipped = back.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Parsed::Done { value: Frame::Resumed(resumed), .. }) = parse(&flipped) {
            assert!(pair.dialer.resumed(&Sha, &offer, &resumed, at(0)).is_err(), "bit {bit}");
        }
    }
    assert_eq!(pair.dialer.epoch(), Epoch::FIRST);
}

#[test]
fn only_a_later_carrier_replaces_one() {
    let (mut pair, stream) = broken();
    let (early, late) = (Exporter([2; 32]), Exporter([3; 32]));
    let (mut first, mut second, mut answer) = (Vec::new(), Vec::new(), Vec::new());
    let first_offer = pair.dialer.resume(&Sha, early, &mut first);
    let second_offer = pair.dialer.resume(&Sha, late, &mut second);
    assert!(first_offer.epoch() < second_offer.epoch());
    let Frame::Resume(second) = frames(&second).remove(0) else { panic!("RESUME") };
    let judged = pair.acceptor.judge(&Sha, late, second).unwrap();
    pair.acceptor.attach(&Sha, judged, at(0), &mut answer).unwrap();
    let Frame::Resume(first) = frames(&first).remove(0) else { panic!("RESUME") };
    let judged = pair.acceptor.judge(&Sha, early, first).unwrap();
    let mut stale = Vec::new();
    assert_eq!(pair.acceptor.attach(&Sha, judged, at(0), &mut stale), Err(ResumeError::Stale));
    assert!(stale.is_empty());
    let again = pair.acceptor.judge(&Sha, late, second).unwrap();
    assert_eq!(pair.acceptor.attach(&Sha, again, at(0), &mut stale), Err(ResumeError::Stale), "twice");
    let Frame::Resumed(resumed) = frames(&answer).remove(0) else { panic!("RESUMED") };
    let error = pair.dialer.resumed(&Sha, &first_offer, &resumed, at(0));
    assert_eq!(error, Err(ResumeError::Stale), "the answer to another offer");
    pair.dialer.resumed(&Sha, &second_offer, &resumed, at(0)).unwrap();
    both_read(&mut pair, stream);
}

#[test]
fn nothing_that_an_old_carrier_brings_is_applied() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.write(stream, b"there", at(0));
    let mut late = Vec::new();
    pair.dialer.fill(&mut late, usize::MAX, at(0));
    pair.resume(2);
    events(&mut pair.acceptor);
    for frame in frames(&late) {
        assert_eq!(pair.acceptor.receive(Epoch::FIRST, frame, at(0)), Err(LinkError::Fenced));
    }
    assert_eq!((events(&mut pair.acceptor), pair.acceptor.readable(stream)), (vec![], &[][..]));
    // The end of the old carrier is no end of the link.
    pair.acceptor.detach(Epoch::FIRST, at(0));
    assert!(pair.acceptor.attached());
    pair.talk();
    assert_eq!(read(&mut pair.acceptor, stream, at(0)), b"there");
}

/// The dialer writes its table, and goes on over the old carrier until the answer comes.
#[test]
fn a_table_that_is_older_than_what_came_since_loses_nothing() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let (before, closing) = (pair.open(), pair.open());
    let exporter = Exporter([2; 32]);
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let offer = pair.dialer.resume(&Sha, exporter, &mut there);
    // Meanwhile, over the old one: bytes both ways, new streams of both sides, one that ends.
    pair.dialer.write(before, b"there", at(0));
    pair.acceptor.write(before, b"back", at(0));
    let ours = pair.dialer.open(request("new"), at(0)).unwrap();
    let theirs = pair.acceptor.open(request("new"), at(0)).unwrap();
    pair.talk();
    pair.acceptor.accept(ours);
    pair.dialer.accept(theirs);
    pair.dialer.finish(closing);
    pair.acceptor.finish(closing);
    pair.talk();
    let lived = [theirs, before, ours];
    assert_eq!(pair.dialer.streams().collect::<Vec<_>>(), lived);

    let Frame::Resume(resume) = frames(&there).remove(0) else { panic!("RESUME") };
    let judged = pair.acceptor.judge(&Sha, exporter, resume).unwrap();
    pair.acceptor.attach(&Sha, judged, at(0), &mut back).unwrap();
    let Frame::Resumed(resumed) = frames(&back).remove(0) else { panic!("RESUMED") };
    pair.dialer.resumed(&Sha, &offer, &resumed, at(0)).unwrap();
    pair.talk();
    for link in [&mut pair.dialer, &mut pair.acceptor] {
        assert_eq!(link.streams().collect::<Vec<_>>(), lived);
        assert!(!events(link).iter().any(|event| matches!(event, Event::Reset { .. })));
    }
    both_read(&mut pair, before);
    pair.dialer.write(ours, b"there", at(0));
    pair.acceptor.write(ours, b"back", at(0));
    both_read(&mut pair, ours);
}

/// The stream ends for the dialer over the old carrier, which the acceptor no longer listens to.
#[test]
fn a_last_word_over_a_carrier_that_was_just_replaced_is_said_again() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.finish(stream);
    pair.talk();
    let exporter = Exporter([2; 32]);
    let (mut there, mut back, mut late) = (Vec::new(), Vec::new(), Vec::new());
    let offer = pair.dialer.resume(&Sha, exporter, &mut there);
    pair.acceptor.finish(stream);
    pair.acceptor.fill(&mut late, usize::MAX, at(0));
    let Frame::Resume(resume) = frames(&there).remove(0) else { panic!("RESUME") };
    let judged = pair.acceptor.judge(&Sha, exporter, resume).unwrap();
    pair.acceptor.attach(&Sha, judged, at(0), &mut back).unwrap();
    for frame in frames(&late) {
        pair.dialer.receive(Epoch::FIRST, frame, at(0)).unwrap();
    }
    late.clear();
    pair.dialer.fill(&mut late, usize::MAX, at(0));
    assert!(events(&mut pair.dialer).contains(&Event::Closed(stream)));
    let Frame::Resumed(resumed) = frames(&back).remove(0) else { panic!("RESUMED") };
    pair.dialer.resumed(&Sha, &offer, &resumed, at(0)).unwrap();
    pair.talk();
    let told = events(&mut pair.acceptor);
    assert!(told.contains(&Event::Closed(stream)), "{told:?}");
    assert_eq!(pair.acceptor.streams().count(), 0);
}

#[test]
fn a_peer_that_claims_what_was_never_sent_loses_that_stream_alone() {
    let (mut pair, stream) = broken();
    let fine = StreamId(4);
    let mut writer = TableWriter::default();
    let (exporter, mut back, mut there) = (Exporter([2; 32]), Vec::new(), Vec::new());
    // The acceptor's own table, with a lie in it, under the right key: the peer itself is the liar.
    let offer = pair.dialer.resume(&Sha, exporter, &mut there);
    writer.live(Entry { stream, received: 6, credit: 65_536, end: None });
    let table = writer.finish(2, 0).bytes().to_vec();
    let Frame::Resume(resume) = frames(&there).remove(0) else { panic!("RESUME") };
    let mac = {
        use crate::tunnel::key::Said;
        let said = Said { link: LinkId([3; 16]), epoch: Epoch(2), exporter: &exporter, table: &table };
        key(1).mac_of_acceptor(&Sha, &said, &resume.mac)
    };
    Frame::Resumed(Resumed { epoch: Epoch(2), mac, table: writer.finish(2, 0) }).encode(&mut back);
    let Frame::Resumed(resumed) = frames(&back).remove(0) else { panic!("RESUMED") };
    pair.dialer.resumed(&Sha, &offer, &resumed, at(0)).unwrap();
    let told = events(&mut pair.dialer);
    assert!(told.contains(&Event::Reset { stream, code: Code::Protocol }), "{told:?}");
    assert_eq!(pair.dialer.open(request("goes on"), at(0)), Ok(fine));
    pair.dialer.audit();
}

#[test]
fn a_table_of_too_many_streams_is_refused() {
    let (mut pair, _) = broken();
    let mut writer = TableWriter::default();
    for stream in 1..=2000 {
        writer.dead(Dead { stream: StreamId(stream), code: Code::Busy });
    }
    let table = writer.finish(0, 0).bytes().to_vec();
    let exporter = Exporter([2; 32]);
    let said = crate::tunnel::key::Said {
        link: LinkId([3; 16]),
        epoch: Epoch(2),
        exporter: &exporter,
        table: &table,
    };
    let mac = key(1).mac_of_dialer(&Sha, &said);
    let resume = Resume { link: LinkId([3; 16]), epoch: Epoch(2), mac, table: writer.finish(0, 0) };
    assert_eq!(pair.acceptor.judge(&Sha, exporter, resume).err(), Some(ResumeError::Table));
    pair.resume(3);
}

#[test]
fn secrets_show_nothing_of_themselves() {
    let shown = format!("{:?} {:?} {:?}", key(1), Exporter([7; 32]), Pair::new(Limits::DEFAULT).dialer);
    assert!(shown.contains("Key(…)") && shown.contains("Exporter(…)") && !shown.contains("7, 7"), "{shown}");
}

/// A table can be what tells the end first: it is confirmed like one that a FIN told.
#[test]
fn an_end_that_only_a_table_told_is_confirmed() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.write(stream, b"there", at(0));
    pair.acceptor.write(stream, b"back", at(0));
    pair.talk();
    pair.dialer.detach(Epoch::FIRST, at(0));
    pair.dialer.finish(stream);
    pair.resume(2);
    let mut answer = Vec::new();
    pair.acceptor.fill(&mut answer, usize::MAX, at(0));
    assert!(pair.acceptor.readable(stream) == b"there" && !pair.acceptor.at_end(stream));
    for frame in frames(&answer) {
        pair.dialer.receive(Epoch(2), frame, at(0)).unwrap();
    }
    let broken = events(&mut pair.dialer).into_iter().any(|event| matches!(event, Event::Reset { .. }));
    assert!(!broken);
    both_read(&mut pair, stream);
    assert!(pair.acceptor.at_end(stream));
}
