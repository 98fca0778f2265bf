//! A server as its client wants it, before the first word of the client's.

use std::io;
use std::sync::atomic::Ordering;

use tieline_base::Clock;
use tokio::time::timeout;

use crate::ask::AskError;
use crate::link::Link;
use crate::listening;
use crate::login::Line;
use crate::refusal::Refusal;
use crate::talk::{Talk, server_gone};
use crate::unhurried::{act_unhurried, dress};

/// Gives the server the settings that the client wants, has it listen to the client's channels, and forget
/// what others were told of sequences, where anybody asks for that. A client's query must not run under
/// another's settings, so this is waited for.
pub(crate) async fn dressed(talk: &Talk, link: Link) -> Result<(Link, Vec<u8>), Refusal> {
    if talk.ears.is_none() && link.server.is_dressed(&talk.settings) {
        return Ok((link, Vec::new()));
    }
    let Link { io, mut server, mut acted, .. } = link;
    let mut line = Line::new(io);
    let dressing = async {
        // It listens to nothing, or it would not change hands.
        dress(&mut line, &mut server, &talk.settings, &mut Vec::new()).await?;
        if server.login.asks_sequences.load(Ordering::Relaxed) {
            act_unhurried(&mut line, &mut server, b"DISCARD SEQUENCES", &mut Vec::new()).await?;
            acted = true;
        }
        match &talk.ears {
            Some(ears) => listening::begin(ears, &mut line, &mut server).await,
            None => Ok(false),
        }
    };
    match timeout(talk.way.target.connect, dressing).await {
        // Whoever listens may be told at any time; anything else that is said now are last words.
        Ok(Ok(true)) => Ok((Link { io: line.io, server, listens: true, acted, ..link }, line.unread)),
        Ok(Ok(false)) => match line.into_quiet_io() {
            Ok(io) => Ok((Link { io, server, listens: false, acted, ..link }, Vec::new())),
            Err(error) => Err(server_gone(error).into()),
        },
        Ok(Err(AskError::Said(body))) => {
            // It failed as a whole, so the server is what its books say.
            let Link { loan, making, .. } = link;
            if let Ok(io) = line.into_quiet_io() {
                server.rest(io, loan, making, Clock::now());
            }
            Err(Refusal::Said(body))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(server_gone(io::ErrorKind::TimedOut.into()).into()),
    }
}
