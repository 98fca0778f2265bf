//! Two links face to face, over carriers that lose nothing: each rule by itself.

use std::time::Duration;

use tieline_base::Moment;

use super::hashing::{Sha, key};
use crate::Parsed;
use crate::tunnel::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn at(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

pub(super) fn request(service: &str) -> Request {
    Request {
        service: service.into(),
        subject: "ana".into(),
        permit: 7,
        trace: [9; 16],
        why: "".into(),
        flow: false,
    }
}

/// Both ends of a link, and what they reported.
pub(super) struct Pair {
    pub(super) dialer: Link,
    pub(super) acceptor: Link,
    pub(super) now: Moment,
}

impl Pair {
    pub(super) fn new(limits: Limits) -> Self {
        let link = |side| Link::new(LinkId([3; 16]), side, limits, key(1), 15 * SECOND, at(0));
        Self { dialer: link(Side::Dialer), acceptor: link(Side::Acceptor), now: at(0) }
    }

    /// Carries frames both ways until nobody has anything to say.
    pub(super) fn talk(&mut self) {
        for _ in 0..10_000 {
            let now = self.now;
            let there = deliver(&mut self.dialer, &mut self.acceptor, now);
            let back = deliver(&mut self.acceptor, &mut self.dialer, now);
            self.dialer.audit();
            self.acceptor.audit();
            if !there && !back {
                return;
            }
        }
        panic!("they never stop");
    }

    /// Lets time pass and talks.
    pub(super) fn later(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
        self.dialer.on_time(self.now);
        self.acceptor.on_time(self.now);
        self.talk();
    }

    /// A stream that both agree on.
    pub(super) fn open(&mut self) -> StreamId {
        let stream = self.dialer.open(request("ssh"), self.now).unwrap();
        self.talk();
        self.acceptor.accept(stream);
        self.talk();
        events(&mut self.dialer);
        events(&mut self.acceptor);
        stream
    }

    /// Another carrier takes over; both ends had lost the one before.
    pub(super) fn resume(&mut self, exporter: u8) {
        let exporter = Exporter([exporter; 32]);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        let offer = self.dialer.resume(&Sha, exporter, &mut there);
        let Frame::Resume(resume) = frames(&there).remove(0) else { panic!("RESUME") };
        let judged = self.acceptor.judge(&Sha, exporter, resume).unwrap();
        self.acceptor.attach(&Sha, judged, self.now, &mut back).unwrap();
        let Frame::Resumed(resumed) = frames(&back).remove(0) else { panic!("RESUMED") };
        self.dialer.resumed(&Sha, &offer, &resumed, self.now).unwrap();
    }

    /// Whatever is under way is lost, and nobody knows how much of it.
    pub(super) fn lose(&mut self) {
        let mut lost = Vec::new();
        self.dialer.fill(&mut lost, usize::MAX, self.now);
        self.acceptor.fill(&mut lost, usize::MAX, self.now);
        self.dialer.detach(self.dialer.epoch(), self.now);
        self.acceptor.detach(self.acceptor.epoch(), self.now);
    }
}

/// All frames in `bytes`.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Ok(Parsed::Done { value, consumed }) = parse(bytes) {
        frames.push(value);
        bytes = &bytes[consumed..];
    }
    assert!(bytes.is_empty());
    frames
}

/// What `from` has to say, as `to` hears it; says whether there was anything.
pub(super) fn deliver(from: &mut Link, to: &mut Link, now: Moment) -> bool {
    let mut bytes = Vec::new();
    from.fill(&mut bytes, 1 << 16, now);
    for frame in frames(&bytes) {
        assert_eq!(to.receive(from.epoch(), frame, now), Ok(None));
    }
    !bytes.is_empty()
}

pub(super) fn events(link: &mut Link) -> Vec<Event> {
    std::iter::from_fn(|| link.event()).collect()
}

/// Reads all that waits.
pub(super) fn read(link: &mut Link, stream: StreamId, now: Moment) -> Vec<u8> {
    let mut all = Vec::new();
    while !link.readable(stream).is_empty() {
        let part = link.readable(stream).to_vec();
        link.drain(stream, part.len(), now);
        all.extend(part);
    }
    all
}

#[test]
fn who_is_told_what_for_he_waits_does_not_take_the_silence_for_a_lost_link() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.dialer.open(request("ssh"), at(0)).unwrap();
    pair.talk();
    pair.acceptor.wait(stream, "somebody has to agree");
    pair.talk();
    let waits = Event::Waits { stream, text: "somebody has to agree".into() };
    assert_eq!(events(&mut pair.dialer), std::slice::from_ref(&waits));
    for _ in 0..100 {
        pair.later(1_000);
        assert_eq!(events(&mut pair.dialer), []);
    }
    // Over another carrier it is told again; the question is not put twice.
    events(&mut pair.acceptor);
    pair.lose();
    pair.resume(2);
    pair.talk();
    assert!(events(&mut pair.dialer).contains(&waits));
    assert!(!events(&mut pair.acceptor).iter().any(|event| matches!(event, Event::Offered { .. })));
    pair.acceptor.accept(stream);
    pair.talk();
    assert_eq!(events(&mut pair.dialer), [Event::Opened(stream)]);
    let refused = pair.dialer.open(request("db"), pair.now).unwrap();
    pair.talk();
    pair.acceptor.wait(refused, "somebody has to agree");
    pair.talk();
    pair.acceptor.refuse(refused, Code::Denied, "nobody does");
    pair.talk();
    let told = events(&mut pair.dialer);
    assert!(matches!(&told[1..], [Event::Refused { text, .. }] if &**text == "nobody does"), "{told:?}");
}

#[test]
fn a_stream_opens_carries_half_closes_and_is_forgotten() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.dialer.open(request("ssh"), at(0)).unwrap();
    assert_eq!(pair.dialer.write(stream, b"early", at(0)), 5);
    pair.talk();
    let offered = Event::Offered { stream, request: request("ssh") };
    assert_eq!(events(&mut pair.acceptor), [offered, Event::Readable(stream)]);
    pair.acceptor.accept(stream);
    pair.dialer.finish(stream);
    pair.talk();
    assert_eq!(events(&mut pair.dialer), [Event::Opened(stream)]);
    assert_eq!(read(&mut pair.acceptor, stream, at(0)), b"early");
    assert!(pair.acceptor.at_end(stream) && !pair.dialer.at_end(stream));
    assert_eq!(pair.acceptor.write(stream, b"after the end of the other", at(0)), 26);
    pair.acceptor.finish(stream);
    pair.talk();
    assert_eq!(read(&mut pair.dialer, stream, at(0)), b"after the end of the other");
    pair.talk();
    assert_eq!(events(&mut pair.dialer), [Event::Readable(stream), Event::Closed(stream)]);
    assert_eq!(events(&mut pair.acceptor), [Event::Readable(stream), Event::Closed(stream)]);
    assert_eq!((pair.dialer.streams().count(), pair.acceptor.streams().count()), (0, 0));
}

#[test]
fn each_side_gives_out_numbers_of_its_own() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let ours: Vec<u64> = (0..3).map(|_| pair.dialer.open(request("a"), at(0)).unwrap().0).collect();
    let theirs: Vec<u64> = (0..3).map(|_| pair.acceptor.open(request("b"), at(0)).unwrap().0).collect();
    assert_eq!((&ours[..], &theirs[..]), (&[2, 4, 6][..], &[1, 3, 5][..]));
    pair.talk();
    assert!(pair.acceptor.knows(StreamId(6)) && !pair.acceptor.knows(StreamId(8)));
    let reused = Open {
        stream: StreamId(1),
        service: "x",
        subject: "",
        permit: 0,
        trace: [0; 16],
        why: "",
        flow: false,
    };
    let error = pair.acceptor.receive(Epoch::FIRST, Frame::Open(reused), at(0));
    assert_eq!(error, Err(LinkError::Breach(Breach::Number)));
}

#[test]
fn a_refusal_reaches_who_asked_and_leaves_nothing() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.dialer.open(request("db"), at(0)).unwrap();
    pair.talk();
    pair.acceptor.refuse(stream, Code::Denied, "not for you\nreally");
    pair.talk();
    let refused = Event::Refused { stream, code: Code::Denied, text: "not for you".into() };
    assert_eq!(events(&mut pair.dialer), [refused]);
    assert_eq!((pair.dialer.streams().count(), pair.acceptor.streams().count()), (0, 0));
}

#[test]
fn a_reset_reaches_the_other_side_once_and_is_confirmed() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.write(stream, &[1; 50_000], at(0));
    pair.dialer.reset(stream, Code::Aborted);
    assert_eq!((pair.dialer.held(), pair.dialer.streams().count()), (0, 1));
    pair.talk();
    assert_eq!(events(&mut pair.acceptor), [Event::Reset { stream, code: Code::Aborted }]);
    assert_eq!((pair.dialer.streams().count(), pair.acceptor.streams().count()), (0, 0));
    assert_eq!(events(&mut pair.dialer), []);
}

#[test]
fn resets_that_cross_leave_nothing() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.dialer.reset(stream, Code::Aborted);
    pair.acceptor.reset(stream, Code::Killed);
    pair.talk();
    assert_eq!((pair.dialer.streams().count(), pair.acceptor.streams().count()), (0, 0));
}

#[test]
fn a_slow_reader_holds_its_own_stream_up_and_no_other() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let (slow, quick) = (pair.open(), pair.open());
    let mut written = 0;
    loop {
        let now = pair.dialer.write(slow, &[1; 10_000], at(0));
        written += now as u64;
        pair.talk();
        if now < 10_000 {
            break;
        }
    }
    assert_eq!(written, Limits::DEFAULT.window);
    pair.dialer.write(quick, b"keystroke", at(0));
    pair.talk();
    assert_eq!(read(&mut pair.acceptor, quick, at(0)), b"keystroke");
    events(&mut pair.dialer);
    pair.acceptor.drain(slow, 40_000.min(pair.acceptor.readable(slow).len()), at(0));
    let rest = read(&mut pair.acceptor, slow, at(0)).len() as u64;
    assert!(rest > 0 && rest <= written);
    pair.talk();
    assert_eq!(events(&mut pair.dialer), [Event::Writable(slow)]);
}

#[test]
fn a_keystroke_waits_for_one_frame_of_bulk() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let bulk: Vec<StreamId> = (0..16).map(|_| pair.open()).collect();
    let echo = pair.open();
    for stream in &bulk {
        pair.dialer.write(*stream, &[0; 60_000], at(0));
    }
    let first = pair.dialer.next_chunk(DATA_MAX, at(0)).unwrap();
    assert_eq!(first.stream, bulk[0]);
    let mut behind = 0;
    pair.dialer.write(echo, &[1; 64], at(0));
    while pair.dialer.next_chunk(DATA_MAX, at(0)).is_some_and(|chunk| chunk.stream != echo) {
        behind += 1;
    }
    // Streams that have just begun go first, in the order in which they began.
    assert!(behind <= bulk.len(), "{behind} frames");
    // All of them have had their first turn: from now on it is one frame.
    while pair.dialer.next_chunk(DATA_MAX, at(0)).is_some_and(|chunk| chunk.stream != bulk[15]) {}
    pair.dialer.write(echo, &[1; 64], at(0));
    let next: Vec<StreamId> =
        (0..18).filter_map(|_| Some(pair.dialer.next_chunk(DATA_MAX, at(0))?.stream)).collect();
    assert!(next.contains(&echo), "{next:?}");
}

#[test]
fn bulk_streams_share_evenly() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let streams: Vec<StreamId> = (0..4).map(|_| pair.open()).collect();
    for (at_of, stream) in streams.iter().enumerate() {
        // Different sizes of writes make different slabs, not different shares.
        for _ in 0..60_000 / (1000 * (at_of + 1)) {
            pair.dialer.write(*stream, &vec![0; 1000 * (at_of + 1)], at(0));
        }
    }
    let mut sent = std::collections::BTreeMap::<StreamId, usize>::new();
    for _ in 0..8 {
        let chunk = pair.dialer.next_chunk(DATA_MAX, at(0)).unwrap();
        *sent.entry(chunk.stream).or_default() += chunk.bytes.len();
    }
    assert_eq!(sent.len(), 4);
    assert!(sent.values().all(|bytes| (16_384..=49_152).contains(bytes)), "{sent:?}");
}

#[test]
fn windows_grow_with_the_path_and_stay_small_without_need() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let (stream, idle) = (pair.open(), pair.open());
    let mut widest = 0;
    for _ in 0..200 {
        while pair.dialer.write(stream, &[0; 16_384], pair.now) > 0 {}
        widest = widest.max(pair.dialer.held());
        pair.later(10);
        read(&mut pair.acceptor, stream, pair.now);
        pair.later(10);
    }
    assert_eq!(widest, Limits::DEFAULT.window_max);
    for _ in 0..200 {
        pair.dialer.write(idle, &[0; 30_000], pair.now);
        pair.later(1000);
        read(&mut pair.acceptor, idle, pair.now);
        pair.later(1000);
    }
    let room = pair.dialer.room(idle);
    assert!((Limits::DEFAULT.window / 2..=Limits::DEFAULT.window).contains(&room), "{room}");
}

#[test]
fn a_stream_begins_as_wide_as_an_earlier_one_came_to_need_within_a_part_of_what_is_left() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    let room_of_next = |pair: &mut Pair| {
        let next = pair.open();
        pair.dialer.room(next)
    };
    assert_eq!(room_of_next(&mut pair), Limits::DEFAULT.window);
    for _ in 0..200 {
        while pair.dialer.write(stream, &[0; 16_384], pair.now) > 0 {}
        pair.later(10);
        read(&mut pair.acceptor, stream, pair.now);
        pair.later(10);
    }
    let room = room_of_next(&mut pair);
    assert!((Limits::DEFAULT.window * 4..=Limits::DEFAULT.budget / 16).contains(&room), "{room}");
    // However many begin, most of the budget goes to those who need it.
    for _ in 0..40 {
        room_of_next(&mut pair);
    }
    assert_eq!(room_of_next(&mut pair), Limits::DEFAULT.first_credit);
    assert!(pair.acceptor.promised() <= Limits::DEFAULT.budget * 3 / 4, "{}", pair.acceptor.promised());
}

#[test]
fn on_a_short_path_windows_grow_with_those_who_read_at_once_alone() {
    let room_at = |pace| {
        let mut pair = Pair::new(Limits::DEFAULT);
        pair.acceptor.hurry(pair.now);
        pair.talk();
        assert_eq!(pair.acceptor.round_trip(), Duration::ZERO);
        let stream = pair.open();
        for _ in 0..100 {
            while pair.dialer.write(stream, &[0; 16_384], pair.now) > 0 {}
            pair.later(pace);
            read(&mut pair.acceptor, stream, pair.now);
            pair.talk();
        }
        pair.dialer.room(stream)
    };
    assert_eq!((room_at(3), room_at(30)), (Limits::DEFAULT.window_max, Limits::DEFAULT.window));
}

#[test]
fn many_streams_share_the_budget_and_one_too_many_is_refused() {
    let limits = Limits { streams: 1000, ..Limits::DEFAULT };
    let mut pair = Pair::new(limits);
    let mut opened = 0;
    while let Ok(stream) = pair.dialer.open(request("x"), at(0)) {
        pair.talk();
        pair.acceptor.accept(stream);
        opened += 1;
    }
    pair.talk();
    assert!(opened > 500, "{opened}");
    assert!(pair.dialer.promised() <= limits.budget && pair.acceptor.promised() <= limits.budget);
    // The acceptor is asked for more than it will hold, by a dialer that does not count.
    let open = Open {
        stream: StreamId(1 << 30),
        service: "x",
        subject: "",
        permit: 0,
        trace: [0; 16],
        why: "",
        flow: false,
    };
    pair.acceptor.receive(Epoch::FIRST, Frame::Open(open), at(0)).unwrap();
    let mut said = Vec::new();
    pair.acceptor.fill(&mut said, usize::MAX, at(0));
    let busy = |frame: &Frame<'_>| matches!(frame, Frame::OpenRefused { code: Code::Busy, .. });
    assert_eq!(frames(&said).iter().filter(|frame| busy(frame)).count(), 1);
}

#[test]
fn short_of_memory_no_credit_is_renewed_until_it_is_over() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    pair.acceptor.set_short(true, at(0));
    let mut through = 0;
    for _ in 0..20 {
        pair.dialer.write(stream, &[0; 16_384], pair.now);
        pair.later(100);
        through += read(&mut pair.acceptor, stream, pair.now).len() as u64;
    }
    // The floor goes on, the window does not.
    assert!(pair.acceptor.promised() <= Limits::DEFAULT.first_credit, "{}", pair.acceptor.promised());
    assert!(through > Limits::DEFAULT.window);
    pair.acceptor.set_short(false, pair.now);
    pair.talk();
    assert!(pair.dialer.room(stream) >= Limits::DEFAULT.window);
}

#[test]
fn a_peer_that_promises_credit_and_confirms_nothing_costs_a_window() {
    let limits = Limits { streams: 8, budget: 8 << 20, ..Limits::DEFAULT };
    let mut pair = Pair::new(limits);
    let streams: Vec<StreamId> = (0..8).map(|_| pair.open()).collect();
    for stream in &streams {
        let credit = Frame::Credit { stream: *stream, upto: VARINT_MAX };
        pair.dialer.receive(Epoch::FIRST, credit, at(0)).unwrap();
        while pair.dialer.write(*stream, &[0; 100_000], at(0)) > 0 {}
        pair.dialer.audit();
    }
    assert_eq!(pair.dialer.held(), 2 * limits.budget);
    assert_eq!(pair.dialer.largest().map(|(_, held)| held), Some(limits.window_max));
}

#[test]
fn breaches_end_the_link_or_the_stream_that_they_concern() {
    let breach = |frame: Frame<'_>| {
        let mut pair = Pair::new(Limits::DEFAULT);
        let stream = pair.open();
        assert_eq!(stream, StreamId(2));
        pair.dialer.write(stream, b"12345", at(0));
        pair.talk();
        pair.acceptor.receive(Epoch::FIRST, frame, at(0)).err()
    };
    let data = |stream, offset, bytes| Frame::Data { stream: StreamId(stream), offset, bytes };
    let link = |breach| Some(LinkError::Breach(breach));
    assert_eq!(breach(data(2, 5, b"67")), None);
    assert_eq!(breach(data(2, 0, b"1234567")), None, "what was received before is skipped");
    assert_eq!(breach(data(2, 6, b"7")), link(Breach::Gap));
    assert_eq!(breach(data(2, 5, &[0; 65_532])), link(Breach::Credit));
    assert_eq!(breach(data(4, 0, b"1")), link(Breach::Unopened));
    assert_eq!(breach(data(1, 0, b"1")), link(Breach::Unopened));
    assert_eq!(breach(Frame::Fin { stream: StreamId(2), end: 6 }), link(Breach::Gap));
    assert_eq!(breach(Frame::Fin { stream: StreamId(2), end: 4 }), link(Breach::PastEnd));
    assert_eq!(breach(Frame::Reset { stream: StreamId(4), code: Code::Aborted }), link(Breach::Unopened));
    assert_eq!(breach(Frame::Opened(StreamId(2))), link(Breach::Number));
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        boot: [0; 16],
        place: 0,
        party: Party::Agent,
        release: "",
    };
    assert_eq!(breach(Frame::Hello(hello)), link(Breach::Misplaced));
    // Not a word of this was sent: that stream alone is broken off.
    assert_eq!(breach(Frame::Ack { stream: StreamId(2), upto: 1 }), None);
    let mut pair = Pair::new(Limits::DEFAULT);
    let (wrong, fine) = (pair.open(), pair.open());
    pair.acceptor.receive(Epoch::FIRST, Frame::Ack { stream: wrong, upto: 1 }, at(0)).unwrap();
    let reset = Event::Reset { stream: wrong, code: Code::Protocol };
    assert_eq!(events(&mut pair.acceptor), [reset]);
    pair.talk();
    assert_eq!(pair.dialer.streams().collect::<Vec<_>>(), [fine]);
}

#[test]
fn a_flood_of_resets_that_nobody_reads_the_answers_of_ends_the_link() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    let reset = Frame::Reset { stream, code: Code::Aborted };
    let end = (0..3000).find_map(|_| pair.acceptor.receive(Epoch::FIRST, reset.clone(), at(0)).err());
    assert_eq!(end, Some(LinkError::Breach(Breach::Flood)));
}

#[test]
fn streams_that_wait_for_too_long_are_broken_off() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let (http, ssh, idle) = (pair.open(), pair.open(), pair.open());
    let patience = |seconds: u32| Patience { detached: seconds * SECOND, idle: None };
    pair.dialer.set_patience(http, patience(0));
    pair.dialer.set_patience(ssh, patience(900));
    pair.dialer.set_patience(idle, Patience { idle: Some(5 * SECOND), ..patience(900) });
    for _ in 0..40 {
        pair.later(100);
    }
    assert_eq!(events(&mut pair.dialer), []);
    for _ in 0..20 {
        pair.later(100);
    }
    assert_eq!(events(&mut pair.dialer), [Event::Reset { stream: idle, code: Code::Idle }]);
    pair.dialer.detach(Epoch::FIRST, pair.now);
    assert_eq!(events(&mut pair.dialer), [Event::Reset { stream: http, code: Code::Expired }]);
    for _ in 0..890 {
        pair.now = pair.dialer.deadline().min(pair.now.after(SECOND));
        pair.dialer.on_time(pair.now);
    }
    assert_eq!(events(&mut pair.dialer), []);
    pair.now = pair.now.after(20 * SECOND);
    pair.dialer.on_time(pair.now);
    assert_eq!(events(&mut pair.dialer), [Event::Reset { stream: ssh, code: Code::Expired }]);
}

#[test]
fn few_confirmations_go_with_many_bytes() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let stream = pair.open();
    let (mut there, mut back) = (0, 0);
    for _ in 0..300 {
        pair.dialer.write(stream, &[0; 65_536], pair.now);
        let mut bytes = Vec::new();
        pair.dialer.fill(&mut bytes, usize::MAX, pair.now);
        for frame in frames(&bytes) {
            pair.acceptor.receive(Epoch::FIRST, frame, pair.now).unwrap();
        }
        there += read(&mut pair.acceptor, stream, pair.now).len();
        bytes.clear();
        pair.acceptor.fill(&mut bytes, usize::MAX, pair.now);
        back += bytes.len();
        for frame in frames(&bytes) {
            pair.dialer.receive(Epoch::FIRST, frame, pair.now).unwrap();
        }
        pair.now = pair.now.after(Duration::from_millis(1));
    }
    assert!(there > 5 << 20, "{there}");
    assert!(back * 1000 < there, "{back} bytes back for {there}");
}
