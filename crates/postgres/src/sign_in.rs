//! One log-in to a server, from a connection that is new to a server that is ready: the same for clients, for
//! replication, where users are looked up and where servers are asked what they are.

use std::io;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_pool::{Knock, Loan};
use tieline_transport::Io;
use tokio::time::timeout;

use crate::census::SigningIn;
use crate::cluster::Wants;
use crate::denials;
use crate::login::server::{LogIn, LogInError, Ready, log_in};
use crate::login::{Encryption, Line, secured};
use crate::refusal::Refusal;
use crate::site::Target;
use crate::talk::Way;

/// Logs in at `io`, which leads to `host`, under TLS where it is asked for. Without a deadline: callers have
/// one.
///
/// # Errors
/// The server says no, breaks off, speaks otherwise or does not prove who it is.
pub(crate) async fn sign_in(
    io: Io,
    host: &str,
    tls: Option<&Encryption>,
    by: &LogIn<'_>,
) -> Result<(Line, Ready), LogInError> {
    let mut line = Line::new(secured(io, tls, host).await?);
    let ready = log_in(&mut line, by).await?;
    Ok((line, ready))
}

/// A log-in for a client that waits for it.
pub(crate) struct Attempt<'a> {
    pub(crate) way: &'a Way,
    pub(crate) loan: &'a Loan,
    /// Its turn at the server, kept until what comes of it is known to all: the next looks at that first.
    pub(crate) knock: Option<Knock>,
    pub(crate) log_in: LogIn<'a>,
    /// Whether a server that has become a replica will not do.
    pub(crate) writes: bool,
    /// Since when the client waits, and until when.
    pub(crate) began: Moment,
    pub(crate) deadline: Moment,
}

impl Attempt<'_> {
    /// Logs in at `io`; what the server has to say to that is remembered
    /// for others who would log in alike.
    ///
    /// # Errors
    /// Why there is no server.
    pub(crate) async fn run(self, io: Io) -> Result<(Io, Ready), Refusal> {
        let Self { way, loan, knock: _turn, log_in, writes, began, deadline } = self;
        let (label, host) = (loan.endpoint().shared_label(), loan.endpoint().host());
        let within = deadline.since(Clock::now()).min(way.target.connect);
        if let Some(said) = way.login.denials.since(|| vec![label.clone()], began) {
            return Err(Refusal::Said(said));
        }
        let logged_in = timeout(within, async {
            let _counted = SigningIn::begin(&way.pool);
            let (line, ready) = sign_in(io, &host, way.login.tls.as_ref(), &log_in).await?;
            Ok((line.into_quiet_io()?, ready))
        });
        match logged_in.await {
            Ok(Ok((_, ready))) if writes && is_demoted(&way.target, &ready) => {
                let fault = Fault::new(Stage::Acquire, Whose::Upstream, Reason::Unreachable);
                Err(fault.because("the server has become a replica").into())
            }
            Ok(Ok(signed_in)) => {
                way.login.denials.forget(&label);
                Ok(signed_in)
            }
            Ok(Err(LogInError::Refused(body))) => {
                if denials::is_lasting(&body) {
                    way.login.denials.note(&label, &body, Clock::now());
                }
                Err(Refusal::Said(body))
            }
            Ok(Err(error)) => {
                loan.upstream_failed(&error);
                Err(Fault::new(Stage::Acquire, Whose::Upstream, Reason::Unreachable).because(error).into())
            }
            // Its own time ran out, which says nothing of the server.
            Err(_) if within < way.target.connect => {
                Err(Fault::new(Stage::Acquire, Whose::Us, Reason::TimeoutAcquire).into())
            }
            Err(_) => {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                loan.upstream_failed(&late);
                Err(Fault::new(Stage::Acquire, Whose::Upstream, Reason::TimeoutConnect).because(late).into())
            }
        }
    }
}

/// Whether a server that was thought to take writes says, as it greets us, that it takes none.
fn is_demoted(target: &Target, ready: &Ready) -> bool {
    let says = |(name, value): &(Box<[u8]>, Box<[u8]>)| **name == *b"in_hot_standby" && **value == *b"on";
    target.cluster.is_some() && target.wants == Wants::Primary && ready.parameters.iter().any(says)
}
