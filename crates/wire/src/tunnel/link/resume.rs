//! A link goes on over another carrier.
//!
//! The dialer says over the new carrier where it stands and proves the link's key; the acceptor judges that
//! without changing anything, asks its policy, then fences the old carrier, says where it stands itself, and
//! both repeat what the other has not confirmed. One round trip, and either side may vanish at any byte.
//!
//! The table in a RESUME may be older than what the old carrier brought meanwhile, because that one is used
//! until the answer is there. Nothing here goes back by it: what is confirmed stays confirmed, and a stream
//! is given up only if the peer, when it wrote the table, had seen it and no longer knew it.

use std::collections::BTreeMap;

use tieline_base::Moment;

use super::{Answer, Event, Link};
use crate::tunnel::frame::{Dead, Entry, Frame, Mac, Resume, Resumed, Table, TableWriter};
use crate::tunnel::ids::{Code, Epoch, Side, StreamId};
use crate::tunnel::key::{Exporter, Hashing, Key, Proved, Said};
use crate::tunnel::stream::{Phase, Stream};
use crate::tunnel::varint::VARINT_MAX;

/// A RESUME that was sent over a new carrier, and waits for its answer.
#[derive(Debug)]
pub struct Offer {
    epoch: Epoch,
    exporter: Exporter,
    mac: Mac,
}

impl Offer {
    /// The epoch that the carrier will have.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// A RESUME whose sender has proved the link's key. Nothing has changed by it so far.
#[derive(Debug)]
pub struct Judged<'a> {
    resume: Resume<'a>,
    exporter: Exporter,
    proved: Proved,
}

/// Why a RESUME or RESUMED does not count. The link goes on as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResumeError {
    /// Another link, or a proof that is wrong: a stranger must not learn which.
    #[error("no such link, or its key was not proved")]
    Unproved,
    /// A later carrier was here first.
    #[error("a later carrier of this link was here first")]
    Stale,
    /// More streams than a link may have.
    #[error("a table of more streams than the link may have")]
    Table,
}

impl Link {
    /// Writes a RESUME for a new carrier behind what `out` holds. The carrier in use goes on. The dialer's
    /// part.
    pub fn resume(&mut self, hashing: &impl Hashing, exporter: Exporter, out: &mut Vec<u8>) -> Offer {
        self.offered = Epoch(self.offered.max(self.epoch).0 + 1);
        let mut writer = TableWriter::default();
        let table = self.table(&mut writer);
        let said = Said { link: self.id, epoch: self.offered, exporter: &exporter, table: table.bytes() };
        let mac = self.keys.confirmed().mac_of_dialer(hashing, &said);
        Frame::Resume(Resume { link: self.id, epoch: self.offered, mac, table }).encode(out);
        Offer { epoch: self.offered, exporter, mac }
    }

    /// Judges a RESUME that a carrier with this exporter brought; changes nothing. The acceptor's part; it
    /// asks its policy next.
    ///
    /// # Errors
    /// [`ResumeError::Unproved`] and [`ResumeError::Table`]: to be answered alike.
    pub fn judge<'a>(
        &self,
        hashing: &impl Hashing,
        exporter: Exporter,
        resume: Resume<'a>,
    ) -> Result<Judged<'a>, ResumeError> {
        let said = said_by(&resume, &exporter);
        let proved = self.keys.proved(hashing, &said, &resume.mac).ok_or(ResumeError::Unproved)?;
        if resume.link != self.id || self.side != Side::Acceptor {
            return Err(ResumeError::Unproved);
        }
        self.check(&resume.table)?;
        Ok(Judged { resume, exporter, proved })
    }

    /// Goes on over the carrier that brought the RESUME, and writes the RESUMED to send over it, which comes
    /// before all else there. The old carrier counts no more from here on.
    ///
    /// # Errors
    /// [`ResumeError::Stale`]: nothing has changed.
    pub fn attach(
        &mut self,
        hashing: &impl Hashing,
        judged: Judged<'_>,
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), ResumeError> {
        let Judged { resume, exporter, proved } = judged;
        if resume.epoch <= self.epoch {
            return Err(ResumeError::Stale);
        }
        let mut writer = TableWriter::default();
        let table = self.table(&mut writer);
        let key = self.keys.of(proved);
        let said = Said { table: table.bytes(), ..said_by(&resume, &exporter) };
        let mac = key.mac_of_acceptor(hashing, &said, &resume.mac);
        Frame::Resumed(Resumed { epoch: resume.epoch, mac, table }).encode(out);
        let next: Key = key.next(hashing, &exporter);
        self.keys.rotate(proved, next);
        self.go_on(resume.epoch, &resume.table, now);
        Ok(())
    }

    /// Takes the answer to `offer` that came over the carrier it was made for, and goes on over that. The old
    /// carrier counts no more from here on.
    ///
    /// # Errors
    /// [`ResumeError`]: the new carrier is to be closed, and nothing has changed.
    pub fn resumed(
        &mut self,
        hashing: &impl Hashing,
        offer: &Offer,
        resumed: &Resumed<'_>,
        now: Moment,
    ) -> Result<(), ResumeError> {
        if offer.epoch != self.offered || resumed.epoch != offer.epoch || offer.epoch <= self.epoch {
            return Err(ResumeError::Stale);
        }
        let said = Said {
            link: self.id,
            epoch: offer.epoch,
            exporter: &offer.exporter,
            table: resumed.table.bytes(),
        };
        if self.keys.confirmed().mac_of_acceptor(hashing, &said, &offer.mac) != resumed.mac {
            return Err(ResumeError::Unproved);
        }
        self.check(&resumed.table)?;
        self.keys.replace(self.keys.confirmed().next(hashing, &offer.exporter));
        self.go_on(offer.epoch, &resumed.table, now);
        Ok(())
    }

    /// Where this end stands.
    fn table<'w>(&mut self, writer: &'w mut TableWriter) -> Table<'w> {
        for (&stream, Stream { phase, inbound, outbound, .. }) in &mut self.streams {
            match *phase {
                Phase::Ended { code, .. } => writer.dead(Dead { stream, code }),
                _ => writer.live(Entry {
                    stream,
                    received: inbound.confirmation(),
                    credit: inbound.credit(),
                    end: outbound.tell_end(),
                }),
            }
        }
        let opened = self.next.saturating_sub(2);
        writer.finish(self.seen, opened)
    }

    fn check(&self, table: &Table<'_>) -> Result<(), ResumeError> {
        let most = self.limits.streams;
        let fits = table.live().count() <= most && table.dead().count() <= most;
        let written = table.opened().max(table.seen()) < VARINT_MAX;
        if fits && written { Ok(()) } else { Err(ResumeError::Table) }
    }

    fn go_on(&mut self, epoch: Epoch, table: &Table<'_>, now: Moment) {
        let gap = now.since(self.pulse.last_heard());
        self.epoch = epoch;
        self.attached = true;
        (self.paused, self.leaving) = (None, None);
        self.due.clear();
        self.answers.clear();
        self.schedule.clear();
        self.flows.clear();
        self.later.clear();
        self.confirm_at = None;
        self.pong = None;
        self.telling.again();
        self.streams.values_mut().for_each(Stream::leave_lines);
        self.bury(table);
        let entries: BTreeMap<StreamId, Entry> = table.live().map(|entry| (entry.stream, entry)).collect();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        let replayed = ids.into_iter().map(|id| self.go_on_with(id, entries.get(&id), table, now)).sum();
        self.give_up_what_is_over(table);
        self.pulse.renew(now);
        self.pulse.waits(self.sum.waits > 0, now);
        self.expires = Moment(0);
        self.events.push_back(Event::Resumed { epoch, gap, replayed });
    }

    /// Streams that the peer broke off. One that we never heard of needs no answer: the peer finds out from
    /// our table.
    fn bury(&mut self, table: &Table<'_>) {
        for Dead { stream, code } in table.dead() {
            if self.knows(stream) {
                // A table holds no more streams than answers fit, and there are no others yet.
                let _ = self.on_reset(stream, code);
            }
        }
    }

    /// Streams that ended after our table was written, over the old carrier, which took the last word with
    /// it: the acceptor still waits for that. Its own table was written last, and tells the dialer by itself.
    fn give_up_what_is_over(&mut self, table: &Table<'_>) {
        for Entry { stream, .. } in table.live() {
            if self.side == Side::Dialer && self.knows(stream) && !self.streams.contains_key(&stream) {
                // As above; a stream is in one of the two lists.
                let _ = self.answer(Answer::Lost(stream));
            }
        }
    }

    /// Brings one stream in line with what the peer says of it. Answers how many bytes go again.
    fn go_on_with(&mut self, id: StreamId, entry: Option<&Entry>, table: &Table<'_>, now: Moment) -> u64 {
        let ours = id.opener() == self.side;
        let Some(ended) = self.streams.get(&id).map(Stream::ended) else { return 0 };
        let unseen = if ours { id.0 > table.seen() } else { id.0 > table.opened() };
        match entry {
            None if ended => {
                // Never seen, or confirmed and forgotten: nobody waits for more.
                self.remove(id);
                return 0;
            }
            None if !unseen => self.lost(id),
            Some(entry) if !ended => self.take_entry(id, entry),
            _ => {}
        }
        let first_credit = self.limits.first_credit;
        let replayed = self.change(id, |stream| {
            stream.due.open = unseen && matches!(stream.phase, Phase::Asked(_));
            stream.rewind(first_credit)
        });
        self.confirm(id, now);
        replayed.unwrap_or(0)
    }

    fn take_entry(&mut self, id: StreamId, entry: &Entry) {
        let taken = self.change(id, |stream| {
            stream.outbound.allow(entry.credit);
            let end = entry.end.map_or(Ok(()), |end| stream.inbound.expect_end(end));
            end.and_then(|()| stream.outbound.confirm(entry.received))
        });
        match taken {
            Some(Ok(_)) => {
                let complete = self.streams.get(&id).is_some_and(|stream| stream.inbound.complete());
                if complete {
                    self.tell_readable(id);
                }
                self.tell_writable(id);
            }
            Some(Err(_)) => self.break_off(id, Code::Protocol),
            None => {}
        }
    }
}

fn said_by<'a>(resume: &Resume<'a>, exporter: &'a Exporter) -> Said<'a> {
    Said { link: resume.link, epoch: resume.epoch, exporter, table: resume.table.bytes() }
}
