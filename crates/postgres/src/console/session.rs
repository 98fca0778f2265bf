//! A client of the console, from its log-in to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use tieline_base::{Clock, Fault, Reason, Stage, Whose};
use tieline_conn::{Connection, Outcome};
use tieline_wire::postgres::backend::{self, push_bare, push_complete, push_key, push_parameter, push_ready};
use tieline_wire::postgres::frontend::{self, Bind, Object, Parse, kind};
use tieline_wire::postgres::rows::push_no_parameters;

use super::answer::{Formats, Refused, Row, push_columns, push_row, push_told};
use super::columns::{Column, Shown};
use super::command::{Command, CommandError, statements};
use super::{Console, Right, act, show};
use crate::Postgres;
use crate::census::{self, Client, ClientRow, Count, Pool};
use crate::keys::Key;
use crate::login::{Line, Startup};
use crate::site::Mode;
use crate::talk::{client_gone, violation};

/// The longest message of a client.
const MESSAGE_MAX: usize = 64 * 1024;

/// How many statements a client may keep, and as many portals.
const KEPT_MAX: usize = 64;

/// So much is said at once.
const CHUNK: usize = 32 * 1024;

/// Serves a client that has proved who it is.
///
/// # Errors
/// It may not use the console, or breaks off.
pub(crate) async fn serve(connection: Connection, line: Line, startup: Startup) -> Outcome {
    let pool = census::pool("pgbouncer", "pgbouncer", Mode::Statement);
    let Startup { protocol, user, database, parameters, .. } = startup;
    let application = parameters.iter().rfind(|(name, _)| **name == *b"application_name");
    let application = application.map(|(_, value)| &**value);
    let row = Client::list(ClientRow::new(&connection, &line.io, (&database, &user), application, None));
    row.joins(&pool);
    let mut session = Session {
        connection,
        line,
        user,
        pool,
        row,
        out: Vec::new(),
        statements: HashMap::new(),
        portals: HashMap::new(),
        voids: false,
    };
    session.welcome(protocol).await?;
    session.run().await
}

struct Session {
    connection: Connection,
    line: Line,
    user: Box<str>,
    pool: Arc<Pool>,
    row: Client,
    /// What is to be said.
    out: Vec<u8>,
    statements: HashMap<Box<[u8]>, Command>,
    portals: HashMap<Box<[u8]>, Portal>,
    /// What the client says up to its next Sync is void.
    voids: bool,
}

/// A command that is about to be done, or was.
struct Portal {
    command: Command,
    formats: Formats,
    /// What is still to be told of it; `None`: it was not done yet.
    rest: Option<std::vec::IntoIter<Row>>,
}

/// What comes after a message.
enum Then {
    GoOn,
    Leave(Reason),
}

impl Session {
    /// The console as it is now, and what the client may do there.
    fn console(&self) -> Result<(Console, Right), Fault> {
        let denied = || Fault::new(Stage::Authorize, Whose::Client, Reason::RefusedPolicy);
        let postgres = self.connection.current::<Postgres>()?;
        let identity = self.connection.identity();
        if let Some(why) = postgres.settings.front.disowns(identity) {
            return Err(denied().because(why));
        }
        let right =
            postgres.settings.console.as_ref().and_then(|it| Some((it.clone(), it.right(&self.user)?)));
        right.ok_or_else(|| denied().because("the console is not for this user"))
    }

    async fn welcome(&mut self, protocol: u32) -> Result<(), Fault> {
        let (console, _) = match self.console() {
            Ok(found) => found,
            Err(fault) => return Err(self.farewell(fault).await),
        };
        let version = format!("{PGBOUNCER}/tieline {}", console.house.version());
        for (name, value) in [
            ("server_version", version.as_str()),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("integer_datetimes", "on"),
            ("is_superuser", "on"),
            ("application_name", &*self.row.application),
        ] {
            push_parameter(&mut self.out, name.as_bytes(), value.as_bytes());
        }
        // Nothing that the console does takes a request to cancel.
        let key = Key::new(protocol)
            .map_err(|error| Fault::new(Stage::Identify, Whose::Us, Reason::Exhausted).because(error))?;
        let (process, secret) = key.parts();
        push_key(&mut self.out, process, secret);
        push_ready(&mut self.out, Default::default());
        self.connection.record().enter(Stage::Relay, Clock::now());
        self.pool.count(self.connection.record().worker(), Count::Logins, 1);
        self.flush().await
    }

    async fn run(&mut self) -> Outcome {
        loop {
            let idle = match self.connection.current::<Postgres>() {
                Ok(postgres) => postgres.settings.idle,
                Err(fault) => return Err(self.farewell(fault).await),
            };
            self.connection.expect(idle, Reason::Idle);
            let record = self.connection.record().clone();
            let asked_to_leave = std::future::poll_fn(|_| {
                // Polled whenever somebody says so.
                record.leaving().map_or(Poll::Pending, Poll::Ready)
            });
            // Both may be dropped: what was read of a message stays with the line.
            let message = tokio::select! {
                biased;
                message = self.line.message(MESSAGE_MAX) => message,
                reason = asked_to_leave => return Ok(self.bye(reason).await),
            };
            let (kind, body) = match message {
                Ok(message) => message,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Ok(Reason::ClientClosed);
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(self.farewell(violation(error)).await);
                }
                Err(error) => return Err(client_gone(error)),
            };
            record.moved(true, body.len() as u64);
            match self.hear(kind, &body).await {
                Ok(Then::GoOn) => {}
                Ok(Then::Leave(reason)) => return Ok(reason),
                Err(fault) => return Err(self.farewell(fault).await),
            }
        }
    }

    async fn hear(&mut self, kind: u8, body: &[u8]) -> Result<Then, Fault> {
        let now = Clock::now();
        self.row.holds(0, now);
        let then = match kind {
            kind::TERMINATE => return Ok(Then::Leave(Reason::ClientClosed)),
            kind::QUERY => {
                self.query(body).await?;
                push_ready(&mut self.out, Default::default());
                self.flush().await?;
                self.count(now);
                Then::GoOn
            }
            kind::SYNC => {
                self.voids = false;
                self.portals.clear();
                push_ready(&mut self.out, Default::default());
                self.flush().await?;
                self.count(now);
                Then::GoOn
            }
            _ if self.voids => Then::GoOn,
            kind::FLUSH => {
                self.flush().await?;
                Then::GoOn
            }
            kind::PARSE | kind::BIND | kind::DESCRIBE | kind::EXECUTE | kind::CLOSE => {
                let done = match kind {
                    kind::PARSE => self.parse(body),
                    kind::BIND => self.bind(body),
                    kind::DESCRIBE => self.describe(body),
                    kind::EXECUTE => self.execute(body).await?,
                    _ => self.close(body),
                };
                if let Err(refused) = done {
                    refused.push(&mut self.out, false);
                    self.voids = true;
                }
                // It may never say Sync.
                self.flush_if_much().await?;
                Then::GoOn
            }
            other => return Err(violation(format!("invalid frontend message type {other}"))),
        };
        self.row.rests(Clock::now());
        Ok(then)
    }

    fn count(&self, since: tieline_base::Moment) {
        let worker = self.connection.record().worker();
        let took = Clock::now().0.saturating_sub(since.0);
        for (what, more) in [
            (Count::Queries, 1),
            (Count::Transactions, 1),
            (Count::InQueries, took),
            (Count::InTransactions, took),
        ] {
            self.pool.count(worker, what, more);
        }
    }

    async fn query(&mut self, body: &[u8]) -> Result<(), Fault> {
        let text = frontend::query(body).ok_or_else(|| violation("a query without its end"))?;
        let text = String::from_utf8_lossy(text);
        let parts = statements(&text);
        if parts.is_empty() {
            // PgBouncer has an error for that; a server has this.
            push_bare(&mut self.out, backend::kind::EMPTY_QUERY_RESPONSE);
        }
        for part in parts {
            let done = match Command::read(part) {
                Ok(command) => self.simply(&command).await?,
                Err(error) => Err(error.into()),
            };
            if let Err(refused) = done {
                refused.push(&mut self.out, false);
                break;
            }
        }
        Ok(())
    }

    /// Does a command and tells all of it.
    async fn simply(&mut self, command: &Command) -> Result<Result<(), Refused>, Fault> {
        let rows = match self.perform(command).await? {
            Ok(rows) => rows,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(columns) = columns(command) {
            push_columns(&mut self.out, columns, &Formats::Text);
            for row in rows {
                push_row(&mut self.out, columns, &row, &Formats::Text);
                self.flush_if_much().await?;
            }
        }
        push_complete(&mut self.out, command.tag().as_bytes());
        Ok(Ok(()))
    }

    /// Does a command: the rows that it shows, if it shows any.
    async fn perform(&mut self, command: &Command) -> Result<Result<Vec<Row>, Refused>, Fault> {
        // Asked each time: who may do what is what the config says now.
        let (console, right) = self.console()?;
        Ok(match command {
            Command::Show(shown) => {
                let listener = self.connection.record().listener().name.clone();
                show::rows(*shown, &console, &listener)
            }
            Command::Help => {
                push_told(&mut self.out, "Console usage", Some(HELP));
                Ok(Vec::new())
            }
            Command::SetIgnored => {
                push_told(&mut self.out, "SET ignored", None);
                Ok(Vec::new())
            }
            order => {
                let Right::Act(permit) = right else {
                    return Ok(Err(Refused { code: "42501", ..Refused::new("admin access needed") }));
                };
                self.flush().await?;
                self.connection.expect(std::time::Duration::MAX, Reason::Idle);
                // It may wait for long; a client that goes takes its order back.
                let done = tokio::select! {
                    biased;
                    done = act::perform(order, &console, permit) => done,
                    () = self.line.io.broken() => {
                        return Err(Fault::new(Stage::Relay, Whose::Client, Reason::ClientReset));
                    }
                };
                tracing::info!(user = &*self.user, order = ?order, done = done.is_ok(), "console");
                done.map(|()| Vec::new())
            }
        })
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Refused> {
        let Some(Parse { name, sql, types: [0, 0] }) = Parse::read(body) else {
            return Err(Refused::new("the console takes no parameters"));
        };
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(Refused { code: "42P05", ..Refused::new("prepared statement already exists") });
        }
        if self.statements.len() >= KEPT_MAX {
            return Err(Refused { code: "53400", ..Refused::new("too many prepared statements") });
        }
        let text = String::from_utf8_lossy(sql);
        let command = match statements(&text)[..] {
            [] => Command::Nothing,
            [one] => Command::read(one)?,
            _ => return Err(Refused { code: "42601", ..Refused::new("one command at a time") }),
        };
        self.statements.insert(name.into(), command);
        push_bare(&mut self.out, backend::kind::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Refused> {
        let malformed = || Refused::new("a malformed Bind");
        let Bind { portal, statement, rest } = Bind::read(body).ok_or_else(malformed)?;
        let command = self.statements.get(statement).cloned().ok_or_else(unknown)?;
        let formats = formats(rest).ok_or_else(malformed)?;
        if self.portals.len() >= KEPT_MAX {
            return Err(Refused { code: "53400", ..Refused::new("too many portals") });
        }
        self.portals.insert(portal.into(), Portal { command, formats, rest: None });
        push_bare(&mut self.out, backend::kind::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Refused> {
        let (command, formats) = match Object::read(body) {
            Some(Object::Statement(name)) => {
                push_no_parameters(&mut self.out);
                (self.statements.get(name).ok_or_else(unknown)?, &Formats::Text)
            }
            Some(Object::Portal(name)) => {
                let portal = self.portals.get(name).ok_or_else(unknown)?;
                (&portal.command, &portal.formats)
            }
            None => return Err(Refused::new("a malformed Describe")),
        };
        match columns(command) {
            Some(columns) => push_columns(&mut self.out, columns, formats),
            None => push_bare(&mut self.out, backend::kind::NO_DATA),
        }
        Ok(())
    }

    async fn execute(&mut self, body: &[u8]) -> Result<Result<(), Refused>, Fault> {
        let malformed = || Ok(Err(Refused::new("a malformed Execute")));
        let Some(end) = body.iter().position(|byte| *byte == 0) else { return malformed() };
        let Ok(most) = <[u8; 4]>::try_from(&body[end + 1..]) else { return malformed() };
        let most = usize::try_from(i32::from_be_bytes(most)).ok().filter(|most| *most > 0);
        let Some(portal) = self.portals.get(&body[..end]) else { return Ok(Err(unknown())) };
        let (command, formats) = (portal.command.clone(), portal.formats.clone());
        if portal.rest.is_none() {
            match self.perform(&command).await? {
                Err(refused) => return Ok(Err(refused)),
                Ok(rows) => {
                    if let Some(portal) = self.portals.get_mut(&body[..end]) {
                        portal.rest = Some(rows.into_iter());
                    }
                }
            }
        }
        let (mut told, columns) = (0, columns(&command).unwrap_or_default());
        while most.is_none_or(|most| told < most) {
            let rest = self.portals.get_mut(&body[..end]).and_then(|portal| portal.rest.as_mut());
            let Some(row) = rest.and_then(Iterator::next) else {
                match command {
                    Command::Nothing => push_bare(&mut self.out, backend::kind::EMPTY_QUERY_RESPONSE),
                    _ => push_complete(&mut self.out, command.tag().as_bytes()),
                }
                return Ok(Ok(()));
            };
            push_row(&mut self.out, columns, &row, &formats);
            self.flush_if_much().await?;
            told += 1;
        }
        push_bare(&mut self.out, backend::kind::PORTAL_SUSPENDED);
        Ok(Ok(()))
    }

    fn close(&mut self, body: &[u8]) -> Result<(), Refused> {
        match Object::read(body) {
            Some(Object::Statement(name)) => drop(self.statements.remove(name)),
            Some(Object::Portal(name)) => drop(self.portals.remove(name)),
            None => return Err(Refused::new("a malformed Close")),
        }
        push_bare(&mut self.out, backend::kind::CLOSE_COMPLETE);
        Ok(())
    }

    async fn flush_if_much(&mut self) -> Result<(), Fault> {
        if self.out.len() < CHUNK { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let out = std::mem::take(&mut self.out);
        self.connection.record().moved(false, out.len() as u64);
        self.line.write(&out).await.map_err(client_gone)
    }

    /// Tells a client why it is over.
    async fn farewell(&mut self, fault: Fault) -> Fault {
        crate::errors::push(&mut self.out, &fault, true);
        // Whoever does not listen is not told.
        let _ = self.flush().await;
        fault
    }

    async fn bye(&mut self, reason: Reason) -> Reason {
        self.farewell(Fault::new(Stage::Relay, Whose::Us, reason)).await;
        reason
    }
}

/// The columns of what a command shows, if it shows anything.
fn columns(command: &Command) -> Option<&'static [Column]> {
    match command {
        Command::Show(shown) => Some(Shown::columns(*shown)),
        _ => None,
    }
}

/// Reads what follows the names of a Bind: the formats of the results. There are no parameters.
fn formats(rest: &[u8]) -> Option<Formats> {
    let words: Vec<u16> = rest.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect();
    if !rest.len().is_multiple_of(2) {
        return None;
    }
    let parameters = usize::from(*words.first()?);
    let rest = words.get(1 + parameters..)?;
    let [0, count, formats @ ..] = rest else { return None };
    match formats {
        _ if formats.len() != usize::from(*count) || formats.iter().any(|format| *format > 1) => None,
        [] | [0] => Some(Formats::Text),
        [1] => Some(Formats::Binary),
        each => Some(Formats::Each(each.iter().map(|format| *format == 1).collect())),
    }
}

fn unknown() -> Refused {
    Refused { code: "26000", ..Refused::new("there is no such statement or portal") }
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        let code = if matches!(error, CommandError::Elsewhere(_)) { "0A000" } else { "08P01" };
        Refused { code, ..Refused::new(error.to_string()) }
    }
}

/// Whose console this one is like.
pub(super) const PGBOUNCER: &str = "1.25.0";

const HELP: &str = "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION\n\
                    \tSHOW LISTS|STATE\n\
                    \tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS\n\
                    \tRELOAD\n\
                    \tPAUSE [<db>]\n\
                    \tRESUME [<db>]\n\
                    \tDISABLE <db>\n\
                    \tENABLE <db>\n\
                    \tRECONNECT [<db>]\n\
                    \tKILL [<db>]\n\
                    \tKILL_CLIENT <client_id>\n\
                    \tWAIT_CLOSE [<db>]";
