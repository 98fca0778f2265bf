//! What a client wants of us: its first packets, and encryption on the way.

use std::sync::Arc;

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_conn::Connection;
use tieline_transport::Io;
use tieline_transport::tls::ServerTls;
use tieline_wire::Parsed;
use tieline_wire::postgres::startup::{self, First, StartupError, Version, push_negotiation};

use super::line::Line;
use super::{Greeting, Startup, broken, refuse};

/// By which TLS clients know that PostgreSQL is meant (its documentation, "SSL Session Encryption").
pub const ALPN: &[u8] = b"postgresql";

/// The first byte of a TLS handshake, and of no first packet.
const TLS_HANDSHAKE: u8 = 0x16;

/// How many requests for encryption a client may make before it logs in: libpq makes two.
const REQUESTS_MAX: usize = 4;

/// Hears what a client wants. Its wish for encryption is answered on the way.
///
/// # Errors
/// It breaks the protocol, or goes away. It has been told what can be told.
pub(crate) async fn greet(
    io: Io,
    tls: Option<&Arc<ServerTls>>,
    tls_required: bool,
    connection: &mut Connection,
) -> Result<(Line, Greeting), Fault> {
    let mut line = Line::new(io);
    if tls.is_some() {
        line.turn(connection).await;
    }
    if let Some(tls) = tls
        && line.peek().await.map_err(broken)? == TLS_HANDSHAKE
    {
        line = secure(line, tls, connection).await?;
        // Without it this may be a handshake that was meant for another service.
        if connection.tls().and_then(|it| it.alpn.as_ref()).is_none_or(|alpn| alpn.as_bytes() != ALPN) {
            return Err(broke("direct TLS without the protocol \"postgresql\""));
        }
    }
    for _ in 0..=REQUESTS_MAX {
        line.turn(connection).await;
        let packet = match line.packet().await.map_err(broken)? {
            Ok(packet) => packet,
            Err(error) => return Err(refused(&mut line, error).await),
        };
        match first(&packet) {
            First::Ssl if !line.io.is_encrypted() => match tls {
                Some(tls) => {
                    nothing_behind(&line)?;
                    line.write(b"S").await.map_err(broken)?;
                    line = secure(line, tls, connection).await?;
                }
                None => {
                    line.write(b"N").await.map_err(broken)?;
                    nothing_behind(&line)?;
                }
            },
            First::Gssenc if !line.io.is_encrypted() => {
                line.write(b"N").await.map_err(broken)?;
                nothing_behind(&line)?;
            }
            First::Ssl | First::Gssenc => return Err(broke("a request for encryption inside TLS")),
            First::Cancel { process, secret } => {
                let secret = secret.into();
                return Ok((line, Greeting::Cancel { process, secret }));
            }
            First::Startup(asked) => {
                if tls.is_some() && tls_required && !line.io.is_encrypted() && !line.io.is_local() {
                    let message = "this listener takes encrypted connections only (sslmode=require)";
                    return Err(refuse(&mut line, "28000", message, Reason::RefusedPlain).await);
                }
                let startup = begin(&mut line, asked).await?;
                return Ok((line, Greeting::Startup(startup)));
            }
        }
    }
    Err(broke("requests for encryption without end"))
}

/// What a packet says that was read as one before.
fn first(packet: &[u8]) -> First<'_> {
    match startup::parse(packet) {
        Ok(Parsed::Done { value, .. }) => value,
        _ => First::Gssenc,
    }
}

/// What was sent in the clear before the handshake, and is taken for part of what is encrypted, could come
/// from anybody on the way (CVE-2021-23214).
fn nothing_behind(line: &Line) -> Result<(), Fault> {
    if line.unread.is_empty() {
        Ok(())
    } else {
        Err(broke("unencrypted bytes behind a request for encryption"))
    }
}

async fn secure(line: Line, tls: &Arc<ServerTls>, connection: &mut Connection) -> Result<Line, Fault> {
    let Line { io, unread } = line;
    Ok(Line::new(connection.secure(io, unread, tls).await?))
}

/// Answers what it asks for beyond what we know, before any question about who it is.
async fn begin(line: &mut Line, asked: startup::Startup<'_>) -> Result<Startup, Fault> {
    if let Some((version, unknown)) = asked.negotiation() {
        let mut out = Vec::new();
        push_negotiation(&mut out, version, unknown);
        line.write(&out).await.map_err(broken)?;
    }
    let protocol = if asked.takes_long_secrets() { Version::V3_2 } else { Version::V3_0 };
    // They are UTF-8, or they would have been refused.
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned().into_boxed_str();
    Ok(Startup {
        protocol: protocol.code(),
        user: text(asked.user),
        database: text(asked.database),
        parameters: asked.settings.into_iter().map(|setting| (setting.name, setting.value)).collect(),
        replication: asked.replication,
    })
}

async fn refused(line: &mut Line, error: StartupError) -> Fault {
    refuse(line, error.code(), &error.to_string(), Reason::ProtocolError).await
}

fn broke(how: &'static str) -> Fault {
    Fault::new(Stage::Identify, Whose::Client, Reason::ProtocolError).because(how)
}
