//! A client, from its first byte to its last.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tieline_base::{Clock, Fault, Reason, Stage, Whose};
use tieline_conn::{Connection, Outcome};
use tieline_transport::Io;
use tieline_wire::postgres::backend::{push_key, push_parameter, push_ready};

use crate::Settings;
use crate::aside::{self, Turn, attach};
use crate::census::{self, Client, ClientRow, Count, Full};
use crate::console;
use crate::fair::share_of;
use crate::keys::{self, Key};
use crate::login::{self, Arrived, Credential, Line, Startup};
use crate::refusal::Refusal;
use crate::replication;
use crate::server::Welcome;
use crate::settings::{Reported, Settings as SessionSettings};
use crate::settle::{hold, settle, spelled};
use crate::site::Mode;
use crate::statements::Names;
use crate::talk::{Next, Talk, Unnamed, Way, Who, server_gone};
use crate::up::Up;

/// What a connection is at any time. What takes its time takes room while it lasts.
pub(crate) enum Conversation {
    /// It logs in, waits for a server, or takes leave.
    Aside(Pin<Box<dyn Future<Output = Turn>>>),
    /// It is logged in: bytes move, or nothing does.
    Talking(Box<Talk>),
}

impl Conversation {
    pub(crate) fn new(connection: Connection, io: Io, settings: Settings) -> Self {
        Self::Aside(Box::pin(begin(connection, io, settings)))
    }
}

impl Future for Conversation {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match &mut *self {
                Conversation::Aside(aside) => match ready!(aside.as_mut().poll(cx)) {
                    Turn::Talk(mut talk) => {
                        talk.look_anew();
                        *self = Conversation::Talking(talk);
                    }
                    Turn::End(outcome) => {
                        *self = Conversation::Aside(Box::pin(std::future::pending()));
                        return Poll::Ready(outcome);
                    }
                },
                Conversation::Talking(talk) => {
                    let next = ready!(talk.poll(cx));
                    let over = Conversation::Aside(Box::pin(std::future::pending()));
                    let Conversation::Talking(mut talk) = std::mem::replace(&mut *self, over) else {
                        unreachable!("matched in the line above");
                    };
                    talk.look_anew();
                    *self = Conversation::Aside(match next {
                        Ok(Next::Link) => Box::pin(aside::link(talk)),
                        Ok(Next::Refuse(refusal)) => Box::pin(aside::refuse(talk, refusal)),
                        Ok(Next::Settle) => Box::pin(settle(talk)),
                        Ok(Next::Leave(reason)) => Box::pin(aside::leave(talk, reason)),
                        Err(fault) => Box::pin(aside::finish(talk, fault)),
                    });
                }
            }
        }
    }
}

/// Has a client say what it wants, and log in.
async fn begin(mut connection: Connection, io: Io, settings: Settings) -> Turn {
    match login::arrive(io, &settings.front, &mut connection).await {
        Ok(Arrived::Client { line, startup, .. })
            if settings.console.is_some() && console::is_console(&startup.database) =>
        {
            Turn::End(console::serve(connection, line, startup).await)
        }
        Ok(Arrived::Client { line, startup, credential }) if startup.replication.is_some() => {
            Turn::End(Box::pin(replication::serve(connection, line, startup, credential)).await)
        }
        Ok(Arrived::Client { line, startup, credential }) => {
            match welcome(connection, line, startup, credential).await {
                Ok(talk) => Turn::Talk(talk),
                Err(fault) => Turn::End(Err(fault)),
            }
        }
        Ok(Arrived::Cancel { process, secret, line }) => {
            keys::cancel(process, &secret).await;
            drop(line);
            Turn::End(Ok(Reason::Answered))
        }
        Err(fault) => Turn::End(Err(fault)),
    }
}

/// Tells a client that has proved who it is all that it must know of its session.
async fn welcome(
    connection: Connection,
    line: Line,
    startup: Startup,
    credential: Credential,
) -> Result<Box<Talk>, Fault> {
    let mut talk = match talk(connection, line, startup, credential) {
        Ok(talk) => talk,
        Err((mut line, fault)) => return Err(Refusal::Fault(fault).tell(&mut line).await),
    };
    if let Err(refusal) = learn(&mut talk).await {
        return Err(refusal.tell(&mut Line::new(talk.io)).await);
    }
    let pins = talk.pins | talk.settings.temporary();
    hold(&mut talk, pins);
    let view = talk.view.clone();
    let (process, secret) = talk.key.parts();
    let mut out = Vec::with_capacity(512);
    for (name, value) in view.iter() {
        push_parameter(&mut out, name, value);
    }
    push_key(&mut out, process, secret);
    push_ready(&mut out, talk.status());
    talk.down.held.bytes().append(&mut out);
    let record = talk.connection.record();
    record.moved(false, 0);
    talk.way.pool.count(record.worker(), Count::Logins, 1);
    if talk.link.is_none() {
        talk.rest(Clock::now());
    }
    Ok(talk)
}

/// A client that has proved who it is, with the way that it will go.
fn talk(
    connection: Connection,
    line: Line,
    startup: Startup,
    credential: Credential,
) -> Result<Box<Talk>, (Line, Fault)> {
    let Startup { protocol, user, database, parameters, .. } = startup;
    let settings = SessionSettings::new(parameters).shared();
    let share = share_of(&user);
    let who = Who { database, user, share, credential, settings: settings.clone() };
    let found = connection.current::<crate::Postgres>().and_then(|postgres| {
        census::admits(&who.database)?;
        let way = Way::find(postgres, connection.generation(), &who)?;
        // Whoever may not go there is told so now, and not at its first query.
        let client = connection.record().client();
        connection.decide(Some(&way.target.route), client, Clock::now())?;
        Ok(way)
    });
    let (way, key) = match (found, Key::new(protocol)) {
        (Ok(way), Ok(key)) => (way, key),
        (Err(fault), _) => return Err((line, fault)),
        (_, Err(error)) => {
            return Err((line, Fault::new(Stage::Identify, Whose::Us, Reason::Exhausted).because(error)));
        }
    };
    let application = who.settings.get(b"application_name");
    let row = ClientRow::new(&connection, &line.io, (&who.database, &who.user), application, None);
    row.joins(&way.pool);
    let limits = (way.postgres.settings.seats.of(&who.user), way.target.clients);
    let row = match Client::seat(row, limits) {
        Ok(row) => row,
        Err(full) => return Err((line, one_too_many(full))),
    };
    let Line { io, unread } = line;
    let reads = way.target.reads.map(|_| Box::default());
    Ok(Box::new(Talk {
        row,
        connection,
        io,
        who,
        way,
        settings,
        view: Reported::new(Vec::new()),
        names: Names::default(),
        unnamed: Unnamed::default(),
        up: Up::new(unread),
        down: Default::default(),
        link: None,
        clock: None,
        wait: None,
        waited: None,
        undressed: None,
        pins: Default::default(),
        reads,
        ears: None,
        key,
        lost: 0,
        leaving: false,
        broke: None,
    }))
}

/// A client for which there is no seat.
pub(crate) fn one_too_many(full: Full) -> Fault {
    let reason = match full {
        Full::User { .. } => Reason::LimitPerUser,
        Full::Database { .. } => Reason::LimitPerDatabase,
    };
    Fault::new(Stage::Admit, Whose::Client, reason).because(full)
}

/// Learns what a server makes of the settings that the client begins with: from one that was asked before, or
/// from a server.
async fn learn(talk: &mut Talk) -> Result<(), Refusal> {
    let whole_session = talk.way.target.mode == Mode::Session;
    let asked = talk.settings.clone();
    if let Some(Welcome { settings, reported }) = talk.way.login.welcome(&asked) {
        (talk.settings, talk.who.settings) = (settings.clone(), settings);
        if !whole_session {
            talk.view = reported;
            return Ok(());
        }
    }
    attach(talk).await?;
    let Some(mut link) = talk.unlink() else { return Ok(()) };
    if talk.way.login.welcome(&asked).is_none() {
        let mut line = Line::new(link.io);
        let settings = spelled(&mut line, &mut link.server).await?;
        link.io = line.into_quiet_io().map_err(server_gone)?;
        (talk.settings, talk.who.settings) = (settings.clone(), settings.clone());
        let welcome = Welcome { settings, reported: link.server.reported.clone() };
        talk.way.login.set_welcome((*asked).clone(), welcome);
    }
    talk.view = link.server.reported.clone();
    talk.keep(link);
    if !whole_session && !talk.release() {
        // Nobody knows the key yet: who asked it to be cancelled is not a client.
        talk.tell_and_drop();
    }
    Ok(())
}
