//! A path in virtual time: a queue before a line, a delay, and packets that are lost by chance.

use std::collections::VecDeque;

use super::*;

const PACKET: u64 = 1_400;

struct Line {
    now: Instant,
    /// Bytes a second.
    rate: u64,
    /// Of a round trip without a queue.
    delay: Duration,
    /// The most that waits before the line, in bytes.
    queue: u64,
    lost_per_mille: u64,
    /// The most by which what comes back is late; what is behind it is, too.
    jitter_ms: u64,
    /// When the line has sent all that waits.
    free: Instant,
    estimate: Estimate,
    under_way: VecDeque<Packet>,
    random: fastrand::Rng,
    delivered: u64,
    /// The longest round trip since it was last asked.
    longest: Duration,
}

struct Packet {
    sent: Instant,
    back: Instant,
    lost: bool,
}

impl Line {
    fn new(rate: u64, delay_ms: u64, queue: u64, lost_per_mille: u64) -> Self {
        // The start of time does not matter.
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        Self {
            now,
            rate,
            delay: Duration::from_millis(delay_ms),
            queue,
            lost_per_mille,
            jitter_ms: 0,
            free: now,
            estimate: Estimate::new(now, PACKET),
            under_way: VecDeque::new(),
            random: fastrand::Rng::with_seed(7),
            delivered: 0,
            longest: Duration::ZERO,
        }
    }

    /// Sends as much as it may for so long, and says at how many bytes a second it was delivered.
    fn run(&mut self, seconds: u64) -> u64 {
        let (until, before) = (self.now + Duration::from_secs(seconds), self.delivered);
        self.longest = Duration::ZERO;
        while self.now < until {
            while (self.under_way.len() as u64 + 1) * PACKET <= self.estimate.may() {
                self.send();
            }
            self.hear();
        }
        (self.delivered - before) / seconds
    }

    fn send(&mut self) {
        self.estimate.sent(self.now);
        let waits = self.free.saturating_duration_since(self.now);
        let full = waits.as_secs_f64() * self.rate as f64 > self.queue as f64;
        let lost = full || self.random.u64(..1000) < self.lost_per_mille;
        if !full {
            let takes = Duration::from_secs_f64(PACKET as f64 / self.rate as f64);
            self.free = self.now + waits + takes;
        }
        let late = Duration::from_millis(self.random.u64(..=self.jitter_ms));
        let back = self.free.max(self.now) + self.delay + late;
        let back = self.under_way.back().map_or(back, |last| last.back.max(back));
        self.under_way.push_back(Packet { sent: self.now, back, lost });
    }

    /// What comes back next: that a packet has arrived, or, as later ones have, that it has not.
    fn hear(&mut self) {
        let packet = self.under_way.pop_front().expect("something may always be under way");
        self.now = self.now.max(packet.back);
        if packet.lost {
            self.estimate.lost(self.now, PACKET, false);
            return;
        }
        self.delivered += PACKET;
        self.longest = self.longest.max(self.now - packet.sent);
        self.estimate.acked(self.now, packet.sent, PACKET, false);
        self.estimate.acks_end(self.now, self.under_way.len() as u64 * PACKET);
    }
}

const MB: u64 = 1_000_000;

#[test]
fn a_path_that_loses_packets_by_chance_is_filled() {
    for lost in [0, 10, 30, 50] {
        let mut line = Line::new(5 * MB, 100, MB, lost);
        line.run(3);
        let rate = line.run(20);
        assert!(rate > 5 * MB * 85 / 100, "{lost} ‰ lost: {rate}");
    }
}

#[test]
fn it_is_filled_within_some_round_trips() {
    let mut line = Line::new(5 * MB, 100, MB, 10);
    assert!(line.run(2) > 5 * MB / 2);
}

#[test]
fn no_long_queue_is_left_standing() {
    let mut line = Line::new(5 * MB, 100, 10 * MB, 0);
    line.run(5);
    line.run(25);
    assert!(line.longest < Duration::from_millis(320), "{:?}", line.longest);
}

#[test]
fn a_path_that_becomes_slower_or_faster_is_followed() {
    let mut line = Line::new(5 * MB, 50, MB, 10);
    line.run(5);
    line.rate = MB;
    line.run(10);
    assert!(line.run(5) > MB * 85 / 100);
    assert!(line.estimate.may() < MB / 4, "{}", line.estimate.may());
    line.rate = 10 * MB;
    line.run(10);
    assert!(line.run(5) > 10 * MB * 85 / 100);
}

#[test]
fn a_path_that_answers_late_is_not_given_up() {
    let mut line = Line::new(5 * MB, 100, 10 * MB, 10);
    line.jitter_ms = 150;
    line.run(5);
    let rate = line.run(30);
    assert!(rate > 5 * MB / 2, "{rate}");
}

#[test]
fn a_longer_path_is_found_out() {
    let mut line = Line::new(5 * MB, 20, MB, 0);
    line.run(5);
    line.delay = Duration::from_millis(200);
    line.run(25);
    assert!(line.run(5) > 5 * MB * 80 / 100);
}

#[test]
fn one_that_was_next_door_and_is_far_away_now_is_found_out_soon() {
    let mut line = Line::new(5 * MB, 0, MB, 10);
    line.run(3);
    line.delay = Duration::from_millis(100);
    line.run(3);
    let rate = line.run(4);
    assert!(rate > 5 * MB * 80 / 100, "{rate}");
}

#[test]
fn where_the_queue_is_short_little_is_lost() {
    let mut line = Line::new(5 * MB, 50, 5 * MB / 100, 0);
    line.run(5);
    let before = line.now;
    let mut lost = 0;
    while line.now < before + Duration::from_secs(5) {
        while (line.under_way.len() as u64 + 1) * PACKET <= line.estimate.may() {
            line.send();
        }
        lost += u64::from(line.under_way[0].lost);
        line.hear();
    }
    assert!(lost * PACKET < 5 * 5 * MB / 4, "{lost}");
}

#[test]
fn after_a_silence_of_the_path_it_begins_anew() {
    let mut line = Line::new(5 * MB, 50, MB, 0);
    line.run(5);
    line.estimate.lost(line.now, PACKET, true);
    assert_eq!(line.estimate.may(), LEAST * PACKET);
    assert!(line.run(3) > 5 * MB / 2);
}

#[test]
fn who_has_little_to_say_does_not_pass_for_a_slow_path() {
    let mut line = Line::new(5 * MB, 50, MB, 0);
    line.run(5);
    let before = line.estimate.may();
    for _ in 0..100 {
        line.under_way.clear();
        line.now += Duration::from_secs(1);
        line.estimate.idle = true;
        line.estimate.sent(line.now);
        line.now += Duration::from_millis(50);
        line.estimate.acked(line.now, line.now - Duration::from_millis(50), PACKET, true);
        line.estimate.acks_end(line.now, 0);
    }
    assert!(line.estimate.window * 2 > before, "{} of {before}", line.estimate.window);
}
