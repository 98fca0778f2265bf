//! Values: what is written, read by the kind that its key takes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tieline_base::{
    Address, ByteRate, Bytes, Percent, Rate, Verifier, format_duration, is_host_name, parse_duration,
};

use crate::access;
use crate::action;
use crate::agent::Service;
use crate::bind::BindAddress;
use crate::endpoint_url::{self, Dialed};
use crate::far::FarMatch;
use crate::fields::Fields;
use crate::hash_by::HashBy;
use crate::host::HostPattern;
use crate::http_match::{self, Condition};
use crate::key::{DURATION_MAX, Kind, one_of};
use crate::node::Node;
use crate::path_pattern::PathPattern;
use crate::place::Spot;
use crate::postgres;
use crate::problem::Problems;
use crate::protocol::{self, Protocol};
use crate::rate::RatePer;
use crate::rewrite::{self, FieldValues};
use crate::schedule::Schedule;
use crate::sni::Sni;
use crate::suggest::did_you_mean;
use crate::target::Target;

/// A value that its key takes.
#[derive(Debug)]
pub(crate) enum Value {
    Flag(bool),
    Whole(u64),
    Duration(Duration),
    Size(Bytes),
    Rate(Rate),
    ByteRate(ByteRate),
    Percent(Percent),
    Text(String),
    Host(HostPattern),
    PathPattern(PathPattern),
    Conditions(Vec<Condition>),
    FieldValues(FieldValues),
    HashBy(HashBy),
    RatePer(RatePer),
    Target(Target),
    Path(PathBuf),
    Syslog(SyslogPath),
    Bind(BindAddress),
    Socket(SocketAddr),
    Dialed(Dialed),
    Service(Service),
    Network(IpNet),
    Verifier(Verifier),
    Sni(Sni),
    Far(FarMatch),
    Schedule(Schedule),
    Mode(u32),
    Protocol(Protocol),
    Word(&'static str),
    List(Vec<Spot<Value>>),
    Table(Fields),
    Named(Vec<(Spot<String>, Fields)>),
}

/// The socket of a log daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SyslogPath(pub(crate) PathBuf);

impl Value {
    /// The tables that it is or holds.
    pub(crate) fn tables(&self) -> Vec<&Fields> {
        match self {
            Value::Table(table) => vec![table],
            Value::List(items) => items.iter().flat_map(|item| item.value.tables()).collect(),
            Value::Named(tables) => tables.iter().map(|(_, table)| table).collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads `node` as a value of `kind` for the key `name`; problems are told, and what has one is left out.
pub(crate) fn read(kind: &Kind, name: &str, node: &Spot<Node>, problems: &mut Problems) -> Option<Value> {
    match (kind, &node.value) {
        (Kind::Either(kinds), _) => either(kinds, name, node, problems),
        (Kind::List(item), Node::List(nodes)) => Some(Value::List(list(item, name, nodes, problems))),
        (Kind::OneOrMore(item), Node::List(nodes)) => Some(Value::List(list(item, name, nodes, problems))),
        (Kind::OneOrMore(item), _) => {
            let value = read(item, name, node, problems)?;
            Some(Value::List(vec![Spot { value, place: node.place }]))
        }
        (Kind::Conditions(of), Node::Table(entries)) => {
            Some(Value::Conditions(http_match::conditions(*of, name, entries, problems)))
        }
        (Kind::FieldValues, Node::Table(entries)) => {
            Some(Value::FieldValues(rewrite::field_values(name, entries, problems)))
        }
        (Kind::Table(block), Node::Table(entries)) => {
            Some(Value::Table(Fields::read(block, node.place, entries, problems)))
        }
        (Kind::Named(block), Node::Table(entries)) => {
            Some(Value::Named(crate::fields::read_named(block, entries, problems)))
        }
        _ => match scalar(kind, &node.value) {
            Ok(value) => Some(value),
            Err(wrong) => {
                wrong.tell(&kind.expected(), name, node, problems);
                None
            }
        },
    }
}

/// Reads the first of `kinds` that takes `node`. Where none does, the last one that says more than "not this"
/// says why.
fn either(kinds: &[Kind], name: &str, node: &Spot<Node>, problems: &mut Problems) -> Option<Value> {
    let composed = |kind: &&Kind| match (kind, &node.value) {
        (Kind::Table(_), Node::Table(_)) | (Kind::OneOrMore(_), Node::List(_)) => true,
        (Kind::OneOrMore(item), Node::Table(_)) => item.block().is_some(),
        _ => false,
    };
    if let Some(kind) = kinds.iter().find(composed) {
        return read(kind, name, node, problems);
    }
    let mut wrong = Wrong::Type(form_hint_of_any(kinds, &node.value));
    for kind in kinds {
        match (scalar(kind, &node.value), &wrong) {
            (Ok(value), _) => return Some(value),
            // A mistyped word is told as such, not as the address that it is not.
            (Err(Wrong::Type(_)), _) | (Err(_), Wrong::Type(Some(_))) => {}
            (Err(why), _) => wrong = why,
        }
    }
    wrong.tell(&one_of(kinds.iter().map(Kind::expected)), name, node, problems);
    None
}

fn list(item: &Kind, name: &str, nodes: &[Spot<Node>], problems: &mut Problems) -> Vec<Spot<Value>> {
    let read = |node: &Spot<Node>| {
        let value = read(item, name, node, problems)?;
        Some(Spot { value, place: node.place })
    };
    nodes.iter().filter_map(read).collect()
}

/// Why a value is not what its key takes.
pub(crate) enum Wrong {
    /// Another type, or not one of its words; and how to write it, if that can be told.
    Type(Option<String>),
    /// This, in a sentence to which the key's name belongs.
    Because(String),
    /// The same, and how to mend it.
    Hinted(String, String),
    /// This, in a sentence that stands alone.
    Alone(String),
}

impl Wrong {
    pub(crate) fn because(error: impl ToString) -> Self {
        Wrong::Because(error.to_string())
    }

    fn tell(self, expected: &str, name: &str, node: &Spot<Node>, problems: &mut Problems) {
        let (message, hint) = match self {
            Wrong::Type(hint) => (format!("`{name}` takes {expected}, not {}", node.value.describe()), hint),
            Wrong::Because(message) => (format!("`{name}`: {message}"), None),
            Wrong::Hinted(message, hint) => (format!("`{name}`: {message}"), Some(hint)),
            Wrong::Alone(message) => (message, None),
        };
        problems.error(node.place, message).maybe(|| hint);
    }
}

/// How to write what was written in another form.
fn form_hint(kind: &Kind, node: &Node) -> Option<String> {
    match (kind, node) {
        (Kind::Duration { .. }, Node::Whole(number)) => Some(format!("for seconds write \"{number}s\"")),
        (Kind::Size { .. }, Node::Whole(number)) => Some(format!("for bytes write \"{number}B\"")),
        (Kind::Rate, Node::Whole(number)) => Some(format!("for so many a second write \"{number}/s\"")),
        (Kind::ByteRate, Node::Whole(number)) => Some(format!("for bytes a second write \"{number}B/s\"")),
        (Kind::Percent, Node::Whole(number)) => Some(format!("write \"{number}%\"")),
        (Kind::Mode, Node::Whole(number)) => Some(format!("write it in quotes: \"{number:04}\"")),
        (Kind::Words(words), Node::Text(text)) => did_you_mean(text, words.iter().map(|word| word.word)),
        (Kind::FilePath, Node::Text(text)) if text.contains('/') => Some(format!("write \"file:{text}\"")),
        (Kind::List(Kind::Table(block)), Node::Table(_)) => {
            Some(format!("write [[{}]], in two pairs of brackets", block.path.replace('*', "NAME")))
        }
        (Kind::List(_), Node::Text(text)) => Some(format!("write [\"{text}\"]")),
        (Kind::Whole { .. }, Node::Text(text)) if text.parse::<u64>().is_ok() => {
            Some(format!("write it without quotes: {text}"))
        }
        _ => None,
    }
}

fn form_hint_of_any(kinds: &[Kind], node: &Node) -> Option<String> {
    kinds.iter().find_map(|kind| form_hint(kind, node))
}

/// Reads a value that is no array and no table.
fn scalar(kind: &Kind, node: &Node) -> Result<Value, Wrong> {
    match (kind, node) {
        (Kind::Flag, Node::Flag(flag)) => Ok(Value::Flag(*flag)),
        (Kind::Whole { least, most }, Node::Whole(number)) => whole(*number, *least, *most, kind),
        (_, Node::Text(text)) => {
            of_text(kind, text).unwrap_or_else(|| Err(Wrong::Type(form_hint(kind, node))))
        }
        _ => Err(Wrong::Type(form_hint(kind, node))),
    }
}

fn whole(number: i64, least: u64, most: u64, kind: &Kind) -> Result<Value, Wrong> {
    match u64::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(Value::Whole(number)),
        _ => Err(Wrong::Because(format!("{number} is out of range; it takes {}", kind.expected()))),
    }
}

/// Reads `text` as `kind`; `None` if that takes no such text.
fn of_text(kind: &Kind, text: &str) -> Option<Result<Value, Wrong>> {
    Some(match kind {
        Kind::Duration { least } => duration(text, *least),
        Kind::Size { least, most } => size(text, *least, *most),
        Kind::Rate => text.parse().map(Value::Rate).map_err(Wrong::because),
        Kind::ByteRate => text.parse().map(Value::ByteRate).map_err(Wrong::because),
        Kind::Percent => text.parse().map(Value::Percent).map_err(Wrong::because),
        Kind::Name => name(text).map(Value::Text),
        Kind::Path => path(text).map(Value::Path),
        Kind::FilePath => path(text.strip_prefix("file:")?).map(Value::Path),
        Kind::SyslogPath => path(text.strip_prefix("syslog:")?).map(SyslogPath).map(Value::Syslog),
        Kind::RequestPath => request_path(text).map(Value::Text),
        Kind::Host => text.parse().map(Value::Host).map_err(Wrong::because),
        Kind::PathPattern => text.parse().map(Value::PathPattern).map_err(Wrong::because),
        Kind::Method => method(text).map(Value::Text),
        Kind::RatePer => text.parse().map(Value::RatePer).map_err(Wrong::because),
        Kind::Authority => rewrite::authority(text).map(Value::Text).map_err(Wrong::Because),
        Kind::Token => rewrite::token(text).map(Value::Text).map_err(Wrong::Because),
        Kind::HashBy => text.parse().map(Value::HashBy).map_err(Wrong::because),
        Kind::Target => text.parse().map(Value::Target).map_err(Wrong::because),
        Kind::Text => Ok(Value::Text(text.into())),
        Kind::SqlName => postgres::sql_name(text).map(Value::Text).map_err(Wrong::Because),
        Kind::Verifier => text.parse().map(Value::Verifier).map_err(Wrong::because),
        Kind::Identity => access::identity(text).map(Value::Text).map_err(Wrong::Because),
        Kind::MediaType => action::media_type(text).map(Value::Text).map_err(Wrong::Because),
        Kind::ServerName => server_name(text).map(Value::Text),
        Kind::Bind => text.parse().map(Value::Bind).map_err(Wrong::because),
        Kind::Socket { port } => socket(text, *port).map(Value::Socket),
        Kind::Endpoint => endpoint_url::endpoint(text).map(Value::Dialed),
        Kind::Service => endpoint_url::service(text).map(Value::Service),
        Kind::Network => network(text).map(Value::Network),
        Kind::Sni => text.parse().map(Value::Sni).map_err(Wrong::because),
        Kind::Far => text.parse().map(Value::Far).map_err(Wrong::because),
        Kind::Schedule => text.parse().map(Value::Schedule).map_err(Wrong::because),
        Kind::Mode => mode(text).map(Value::Mode),
        Kind::Protocol => protocol(text),
        Kind::Words(words) => Ok(Value::Word(words.iter().find(|word| word.word == text)?.word)),
        _ => return None,
    })
}

fn duration(text: &str, least: Duration) -> Result<Value, Wrong> {
    let duration = parse_duration(text).map_err(Wrong::because)?;
    if duration < least {
        return Err(Wrong::Because(format!("\"{text}\" is too short; at least {}", format_duration(least))));
    }
    if duration > DURATION_MAX {
        return Err(Wrong::Because(format!(
            "\"{text}\" is too long; at most {}",
            format_duration(DURATION_MAX)
        )));
    }
    Ok(Value::Duration(duration))
}

fn size(text: &str, least: Bytes, most: Bytes) -> Result<Value, Wrong> {
    let size = text.parse::<Bytes>().map_err(Wrong::because)?;
    if size < least {
        return Err(Wrong::Because(format!("\"{text}\" is too little; at least {least}")));
    }
    if size > most {
        return Err(Wrong::Because(format!("\"{text}\" is too much; at most {most}")));
    }
    Ok(Value::Size(size))
}

/// Whether `text` is a name as blocks bear it.
///
/// Names stand in filters, metrics and paths, so they hold nothing that would have to be quoted there.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// What a name is made of, for the messages that refuse one.
pub(crate) const NAME_RULE: &str = "a name has 1 to 64 letters, digits, dots, hyphens and underscores, \
                                    a letter or digit first";

fn name(text: &str) -> Result<String, Wrong> {
    if is_name(text) {
        Ok(text.into())
    } else {
        Err(Wrong::Because(format!("\"{text}\" is no name; {NAME_RULE}")))
    }
}

fn path(text: &str) -> Result<PathBuf, Wrong> {
    match text {
        "" => Err(Wrong::Because("a path cannot be empty".into())),
        _ if text.contains('\0') => Err(Wrong::Because("a path cannot hold a NUL character".into())),
        _ => Ok(text.into()),
    }
}

fn request_path(text: &str) -> Result<String, Wrong> {
    // RFC 9112 §3.2.1: the target starts with a slash; whatever ends it early would be a second header line.
    let sound = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#');
    if sound {
        return Ok(text.into());
    }
    Err(Wrong::Because(format!(
        "\"{text}\" is no path of a request; it begins with a slash, like \"/healthz\""
    )))
}

fn method(text: &str) -> Result<String, Wrong> {
    if text == "*" {
        return Err(Wrong::Hinted("\"*\" is no method".into(), "leave it out for every method".into()));
    }
    if !http_match::is_token(text) {
        return Err(Wrong::Because(format!("\"{text}\" is no method; write one like \"GET\"")));
    }
    // RFC 9110 §9.1: methods are told apart by case, and every one that is registered is in capitals.
    let capitals = text.to_ascii_uppercase();
    if capitals == text {
        return Ok(capitals);
    }
    let message = format!("\"{text}\" is no method, because methods are in capitals");
    Err(Wrong::Hinted(message, format!("did you mean \"{capitals}\"?")))
}

fn server_name(text: &str) -> Result<String, Wrong> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) if is_host_name(text) && !text.ends_with('.') => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(Wrong::Because(format!(
            "\"{text}\" is no name that a certificate is for; write one like \"db.example.com\""
        ))),
    }
}

fn socket(text: &str, usual_port: Option<u16>) -> Result<SocketAddr, Wrong> {
    let bare = || text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let with_usual_port = || Some(SocketAddr::new(bare()?, usual_port?));
    match text.parse::<SocketAddr>().ok().or_else(with_usual_port) {
        Some(socket) if socket.port() == 0 && usual_port.is_some() => {
            Err(Wrong::Because(format!("\"{text}\" has port 0, to which nobody can connect")))
        }
        Some(socket) => Ok(crate::bind::canonical(socket)),
        None => {
            Err(Wrong::Because(format!("\"{text}\" is no IP address with a port, like \"127.0.0.1:7070\"")))
        }
    }
}

fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    let net = text.parse::<IpNet>().map_err(|_| {
        Wrong::Because(format!("\"{text}\" is no network; write one like \"10.0.0.0/8\", or one IP address"))
    })?;
    if net.addr() == net.network() {
        return Ok(net);
    }
    // A host address with a prefix is one of two things, and guessing wrong lets the wrong people in.
    let message = format!("\"{text}\" has bits behind its prefix of {}", net.prefix_len());
    Err(Wrong::Hinted(
        message,
        format!("write \"{}\" for the network, or \"{}\" alone", net.trunc(), net.addr()),
    ))
}

fn mode(text: &str) -> Result<u32, Wrong> {
    let octal = text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(Wrong::Because(format!(
            "\"{text}\" is no file mode; write three octal digits, like \"0660\""
        ))),
    }
}

fn protocol(text: &str) -> Result<Value, Wrong> {
    match Protocol::from_word(text) {
        Some(protocol) if protocol.is_served() => Ok(Value::Protocol(protocol)),
        Some(protocol) => {
            Err(Wrong::Alone(format!("protocol \"{protocol}\" is {}", protocol::not_in_this_version())))
        }
        None => {
            let served = protocol::quoted(protocol::SERVED);
            let message = format!("\"{text}\" is no protocol; this version serves {served}");
            match did_you_mean(text, Protocol::ALL.map(Protocol::as_str)) {
                Some(hint) => Err(Wrong::Hinted(message, hint)),
                None => Err(Wrong::Because(message)),
            }
        }
    }
}

/// A type that values are taken as.
pub(crate) trait Of: Sized {
    /// The value, if it is of this type.
    fn of(value: Value) -> Option<Self>;

    /// Stands where the file's value was refused. The file is refused with it, so nobody obeys it.
    fn stand_in() -> Self;
}

/// For keys that take several kinds: the value as it is.
impl Of for Value {
    fn of(value: Value) -> Option<Self> {
        Some(value)
    }

    fn stand_in() -> Self {
        Value::Flag(false)
    }
}

macro_rules! of {
    ($($variant:ident($type:ty) or $stand_in:expr,)+) => {
        $(impl Of for $type {
            fn of(value: Value) -> Option<Self> {
                if let Value::$variant(value) = value { Some(value) } else { None }
            }

            fn stand_in() -> Self {
                $stand_in
            }
        })+
    };
}

of! {
    Flag(bool) or false,
    Whole(u64) or 1,
    Duration(Duration) or Duration::ZERO,
    Size(Bytes) or Bytes(0),
    Rate(Rate) or Rate { events: 1, per: Duration::from_secs(1) },
    ByteRate(ByteRate) or ByteRate(1),
    Percent(Percent) or Percent(0),
    Text(String) or String::new(),
    Host(HostPattern) or HostPattern::Exact(String::new()),
    PathPattern(PathPattern) or PathPattern { exact: false, segments: Vec::new() },
    Conditions(Vec<Condition>) or Vec::new(),
    FieldValues(FieldValues) or FieldValues::default(),
    HashBy(HashBy) or HashBy::Remote,
    RatePer(RatePer) or RatePer::Ip,
    Target(Target) or Target { parts: Vec::new() },
    Path(PathBuf) or PathBuf::new(),
    Bind(BindAddress) or BindAddress::Unix(PathBuf::new()),
    Socket(SocketAddr) or SocketAddr::from(([127, 0, 0, 1], 0)),
    Dialed(Dialed) or Dialed { address: Address::Unix(PathBuf::new()), scheme: None },
    Service(Service) or Service::Stream(Address::Unix(PathBuf::new())),
    Network(IpNet) or IpNet::from(IpAddr::from([127, 0, 0, 1])),
    Sni(Sni) or Sni::Exact(String::new()),
    Far(FarMatch) or FarMatch::ANY,
    Schedule(Schedule) or Schedule::default(),
    Mode(u32) or 0o600,
    Verifier(Verifier) or Verifier::Md5([0; 16]),
    Protocol(Protocol) or Protocol::Tcp,
    List(Vec<Spot<Value>>) or Vec::new(),
}
