//! `rate` of a route or a listener: how often requests may come.

use std::fmt;
use std::str::FromStr;

use tieline_base::Rate;

use crate::fields::Fields;
use crate::http_match::is_token;
use crate::place::Spot;
use crate::value::Value;

/// How often requests may come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RateLimit {
    /// What is counted together.
    pub per: RatePer,
    /// How many, evenly spread.
    pub rate: Rate,
    /// How many at once; at least 1.
    pub burst: u32,
    /// Whether answers say how many may still come.
    pub tell: bool,
}

/// What a rate of requests is counted by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RatePer {
    /// The client.
    Ip,
    /// All requests of the route or listener.
    Route,
    /// The value of the field of this name, in lower case.
    Header(String),
}

/// A text that names nothing to count by.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is none of \"ip\", \"route\" and \"header:NAME\"")]
pub struct RatePerError(String);

impl FromStr for RatePer {
    type Err = RatePerError;

    fn from_str(text: &str) -> Result<Self, RatePerError> {
        match text.split_once(':') {
            None if text == "ip" => Ok(RatePer::Ip),
            None if text == "route" => Ok(RatePer::Route),
            Some(("header", name)) if is_token(name) => Ok(RatePer::Header(name.to_ascii_lowercase())),
            _ => Err(RatePerError(text.into())),
        }
    }
}

impl fmt::Display for RatePer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RatePer::Ip => f.write_str("ip"),
            RatePer::Route => f.write_str("route"),
            RatePer::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// Reads the rates of a route or a listener.
pub(crate) fn read(fields: &mut Fields) -> Vec<RateLimit> {
    let tables: Vec<Spot<Value>> = fields.value("rate");
    let table = |item: Spot<Value>| if let Value::Table(fields) = item.value { Some(fields) } else { None };
    tables.into_iter().filter_map(table).filter_map(one).collect()
}

fn one(mut fields: Fields) -> Option<RateLimit> {
    let (per, rate, burst) = (fields.value("per"), fields.maybe::<Rate>("rate"), fields.whole("burst"));
    let tell = fields.value("tell");
    fields.done();
    let rate = rate?;
    Some(RateLimit { per, rate, burst: burst.unwrap_or(rate.events), tell })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["ip", "route", "header:x-api-key"] {
            assert_eq!(text.parse::<RatePer>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-Key".parse(), Ok(RatePer::Header("x-key".into())));
        for text in ["", "IP", "header", "header:", "header:a b", "cookie:a"] {
            assert!(text.parse::<RatePer>().is_err(), "{text}");
        }
    }
}
