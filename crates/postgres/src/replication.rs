//! Connections for replication. Each has one server of its own from its log-in to its end: a stream knows no
//! end of a transaction at which others could have the server. Once both have logged in, bytes pass as they
//! are; where messages end is followed until a stream begins, so that a connection that rests can be told
//! from one that is served.

mod passing;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::{Connection, Outcome};
use tieline_policy::Permit;
use tieline_pool::{Ask, Exemption, Loan, Reuse, backoff};
use tieline_registry::Record;
use tieline_transport::{Closed, Duplex, Io, Meter, Side};
use tieline_wire::postgres::backend::{kind, push_key, push_parameter, push_ready};
use tieline_wire::postgres::startup::Replication;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use self::passing::Passing;
use crate::aside::{LAST_WORDS_WITHIN, unless_given_up};
use crate::census::{self, Client, ClientRow, Count, Listed, Pool};
use crate::client::one_too_many;
use crate::errors;
use crate::fair::share_of;
use crate::keys::{Backend, Key};
use crate::login::server::{LogIn, Ready, ServerLogin};
use crate::login::{Credential, Line, Parameter, Startup};
use crate::refusal::Refusal;
use crate::roles::READS;
use crate::server::{Login, listed};
use crate::sign_in::Attempt;
use crate::site::Site;
use crate::talk::{Way, client_gone, server_gone};

/// A route takes no connections for replication. They read all that a server holds, or a database, whatever
/// tables its user may read, and keep a server for as long as they like: a route has to say that it wants
/// that.
#[derive(Debug, thiserror::Error)]
#[error("route \"{route}\" takes no connections for replication (`replication = true` in it does)")]
pub(crate) struct NotReplicated {
    route: Box<str>,
}

/// What a server as a whole is called where a database would stand, as in `pg_hba.conf`.
const WHOLE_SERVER: &str = "replication";

/// The first wait before a server is tried again, and the longest.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Why the connection of `record` would not be let in again, if it is one for replication.
pub(crate) fn disowned(site: &Site, record: &Record) -> Option<String> {
    let target = site.heir(&*record.route()?)?;
    let no = !target.replication && census::replicates(record.id());
    no.then(|| NotReplicated { route: target.route.row.name.as_ref().into() }.to_string())
}

/// Serves a client that has proved who it is and would replicate, to its end.
pub(crate) async fn serve(
    connection: Connection,
    mut line: Line,
    startup: Startup,
    credential: Credential,
) -> Outcome {
    let wanting = match Wanting::new(connection, &line.io, startup, credential) {
        Ok(wanting) => wanting,
        Err(fault) => return Err(Refusal::Fault(fault).tell(&mut line).await),
    };
    let began = Clock::now();
    match wanting.server(&line.io, began).await {
        Ok(served) => wanting.serve(line, served, began).await,
        Err(refusal) => Err(refusal.tell(&mut line).await),
    }
}

/// A client that wants a server to replicate.
struct Wanting {
    connection: Connection,
    way: Way,
    /// What it begins with, for the server to judge.
    parameters: Vec<Parameter>,
    what: Replication,
    permit: Permit,
    ask: Ask,
    row: Client,
    key: Key,
}

/// A server that was logged in to for it.
struct Served {
    io: Io,
    loan: Loan,
    ready: Ready,
}

impl Wanting {
    fn new(connection: Connection, io: &Io, startup: Startup, credential: Credential) -> Result<Self, Fault> {
        let Startup { protocol, user, database, mut parameters, replication } = startup;
        let what = replication.unwrap_or(Replication::Physical);
        let postgres = connection.current::<crate::Postgres>()?;
        let no_route = || Fault::new(Stage::Route, Whose::Client, Reason::RefusedNoRoute);
        let target = postgres.site.find(&database, &user).ok_or_else(no_route)?.clone();
        let name = if what == Replication::Physical { WHOLE_SERVER } else { &*database };
        census::admits(name)?;
        let client = connection.record().client();
        let permit = connection.decide(Some(&target.route), client, Clock::now())?;
        if !target.replication {
            let fault = Fault::new(Stage::Authorize, Whose::Client, Reason::RefusedPolicy);
            return Err(fault.because(NotReplicated { route: target.route.row.name.as_ref().into() }));
        }
        let application = parameters.iter().find(|(name, _)| **name == *b"application_name");
        let application = application.map(|(_, value)| &**value);
        let row = ClientRow::new(&connection, io, (name, &user), application, Some(what));
        let login = login(&target.login, what, (&database, &user), &credential);
        let pool = census::pool(name, &login.user, target.mode);
        row.joins(&pool);
        let limits = (postgres.settings.seats.of(&user), target.clients);
        let row = Client::seat(row, limits).map_err(one_too_many)?;
        let ask = Ask {
            hash: connection.hash(&target.route.hash_by, client),
            reuse: Reuse::Alone,
            priority: target.route.priority,
            share: share_of(&user),
            user: Ask::user_of(client),
            ..Ask::default()
        };
        parameters.insert(0, (b"replication"[..].into(), what.parameter().into()));
        let short = |error| Fault::new(Stage::Identify, Whose::Us, Reason::Exhausted).because(error);
        let key = Key::new(protocol).map_err(short)?;
        connection.record().note(format!("{} replication, by a server of its own", what.as_str()));
        let generation = connection.generation();
        let way = Way { postgres, generation, target, login, pool };
        Ok(Self { connection, way, parameters, what, permit, ask, row, key })
    }

    /// Waits for a server, and tries again for as long as that may take.
    async fn server(&self, io: &Io, began: Moment) -> Result<Served, Refusal> {
        let deadline = began.after(self.way.target.acquire);
        self.connection.expect(Duration::MAX, Reason::Idle);
        self.key.waiting();
        self.row.waits(began);
        let (mut failures, mut said) = (0, None);
        loop {
            let attempt = self.attempt(io, began, deadline);
            // What is made in part is closed.
            let refusal = match unless_given_up((&self.key, io), attempt).await? {
                Ok(served) => return Ok(served),
                Err(refusal) => refusal,
            };
            if !refusal.passes(&self.way.target) || Clock::now() >= deadline {
                return Err(refusal.or_said(said));
            }
            said = refusal.words().or(said);
            if let Some(cluster) = &self.way.target.cluster {
                cluster.suspect();
            }
            failures += 1;
            let pause = backoff(failures, BACKOFF, BACKOFF_MAX, fastrand::u64(..));
            unless_given_up((&self.key, io), sleep(pause.min(deadline.since(Clock::now())))).await?;
        }
    }

    /// One try; not while its pool is halted.
    async fn attempt(&self, io: &Io, began: Moment, deadline: Moment) -> Result<Served, Refusal> {
        let Self { connection, way, .. } = self;
        let now = Clock::now();
        if way.pool.is_paused() {
            connection.record().enter(Stage::Acquire, now);
            let late = |_| Fault::new(Stage::Acquire, Whose::Us, Reason::TimeoutAcquire);
            let resumed = timeout(deadline.since(now), way.pool.resumed()).await;
            resumed.map_err(|error| late(error).because("the pool is paused"))?;
        }
        let purpose = way.target.purpose();
        let ask = Ask { purpose, until: Some(deadline), ..self.ask };
        let mut lease = connection.acquire(&way.target.route, &self.permit, ask, io, Clock::now()).await?;
        let knock = lease.take_knock();
        let (server, loan) = lease.split();
        let log_in = LogIn {
            // Servers look at no database then, and some program between might.
            database: if self.what == Replication::Physical { WHOLE_SERVER } else { &way.login.database },
            parameters: &self.parameters,
            ..way.login.log_in()
        };
        let writes = purpose != READS;
        let (server, ready) =
            Attempt { way, loan: &loan, knock, log_in, writes, began, deadline }.run(server).await?;
        if !loan.endpoint().fit().has(purpose) {
            let fault = Fault::new(Stage::Acquire, Whose::Upstream, Reason::Unreachable);
            return Err(fault.because("roles have moved").into());
        }
        Ok(Served { io: server, loan, ready })
    }

    /// Tells the client that it is logged in, and joins it with its server.
    async fn serve(self, mut line: Line, served: Served, began: Moment) -> Outcome {
        let Self { connection, way, row, key, .. } = self;
        let Served { io, loan, ready } = served;
        let backend = ready.key.map(|key| Backend::new(key, loan.endpoint(), way.login.tls.clone()));
        let server = listed(loan.endpoint(), backend.clone(), &way.pool, &io);
        let now = Clock::now();
        server.is_lent(row.id(), &way.pool, now);
        row.holds(server.id, now);
        key.running(backend.as_ref());
        let mut out = Vec::with_capacity(512);
        for (name, value) in &ready.parameters {
            push_parameter(&mut out, name, value);
        }
        let (process, secret) = key.parts();
        push_key(&mut out, process, secret);
        push_ready(&mut out, Default::default());
        line.write(&out).await.map_err(client_gone)?;
        let record = connection.record();
        record.enter(Stage::Relay, now);
        loan.first_byte(began, now);
        let worker = record.worker();
        way.pool.count(worker, Count::Logins, 1);
        way.pool.count(worker, Count::Assigned, 1);
        let waited = u64::try_from(now.since(began).as_nanos()).unwrap_or(u64::MAX);
        way.pool.count(worker, Count::Waited, waited);
        let throttles = way.target.route.throttles(record.client());
        let rests = line.unread.is_empty();
        let duplex = Duplex::new(line.io, io, line.unread).throttled(throttles);
        let stream = Stream {
            _exempt: loan.exempt(),
            idle: way.postgres.settings.idle,
            pool: way.pool.clone(),
            connection,
            loan,
            passing: RefCell::default(),
            doing: Cell::new(Doing::Answering),
            _listed: (row, server, key),
        };
        if rests {
            stream.rests();
        }
        stream.run(duplex).await
    }
}

/// How servers are logged in to. A server as a whole is none of its databases: what it says to that means
/// nothing to those who ask for one.
fn login(
    own: &ServerLogin,
    what: Replication,
    (database, user): (&str, &str),
    credential: &Credential,
) -> Arc<Login> {
    match what {
        Replication::Logical => Login::of(own, database, user, credential),
        Replication::Physical => {
            let own = ServerLogin { database: Some("".into()), ..own.clone() };
            Login::of(&own, "", user, credential)
        }
    }
}

/// A client and its server, joined.
struct Stream {
    connection: Connection,
    pool: Arc<Pool>,
    loan: Loan,
    _exempt: Exemption,
    /// For so long it may rest.
    idle: Duration,
    passing: RefCell<Passing>,
    doing: Cell<Doing>,
    /// For as long as it lives others see it, and may cancel what it does.
    _listed: (Client, Listed, Key),
}

/// What is done by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    /// The server awaits a command.
    Resting,
    /// It is busy with one.
    Answering,
    /// A stream has begun: nothing is followed any more.
    Streaming,
}

impl Stream {
    /// Moves bytes until either side ends, or the connection has to.
    async fn run(self, mut duplex: Duplex) -> Outcome {
        let moved = poll_fn(|cx| self.poll(&mut duplex, cx)).await;
        match moved {
            Ok(closed) => self.outcome(closed),
            Err(reason) => {
                if let Some((client, _)) = duplex.sides() {
                    let mut last = Vec::new();
                    errors::push(&mut last, &Fault::new(Stage::Relay, Whose::Us, reason), true);
                    let told = async {
                        client.write_all(&last).await?;
                        client.flush().await
                    };
                    // Whoever does not listen is not told.
                    let _ = timeout(LAST_WORDS_WITHIN, told).await;
                }
                Ok(reason)
            }
        }
    }

    fn poll(&self, duplex: &mut Duplex, cx: &mut Context<'_>) -> Poll<Result<Closed, Reason>> {
        if let Poll::Ready(closed) = duplex.poll(self, cx) {
            return Poll::Ready(Ok(closed));
        }
        // While it rests nobody misses it; a stream goes on until its grace is over.
        let is_over = self.doing.get() == Doing::Resting && duplex.sides().is_some();
        let reason = || self.connection.overdue().or_else(|| self.connection.record().leaving());
        match is_over.then(reason).flatten() {
            Some(reason) => Poll::Ready(Err(reason)),
            None => Poll::Pending,
        }
    }

    /// The server awaits a command.
    fn rests(&self) {
        self.doing.set(Doing::Resting);
        self.connection.expect(self.idle, Reason::Idle);
    }

    /// It does not, and may take its time.
    fn is_busy(&self, doing: Doing) {
        self.doing.set(doing);
        self.connection.expect(Duration::MAX, Reason::Idle);
    }

    fn outcome(&self, closed: Closed) -> Outcome {
        match (closed.first, closed.error) {
            (Side::Client, None) => Ok(Reason::ClientClosed),
            (Side::Upstream, None) => Ok(Reason::UpstreamClosed),
            (Side::Client, Some(error)) => Err(client_gone(error)),
            (Side::Upstream, Some(error)) => {
                self.loan.upstream_failed(&error);
                Err(server_gone(error))
            }
        }
    }
}

impl Meter for Stream {
    fn moved(&self, from: Side, bytes: usize) {
        self.connection.record().moved(from == Side::Client, bytes as u64);
        if from == Side::Client && self.doing.get() == Doing::Resting {
            self.is_busy(Doing::Answering);
        }
    }

    fn reads(&self, from: Side) -> bool {
        from == Side::Upstream && self.doing.get() != Doing::Streaming
    }

    fn read(&self, _from: Side, bytes: &[u8]) {
        let mut last = None;
        let passed = self.passing.borrow_mut().pass(bytes, |message| match message {
            kind::COPY_BOTH_RESPONSE => last = Some(Doing::Streaming),
            kind::READY_FOR_QUERY if last != Some(Doing::Streaming) => last = Some(Doing::Resting),
            _ => {}
        });
        match last {
            Some(Doing::Streaming) => {
                self.connection.record().note("its stream begins");
                self.is_busy(Doing::Streaming);
            }
            Some(_) => self.rests(),
            None => {}
        }
        if passed.is_err() {
            // The client may know what that is.
            self.is_busy(Doing::Streaming);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let record = self.connection.record();
        let (up, down) = record.bytes();
        self.pool.count(record.worker(), Count::Received, up);
        self.pool.count(record.worker(), Count::Sent, down);
    }
}
