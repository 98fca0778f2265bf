//! A link that is shared: by the task that carries it, and by those who speak through its streams, on
//! whatever thread they are.
//!
//! Owns who is woken by what. All that a link decides is decided in [`tieline_wire::tunnel::Link`]; this
//! hands it what happens and passes on what it says, under one lock that is held for copies in memory alone.

#![allow(clippy::disallowed_types)] // streams of one link live on several workers; never held over an await

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_wire::tunnel::{Code, Epoch, Event, Link, Request, StreamId};

use crate::alarm::Alarm;
use crate::ends::{End, ORPHAN, wake};
pub(crate) use crate::ends::{Ended, NotOurs, Resumption};
use crate::losses::Losses;
use crate::memory::Memory;
use crate::offered::Heard;
use crate::stream::LinkStream;

/// A link and all who wait for something of it.
pub(crate) struct LiveLink {
    core: Mutex<Core>,
    memory: Arc<Memory>,
}

/// What the lock protects.
pub(crate) struct Core {
    pub(crate) link: Link,
    ends: HashMap<StreamId, End>,
    /// Whether the peer may open streams.
    serves: bool,
    offered: VecDeque<(StreamId, Request)>,
    /// What the peer says that it offers.
    pub(crate) heard: Heard,
    /// Who carries it, or looks after it while nobody does.
    driver: Option<Waker>,
    /// Who serves the peer's streams, where that is not the driver.
    host: Option<Waker>,
    /// When the driver looks again by itself.
    planned: Moment,
    doubts: bool,
    /// The peer asks to go on over another connection, within so long.
    moves: Option<Duration>,
    resumption: Option<Resumption>,
    over: Option<Code>,
    /// What the process was told that this link holds, and whether credit is held back for its sake.
    counted: u64,
    short: bool,
    /// Of what carries it.
    pub(crate) losses: Losses,
}

/// What a link holds is told in steps of so many bytes: all links share one count.
const COUNTED: u64 = 16 << 10;

impl LiveLink {
    /// `serves`: whether the peer may open streams.
    pub(crate) fn new(link: Link, serves: bool) -> Arc<Self> {
        LiveLink::counted(link, serves, Memory::of_process())
    }

    /// [`LiveLink::new`], counted in `memory`.
    pub(crate) fn counted(link: Link, serves: bool, memory: Arc<Memory>) -> Arc<Self> {
        let core = Mutex::new(Core {
            link,
            ends: HashMap::new(),
            serves,
            offered: VecDeque::new(),
            heard: Heard::default(),
            driver: None,
            host: None,
            planned: Moment(u64::MAX),
            doubts: false,
            moves: None,
            resumption: None,
            over: None,
            counted: 0,
            short: false,
            losses: Losses::default(),
        });
        let live = Arc::new(Self { core, memory });
        live.memory.count_in(&live);
        live
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `act` and wakes whom it concerns.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let done = act(&mut core);
        core.hear();
        core.tell_host();
        let (pressed, _) = core.recount(&self.memory);
        if core.wants_its_driver()
            && let Some(driver) = core.driver.take()
        {
            driver.wake();
        }
        drop(core);
        if pressed {
            self.memory.relieve();
        }
        done
    }

    /// `cx` is woken when the peer asks for a stream, when nothing carries the link any more, and when it is
    /// over.
    pub(crate) fn host(&self, cx: &Context<'_>) {
        self.lock().host = Some(cx.waker().clone());
    }

    /// Looks at it, or takes what was noted: wakes nobody.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Core) -> T) -> T {
        look(&mut self.lock())
    }

    /// [`LiveLink::act`] by whoever carries the link over its carrier of `epoch`, or looks after it since
    /// that was lost: `cx` is woken when there is more to do.
    ///
    /// # Errors
    /// The link is not theirs any more; nothing has changed.
    pub(crate) fn drive<T>(
        &self,
        epoch: Epoch,
        cx: &Context<'_>,
        act: impl FnOnce(&mut Core) -> T,
    ) -> Result<T, NotOurs> {
        let mut core = self.lock();
        match core.over {
            Some(code) => return Err(NotOurs::Over(code)),
            // The waker of another carrier must stay where it is.
            None if core.link.epoch() != epoch => return Err(NotOurs::Elsewhere),
            None => {}
        }
        let done = act(&mut core);
        core.hear();
        core.tell_host();
        core.driver = Some(cx.waker().clone());
        let (pressed, changed) = core.recount(&self.memory);
        if changed {
            cx.waker().wake_by_ref();
        }
        core.planned = core.link.deadline();
        drop(core);
        if pressed {
            self.memory.relieve();
        }
        Ok(done)
    }

    /// Asks the peer for a stream.
    ///
    /// # Errors
    /// [`Code::Busy`] if there is no room for one more; why the link is over, if it is.
    pub(crate) fn open(self: &Arc<Self>, request: Request) -> Result<LinkStream, Code> {
        let id = self.act(|core| match core.over {
            Some(code) => Err(code),
            None => {
                let id = core.link.open(request, Clock::now())?;
                core.ends.insert(id, End::default());
                Ok(id)
            }
        })?;
        Ok(LinkStream::new(self.clone(), id))
    }

    /// Agrees to a stream that the peer asked for; `None` if it is gone meanwhile.
    pub(crate) fn accept(self: &Arc<Self>, id: StreamId) -> Option<LinkStream> {
        let there = self.act(|core| {
            let end = core.ends.get_mut(&id).filter(|end| end.ended.is_none());
            let there = end.map(|end| end.open = true).is_some();
            if !there {
                // Nobody will have it.
                core.ends.remove(&id);
            }
            core.link.accept(id);
            there
        });
        there.then(|| LinkStream::new(self.clone(), id))
    }

    /// Refuses a stream that the peer asked for.
    pub(crate) fn refuse(&self, id: StreamId, code: Code, text: &str) {
        self.act(|core| {
            core.ends.remove(&id);
            core.link.refuse(id, code, text);
        });
    }

    /// Breaks a stream off at both ends.
    pub(crate) fn reset(&self, id: StreamId, code: Code) {
        self.act(|core| {
            core.ends_by(id, Ended::Broken(code, None));
            core.link.reset(id, code);
        });
    }

    /// Ready once a stream that the peer asked for is gone before it was answered.
    pub(crate) fn poll_gone(&self, id: StreamId, cx: &Context<'_>) -> Poll<()> {
        self.act(|core| match core.ended(id) {
            Some(_) => Poll::Ready(()),
            None => {
                core.on_broken(id, cx);
                Poll::Pending
            }
        })
    }

    /// Another carrier has taken over: whoever carried it before looks.
    pub(crate) fn displace(&self) {
        let before = self.look(|core| core.driver.take());
        if let Some(driver) = before {
            driver.wake();
        }
    }

    /// Ends the link and everything in it, for good.
    pub(crate) fn end(&self, code: Code) {
        self.act(|core| core.end(code));
    }

    /// [`LiveLink::end`], unless it has gone on over another carrier than the one of `epoch`, or is over.
    /// Says whether it did.
    pub(crate) fn end_at(&self, epoch: Epoch, code: Code) -> bool {
        self.act(|core| {
            let ours = core.over.is_none() && core.link.epoch() == epoch;
            if ours {
                core.end(code);
            }
            ours
        })
    }

    /// Why it is over, if it is.
    pub(crate) fn over(&self) -> Option<Code> {
        self.lock().over
    }

    /// Looks after the link while nothing carries it, from `epoch` on: ready when it is over (`Some`), or
    /// goes on over another carrier (`None`).
    pub(crate) fn poll_detached(
        &self,
        epoch: Epoch,
        alarm: &mut Alarm,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Code>> {
        loop {
            let next = self.drive(epoch, cx, |core| {
                core.link.on_time(Clock::now());
                core.link.deadline()
            });
            match next {
                Err(NotOurs::Over(code)) => return Poll::Ready(Some(code)),
                Err(NotOurs::Elsewhere) => return Poll::Ready(None),
                Ok(next) => std::task::ready!(alarm.poll(next, cx)),
            }
        }
    }
}

impl Core {
    pub(crate) fn over(&self) -> Option<Code> {
        self.over
    }

    pub(crate) fn end(&mut self, code: Code) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(code);
        self.offered.clear();
        let streams: Vec<StreamId> = self.link.streams().collect();
        streams.into_iter().for_each(|id| self.link.reset(id, code));
        for end in self.ends.values_mut() {
            end.ended.get_or_insert(Ended::Broken(code, None));
            end.wake();
        }
        self.ends.retain(|_, end| !end.orphan);
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        if let Some(host) = self.host.take() {
            host.wake();
        }
    }

    /// Whoever hosts the link looks when there is something for him.
    fn tell_host(&mut self) {
        let wanted = !self.offered.is_empty() || !self.link.attached();
        if self.host.is_some()
            && wanted
            && let Some(host) = self.host.take()
        {
            host.wake();
        }
    }

    /// The next stream that the peer asks for.
    pub(crate) fn take_offered(&mut self) -> Option<(StreamId, Request)> {
        self.offered.pop_front()
    }

    /// Whether the peer should have spoken; told once.
    pub(crate) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubts)
    }

    /// The peer's connection is to end: the link goes on over another, after some part of `spread`.
    pub(crate) fn is_asked_to_move(&mut self, spread: Duration) {
        self.moves = Some(spread);
    }

    /// Within how long the peer asked to go on over another connection, if it did; told once.
    pub(crate) fn take_move(&mut self) -> Option<Duration> {
        self.moves.take()
    }

    /// What the last change of carriers brought; told once.
    pub(crate) fn take_resumption(&mut self) -> Option<Resumption> {
        self.resumption.take()
    }

    /// Whether a stream waits for a carrier.
    pub(crate) fn awaited(&self) -> bool {
        self.link.streams().next().is_some()
    }

    pub(crate) fn is_open(&self, id: StreamId) -> bool {
        self.ends.get(&id).is_some_and(|end| end.open)
    }

    /// What for the peer's answer waits, if that is news.
    pub(crate) fn take_wait(&mut self, id: StreamId) -> Option<Box<str>> {
        self.ends.get_mut(&id)?.waits.take()
    }

    /// How the stream ended, if it did.
    pub(crate) fn ended(&self, id: StreamId) -> Option<Ended> {
        match self.ends.get(&id) {
            Some(end) => end.ended.clone(),
            None => Some(Ended::Broken(Code::Lost, None)),
        }
    }

    pub(crate) fn on_readable(&mut self, id: StreamId, cx: &Context<'_>) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.reader = Some(cx.waker().clone());
        }
    }

    pub(crate) fn on_writable(&mut self, id: StreamId, cx: &Context<'_>) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.writer = Some(cx.waker().clone());
        }
    }

    pub(crate) fn on_broken(&mut self, id: StreamId, cx: &Context<'_>) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.watcher = Some(cx.waker().clone());
        }
    }

    /// Nobody speaks through the stream any more. What was written still goes out, and its end; if it
    /// `aborts`, or more comes, it is broken off.
    pub(crate) fn let_go(&mut self, id: StreamId, aborts: bool) {
        let Some(end) = self.ends.get_mut(&id) else { return };
        if end.ended.is_some() {
            self.ends.remove(&id);
            return;
        }
        if aborts || !end.open || !self.link.readable(id).is_empty() {
            self.ends.remove(&id);
            self.link.reset(id, Code::Aborted);
            return;
        }
        *end = End { open: true, orphan: true, ..End::default() };
        self.link.set_patience(id, ORPHAN);
        self.link.finish(id);
    }

    /// Tells the process what is held here, if that has changed by enough, and obeys it. Says whether there
    /// is more to do about it than here, and whether there may be more to say here.
    fn recount(&mut self, memory: &Memory) -> (bool, bool) {
        let held = self.link.held();
        let tells = held.abs_diff(self.counted) >= COUNTED || held == 0 && self.counted > 0;
        let pressed = tells && memory.recount(self.counted, held);
        if tells {
            self.counted = held;
        }
        let changed = memory.is_short() != self.short;
        if changed {
            self.short = !self.short;
            self.link.set_short(self.short, Clock::now());
        }
        (pressed, changed)
    }

    /// Breaks a stream off, for a reason that neither application gave.
    pub(crate) fn break_off(&mut self, id: StreamId, code: Code) {
        self.link.reset(id, code);
        self.ends_by(id, Ended::Broken(code, None));
    }

    fn wants_its_driver(&self) -> bool {
        self.link.wants_to_send()
            || self.link.deadline() < self.planned
            || !self.offered.is_empty()
            || self.doubts
    }

    /// Passes on what the link says.
    fn hear(&mut self) {
        while let Some(event) = self.link.event() {
            match event {
                Event::Offered { stream, request } => self.offered(stream, request),
                Event::Opened(id) => self.at(id, |end| {
                    end.open = true;
                    end.wake();
                }),
                Event::Waits { stream, text } => self.at(stream, |end| end.wait(text)),
                Event::Refused { stream, code, text } => {
                    self.ends_by(stream, Ended::Broken(code, Some(text)))
                }
                Event::Reset { stream, code } => self.ends_by(stream, Ended::Broken(code, None)),
                Event::Closed(id) => self.ends_by(id, Ended::InOrder),
                Event::Readable(id) => self.came(id),
                Event::Writable(id) => self.at(id, |end| wake(&mut end.writer)),
                Event::Doubt => self.doubts = true,
                Event::Resumed { epoch, gap, replayed } => {
                    self.doubts = false;
                    self.moves = None;
                    self.resumption = Some(Resumption { epoch, gap, replayed });
                }
            }
        }
    }

    fn offered(&mut self, id: StreamId, request: Request) {
        if self.serves && self.over.is_none() {
            self.ends.insert(id, End::default());
            self.offered.push_back((id, request));
        } else {
            self.link.refuse(id, Code::Unknown, "this end of the link offers nothing");
        }
    }

    fn came(&mut self, id: StreamId) {
        let orphan = self.ends.get(&id).is_some_and(|end| end.orphan);
        if orphan && !self.link.readable(id).is_empty() {
            // As a socket that is closed does: nobody will ever read it.
            self.ends.remove(&id);
            self.link.reset(id, Code::Aborted);
        } else {
            self.at(id, |end| wake(&mut end.reader));
        }
    }

    fn ends_by(&mut self, id: StreamId, how: Ended) {
        let waiting = self.offered.len();
        self.offered.retain(|(offered, _)| *offered != id);
        if self.offered.len() < waiting || self.ends.get(&id).is_some_and(|end| end.orphan) {
            self.ends.remove(&id);
        }
        self.at(id, |end| {
            end.ended = Some(how);
            end.wake();
        });
    }

    fn at(&mut self, id: StreamId, change: impl FnOnce(&mut End)) {
        if let Some(end) = self.ends.get_mut(&id) {
            change(end);
        }
    }
}

impl Drop for LiveLink {
    fn drop(&mut self) {
        let counted = self.look(|core| core.counted);
        if self.memory.recount(counted, 0) {
            self.memory.relieve();
        }
    }
}

impl fmt::Debug for LiveLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing that could hold a key.
        f.debug_struct("LiveLink").field("over", &self.over()).finish_non_exhaustive()
    }
}
