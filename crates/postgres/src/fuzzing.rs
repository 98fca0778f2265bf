//! A client and a server around the queue of what is owed, driven by any bytes: for fuzzing, and for nothing
//! else.

use std::collections::VecDeque;

use tieline_wire::postgres::backend::kind;

use crate::outstanding::{Asked, Entry, Outstanding, Reply};

/// What a client says, a server answers and the client hears, as `data` has it, each as late as it says.
///
/// # Panics
/// An answer finds nothing that asked for it; or when all is answered something is owed, or something that
/// was kept track of was never heard of again.
pub fn answers(data: &[u8]) {
    let mut world = World::default();
    data.iter().for_each(|byte| world.step(*byte));
    world.finish();
}

/// What the server reads.
#[derive(Clone, Copy, Debug)]
struct Message {
    asked: Asked,
    fails: bool,
    /// It begins to copy what the client sends.
    copies: bool,
}

#[derive(Debug, Default)]
struct World {
    queue: Outstanding,
    server: Model,
    /// The client has asked for a copy that it has not ended.
    copies: bool,
    /// How many things are kept track of.
    tracked: usize,
}

impl World {
    fn step(&mut self, byte: u8) {
        let (fails, copies, special) = (byte & 0x80 != 0, byte & 0x40 != 0, byte & 0x20 != 0);
        match byte & 0x0f {
            // While it copies it says nothing but that, and what it said before it knew.
            0..=4 | 6..=8 if self.copies => {}
            0 if special => self.ask(Entry::of(Asked::Parse).tracked(), fails, false),
            0 => self.ask(Entry::of(Asked::Parse).unnamed(), fails, false),
            1 => self.ask(Entry::of(Asked::Bind), fails, false),
            2 => self.ask(Entry::of(Asked::Describe), fails, false),
            3 => self.ask(Entry::of(Asked::Execute), fails, copies),
            4 if special => self.ask(Entry::swallowed(Asked::Close), false, false),
            4 => self.ask(Entry::of(Asked::Close), fails, false),
            5 => self.ask(Entry::of(Asked::Sync), false, false),
            6 if special => self.ask(Entry::of(Asked::Query).tracked(), fails, copies),
            6 => self.ask(Entry::of(Asked::Query), fails, copies),
            7 => self.ask(Entry::of(Asked::Function), fails, false),
            8 if special => self.ask(Entry::swallowed(Asked::Parse).tracked(), fails, false),
            8 => self.answer_ourselves(),
            9 => self.end_copy(fails),
            10..=12 => self.server.read(),
            _ => self.hear(),
        }
    }

    fn ask(&mut self, entry: Entry, fails: bool, copies: bool) {
        let asked = entry.asked();
        if self.queue.is_skipping() && asked != Asked::Sync {
            // Only the client's own words pass then.
            if !entry.is_swallowed() {
                self.server.inbox.push_back(Message { asked, fails, copies });
            }
            return;
        }
        self.queue.push(entry);
        self.tracked += usize::from(entry.is_tracked());
        self.server.inbox.push_back(Message { asked, fails, copies });
        self.copies |= copies;
    }

    fn answer_ourselves(&mut self) {
        if !self.queue.is_skipping() {
            self.queue.push(Entry::synthetic(Asked::Parse).tracked());
            self.tracked += 1;
            self.say_ours();
        }
    }

    fn say_ours(&mut self) {
        while let Some(entry) = self.queue.take_synthetic() {
            self.forget(entry);
        }
    }

    fn end_copy(&mut self, fails: bool) {
        self.queue.copy_ended();
        self.server.inbox.push_back(Message { asked: Asked::CopyEnd, fails, copies: false });
        self.copies = false;
    }

    fn hear(&mut self) {
        let Some(said) = self.server.outbox.pop_front() else { return };
        match self.queue.on_reply(said) {
            Ok(Reply::Ends(entry) | Reply::Done(entry)) => self.forget(entry),
            Ok(Reply::Fails(failed)) => self.void(failed),
            Ok(Reply::Pass | Reply::Swallow) => return,
            Err(error) => panic!("{error}: {:?}", self.queue),
        }
        self.say_ours();
    }

    /// As `Link::void` has it.
    fn void(&mut self, failed: Entry) {
        if failed.asked() == Asked::Query {
            self.queue.untrack();
            return self.forget(failed);
        }
        let mut dropped = Vec::new();
        self.queue.void(|entry| dropped.push(entry));
        dropped.into_iter().for_each(|entry| self.forget(entry));
    }

    fn forget(&mut self, entry: Entry) {
        if entry.is_tracked() {
            self.tracked = self.tracked.checked_sub(1).expect("nothing is heard of twice");
        }
    }

    fn finish(&mut self) {
        if self.copies {
            self.end_copy(false);
        }
        self.ask(Entry::of(Asked::Sync), false, false);
        while !self.server.inbox.is_empty() {
            self.server.read();
        }
        while !self.server.outbox.is_empty() {
            self.hear();
        }
        assert!(self.queue.is_empty(), "{:?}", self.queue);
        assert_eq!(self.tracked, 0);
    }
}

/// A server, as far as its answers go.
#[derive(Debug, Default)]
struct Model {
    inbox: VecDeque<Message>,
    outbox: VecDeque<u8>,
    /// It ignores all but a Sync.
    skips: bool,
    /// It copies in, by this.
    copies: Option<Asked>,
}

impl Model {
    fn read(&mut self) {
        let Some(message) = self.inbox.pop_front() else { return };
        if let Some(by) = self.copies {
            // PostgreSQL documentation, "COPY Operations": Flush and Sync are ignored during copy-in.
            if message.asked == Asked::CopyEnd {
                self.copies = None;
                self.end(by, message.fails, b"C");
            }
            return;
        }
        match message.asked {
            Asked::Sync => {
                self.skips = false;
                self.outbox.push_back(kind::READY_FOR_QUERY);
            }
            _ if self.skips => {}
            // What is left of a copy that failed.
            Asked::CopyEnd => {}
            by @ (Asked::Execute | Asked::Query) if message.copies && !message.fails => {
                self.outbox.push_back(kind::COPY_IN_RESPONSE);
                self.copies = Some(by);
            }
            by => self.end(by, message.fails, answer(by)),
        }
    }

    fn end(&mut self, by: Asked, fails: bool, answer: &[u8]) {
        self.outbox.extend(if fails { b"E" } else { answer });
        match by {
            Asked::Query | Asked::Function => self.outbox.push_back(kind::READY_FOR_QUERY),
            _ => self.skips |= fails,
        }
    }
}

fn answer(asked: Asked) -> &'static [u8] {
    match asked {
        Asked::Parse => b"1",
        Asked::Bind => b"2",
        Asked::Describe => b"tn",
        Asked::Execute => b"NDs",
        Asked::Close => b"3",
        Asked::Query => b"TDCSC",
        Asked::Function => b"V",
        Asked::Sync | Asked::CopyEnd => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::answers;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn whatever_is_asked_is_answered_once(data in prop::collection::vec(any::<u8>(), 0..200)) {
            answers(&data);
        }
    }
}
