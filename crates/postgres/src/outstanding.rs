//! What a server still owes: one entry for each thing that was asked of it, in order. Only what stands here
//! may come back, and only this queue knows who wants it.

use std::collections::VecDeque;

use tieline_wire::postgres::backend::kind;

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Asked {
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    Sync,
    Query,
    Function,
    /// The end of what a client copies in, said before it could know whether the server takes it: no answer
    /// of its own.
    CopyEnd,
}

const ALL: [Asked; 9] = [
    Asked::Parse,
    Asked::Bind,
    Asked::Describe,
    Asked::Execute,
    Asked::Close,
    Asked::Sync,
    Asked::Query,
    Asked::Function,
    Asked::CopyEnd,
];

impl Asked {
    /// Whether the server says by ReadyForQuery that it is done with it.
    fn ends_ready(self) -> bool {
        matches!(self, Asked::Sync | Asked::Query | Asked::Function)
    }
}

/// One thing that was asked, and who wants the answer, in one byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u8);

const KIND: u8 = 0x0f;
const SWALLOW: u8 = 0x10;
const SYNTHETIC: u8 = 0x20;
const TRACKED: u8 = 0x40;
const UNNAMED: u8 = 0x80;

impl Entry {
    /// Asked by the client, who wants the answer.
    pub(crate) const fn of(asked: Asked) -> Self {
        Self(asked as u8)
    }

    /// Asked by us: nobody is told.
    pub(crate) const fn swallowed(asked: Asked) -> Self {
        Self(asked as u8 | SWALLOW)
    }

    /// Asked by the client, and not passed on: the answer is ours, when its turn comes.
    pub(crate) const fn synthetic(asked: Asked) -> Self {
        Self(asked as u8 | SYNTHETIC)
    }

    /// The same, about a statement that is kept track of.
    pub(crate) const fn tracked(self) -> Self {
        Self(self.0 | TRACKED)
    }

    /// The same, about the unnamed statement.
    pub(crate) const fn unnamed(self) -> Self {
        Self(self.0 | UNNAMED)
    }

    pub(crate) fn asked(self) -> Asked {
        ALL[usize::from(self.0 & KIND) % ALL.len()]
    }

    pub(crate) fn is_swallowed(self) -> bool {
        self.0 & SWALLOW != 0
    }

    pub(crate) fn is_synthetic(self) -> bool {
        self.0 & SYNTHETIC != 0
    }

    pub(crate) fn is_tracked(self) -> bool {
        self.0 & TRACKED != 0
    }

    pub(crate) fn is_unnamed(self) -> bool {
        self.0 & UNNAMED != 0
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/{:#04x}", self.asked(), self.0 & !KIND)
    }
}

/// What becomes of a message of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// The client gets it.
    Pass,
    /// Nobody does.
    Swallow,
    /// It ends this entry, whose answer it is.
    Ends(Entry),
    /// The first statement of a query that is kept track of is done, and more of its answer comes.
    Done(Entry),
    /// It is an error: what was asked up to the next Sync is void ([`Outstanding::void`]).
    Fails(Entry),
}

/// The server said what nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the server sent message {kind:#04x} where {expected} was due")]
pub(crate) struct Unexpected {
    kind: u8,
    expected: &'static str,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    entries: VecDeque<Entry>,
    /// After an error the server ignores everything up to a Sync that was not sent yet.
    skipping: bool,
    /// It takes the rows of a COPY, and nothing else.
    copying_in: bool,
    /// Something was asked that only a Sync ends: until then it is in a transaction, whatever it said last.
    open: bool,
}

impl Outstanding {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.skipping && !self.copying_in && !self.open
    }

    /// Whether a batch has begun that no Sync has ended.
    pub(crate) fn is_open(&self) -> bool {
        self.open || self.skipping
    }

    /// Whether it will say that it is ready, without being told more.
    pub(crate) fn will_be_ready(&self) -> bool {
        !self.copying_in && self.entries.iter().any(|entry| entry.asked().ends_ready())
    }

    /// Whether it is one statement that is bound, described and run, and nothing else.
    pub(crate) fn is_one_statement(&self) -> bool {
        const ONE: [Asked; 4] = [Asked::Bind, Asked::Describe, Asked::Execute, Asked::Sync];
        self.entries.len() == ONE.len()
            && self.entries.iter().zip(ONE).all(|(entry, one)| entry.0 == one as u8)
    }

    /// Whether rows are due to the client, and change nothing here.
    pub(crate) fn passes_rows(&self) -> bool {
        let head = self.entries.front();
        !self.copying_in && head.is_some_and(|head| !head.is_swallowed() && !head.is_synthetic())
    }

    /// Whether the answer to a query is due, to which all belongs that comes before it is ready.
    pub(crate) fn is_query(&self) -> bool {
        self.entries.front().is_some_and(|head| head.asked() == Asked::Query)
    }

    pub(crate) fn owes_answers(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Whether an earlier batch is not answered yet: in what state what is asked now finds its transaction is
    /// not known before.
    pub(crate) fn owes_a_batch(&self) -> bool {
        /// Who has asked for more since waits for the answer in any case.
        const LOOK_AT: usize = 64;
        let ends = |entry: &Entry| entry.asked().ends_ready();
        self.entries.len() > LOOK_AT || self.entries.iter().any(ends)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the server ignores what it is sent.
    pub(crate) fn is_skipping(&self) -> bool {
        self.skipping
    }

    pub(crate) fn is_copying_in(&self) -> bool {
        self.copying_in
    }

    /// The client said that its copying is over.
    pub(crate) fn copy_ended(&mut self) {
        if !self.copying_in && !self.skipping && !self.entries.is_empty() {
            // The server may not have said yet that it takes a copy.
            self.entries.push_back(Entry::of(Asked::CopyEnd));
        }
        self.copying_in = false;
    }

    fn pop(&mut self) {
        self.entries.pop_front();
        while self.entries.front().is_some_and(|next| next.asked() == Asked::CopyEnd) {
            self.entries.pop_front();
        }
    }

    /// Something was asked. False if the server ignores it, so that no answer comes and nothing of it counts.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry) -> bool {
        if self.skipping {
            if entry.asked() != Asked::Sync {
                return false;
            }
            self.skipping = false;
        } else if self.copying_in && entry.asked() == Asked::Sync {
            // PostgreSQL documentation, "COPY Operations": Flush and Sync are ignored during copy-in.
            return false;
        }
        if entry.asked().ends_ready() {
            self.open = false;
        } else if !entry.is_synthetic() {
            self.open = true;
        }
        self.entries.push_back(entry);
        true
    }

    /// A message of the server came.
    ///
    /// # Errors
    /// Nothing that was asked has it for an answer.
    #[inline]
    pub(crate) fn on_reply(&mut self, kind: u8) -> Result<Reply, Unexpected> {
        let Some(&head) = self.entries.front() else { return self.unasked(kind) };
        let asked = head.asked();
        let ends = match kind {
            kind::DATA_ROW | kind::COPY_DATA | kind::COPY_DONE | kind::PARAMETER_DESCRIPTION => false,
            kind::ROW_DESCRIPTION => asked == Asked::Describe,
            kind::COMMAND_COMPLETE | kind::EMPTY_QUERY_RESPONSE => {
                self.copying_in = false;
                if head.is_tracked() && asked == Asked::Query {
                    self.untrack();
                    return Ok(Reply::Done(head));
                }
                asked == Asked::Execute
            }
            kind::READY_FOR_QUERY => {
                if !asked.ends_ready() {
                    return Err(Unexpected { kind, expected: "the answer to an extended query" });
                }
                true
            }
            kind::PARSE_COMPLETE => self.only(asked, Asked::Parse, kind)?,
            kind::BIND_COMPLETE => self.only(asked, Asked::Bind, kind)?,
            kind::CLOSE_COMPLETE => self.only(asked, Asked::Close, kind)?,
            kind::NO_DATA => self.only(asked, Asked::Describe, kind)?,
            kind::PORTAL_SUSPENDED => self.only(asked, Asked::Execute, kind)?,
            kind::ERROR_RESPONSE => {
                self.copying_in = false;
                return Ok(Reply::Fails(head));
            }
            kind::COPY_IN_RESPONSE => {
                self.begin_copy_in();
                false
            }
            kind::COPY_OUT_RESPONSE | kind::FUNCTION_CALL_RESPONSE => false,
            // At any time, about nothing that was asked.
            kind::NOTICE_RESPONSE | kind::NOTIFICATION_RESPONSE | kind::PARAMETER_STATUS => {
                return Ok(Reply::Pass);
            }
            _ => return Err(Unexpected { kind, expected: "the answer to a query" }),
        };
        if ends {
            self.pop();
            return Ok(Reply::Ends(head));
        }
        Ok(if head.is_swallowed() { Reply::Swallow } else { Reply::Pass })
    }

    fn only(&self, asked: Asked, wanted: Asked, kind: u8) -> Result<bool, Unexpected> {
        if asked == wanted {
            Ok(true)
        } else {
            Err(Unexpected { kind, expected: "the answer to another message" })
        }
    }

    fn unasked(&mut self, kind: u8) -> Result<Reply, Unexpected> {
        match kind {
            kind::NOTICE_RESPONSE
            | kind::NOTIFICATION_RESPONSE
            | kind::PARAMETER_STATUS
            | kind::ERROR_RESPONSE => Ok(Reply::Pass),
            // What a COPY that failed left behind may bring one more of these: two Syncs, one of which the
            // server read before it failed.
            _ => Err(Unexpected { kind, expected: "nothing" }),
        }
    }

    /// What was asked up to the next Sync failed: takes the entries out whose answers will not come, each
    /// shown to `dropped`. A query's own ReadyForQuery still comes.
    pub(crate) fn void(&mut self, mut dropped: impl FnMut(Entry)) {
        if self.entries.front().is_none_or(|head| head.asked().ends_ready()) {
            return;
        }
        while let Some(head) = self.entries.front() {
            if head.asked() == Asked::Sync {
                return;
            }
            dropped(*head);
            self.entries.pop_front();
        }
        self.skipping = true;
    }

    /// Whether the next answer is ours to give.
    #[inline]
    pub(crate) fn is_synthetic(&self) -> bool {
        self.entries.front().is_some_and(|head| head.is_synthetic())
    }

    /// Of what is answered next no track is kept any more.
    pub(crate) fn untrack(&mut self) {
        if let Some(head) = self.entries.front_mut() {
            head.0 &= !TRACKED;
        }
    }

    /// The next entry, if its answer is ours to give now.
    pub(crate) fn take_synthetic(&mut self) -> Option<Entry> {
        let head = *self.entries.front()?;
        if !head.is_synthetic() {
            return None;
        }
        self.pop();
        Some(head)
    }

    /// Copy-in has begun: what was said of Sync before the server could know that, and before the end of the
    /// copy, is ignored.
    fn begin_copy_in(&mut self) {
        let end = self.entries.iter().position(|entry| entry.asked() == Asked::CopyEnd);
        self.copying_in = end.is_none();
        let mut at = 0;
        self.entries.retain(|entry| {
            let within = end.is_none_or(|end| at < end);
            let is_end = end == Some(at);
            at += 1;
            let is_void = within && entry.asked() == Asked::Sync;
            !is_end && !is_void
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(asked: &[Asked]) -> Outstanding {
        let mut queue = Outstanding::default();
        asked.iter().for_each(|asked| assert!(queue.push(Entry::of(*asked))));
        queue
    }

    /// Feeds the server's messages, and says how many entries are left.
    fn after(queue: &mut Outstanding, kinds: &[u8]) -> usize {
        for kind in kinds {
            if let Reply::Fails(_) = queue.on_reply(*kind).unwrap() {
                queue.void(|_| {});
            }
        }
        queue.len()
    }

    #[test]
    fn a_batch_is_answered_in_its_order() {
        use Asked::*;
        let mut queue = queue(&[Parse, Bind, Describe, Execute, Sync]);
        assert_eq!(after(&mut queue, b"12TDDC"), 1);
        assert_eq!(queue.on_reply(b'Z'), Ok(Reply::Ends(Entry::of(Sync))));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_error_voids_what_was_asked_up_to_the_sync_and_no_further() {
        use Asked::*;
        let mut queue = queue(&[Parse, Bind, Execute, Sync, Query]);
        assert_eq!(after(&mut queue, b"1E"), 2);
        assert_eq!(after(&mut queue, b"ZTDCZ"), 0);
    }

    #[test]
    fn a_batch_is_open_until_its_sync_whatever_was_answered() {
        use Asked::*;
        let mut flushed = queue(&[Parse, Bind, Execute]);
        assert_eq!(after(&mut flushed, b"12C"), 0);
        assert!(flushed.is_open() && !flushed.is_empty() && !flushed.will_be_ready());
        assert!(flushed.push(Entry::of(Sync)) && flushed.will_be_ready());
        assert_eq!(after(&mut flushed, b"Z"), 0);
        assert!(flushed.is_empty());
        let mut ours = Outstanding::default();
        ours.push(Entry::synthetic(Parse));
        assert!(!ours.is_open());
    }

    #[test]
    fn without_a_sync_everything_is_ignored_until_one_comes() {
        use Asked::*;
        let mut queue = queue(&[Parse, Bind]);
        assert_eq!(after(&mut queue, b"E"), 0);
        assert!(!queue.is_empty() && queue.is_skipping());
        assert!(!queue.push(Entry::of(Query)) && !queue.push(Entry::of(Execute)));
        assert!(queue.push(Entry::of(Sync)));
        assert_eq!(after(&mut queue, b"Z"), 0);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_simple_query_that_fails_still_ends_by_itself() {
        let mut queue = queue(&[Asked::Query, Asked::Query]);
        assert_eq!(after(&mut queue, b"TDCEZ"), 1);
        assert_eq!(after(&mut queue, b"EZ"), 0);
    }

    #[test]
    fn the_first_statement_of_a_query_that_is_kept_track_of_is_told_once() {
        let mut queue = Outstanding::default();
        let query = Entry::of(Asked::Query).tracked();
        queue.push(query);
        assert_eq!(queue.on_reply(b'C'), Ok(Reply::Done(query)));
        assert_eq!(queue.on_reply(b'C'), Ok(Reply::Pass));
        assert_eq!(queue.on_reply(b'Z'), Ok(Reply::Ends(Entry::of(Asked::Query))));
    }

    #[test]
    fn a_sync_before_copy_in_is_ignored_and_one_behind_it_counts() {
        use Asked::*;
        let mut queue = queue(&[Bind, Execute, Sync]);
        assert_eq!(after(&mut queue, b"2G"), 1);
        assert!(queue.is_copying_in() && !queue.push(Entry::of(Sync)));
        queue.copy_ended();
        assert!(queue.push(Entry::of(Sync)));
        assert_eq!(after(&mut queue, b"CZ"), 0);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_copy_that_was_said_whole_before_it_began_is_understood() {
        use Asked::*;
        let mut all = queue(&[Parse, Bind, Execute, Sync]);
        all.copy_ended();
        assert!(all.push(Entry::of(Sync)));
        assert_eq!(after(&mut all, b"12G"), 2);
        assert!(!all.is_copying_in());
        assert_eq!(after(&mut all, b"CZ"), 0);
        let mut simple = queue(&[Query]);
        simple.copy_ended();
        assert_eq!(after(&mut simple, b"EZ"), 0);
        assert!(simple.is_empty());
    }

    #[test]
    fn ready_may_come_from_nowhere_but_what_was_asked() {
        let mut queue = queue(&[Asked::Bind]);
        assert!(queue.on_reply(b'Z').is_err());
        assert!(Outstanding::default().on_reply(b'Z').is_err());
        assert!(Outstanding::default().on_reply(b'1').is_err());
        assert_eq!(Outstanding::default().on_reply(b'N'), Ok(Reply::Pass));
    }

    #[test]
    fn what_we_asked_is_told_to_nobody_and_what_we_answer_waits_its_turn() {
        let mut queue = Outstanding::default();
        queue.push(Entry::swallowed(Asked::Parse));
        queue.push(Entry::of(Asked::Bind));
        queue.push(Entry::synthetic(Asked::Parse));
        assert_eq!(queue.take_synthetic(), None);
        assert!(matches!(queue.on_reply(b'1'), Ok(Reply::Ends(entry)) if entry.is_swallowed()));
        assert!(queue.take_synthetic().is_none());
        assert!(matches!(queue.on_reply(b'2'), Ok(Reply::Ends(_))));
        assert!(queue.take_synthetic().is_some());
    }

    /// A server, as far as its answers go: what it says to a message, and whether it ignores what follows.
    fn server(asked: Asked, fails: bool, skipping: &mut bool) -> Vec<u8> {
        match asked {
            Asked::Sync => {
                *skipping = false;
                vec![b'Z']
            }
            _ if *skipping => vec![],
            Asked::Query if fails => b"EZ".to_vec(),
            Asked::Query => b"TDDCCZ".to_vec(),
            Asked::Function if fails => b"EZ".to_vec(),
            Asked::Function => b"VZ".to_vec(),
            _ if fails => {
                *skipping = true;
                vec![b'E']
            }
            Asked::Parse => vec![b'1'],
            Asked::Bind => vec![b'2'],
            Asked::Describe => vec![b't', b'n'],
            Asked::Execute => vec![b'D', b's'],
            Asked::Close => vec![b'3'],
            Asked::CopyEnd => vec![],
        }
    }

    proptest! {
        /// Whatever is asked, wherever it fails, and however late the answers come: each one finds its
        /// entry, and at the end nothing is owed.
        #[test]
        fn every_answer_finds_what_was_asked(
            steps in prop::collection::vec((0usize..8, prop::bool::weighted(0.2), any::<bool>()), 1..200),
        ) {
            let (mut queue, mut said, mut skipping) = (Outstanding::default(), VecDeque::new(), false);
            let sync = (Asked::Sync as usize, false, true);
            for (asked, fails, hears) in steps.into_iter().chain([sync]) {
                let asked = ALL[asked];
                queue.push(Entry::of(asked));
                said.extend(server(asked, fails, &mut skipping));
                while hears && let Some(kind) = said.pop_front() {
                    let reply = queue.on_reply(kind);
                    prop_assert!(reply.is_ok(), "{:?}", reply);
                    if let Ok(Reply::Fails(_)) = reply {
                        queue.void(|_| {});
                    }
                }
            }
            prop_assert!(queue.is_empty(), "{queue:?}");
        }
    }
}
