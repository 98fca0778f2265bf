//! Questions of our own to a server that nobody else talks to meanwhile.

use std::io;

use tieline_wire::postgres::backend::{self, Status, kind};
use tieline_wire::postgres::frontend::{
    self, push_bare, push_bind_head, push_execute, push_parse, push_query,
};

use crate::link::UNKNOWN;
use crate::login::Line;
use crate::server::Server;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The server says no: the body of its ErrorResponse.
    #[error("the server says no: {}", crate::login::server::said(.0))]
    Said(Box<[u8]>),
    /// The connection broke, or the answer is none.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A row of an answer; `None` is NULL.
pub(crate) type Row = Vec<Option<Box<[u8]>>>;

/// The longest message of an answer, and the most rows.
const MESSAGE_MAX: usize = 1 << 20;
const ROWS_MAX: usize = 10_000;

/// Asks `sql`, and waits until the server is ready again. What it tells of its settings is noted.
///
/// # Errors
/// It says no, or breaks off.
pub(crate) async fn ask(line: &mut Line, server: &mut Server, sql: &[u8]) -> Result<Vec<Row>, AskError> {
    ask_and_hear(line, server, sql, &mut Vec::new()).await
}

/// The same, with what comes in between for whoever listens to channels appended to `heard`.
pub(crate) async fn ask_and_hear(
    line: &mut Line,
    server: &mut Server,
    sql: &[u8],
    heard: &mut Vec<u8>,
) -> Result<Vec<Row>, AskError> {
    let mut out = Vec::with_capacity(sql.len() + 6);
    push_query(&mut out, sql);
    line.write(&out).await?;
    answer(line, server, heard).await
}

/// Asks `sql`, in which $1 is `value`, as [`ask`] does.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn ask_with(
    line: &mut Line,
    server: &mut Server,
    sql: &[u8],
    value: &[u8],
) -> Result<Vec<Row>, AskError> {
    let mut out = Vec::with_capacity(sql.len() + value.len() + 64);
    push_parse(&mut out, b"", sql, &[0, 0]);
    // No formats; one value, and its length; no formats of the answer.
    let length = u32::try_from(value.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    push_bind_head(&mut out, b"", b"", value.len() + 10);
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(&[0, 0]);
    push_execute(&mut out, b"");
    push_bare(&mut out, frontend::kind::SYNC);
    line.write(&out).await?;
    let answered = answer(line, server, &mut Vec::new()).await;
    server.unnamed = UNKNOWN;
    answered
}

/// Hears what answers a question.
async fn answer(line: &mut Line, server: &mut Server, heard: &mut Vec<u8>) -> Result<Vec<Row>, AskError> {
    // A query by itself ends the unnamed statement, if it was understood so far.
    server.unnamed = UNKNOWN;
    let (mut rows, mut said) = (Vec::new(), None);
    loop {
        let (kind, body) = line.message(MESSAGE_MAX).await?;
        match kind {
            kind::DATA_ROW if rows.len() < ROWS_MAX => {
                rows.push(row(&body).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?);
            }
            kind::PARAMETER_STATUS => {
                if let Some((name, value)) = backend::parameter(&body) {
                    server.reported = server.reported.with(name, value);
                }
            }
            kind::NOTIFICATION_RESPONSE => {
                heard.push(kind);
                let stated = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
                heard.extend_from_slice(&stated.to_be_bytes());
                heard.extend_from_slice(&body);
            }
            kind::ERROR_RESPONSE => said = Some(body.into()),
            kind::READY_FOR_QUERY => {
                server.status = body.first().and_then(|it| Status::from_byte(*it)).unwrap_or(Status::Failed);
                if let Some(said) = said {
                    return Err(AskError::Said(said));
                }
                server.unnamed = 0;
                return Ok(rows);
            }
            _ => {}
        }
    }
}

/// Reads the body of DataRow.
pub(crate) fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            (rest, row) = (behind, {
                row.push(None);
                row
            });
            continue;
        };
        let (value, behind) = behind.split_at_checked(length)?;
        row.push(Some(value.into()));
        rest = behind;
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn rows_are_read_with_their_nulls() {
        let body = [0, 2, 0, 0, 0, 1, b'x', 255, 255, 255, 255];
        assert_eq!(row(&body), Some(vec![Some((*b"x").into()), None]));
        assert_eq!(row(&body[..9]), None);
        assert_eq!(row(&[0, 1, 0, 0, 0, 9, 1]), None);
    }
}
