//! Who gets which trunk, decided without a socket.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tieline_base::{Clock, Moment};
use tieline_transport::{Io, Stream};
use tokio::io::{DuplexStream, duplex};

use super::line::{Kept, Line, Next};
use super::{NoRoom, Trunk};
use crate::endpoint::Endpoint;
use crate::idle::Making;
use crate::settings::{EndpointSettings, Settings};
use crate::upstream::Upstream;

/// A trunk whose peer does as the test says.
#[derive(Debug, Default)]
struct Fake {
    room: AtomicUsize,
    carried: AtomicUsize,
    over: AtomicBool,
    heard: AtomicU64,
    owes: AtomicBool,
    asked: AtomicUsize,
    cut: AtomicBool,
}

impl Trunk for Fake {
    fn open(&self) -> Option<Io> {
        let has_room = !self.is_over() && self.carried() < self.room.load(Ordering::Relaxed);
        has_room.then(|| {
            self.carried.fetch_add(1, Ordering::Relaxed);
            Io::Stream(Box::new(Part(duplex(1).0)))
        })
    }

    fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn heard(&self) -> Moment {
        Moment(self.heard.load(Ordering::Relaxed))
    }

    fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.owes.store(true, Ordering::Relaxed);
    }

    fn owes_answer(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

impl Fake {
    fn hear(&self, now: Moment) {
        self.heard.store(now.0, Ordering::Relaxed);
        self.owes.store(false, Ordering::Relaxed);
    }
}

/// A conversation that goes nowhere.
#[derive(Debug)]
struct Part(DuplexStream);

impl tokio::io::AsyncRead for Part {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Part {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

impl Stream for Part {
    fn abort_on_close(&self) {}

    fn poll_broken(&self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Error> {
        std::task::Poll::Pending
    }
}

const IDLE: Duration = Duration::from_secs(60);
const AGE: Duration = Duration::from_secs(3600);

struct Scene {
    line: Line,
    settings: Settings,
    endpoint: Arc<Endpoint>,
    now: Moment,
}

impl Scene {
    fn new() -> Scene {
        let settings = Settings::new("db", vec![EndpointSettings::new("127.0.0.1:1".parse().unwrap())]);
        let upstream = Upstream::new(settings.clone(), Arc::new(|_| ()));
        let endpoint = upstream.endpoints()[0].clone();
        Scene { line: Line::default(), settings, endpoint, now: Clock::now() }
    }

    fn add(&mut self, room: usize) -> Arc<Fake> {
        let trunk = Arc::new(Fake { room: room.into(), heard: self.now.0.into(), ..Fake::default() });
        self.line.trunks.push(Kept {
            trunk: trunk.clone(),
            endpoint: self.endpoint.clone(),
            making: Making { born: self.now, tls: None, kept: None },
            idle: IDLE,
            aged_at: self.now.after(AGE),
            used: self.now,
            asked: None,
        });
        trunk
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// What a lease does that begins now, in a word.
    fn next(&mut self, in_turn: bool) -> &'static str {
        let failures = self.line.failures;
        match self.line.next(&self.settings, failures, in_turn, self.now) {
            Next::Take(..) => "take",
            Next::Fail(error) => match NoRoom::of(&error) {
                Some(NoRoom::InLine) => "full",
                _ => "fail",
            },
            Next::Dial => "dial",
            Next::Follow => "follow",
            Next::Prove(_) => "prove",
            Next::Crowd => "crowd",
        }
    }
}

#[test]
fn the_first_trunk_with_room_is_taken_and_then_another_is_dialed() {
    let mut scene = Scene::new();
    assert_eq!(scene.next(false), "dial");
    let (first, second) = (scene.add(2), scene.add(1));
    for carried in [(1, 0), (2, 0), (2, 1)] {
        assert_eq!(scene.next(false), "take");
        assert_eq!((first.carried(), second.carried()), carried);
    }
    assert_eq!(scene.next(false), "dial");
}

#[test]
fn who_dials_is_followed_by_as_many_as_will_find_room() {
    let mut scene = Scene::new();
    scene.line.dialing = 1;
    scene.line.followers = 99;
    assert_eq!(scene.next(false), "follow");
    scene.line.followers = 100;
    assert_eq!(scene.next(false), "dial");
    scene.line.dialing = 2;
    assert_eq!(scene.next(false), "follow");
}

#[test]
fn a_dial_that_fails_fails_those_who_followed_it() {
    let mut scene = Scene::new();
    let before = scene.line.failures;
    scene.line.failures += 1;
    scene.line.failure = Some((std::io::ErrorKind::ConnectionRefused, "refused".into()));
    let Next::Fail(error) = scene.line.next(&scene.settings, before, false, scene.now) else {
        panic!("what it waited for failed");
    };
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (std::io::ErrorKind::ConnectionRefused, "refused")
    );
    assert_eq!(scene.next(false), "dial", "who comes later tries anew");
}

#[test]
fn where_no_more_may_be_dialed_who_waits_comes_before_who_comes() {
    let mut scene = Scene::new();
    let trunks: Vec<_> = (0..64).map(|_| scene.add(1)).collect();
    for _ in 0..64 {
        assert_eq!(scene.next(false), "take");
    }
    assert_eq!(scene.next(false), "crowd");
    scene.line.crowd = 1;
    trunks[7].carried.store(0, Ordering::Relaxed);
    assert_eq!(scene.next(false), "crowd", "the room is for who waits already");
    assert_eq!(scene.next(true), "take");
    scene.settings.pool.queue = 1;
    assert_eq!(scene.next(false), "full");
}

#[test]
fn after_a_silence_the_peer_is_asked_and_believed_when_it_answers() {
    let mut scene = Scene::new();
    let trunk = scene.add(10);
    scene.pass(Duration::from_secs(6));
    assert_eq!((scene.next(false), scene.next(false)), ("prove", "prove"));
    assert_eq!(trunk.asked.load(Ordering::Relaxed), 1, "asked once for all who wait");
    trunk.hear(scene.now);
    assert_eq!(scene.next(false), "take");
    // One that owes its answer for too long is passed over, and cut in the end.
    scene.pass(Duration::from_secs(6));
    assert_eq!(scene.next(false), "prove");
    scene.pass(Duration::from_secs(3));
    assert_eq!(scene.next(false), "dial");
    scene.pass(Duration::from_secs(3));
    scene.line.tidy(scene.now);
    assert!(trunk.cut.load(Ordering::Relaxed) && scene.line.trunks.is_empty());
}

#[test]
fn a_peer_that_is_waited_for_is_asked_and_seldom_again() {
    let mut scene = Scene::new();
    let trunk = scene.add(10);
    assert_eq!(scene.next(false), "take");
    let mut asked_at = Vec::new();
    for second in 0..1000 {
        scene.pass(Duration::from_secs(1));
        scene.line.tidy(scene.now);
        if trunk.owes_answer() {
            asked_at.push(second);
            trunk.hear(scene.now);
        }
    }
    // gRPC's servers take it for an attack more often than every five minutes.
    assert!(asked_at.len() <= 4 && asked_at.windows(2).all(|pair| pair[1] - pair[0] > 300), "{asked_at:?}");
    assert!(!asked_at.is_empty() && !trunk.cut.load(Ordering::Relaxed));
}

#[test]
fn what_rests_too_long_is_too_old_or_has_no_endpoint_is_closed() {
    let mut scene = Scene::new();
    scene.add(1);
    scene.pass(IDLE / 2);
    scene.line.tidy(scene.now);
    assert_eq!(scene.line.trunks.len(), 1);
    scene.pass(IDLE);
    scene.line.tidy(scene.now);
    assert!(scene.line.is_unused());
    let busy = scene.add(2);
    busy.carried.store(1, Ordering::Relaxed);
    scene.pass(AGE);
    busy.hear(scene.now);
    assert_eq!(scene.next(false), "dial", "too old to be lent");
    scene.line.tidy(scene.now);
    assert_eq!(scene.line.trunks.len(), 1, "what it carries goes on");
    busy.carried.store(0, Ordering::Relaxed);
    scene.line.tidy(scene.now);
    assert!(scene.line.is_unused());
    scene.add(1);
    scene.endpoint.set_drained(true, scene.now);
    scene.line.tidy(scene.now);
    assert!(scene.line.is_unused());
}

proptest! {
    #[test]
    fn no_trunk_ever_carries_more_than_it_has_room_for_nor_takes_more_behind_its_end(
        rooms in prop::collection::vec(0usize..5, 1..6),
        steps in prop::collection::vec((0usize..6, 0u8..4), 1..200),
    ) {
        let mut scene = Scene::new();
        scene.endpoint.obey(&EndpointSettings {
            cap: NonZeroU32::new(1_000),
            ..EndpointSettings::new("127.0.0.1:1".parse().unwrap())
        });
        let trunks: Vec<_> = rooms.iter().map(|room| scene.add(*room)).collect();
        let mut over = vec![None; trunks.len()];
        for (at, step) in steps {
            let at = at % trunks.len();
            match step {
                0 => {
                    trunks[at].over.store(true, Ordering::Relaxed);
                    over[at].get_or_insert(trunks[at].carried());
                }
                1 if trunks[at].carried() > 0 => {
                    trunks[at].carried.fetch_sub(1, Ordering::Relaxed);
                }
                _ => {
                    let has_room = |trunk: &Arc<Fake>| {
                        !trunk.is_over() && trunk.carried() < trunk.room.load(Ordering::Relaxed)
                    };
                    let expected = if trunks.iter().any(has_room) { "take" } else { "dial" };
                    prop_assert_eq!(scene.next(false), expected);
                }
            }
            for (trunk, over) in trunks.iter().zip(&over) {
                prop_assert!(trunk.carried() <= trunk.room.load(Ordering::Relaxed));
                prop_assert!(over.is_none_or(|over| trunk.carried() <= over));
            }
        }
    }
}
