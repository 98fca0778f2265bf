//! What a client says first, before anything is known of it: a request for encryption, a request to cancel,
//! or the startup packet (PostgreSQL documentation, "Message Flow": Start-up).

use super::options::{self, Setting};
use crate::Parsed;
use crate::cursor::Cursor;

/// The longest first packet in bytes, its length included: what servers take.
pub const STARTUP_MAX: usize = 4 + 10_000;

/// The longest secret of a request to cancel, since protocol 3.2.
pub const SECRET_MAX: usize = 256;

/// The longest name of a database or a user: servers cut off what is longer, without a word.
pub const NAME_MAX: usize = 63;

const LENGTH: usize = 4;
const CODE: usize = 4;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

const USER: &[u8] = b"user";
const DATABASE: &[u8] = b"database";
const OPTIONS: &[u8] = b"options";
const REPLICATION: &[u8] = b"replication";
const PROTOCOL_OPTION: &[u8] = b"_pq_.";
const LOGICAL: &[u8] = b"database";

/// A first packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum First<'a> {
    /// It would speak TLS from here on.
    Ssl,
    /// It would speak GSSAPI from here on.
    Gssenc,
    /// It would cancel what another connection does.
    Cancel {
        /// The process that the other connection was told, as it was told.
        process: u32,
        /// The secret that it was told with it: up to [`SECRET_MAX`] bytes.
        secret: &'a [u8],
    },
    /// It would log in.
    Startup(Startup<'a>),
}

/// What a connection for replication is about (PostgreSQL documentation, "Streaming Replication Protocol").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replication {
    /// The server as a whole, block by block; it belongs to no database.
    Physical,
    /// One database, change by change; it takes plain SQL too.
    Logical,
}

impl Replication {
    /// The word for it, which consoles show.
    pub fn as_str(self) -> &'static str {
        match self {
            Replication::Physical => "physical",
            Replication::Logical => "logical",
        }
    }

    /// The value of `replication` in a startup packet that asks for it.
    pub fn parameter(self) -> &'static [u8] {
        match self {
            Replication::Physical => b"true",
            Replication::Logical => LOGICAL,
        }
    }

    /// What a server takes `value` for: its word for the one, or one of its booleans.
    fn read(value: &[u8]) -> Result<Option<Self>, StartupError> {
        if value == LOGICAL {
            return Ok(Some(Replication::Logical));
        }
        let begins = |word: &str, least: usize| {
            let word = word.as_bytes();
            (least..=word.len()).contains(&value.len()) && word[..value.len()].eq_ignore_ascii_case(value)
        };
        match value {
            _ if begins("true", 1) || begins("yes", 1) || begins("on", 2) || value == b"1" => {
                Ok(Some(Replication::Physical))
            }
            _ if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == b"0" => Ok(None),
            _ => Err(StartupError::Replication(String::from_utf8_lossy(value).into_owned())),
        }
    }
}

/// A version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// 3 for every server of the last twenty years.
    pub major: u16,
    /// What was added since.
    pub minor: u16,
}

impl Version {
    /// The protocol of 2003.
    pub const V3_0: Version = Version { major: 3, minor: 0 };
    /// Longer secrets of requests to cancel. There was no 3.1.
    pub const V3_2: Version = Version { major: 3, minor: 2 };
    /// The newest that we speak.
    pub const NEWEST: Version = Version::V3_2;

    /// The version as it stands in messages.
    pub fn code(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    fn of_code(code: u32) -> Self {
        let [a, b, c, d] = code.to_be_bytes();
        Version { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) }
    }
}

/// A startup packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Startup<'a> {
    /// The version that it asks for; its major one is 3.
    pub version: Version,
    /// The user it would log in as: 1 to [`NAME_MAX`] bytes.
    pub user: &'a [u8],
    /// The database it would use; the user's name where it names none, and none at all where it replicates
    /// the whole server.
    pub database: &'a [u8],
    /// The settings that its session begins with, in the order in which they count; those of `options` come
    /// first, as servers have it.
    pub settings: Vec<Setting>,
    /// What it would replicate, if that is what it is for: such a connection speaks otherwise than others.
    pub replication: Option<Replication>,
    /// The names of the protocol's own options that it asks for (`_pq_.…`). We know none.
    pub unknown: Vec<&'a [u8]>,
}

/// Why a first packet leads nowhere. What `Display` says is for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartupError {
    /// Its length is none that a first packet has.
    #[error("invalid length of startup packet")]
    Length,
    /// It asks for a version of which nothing is known.
    #[error("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", .0.major, .0.minor)]
    Version(Version),
    /// It is not made of names and values.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// It names nobody.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Its user or database is not UTF-8, or holds control characters.
    #[error("names of users and databases must be plain text in UTF-8")]
    Name,
    /// Its `options` are not what servers understand.
    #[error("invalid command-line argument for server process: {0}")]
    Options(String),
    /// Nobody knows what it would replicate.
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
}

impl StartupError {
    /// The SQLSTATE that goes with it.
    pub fn code(&self) -> &'static str {
        match self {
            StartupError::Length | StartupError::Layout => "08P01",
            StartupError::Version(_) => "0A000",
            StartupError::NoUser | StartupError::Name => "28000",
            StartupError::Options(_) => "42601",
            StartupError::Replication(_) => "22023",
        }
    }
}

/// Reads the first packet at the beginning of `bytes`.
///
/// # Errors
/// [`StartupError`]: what follows cannot be told apart any more.
pub fn parse(bytes: &[u8]) -> Result<Parsed<First<'_>>, StartupError> {
    let Some(&stated) = bytes.first_chunk::<LENGTH>() else {
        return Ok(Parsed::Incomplete { at_most: STARTUP_MAX });
    };
    let length = u32::from_be_bytes(stated) as usize;
    if !(LENGTH + CODE..=STARTUP_MAX).contains(&length) {
        return Err(StartupError::Length);
    }
    let Some(packet) = bytes.get(LENGTH..length) else { return Ok(Parsed::Incomplete { at_most: length }) };
    let mut packet = Cursor::new(packet);
    let code = packet.array().map_or(0, u32::from_be_bytes);
    let value = match code {
        SSL | GSSENC if !packet.is_empty() => return Err(StartupError::Length),
        SSL => First::Ssl,
        GSSENC => First::Gssenc,
        CANCEL => {
            let process = packet.array().map(u32::from_be_bytes).ok_or(StartupError::Length)?;
            let secret = packet.rest();
            if secret.is_empty() || secret.len() > SECRET_MAX {
                return Err(StartupError::Length);
            }
            First::Cancel { process, secret }
        }
        code => First::Startup(startup(Version::of_code(code), packet)?),
    };
    Ok(Parsed::Done { value, consumed: length })
}

fn startup<'a>(version: Version, mut packet: Cursor<'a>) -> Result<Startup<'a>, StartupError> {
    if version.major != 3 {
        return Err(StartupError::Version(version));
    }
    let (mut user, mut database, mut command_line): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    let (mut named, mut unknown, mut replication) = (Vec::new(), Vec::new(), None);
    loop {
        let name = packet.until_nul().ok_or(StartupError::Layout)?;
        if name.is_empty() {
            break;
        }
        let value = packet.until_nul().ok_or(StartupError::Layout)?;
        match name {
            USER => user = value,
            DATABASE => database = value,
            OPTIONS => command_line = value,
            REPLICATION => replication = Replication::read(value)?,
            _ if name.starts_with(PROTOCOL_OPTION) => unknown.push(name),
            _ => named.push(Setting { name: name.into(), value: value.into() }),
        }
    }
    if !packet.is_empty() {
        return Err(StartupError::Layout);
    }
    if user.is_empty() {
        return Err(StartupError::NoUser);
    }
    let mut settings = options::parse(command_line).map_err(StartupError::Options)?;
    // They would be who logs in, should they come into another startup packet.
    if let Some(posing) = settings.iter().find(|setting| is_reserved(&setting.name)) {
        return Err(StartupError::Options(String::from_utf8_lossy(&posing.name).into_owned()));
    }
    settings.append(&mut named);
    let database = match replication {
        // Servers look at none that it may name.
        Some(Replication::Physical) => b"",
        _ if database.is_empty() => user,
        _ => database,
    };
    let (user, database) = (self::name(user)?, self::name(database)?);
    Ok(Startup { version, user, database, settings, replication, unknown })
}

/// Whether a startup packet says something else than a setting by this name.
pub fn is_reserved(name: &[u8]) -> bool {
    matches!(name, USER | DATABASE | OPTIONS | REPLICATION) || name.starts_with(PROTOCOL_OPTION)
}

/// What a server makes of a name. Where a route looks at the whole of it and the server at its beginning,
/// a client could choose its route by what the server does not see.
fn name(name: &[u8]) -> Result<&[u8], StartupError> {
    let text = std::str::from_utf8(name).map_err(|_| StartupError::Name)?;
    if text.chars().any(char::is_control) {
        return Err(StartupError::Name);
    }
    // Cut where a character ends, as servers do.
    let end = text.floor_char_boundary(NAME_MAX);
    Ok(&name[..end])
}

impl Startup<'_> {
    /// What to answer where it asks for more than we know: the newest version that we speak with it, and the
    /// names of its options that we do not know. `None` where it asks for nothing of that kind: clients take
    /// an answer that they did not ask for as an error.
    pub fn negotiation(&self) -> Option<(Version, &[&[u8]])> {
        let newer = self.version > Version::NEWEST;
        (newer || !self.unknown.is_empty()).then(|| (self.version.min(Version::NEWEST), &*self.unknown))
    }

    /// Whether its secret for requests to cancel may be longer than four bytes.
    pub fn takes_long_secrets(&self) -> bool {
        self.version >= Version::V3_2
    }
}

/// Appends NegotiateProtocolVersion: we speak `version` at most, and do not know the options `unknown`.
pub fn push_negotiation(out: &mut Vec<u8>, version: Version, unknown: &[&[u8]]) {
    super::frame::push(out, b'v', |out| {
        // The whole version, not its minor part, whatever older documentation says.
        out.extend_from_slice(&version.code().to_be_bytes());
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        unknown.iter().for_each(|name| super::frame::push_text(out, name));
    });
}

/// The request for TLS, to which a server answers `S` or `N`.
pub fn ssl_request() -> [u8; 8] {
    let mut packet = [0; 8];
    packet[..4].copy_from_slice(&8_u32.to_be_bytes());
    packet[4..].copy_from_slice(&SSL.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests;
