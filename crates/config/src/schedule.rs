//! Windows of the week, read off a clock on the wall of their time zone.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use crate::suggest;

/// When something is open: `Mon-Fri 07:00-19:00 Europe/Berlin; Sat 08:00-12:00 Europe/Berlin`.
///
/// It is open while a clock on the wall shows a time within a window. So on the day that clocks are put
/// forward, a window within the skipped hour does not come, and on the day that they are put back, one within
/// the repeated hour comes twice. The one without windows, [`Schedule::default`], is never open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schedule {
    windows: Vec<Window>,
}

/// The same hours on some days of the week.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Window {
    days: Days,
    /// The minute of the day at which it opens: 0 to 1439.
    from: u16,
    /// The minute of the day at which it closes: 1 to 1440, before `from` if that is on the next day.
    to: u16,
    zone: TimeZone,
}

/// Days of the week: bit 0 is Monday.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Days(u8);

/// Why a text is no schedule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The text as a whole has another form.
    #[error(
        "\"{0}\" is no schedule; write days, hours and a time zone, \
         like \"Mon-Fri 07:00-19:00 Europe/Berlin\""
    )]
    Form(String),
    /// No day of the week.
    #[error(
        "\"{0}\" is no day of the week; write Mon, Tue, Wed, Thu, Fri, Sat or Sun, \
         like \"Mon-Fri\" or \"Sat,Sun\""
    )]
    Day(String),
    /// No hours.
    #[error("\"{0}\" are no hours; write them like 07:00-19:00, from 00:00 to 24:00")]
    Hours(String),
    /// Hours that begin where they end.
    #[error("\"{0}\" begins where it ends; write 00:00-24:00 for a whole day")]
    Empty(String),
    /// No time zone of the IANA database.
    #[error("\"{zone}\" is no time zone{}", suggest::tail(hint))]
    Zone {
        /// What was written.
        zone: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// More windows than anybody needs.
    #[error("a schedule has at most {WINDOWS_MAX} windows")]
    TooMany,
}

const WINDOWS_MAX: usize = 64;
const MINUTES_A_DAY: u16 = 1_440;

/// How many days are searched for the next change. A week has every change there is; one that a clock change
/// swallows comes again the week after, and no zone has put its clocks more often than that.
const SEARCHED_DAYS: i64 = 22;

impl Schedule {
    /// Whether it is open at `at`.
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.windows.iter().any(|window| window.is_open(at))
    }

    /// The end of the stretch that is open at `at`; `None` if it is closed then, or never closes.
    pub fn closes_at(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_open(at) { self.changes_at(at) } else { None }
    }

    /// The end of the stretch that is closed at `at`; `None` if it is open then, or never opens again.
    pub fn opens_at(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_open(at) { None } else { self.changes_at(at) }
    }

    /// The schedule of all windows of both.
    ///
    /// # Errors
    /// [`ScheduleError::TooMany`].
    pub(crate) fn and(mut self, mut other: Schedule) -> Result<Schedule, ScheduleError> {
        self.windows.append(&mut other.windows);
        if self.windows.len() > WINDOWS_MAX { Err(ScheduleError::TooMany) } else { Ok(self) }
    }

    fn changes_at(&self, at: Timestamp) -> Option<Timestamp> {
        let open = self.is_open(at);
        // Between two neighbouring edges nothing changes, so asking at the edges is asking at every instant.
        let mut edges: Vec<_> = self.windows.iter().flat_map(|window| window.edges(at)).collect();
        edges.sort_unstable();
        edges.into_iter().find(|edge| *edge > at && self.is_open(*edge) != open)
    }
}

impl Window {
    fn is_open(&self, at: Timestamp) -> bool {
        let wall = self.zone.to_datetime(at);
        let minute = wall.hour() as u16 * 60 + wall.minute() as u16;
        let (today, yesterday) = (wall.weekday(), wall.weekday().previous());
        if self.from < self.to {
            return self.days.has(today) && (self.from..self.to).contains(&minute);
        }
        (self.days.has(today) && minute >= self.from) || (self.days.has(yesterday) && minute < self.to)
    }

    /// Every instant from a day before `at` on at which it may open or close: where the wall clock shows its
    /// hours, and where the wall clock is put.
    fn edges(&self, at: Timestamp) -> Vec<Timestamp> {
        let today = self.zone.to_datetime(at).date();
        let mut edges = Vec::new();
        for day in -1..=SEARCHED_DAYS {
            let Ok(date) = today.checked_add(day.days()) else { continue };
            for minute in [self.from, self.to] {
                edges
                    .extend(wall_clock(date, minute).into_iter().flat_map(|wall| instants(&self.zone, wall)));
            }
        }
        let last = edges.iter().max().copied().unwrap_or(at);
        let changes = self.zone.following(at).map(|change| change.timestamp());
        edges.extend(changes.take_while(|change| *change <= last));
        edges
    }
}

fn wall_clock(date: Date, minute: u16) -> Option<DateTime> {
    let (date, minute) = if minute == MINUTES_A_DAY { (date.tomorrow().ok()?, 0) } else { (date, minute) };
    let time = Time::new((minute / 60) as i8, (minute % 60) as i8, 0, 0).ok()?;
    Some(date.to_datetime(time))
}

/// When the wall clock of `zone` shows `wall`: once, twice where clocks are put back, never where they are
/// put forward.
fn instants(zone: &TimeZone, wall: DateTime) -> Vec<Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset],
        AmbiguousOffset::Fold { before, after } => vec![before, after],
        AmbiguousOffset::Gap { .. } => Vec::new(),
    };
    offsets.into_iter().filter_map(|offset| offset.to_timestamp(wall).ok()).collect()
}

impl Days {
    const ALL: Days = Days(0b111_1111);
    const NAMES: [&'static str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

    fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }

    /// Reads `Mon`, `Mon-Fri`, `Sat,Sun`, `Fri-Mon`.
    fn parse(text: &str) -> Result<Days, ScheduleError> {
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (Days::place(first)?, Days::place(last)?);
            let count = (last + 7 - first) % 7;
            days = (0..=count).fold(days, |days, step| days | 1 << ((first + step) % 7));
        }
        Ok(Days(days))
    }

    fn place(name: &str) -> Result<usize, ScheduleError> {
        let place = Days::NAMES.iter().position(|day| day.eq_ignore_ascii_case(name));
        place.ok_or_else(|| ScheduleError::Day(name.into()))
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if text.split(';').count() > WINDOWS_MAX {
            return Err(ScheduleError::TooMany);
        }
        let windows = text.split(';').map(Window::from_str).collect::<Result<_, _>>()?;
        Ok(Schedule { windows })
    }
}

impl FromStr for Window {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let parts: Vec<_> = text.split_whitespace().collect();
        let looks_like_hours = |part: &str| part.contains(':');
        let (days, hours, zone) = match parts[..] {
            [hours] if looks_like_hours(hours) => (None, hours, None),
            [hours, zone] if looks_like_hours(hours) => (None, hours, Some(zone)),
            [days, hours] if looks_like_hours(hours) => (Some(days), hours, None),
            [days, hours, zone] if looks_like_hours(hours) => (Some(days), hours, Some(zone)),
            _ => return Err(ScheduleError::Form(text.trim().into())),
        };
        let (from, to) = parse_hours(hours)?;
        Ok(Window { days: days.map_or(Ok(Days::ALL), Days::parse)?, from, to, zone: parse_zone(zone)? })
    }
}

fn parse_hours(text: &str) -> Result<(u16, u16), ScheduleError> {
    let error = || ScheduleError::Hours(text.into());
    let (from, to) = text.split_once('-').ok_or_else(error)?;
    let (from, to) = (minute_of_day(from).ok_or_else(error)?, minute_of_day(to).ok_or_else(error)?);
    if from == to {
        return Err(ScheduleError::Empty(text.into()));
    }
    // Opening at 24:00 is opening at 00:00 of another day, and closing at 00:00 is closing at 24:00.
    let to = if to == 0 { MINUTES_A_DAY } else { to };
    if from == MINUTES_A_DAY { Err(error()) } else { Ok((from, to)) }
}

/// Reads `07:00`, up to `24:00`.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| match digits.len() {
        2 if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u16>().ok(),
        _ => None,
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= MINUTES_A_DAY).then_some(minutes)
}

fn parse_zone(name: Option<&str>) -> Result<TimeZone, ScheduleError> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| {
        let known: Vec<_> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
        let hint = suggest::did_you_mean(name, known.iter().map(String::as_str));
        ScheduleError::Zone { zone: name.into(), hint }
    })
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, window) in self.windows.iter().enumerate() {
            write!(f, "{}{window}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{}{}-{} {zone}", self.days, hour(self.from), hour(self.to))
    }
}

/// `Mon,Tue `, or nothing where it is every day.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Days::ALL {
            return Ok(());
        }
        let named = Days::NAMES.iter().enumerate().filter(|(day, _)| self.0 & (1 << day) != 0);
        let names: Vec<_> = named.map(|(_, name)| *name).collect();
        write!(f, "{} ", names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Zoned>().unwrap().timestamp()
    }

    #[test]
    fn reads_every_form_and_prints_it_back() {
        for (text, printed) in [
            ("Mon-Fri 07:00-19:00 Europe/Berlin", "Mon,Tue,Wed,Thu,Fri 07:00-19:00 Europe/Berlin"),
            ("sat,SUN 00:00-24:00 UTC", "Sat,Sun 00:00-24:00 UTC"),
            ("22:00-06:00", "22:00-06:00 UTC"),
            ("Fri-Mon 22:00-00:00", "Mon,Fri,Sat,Sun 22:00-24:00 UTC"),
            (
                "Mon 08:00-09:00; Tue-Wed,Sat 10:00-11:00 UTC",
                "Mon 08:00-09:00 UTC; Tue,Wed,Sat 10:00-11:00 UTC",
            ),
        ] {
            assert_eq!(schedule(text).to_string(), printed);
            assert_eq!(schedule(printed), schedule(text));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
        for text in ["", "Mon", "Mon-Fri", "07-19", "Mon 07:00-19:00 UTC now", "Mon 07:00-08:00;"] {
            assert!(error(text).contains("no schedule"), "{text}: {}", error(text));
        }
        for text in ["Mo 07:00-19:00", "Mon-Fry 07:00-19:00", "Mon, 07:00-19:00", "- 07:00-19:00"] {
            assert!(error(text).contains("no day"), "{text}: {}", error(text));
        }
        for text in
            ["7:00-19:00", "07:00-25:00", "07:60-08:00", "07:00-24:01", "07:00", "24:00-25:00", "24:00-01:00"]
        {
            assert!(error(text).contains("no hours"), "{text}: {}", error(text));
        }
        assert!(error("08:00-08:00").contains("begins where it ends"));
        assert!(error("08:00-09:00 Europe/Berln").contains("did you mean \"Europe/Berlin\"?"));
        assert!(error(&["08:00-09:00"; 65].join(";")).contains("at most 64"));
    }

    #[test]
    fn office_hours_open_and_close_by_the_local_clock() {
        let office = schedule("Mon-Fri 07:00-19:00 Europe/Berlin");
        let friday = at("2026-11-20T18:59:59[Europe/Berlin]");
        assert!(office.is_open(friday));
        assert_eq!(office.closes_at(friday), Some(at("2026-11-20T19:00[Europe/Berlin]")));
        let weekend = at("2026-11-20T19:00[Europe/Berlin]");
        assert!(!office.is_open(weekend));
        assert_eq!(office.opens_at(weekend), Some(at("2026-11-23T07:00[Europe/Berlin]")));
        assert_eq!(office.closes_at(weekend), None);
        assert_eq!(office.opens_at(friday), None);
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = schedule("Fri 22:00-06:00 UTC");
        assert!(night.is_open(at("2026-11-20T23:00[UTC]")));
        assert!(night.is_open(at("2026-11-21T05:59[UTC]")));
        assert!(!night.is_open(at("2026-11-20T05:00[UTC]")));
        assert_eq!(night.closes_at(at("2026-11-20T22:00[UTC]")), Some(at("2026-11-21T06:00[UTC]")));
    }

    #[test]
    fn adjacent_windows_are_one_stretch_and_a_full_week_never_closes() {
        let merged = schedule("Mon 08:00-12:00 UTC; Mon 12:00-24:00 UTC; Tue 00:00-01:00 UTC");
        assert_eq!(merged.closes_at(at("2026-11-23T09:00[UTC]")), Some(at("2026-11-24T01:00[UTC]")));
        assert_eq!(schedule("00:00-24:00 Europe/Berlin").closes_at(at("2026-03-28T12:00[UTC]")), None);
        assert_eq!(Schedule::default().opens_at(at("2026-03-28T12:00[UTC]")), None);
    }

    #[test]
    fn a_skipped_hour_does_not_come_and_a_repeated_one_comes_twice() {
        // Berlin: 02:00 becomes 03:00 on 2026-03-29, 03:00 becomes 02:00 on 2026-10-25.
        let skipped = schedule("02:15-02:45 Europe/Berlin");
        let eve = at("2026-03-29T00:00[Europe/Berlin]");
        assert_eq!(skipped.opens_at(eve), Some(at("2026-03-30T02:15[Europe/Berlin]")));
        let first = "2026-10-25T00:15:00Z".parse().unwrap();
        assert!(skipped.is_open(first));
        assert_eq!(skipped.closes_at(first), Some(first + SignedDuration::from_mins(30)));
        let second = first + SignedDuration::from_mins(60);
        assert_eq!(skipped.opens_at(first + SignedDuration::from_mins(30)), Some(second));
        // A window that ends within the skipped hour ends when the clock is put.
        let cut = schedule("01:00-02:30 Europe/Berlin");
        assert_eq!(
            cut.closes_at("2026-03-29T00:30:00Z".parse().unwrap()),
            Some("2026-03-29T01:00:00Z".parse().unwrap())
        );
    }

    #[test]
    fn the_ends_of_time_answer() {
        let office = schedule("Mon-Fri 07:00-19:00 Europe/Berlin");
        for end in [Timestamp::MIN, Timestamp::MAX] {
            let _ = (office.is_open(end), office.closes_at(end), office.opens_at(end));
        }
    }

    fn any_window() -> impl Strategy<Value = String> {
        let zone = prop::sample::select(vec![
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "Asia/Kolkata",
        ]);
        let day = 0usize..7;
        (day.clone(), day, 0u16..96, 1u16..96, zone).prop_map(|(first, last, from, length, zone)| {
            let clock = |quarter: u16| format!("{:02}:{:02}", quarter % 96 / 4, quarter % 4 * 15);
            let days = format!("{}-{}", Days::NAMES[first], Days::NAMES[last]);
            format!("{days} {}-{} {zone}", clock(from), clock(from + length))
        })
    }

    /// Around the days on which clocks are put in the zones of [`any_window`], and any other day.
    fn any_time() -> impl Strategy<Value = Timestamp> {
        let days = [
            "2026-03-08",
            "2026-03-29",
            "2026-04-05",
            "2026-10-04",
            "2026-10-25",
            "2026-11-01",
            "2026-06-15",
        ];
        (prop::sample::select(days.to_vec()), -2_000i64..2_000)
            .prop_map(|(day, minutes)| at(&format!("{day}T12:00[UTC]")) + SignedDuration::from_mins(minutes))
    }

    /// The schedule of one window, read again from its text and asked minute by minute.
    fn naive(text: &str, minute: Timestamp) -> bool {
        let parts: Vec<_> = text.split(' ').collect();
        let (days, hours) = (parts[0].split_once('-').unwrap(), parts[1].split_once('-').unwrap());
        let wall = minute.to_zoned(TimeZone::get(parts[2]).unwrap());
        let (from, to): (Time, Time) = (hours.0.parse().unwrap(), hours.1.parse().unwrap());
        let on = |day: Weekday| {
            let place = |name: &str| Days::NAMES.iter().position(|it| *it == name).unwrap();
            let (first, last) = (place(days.0), place(days.1));
            let day = day.to_monday_zero_offset() as usize;
            if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last }
        };
        let (today, yesterday) = (on(wall.weekday()), on(wall.weekday().previous()));
        let over_midnight = to <= from;
        (today && wall.time() >= from && (over_midnight || wall.time() < to))
            || (over_midnight && yesterday && wall.time() < to)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_asking_every_minute(
            windows in prop::collection::vec(any_window(), 1..4), start in any_time(),
        ) {
            let schedule = schedule(&windows.join("; "));
            let open = |minute: Timestamp| windows.iter().any(|window| naive(window, minute));
            let begun = open(start);
            prop_assert_eq!(schedule.is_open(start), begun);
            let change = if begun { schedule.closes_at(start) } else { schedule.opens_at(start) };
            let minutes = (1..=2 * 1_440).map(|minute| start + SignedDuration::from_mins(minute));
            let expected = minutes.into_iter().find(|minute| open(*minute) != begun);
            let horizon = start + SignedDuration::from_mins(2 * 1_440);
            prop_assert_eq!(change.filter(|change| *change <= horizon), expected);
        }

        #[test]
        fn it_is_open_until_it_closes_and_closed_at_that_instant(
            windows in prop::collection::vec(any_window(), 1..4), start in any_time(), seconds in 0i64..60,
        ) {
            let schedule = schedule(&windows.join("; "));
            let start = start + SignedDuration::from_secs(seconds);
            let nanosecond = SignedDuration::from_nanos(1);
            if let Some(close) = schedule.closes_at(start) {
                prop_assert!(close > start);
                prop_assert!(schedule.is_open(close - nanosecond) && !schedule.is_open(close));
            }
            if let Some(open) = schedule.opens_at(start) {
                prop_assert!(open > start);
                prop_assert!(!schedule.is_open(open - nanosecond) && schedule.is_open(open));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[MonFri,;: 0-9/A-Za-z-]{0,40}") {
            let _ = text.parse::<Schedule>();
        }
    }
}
