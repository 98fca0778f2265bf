//! The access log: one JSON line for each exchange that ended.
//!
//! Workers write the line of what has ended into memory, each into its own, while all of it is at hand; one
//! thread writes what has gathered there to the target. What does not fit is dropped and counted: no
//! connection ever waits for a log.

mod json;
mod line;
mod sink;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use tieline_registry::{Exchanged, Record};

pub use sink::AccessLogTarget;

use sink::Sink;

/// The access log. There is one for the process; a reload may lead it elsewhere.
#[derive(Debug)]
pub struct AccessLog {
    /// Off: lines are not even written into memory.
    on: AtomicBool,
    shared: Arc<Shared>,
    /// The thread that writes, made at the first use: a log that is never on has neither thread nor memory.
    writer: OnceLock<Thread>,
    stopped: Stopped,
}

/// What workers and the writer share.
#[derive(Debug)]
struct Shared {
    desks: Box<[Desk]>,
    change: Lock<Change>,
    stops: AtomicBool,
    dropped: AtomicU64,
}

/// The lines of one worker. A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Desk(Lock<Lines>);

/// Whole lines that wait for the writer.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    count: usize,
}

/// The target to write to from now on, until the writer takes it; and the target that is in use.
#[derive(Debug, Default)]
struct Change {
    sink: Option<Option<Sink>>,
    target: Option<AccessLogTarget>,
}

/// Held for one line or one assignment; by others than its worker only to take what has gathered.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

type Stopped = Lock<Option<Receiver<()>>>;

/// How many lines of a worker may wait for the writer, all of a busy server's when an operator ends them at
/// once; and how many bytes they may take.
const LINES_MAX: usize = 65_536;
const LINES_BYTES_MAX: usize = 32 << 20;

/// How many workers write lines apart from each other; those beyond share.
const DESKS: usize = 32;

/// Lines gather for so long, then they are written at once: a busy log costs 100 writes a second, and workers
/// need not wake a sleeping thread for each line.
const GATHERED_FOR: Duration = Duration::from_millis(10);

impl AccessLog {
    /// A log that writes to `target`.
    ///
    /// # Errors
    /// When the file cannot be opened, or there is no thread to be had.
    pub fn open(target: AccessLogTarget) -> io::Result<Arc<AccessLog>> {
        let shared = Shared {
            desks: (0..DESKS).map(|_| Desk::default()).collect(),
            change: Lock::default(),
            stops: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        };
        let log = Arc::new(AccessLog {
            on: AtomicBool::new(false),
            shared: Arc::new(shared),
            writer: OnceLock::new(),
            stopped: Stopped::default(),
        });
        log.write_to(target)?;
        Ok(log)
    }

    /// Logs a row that has ended, as its listener has it. Fit for the worker that served it: never waits.
    pub fn row(&self, record: &Record) {
        if record.listener().logs_connection(record.exchanges(), record.parent().is_some()) {
            self.log(record, |lines| line::append(record, lines));
        }
    }

    /// Logs one exchange of `record` that has ended, as its listener has it. As fit for its worker.
    pub fn exchange(&self, record: &Record, exchanged: &Exchanged) {
        if record.listener().logs_exchanges() {
            self.log(record, |lines| line::append_exchange(record, exchanged, lines));
        }
    }

    fn log(&self, record: &Record, append: impl FnOnce(&mut Vec<u8>)) {
        if !self.on.load(Relaxed) {
            return;
        }
        let desk = &self.shared.desks[usize::from(record.worker().0) % DESKS];
        let mut lines = held(&desk.0);
        if lines.count >= LINES_MAX || lines.bytes.len() >= LINES_BYTES_MAX {
            self.shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        append(&mut lines.bytes);
        lines.count += 1;
        let is_first = lines.count == 1;
        drop(lines);
        if is_first && let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Writes to `target` from now on; lines that were logged before go there too if they were not yet
    /// written.
    ///
    /// # Errors
    /// When it cannot be opened; the log then stays as it was.
    pub fn write_to(&self, target: AccessLogTarget) -> io::Result<()> {
        if held(&self.shared.change).target.as_ref() == Some(&target) {
            return Ok(());
        }
        self.switch(target)
    }

    /// Opens the file again, after somebody has moved it away.
    ///
    /// # Errors
    /// When it cannot be opened; the log then goes on writing to the old one.
    pub fn reopen(&self) -> io::Result<()> {
        let target = held(&self.shared.change).target.clone();
        target.map_or(Ok(()), |target| self.switch(target))
    }

    /// How many lines were lost, because too many waited or the target took them not.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Writes what has gathered and ends; waits for that, `within` at the most. Lines that come later are
    /// lost.
    pub fn close(&self, within: Duration) {
        self.on.store(false, Release);
        let (Some(writer), Some(stopped)) = (self.writer.get(), held(&self.stopped).take()) else { return };
        self.shared.stops.store(true, Release);
        writer.unpark();
        // An answer or its absence: both mean that there is nothing left to wait for.
        let _ = stopped.recv_timeout(within);
    }

    fn switch(&self, target: AccessLogTarget) -> io::Result<()> {
        let sink = Sink::open(&target)?;
        let on = sink.is_some();
        *held(&self.shared.change) = Change { sink: Some(sink), target: Some(target) };
        if on && self.writer.get().is_none() {
            self.start()?;
        }
        self.on.store(on, Release);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
        Ok(())
    }

    fn start(&self) -> io::Result<()> {
        let (stopping, stopped) = sync_channel(1);
        let writer = Writer { sink: None, spare: Vec::new(), shared: self.shared.clone() };
        let thread = thread::Builder::new().name("access-log".into()).spawn(move || {
            writer.write_all();
            let _ = stopping.send(());
        })?;
        *held(&self.stopped) = Some(stopped);
        // Two that open it at once would race; reloads come one after the other.
        let _ = self.writer.set(thread.thread().clone());
        Ok(())
    }
}

struct Writer {
    sink: Option<Sink>,
    /// Changes places with the lines of a worker, so that they are written while it goes on.
    spare: Vec<u8>,
    shared: Arc<Shared>,
}

impl Writer {
    fn write_all(mut self) {
        loop {
            // Before the lines are looked at: those that were there when it was said are written.
            let stops = self.shared.stops.load(Acquire);
            let wrote = self.write_once();
            if stops {
                return;
            }
            // Whoever writes the first line of a desk unparks, also if that was before this.
            if !wrote {
                thread::park();
            }
            if !self.shared.stops.load(Acquire) {
                thread::sleep(GATHERED_FOR);
            }
        }
    }

    /// Writes all that has gathered; whether there was anything.
    fn write_once(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut wrote = false;
        for desk in &shared.desks {
            {
                let mut lines = held(&desk.0);
                std::mem::swap(&mut lines.bytes, &mut self.spare);
                lines.count = 0;
            }
            // After the lines were taken: what is logged behind a change goes where that leads.
            if let Some(sink) = held(&shared.change).sink.take() {
                self.sink = sink;
            }
            if !self.spare.is_empty() {
                wrote = true;
                self.write();
                self.spare.clear();
            }
            // After a burst, its memory is given back.
            self.spare.shrink_to(LINES_BYTES_KEPT);
        }
        wrote
    }

    fn write(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        let lost = sink.write(&self.spare);
        if lost > 0 && self.shared.dropped.fetch_add(lost, Relaxed) == 0 {
            tracing::warn!(
                lost,
                "the access log cannot be written; tieline_access_log_dropped_total counts on"
            );
        }
    }
}

const LINES_BYTES_KEPT: usize = 1 << 20;

fn held<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    // Every line leaves it whole, so a holder that panicked left nothing half done.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use tieline_base::Reason;

    const LONG: Duration = Duration::from_secs(10);

    fn ended_row() -> Arc<Record> {
        let registry = testing::registry();
        let record = testing::row(&registry, "web", "10.0.0.1:1");
        registry.leave(&record, Reason::ClientClosed, None, ());
        record
    }

    fn lines(path: &std::path::Path) -> usize {
        std::fs::read_to_string(path).map(|text| text.lines().count()).unwrap_or(0)
    }

    #[test]
    fn every_row_is_a_line_once_the_log_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(AccessLogTarget::File(path.clone())).unwrap();
        let row = ended_row();
        (0..5_000).for_each(|_| log.row(&row));
        log.close(LONG);
        assert_eq!((lines(&path), log.dropped()), (5_000, 0));
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"], "client-closed");
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        // A pipe that nobody reads: the writer hangs in it, as on a disk that stalls.
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = AccessLog::open(AccessLogTarget::File(path)).unwrap();
        let row = ended_row();
        let sent = 4 * LINES_MAX as u64;
        (0..sent).for_each(|_| log.row(&row));
        let dropped = log.dropped();
        assert!(dropped > 0 && dropped < sent, "{dropped} of {sent}");
        log.close(Duration::from_millis(20));
        drop(reader);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::open(AccessLogTarget::File(path.clone())).unwrap();
        let row = ended_row();
        log.row(&row);
        testing::eventually(|| lines(&path) == 1);
        std::fs::rename(&path, &moved).unwrap();
        log.reopen().unwrap();
        log.row(&row);
        log.close(LONG);
        assert_eq!((lines(&moved), lines(&path)), (1, 1));
    }

    #[test]
    fn a_reload_leads_it_elsewhere_or_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.log"), folder.path().join("two.log"));
        let row = ended_row();
        let log = AccessLog::open(AccessLogTarget::Off).unwrap();
        log.row(&row);
        log.write_to(AccessLogTarget::File(one.clone())).unwrap();
        log.row(&row);
        testing::eventually(|| lines(&one) == 1);
        assert!(log.write_to(AccessLogTarget::File("/no/such/folder/x".into())).is_err());
        log.row(&row);
        testing::eventually(|| lines(&one) == 2);
        log.write_to(AccessLogTarget::File(two.clone())).unwrap();
        log.row(&row);
        testing::eventually(|| lines(&two) == 1);
        log.write_to(AccessLogTarget::Off).unwrap();
        log.row(&row);
        log.close(LONG);
        assert_eq!((lines(&one), lines(&two), log.dropped()), (2, 1, 0));
    }
}
