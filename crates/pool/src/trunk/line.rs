//! A worker's trunks to one endpoint, and who waits for one: decided here, without waiting.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::Moment;
use tieline_transport::Io;
use tokio::sync::Notify;

use super::{NoRoom, Trunk};
use crate::endpoint::Endpoint;
use crate::idle::Making;
use crate::settings::Settings;

/// Trunks to one endpoint that a worker has at most.
const TRUNKS_MAX: usize = 64;

/// How many conversations a trunk is expected to have room for before its endpoint has said so: RFC 9113
/// §6.5.2 recommends no fewer.
const ROOM_EXPECTED: usize = 100;

/// After so much silence a peer must show that it is there, before its trunk is lent and while it is waited
/// for.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a lease waits for that before it looks elsewhere.
const PROOF_WITHIN: Duration = Duration::from_secs(2);

/// A peer that does not answer for so long, while it is waited for, is gone.
const SIGN_WITHIN: Duration = Duration::from_secs(5);

/// A peer that shows that it is there and says nothing else is asked again after so long: the servers of
/// gRPC close connections on which they are asked more often.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(310);

#[derive(Default)]
pub(super) struct Line {
    pub(super) trunks: Vec<Kept>,
    /// How many more are being dialed.
    pub(super) dialing: usize,
    /// How many leases wait for those.
    pub(super) followers: usize,
    /// How many leases wait for room, where no more trunks may be dialed.
    pub(super) crowd: usize,
    pub(super) changed: Arc<Notify>,
    /// How many dials have failed, and how the last one did.
    pub(super) failures: u64,
    pub(super) failure: Option<(io::ErrorKind, String)>,
}

/// A trunk and what is known of it.
pub(super) struct Kept {
    pub(super) trunk: Arc<dyn Trunk>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) making: Making,
    pub(super) idle: Duration,
    /// When it is lent no more.
    pub(super) aged_at: Moment,
    /// When it was used last, as far as is known.
    pub(super) used: Moment,
    /// When its peer was asked last whether it is there.
    pub(super) asked: Option<Moment>,
}

/// What a lease does next.
pub(super) enum Next {
    /// It has its conversation.
    Take(Io, Making),
    /// What it waited for failed.
    Fail(io::Error),
    /// It dials.
    Dial,
    /// It waits for those who dial already.
    Follow,
    /// It waits until the peer of a trunk shows that it is there, for so long.
    Prove(Duration),
    /// It waits for room.
    Crowd,
}

impl Line {
    pub(super) fn take(&mut self, settings: &Settings, now: Moment) -> Option<(Io, Making)> {
        // Those who wait for room come first.
        if self.crowd > 0 { None } else { self.open(settings, now) }
    }

    fn open(&mut self, settings: &Settings, now: Moment) -> Option<(Io, Making)> {
        self.trunks.iter_mut().filter(|kept| kept.is_fit(settings, now) && !kept.is_silent(now)).find_map(
            |kept| {
                let io = kept.trunk.open()?;
                kept.used = now;
                Some((io, kept.making.clone()))
            },
        )
    }

    /// What a lease does that began when so many dials had failed. `in_turn`: it has waited for room.
    pub(super) fn next(&mut self, settings: &Settings, failures: u64, in_turn: bool, now: Moment) -> Next {
        let taken = if in_turn { self.open(settings, now) } else { self.take(settings, now) };
        if let Some((io, making)) = taken {
            return Next::Take(io, making);
        }
        if let (true, Some((kind, text))) = (self.failures > failures, &self.failure) {
            return Next::Fail(io::Error::new(*kind, text.clone()));
        }
        if let Some(left) = self.proof(settings, now) {
            return Next::Prove(left);
        }
        if self.followers < self.dialing * ROOM_EXPECTED {
            return Next::Follow;
        }
        if self.trunks.len() + self.dialing < TRUNKS_MAX {
            return Next::Dial;
        }
        if self.crowd < settings.pool.queue { Next::Crowd } else { Next::Fail(NoRoom::InLine.into()) }
    }

    /// For how long a trunk that would do is waited for, to show that its peer is there.
    fn proof(&mut self, settings: &Settings, now: Moment) -> Option<Duration> {
        let kept = self.trunks.iter_mut().find(|kept| {
            let late = kept.trunk.owes_answer() && kept.asked_since(now) >= PROOF_WITHIN;
            kept.is_fit(settings, now) && kept.is_silent(now) && !late
        })?;
        if !kept.trunk.owes_answer() {
            kept.ask(now);
        }
        Some(PROOF_WITHIN.saturating_sub(kept.asked_since(now)))
    }

    pub(super) fn tidy(&mut self, now: Moment) {
        self.trunks.retain_mut(|kept| kept.is_worth_keeping(now));
    }

    pub(super) fn is_unused(&self) -> bool {
        self.trunks.is_empty() && self.dialing + self.followers + self.crowd == 0
    }
}

impl Kept {
    /// Whether more may be carried, if there is room.
    fn is_fit(&self, settings: &Settings, now: Moment) -> bool {
        !self.trunk.is_over() && self.making.tls == settings.tls && now < self.aged_at
    }

    /// Whether nobody knows if its peer is there.
    fn is_silent(&self, now: Moment) -> bool {
        self.trunk.owes_answer() || now.since(self.trunk.heard()) > SILENCE
    }

    fn asked_since(&self, now: Moment) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| now.since(asked))
    }

    fn ask(&mut self, now: Moment) {
        self.asked = Some(now);
        self.trunk.ask();
    }

    fn is_worth_keeping(&mut self, now: Moment) -> bool {
        if self.trunk.owes_answer() && self.asked_since(now) > SIGN_WITHIN {
            self.trunk.cut();
            return false;
        }
        if self.trunk.carried() > 0 {
            self.used = now;
            if self.must_ask(now) {
                self.ask(now);
            }
            return true;
        }
        let out_of_use = self.endpoint.is_leaving() || self.endpoint.is_drained();
        !self.trunk.is_over() && !out_of_use && now < self.aged_at && now.since(self.used) <= self.idle
    }

    fn must_ask(&self, now: Moment) -> bool {
        let heard = self.trunk.heard();
        let silent = now.since(heard) > SILENCE && !self.trunk.owes_answer();
        // The answer itself is heard, too.
        let said_more = |asked: Moment| heard > asked.after(SIGN_WITHIN);
        silent && self.asked.is_none_or(|asked| said_more(asked) || now.since(asked) > ASKED_AGAIN_AFTER)
    }
}
