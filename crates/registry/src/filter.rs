//! The words that select rows: `listener=web age>1h`. The same in the CLI, the API and every screen.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tieline_base::{Bytes, Moment, Stage, format_duration, parse_duration};

use crate::record::Record;

/// A set of conditions; a row matches when it meets them all, so the empty one matches every row.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter(Vec<Term>);

/// Why a text is no filter, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    /// No comparison in it.
    #[error(
        "\"{0}\" is no filter; write KEY=VALUE, KEY!=VALUE, KEY>VALUE or KEY<VALUE, \
         like listener=web or age>1h"
    )]
    Shape(String),
    /// A key that rows do not have.
    #[error("\"{0}\" is no filter key; keys are {KEYS}")]
    Key(String),
    /// A comparison that the key does not know.
    #[error("\"{0}\" compares with {1}, not with \"{2}\"")]
    Operator(String, &'static str, &'static str),
    /// A value that the key cannot have.
    #[error("{0}: {1}")]
    Value(&'static str, String),
}

const KEYS: &str = "id, parent, listener, protocol, identity, remote, sni, carrier, route, upstream, \
                    endpoint, stage, worker, generation, reason, age, idle, bytes";

#[derive(Clone, PartialEq, Debug)]
enum Term {
    Word { key: Word, equal: bool, value: Box<str> },
    Remote { within: IpNet, equal: bool },
    Stage { stage: Stage, equal: bool },
    Number { key: Number, order: Order, value: u64 },
    Time { key: Time, order: Order, value: Duration },
    Bytes { order: Order, value: Bytes },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Listener,
    Protocol,
    Identity,
    Sni,
    Carrier,
    Route,
    Upstream,
    Endpoint,
    Reason,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Id,
    Parent,
    Worker,
    Generation,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Time {
    Age,
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Equal,
    Unequal,
    Above,
    Below,
}

impl Order {
    fn as_str(self) -> &'static str {
        match self {
            Order::Equal => "=",
            Order::Unequal => "!=",
            Order::Above => ">",
            Order::Below => "<",
        }
    }

    fn holds<T: Ord>(self, left: T, right: T) -> bool {
        match self {
            Order::Equal => left == right,
            Order::Unequal => left != right,
            Order::Above => left > right,
            Order::Below => left < right,
        }
    }
}

impl Filter {
    /// Whether `record`, as it stands at `now`, meets every condition.
    pub fn matches(&self, record: &Record, now: Moment) -> bool {
        self.0.iter().all(|term| term.matches(record, now))
    }

    /// Whether it has no condition and so matches every row.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads several conditions, each a text of its own; all must hold.
    ///
    /// # Errors
    /// [`FilterError`] for the first that cannot be read.
    pub fn all_of<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Filter, FilterError> {
        let terms = texts.into_iter().flat_map(str::split_whitespace);
        terms.map(str::parse).collect::<Result<_, _>>().map(Filter)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Filter::all_of([text])
    }
}

impl Term {
    fn matches(&self, record: &Record, now: Moment) -> bool {
        let now = record.ended().map_or(now, |ended| ended.at);
        match self {
            Term::Word { key, equal, value } => has(record, *key, value) == *equal,
            Term::Remote { within, equal } => {
                record.client().ip().is_some_and(|ip| within.contains(&ip)) == *equal
            }
            Term::Stage { stage, equal } => (record.stage() == *stage) == *equal,
            Term::Number { key, order, value } => order.holds(number(record, *key), *value),
            Term::Time { key: Time::Age, order, value } => order.holds(now.since(record.opened()), *value),
            Term::Time { key: Time::Idle, order, value } => order.holds(now.since(record.moved_at()), *value),
            Term::Bytes { order, value } => {
                let (up, down) = record.bytes();
                order.holds(up.saturating_add(down), value.0)
            }
        }
    }
}

/// An endpoint by a name is labelled `name:port@address`: people may mean it by both, or by the name alone.
fn is_called(label: &str, text: &str) -> bool {
    label == text || label.split_once('@').is_some_and(|(name, _)| name == text)
}

/// A name may hold spaces, which divide conditions: in a filter they are written `%20`.
fn is_named(name: &str, text: &str) -> bool {
    name == text || (text.contains("%20") && name == text.replace("%20", " "))
}

fn has(record: &Record, key: Word, value: &str) -> bool {
    match key {
        Word::Listener => *record.listener().name == *value,
        Word::Protocol => record.listener().protocol == value,
        Word::Identity => record.identity().name().is_some_and(|name| is_named(name, value)),
        Word::Sni => record.sni() == Some(value),
        Word::Carrier => record.carrier() == Some(value),
        Word::Route => record.route().is_some_and(|route| *route.name == *value),
        Word::Upstream => record.route().is_some_and(|route| route.upstream_name() == Some(value)),
        Word::Endpoint => record.endpoint().is_some_and(|label| is_called(&label, value)),
        Word::Reason => record.ended().is_some_and(|ended| ended.reason.as_str() == value),
    }
}

fn number(record: &Record, key: Number) -> u64 {
    match key {
        Number::Id => record.id().0,
        Number::Parent => record.parent().map_or(0, |parent| parent.id().0),
        Number::Worker => u64::from(record.worker().0),
        Number::Generation => u64::from(record.generation().0),
    }
}

impl FromStr for Term {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let at = text.find(['=', '!', '>', '<']).ok_or_else(|| FilterError::Shape(text.into()))?;
        let (key, rest) = text.split_at(at);
        let orders = [Order::Unequal, Order::Equal, Order::Above, Order::Below];
        let found = orders.into_iter().find_map(|order| Some((order, rest.strip_prefix(order.as_str())?)));
        match found {
            Some((order, value)) if !value.is_empty() => term(key, order, value),
            _ => Err(FilterError::Shape(text.into())),
        }
    }
}

fn term(key: &str, order: Order, value: &str) -> Result<Term, FilterError> {
    let only = |allowed: &[Order], words| {
        if allowed.contains(&order) {
            Ok(())
        } else {
            Err(FilterError::Operator(key.into(), words, order.as_str()))
        }
    };
    let equality = || only(&[Order::Equal, Order::Unequal], "= or !=");
    let comparison = || only(&[Order::Above, Order::Below], "> or <");
    let equal = order == Order::Equal;
    let term = match key {
        "remote" => {
            equality()?;
            Term::Remote { within: network(value)?, equal }
        }
        "stage" => {
            equality()?;
            let stage = value.parse().map_err(|error| invalid("stage", error))?;
            Term::Stage { stage, equal }
        }
        "id" | "parent" | "worker" | "generation" => {
            let key = match key {
                "id" => Number::Id,
                "parent" => Number::Parent,
                "worker" => Number::Worker,
                _ => Number::Generation,
            };
            Term::Number { key, order, value: value.parse().map_err(|error| invalid("number", error))? }
        }
        "age" | "idle" => {
            comparison()?;
            let key = if key == "age" { Time::Age } else { Time::Idle };
            Term::Time { key, order, value: parse_duration(value).map_err(|error| invalid("time", error))? }
        }
        "bytes" => {
            comparison()?;
            Term::Bytes { order, value: value.parse().map_err(|error| invalid("bytes", error))? }
        }
        _ => {
            let key =
                WORDS.iter().find(|(name, _)| *name == key).ok_or_else(|| FilterError::Key(key.into()))?.1;
            equality()?;
            Term::Word { key, equal, value: value.into() }
        }
    };
    Ok(term)
}

const WORDS: [(&str, Word); 9] = [
    ("listener", Word::Listener),
    ("protocol", Word::Protocol),
    ("identity", Word::Identity),
    ("sni", Word::Sni),
    ("carrier", Word::Carrier),
    ("route", Word::Route),
    ("upstream", Word::Upstream),
    ("endpoint", Word::Endpoint),
    ("reason", Word::Reason),
];

fn network(value: &str) -> Result<IpNet, FilterError> {
    let address = value.parse::<std::net::IpAddr>().map(IpNet::from);
    let error =
        || FilterError::Value("remote", format!("\"{value}\" is neither an IP address nor a network"));
    address.or_else(|_| value.parse::<IpNet>()).map_err(|_| error())
}

fn invalid(key: &'static str, error: impl fmt::Display) -> FilterError {
    FilterError::Value(key, error.to_string())
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, term) in self.0.iter().enumerate() {
            let gap = if place > 0 { " " } else { "" };
            write!(f, "{gap}{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |equal: &bool| if *equal { "=" } else { "!=" };
        match self {
            Term::Word { key, equal, value } => {
                let name = WORDS.iter().find(|(_, word)| word == key).map_or("", |(name, _)| name);
                write!(f, "{name}{}{value}", sign(equal))
            }
            Term::Remote { within, equal } => write!(f, "remote{}{within}", sign(equal)),
            Term::Stage { stage, equal } => write!(f, "stage{}{stage}", sign(equal)),
            Term::Number { key, order, value } => {
                let name = match key {
                    Number::Id => "id",
                    Number::Parent => "parent",
                    Number::Worker => "worker",
                    Number::Generation => "generation",
                };
                write!(f, "{name}{}{value}", order.as_str())
            }
            Term::Time { key, order, value } => {
                let name = if *key == Time::Age { "age" } else { "idle" };
                write!(f, "{name}{}{}", order.as_str(), format_duration(*value))
            }
            Term::Bytes { order, value } => write!(f, "bytes{}{}B", order.as_str(), value.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_the_contract_is_read() {
        for text in [
            "listener=web",
            "protocol=tcp",
            "identity=ana",
            "remote=10.0.0.0/8",
            "remote=10.0.0.1",
            "route=orders",
            "upstream=orders",
            "endpoint=10.0.0.5:5432",
            "stage=acquire",
            "age>1h",
            "idle>10m",
            "bytes>1GiB",
            "id=7",
            "route!=orders",
            "age<5s",
            "sni=db.example.com",
            "endpoint=unix:/run/db.sock",
            "reason=idle",
            "id>5",
            "parent=0",
        ] {
            assert!(text.parse::<Filter>().is_ok(), "{text}");
        }
        assert_eq!("listener=web age>1h".parse::<Filter>().unwrap().0.len(), 2);
        assert!("".parse::<Filter>().unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (text, says) in [
            ("web", "\"web\" is no filter"),
            ("listener=", "\"listener=\" is no filter"),
            ("listner=web", "\"listner\" is no filter key; keys are id, parent, listener"),
            ("age=1h", "\"age\" compares with > or <, not with \"=\""),
            ("listener>web", "\"listener\" compares with = or !=, not with \">\""),
            ("age>soon", "time: \"soon\" is no duration"),
            ("remote=10.0.0.0/33", "remote: \"10.0.0.0/33\" is neither"),
            ("stage=flying", "stage: \"flying\" is no stage"),
            ("bytes>lots", "bytes: \"lots\" is no size"),
            ("id=x", "number: invalid digit"),
        ] {
            let error = text.parse::<Filter>().unwrap_err().to_string();
            assert!(error.starts_with(says) && !error.contains('\n'), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_reads_it_prints_back(
            text in "[a-z=!<>0-9./:]{0,24}|.{0,24}",
        ) {
            if let Ok(filter) = text.parse::<Filter>() {
                prop_assert_eq!(filter.to_string().parse::<Filter>().unwrap(), filter);
            }
        }

        #[test]
        fn printed_filters_read_back(
            key in prop::sample::select(&WORDS[..]),
            value in "[a-z0-9.:/=<>!-]{1,12}",
            ms in 0u64..1 << 40,
            above in any::<bool>(),
        ) {
            let order = if above { ">" } else { "<" };
            let text = format!("{}={value} age{order}{}", key.0, format_duration(Duration::from_millis(ms)));
            let filter: Filter = text.parse().unwrap();
            prop_assert_eq!(filter.to_string(), text);
        }
    }
}
