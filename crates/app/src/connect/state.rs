//! What is told of a link while it is used.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_tunnel::{LinkState, UserLink};

use crate::logging::say;

/// A link that is down for less than that is nobody's business.
const QUIET: Duration = Duration::from_secs(1);

/// Tells on the standard error when the link is down for long, and when it is back: by a line each, and at a
/// terminal by one line that counts the seconds.
pub(super) async fn tell(mut link: UserLink, terminal: bool) -> Infallible {
    loop {
        while link.state() != LinkState::Up {
            link.changed().await;
        }
        while link.state() == LinkState::Up {
            link.changed().await;
        }
        let since = Clock::now();
        if !back_within(&mut link, QUIET).await {
            tell_down(&mut link, since, terminal).await;
        }
    }
}

/// Whether the link is carried again within that time.
async fn back_within(link: &mut UserLink, time: Duration) -> bool {
    let back = async {
        while link.state() != LinkState::Up {
            link.changed().await;
        }
    };
    tokio::time::timeout(time, back).await.is_ok()
}

async fn tell_down(link: &mut UserLink, since: Moment, terminal: bool) {
    let seconds = |now: Moment| now.since(since).as_secs();
    if !terminal {
        say("link down, resuming");
    }
    loop {
        if terminal {
            counting(&format!("link down {} s, resuming", seconds(Clock::now())));
        }
        if back_within(link, Duration::from_secs(1)).await {
            break;
        }
    }
    if terminal {
        counting("");
    }
    say(&format!("link up again after {} s", seconds(Clock::now())));
}

/// One line, in the place of what stands there.
fn counting(text: &str) {
    let mut out = std::io::stderr();
    let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
}
