//! The client's side: what it listens to, and how it is told.

use std::sync::Arc;
use std::task::{Context, Poll};

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_pool::Loan;
use tieline_wire::postgres::backend::{kind, notification, push_notification};
use tieline_wire::postgres::{HEADER, Head};

use super::hub::{Hub, Place};
use super::inbox::{End, Inbox, Notification};
use super::{CHANNELS_MAX, Channels, push_listen};
use crate::ask::AskError;
use crate::census::Count;
use crate::login::Line;
use crate::server::Server;
use crate::talk::{Talk, client_gone};
use crate::unhurried::act_unhurried;

/// A client's part of a shared listener.
#[derive(Debug)]
pub(crate) struct Ears {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    channels: Channels,
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.hub.leave(&self.inbox);
    }
}

/// Has a server that the client is about to use listen to what the client listens to; false if it cannot, as
/// a replica cannot.
///
/// # Errors
/// The server breaks off.
pub(crate) async fn begin(ears: &Ears, line: &mut Line, server: &mut Server) -> Result<bool, AskError> {
    let (mut sql, mut heard) = (Vec::new(), Vec::new());
    push_listen(&mut sql, &*ears.channels);
    // What was said by whoever held this server before is not the client's own.
    let (asked, _) = tokio::join!(act_unhurried(line, server, &sql, &mut heard), ears.hub.catch_up());
    match asked {
        Ok(_) => {
            ears.inbox.own(process(server));
            Ok(true)
        }
        Err(AskError::Said(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is told in place of a notification of the client's server, `body`; `None` if the shared listener
/// tells it. What the client said itself comes from `own`.
pub(crate) fn told(body: &[u8], ears: Option<&Ears>, server: &Server, own: u32) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() + HEADER);
    let (process, channel, said) = notification(body)?;
    if ears.is_some_and(|ears| ears.channels.contains(channel)) {
        return None;
    }
    push_notification(&mut out, if process == self::process(server) { own } else { process }, said);
    Some(out)
}

/// A client's server, between two of its transactions.
pub(crate) struct Between<'s> {
    pub(crate) line: &'s mut Line,
    pub(crate) server: &'s mut Server,
    pub(crate) loan: &'s Loan,
    /// The client keeps it, whatever it listens to.
    pub(crate) is_kept: bool,
}

/// The server of `between` listens to `channels`, which are the client's: from here on the shared listener
/// does, and all that was said up to now is told. False: it cannot, so the client must keep its server.
///
/// # Errors
/// The server breaks off.
pub(crate) async fn follow(
    talk: &mut Talk,
    between: Between<'_>,
    channels: Channels,
) -> Result<bool, AskError> {
    if channels.is_empty() {
        if let Some(ears) = talk.ears.take() {
            ears.inbox.drain(talk.key.parts().0, talk.down.held.bytes());
            talk.connection.record().note("listens to nothing any more");
        }
        return Ok(true);
    }
    let place = place(talk, &between);
    let own = if between.is_kept { process(between.server) } else { 0 };
    let quiets: &[u8] = if between.is_kept { b"" } else { b"UNLISTEN *" };
    let mut heard = Vec::new();
    let same = |ears: &&Ears| ears.channels == channels && ears.hub.is_at(&place);
    if let Some(ears) = talk.ears.as_deref().filter(same) {
        let quiet = act_unhurried(between.line, between.server, quiets, &mut heard);
        let (quiet, _) = tokio::join!(quiet, ears.hub.catch_up());
        quiet?;
    } else {
        let before = talk.ears.as_ref().map(|ears| ears.channels.clone());
        if !join(talk, &place, &channels).await {
            if let Some(ears) = talk.ears.take() {
                ears.inbox.drain(talk.key.parts().0, talk.down.held.bytes());
            }
            return Ok(false);
        }
        act_unhurried(between.line, between.server, quiets, &mut heard).await?;
        // What the server told after it was asked last: both have heard what was said since it was asked to
        // be quiet, and only the server what was said before.
        if let Some(ears) = &talk.ears {
            ears.hub.catch_up().await;
            let is_new = |channel: &[u8]| before.as_ref().is_none_or(|before| !before.contains(channel));
            let late = ears.inbox.without_known(notifications(&heard, is_new));
            let (own, process) = (talk.key.parts().0, process(between.server));
            for it in late {
                let from = if it.process == process { own } else { it.process };
                push_notification(talk.down.held.bytes(), from, &it.said);
            }
        }
    }
    if let Some(ears) = &talk.ears {
        ears.inbox.drain(talk.key.parts().0, talk.down.held.bytes());
        ears.inbox.own(own);
    }
    Ok(true)
}

/// Has the listener at `place` listen to `channels` for the client.
async fn join(talk: &mut Talk, place: &Place, channels: &Channels) -> bool {
    if channels.len() > CHANNELS_MAX {
        return false;
    }
    // One that ends just now is tried in vain.
    for _ in 0..2 {
        let connection = &talk.connection;
        let Some(hub) = Hub::at(place, |running| connection.aside(running.run())) else { return false };
        let same = talk.ears.as_ref().filter(|ears| Arc::ptr_eq(&ears.hub, &hub));
        let inbox = same.map_or_else(Arc::default, |ears| ears.inbox.clone());
        if !hub.join(&inbox, channels).await {
            // Whoever was too slow once is so again.
            if hub.is_over() { continue } else { return false }
        }
        connection.record().note(format!("listens to {} by the shared listener", named(channels)));
        match &mut talk.ears {
            Some(ears) if Arc::ptr_eq(&ears.hub, &hub) => ears.channels = channels.clone(),
            ears => {
                if let Some(old) = ears.replace(Box::new(Ears { hub, inbox, channels: channels.clone() })) {
                    old.inbox.drain(talk.key.parts().0, talk.down.held.bytes());
                }
            }
        }
        return true;
    }
    false
}

fn place(talk: &Talk, between: &Between<'_>) -> Place {
    let Between { server, loan, .. } = between;
    let target = &talk.way.target;
    Place {
        upstream: loan.upstream().clone(),
        cluster: target.cluster.clone(),
        login: server.login.clone(),
        pool: talk.way.pool.clone(),
        endpoint: loan.endpoint().clone(),
        encoding: server.reported.get(b"client_encoding").unwrap_or_default().into(),
        within: target.connect,
    }
}

/// The channels for people, of many only some.
fn named(channels: &Channels) -> String {
    const SHOWN: usize = 10;
    let names = channels.iter().take(SHOWN).map(|name| String::from_utf8_lossy(name));
    let names = names.collect::<Vec<_>>().join(", ").replace(char::is_control, " ");
    match channels.len().saturating_sub(SHOWN) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// The notifications among the messages in `heard` whose channel is `wanted`.
fn notifications(heard: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<Notification> {
    bodies(heard)
        .filter_map(notification)
        .filter(|(_, channel, _)| wanted(channel))
        .map(|(process, _, said)| Notification { process, said: said.into() })
        .collect()
}

/// The bodies of the notifications in `heard`, which is whole messages.
fn bodies(mut heard: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let head = Head::read(heard).ok().flatten()?;
        let (message, rest) = heard.split_at_checked(head.whole())?;
        heard = rest;
        Some((head.kind, &message[HEADER..]))
    })
    .filter(|(kind, _)| *kind == kind::NOTIFICATION_RESPONSE)
    .map(|(_, body)| body)
}

/// The process of a server; 0 if it did not tell it.
fn process(server: &Server) -> u32 {
    server.backend.as_ref().map_or(0, |backend| backend.process())
}

impl Talk {
    /// Takes what its server said of channels while it was asked something.
    pub(crate) fn take_heard(&mut self, heard: &[u8], server: &Server) {
        let own = self.key.parts().0;
        for body in bodies(heard) {
            if let Some(told) = told(body, self.ears.as_deref(), server, own) {
                self.down.held.bytes().extend_from_slice(&told);
            }
        }
    }

    /// Tells what was heard, if this is a moment for it: between two transactions.
    ///
    /// # Errors
    /// The client hears nothing any more.
    pub(crate) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        let Some(ears) = &self.ears else { return Ok(Poll::Ready(())) };
        match ears.inbox.poll(cx) {
            Some(End::Overflown) => return Err(Fault::new(Stage::Relay, Whose::Client, Reason::LimitUnread)),
            Some(End::Lost) => {
                let fault = Fault::new(Stage::Relay, Whose::Upstream, Reason::UpstreamReset);
                return Err(fault.because("the shared listener has lost its server"));
            }
            None => {}
        }
        if self.down.held.poll_flush(&mut self.io, cx).map_err(client_gone)?.is_pending() {
            return Ok(Poll::Pending);
        }
        let is_between = self.link.as_ref().is_none_or(|link| link.is_free() && !link.owes_ready);
        if !is_between || !self.down.is_whole() {
            return Ok(Poll::Ready(()));
        }
        ears.inbox.drain(self.key.parts().0, self.down.held.bytes());
        let told = self.down.held.bytes().len() as u64;
        if told > 0 {
            let record = self.connection.record();
            record.moved(false, told);
            self.way.pool.count(record.worker(), Count::Sent, told);
        }
        match self.down.held.poll_flush(&mut self.io, cx) {
            Poll::Ready(flushed) => flushed.map(Poll::Ready).map_err(client_gone),
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_heard_only_notifications_count() {
        let mut heard = Vec::new();
        push_notification(&mut heard, 3, b"a\0one\0");
        heard.extend_from_slice(b"N\0\0\0\x05\0");
        push_notification(&mut heard, 4, b"b\0two\0");
        let found = notifications(&heard, |channel| channel != b"a");
        assert_eq!(found, [Notification { process: 4, said: (*b"b\0two\0").into() }]);
        assert_eq!(bodies(&heard[..heard.len() - 1]).count(), 1);
    }

    #[test]
    fn of_many_channels_some_are_named() {
        let channels = |count: u32| -> Channels {
            Arc::new((0..count).map(|at| format!("c{at:02}").into_bytes().into()).collect())
        };
        assert_eq!(named(&channels(2)), "c00, c01");
        assert!(named(&channels(12)).ends_with("c09 and 2 more"));
    }
}
