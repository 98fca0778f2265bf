//! Frames: what is written reads the same, however it was cut; what is malformed is refused.

use std::time::Duration;

use proptest::prelude::*;

use crate::Parsed;
use crate::tunnel::*;

fn a_number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..=VARINT_MAX, Just(VARINT_MAX)]
}

fn a_stream() -> impl Strategy<Value = StreamId> {
    prop_oneof![1..1000_u64, 1..=VARINT_MAX].prop_map(StreamId)
}

fn a_code() -> impl Strategy<Value = Code> {
    prop_oneof![0..20_u64, a_number()].prop_map(Code::of)
}

fn a_text() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

fn a_kind(number: u64) -> OfferKind {
    match number {
        0..50 => OfferKind::Tcp,
        50..100 => OfferKind::Unix,
        100..150 => OfferKind::Udp,
        other => OfferKind::Other(other),
    }
}

fn endpoints() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(a_text(), 0..ENDPOINTS_MAX)
}

fn a_wait() -> impl Strategy<Value = Duration> {
    a_number().prop_map(Duration::from_millis)
}

/// Written, read from every prefix, and read again.
fn check(frame: &Frame<'_>) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let whole = bytes.len();
    for cut in (0..whole).step_by(1 + whole / 64) {
        let Ok(Parsed::Incomplete { at_most }) = parse(&bytes[..cut]) else { panic!("{cut} of {whole}") };
        assert!(at_most >= whole && cut < at_most);
    }
    bytes.extend_from_slice(b"what follows");
    assert_eq!(parse(&bytes), Ok(Parsed::Done { value: frame.clone(), consumed: whole }));
}

/// A frame of `kind` with `body`.
fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (0x4000_u16 | body.len() as u16).to_be_bytes();
    let length = if body.len() < 0x40 { &length[1..] } else { &length[..] };
    [&[kind][..], length, body].concat()
}

proptest! {
    #[test]
    fn frames_about_streams_survive(
        stream in a_stream(), number in a_number(), code in a_code(), text in a_text(), service in a_text(),
        trace in any::<[u8; 16]>(), bytes in prop::collection::vec(any::<u8>(), 1..2000),
    ) {
        let (service, subject, permit) = (&*service, &*text, number);
        let open = Open { stream, service, subject, permit, trace, why: "", flow: false };
        check(&Frame::Open(open));
        check(&Frame::Open(Open { flow: true, ..open }));
        check(&Frame::Open(Open { why: "a valve is stuck", ..open }));
        check(&Frame::Waits { stream, text: &text });
        check(&Frame::Opened(stream));
        check(&Frame::OpenRefused { stream, code, text: &text });
        check(&Frame::Data { stream, offset: number, bytes: &bytes });
        check(&Frame::Ack { stream, upto: number });
        check(&Frame::Credit { stream, upto: number });
        check(&Frame::Fin { stream, end: number });
        check(&Frame::Reset { stream, code });
        check(&Frame::Kill(Kill { stream: Some(stream), code, actor: &text }));
        check(&Frame::Kill(Kill { stream: None, code, actor: &text }));
        check(&Frame::Ping(number));
        check(&Frame::Pong(number));
        check(&Frame::Udp { flow: stream, bytes: &bytes });
    }

    #[test]
    fn frames_about_links_survive(
        versions in (a_number(), a_number()), features in a_number(), place in a_number(),
        boot in any::<[u8; 16]>(),
        party in prop::sample::select(vec![Party::Agent, Party::Connect, Party::Edge]), release in a_text(),
        refusal in 0..6_usize, waits in (a_wait(), a_wait()), list in endpoints(),
        ttls in prop::collection::vec((any::<u8>(), a_number()), 0..TTLS_MAX),
    ) {
        let (version_min, version_max) = (versions.0.min(versions.1), versions.0.max(versions.1));
        let release = &*release;
        check(&Frame::Hello(Hello { version_min, version_max, features, boot, place, party, release }));
        let (mut listed, mut waited) = (Vec::new(), Vec::new());
        let endpoints = Endpoints::write(list.iter().map(String::as_str), &mut listed);
        let lines: Vec<Ttl> = ttls.into_iter().map(|(kind, wait_ms)| Ttl { kind, wait_ms }).collect();
        let ttls = Ttls::write(lines.iter().copied(), &mut waited);
        prop_assert!(endpoints.iter().eq(list.iter().map(String::as_str)));
        prop_assert!(ttls.iter().eq(lines));
        check(&Frame::Welcome(Welcome {
            version: version_max,
            features,
            link: LinkId(boot),
            epoch: Epoch::FIRST,
            limits: Limits::DEFAULT,
            heartbeat_ms: version_min,
            ttls,
            endpoints,
        }));
        let refusals = [Refusal::NoLink, Refusal::Version, Refusal::Busy, Refusal::Denied, Refusal::Elsewhere,
            Refusal::Stale];
        check(&Frame::Refused(Refused {
            refusal: refusals[refusal],
            retry_after: waits.0,
            elsewhere: endpoints,
        }));
        check(&Frame::GoAway(GoAway { deadline: waits.0, spread: waits.1, next: endpoints }));
    }

    #[test]
    fn tables_and_counters_survive(
        streams in prop::collection::btree_set(a_stream(), 0..50), numbers in (a_number(), a_number()),
        ends in prop::collection::vec(prop::option::of(0..VARINT_MAX), 50), dead in any::<u64>(),
        link in any::<[u8; 16]>(), mac in any::<[u8; 32]>(), epoch in a_number(),
    ) {
        let mut writer = TableWriter::default();
        let (mut live, mut broken) = (Vec::new(), Vec::new());
        for (at, (&stream, &end)) in streams.iter().zip(&ends).enumerate() {
            if dead >> at & 1 == 1 {
                broken.push(Dead { stream, code: Code::of(numbers.0) });
            } else {
                live.push(Entry { stream, received: numbers.0, credit: numbers.1, end });
            }
        }
        live.iter().for_each(|entry| writer.live(*entry));
        broken.iter().for_each(|entry| writer.dead(*entry));
        let table = writer.finish(numbers.0, numbers.1);
        prop_assert_eq!((table.seen(), table.opened()), numbers);
        prop_assert_eq!(table.live().collect::<Vec<_>>(), live);
        prop_assert_eq!(table.dead().collect::<Vec<_>>(), broken);
        check(&Frame::Resume(Resume { link: LinkId(link), epoch: Epoch(epoch), mac: Mac(mac), table }));
        check(&Frame::Resumed(Resumed { epoch: Epoch(epoch), mac: Mac(mac), table }));

        let counters: Vec<Counter> =
            ends.iter().flatten().map(|count| Counter { what: numbers.0, count: *count }).collect();
        let mut bytes = Vec::new();
        let stats = Stats::write(counters.iter().copied(), &mut bytes);
        prop_assert_eq!(stats.iter().collect::<Vec<_>>(), counters);
        check(&Frame::Stats(stats));
    }

    #[test]
    fn offers_survive(
        lines in prop::collection::btree_map("[a-z0-9][a-zA-Z0-9._-]{0,62}", a_number(), 0..40),
    ) {
        let of = |(name, kind)| Offered { name, kind: a_kind(kind) };
        let lines: Vec<Offered<'_>> = lines.iter().map(|(name, kind)| of((name.as_str(), *kind))).collect();
        let mut bytes = Vec::new();
        let offers = Offers::write(lines.iter().copied(), &mut bytes);
        prop_assert_eq!(offers.iter().collect::<Vec<_>>(), lines);
        check(&Frame::Offers(offers));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Parsed::Done { value, consumed }) = parse(&bytes) {
            prop_assert!(consumed <= bytes.len());
            let mut again = Vec::new();
            value.encode(&mut again);
            prop_assert!(matches!(value, Frame::Skipped(_)) || again == bytes[..consumed]);
        }
    }
}

#[test]
fn a_frame_adds_at_most_a_tenth_of_a_percent() {
    let bytes = [7; DATA_MAX];
    let mut written = Vec::new();
    Frame::Data { stream: StreamId(1 << 20), offset: 1 << 40, bytes: &bytes }.encode(&mut written);
    assert!((written.len() - DATA_MAX) * 1000 <= DATA_MAX + 1000, "{}", written.len() - DATA_MAX);
}

#[test]
fn an_unknown_type_ends_the_link_only_if_it_is_critical() {
    assert_eq!(parse(&raw(0x3f, b"")), Err(FrameError::UnknownType(0x3f)));
    let skipped = raw(0x3e, b"of a later version");
    assert_eq!(parse(&skipped), Ok(Parsed::Done { value: Frame::Skipped(0x3e), consumed: skipped.len() }));
}

#[test]
fn a_length_is_refused_before_its_bytes_come() {
    // 4 GiB of DATA; 5 KiB of HELLO, which strangers may send; 9 bytes of PING.
    assert!(matches!(parse(b"\x11\xc0\0\0\x01\0\0\0\0"), Err(FrameError::TooLong { kind: 0x11, .. })));
    assert!(matches!(parse(b"\x01\x54\0"), Err(FrameError::TooLong { kind: 1, length: 0x1400, most: 4096 })));
    assert!(matches!(parse(b"\x1b\x09"), Err(FrameError::TooLong { kind: 0x1b, .. })));
}

#[test]
fn malformed_bodies_are_refused() {
    let wrong: &[(u8, &[u8], &str)] = &[
        (0x0d, b"\0", "OPENED of stream 0"),
        (0x0d, b"\x02\x02", "OPENED with a byte too many"),
        (0x0d, b"\x40\x02", "OPENED with a number that is longer than it needs"),
        (0x11, b"\x02\0", "DATA without bytes"),
        (0x13, b"\x02", "ACK without an offset"),
        (0x0f, b"\x02\x01\x02a\x1b", "OPEN_ERR with an escape in its text"),
        (0x0f, b"\x02\x01\x02a\n", "OPEN_ERR with a line end in its text"),
        (0x0f, b"\x02\x01\x02\xc2\x85", "OPEN_ERR with a C1 control character in its text"),
        (0x0f, b"\x02\x01\x01\xff", "OPEN_ERR whose text is no UTF-8"),
        (0x0f, b"\x02\x01\x05abcd", "OPEN_ERR whose text is cut"),
        (0x22, b"\x01", "STATS with half a pair"),
        (0x28, b"\x02\x02a\n", "WAITS with a line end in its text"),
        (0x0b, &[b"\x02\0\0\0", &[0; 16][..], b"\0"].concat(), "OPEN that says why, and nothing"),
        (0x09, b"\x06\0\0", "REFUSED for a reason that does not exist"),
        (0x09, b"\0\0\x09", "REFUSED with nine endpoints"),
    ];
    for (kind, body, what) in wrong {
        assert_eq!(parse(&raw(*kind, body)), Err(FrameError::Body(u64::from(*kind))), "{what}");
    }
    let hello =
        |min: u8, max: u8, party: u8| raw(0x01, &[&[min, max, 0][..], &[0; 16], &[0, party, 0]].concat());
    assert!(matches!(parse(&hello(1, 2, 0)), Ok(Parsed::Done { .. })));
    assert_eq!(parse(&hello(2, 1, 0)), Err(FrameError::Body(1)), "versions upside down");
    assert_eq!(parse(&hello(1, 2, 3)), Err(FrameError::Body(1)), "a party that does not exist");
}

#[test]
fn a_table_names_no_stream_twice() {
    let resume = |table: &[u8]| raw(0x07, &[&[2][..], &[0; 32], table].concat());
    let fine = b"\0\0\x08\x02\0\0\0\x04\0\0\0\0";
    assert!(matches!(parse(&resume(fine)), Ok(Parsed::Done { .. })));
    for (wrong, what) in [
        (&b"\0\0\x08\x02\0\0\0\x02\0\0\0\0"[..], "twice"),
        (b"\0\0\x08\x04\0\0\0\x02\0\0\0\0", "falling"),
        (b"\0\0\x07\x02\0\0\0\x04\0\0\0", "cut"),
        (b"\0\0\0\x04\x02\x01\x02\x01", "two ends"),
        (b"\0\0\0\0\0", "a byte too many"),
    ] {
        assert_eq!(parse(&resume(wrong)), Err(FrameError::Body(7)), "{what}");
    }
}

#[test]
fn what_we_send_keeps_to_what_we_accept() {
    let long = "ä".repeat(200);
    let mut bytes = Vec::new();
    for text in [long.as_str(), "first\nsecond"] {
        bytes.clear();
        Frame::OpenRefused { stream: StreamId(1), code: Code::Busy, text }.encode(&mut bytes);
        let Ok(Parsed::Done { value: Frame::OpenRefused { text: read, .. }, .. }) = parse(&bytes) else {
            panic!("{text}");
        };
        assert!(!read.is_empty() && text.starts_with(read) && read.len() <= TEXT_MAX);
    }
}

#[test]
fn welcomes_with_limits_that_contradict_each_other_are_refused() {
    let welcome = |limits: Limits| {
        let mut bytes = Vec::new();
        let (link, endpoints) = (LinkId([1; 16]), Endpoints::default());
        let (epoch, ttls) = (Epoch::FIRST, Ttls::default());
        Frame::Welcome(Welcome {
            version: 1,
            features: 0,
            link,
            epoch,
            limits,
            heartbeat_ms: 1,
            ttls,
            endpoints,
        })
        .encode(&mut bytes);
        parse(&bytes).is_ok()
    };
    let fine = Limits::DEFAULT;
    assert!(welcome(fine));
    assert!(!welcome(Limits { streams: 0, ..fine }));
    assert!(!welcome(Limits { streams: 1025, ..fine }));
    assert!(!welcome(Limits { first_credit: 0, ..fine }));
    assert!(!welcome(Limits { first_credit: fine.first_credit + 1, ..fine }), "not for every stream");
    assert!(!welcome(Limits { window: 100, ..fine }));
    assert!(!welcome(Limits { window_max: fine.budget + 1, ..fine }));
    assert!(!welcome(Limits { budget: 1 << 31, window_max: 1 << 20, ..fine }));
}

#[test]
fn both_sides_speak_the_newest_version_that_they_share() {
    let hello = |version_min, version_max| Hello {
        version_min,
        version_max,
        features: 0,
        boot: [0; 16],
        place: 0,
        party: Party::Agent,
        release: "",
    };
    assert_eq!(hello(1, 2).version(1..=2), Some(2));
    assert_eq!(hello(1, 1).version(1..=2), Some(1));
    assert_eq!(hello(2, 5).version(1..=2), Some(2));
    assert_eq!(hello(3, 5).version(1..=2), None);
    assert_eq!(hello(1, 1).version(2..=3), None);
}
