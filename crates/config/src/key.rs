//! What a key of the file is: the shape of the descriptions in [`crate::keys`].
//!
//! Everything that is known about a key is data, said once. From it the file is read, `explain` answers,
//! editors get their schema and the reference page is written; none of them can disagree with another.

use std::time::Duration;

use tieline_base::Bytes;

use crate::protocol::Protocol;
use crate::words::{OFF, Word};

/// A group of keys: one table of the file.
#[derive(Debug)]
pub struct Block {
    /// Where it stands: `listener.*.limits`, where `*` is a name of the user's choice.
    pub path: &'static str,
    /// What the block is for.
    pub meaning: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Keys that this version refuses with a line of their own, because the product has them and this version
    /// lacks them.
    pub later: &'static [Later],
}

/// One key of the file.
#[derive(Debug)]
pub struct Key {
    /// Its name in its block.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds where it is left out.
    pub absent: Absent,
    /// What it does, in one or two sentences.
    pub meaning: &'static str,
    /// A value for it, as TOML; text may leave its quotes off.
    pub example: &'static str,
    /// The protocols that it applies to; none named: all.
    pub protocols: &'static [Protocol],
}

/// What holds where a key is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    /// The file is refused.
    Refused,
    /// This value, as TOML; text may leave its quotes off.
    Is(&'static str),
    /// What the sentence says.
    Means(&'static str),
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Whole {
        /// The least that is taken.
        least: u64,
        /// The most that is taken.
        most: u64,
    },
    /// A duration, `"30s"`: at least so long, at most [`DURATION_MAX`].
    Duration {
        /// The least that is taken.
        least: Duration,
    },
    /// A number of bytes, `"64KiB"`.
    Size {
        /// The least that is taken.
        least: Bytes,
        /// The most that is taken.
        most: Bytes,
    },
    /// So many events in so much time, `"10/s"`.
    Rate,
    /// So many bytes a second, `"10MiB/s"`.
    ByteRate,
    /// A whole percentage, `"20%"`.
    Percent,
    /// A name that another block bears, or may bear.
    Name,
    /// A path on this machine; a relative one starts at the config file's folder.
    Path,
    /// A path on this machine behind `syslog:`.
    SyslogPath,
    /// A path on this machine behind `file:`.
    FilePath,
    /// The path of an HTTP request, `"/healthz"`.
    RequestPath,
    /// A host that HTTP clients ask for, or `*.` and a domain.
    Host,
    /// The paths of requests: a prefix, one after `= `, or with segments in braces.
    PathPattern,
    /// The method of a request, `"GET"`.
    Method,
    /// Conditions of fields or parameters: a table from name to the exact value, or `"*"` for any.
    Conditions(Of),
    /// A host that requests are sent for, with a port or without.
    Authority,
    /// Names of fields and their values.
    FieldValues,
    /// The name of a field or a cookie.
    Token,
    /// By what a choice is the same again, `"header:x-user"`.
    HashBy,
    /// What a rate of requests is counted by, `"ip"`.
    RatePer,
    /// Where a redirect leads, `"https://{host}{path}"`.
    Target,
    /// Any text.
    Text,
    /// The name of a database or a user, 1 to 63 bytes.
    SqlName,
    /// What is kept of a password, `"SCRAM-SHA-256$…"`.
    Verifier,
    /// Who somebody proves to be, `"ana"`, or `"group:support"`.
    Identity,
    /// What a text is, `"text/plain"`.
    MediaType,
    /// The name or IP address that a server's certificate is for.
    ServerName,
    /// Where we listen: an IP address and port, or `unix:/path`.
    Bind,
    /// An IP address and port; the port may be left out where there is a usual one.
    Socket {
        /// The usual port.
        port: Option<u16>,
    },
    /// Whom we dial: `host:port`, `[v6]:port` or `unix:/path`.
    Endpoint,
    /// Where a service is: as [`Kind::Endpoint`], or `udp:` and `host:port`.
    Service,
    /// A network, `"10.0.0.0/8"`, or one IP address.
    Network,
    /// A TLS server name, or `*.` and a domain.
    Sni,
    /// Services of agents, `"plant-7/ssh"`.
    Far,
    /// Windows of the week with their time zone, `"Mon-Fri 07:00-19:00 Europe/Berlin"`.
    Schedule,
    /// The permissions of a file in octal, `"0660"`.
    Mode,
    /// One of the protocols that this version serves.
    Protocol,
    /// One of these words.
    Words(&'static [Word]),
    /// Any of these, the first that fits.
    Either(&'static [Kind]),
    /// An array.
    List(&'static Kind),
    /// One, or an array of them.
    OneOrMore(&'static Kind),
    /// A table of keys.
    Table(&'static Block),
    /// A table for each name that the user chooses.
    Named(&'static Block),
}

/// What conditions are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Of {
    /// The fields of a request's head.
    Fields,
    /// The parameters of its query.
    Parameters,
}

/// The longest duration that is taken: ten years, which is "never" to a connection and safe to add to any
/// clock.
pub const DURATION_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// A key that the product has and this version lacks.
#[derive(Debug)]
pub struct Later {
    /// Its name in its block.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
}

/// What a key needs that this version lacks.
#[derive(Debug)]
pub enum Needs {
    /// A listener or upstream of one of these protocols.
    Protocols(&'static [Protocol]),
    /// Something else, in words that follow "needs".
    Feature(&'static str),
}

impl Block {
    /// The description of the key `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// The block that the values of this kind are tables of, or hold tables of, if any.
    pub fn block(&self) -> Option<&'static Block> {
        match self {
            Kind::Table(block) | Kind::Named(block) => Some(block),
            Kind::List(item) | Kind::OneOrMore(item) => item.block(),
            Kind::Either(kinds) => kinds.iter().find_map(Kind::block),
            _ => None,
        }
    }

    /// Whether it takes arrays, of one item at least.
    pub(crate) fn is_one_or_more(&self) -> bool {
        match self {
            Kind::OneOrMore(_) => true,
            Kind::Either(kinds) => kinds.iter().any(Kind::is_one_or_more),
            _ => false,
        }
    }

    /// What it takes, in the words of an error message: `a duration like "30s"`.
    pub fn expected(&self) -> String {
        match self {
            Kind::Flag => "true or false".into(),
            Kind::Whole { least, most } => format!("a whole number from {least} to {most}"),
            Kind::Duration { .. } => "a duration like \"30s\"".into(),
            Kind::Size { .. } => "a size like \"64KiB\"".into(),
            Kind::Rate => "a rate like \"10/s\"".into(),
            Kind::ByteRate => "a rate of bytes like \"10MiB/s\"".into(),
            Kind::Percent => "a percentage like \"20%\"".into(),
            Kind::Name => "a name".into(),
            Kind::Path => "a path".into(),
            Kind::FilePath => "\"file:\" and a path".into(),
            Kind::SyslogPath => "\"syslog:\" and the path of a socket".into(),
            Kind::RequestPath => "a path like \"/healthz\"".into(),
            Kind::Host => "a host like \"shop.example.com\" or \"*.example.com\"".into(),
            Kind::PathPattern => "a path like \"/api\", \"/users/{id}\" or \"= /healthz\"".into(),
            Kind::Method => "a method like \"GET\"".into(),
            Kind::Conditions(Of::Fields) => "a table of fields like { x-version = \"2\" }".into(),
            Kind::Conditions(Of::Parameters) => "a table of parameters like { version = \"2\" }".into(),
            Kind::RatePer => "\"ip\", \"route\" or \"header:NAME\"".into(),
            Kind::Authority => "a host like \"shop.internal\" or \"shop.internal:8080\"".into(),
            Kind::FieldValues => "a table of fields like { x-served-by = \"edge\" }".into(),
            Kind::Token => "a name of letters, digits and hyphens".into(),
            Kind::HashBy => "\"remote\", \"sni\", \"header:NAME\" or \"cookie:NAME\"".into(),
            Kind::Target => "a URL like \"https://{host}{path}\"".into(),
            Kind::Text => "a text".into(),
            Kind::SqlName => "a name like \"orders\"".into(),
            Kind::Verifier => "a verifier like \"SCRAM-SHA-256$4096:...\"".into(),
            Kind::Identity => "a name like \"ana\"".into(),
            Kind::MediaType => "a media type like \"text/plain\"".into(),
            Kind::ServerName => "a name like \"db.example.com\"".into(),
            Kind::Bind => "an address like \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/path\"".into(),
            Kind::Socket { .. } => "an IP address and port like \"127.0.0.1:7070\"".into(),
            Kind::Endpoint => "an address like \"db.example.com:5432\" or \"unix:/path\"".into(),
            Kind::Service => {
                "an address like \"127.0.0.1:22\", \"unix:/path\" or \"udp:10.0.0.53:53\"".into()
            }
            Kind::Network => "a network like \"10.0.0.0/8\"".into(),
            Kind::Sni => "a server name like \"db.example.com\" or \"*.example.com\"".into(),
            Kind::Far => "services of agents like \"plant-7/ssh\" or \"*/ssh\"".into(),
            Kind::Schedule => "a schedule like \"Mon-Fri 07:00-19:00 Europe/Berlin\"".into(),
            Kind::Mode => "an octal mode like \"0660\"".into(),
            Kind::Protocol => "the name of a protocol".into(),
            Kind::Words(words) => one_of(words.iter().map(|word| format!("\"{}\"", word.word))),
            Kind::Either(kinds) => one_of(kinds.iter().map(Kind::expected)),
            Kind::List(item) => format!("an array, each item {}", item.expected()),
            Kind::OneOrMore(item) => format!("{}, or an array of such", item.expected()),
            Kind::Table(_) => "a table of keys".into(),
            Kind::Named(block) => format!("tables with names, like [{}]", block.path.replace('*', "NAME")),
        }
    }
}

/// Where a whole number has no other bound than that of its type.
pub(crate) const WHOLE_MAX: u64 = u32::MAX as u64;

/// `a, b or c`.
pub(crate) fn one_of(choices: impl Iterator<Item = String>) -> String {
    let choices: Vec<_> = choices.collect();
    match choices.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
}

/// Begins the description of a key that the file must have.
pub(crate) const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, absent: Absent::Refused, meaning: "", example: "", protocols: &[] }
}

/// A number of clients, or that there is no limit.
pub(crate) const COUNT_OR_OFF: Kind =
    Kind::Either(&[Kind::Words(OFF), Kind::Whole { least: 1, most: WHOLE_MAX }]);

/// A key of other protocols than those of this version.
pub(crate) const fn of_protocols(name: &'static str, protocols: &'static [Protocol]) -> Later {
    Later { name, needs: Needs::Protocols(protocols) }
}

/// A key that needs something else that this version lacks.
pub(crate) const fn of_feature(name: &'static str, feature: &'static str) -> Later {
    Later { name, needs: Needs::Feature(feature) }
}

impl Key {
    /// The same key, meaning `meaning`.
    pub(crate) const fn means(mut self, meaning: &'static str) -> Self {
        self.meaning = meaning;
        self
    }

    /// The same key, with a value to show.
    pub(crate) const fn example(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// The same key, `value` where it is left out.
    pub(crate) const fn or(mut self, value: &'static str) -> Self {
        self.absent = Absent::Is(value);
        self
    }

    /// The same key, which may be left out, meaning what `sentence` says.
    pub(crate) const fn or_else(mut self, sentence: &'static str) -> Self {
        self.absent = Absent::Means(sentence);
        self
    }

    /// The same key, for these protocols alone.
    pub(crate) const fn only(mut self, protocols: &'static [Protocol]) -> Self {
        self.protocols = protocols;
        self
    }
}
