//! What a transaction left behind: the server is asked, and what it says goes into the books of both sides,
//! or keeps the client at its server. Nothing is guessed from SQL but whether to ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Reason};
use tieline_wire::postgres::backend::{Status, push_ready};
use tieline_wire::postgres::sql::Suspicion;
use tokio::time::timeout;

use crate::aside::{Turn, finish};
use crate::ask::{AskError, Row};
use crate::at_once::tell;
use crate::link::Link;
use crate::listening::{self, Between};
use crate::login::Line;
use crate::server::Server;
use crate::settings::{Settings, VALUE_MAX, push_literal};
use crate::site::Mode;
use crate::talk::{Talk, server_gone};
use crate::unhurried::{act_unhurried, ask_unhurried, dress};

/// How long such a question may take.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Puts the books in order behind a transaction, and lets go of the server if nothing holds it.
pub(crate) async fn settle(mut talk: Box<Talk>) -> Turn {
    let Some(link) = talk.unlink() else { return Turn::Talk(talk) };
    let (began, waited) = (link.began, link.acquired_after);
    // It has its answers, and nothing of its session lies at this server alone.
    let is_done = link.suspicion.is_none() && !link.owes_ready && !talk.keeps_server();
    // Such a request has its own time.
    link.server.until_quiet().await;
    let fault = match timeout(ASK_WITHIN, settled(&mut talk, link)).await {
        Ok(Ok(())) => return Turn::Talk(talk),
        Ok(Err(error)) => server_gone(std::io::Error::other(error)),
        Err(_) => server_gone(std::io::ErrorKind::TimedOut.into()),
    };
    let now = Clock::now();
    if is_done {
        talk.tell(began, now, waited, Reason::Answered);
        talk.down.forget();
        talk.rest(now);
        talk.up.again = !talk.up.pending.is_empty();
        return Turn::Talk(talk);
    }
    talk.tell(began, now, waited, fault.reason);
    finish(talk, fault).await
}

/// Undoes whatever a session may have but prepared statements, which are ours.
const RESET: &[u8] = b"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; UNLISTEN *; CLOSE ALL; \
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// Undoes all settings, those too that no server lists and nobody knows by name.
const RESET_SETTINGS: &[u8] = b"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL";

async fn settled(talk: &mut Talk, mut link: Link) -> Result<(), AskError> {
    if std::mem::take(&mut link.all_gone) {
        talk.names.clear();
    }
    let whole_session = talk.way.target.mode == Mode::Session;
    let asked = match whole_session {
        // It keeps its server whatever it leaves there.
        true => Suspicion::SETTINGS,
        false => to_ask(talk, &link),
    };
    let mut lasting = lasting(link.suspicion);
    link.server.unseen |= link.suspicion.has(Suspicion::UNSEEN);
    link.suspicion = Suspicion::NONE;
    let Link { io, mut server, loan, making, .. } = link;
    let (mut line, mut heard) = (Line::new(io), Vec::new());
    let mut listens = link.listens;
    if !asked.is_none() {
        let left = what_is_left(talk, (&mut line, &mut server), asked, &link.custom, &mut heard).await?;
        talk.take_heard(&heard, &server);
        let Left { settings, mut held, channels, is_too_much } = left;
        if asked.has(Suspicion::SETTINGS) {
            lasting |= note(talk, &mut server, settings, is_too_much);
        }
        held |= talk.settings.temporary();
        let others = (talk.pins.without(asked) | held | lasting).without(Suspicion::LISTENING);
        if asked.has(Suspicion::LISTENING) && !whole_session {
            let (is_kept, some) = (!others.is_none(), !channels.is_empty());
            let between = Between { line: &mut line, server: &mut server, loan: &loan, is_kept };
            if listening::follow(talk, between, Arc::new(channels)).await? {
                held = held.without(Suspicion::LISTENING);
                listens = some && is_kept;
            }
        }
        hold(talk, others | held);
    } else {
        hold(talk, talk.pins | lasting);
    }
    put_in_order(talk, &mut line, &mut server).await?;
    if link.owes_ready {
        push_ready(talk.down.held.bytes(), Status::Idle);
    }
    let full = link.full && !link.owes_ready;
    let custom = Vec::new();
    talk.link = Some(Link {
        io: line.io,
        server,
        loan,
        making,
        custom,
        listens,
        full,
        owes_ready: false,
        resets: false,
        ..link
    });
    let more = line.unread;
    go_on(talk, more);
    Ok(())
}

/// Asks what of `asked` there is, and notes where not all that is there is answered; `seen` are names of
/// settings.
async fn what_is_left(
    talk: &Talk,
    (line, server): (&mut Line, &mut Server),
    asked: Suspicion,
    seen: &[Box<[u8]>],
    heard: &mut Vec<u8>,
) -> Result<Left, AskError> {
    let have = server.settings.clone();
    let mut custom = customs(seen, &talk.settings, &have);
    let sql = question(asked, &custom);
    let names = custom.len();
    custom.retain(|name| name.is_ascii());
    let is_plain = custom.len() == names;
    let rows = match ask_unhurried(line, server, &sql, heard).await {
        Err(AskError::Said(_)) if !is_plain => {
            // A name that is none in the encoding that the session has now.
            server.unseen = true;
            ask_unhurried(line, server, &question(asked, &custom), heard).await?
        }
        asked => asked?,
    };
    let left = read(&rows, &server.login.user);
    let encoding = |settings: &Settings| settings.get(b"client_encoding").map(<[u8]>::to_vec);
    // Then the names were asked for as another encoding reads them.
    let is_read_otherwise = !is_plain && encoding(&left.settings) != encoding(&have);
    server.unseen |= asked.has(Suspicion::SETTINGS) && is_read_otherwise;
    Ok(left)
}

/// Notes the settings of the session in both books; says what of them is beyond keeping.
fn note(talk: &mut Talk, server: &mut Server, settings: Settings, is_too_much: bool) -> Suspicion {
    if is_too_much || settings.are_too_many() {
        // What is not kept is not given back either: it is there as long as its client.
        server.settings = settings.shortened().shared();
        talk.settings = server.settings.clone();
        return Suspicion::LASTING;
    }
    server.settings = settings.shared();
    talk.settings = wanted(&talk.who.settings, &server.settings);
    Suspicion::NONE
}

/// Gives the session back what the client began with, and undoes before others get it what nobody may know.
async fn put_in_order(talk: &mut Talk, line: &mut Line, server: &mut Server) -> Result<(), AskError> {
    if !Arc::ptr_eq(&talk.settings, &server.settings) {
        // RESET goes back to what the client began with, which the server knows nothing of.
        let (wanted, mut heard) = (talk.settings.clone(), Vec::new());
        dress(line, server, &wanted, &mut heard).await?;
        talk.take_heard(&heard, server);
    }
    tell(&mut talk.view, &server.reported, &mut talk.down.held);
    let resets = talk.way.target.resets;
    if (resets || server.unseen) && !talk.keeps_server() {
        server.settings = Settings::default().shared();
        let reset = if resets { RESET } else { RESET_SETTINGS };
        act_unhurried(line, server, reset, &mut Vec::new()).await?;
        server.unseen = false;
    }
    Ok(())
}

/// What a transaction that is over may have left.
fn to_ask(talk: &Talk, link: &Link) -> Suspicion {
    let asked =
        (link.suspicion | talk.pins).without(Suspicion::DISCARDED | Suspicion::LASTING | Suspicion::UNSEEN);
    match talk.ears {
        _ if link.listens => asked | Suspicion::LISTENING,
        // What the client listens to is not what this server was told.
        Some(_) => asked.without(Suspicion::LISTENING),
        None => asked,
    }
}

/// Keeps the server, which has said `more` since, or lets go of it.
fn go_on(talk: &mut Talk, more: Vec<u8>) {
    if talk.keeps_server() {
        if !more.is_empty() {
            talk.down.resume(more);
        }
        if let Some(link) = talk.link.take() {
            talk.keep(link);
        }
        talk.connection.record().touch(Clock::coarse());
        talk.wait_for_what();
    } else if !more.is_empty() || !talk.release() {
        // Only a server that goes says something now; and a request to cancel that was lost on its way may
        // still come, and must hit nobody else.
        talk.tell_and_drop();
    }
    talk.up.again = !talk.up.pending.is_empty();
}

/// What the server makes of the settings that it has, as it spells them.
pub(crate) async fn spelled(line: &mut Line, server: &mut Server) -> Result<Arc<Settings>, AskError> {
    let have = server.settings.clone();
    let custom = customs(&[], &have, &have);
    let sql = question(Suspicion::SETTINGS, &custom);
    let rows = ask_unhurried(line, server, &sql, &mut Vec::new()).await?;
    let Left { settings, .. } = read(&rows, &server.login.user);
    server.settings = settings.shared();
    Ok(server.settings.clone())
}

/// What of `found` nothing undoes.
pub(crate) fn lasting(found: Suspicion) -> Suspicion {
    if found.has(Suspicion::LASTING) { Suspicion::LASTING } else { Suspicion::NONE }
}

/// Notes why the client keeps its server, if that is news.
pub(crate) fn hold(talk: &mut Talk, pins: Suspicion) {
    if pins != talk.pins {
        let record = talk.connection.record();
        match why(pins) {
            Some(why) => record.note(format!("keeps its server for {why}")),
            None => record.note("keeps its server no longer"),
        }
        talk.pins = pins;
    }
}

/// In words, what holds a server.
fn why(pins: Suspicion) -> Option<String> {
    const WORDS: [(Suspicion, &str); 6] = [
        (Suspicion::LOCKS, "advisory locks"),
        (Suspicion::TEMPORARY, "temporary tables"),
        (Suspicion::LISTENING, "channels that it listens to"),
        (Suspicion::CURSORS, "cursors with hold"),
        (Suspicion::PREPARED, "statements that were prepared by SQL"),
        (Suspicion::LASTING, "something that nothing undoes"),
    ];
    let words: Vec<_> = WORDS.iter().filter(|(pin, _)| pins.has(*pin)).map(|(_, word)| *word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The settings of applications that must be asked for by name.
fn customs<'n>(seen: &'n [Box<[u8]>], client: &'n Settings, server: &'n Settings) -> Vec<&'n [u8]> {
    let known = client.iter().chain(server.iter()).map(|(name, _)| name).filter(|name| name.contains(&b'.'));
    let mut names: Vec<&[u8]> = seen.iter().map(|name| &**name).chain(known).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The question for what is suspected. Every name is qualified: what the session's own path would find may be
/// made to lie.
fn question(suspicion: Suspicion, custom: &[&[u8]]) -> Vec<u8> {
    const PARTS: [(Suspicion, &str); 6] = [
        (
            Suspicion::SETTINGS,
            "SELECT 's', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
             WHERE source OPERATOR(pg_catalog.=) 'session' \
             UNION ALL SELECT 's', 'role', pg_catalog.current_setting('role') \
             UNION ALL SELECT 's', 'session_authorization', \
             pg_catalog.current_setting('session_authorization')",
        ),
        (
            Suspicion::LOCKS,
            "SELECT 'l', NULL, NULL FROM pg_catalog.pg_locks \
             WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
        ),
        (
            Suspicion::TEMPORARY,
            // Where there is no such schema, which is known beforehand, nothing is looked through.
            "SELECT 't', NULL, NULL FROM pg_catalog.pg_class \
             WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
             AND relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
             UNION ALL SELECT 't', NULL, NULL FROM pg_catalog.pg_proc \
             WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
             AND pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
             UNION ALL SELECT 't', NULL, NULL FROM pg_catalog.pg_type \
             WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
             AND typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()",
        ),
        (
            Suspicion::LISTENING,
            "SELECT 'n', channel, NULL FROM pg_catalog.pg_listening_channels() AS channel",
        ),
        (Suspicion::CURSORS, "SELECT 'c', NULL, NULL FROM pg_catalog.pg_cursors WHERE is_holdable"),
        (Suspicion::PREPARED, "SELECT 'p', NULL, NULL FROM pg_catalog.pg_prepared_statements WHERE from_sql"),
    ];
    let mut sql = Vec::new();
    let mut add = |part: &[u8]| {
        if !sql.is_empty() {
            sql.extend_from_slice(b" UNION ALL ");
        }
        sql.extend_from_slice(part);
    };
    for (_, part) in PARTS.iter().filter(|(what, _)| suspicion.has(*what)) {
        add(part.as_bytes());
    }
    for name in custom.iter().filter(|_| suspicion.has(Suspicion::SETTINGS)) {
        let mut part = b"SELECT 's', ".to_vec();
        push_literal(&mut part, name);
        part.extend_from_slice(b", pg_catalog.current_setting(");
        push_literal(&mut part, name);
        part.extend_from_slice(b", true)");
        add(&part);
    }
    if suspicion.has(Suspicion::SETTINGS) { without_long(&sql) } else { sql }
}

/// The same question, where of a value that is too long to be kept only that it is there is answered.
fn without_long(sql: &[u8]) -> Vec<u8> {
    let long = format!("pg_catalog.octet_length(v) OPERATOR(pg_catalog.>) {VALUE_MAX}");
    let select = format!(
        "SELECT CASE WHEN {long} THEN 'b' ELSE k END, n, CASE WHEN {long} THEN NULL ELSE v END FROM ("
    );
    [select.as_bytes(), sql, b") AS asked(k, n, v)"].concat()
}

/// What a transaction left behind.
#[derive(PartialEq, Eq, Debug, Default)]
struct Left {
    settings: Settings,
    /// What holds the server.
    held: Suspicion,
    channels: BTreeSet<Box<[u8]>>,
    /// Some setting is longer than what is kept.
    is_too_much: bool,
}

/// What the answer says.
fn read(rows: &[Row], user: &str) -> Left {
    let Left { mut settings, mut held, mut channels, mut is_too_much } = Left::default();
    for row in rows {
        let column = |at: usize| row.get(at).and_then(|value| value.as_deref());
        match column(0) {
            Some(b"s") => {
                if let (Some(name), Some(value)) = (column(1), column(2))
                    && is_set(name, value, user)
                {
                    settings.set(name, value.into());
                }
            }
            Some(b"b") => is_too_much = true,
            Some(b"l") => held |= Suspicion::LOCKS,
            Some(b"t") => held |= Suspicion::TEMPORARY,
            Some(b"n") => {
                held |= Suspicion::LISTENING;
                channels.extend(column(1).map(Into::into));
            }
            Some(b"c") => held |= Suspicion::CURSORS,
            Some(b"p") => held |= Suspicion::PREPARED,
            _ => {}
        }
    }
    Left { settings, held, channels, is_too_much }
}

/// Whether a setting is other than in a session that has just begun.
fn is_set(name: &[u8], value: &[u8], user: &str) -> bool {
    match name {
        b"role" => value != b"none",
        b"session_authorization" => value != user.as_bytes(),
        // A made-up setting that was reset is empty.
        _ => !(name.contains(&b'.') && value.is_empty()),
    }
}

/// What a client wants from now on: what its session has, and of what it began with whatever was reset.
fn wanted(began: &Settings, has: &Arc<Settings>) -> Arc<Settings> {
    if began.iter().all(|(name, _)| has.get(name).is_some()) {
        return has.clone();
    }
    let mut wanted = (**has).clone();
    for (name, value) in began.iter().filter(|(name, _)| has.get(name).is_none()) {
        wanted.set(name, value.into());
    }
    wanted.shared()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(pairs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())))
    }

    fn row(columns: [Option<&str>; 3]) -> Row {
        columns.iter().map(|column| column.map(|text| text.as_bytes().into())).collect()
    }

    #[test]
    fn only_what_is_suspected_is_asked_for() {
        let sql = String::from_utf8(question(Suspicion::LOCKS, &[b"a.b"])).unwrap();
        assert!(sql.contains("pg_locks") && !sql.contains("pg_settings") && !sql.contains("a.b"), "{sql}");
        let sql = String::from_utf8(question(Suspicion::SETTINGS, &[b"a.b"])).unwrap();
        assert!(sql.contains("pg_settings") && sql.contains("E'a.b'"), "{sql}");
    }

    #[test]
    fn an_answer_is_read_for_what_differs_from_the_beginning() {
        let rows = [
            row([Some("s"), Some("TimeZone"), Some("UTC")]),
            row([Some("s"), Some("role"), Some("none")]),
            row([Some("s"), Some("session_authorization"), Some("app")]),
            row([Some("s"), Some("a.b"), Some("")]),
            row([Some("s"), Some("a.c"), None]),
            row([Some("l"), None, None]),
            row([Some("b"), Some("a.d"), None]),
            row([Some("n"), Some("news"), None]),
        ];
        let left = Left {
            settings: settings(&[("timezone", "UTC")]),
            held: Suspicion::LOCKS | Suspicion::LISTENING,
            channels: [(*b"news").into()].into(),
            is_too_much: true,
        };
        assert_eq!(read(&rows, "app"), left);
    }

    #[test]
    fn reset_goes_back_to_what_the_client_began_with() {
        let began = settings(&[("a", "1"), ("b", "2")]);
        let has = Arc::new(settings(&[("b", "3"), ("c", "4")]));
        assert_eq!(*wanted(&began, &has), settings(&[("a", "1"), ("b", "3"), ("c", "4")]));
    }

    #[test]
    fn a_reason_is_given_for_every_hold() {
        assert_eq!(why(Suspicion::NONE), None);
        let both = why(Suspicion::LOCKS | Suspicion::TEMPORARY);
        assert_eq!(both.as_deref(), Some("advisory locks, temporary tables"));
    }
}
