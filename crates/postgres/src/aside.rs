//! What takes its time: getting a server, telling of a fault, leaving a server in order. Each takes the
//! client as a whole and gives it back.

use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::{Connection, Outcome};
use tieline_policy::Permit;
use tieline_pool::{Ask, Knock, Lease, Loan, Making, Purpose, Reuse, backoff};
use tieline_transport::Io;
use tieline_wire::postgres::Head;
use tieline_wire::postgres::backend::{Notice, push_error, push_ready};
use tieline_wire::postgres::frontend::kind;
use tokio::time::{sleep, timeout};

use crate::at_once::server_of;
use crate::census;
use crate::cluster::Cluster;
use crate::denials::Standing;
use crate::dressed::dressed;
use crate::errors;
use crate::in_line::Waited;
use crate::keys::Key;
use crate::link::Link;
use crate::login::Line;
use crate::notice::Patient;
use crate::recover::recover;
use crate::refusal::{Refusal, is_final, push_said};
use crate::roles::READS;
use crate::server::{Login, Server};
use crate::sign_in::Attempt;
use crate::stand::{Stood, stand};
use crate::talk::{Talk, Way, Who};

/// What comes after something that took its time.
pub(crate) enum Turn {
    /// The client goes on.
    Talk(Box<Talk>),
    /// It is gone.
    End(Outcome),
}

/// The first wait before a server is tried again, and the longest.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Gets the client a server, or tells it why there is none.
pub(crate) async fn link(mut talk: Box<Talk>) -> Turn {
    match attach(&mut talk).await {
        Ok(()) => Turn::Talk(talk),
        Err(refusal) => {
            // Whoever is refused keeps no place.
            talk.waited = None;
            refuse(talk, refusal).await
        }
    }
}

/// Gets the client a server that has the settings it wants.
pub(crate) async fn attach(talk: &mut Talk) -> Result<(), Refusal> {
    let began = talk.waited.as_ref().map_or_else(Clock::now, |waited| waited.began);
    let undressed = talk.undressed.take();
    let before = talk.way.generation;
    talk.find_way()?;
    // By another config it may be another server's turn: that one is closed.
    let got = match undressed.filter(|_| talk.way.generation == before) {
        Some(link) => Ok(*link),
        None => {
            talk.key.waiting();
            talk.row.waits(began);
            let got = lent(talk, began).await;
            talk.key.idle();
            got
        }
    };
    let (link, more) = dressed(talk, got?).await?;
    talk.hold(link);
    if !more.is_empty() {
        talk.down.resume(more);
    }
    talk.up.again = !talk.up.pending.is_empty();
    Ok(())
}

impl Talk {
    /// Looks up where its exchanges go, if the config has changed.
    fn find_way(&mut self) -> Result<(), Fault> {
        let generation = self.connection.generation();
        if self.way.generation == generation {
            return Ok(());
        }
        let postgres = self.connection.current::<crate::Postgres>()?;
        self.way = Way::find(postgres, generation, &self.who)?;
        // It is a place elsewhere.
        self.waited = None;
        self.row.joins(&self.way.pool);
        // Until its next batch nothing is foreseen by a route that leaves nothing to replicas.
        if self.way.target.reads.is_some() && self.reads.is_none() {
            self.reads = Some(Box::default());
        }
        Ok(())
    }
}

impl Way {
    /// The way of `who`.
    pub(crate) fn find(
        postgres: Arc<crate::Postgres>,
        generation: tieline_base::Generation,
        who: &Who,
    ) -> Result<Self, Fault> {
        let no_route = || Fault::new(Stage::Route, Whose::Client, Reason::RefusedNoRoute);
        let target = postgres.site.find(&who.database, &who.user).ok_or_else(no_route)?.clone();
        let login = Login::of(&target.login, &who.database, &who.user, &who.credential);
        let pool = census::pool(&who.database, &login.user, target.mode);
        Ok(Self { postgres, generation, target, login, pool })
    }
}

/// Waits for a server that the client holds then; not while its pool is halted.
async fn lent(talk: &mut Talk, began: Moment) -> Result<Link, Refusal> {
    let mut told = talk.waited.as_ref().is_some_and(|waited| waited.told);
    loop {
        if talk.way.pool.is_paused() {
            // Others may have it meanwhile.
            talk.waited = None;
            let record = talk.connection.record();
            record.enter(Stage::Acquire, began);
            record.expect(Duration::MAX, Reason::Idle);
            if let Some(untold) = talk.untold_for(began, told)
                && unless_given_up((&talk.key, &talk.io), timeout(untold, talk.way.pool.resumed()))
                    .await?
                    .is_err()
            {
                told = true;
                talk.tell_of_wait(began, "the database is paused").await;
            }
            let within = began.after(talk.way.target.acquire).since(Clock::now());
            let resumed =
                unless_given_up((&talk.key, &talk.io), timeout(within, talk.way.pool.resumed())).await?;
            let late = || Fault::new(Stage::Acquire, Whose::Us, Reason::TimeoutAcquire);
            resumed.map_err(|_| late().because("the pool is paused"))?;
        }
        let link = acquire(talk, began, &mut told).await?;
        if !talk.is_lent(&link.server, link.began, link.began.after(link.acquired_after)) {
            // It was halted meanwhile, and who did so counts the servers that are lent.
            link.server.rest(link.io, link.loan, link.making, Clock::now());
            continue;
        }
        return Ok(link);
    }
}

/// Waits for a server, and tries again for as long as that may take: whoever waits through a restart sees a
/// delay and no error.
async fn acquire(talk: &mut Talk, began: Moment, told: &mut bool) -> Result<Link, Refusal> {
    let target = talk.way.target.clone();
    let deadline = began.after(target.acquire);
    let client = talk.connection.record().client();
    let route = &target.route;
    let permit = talk.connection.decide(Some(route), client, began)?;
    talk.connection.expect(Duration::MAX, Reason::Idle);
    let cluster = target.cluster.as_deref();
    let (mut failures, mut said, mut reuse) = (0, None, Reuse::Any);
    if talk.way.login.denials.are_any() {
        // Whoever may have to wait for other things than a place gives it to the next.
        talk.waited = None;
    }
    loop {
        permitted(talk, began, deadline).await?;
        // Listened to from here on: a change while a lease is tried is none that is missed.
        let changed = cluster.map(Cluster::changed);
        let Some((purpose, leased)) = tried(talk, &permit, reuse, (began, told)).await? else { continue };
        let refusal = match leased {
            Ok(mut lease) => {
                let acquired = lease.connected_at();
                let knock = lease.take_knock();
                let (io, loan, making) = lease.into_parts();
                // One that is made in part is closed.
                let writes = talk.purpose() != READS;
                let Talk { connection, way, key, io: client, down, .. } = &mut *talk;
                let told_at = target.told_at(began);
                let patient =
                    Patient { connection, key, io: client, held: &mut down.held, began, told_at, told };
                let ready = ready((way, writes), io, (loan, making, knock), began, deadline);
                match patient.waits("a log-in to a server is under way", ready).await? {
                    // It waited in line, and roles may have moved.
                    Ok((io, server, loan, making))
                        if !loan.endpoint().fit().has(purpose) || !talk.still_needs(purpose) =>
                    {
                        server.rest(io, loan, making, Clock::now());
                        continue;
                    }
                    Ok((io, server, loan, making)) => {
                        return Ok(Link::new(io, server, (loan, making), began, acquired));
                    }
                    Err(refusal) => refusal,
                }
            }
            Err(fault) => Refusal::Fault(fault),
        };
        if !refusal.passes(&target) || Clock::now() >= deadline {
            return Err(refusal.or_said(said));
        }
        if talk.untold_for(began, *told).is_some_and(|untold| untold.is_zero()) {
            *told = true;
            talk.tell_of_wait(began, &refusal.to_string()).await;
        }
        if refusal.is_for_want_of_room() {
            reuse = Reuse::Anywhere;
        }
        said = refusal.words().or(said);
        failures += 1;
        let pause =
            backoff(failures, BACKOFF, BACKOFF_MAX, fastrand::u64(..)).min(deadline.since(Clock::now()));
        match cluster.zip(changed) {
            Some((cluster, changed)) => {
                cluster.suspect();
                // Whichever comes first.
                let _ = unless_given_up((&talk.key, &talk.io), timeout(pause, changed)).await?;
            }
            None => unless_given_up((&talk.key, &talk.io), sleep(pause)).await?,
        }
    }
}

/// A lease, or why there is none, and what it was asked for. `None`: another line moves by now.
async fn tried(
    talk: &mut Talk,
    permit: &Permit,
    reuse: Reuse,
    (began, told): (Moment, &mut bool),
) -> Result<Option<(Purpose, Result<Lease, Fault>)>, Refusal> {
    let now = Clock::now();
    let (ask, mut waited) =
        (Ask { reuse, until: Some(began.after(talk.way.target.acquire)), ..talk.ask() }, talk.waited.take());
    let (purpose, need) = (ask.purpose, talk.need());
    let stood = match waited {
        Some(_) => Stood::Nowhere,
        None => stand(talk, permit, &ask, began, told).await?,
    };
    let mut lent = None;
    match stood {
        Stood::Lent(lease) => lent = Some(lease),
        Stood::Granted(granted) => waited = Some(granted),
        Stood::Changed => return Ok(None),
        Stood::Nowhere => {}
    }
    let Talk { connection, way, key, io, down, .. } = &mut *talk;
    let way = &*way;
    // All may be dropped: a wait gives its place back.
    let leased = async {
        tokio::select! {
            biased;
            leased = leased((connection, way), permit, ask, (lent, waited), (began, now)) => {
                Ok(Some((purpose, leased)))
            }
            said = denied(way, began) => Err(Refusal::Said(said)),
            // In line for what there is no more.
            () = need.changes_from(purpose, &way.target) => Ok(None),
        }
    };
    let told_at = way.target.told_at(began);
    let patient = Patient { connection, key, io, held: &mut down.held, began, told_at, told };
    patient.waits("none is free, and none could be connected to", leased).await?
}

/// A lease for a client that waits since `began`: what it was `lent`, or the rest of what it has `waited`
/// for, or a new one.
async fn leased(
    (connection, way): (&Connection, &Way),
    permit: &Permit,
    ask: Ask,
    (lent, waited): (Option<Lease>, Option<Box<Waited>>),
    (began, now): (Moment, Moment),
) -> Result<Lease, Fault> {
    if let Some(lease) = lent {
        return Ok(lease);
    }
    let route = &way.target.route;
    match waited {
        Some(waited) => connection.acquire_granted(route, waited.granted, &ask, began).await,
        None => connection.acquire_unwatched(route, permit, ask, now).await,
    }
}

/// What comes of `wait`, which may be dropped, unless the client at `io` goes before that or the wait is
/// cancelled by its `key`.
pub(crate) async fn unless_given_up<T>(
    (key, io): (&Key, &Io),
    wait: impl Future<Output = T>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        () = key.cancelled() => Err(Refusal::Cancelled),
        done = wait => Ok(done),
        () = io.broken() => Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset).into()),
    }
}

/// Returns when the client may try, or with what was said to those who asked when it did.
async fn permitted(talk: &Talk, asked: Moment, deadline: Moment) -> Result<(), Refusal> {
    loop {
        // Listened to from here on.
        let changed = talk.way.login.denials.changed();
        let again = match talk.way.standing(asked) {
            Standing::Free => return Ok(()),
            Standing::Denied(said) => return Err(Refusal::Said(said)),
            Standing::Later(again) => again,
        };
        let pause = again.since(Clock::now()).min(deadline.since(Clock::now()));
        // All may be dropped.
        tokio::select! {
            () = talk.key.cancelled() => return Err(Refusal::Cancelled),
            () = talk.io.broken() => {
                return Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset).into());
            }
            () = changed => {}
            () = sleep(pause) => if Clock::now() >= deadline {
                return Err(Fault::new(Stage::Acquire, Whose::Us, Reason::TimeoutAcquire).into());
            }
        }
    }
}

/// Waits until all servers have refused the log-in of `way`, after it was `asked` for: with what one said.
pub(crate) async fn denied(way: &Way, asked: Moment) -> Box<[u8]> {
    loop {
        let changed = way.login.denials.changed();
        if let Some(said) = way.login.denials.since(|| way.servers(), asked) {
            return said;
        }
        changed.await;
    }
}

impl Way {
    /// Whether somebody who `asked` then may try to get a server.
    fn standing(&self, asked: Moment) -> Standing {
        self.login.denials.standing(|| self.servers(), asked, Clock::now())
    }

    /// The names of all its servers.
    fn servers(&self) -> Vec<Arc<str>> {
        let endpoints = self.target.route.upstream.as_ref().map(|upstream| upstream.endpoints());
        endpoints.iter().flatten().map(|endpoint| endpoint.shared_label()).collect()
    }
}

/// Logs in at a connection that is new.
async fn ready(
    (way, writes): (&Way, bool),
    io: Io,
    (loan, mut making, knock): (Loan, Making, Option<Knock>),
    began: Moment,
    deadline: Moment,
) -> Result<(Io, Box<Server>, Loan, Making), Refusal> {
    match server_of(&mut making) {
        Some(Ok(server)) => return Ok((io, server, loan, making)),
        Some(Err(_)) => return Err(Fault::new(Stage::Acquire, Whose::Us, Reason::Internal).into()),
        None => {}
    }
    let login = &way.login;
    let log_in = login.log_in();
    let attempt = Attempt { way, loan: &loan, knock, log_in, writes, began, deadline };
    let (io, ready) = attempt.run(io).await?;
    let server = Box::new(Server::new(login.clone(), ready, loan.endpoint(), &way.pool, &io));
    Ok((io, server, loan, making))
}

/// Tells a client that it gets no server for what it asked; it may ask again.
pub(crate) async fn refuse(mut talk: Box<Talk>, refusal: Refusal) -> Turn {
    let out = talk.down.held.bytes();
    match &refusal {
        Refusal::Fault(fault) if is_final(fault) => {
            let Refusal::Fault(fault) = refusal else { unreachable!("matched in the line above") };
            return finish(talk, fault).await;
        }
        Refusal::Fault(fault) => {
            errors::push(out, fault, false);
            talk.connection.record().note(format!("got no server: {fault}"));
        }
        Refusal::Said(body) => push_said(out, body, b"ERROR"),
        Refusal::Cancelled => push_error(
            out,
            &Notice {
                code: Some(b"57014"),
                message: Some(b"canceling statement due to user request"),
                ..Notice::default()
            },
        ),
    }
    talk.void_asked();
    let now = Clock::now();
    talk.rest(now);
    Turn::Talk(talk)
}

impl Talk {
    /// What the client asked is answered by an error: a query is done with, and anything else is void up to
    /// its Sync.
    fn void_asked(&mut self) {
        self.forget_foreseen();
        let first = Head::read(&self.up.pending).ok().flatten();
        match first {
            Some(head) if matches!(head.kind, kind::QUERY | kind::FUNCTION_CALL) => {
                push_ready(self.down.held.bytes(), Default::default());
                self.up.drop_first(head);
            }
            _ => self.up.voids = true,
        }
        self.up.again = !self.up.pending.is_empty();
    }
}

/// How long a client may take to hear our last words.
pub(crate) const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// Ends the client's connection for `fault`, and tells it so.
pub(crate) async fn finish(mut talk: Box<Talk>, fault: Fault) -> Turn {
    let told = talk.link.as_ref().is_some_and(|link| link.fatal) && fault.whose == Whose::Upstream;
    if fault.whose == Whose::Upstream
        && let Some(cluster) = &talk.way.target.cluster
    {
        cluster.suspect();
    }
    let gone = matches!(fault.reason, Reason::ClientReset | Reason::ClientClosed);
    abandon(&mut talk, fault.whose == Whose::Upstream);
    if !gone {
        let mut last = std::mem::take(talk.down.held.bytes());
        if !told {
            errors::push(&mut last, &fault, true);
        }
        let mut line = Line::new(talk.io);
        // Whoever does not listen is not told.
        let _ = timeout(LAST_WORDS_WITHIN, line.write(&last)).await;
    }
    Turn::End(Err(fault))
}

/// Ends the client's connection in order; `reason` says whose wish that was.
pub(crate) async fn leave(mut talk: Box<Talk>, reason: Reason) -> Turn {
    abandon(&mut talk, false);
    if reason != Reason::ClientClosed {
        let mut last = std::mem::take(talk.down.held.bytes());
        errors::push(&mut last, &Fault::new(Stage::Relay, Whose::Us, reason), true);
        let mut line = Line::new(talk.io);
        let _ = timeout(LAST_WORDS_WITHIN, line.write(&last)).await;
    }
    Turn::End(Ok(reason))
}

/// Lets go of the server, which is put in order aside; one that `is_broken` is closed.
fn abandon(talk: &mut Talk, is_broken: bool) {
    let Some(link) = talk.unlink() else { return };
    talk.tell(link.began, Clock::now(), link.acquired_after, Reason::ClientClosed);
    let whole = talk.up.is_between() && talk.down.is_whole();
    if is_broken || link.fatal || !whole {
        // What was said in part would be made whole by the next client's words.
        return;
    }
    let undoes_all = talk.way.target.resets && link.acted;
    let dirty = talk.keeps_server() || link.listens || !link.suspicion.is_none() || undoes_all;
    let lasting = (talk.pins | link.suspicion).has(tieline_wire::postgres::sql::Suspicion::LASTING);
    if !lasting {
        // If too much is put in order at once, it is closed instead.
        talk.connection.aside(recover(link, dirty));
    }
}
