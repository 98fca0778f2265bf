//! Questions of ours to a server that keeps a client's `statement_timeout`, which is not meant for them. It
//! is lifted where it was in the way, so that nobody else pays for that.

use std::sync::Arc;

use tieline_wire::postgres::backend::Notice;

use crate::ask::{AskError, Row, ask_and_hear};
use crate::login::Line;
use crate::server::Server;
use crate::settings::{Settings, push_literal};

const LIMIT: &[u8] = b"statement_timeout";

/// Nothing is quicker than lifting a limit; where even that comes too late so often, the server is no use.
const TRIES: usize = 100;

/// Asks `sql`, which may not change anything; in an answer of settings the limit is what the client set.
///
/// # Errors
/// As [`ask_and_hear`].
pub(crate) async fn ask_unhurried(
    line: &mut Line,
    server: &mut Server,
    sql: &[u8],
    heard: &mut Vec<u8>,
) -> Result<Vec<Row>, AskError> {
    match ask_and_hear(line, server, sql, heard).await {
        Err(error) if is_cancelled(&error) => {}
        asked => return asked,
    }
    let shown = again(line, server, b"SELECT pg_catalog.current_setting('statement_timeout')", heard).await?;
    lift(line, server, heard).await?;
    let mut rows = ask_and_hear(line, server, sql, heard).await?;
    if let Some(Some(limit)) = shown.into_iter().next().and_then(|row| row.into_iter().next()) {
        let mut back = b"SET statement_timeout = ".to_vec();
        push_literal(&mut back, &limit);
        ask_and_hear(line, server, &back, heard).await?;
        put(&mut rows, &limit);
    }
    Ok(rows)
}

/// Gives the server the settings that are `wanted`.
///
/// # Errors
/// The server refuses them; it has those that stand in its books.
pub(crate) async fn dress(
    line: &mut Line,
    server: &mut Server,
    wanted: &Arc<Settings>,
    heard: &mut Vec<u8>,
) -> Result<(), AskError> {
    if let Some(halfway) = wanted.halfway_from(&server.settings) {
        step(line, server, &halfway.shared(), heard).await?;
    }
    step(line, server, wanted, heard).await
}

async fn step(
    line: &mut Line,
    server: &mut Server,
    wanted: &Arc<Settings>,
    heard: &mut Vec<u8>,
) -> Result<(), AskError> {
    if let Some(sql) = wanted.way_from(&server.settings) {
        match ask_and_hear(line, server, &sql, heard).await {
            Err(error) if is_cancelled(&error) => {
                lift(line, server, heard).await?;
                let mut have = (*server.settings).clone();
                have.set(LIMIT, b"0"[..].into());
                server.settings = have.shared();
                if let Some(sql) = wanted.way_from(&server.settings) {
                    ask_and_hear(line, server, &sql, heard).await?;
                }
            }
            asked => drop(asked?),
        }
    }
    server.settings = wanted.clone();
    Ok(())
}

/// Does `sql`, which changes no setting.
///
/// # Errors
/// As [`ask_and_hear`].
pub(crate) async fn act_unhurried(
    line: &mut Line,
    server: &mut Server,
    sql: &[u8],
    heard: &mut Vec<u8>,
) -> Result<(), AskError> {
    match ask_and_hear(line, server, sql, heard).await {
        Err(error) if is_cancelled(&error) => {}
        asked => return asked.map(drop),
    }
    let wanted = server.settings.clone();
    lift(line, server, heard).await?;
    let mut have = (*wanted).clone();
    have.set(LIMIT, b"0"[..].into());
    server.settings = have.shared();
    ask_and_hear(line, server, sql, heard).await?;
    dress(line, server, &wanted, heard).await
}

async fn lift(line: &mut Line, server: &mut Server, heard: &mut Vec<u8>) -> Result<(), AskError> {
    again(line, server, b"SET statement_timeout = 0", heard).await.map(drop)
}

/// Asks until there is time enough for the answer.
async fn again(
    line: &mut Line,
    server: &mut Server,
    sql: &[u8],
    heard: &mut Vec<u8>,
) -> Result<Vec<Row>, AskError> {
    let mut asked = ask_and_hear(line, server, sql, heard).await;
    for _ in 1..TRIES {
        if !asked.as_ref().is_err_and(is_cancelled) {
            break;
        }
        asked = ask_and_hear(line, server, sql, heard).await;
    }
    asked
}

/// Whether a question was not answered for want of time.
fn is_cancelled(error: &AskError) -> bool {
    match error {
        AskError::Said(body) => Notice::read(body).is_some_and(|said| said.code == Some(b"57014")),
        AskError::Io(_) => false,
    }
}

/// Puts `limit` where the answer speaks of it.
fn put(rows: &mut [Row], limit: &[u8]) {
    for row in rows {
        if let [_, Some(name), value] = &mut row[..]
            && **name == *LIMIT
        {
            *value = Some(limit.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_is_put_into_an_answer() {
        let row =
            |name: &str| vec![Some(b"s"[..].into()), Some(name.as_bytes().into()), Some(b"0"[..].into())];
        let mut rows = vec![row("statement_timeout"), row("lock_timeout"), vec![Some(b"l"[..].into())]];
        put(&mut rows, b"1ms");
        assert_eq!(rows[0][2].as_deref(), Some(&b"1ms"[..]));
        assert_eq!(rows[1][2].as_deref(), Some(&b"0"[..]));
    }

    #[test]
    fn want_of_time_is_told_from_a_refusal() {
        assert!(is_cancelled(&AskError::Said(b"SERROR\0C57014\0Mcanceling\0\0"[..].into())));
        assert!(!is_cancelled(&AskError::Said(b"SERROR\0C22023\0Mno\0\0"[..].into())));
    }
}
