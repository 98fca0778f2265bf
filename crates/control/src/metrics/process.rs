//! What the kernel says of this process.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use tieline_base::{Clock, Moment};

/// This process at one moment, in the terms of the Prometheus client guidelines ("standard and runtime
/// collectors").
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct ProcessReading {
    /// Open file descriptors.
    pub(crate) open_fds: u64,
    /// The most that may be open; the soft limit.
    pub(crate) max_fds: u64,
    /// Memory in RAM, in bytes.
    pub(crate) resident_bytes: u64,
    /// Address space, in bytes.
    pub(crate) virtual_bytes: u64,
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Threads.
    pub(crate) threads: u64,
    /// When it started, in seconds since 1970-01-01 UTC.
    pub(crate) start_unix_seconds: f64,
}

impl ProcessReading {
    /// Reads `/proc/self`. What cannot be read is 0.
    pub(crate) fn take() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let started = Clock::wall_of(Moment::default()).duration_since(std::time::UNIX_EPOCH);
        let reading = Self {
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            start_unix_seconds: started.unwrap_or_default().as_secs_f64(),
            ..Self::default()
        };
        reading.with_stat(&stat, clock_ticks_per_second(), page_size() as u64)
    }

    /// proc_pid_stat(5). The name, field 2, may hold anything, so counting starts behind its closing
    /// parenthesis.
    fn with_stat(self, stat: &str, ticks_per_second: u64, page_bytes: u64) -> Self {
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = behind_name.split_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let ticks = field(14) + field(15);
        Self {
            cpu_seconds: ticks as f64 / ticks_per_second as f64,
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24) * page_bytes,
            ..self
        }
    }
}

fn open_fds() -> u64 {
    // The folder's own descriptor is one of those listed.
    fs::read_dir("/proc/self/fd").map_or(0, |folder| (folder.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_confuses_nobody() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 100 8192 3 184 1";
        let reading = ProcessReading::default().with_stat(stat, 100, 4_096);
        assert_eq!((reading.cpu_seconds, reading.threads), (2.0, 9));
        assert_eq!((reading.virtual_bytes, reading.resident_bytes), (8_192, 3 * 4_096));
    }

    #[test]
    fn descriptors_are_counted_as_they_come_and_go() {
        let before = ProcessReading::take();
        let opened: Vec<_> = (0..64).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let during = ProcessReading::take();
        // Other tests of this process open files too.
        assert!(during.open_fds >= before.open_fds + 32, "{before:?} {during:?}");
        drop(opened);
        assert!(during.resident_bytes > 0 && during.max_fds >= during.open_fds && during.threads > 0);
    }
}
