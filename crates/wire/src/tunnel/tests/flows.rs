//! Flows: their datagrams beside the bytes of streams, and what bounds them.

use super::face_to_face::{Pair, SECOND, at, deliver, events, frames, request};
use crate::tunnel::*;

impl Pair {
    /// A flow that both agree on.
    fn flow(&mut self) -> StreamId {
        let flow = self.dialer.open(Request { flow: true, ..request("dns") }, self.now).unwrap();
        self.talk();
        self.acceptor.accept(flow);
        self.talk();
        events(&mut self.dialer);
        events(&mut self.acceptor);
        flow
    }
}

fn taken(link: &mut Link, flow: StreamId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.take_datagram(flow).map(Into::into)).collect()
}

#[test]
fn datagrams_go_both_ways_and_a_flow_ends_as_a_stream_does() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let flow = pair.dialer.open(Request { flow: true, ..request("dns") }, at(0)).unwrap();
    pair.dialer.send_datagram(flow, b"early", at(0));
    pair.talk();
    let offered = events(&mut pair.acceptor);
    assert!(
        matches!(&offered[..], [Event::Offered { request, .. }, Event::Readable(_)] if request.flow),
        "{offered:?}"
    );
    pair.acceptor.accept(flow);
    assert_eq!(taken(&mut pair.acceptor, flow), [b"early"]);
    for datagram in [&b""[..], b"one", &[7; DATAGRAM_MAX]] {
        pair.acceptor.send_datagram(flow, datagram, at(0));
        pair.talk();
        assert_eq!(taken(&mut pair.dialer, flow), [datagram]);
    }
    assert_eq!((pair.dialer.promised(), pair.acceptor.promised(), pair.dialer.flows()), (0, 0, 1));
    pair.dialer.finish(flow);
    pair.talk();
    assert!(pair.acceptor.at_end(flow));
    pair.acceptor.finish(flow);
    pair.talk();
    assert!(events(&mut pair.dialer).contains(&Event::Closed(flow)));
    assert_eq!((pair.dialer.flows(), pair.acceptor.flows()), (0, 0));
}

#[test]
fn a_flow_goes_on_after_a_cut_without_what_was_under_way() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let flow = pair.flow();
    pair.dialer.send_datagram(flow, b"under way", at(0));
    pair.lose();
    pair.dialer.send_datagram(flow, b"waits", at(0));
    pair.resume(5);
    pair.talk();
    pair.dialer.send_datagram(flow, b"next", at(0));
    pair.talk();
    assert_eq!(taken(&mut pair.acceptor, flow), [&b"waits"[..], b"next"]);
}

#[test]
fn streams_and_flows_take_turns() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let (stream, flow, other) = (pair.open(), pair.flow(), pair.flow());
    let bulk = vec![1; 48 << 10];
    assert_eq!(pair.dialer.write(stream, &bulk, at(0)), bulk.len());
    for _ in 0..60 {
        pair.dialer.send_datagram(flow, &[2; 1_000], at(0));
    }
    pair.dialer.send_datagram(other, b"small", at(0));
    let mut first = Vec::new();
    pair.dialer.fill(&mut first, 40 << 10, at(0));
    let (mut bytes, mut datagrams, mut small) = (0, 0, false);
    for frame in frames(&first) {
        match frame {
            Frame::Data { bytes: some, .. } => bytes += some.len(),
            Frame::Udp { bytes: some, .. } => {
                small |= some == b"small";
                datagrams += some.len();
            }
            _ => {}
        }
    }
    assert!(bytes >= DATA_MAX && datagrams >= DATA_MAX, "{bytes} beside {datagrams}");
    assert!(small, "a flow waits for no more than a turn of another");
}

#[test]
fn what_can_go_beside_the_pipe_does() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let flow = pair.flow();
    let early = pair.dialer.open(Request { flow: true, ..request("dns") }, at(0)).unwrap();
    pair.dialer.send_datagram(flow, &[1; 100], at(0));
    pair.dialer.send_datagram(flow, &[2; 2_000], at(0));
    pair.dialer.send_datagram(early, b"behind its opening", at(0));
    let (mut pipe, mut beside) = (Vec::new(), Vec::new());
    pair.dialer.fill_beside(&mut pipe, 1 << 16, at(0), &mut |datagram| {
        let fits = datagram.known && datagram.bytes.len() < 1_200;
        let (aside, rest) = if fits { (Some(datagram), None) } else { (None, Some(datagram)) };
        beside.extend(aside);
        rest
    });
    assert_eq!(beside.iter().map(|datagram| datagram.bytes.len()).collect::<Vec<_>>(), [100]);
    let piped = frames(&pipe);
    assert!(
        matches!(&piped[..], [Frame::Open(_), Frame::Udp { .. }, Frame::Udp { .. }]),
        "what asks for a flow is not overtaken: {piped:?}"
    );
}

#[test]
fn what_waits_is_bounded_and_who_has_most_waiting_pays() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let flows: Vec<StreamId> = (0..100).map(|_| pair.flow()).collect();
    let small = pair.flow();
    pair.dialer.send_datagram(small, b"small", at(0));
    for flow in flows.iter().cycle().take(10_000) {
        pair.dialer.send_datagram(*flow, &[1; 1_400], at(0));
    }
    pair.dialer.audit();
    assert!(pair.dialer.held() <= 2 << 20 && flows.iter().all(|flow| pair.dialer.dropped(*flow) > 0));
    assert_eq!(pair.dialer.dropped(small), 0);
    while deliver(&mut pair.dialer, &mut pair.acceptor, at(0)) {
        pair.acceptor.audit();
    }
    assert_eq!(taken(&mut pair.acceptor, small), [b"small"]);
    assert!(pair.acceptor.held() <= 2 << 20, "nobody reads it");
    flows.iter().for_each(|flow| pair.acceptor.reset(*flow, Code::Aborted));
    assert_eq!(pair.acceptor.held(), 0);
}

#[test]
fn half_of_the_streams_may_be_flows() {
    let limits = Limits { streams: 8, ..Limits::DEFAULT };
    let mut pair = Pair::new(limits);
    for _ in 0..4 {
        pair.flow();
    }
    let one_more = Request { flow: true, ..request("dns") };
    assert_eq!(pair.dialer.open(one_more, at(0)), Err(Code::Busy));
    pair.open();
    // Who does not count is told.
    let open = Open { stream: StreamId(1 << 20), ..request_of("dns") };
    pair.acceptor.receive(Epoch::FIRST, Frame::Open(open), at(0)).unwrap();
    let mut said = Vec::new();
    pair.acceptor.fill(&mut said, 1 << 16, at(0));
    assert!(matches!(&frames(&said)[..], [Frame::OpenRefused { code: Code::Busy, .. }]));
}

fn request_of(service: &str) -> Open<'_> {
    Open { stream: StreamId(2), service, subject: "", permit: 0, trace: [0; 16], why: "", flow: true }
}

#[test]
fn bytes_are_no_flows_and_datagrams_no_streams() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let (stream, flow) = (pair.open(), pair.flow());
    assert_eq!(pair.dialer.write(flow, b"bytes", at(0)), 0);
    let data = Frame::Data { stream: flow, offset: 0, bytes: b"x" };
    assert_eq!(pair.acceptor.receive(Epoch::FIRST, data, at(0)), Err(LinkError::Breach(Breach::Credit)));
    let datagram = Frame::Udp { flow: stream, bytes: b"x" };
    let breach = Err(LinkError::Breach(Breach::Misplaced));
    assert_eq!(pair.acceptor.receive(Epoch::FIRST, datagram, at(0)), breach);
    // One that was under way when its flow ended, or overtook what asks for it, means nothing.
    for unknown in [StreamId(1_000), StreamId(1_001)] {
        let datagram = Frame::Udp { flow: unknown, bytes: b"x" };
        assert_eq!(pair.acceptor.receive(Epoch::FIRST, datagram, at(0)), Ok(None));
    }
}

#[test]
fn short_of_memory_datagrams_are_dropped_and_counted() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let flow = pair.flow();
    pair.acceptor.set_short(true, at(0));
    pair.dialer.send_datagram(flow, b"one", at(0));
    pair.talk();
    assert_eq!((taken(&mut pair.acceptor, flow).len(), pair.acceptor.dropped(flow)), (0, 1));
    pair.acceptor.set_short(false, at(0));
    pair.dialer.send_datagram(flow, b"two", at(0));
    pair.talk();
    assert_eq!(taken(&mut pair.acceptor, flow), [b"two"]);
}

#[test]
fn a_flow_that_is_silent_for_too_long_ends() {
    let mut pair = Pair::new(Limits::DEFAULT);
    let flow = pair.flow();
    let patience = Patience { detached: 30 * SECOND, idle: Some(30 * SECOND) };
    pair.acceptor.set_patience(flow, patience);
    pair.acceptor.on_time(at(0));
    pair.later(29_000);
    pair.dialer.send_datagram(flow, b"alive", pair.now);
    pair.talk();
    pair.later(29_000);
    assert_eq!(pair.acceptor.flows(), 1);
    pair.later(1_000);
    let idle = Event::Reset { stream: flow, code: Code::Idle };
    assert!(events(&mut pair.acceptor).contains(&idle) && events(&mut pair.dialer).contains(&idle));
}
