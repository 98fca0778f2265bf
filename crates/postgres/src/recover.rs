//! A server whose client is gone: what runs is cancelled, what is open is rolled back, what is left is thrown
//! away, and then it serves others. One that cannot be brought to that in time is closed.

use std::io;
use std::time::Duration;

use tieline_base::Clock;
use tieline_wire::postgres::HEADER;
use tieline_wire::postgres::backend::{Status, kind, parameter};
use tieline_wire::postgres::frontend;
use tokio::time::timeout;

use crate::ask::ask;
use crate::link::{Link, UNKNOWN};
use crate::login::Line;
use crate::outstanding::{Asked, Entry, Reply};
use crate::server::Server;

/// How long that may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The longest message that is passed over at once.
const MESSAGE_MAX: usize = 16 << 20;

/// Puts the server of `link` in order and gives it back; a `dirty` one is made as new.
pub(crate) async fn recover(link: Link, dirty: bool) {
    let Link { io, mut server, loan, making, .. } = link;
    let mut line = Line::new(io);
    let recovered = timeout(WITHIN, clean(&mut line, &mut server, dirty)).await;
    if matches!(recovered, Ok(Ok(()))) && line.unread.is_empty() {
        server.rest(line.io, loan, making, Clock::now());
    }
}

async fn clean(line: &mut Line, server: &mut Server, mut dirty: bool) -> io::Result<()> {
    if !server.outstanding.is_empty() {
        if let Some(backend) = server.backend.clone().filter(|_| server.outstanding.owes_answers()) {
            backend.cancel().await;
        }
        dirty |= drain(line, server).await?;
    }
    if !server.until_quiet().await {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if server.status != Status::Idle {
        ask(line, server, b"ROLLBACK").await.map_err(io::Error::other)?;
    }
    if dirty {
        ask(line, server, b"DISCARD ALL").await.map_err(io::Error::other)?;
        server.is_new();
    }
    if server.status == Status::Idle { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Hears all that the server owes, and forgets it; true if what it has prepared, or is set to, is not known
/// any more.
async fn drain(line: &mut Line, server: &mut Server) -> io::Result<bool> {
    let (mut out, mut lost) = (Vec::new(), false);
    if server.outstanding.is_copying_in() {
        out.extend_from_slice(b"f\0\0\0\x05\0");
        server.outstanding.copy_ended();
    }
    if server.outstanding.is_open() {
        // What the client did not end must not be done: a Sync alone would commit it. No server has such a
        // statement.
        frontend::push_bind_head(&mut out, b"", b"tieline_0", 6);
        out.extend_from_slice(&[0; 6]);
        server.outstanding.push(Entry::swallowed(Asked::Bind));
    }
    frontend::push_bare(&mut out, frontend::kind::SYNC);
    server.outstanding.push(Entry::of(Asked::Sync));
    line.write(&out).await?;
    while !server.outstanding.is_empty() {
        let (kind, body) = line.message(MESSAGE_MAX - HEADER).await?;
        match server.outstanding.on_reply(kind).map_err(io::Error::other)? {
            Reply::Fails(failed) => {
                lost |= failed.is_tracked();
                server.outstanding.void(|entry| lost |= entry.is_tracked());
                server.unnamed = UNKNOWN;
            }
            _ if kind == kind::READY_FOR_QUERY => {
                server.status = body.first().and_then(|it| Status::from_byte(*it)).unwrap_or(Status::Failed);
            }
            // A setting that nobody has asked for, set by what nobody has heard of.
            _ if kind == kind::PARAMETER_STATUS => {
                lost = true;
                if let Some((name, value)) = parameter(&body) {
                    server.reported = server.reported.with(name, value);
                }
            }
            _ => {}
        }
        while server.outstanding.take_synthetic().is_some() {}
    }
    Ok(lost)
}
