//! A client proves who it says it is.

use std::sync::Arc;

use aws_lc_rs::{constant_time, rand};
use tieline_base::{ClientAddr, Fault, Identity, Proved, Reason, ScramVerifier, Stage, Verifier, Whose};
use tieline_conn::Connection;
use tieline_transport::tls::ServerTls;
use tieline_wire::postgres::authentication::{ANSWER_MAX, Demand, password, push_sasl, sasl_initial};
use tieline_wire::postgres::frontend::kind;
use tieline_wire::postgres::scram::server::{Channel, Exchange};
use tieline_wire::postgres::scram::{NONCE_BYTES, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError};
use tieline_wire::postgres::{md5, scram};

use super::line::Line;
use super::lookup::{Lookup, NoAnswer};
use super::users::{User, Users};
use super::{Credential, Startup, broken, refuse};
use crate::Auth;

/// What judges clients.
pub(crate) struct Judge<'j> {
    pub(crate) auth: Auth,
    pub(crate) users: &'j Users,
    pub(crate) lookup: Option<&'j Lookup>,
    pub(crate) tls: Option<&'j Arc<ServerTls>>,
}

/// Has a client prove who it says it is, and tells it that it did. What it proved can be shown to servers
/// where we have nothing else to show.
///
/// # Errors
/// It did not. It has been told so, and nothing of why.
pub(crate) async fn prove(
    line: &mut Line,
    startup: &Startup,
    judge: &Judge<'_>,
    connection: &mut Connection,
) -> Result<Credential, Fault> {
    let user = &*startup.user;
    match judge.auth {
        Auth::Trust => {
            said(line, &[Demand::Ok]).await?;
            Ok(Credential::None)
        }
        Auth::Certificate => {
            // Who it shows to be was verified when TLS began.
            if connection.identity().name() != Some(user) {
                let message = format!("certificate authentication failed for user \"{user}\"");
                return Err(refuse(line, "28000", &message, Reason::RefusedCertificate).await);
            }
            let identity = connection.identity().clone();
            connection.prove(identity, judge.tls)?;
            said(line, &[Demand::Ok]).await?;
            Ok(Credential::None)
        }
        Auth::Scram | Auth::Md5 => {
            let md5_may_be = judge.auth == Auth::Md5;
            let (known, unasked) = find(user, judge, connection.record().client()).await;
            let usable = |verifier: &Verifier| md5_may_be || matches!(verifier, Verifier::Scram(_));
            let known = known.filter(|known| usable(&known.verifier));
            let verifier = known.as_ref().map(|known| known.verifier.clone());
            let usual = judge.lookup.and_then(Lookup::usual_iterations);
            let verifier = verifier.unwrap_or_else(|| judge.users.stranger(user, md5_may_be, usual));
            let (how, judged) = match verifier {
                Verifier::Scram(verifier) => {
                    ("SCRAM-SHA-256", by_scram(line, verifier, judge, connection).await?)
                }
                Verifier::Md5(hash) => ("MD5", by_md5(line, hash, connection).await?),
            };
            // A stranger may come so far by chance alone, and no further.
            let (Some(known), Some(judged)) = (known, judged) else {
                if let Some(unasked) = unasked {
                    // Said now alone: sooner, it would tell users of the config from all others.
                    let message = "users cannot be looked up just now";
                    let _ = refuse(line, "57P03", message, Reason::Unreachable).await;
                    return Err(
                        Fault::new(Stage::Identify, Whose::Upstream, Reason::Unreachable).because(unasked)
                    );
                }
                let message = format!("password authentication failed for user \"{user}\"");
                return Err(refuse(line, "28P01", &message, Reason::RefusedLogin).await);
            };
            identify(user, how, judge, connection)?;
            let last = judged.last.as_deref().map(|last| Demand::SaslFinal(last.as_bytes()));
            said(line, &last.into_iter().chain([Demand::Ok]).collect::<Vec<_>>()).await?;
            Ok(known.password.clone().map_or(judged.credential, Credential::Password))
        }
    }
}

/// The user called so, or why it is not known whether there is one.
async fn find(user: &str, judge: &Judge<'_>, client: ClientAddr) -> (Option<User>, Option<NoAnswer>) {
    match (judge.users.find(user), judge.lookup) {
        (Some(known), _) => (Some(known.clone()), None),
        (None, None) => (None, None),
        (None, Some(lookup)) => match lookup.find(user, client).await {
            Ok(found) => (found, None),
            Err(error) => (None, Some(error)),
        },
    }
}

/// A client that knows the password.
struct Judged {
    /// What is still to be said to it.
    last: Option<String>,
    credential: Credential,
}

/// Whom it logged in as is who it is; the certificate that it may have shown on the way is kept, so that its
/// revocation ends the connection.
fn identify(user: &str, how: &str, judge: &Judge<'_>, connection: &mut Connection) -> Result<(), Fault> {
    let shown = connection.identity().proved();
    let by = match shown {
        Some(shown) => format!("{how}, and {}", shown.by),
        None => how.to_owned(),
    };
    let certificates = shown.map(|shown| shown.certificates.clone()).unwrap_or_default();
    let proved = Proved { name: user.into(), by: by.into(), groups: Vec::new(), certificates };
    connection.prove(Identity::Proved(Arc::new(proved)), judge.tls)
}

/// `None`: it does not know the password.
async fn by_scram(
    line: &mut Line,
    verifier: ScramVerifier,
    judge: &Judge<'_>,
    connection: &Connection,
) -> Result<Option<Judged>, Fault> {
    let end_point = end_point(line, judge, connection);
    let channel = end_point.as_deref().map_or(Channel::Unbound, Channel::Bindable);
    let mut out = Vec::new();
    let offered: &[&str] =
        if end_point.is_some() { &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256] } else { &[SCRAM_SHA_256] };
    push_sasl(&mut out, offered);
    line.write(&out).await.map_err(broken)?;
    let answer = answer(line, connection).await?;
    let (mechanism, first) = sasl_initial(&answer).ok_or_else(malformed)?;
    let bound = mechanism == SCRAM_SHA_256_PLUS.as_bytes();
    if !offered.iter().any(|offered| offered.as_bytes() == mechanism) {
        return Err(broke("a SASL mechanism that was not offered"));
    }
    let (iterations, salt) = (verifier.iterations, verifier.salt.clone());
    let begun = Exchange::begin(first, bound, channel, verifier, &nonce()?);
    let (exchange, challenge) = match begun {
        Ok(begun) => begun,
        Err(error) => return Err(unsound(line, error).await),
    };
    said(line, &[Demand::SaslContinue(challenge.as_bytes())]).await?;
    let answer = self::answer(line, connection).await?;
    match exchange.finish(&answer) {
        Ok(scram::server::Proved { keys, last }) => {
            let credential = Credential::Keys { keys: Arc::new(keys), iterations, salt };
            Ok(Some(Judged { last: Some(last), credential }))
        }
        Err(ScramError::Proof) => Ok(None),
        Err(error) => Err(unsound(line, error).await),
    }
}

/// What the client may bind its proof to: our certificate, where it is the only one that it can have seen.
fn end_point(line: &Line, judge: &Judge<'_>, connection: &Connection) -> Option<Box<[u8]>> {
    let tls = judge.tls.filter(|_| line.io.is_encrypted())?;
    tls.end_point(connection.server_name())
}

async fn by_md5(line: &mut Line, hash: [u8; 16], connection: &Connection) -> Result<Option<Judged>, Fault> {
    let mut salt = [0; 4];
    rand::fill(&mut salt).map_err(|_| no_randomness())?;
    said(line, &[Demand::Md5(salt)]).await?;
    let answer = answer(line, connection).await?;
    let offered = password(&answer).ok_or_else(malformed)?;
    let expected = md5::answer(&hash, salt);
    let same = constant_time::verify_slices_are_equal(offered, expected.as_bytes()).is_ok();
    Ok(same.then_some(Judged { last: None, credential: Credential::Md5(hash) }))
}

/// The next message of the client, which must answer a question about who it is.
async fn answer(line: &mut Line, connection: &Connection) -> Result<Vec<u8>, Fault> {
    line.turn(connection).await;
    let (kind, body) = line.message(ANSWER_MAX).await.map_err(broken)?;
    match kind {
        kind::PASSWORD => Ok(body),
        // It goes to ask somebody for the password, and comes back.
        kind::TERMINATE => Err(Fault::new(Stage::Identify, Whose::Client, Reason::ClientClosed)),
        _ => Err(broke("another message where an answer about who it is was due")),
    }
}

async fn said(line: &mut Line, demands: &[Demand<'_>]) -> Result<(), Fault> {
    let mut out = Vec::new();
    demands.iter().for_each(|demand| demand.push(&mut out));
    line.write(&out).await.map_err(broken)
}

fn nonce() -> Result<[u8; NONCE_BYTES], Fault> {
    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).map_err(|_| no_randomness())?;
    Ok(nonce)
}

/// What it says is no exchange; that of a user and that of a stranger alike.
async fn unsound(line: &mut Line, error: ScramError) -> Fault {
    refuse(line, "08P01", &error.to_string(), Reason::ProtocolError).await
}

fn malformed() -> Fault {
    broke("a malformed answer about who it is")
}

fn broke(how: &'static str) -> Fault {
    Fault::new(Stage::Identify, Whose::Client, Reason::ProtocolError).because(how)
}

fn no_randomness() -> Fault {
    Fault::new(Stage::Identify, Whose::Us, Reason::Exhausted).because("the kernel gives no random bytes")
}
