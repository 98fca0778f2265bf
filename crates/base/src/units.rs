//! Quantities as people write them: `30s`, `64KiB`, `10/s`, `20%`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is no quantity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("\"{0}\" is no duration; write a number with ms, s, m, h or d, like \"30s\" or \"1h30m\"")]
    Duration(String),
    /// Not a size.
    #[error("\"{0}\" is no size; write a whole number with B, KiB, MiB, GiB or TiB, like \"64KiB\"")]
    Bytes(String),
    /// Not a rate.
    #[error("\"{0}\" is no rate; write a number above 0 per s, m or h, like \"10/s\"")]
    Rate(String),
    /// Not a rate of bytes.
    #[error("\"{0}\" is no rate of bytes; write a size above 0 per s, like \"10MiB/s\"")]
    ByteRate(String),
    /// Not a percentage.
    #[error("\"{0}\" is no percentage; write a whole number from 0% to 100%, like \"20%\"")]
    Percent(String),
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `30s`, `250ms`, `1h30m`: whole numbers with a unit, each unit once, the larger before the smaller.
///
/// # Errors
/// [`UnitError::Duration`] for everything else, a bare number too: nobody should have to guess its unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError::Duration(text.into());
    let (mut rest, mut total_ms, mut coarser) = (text, 0u64, None);
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(error)?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(letters);
        let place = DURATION_UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(error)?;
        if coarser.is_some_and(|coarser| place <= coarser) {
            return Err(error());
        }
        let part = number.checked_mul(DURATION_UNITS[place].1).ok_or_else(error)?;
        total_ms = total_ms.checked_add(part).ok_or_else(error)?;
        (rest, coarser) = (tail, Some(place));
    }
    if coarser.is_none() { Err(error()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// Prints a duration as [`parse_duration`] reads it, to the millisecond: `1h30m`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut left_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left_ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, unit_ms) in DURATION_UNITS {
        let count = left_ms / unit_ms;
        left_ms %= unit_ms;
        if count > 0 {
            text += &format!("{count}{name}");
        }
    }
    text
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bytes(pub u64);

const BYTE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parsed = split_number(text).and_then(|(number, unit)| {
            let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
            number.checked_mul(*factor)
        });
        parsed.map(Bytes).ok_or_else(|| UnitError::Bytes(text.into()))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = BYTE_UNITS.iter().find(|(_, unit)| self.0 >= *unit);
        let (name, unit) = largest.copied().unwrap_or(("B", 1));
        if self.0.is_multiple_of(unit) {
            return f.pad(&format!("{}{name}", self.0 / unit));
        }
        f.pad(&format!("{:.1}{name}", self.0 as f64 / unit as f64))
    }
}

/// So many events in so much time: `10/s`, `600/m`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// How many events; at least 1.
    pub events: u32,
    /// In how much time.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parsed = text.split_once('/').and_then(|(events, per)| {
            let seconds = match per {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            };
            let events = digits(events)?.try_into().ok().filter(|events: &u32| *events > 0)?;
            Some(Rate { events, per: Duration::from_secs(seconds) })
        });
        parsed.ok_or_else(|| UnitError::Rate(text.into()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.events)
    }
}

/// So many bytes a second: `10MiB/s`; at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ByteRate(pub u64);

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size = text.strip_suffix("/s").and_then(|size| size.parse::<Bytes>().ok());
        let rate = size.filter(|size| size.0 > 0).map(|size| ByteRate(size.0));
        rate.ok_or_else(|| UnitError::ByteRate(text.into()))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Bytes(self.0))
    }
}

/// A whole percentage from 0 to 100.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Percent(pub u8);

impl Percent {
    /// As a fraction from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text.strip_suffix('%').and_then(digits).filter(|number| *number <= 100);
        number.map(|number| Percent(number as u8)).ok_or_else(|| UnitError::Percent(text.into()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Splits `text` behind its leading digits.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((digits(number)?, rest))
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_need_a_unit_and_an_order() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "30", "s", "1.5h", "-1s", "1m1h", "1s1s", "1 s", "99999999999999999999s", "1w"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_rates_and_percentages() {
        assert_eq!("64KiB".parse::<Bytes>().unwrap(), Bytes(65_536));
        assert_eq!(Bytes(1_610_612_736).to_string(), "1.5GiB");
        assert_eq!("5000/s".parse::<Rate>().unwrap(), Rate { events: 5_000, per: Duration::from_secs(1) });
        assert_eq!("10MiB/s".parse::<ByteRate>().unwrap(), ByteRate(10 << 20));
        assert_eq!(ByteRate(256).to_string(), "256B/s");
        for wrong in ["10MiB", "10/s", "0B/s", "10MiB/m", "/s", ""] {
            assert!(wrong.parse::<ByteRate>().is_err(), "{wrong:?}");
        }
        assert_eq!("20%".parse::<Percent>().unwrap(), Percent(20));
        for wrong in ["64", "64KB", "-1B", "1.5MiB", "KiB", "99999999TiB"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong:?}");
        }
        for wrong in ["10", "0/s", "10/d", "/s", "-1/s", "5000000000/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
        for wrong in ["20", "101%", "-1%", "2.5%", "%"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(ms in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = (parse_duration(&text), text.parse::<Bytes>());
            let _ = (text.parse::<Rate>(), text.parse::<Percent>());
        }
    }
}
