//! What a client that waits long for a server is told meanwhile: once in each wait, and between messages.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose, format_duration};
use tieline_conn::Connection;
use tieline_transport::Io;
use tieline_wire::postgres::backend::{Notice, push_notice};

use crate::held::Held;
use crate::keys::Key;
use crate::refusal::Refusal;
use crate::site::Target;
use crate::talk::Talk;

/// Appends a notice that says `text`.
pub(crate) fn push(out: &mut Vec<u8>, text: &str) {
    push_notice(
        out,
        &Notice {
            severity: Some(b"NOTICE"),
            code: Some(b"00000"),
            message: Some(text.as_bytes()),
            ..Notice::default()
        },
    );
}

impl Target {
    /// How long a client that waits is left alone at first.
    pub(crate) fn first_look(&self) -> Duration {
        self.notice.map_or(self.acquire, |notice| notice.min(self.acquire))
    }

    /// When a client that waits since `began` is told so; `None`: it is not.
    pub(crate) fn told_at(&self, began: Moment) -> Option<Moment> {
        self.notice.filter(|notice| *notice < self.acquire).map(|notice| began.after(notice))
    }
}

impl Talk {
    /// For how long a client that waits since `began`, and was not `told`, is not to be told yet; `None`: it
    /// is not told at all.
    pub(crate) fn untold_for(&self, began: Moment, told: bool) -> Option<Duration> {
        let told_at = self.way.target.told_at(began).filter(|_| !told)?;
        Some(told_at.since(Clock::now()))
    }

    /// Tells a client that it has waited since `began`, and `why`.
    pub(crate) async fn tell_of_wait(&mut self, began: Moment, why: &str) {
        self.tell_now(&waits(began, why)).await;
    }

    /// Tells the client something now.
    pub(crate) async fn tell_now(&mut self, text: &str) {
        say(text, &self.connection, &mut self.io, &mut self.down.held).await;
    }
}

fn waits(began: Moment, why: &str) -> String {
    let whole = Duration::from_secs(Clock::now().since(began).as_secs());
    let after = format_duration(whole.max(Duration::from_secs(1)));
    format!("there was no server for {after}, and the query waits: {why}")
}

async fn say(text: &str, connection: &Connection, io: &mut Io, held: &mut Held) {
    connection.record().note(text.to_owned());
    push(held.bytes(), text);
    // What it does not take now it gets with what follows; that it is gone is seen there too.
    poll_fn(|cx| {
        let _ = held.poll_flush(io, cx);
        Poll::Ready(())
    })
    .await;
}

/// A client for whom something is waited for that takes its time.
pub(crate) struct Patient<'t> {
    pub(crate) connection: &'t Connection,
    pub(crate) key: &'t Key,
    pub(crate) io: &'t mut Io,
    pub(crate) held: &'t mut Held,
    /// Since when it waits, and when it is told so.
    pub(crate) began: Moment,
    pub(crate) told_at: Option<Moment>,
    pub(crate) told: &'t mut bool,
}

impl Patient<'_> {
    /// What comes of `wait`, which may be dropped, unless the client goes before that or cancels it. If it
    /// takes long, the client is told `why`.
    pub(crate) async fn waits<T>(self, why: &str, wait: impl Future<Output = T>) -> Result<T, Refusal> {
        let Self { connection, key, io, held, began, told_at, told } = self;
        let mut wait = pin!(wait);
        loop {
            let untold = told_at.filter(|_| !*told);
            tokio::select! {
                biased;
                () = key.cancelled() => return Err(Refusal::Cancelled),
                done = &mut wait => return Ok(done),
                () = io.broken() => {
                    return Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset).into());
                }
                () = until(untold) => {}
            }
            *told = true;
            say(&waits(began, why), connection, io, held).await;
        }
    }
}

async fn until(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.since(Clock::now())).await,
        None => pending().await,
    }
}
