//! The first words over a carrier: HELLO and WELCOME for a new link, RESUME and RESUMED for one that goes on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::Clock;
use tieline_transport::Io;
use tieline_wire::Parsed;
use tieline_wire::tunnel::{
    Endpoints, Exporter, Frame, Hello, Key, Limits, Link, LinkId, Party, Refusal, Refused, ResumeError, Side,
    Ttls, Welcome, parse,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::EXPORTER_LABEL;
use crate::carrier::Carrier;
use crate::live::LiveLink;
use crate::sha::{Sha, random};

/// The version of the frames that is spoken.
const VERSION: u64 = 1;

/// The longest silence on a link without streams, before the peer is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Why a greeting came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not speak as it should.
    #[error("{0}")]
    Protocol(&'static str),
    /// The peer says no.
    #[error("the server says no: {}", told(*.0))]
    Refused(Refusal, Duration),
    /// The proof of the link, or where it stands, is wrong.
    #[error(transparent)]
    Resume(#[from] ResumeError),
}

fn told(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoLink => "it knows no such link",
        Refusal::Version => "it speaks another version of the protocol",
        Refusal::Busy => "it has no room just now",
        Refusal::Denied => "it may not link up; a new token lets it",
        Refusal::Elsewhere => "the link is at another server",
        Refusal::Stale => "a later connection of the link was there first",
    }
}

/// The first frame of a carrier: `bytes[..length]`.
pub(crate) struct First {
    pub(crate) bytes: Vec<u8>,
    pub(crate) length: usize,
}

impl First {
    /// Reads it, without a deadline: the caller has one.
    pub(crate) async fn read(io: &mut Io) -> Result<First, GreetingError> {
        let mut bytes = Vec::new();
        loop {
            match parse(&bytes) {
                Ok(Parsed::Done { consumed, .. }) => return Ok(First { bytes, length: consumed }),
                Ok(Parsed::Incomplete { at_most }) => {
                    let room = at_most.saturating_sub(bytes.len()).clamp(1, READ_MAX);
                    bytes.reserve(room);
                    if (&mut *io).take(room as u64).read_buf(&mut bytes).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
                Err(_) => return Err(GreetingError::Protocol("the first bytes are no frame")),
            }
        }
    }

    /// What it is.
    pub(crate) fn frame(&self) -> Result<Frame<'_>, GreetingError> {
        match parse(&self.bytes[..self.length]) {
            Ok(Parsed::Done { value, .. }) => Ok(value),
            _ => Err(GreetingError::Protocol("the first bytes are no frame")),
        }
    }

    /// What was read behind it.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.length);
        self.bytes
    }
}

/// The most that is read at once, in bytes.
const READ_MAX: usize = 4 * 1024;

/// What both ends of this carrier know and nobody else.
pub(crate) fn exporter(io: &Io) -> Result<Exporter, GreetingError> {
    io.export(EXPORTER_LABEL)
        .map(Exporter)
        .ok_or(GreetingError::Protocol("it carries nothing that could be proved"))
}

/// Makes the link that `hello` asks for, and writes the WELCOME behind `out`.
pub(crate) fn welcome(
    hello: &Hello<'_>,
    party: Party,
    exporter: &Exporter,
    out: &mut Vec<u8>,
) -> Result<Result<(LinkId, Link), Refusal>, GreetingError> {
    let Some(version) = hello.version(VERSION..=VERSION) else { return Ok(Err(Refusal::Version)) };
    if hello.party != party {
        return Ok(Err(Refusal::Denied));
    }
    let (id, limits) = (LinkId(random()?), Limits::DEFAULT);
    let key = Key::first(&Sha, exporter);
    let link = Link::new(id, Side::Acceptor, limits, key, HEARTBEAT, Clock::now());
    let mut lines = Vec::new();
    Frame::Welcome(Welcome {
        version,
        features: 0,
        link: id,
        epoch: link.epoch(),
        limits,
        heartbeat_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
        ttls: Ttls::write([], &mut lines),
        endpoints: Endpoints::default(),
    })
    .encode(out);
    Ok(Ok((id, link)))
}

/// How long a refusal may take to be heard.
const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// Tells the peer no.
pub(crate) async fn refuse(io: &mut Io, refusal: Refusal, retry_after: Duration) {
    let mut out = Vec::new();
    Frame::Refused(Refused { refusal, retry_after, elsewhere: Endpoints::default() }).encode(&mut out);
    let told = async {
        say(io, &out).await?;
        // Where closing would take back what is under way, its end is waited for.
        io.shutdown().await
    };
    // Whoever is gone need not be told.
    let _ = tokio::time::timeout(REFUSAL_MAX, told).await;
}

pub(crate) async fn say(io: &mut Io, bytes: &[u8]) -> io::Result<()> {
    io.write_all(bytes).await?;
    io.flush().await
}

/// Who asks for a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) party: Party,
    /// Its process.
    pub(crate) boot: [u8; 16],
    /// Which of the links of that process it is.
    pub(crate) place: u64,
}

/// The dialer's part: asks for `link` to go on over `io`, or for a new one. Without a deadline.
pub(crate) async fn ask(
    mut io: Io,
    link: Option<Arc<LiveLink>>,
    caller: Caller,
) -> Result<Carrier, GreetingError> {
    let exporter = exporter(&io)?;
    match link {
        Some(link) => {
            let mut out = Vec::new();
            let offer = link.act(|core| core.link.resume(&Sha, exporter, &mut out));
            say(&mut io, &out).await?;
            let first = First::read(&mut io).await?;
            match first.frame()? {
                Frame::Resumed(resumed) => {
                    link.act(|core| core.link.resumed(&Sha, &offer, &resumed, Clock::now()))?;
                }
                other => return Err(no(&other)),
            }
            Ok(Carrier::new(io, link, offer.epoch(), first.rest(), Vec::new()))
        }
        None => {
            let mut out = Vec::new();
            let release = env!("CARGO_PKG_VERSION");
            let (version_min, version_max, features) = (VERSION, VERSION, 0);
            let Caller { party, boot, place } = caller;
            Frame::Hello(Hello { version_min, version_max, features, boot, place, party, release })
                .encode(&mut out);
            say(&mut io, &out).await?;
            let first = First::read(&mut io).await?;
            let link = match first.frame()? {
                Frame::Welcome(welcome) if welcome.version == VERSION => {
                    let key = Key::first(&Sha, &exporter);
                    let heartbeat = Duration::from_millis(welcome.heartbeat_ms.clamp(1_000, 600_000));
                    Link::new(welcome.link, Side::Dialer, welcome.limits, key, heartbeat, Clock::now())
                }
                other => return Err(no(&other)),
            };
            let epoch = link.epoch();
            Ok(Carrier::new(io, LiveLink::new(link, party == Party::Agent), epoch, first.rest(), Vec::new()))
        }
    }
}

fn no(frame: &Frame<'_>) -> GreetingError {
    match frame {
        Frame::Refused(refused) => GreetingError::Refused(refused.refusal, refused.retry_after),
        _ => GreetingError::Protocol("the server answers with a frame that may not come here"),
    }
}
