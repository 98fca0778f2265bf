//! The two ends, the network between them, the clock and the script.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use tieline_base::Moment;

use super::apps::{App, Fate};
use super::end::End;
use super::network::{CONTROL, Kind, LOOSE, Network};
use crate::Parsed;
use crate::tunnel::tests::hashing::{Sha, key};
use crate::tunnel::{
    Chunk, Code, Event, Exporter, Frame, HOLD_MAX, Limits, Link, LinkId, Patience, Request, ResumeError,
    SETTLE_MAX, Side, StreamId, parse,
};

const DIALER: usize = 0;
const ACCEPTOR: usize = 1;

/// Longer than anything may take: black holes of 90 s, some of them in a row.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A carrier that has not answered for so long is given up for another.
const ATTEMPT: Duration = Duration::from_secs(2);

pub(super) struct World {
    now: Moment,
    random: Rng,
    network: Network,
    ends: [End; 2],
    coming: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    whats: Vec<Option<What>>,
    to_open: usize,
    /// Every RESUME that was ever sent.
    recorded: Vec<Vec<u8>>,
    faults_end: Moment,
    seen: Seen,
    failures: u32,
    /// The last planned move whose old carrier was empty.
    planned: Option<Planned>,
}

/// A move that must repeat nothing, if it is made in time.
struct Planned {
    /// The carrier that is moved to.
    carrier: usize,
    until: Moment,
}

#[derive(Debug)]
enum What {
    Bytes {
        carrier: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Chunk {
        carrier: usize,
        to: usize,
        chunk: Chunk,
    },
    Datagram {
        carrier: usize,
        to: usize,
        frame: Vec<u8>,
    },
    /// An end notices that a carrier is gone.
    Gone {
        carrier: usize,
        end: usize,
    },
    Wake {
        end: usize,
    },
    Tick {
        end: usize,
        stream: StreamId,
    },
    Open,
    /// Somebody has agreed to a stream that was offered.
    Agree {
        end: usize,
        stream: StreamId,
    },
    Fault,
    Dial,
    Handshaken {
        carrier: usize,
    },
    Late {
        carrier: usize,
    },
    /// The dialer asks over a carrier once the one in use is empty, or by then.
    Ask {
        carrier: usize,
        by: Moment,
    },
    /// An end has memory again.
    Plenty {
        end: usize,
    },
}

/// What a run has been through.
#[derive(Default, Debug)]
pub(super) struct Seen {
    resumes: u64,
    replayed: u64,
    /// Moves that had to repeat nothing.
    planned: u64,
    doubts: u64,
    stale: u64,
    attacks: u64,
    closed: u64,
    reset: u64,
    refused: u64,
    waits: u64,
    datagrams: u64,
    lost: u64,
    bytes: u64,
    seconds: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Seen) {
        self.resumes += other.resumes;
        self.replayed += other.replayed;
        self.planned += other.planned;
        self.doubts += other.doubts;
        self.stale += other.stale;
        self.attacks += other.attacks;
        self.closed += other.closed;
        self.reset += other.reset;
        self.refused += other.refused;
        self.waits += other.waits;
        self.datagrams += other.datagrams;
        self.lost += other.lost;
        self.bytes += other.bytes;
        self.seconds += other.seconds;
    }

    /// Panics unless `seeds` runs together have met everything, and often.
    pub(super) fn assert_hard(&self, seeds: u64) {
        assert!(self.resumes > 2 * seeds, "{self:?}");
        assert!(self.replayed > 1000 * seeds, "{self:?}");
        assert!(self.closed > seeds && self.bytes > 20_000 * seeds, "{self:?}");
        assert!(self.datagrams > 5 * seeds && self.lost > seeds, "{self:?}");
        let seen =
            [self.planned, self.doubts, self.stale, self.attacks, self.reset, self.refused, self.waits];
        for met in seen {
            assert!(met > seeds / 10, "{self:?}");
        }
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let network = Network::new(&mut random);
        let tight = Limits {
            streams: 12,
            budget: 256 << 10,
            first_credit: 4 << 10,
            window: 8 << 10,
            window_max: 64 << 10,
        };
        let limits = if random.bool() { tight } else { Limits::DEFAULT };
        let link = |side| {
            let heartbeat = Duration::from_secs(15);
            End::new(Link::new(LinkId([7; 16]), side, limits, key(1), heartbeat, Moment(0)))
        };
        let mut world = World {
            now: Moment(0),
            ends: [link(Side::Dialer), link(Side::Acceptor)],
            to_open: random.usize(1..8),
            faults_end: Moment(0).after(Duration::from_secs(random.u64(5..40))),
            random,
            network,
            coming: BinaryHeap::new(),
            whats: Vec::new(),
            recorded: Vec::new(),
            seen: Seen::default(),
            failures: 0,
            planned: None,
        };
        let first = world.network.carrier(&mut world.random);
        world.ends.iter_mut().for_each(|end| end.attach(first));
        world.soon(0..100, What::Open);
        world.soon(500..4000, What::Fault);
        world
    }

    pub(super) fn run(mut self) -> Self {
        while let Some(Reverse((at, _, what))) = self.coming.pop() {
            if self.over() {
                break;
            }
            self.now = at;
            assert!(self.now < Moment(0).after(2 * PATIENCE), "a stream never ends: {:?}", self.left());
            if let Some(what) = self.whats[what].take() {
                self.happen(what);
            }
            self.ends.iter().for_each(|end| end.link.audit());
        }
        self
    }

    /// The streams that each end still has.
    fn left(&self) -> [Vec<StreamId>; 2] {
        self.ends.each_ref().map(|end| end.link.streams().collect())
    }

    /// Whether all streams were opened, and have ended at both ends.
    fn over(&self) -> bool {
        self.to_open == 0 && self.ends.iter().all(|end| end.link.streams().next().is_none())
    }

    fn soon(&mut self, ms: std::ops::Range<u64>, what: What) {
        let wait = Duration::from_micros(self.random.u64(ms.start * 1000..ms.end * 1000));
        self.at(self.now.after(wait), what);
    }

    fn at(&mut self, at: Moment, what: What) {
        let number = self.whats.len();
        self.whats.push(Some(what));
        self.coming.push(Reverse((at, number as u64, number)));
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Bytes { carrier, to, bytes } if !self.network.carriers[carrier].cut => {
                if let Some(first) = self.ends[to].bytes_came(carrier, &bytes, self.now) {
                    self.first_frame(carrier, to, &first);
                }
                self.pump(to);
            }
            What::Chunk { carrier, to, chunk } if !self.network.carriers[carrier].cut => {
                self.ends[to].chunk_came(carrier, chunk, self.now);
                self.pump(to);
            }
            What::Datagram { carrier, to, frame } if !self.network.carriers[carrier].cut => {
                self.ends[to].datagram_came(carrier, &frame, self.now);
                self.pump(to);
            }
            What::Bytes { .. } | What::Chunk { .. } | What::Datagram { .. } => {}
            What::Gone { carrier, end } => self.gone(carrier, end),
            What::Wake { end } => {
                self.ends[end].wakes = Moment(u64::MAX);
                self.ends[end].link.on_time(self.now);
                self.pump(end);
            }
            What::Tick { end, stream } => self.tick(end, stream),
            What::Agree { end, stream } => {
                self.ends[end].link.accept(stream);
                self.soon(0..50, What::Tick { end, stream });
                self.pump(end);
            }
            What::Open => self.open(),
            What::Fault => self.fault(),
            What::Dial => self.dial(),
            What::Plenty { end } => {
                self.ends[end].link.set_short(false, self.now);
                self.pump(end);
            }
            What::Handshaken { carrier } => self.handshaken(carrier),
            What::Ask { carrier, by } => self.ask_once_empty(carrier, by),
            What::Late { carrier } => {
                if self.ends[DIALER].attempt.as_ref().is_some_and(|(tried, _)| *tried == carrier) {
                    self.fail_attempt();
                }
            }
        }
    }

    /// Handles what the link of `end` reports, and gives its carrier what it has to say.
    fn pump(&mut self, end: usize) {
        self.take_events(end);
        if let Some(carrier) = self.ends[end].carrier {
            while self.network.has_room(carrier, end, self.now) && self.send(carrier, end) {}
            if self.ends[end].link.wants_to_send() {
                self.wake(end, self.network.free_at(carrier, end));
            }
        }
        // What was said last may have ended a stream.
        self.take_events(end);
        let deadline = self.ends[end].link.deadline();
        self.wake(end, deadline);
    }

    fn take_events(&mut self, end: usize) {
        while let Some(event) = self.ends[end].link.event() {
            self.on_event(end, event);
        }
    }

    fn wake(&mut self, end: usize, at: Moment) {
        let at = at.max(Moment(self.now.0 + 1));
        if at < self.ends[end].wakes {
            self.ends[end].wakes = at;
            self.at(at, What::Wake { end });
        }
    }

    /// Sends the next few frames; says whether there were any.
    fn send(&mut self, carrier: usize, end: usize) -> bool {
        let mut bytes = Vec::new();
        let link = &mut self.ends[end].link;
        if self.network.carriers[carrier].kind == Kind::Pipe {
            link.fill(&mut bytes, 8192, self.now);
        } else {
            while let Some(frame) = link.next_control(self.now) {
                frame.encode(&mut bytes);
            }
            if bytes.is_empty()
                && let Some(datagram) = link.next_datagram()
            {
                datagram.encode(&mut bytes);
                if datagram.known && bytes.len() < self.random.usize(..3_000) {
                    self.send_datagram(carrier, end, bytes);
                    return true;
                }
            }
            if bytes.is_empty() {
                let most = self.random.usize(1..40_000);
                let Some(chunk) = link.next_chunk(most, self.now) else { return false };
                self.send_chunk(carrier, end, chunk);
                return true;
            }
        }
        let some = !bytes.is_empty();
        self.send_bytes(carrier, end, bytes);
        some
    }

    /// Sends bytes in pieces of any length.
    fn send_bytes(&mut self, carrier: usize, from: usize, mut bytes: Vec<u8>) {
        while !bytes.is_empty() {
            let least = bytes.len().min(8);
            let most = if self.random.u8(..4) == 0 { least } else { bytes.len() };
            let rest = bytes.split_off(self.random.usize(1..=most));
            let arrival =
                self.network.arrival((carrier, from, CONTROL), bytes.len(), self.now, &mut self.random);
            self.at(arrival, What::Bytes { carrier, to: 1 - from, bytes });
            bytes = rest;
        }
    }

    fn send_chunk(&mut self, carrier: usize, from: usize, chunk: Chunk) {
        let Chunk { stream, offset, bytes, ends } = chunk;
        let cut = self.random.usize(..=bytes.len());
        let first = Chunk { stream, offset, bytes: bytes.slice(..cut), ends: false };
        let last = Chunk { stream, offset: offset + cut as u64, bytes: bytes.slice(cut..), ends };
        for chunk in [first, last] {
            let lane = (carrier, from, stream.0);
            let arrival = self.network.arrival(lane, chunk.bytes.len(), self.now, &mut self.random);
            self.at(arrival, What::Chunk { carrier, to: 1 - from, chunk });
        }
    }

    /// Sends one in a lane of its own: it may overtake anything, and be lost.
    fn send_datagram(&mut self, carrier: usize, from: usize, frame: Vec<u8>) {
        let lane = (carrier, from, LOOSE + self.whats.len() as u64);
        let arrival = self.network.arrival(lane, frame.len(), self.now, &mut self.random);
        if self.network.swallowed(from, self.now).is_none() && self.random.u8(..20) > 0 {
            self.at(arrival, What::Datagram { carrier, to: 1 - from, frame });
        }
    }

    /// The first frame over a carrier that does not carry the link: RESUME, or RESUMED.
    fn first_frame(&mut self, carrier: usize, to: usize, bytes: &[u8]) {
        let Ok(Parsed::Done { value, .. }) = parse(bytes) else { panic!("a whole frame") };
        let exporter = self.network.carriers[carrier].exporter;
        let (end, now) = (&mut self.ends[to], self.now);
        let goes_on = match value {
            Frame::Resume(resume) if to == ACCEPTOR => {
                let current = end.link.epoch();
                let mut answer = Vec::new();
                let attached = match end.link.judge(&Sha, exporter, resume) {
                    Ok(judged) => end.link.attach(&Sha, judged, now, &mut answer),
                    // A later one was faster, and the key has changed since.
                    Err(ResumeError::Unproved) if resume.epoch <= current => Err(ResumeError::Stale),
                    Err(error) => panic!("an honest dialer: {error}"),
                };
                self.send_bytes(carrier, to, answer);
                attached
            }
            Frame::Resumed(resumed) if to == DIALER => match end.attempt.take() {
                Some((tried, Some(offer))) if tried == carrier => {
                    end.link.resumed(&Sha, &offer, &resumed, now)
                }
                other => {
                    end.attempt = other;
                    Err(ResumeError::Stale)
                }
            },
            other => panic!("{other:?} begins a carrier"),
        };
        match goes_on {
            Ok(()) => {
                self.ends[to].attach(carrier);
                self.ends[to].take_frames(carrier, self.now);
                self.failures = 0;
            }
            Err(error) => {
                assert_eq!(error, ResumeError::Stale);
                self.seen.stale += 1;
                self.ends[to].inboxes.remove(&carrier);
            }
        }
    }

    fn on_event(&mut self, end: usize, event: Event) {
        match event {
            Event::Offered { stream, request } => self.offered(end, stream, &request),
            Event::Opened(_) | Event::Writable(_) => {}
            Event::Waits { text, .. } => {
                assert_eq!(&*text, "somebody");
                self.seen.waits += 1;
            }
            Event::Readable(stream) => self.read(end, stream),
            Event::Refused { stream, code, .. } => {
                assert!(matches!(code, Code::Denied | Code::Busy), "{code:?}");
                self.fate(end, stream, Fate::Refused);
            }
            Event::Closed(stream) => self.fate(end, stream, Fate::Closed),
            Event::Reset { stream, code } => self.fate(end, stream, Fate::Reset(code)),
            Event::Doubt => {
                self.seen.doubts += 1;
                if end == DIALER {
                    self.soon(0..1, What::Dial);
                }
            }
            Event::Resumed { replayed, .. } => self.resumed(end, replayed),
        }
    }

    fn resumed(&mut self, end: usize, replayed: u64) {
        self.seen.resumes += 1;
        self.seen.replayed += replayed;
        let (carrier, now) = (self.ends[end].carrier, self.now);
        let ours = |planned: &&Planned| carrier == Some(planned.carrier) && now < planned.until;
        if self.planned.as_ref().filter(ours).is_some() {
            assert_eq!(replayed, 0, "bytes go twice though the carrier before was empty");
            self.seen.planned += 1;
        }
    }

    fn fate(&mut self, end: usize, stream: StreamId, fate: Fate) {
        let app = self.ends[end].apps.get_mut(&stream).expect("every stream has an application");
        // Who gives up does not look whether the last word was on its way.
        if app.fate != Fate::GaveUp {
            assert_eq!(app.fate, Fate::Lives, "{stream} ends twice");
            app.fate = fate;
            app.at_end |= fate == Fate::Closed;
        }
    }

    fn open(&mut self) {
        let end = self.random.usize(..2);
        let request = Request {
            service: if self.random.u8(..10) == 0 { "forbidden".into() } else { "echo".into() },
            subject: "ana".into(),
            permit: self.random.u64(..1000),
            trace: self.random.u128(..).to_be_bytes(),
            why: if self.random.bool() { "a valve is stuck".into() } else { "".into() },
            flow: self.random.u8(..4) == 0,
        };
        let flow = request.flow;
        self.to_open -= 1;
        if let Ok(stream) = self.ends[end].link.open(request, self.now) {
            self.begin(end, stream, flow);
        }
        if self.to_open > 0 {
            self.soon(0..3000, What::Open);
        }
        self.pump(end);
    }

    fn offered(&mut self, end: usize, stream: StreamId, request: &Request) {
        if &*request.service == "forbidden" {
            self.seen.refused += 1;
            return self.ends[end].link.refuse(stream, Code::Denied, "not for you");
        }
        assert_eq!((&*request.service, &*request.subject), ("echo", "ana"));
        let once = !self.ends[end].apps.contains_key(&stream);
        assert!(once, "{stream} is offered twice");
        // Those who dial ask, and those who are dialed let them wait.
        if end == ACCEPTOR && self.random.u8(..4) == 0 {
            self.ends[end].link.wait(stream, "somebody");
            self.enlist(end, stream, request.flow);
            return self.soon(0..20_000, What::Agree { end, stream });
        }
        self.ends[end].link.accept(stream);
        self.begin(end, stream, request.flow);
    }

    fn begin(&mut self, end: usize, stream: StreamId, flow: bool) {
        self.enlist(end, stream, flow);
        self.soon(0..50, What::Tick { end, stream });
    }

    fn enlist(&mut self, end: usize, stream: StreamId, flow: bool) {
        let app = if flow { App::of_datagrams(&mut self.random) } else { App::new(&mut self.random) };
        self.ends[end].apps.insert(stream, app);
        self.ends[end].link.set_patience(stream, Patience { detached: PATIENCE, idle: None });
    }

    /// An application writes, and one that reads slowly reads.
    fn tick(&mut self, end: usize, stream: StreamId) {
        let (now, random) = (self.now, &mut self.random);
        let End { link, apps, .. } = &mut self.ends[end];
        let app = apps.get_mut(&stream).expect("it ticks");
        if app.fate != Fate::Lives {
            return;
        }
        if let Some(flow) = app.flow.as_mut().filter(|flow| flow.has_more()) {
            link.send_datagram(stream, &flow.next(end, stream, random), now);
        }
        let count = link.write(stream, app.next_write(random), now);
        app.wrote(count);
        if !app.has_more() && !std::mem::replace(&mut app.finished, true) {
            link.finish(stream);
        }
        let goes_on = !app.finished || !app.at_end;
        self.read(end, stream);
        if goes_on {
            self.soon(1..400, What::Tick { end, stream });
        }
        self.pump(end);
    }

    fn read(&mut self, end: usize, stream: StreamId) {
        let End { link, apps, .. } = &mut self.ends[end];
        // Of a stream that was refused a moment ago there may still be word.
        let Some(app) = apps.get_mut(&stream) else { return };
        let mut budget = app.reads.unwrap_or(usize::MAX);
        while budget > 0 && !link.readable(stream).is_empty() {
            let ready = link.readable(stream);
            let count = ready.len().min(budget);
            app.take(&ready[..count]);
            budget -= count;
            link.drain(stream, count, self.now);
        }
        while let (Some(flow), Some(datagram)) = (&mut app.flow, link.take_datagram(stream)) {
            flow.take(end, stream, &datagram);
        }
        app.at_end |= link.at_end(stream);
        if app.fate == Fate::Lives && app.gives_up_at.is_some_and(|at| app.received_bytes > at) {
            app.fate = Fate::GaveUp;
            link.reset(stream, Code::Aborted);
        }
    }

    fn fault(&mut self) {
        let current = self.ends[DIALER].carrier;
        match self.random.u8(..18) {
            0..=6 => current.into_iter().for_each(|carrier| self.cut(carrier, None)),
            7 => {
                let first = self.random.usize(..2);
                current.into_iter().for_each(|carrier| self.cut(carrier, Some(first)));
            }
            8..=9 => {
                let seconds = [3, 3, 3, 30, 90][self.random.usize(..5)];
                let from = [None, Some(DIALER), Some(ACCEPTOR)][self.random.usize(..3)];
                self.network.dig(from, self.now, Duration::from_secs(seconds));
            }
            10 => self.address_changes(),
            11 => {
                let end = self.random.usize(..2);
                let all: Vec<usize> = self.ends[end].inboxes.keys().copied().collect();
                all.into_iter().for_each(|carrier| self.cut(carrier, Some(end)));
            }
            12..=13 => self.attack(),
            14..=15 => {
                let end = self.random.usize(..2);
                self.ends[end].link.set_short(true, self.now);
                self.soon(500..10_000, What::Plenty { end });
            }
            _ => {
                self.soon(0..250, What::Dial);
            }
        }
        if self.now < self.faults_end {
            self.soon(1000..5000, What::Fault);
        }
    }

    /// All carriers of the dialer fall silent, it knows, and the network is fine.
    fn address_changes(&mut self) {
        let all: Vec<usize> = self.ends[DIALER].inboxes.keys().copied().collect();
        for carrier in all {
            self.network.carriers[carrier].cut = true;
            self.at(self.now, What::Gone { carrier, end: DIALER });
        }
    }

    /// Nothing arrives over a carrier any more: both ends notice soon, or only one does (`first`).
    fn cut(&mut self, carrier: usize, first: Option<usize>) {
        self.network.carriers[carrier].cut = true;
        for end in [DIALER, ACCEPTOR] {
            if first.is_none_or(|first| first == end) {
                self.soon(0..200, What::Gone { carrier, end });
            }
        }
    }

    /// Somebody replays a RESUME over a carrier of their own: it proves nothing there.
    fn attack(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let bytes = self.recorded[self.random.usize(..self.recorded.len())].clone();
        let Ok(Parsed::Done { value: Frame::Resume(resume), .. }) = parse(&bytes) else { panic!("recorded") };
        let mut exporter = [0; 32];
        self.random.fill(&mut exporter);
        let judged = self.ends[ACCEPTOR].link.judge(&Sha, Exporter(exporter), resume);
        assert_eq!(judged.err(), Some(ResumeError::Unproved));
        self.seen.attacks += 1;
    }

    fn gone(&mut self, carrier: usize, end: usize) {
        let Some(inbox) = self.ends[end].inboxes.remove(&carrier) else { return };
        if let Some(epoch) = inbox.epoch {
            self.ends[end].link.detach(epoch, self.now);
        }
        if self.ends[end].carrier == Some(carrier) {
            self.ends[end].carrier = None;
            if end == DIALER {
                self.soon(0..50, What::Dial);
            }
        }
        if end == DIALER && self.ends[end].attempt.as_ref().is_some_and(|(tried, _)| *tried == carrier) {
            self.fail_attempt();
        }
        self.pump(end);
    }

    fn dial(&mut self) {
        if self.ends[DIALER].attempt.is_some() {
            return;
        }
        let carrier = self.network.carrier(&mut self.random);
        self.ends[DIALER].attempt = Some((carrier, None));
        self.ends[DIALER].inboxes.insert(carrier, Default::default());
        self.ends[ACCEPTOR].inboxes.insert(carrier, Default::default());
        let patience = if self.random.u8(..4) == 0 { 3 * self.network.latency() } else { ATTEMPT };
        self.at(self.now.after(patience), What::Late { carrier });
        let lost = [DIALER, ACCEPTOR].iter().any(|end| self.network.swallowed(*end, self.now).is_some());
        if !lost {
            self.at(self.now.after(2 * self.network.latency()), What::Handshaken { carrier });
        }
    }

    fn handshaken(&mut self, carrier: usize) {
        if self.network.carriers[carrier].cut {
            return;
        }
        let by = self.ends[DIALER].link.prepare_move(self.now).unwrap_or(self.now);
        self.pump(DIALER);
        self.ask_once_empty(carrier, by);
    }

    fn ask_once_empty(&mut self, carrier: usize, by: Moment) {
        let exporter = self.network.carriers[carrier].exporter;
        let used = self.ends[DIALER].carrier;
        let End { link, attempt: Some((tried, offer @ None)), .. } = &mut self.ends[DIALER] else { return };
        if *tried != carrier {
            return;
        }
        let ready = link.attached() && link.may_move();
        if self.now < by && !link.may_move() {
            return self.soon(1..5, What::Ask { carrier, by });
        }
        // A lane of its own may be slower than the answer.
        let piped = used.is_some_and(|used| self.network.carriers[used].kind == Kind::Pipe);
        let until = Moment(0).after(by.since(Moment(0)) + HOLD_MAX - SETTLE_MAX);
        self.planned = (piped && ready && self.now < by).then_some(Planned { carrier, until });
        let mut resume = Vec::new();
        *offer = Some(link.resume(&Sha, exporter, &mut resume));
        self.recorded.push(resume.clone());
        if self.random.u8(..8) == 0 {
            // A carrier that sits on it: the next one may be faster.
            let stuck = self.now.after(Duration::from_millis(self.random.u64(1500..6000)));
            return self.at(stuck, What::Bytes { carrier, to: ACCEPTOR, bytes: resume });
        }
        self.send_bytes(carrier, DIALER, resume);
    }

    /// The carrier that was tried is given up: what it still brings is not read any more.
    fn fail_attempt(&mut self) {
        let Some((carrier, _)) = self.ends[DIALER].attempt.take() else { return };
        self.ends[DIALER].inboxes.remove(&carrier);
        self.soon(300..6000, What::Gone { carrier, end: ACCEPTOR });
        self.failures = (self.failures + 1).min(5);
        self.soon(0..100 << self.failures, What::Dial);
    }

    /// Panics unless both ends of every stream agree on it.
    pub(super) fn check(mut self) -> Seen {
        assert!(self.over(), "the script ended before the streams did");
        for end in &self.ends {
            assert_eq!((end.link.held(), end.link.promised()), (0, 0), "memory of streams that are no more");
        }
        let [dialer, acceptor] = &self.ends;
        for (stream, ours) in &dialer.apps {
            match acceptor.apps.get(stream) {
                Some(theirs) => self.seen.add(&agree(*stream, ours, theirs)),
                None => assert!(ours.never_began(), "{stream}: {:?}", ours.fate),
            }
        }
        for (stream, theirs) in acceptor.apps.iter().filter(|(stream, _)| !dialer.apps.contains_key(stream)) {
            assert!(theirs.never_began(), "{stream}: {:?}", theirs.fate);
        }
        self.seen.seconds = self.now.since(Moment(0)).as_secs();
        self.seen
    }
}

/// Panics unless both ends tell the same of a stream: all bytes both ways, or that it was broken off.
fn agree(stream: StreamId, ours: &App, theirs: &App) -> Seen {
    let mut seen = Seen::default();
    match (ours.fate, theirs.fate) {
        (Fate::Closed, Fate::Closed) => {
            for (from, to) in [(ours, theirs), (theirs, ours)] {
                assert!(from.finished && to.at_end, "{stream} was closed before its end");
                assert_eq!(from.sent_bytes, to.received_bytes, "{stream}");
                assert_eq!(from.hash_sent(), to.hash_received(), "{stream}");
                seen.bytes += to.received_bytes as u64;
                if let (Some(from), Some(to)) = (&from.flow, &to.flow) {
                    seen.datagrams += to.received();
                    seen.lost += from.sent - to.received();
                }
            }
            seen.closed += 1;
        }
        (Fate::GaveUp, Fate::GaveUp | Fate::Reset(Code::Aborted | Code::Lost)) => seen.reset += 1,
        (Fate::Reset(Code::Aborted | Code::Lost), Fate::GaveUp) => seen.reset += 1,
        // One gave up when the other had already seen all.
        (Fate::GaveUp, Fate::Closed) | (Fate::Closed, Fate::GaveUp) => seen.reset += 1,
        other => panic!("{stream}: {other:?}"),
    }
    seen
}
