//! Approvals: what somebody may do only after another has agreed, and for how long that holds.
//!
//! Pure: the time, and what makes an id nobody's guess, are arguments. Start with [`Ledger::ask`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tieline_base::{Moment, Proved};

use crate::{AdminPermit, Names};

/// Requests for approvals, and approvals. Bounded, and of this process alone.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By the time at which they were asked.
    requests: Vec<Request>,
}

/// What a request is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ApprovalId(u32);

/// What a route asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Terms {
    /// Who may answer, beside operators.
    pub by: Names,
    /// The same in the words of the config.
    pub asks: Box<str>,
    /// The longest that an approval holds.
    pub holds: Duration,
    /// How long a request waits.
    pub wait: Duration,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Who.
    pub person: &'a str,
    /// What he wants to reach.
    pub service: &'a str,
    /// What for, in his words; may be empty.
    pub why: &'a str,
}

/// One request, from its asking to its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is called.
    pub id: ApprovalId,
    /// Who asked.
    pub person: Box<str>,
    /// What for.
    pub service: Box<str>,
    /// Why, in his words; may be empty.
    pub why: Box<str>,
    /// When.
    pub asked: Moment,
    /// Who may answer, as the config has it now.
    pub terms: Terms,
    /// How it stood when that was last looked after; [`Request::state_at`] is exact.
    pub state: State,
    /// Who answered, and what he said.
    pub answer: Option<Answer>,
}

/// Somebody's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Who.
    pub by: Box<str>,
    /// When.
    pub at: Moment,
    /// In his words; may be empty.
    pub note: Box<str>,
}

/// How a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It waits for an answer until then.
    Waits(Moment),
    /// It was approved, until then.
    Approved(Moment),
    /// It was denied, or taken back by who asked.
    Denied,
    /// Nobody answered in time.
    Unanswered,
    /// It was approved, and its time is over.
    Over,
    /// It was approved, and that was taken back.
    Revoked,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waits(_) => "waiting",
            State::Approved(_) => "approved",
            State::Denied => "denied",
            State::Unanswered => "unanswered",
            State::Over => "over",
            State::Revoked => "revoked",
        }
    }

    /// Until when it stands so by itself; `None`: for good.
    pub fn until(self) -> Option<Moment> {
        match self {
            State::Waits(until) | State::Approved(until) => Some(until),
            State::Denied | State::Unanswered | State::Over | State::Revoked => None,
        }
    }
}

/// Who answers, and by what he has proved that.
#[derive(Clone, Copy, Debug)]
pub enum Answerer<'a> {
    /// An operator. He may answer everything.
    Operator {
        /// Proof that he is one.
        permit: &'a AdminPermit,
        /// What is known of him.
        called: &'a str,
    },
    /// Somebody who proved who he is. He may answer what the config lets him, and nothing of his own.
    Person(&'a Proved),
}

/// No request can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// There are too many of this person.
    #[error("{WAITING_MAX} requests of yours wait already; let them be answered first")]
    Person,
    /// There are too many of all.
    #[error("too many requests wait for approval; try again later")]
    All,
}

/// Why an answer does not count.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerError {
    /// None of that id, or none that is his business.
    #[error("there is no request {0} that you may answer; `tieline approvals` lists those there are")]
    Unknown(ApprovalId),
    /// It is his own.
    #[error("request {0} is your own: somebody else has to approve it")]
    Own(ApprovalId),
    /// It has its answer.
    #[error("request {0} waits no more: it is {1}")]
    Answered(ApprovalId, &'static str),
    /// Longer than the config lets it.
    #[error("an approval of {service} holds for {} s at the most; say so much or less", .most.as_secs())]
    TooLong {
        /// What for.
        service: Box<str>,
        /// How long it may be.
        most: Duration,
    },
}

/// The most requests of one person that wait.
pub const WAITING_MAX: usize = 8;

/// The most requests of all that wait.
pub const WAITING_ALL_MAX: usize = 256;

/// The most that wait or hold.
const STANDING_MAX: usize = 1_024;

/// How many of those that are over are remembered.
const OVER_MAX: usize = 100;

/// The longest reason or note, in bytes.
pub const WORDS_MAX: usize = 200;

impl Ledger {
    /// Asks for `wish` by `terms`. Whoever asks again for the same joins his request, or uses his approval;
    /// `terms` are what holds for it from now on. `number` makes the id of a new one.
    ///
    /// # Errors
    /// [`Full`].
    pub fn ask(
        &mut self,
        wish: &Wish<'_>,
        terms: &Terms,
        number: impl FnMut() -> u32,
        now: Moment,
    ) -> Result<&Request, Full> {
        let at = match self.standing(wish, terms, now) {
            Some(at) => at,
            None => self.enter(wish, terms, number, now)?,
        };
        Ok(&self.requests[at])
    }

    /// Where the request stands that is for the same.
    fn standing(&mut self, wish: &Wish<'_>, terms: &Terms, now: Moment) -> Option<usize> {
        let same = |request: &Request| *request.person == *wish.person && *request.service == *wish.service;
        let at = self.requests.iter().position(|request| same(request) && request.stands(now))?;
        self.requests[at].obey(terms);
        // Other terms may have ended it just now.
        self.requests[at].stands(now).then_some(at)
    }

    fn enter(
        &mut self,
        wish: &Wish<'_>,
        terms: &Terms,
        number: impl FnMut() -> u32,
        now: Moment,
    ) -> Result<usize, Full> {
        let waits = |request: &&Request| matches!(request.state, State::Waits(_));
        let waiting = || self.requests.iter().filter(waits);
        if waiting().filter(|request| *request.person == *wish.person).count() >= WAITING_MAX {
            return Err(Full::Person);
        }
        let standing = self.requests.iter().filter(|request| request.state.until().is_some());
        if waiting().count() >= WAITING_ALL_MAX || standing.count() >= STANDING_MAX {
            return Err(Full::All);
        }
        let free = |id: &ApprovalId| self.requests.iter().all(|request| request.id != *id);
        let id = std::iter::repeat_with(number).map(|number| ApprovalId(number & ID_MASK)).find(free);
        self.requests.push(Request {
            // What repeats has no end.
            id: id.ok_or(Full::All)?,
            person: wish.person.into(),
            service: wish.service.into(),
            why: plain(wish.why),
            asked: now,
            terms: terms.clone(),
            state: State::Waits(now.after(terms.wait)),
            answer: None,
        });
        Ok(self.requests.len() - 1)
    }

    /// Agrees to what waits, for as long as its terms say, or for `holds` if that is less.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn approve(
        &mut self,
        id: ApprovalId,
        by: &Answerer<'_>,
        holds: Option<Duration>,
        note: &str,
        now: Moment,
    ) -> Result<&Request, AnswerError> {
        let request = self.find(id, by)?;
        if by.is(&request.person) {
            return Err(AnswerError::Own(id));
        }
        let State::Waits(_) = request.state_at(now) else {
            return Err(AnswerError::Answered(id, request.state_at(now).as_str()));
        };
        let most = request.terms.holds;
        if holds.is_some_and(|holds| holds > most) {
            return Err(AnswerError::TooLong { service: request.service.clone(), most });
        }
        request.state = State::Approved(now.after(holds.unwrap_or(most)));
        request.answer = Some(Answer { by: by.called(), at: now, note: plain(note) });
        Ok(request)
    }

    /// Refuses what waits, or takes an approval back. Who asked may take back his own.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn deny(
        &mut self,
        id: ApprovalId,
        by: &Answerer<'_>,
        note: &str,
        now: Moment,
    ) -> Result<&Request, AnswerError> {
        let request = self.find(id, by)?;
        request.state = match request.state_at(now) {
            State::Waits(_) => State::Denied,
            State::Approved(_) => State::Revoked,
            over => return Err(AnswerError::Answered(id, over.as_str())),
        };
        request.answer = Some(Answer { by: by.called(), at: now, note: plain(note) });
        Ok(request)
    }

    fn find(&mut self, id: ApprovalId, by: &Answerer<'_>) -> Result<&mut Request, AnswerError> {
        let found = self.requests.iter_mut().find(|request| request.id == id);
        found.filter(|request| by.sees(request)).ok_or(AnswerError::Unknown(id))
    }

    /// The request `id`; `None` if it is long over.
    pub fn look(&self, id: ApprovalId) -> Option<&Request> {
        self.requests.iter().find(|request| request.id == id)
    }

    /// Whether the approval `id` still holds, now that `terms` are asked for.
    pub fn holds(&mut self, id: ApprovalId, terms: &Terms, now: Moment) -> bool {
        let found = self.requests.iter_mut().find(|request| request.id == id);
        found.is_some_and(|request| {
            request.obey(terms);
            matches!(request.state_at(now), State::Approved(_))
        })
    }

    /// What concerns `by`, in order of time.
    pub fn seen_by(&self, by: &Answerer<'_>) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| by.sees(request))
    }

    /// Ends what has had its time, tells of it, and forgets what is long over. To be called often.
    pub fn pass(&mut self, now: Moment) -> Vec<Request> {
        let mut ended = Vec::new();
        for request in self.requests.iter_mut().filter(|request| request.state_at(now) != request.state) {
            request.state = request.state_at(now);
            ended.push(request.clone());
        }
        let over = self.requests.iter().filter(|request| request.state.until().is_none()).count();
        let mut forgotten = over.saturating_sub(OVER_MAX);
        self.requests.retain(|request| {
            let forget = forgotten > 0 && request.state.until().is_none();
            forgotten -= usize::from(forget);
            !forget
        });
        ended
    }
}

impl Request {
    /// How it stands at `now`, whether or not [`Ledger::pass`] has told of it.
    pub fn state_at(&self, now: Moment) -> State {
        match self.state {
            State::Waits(until) if until <= now => State::Unanswered,
            State::Approved(until) if until <= now => State::Over,
            state => state,
        }
    }

    fn stands(&self, now: Moment) -> bool {
        self.state_at(now).until().is_some()
    }

    /// Other terms may shorten what was said by those before them, and lengthen nothing.
    fn obey(&mut self, terms: &Terms) {
        self.state = match (self.state, &self.answer) {
            (State::Waits(until), _) => State::Waits(until.min(self.asked.after(terms.wait))),
            (State::Approved(until), Some(answer)) => {
                State::Approved(until.min(answer.at.after(terms.holds)))
            }
            (over, _) => over,
        };
        if self.terms != *terms {
            self.terms = terms.clone();
        }
    }
}

impl Answerer<'_> {
    /// What he is called in logs.
    fn called(&self) -> Box<str> {
        match self {
            Answerer::Operator { called, .. } => (*called).into(),
            Answerer::Person(proved) => proved.name.clone(),
        }
    }

    fn is(&self, person: &str) -> bool {
        matches!(self, Answerer::Person(proved) if *proved.name == *person)
    }

    /// Whether a request is his business: his own, or one that he may answer.
    fn sees(&self, request: &Request) -> bool {
        match self {
            Answerer::Operator { .. } => true,
            Answerer::Person(proved) => self.is(&request.person) || request.terms.by.hold(proved),
        }
    }
}

/// Three bytes: short enough to be read out, and one that was forgotten is hardly given out again.
const ID_MASK: u32 = 0xff_ffff;

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

/// A text that is no request's id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is no request's id, which has six of the digits 0 to 9 and a to f, like 03f2a1")]
pub struct NoApprovalId(String);

impl FromStr for ApprovalId {
    type Err = NoApprovalId;

    fn from_str(text: &str) -> Result<Self, NoApprovalId> {
        let digits = text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(ApprovalId).ok_or_else(|| NoApprovalId(text.escape_debug().to_string()))
    }
}

/// As much of somebody's words as is kept: up to the first control character.
fn plain(words: &str) -> Box<str> {
    let end = words.find(char::is_control).unwrap_or(words.len());
    words[..words[..end].floor_char_boundary(WORDS_MAX)].trim().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::AdminSubject;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(minutes: u64) -> Moment {
        Moment(0).after(Duration::from_secs(60 * minutes))
    }

    fn terms() -> Terms {
        let by = Names { names: HashSet::from(["lead".into()]), groups: HashSet::from(["leads".into()]) };
        Terms { by, asks: "lead, group:leads".into(), holds: HOUR, wait: HOUR / 4 }
    }

    fn proved(name: &str, groups: &[&str]) -> Proved {
        let groups = groups.iter().map(|&group| group.into()).collect();
        Proved { name: name.into(), by: "a token".into(), groups, certificates: Vec::new() }
    }

    fn wish<'a>(person: &'a str, service: &'a str) -> Wish<'a> {
        Wish { person, service, why: "a valve is stuck" }
    }

    /// A ledger, and numbers that repeat themselves at times.
    struct Desk(Ledger, u32);

    impl Desk {
        fn new() -> Desk {
            Desk(Ledger::default(), 0)
        }

        fn ask_by(
            &mut self,
            terms: &Terms,
            person: &str,
            service: &str,
            now: Moment,
        ) -> Result<Request, Full> {
            let Desk(ledger, last) = self;
            let number = || {
                *last += 1;
                *last / 2
            };
            ledger.ask(&wish(person, service), terms, number, now).cloned()
        }

        fn ask(&mut self, person: &str, service: &str, now: Moment) -> Request {
            self.ask_by(&terms(), person, service, now).unwrap()
        }
    }

    fn operator() -> AdminPermit {
        AdminPermit::decide(AdminSubject::Peer { uid: 0, ours: 0 }).unwrap()
    }

    #[test]
    fn one_request_for_one_person_and_service_and_an_approval_is_used_until_it_is_over() {
        let mut desk = Desk::new();
        let asked = desk.ask("ana", "plant-7/ssh", at(0));
        assert_eq!(asked.state, State::Waits(at(15)));
        assert_eq!(desk.ask("ana", "plant-7/ssh", at(5)).id, asked.id);
        assert_ne!(desk.ask("ana", "plant-7/db", at(5)).id, asked.id);
        assert_ne!(desk.ask("bob", "plant-7/ssh", at(5)).id, asked.id);
        let (permit, called) = (operator(), "operator uid 0");
        let by = Answerer::Operator { permit: &permit, called };
        let approved = desk.0.approve(asked.id, &by, None, "go\nahead", at(10)).unwrap();
        assert_eq!(approved.state, State::Approved(at(70)));
        assert_eq!(approved.answer, Some(Answer { by: called.into(), at: at(10), note: "go".into() }));
        assert!(desk.0.pass(at(69)).iter().all(|ended| ended.id != asked.id));
        assert_eq!(desk.ask("ana", "plant-7/ssh", at(69)).state, State::Approved(at(70)));
        assert!(desk.0.holds(asked.id, &terms(), at(69)) && !desk.0.holds(asked.id, &terms(), at(70)));
        // Before anybody has looked after it, too.
        let again = desk.ask("ana", "plant-7/ssh", at(70));
        assert!(again.id != asked.id && again.state == State::Waits(at(85)));
        let ended = desk.0.pass(at(71));
        assert_eq!(
            ended.iter().map(|ended| (ended.id, ended.state)).collect::<Vec<_>>(),
            [(asked.id, State::Over)]
        );
    }

    #[test]
    fn who_may_answer_is_what_the_terms_say_and_never_who_asked() {
        let mut desk = Desk::new();
        let id = desk.ask("lead", "plant-7/ssh", at(0)).id;
        let unknown = Err(AnswerError::Unknown(id));
        let approve = |desk: &mut Desk, by: &Proved| {
            desk.0.approve(id, &Answerer::Person(by), None, "", at(1)).map(|request| request.state)
        };
        assert_eq!(approve(&mut desk, &proved("bob", &["support"])), unknown);
        assert_eq!(approve(&mut desk, &proved("lead", &["leads"])), Err(AnswerError::Own(id)));
        let (eve, other) = (proved("eve", &[]), proved("carl", &["leads"]));
        assert_eq!(desk.0.seen_by(&Answerer::Person(&eve)).count(), 0);
        assert_eq!(desk.0.deny(id, &Answerer::Person(&eve), "", at(1)).err(), unknown.err());
        assert_eq!(approve(&mut desk, &other), Ok(State::Approved(at(61))));
        assert_eq!(approve(&mut desk, &other), Err(AnswerError::Answered(id, "approved")));
        let revoked = desk.0.deny(id, &Answerer::Person(&other), "", at(2)).unwrap();
        assert_eq!(revoked.state, State::Revoked);
        // Who asked may change his mind.
        let own = desk.ask("lead", "plant-7/ssh", at(3)).id;
        let denied = desk.0.deny(own, &Answerer::Person(&proved("lead", &[])), "", at(3)).unwrap();
        assert_eq!(denied.state, State::Denied);
    }

    #[test]
    fn an_answer_shortens_and_so_do_other_terms() {
        let mut desk = Desk::new();
        let permit = operator();
        let by = Answerer::Operator { permit: &permit, called: "operator" };
        let id = desk.ask("ana", "plant-7/ssh", at(0)).id;
        let more = desk.0.approve(id, &by, Some(2 * HOUR), "", at(0)).unwrap_err();
        assert!(matches!(more, AnswerError::TooLong { most: HOUR, .. }), "{more}");
        desk.0.approve(id, &by, Some(HOUR / 2), "", at(0)).unwrap();
        let longer = Terms { holds: 3 * HOUR, ..terms() };
        assert!(desk.0.holds(id, &longer, at(29)) && !desk.0.holds(id, &longer, at(30)));
        let id = desk.ask("ana", "plant-7/db", at(0)).id;
        desk.0.approve(id, &by, None, "", at(0)).unwrap();
        let shorter = Terms { holds: HOUR / 4, ..terms() };
        assert!(!desk.0.holds(id, &shorter, at(20)));
        // Who may answer follows the config as well.
        let id = desk.ask("ana", "plant-7/web", at(0)).id;
        let nobody = Terms { by: Names::default(), ..terms() };
        desk.ask_by(&nobody, "ana", "plant-7/web", at(1)).unwrap();
        let lead = proved("lead", &[]);
        assert!(desk.0.approve(id, &Answerer::Person(&lead), None, "", at(1)).is_err());
    }

    #[test]
    fn nobody_answers_and_the_request_is_over() {
        let mut desk = Desk::new();
        let id = desk.ask("ana", "plant-7/ssh", at(0)).id;
        assert!(desk.0.pass(at(14)).is_empty());
        assert_eq!(desk.0.pass(at(15))[0].state, State::Unanswered);
        let permit = operator();
        let by = Answerer::Operator { permit: &permit, called: "operator" };
        let late = desk.0.approve(id, &by, None, "", at(16)).unwrap_err();
        assert_eq!(late, AnswerError::Answered(id, "unanswered"));
        // Nor is it answered in the moment before somebody notices.
        let id = desk.ask("ana", "plant-7/ssh", at(20)).id;
        assert!(desk.0.approve(id, &by, None, "", at(40)).is_err());
    }

    #[test]
    fn there_is_no_end_of_askers_and_an_end_of_requests() {
        let mut desk = Desk::new();
        for number in 0..WAITING_MAX {
            desk.ask("ana", &format!("plant-7/{number}"), at(0));
        }
        assert_eq!(desk.ask_by(&terms(), "ana", "plant-7/x", at(0)).unwrap_err(), Full::Person);
        desk.ask("ana", "plant-7/1", at(1));
        for number in WAITING_MAX..WAITING_ALL_MAX {
            desk.ask(&format!("person-{number}"), "plant-7/ssh", at(0));
        }
        assert_eq!(desk.ask_by(&terms(), "bob", "plant-7/ssh", at(0)).unwrap_err(), Full::All);
        assert_eq!(desk.0.pass(at(16)).len(), WAITING_ALL_MAX);
        assert_eq!(desk.0.requests.len(), OVER_MAX);
        desk.ask("bob", "plant-7/ssh", at(16));
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = ApprovalId(0x3f2a);
        assert_eq!((id.to_string().as_str(), "003f2a".parse()), ("003f2a", Ok(id)));
        for text in ["", "3f2a", "+03f2a", "003f2g", "0003f2a"] {
            assert!(text.parse::<ApprovalId>().is_err(), "{text}");
        }
    }
}
