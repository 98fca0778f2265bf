//! The access log: one JSON line for each exchange that ended.
//!
//! Workers put the ended row into a bounded queue and go on; one thread of its own makes the lines and writes
//! them. What does not fit is dropped and counted: no connection ever waits for a log.

mod line;
mod sink;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tieline_registry::{Exchanged, Record};

pub use sink::AccessLogTarget;

use sink::Sink;

/// The access log. There is one for the process; a reload may lead it elsewhere.
#[derive(Debug)]
pub struct AccessLog {
    /// Off: rows are not even queued.
    on: AtomicBool,
    dropped: Arc<AtomicU64>,
    next: Next,
    /// The writer thread's end, made at the first use: a log that is never on has neither thread nor queue.
    queue: OnceLock<SyncSender<Job>>,
    stopped: Stopped,
}

/// The target to write to from now on, until the writer takes it; and the target that is in use.
type Next = Arc<Lock<Change>>;

#[derive(Debug, Default)]
struct Change {
    sink: Option<Option<Sink>>,
    target: Option<AccessLogTarget>,
}

/// Held for one assignment, and never by a worker.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

type Stopped = Lock<Option<Receiver<()>>>;

enum Job {
    Row(Arc<Record>),
    Exchange(Arc<Record>, Arc<Exchanged>),
    /// There is a new target.
    Look,
    /// Write what is queued, and end.
    Stop,
}

/// How many rows may wait for the writer: all of a busy server, when an operator ends them at once.
const QUEUE_MAX: usize = 65_536;

/// The writer gathers rows for so long, then writes them at once: a busy log costs 100 writes a second, and
/// workers need not wake a sleeping thread for each row.
const GATHERED_FOR: Duration = Duration::from_millis(10);

impl AccessLog {
    /// A log that writes to `target`.
    ///
    /// # Errors
    /// When the file cannot be opened, or there is no thread to be had.
    pub fn open(target: AccessLogTarget) -> io::Result<Arc<AccessLog>> {
        let log = Arc::new(AccessLog {
            on: AtomicBool::new(false),
            dropped: Arc::default(),
            next: Arc::default(),
            queue: OnceLock::new(),
            stopped: Stopped::default(),
        });
        log.write_to(target)?;
        Ok(log)
    }

    /// Logs a row that has ended, unless each of its exchanges was logged. Fit for the worker that served it:
    /// never waits.
    pub fn row(&self, record: &Arc<Record>) {
        if record.exchanges() == 0 {
            self.queue(|| Job::Row(record.clone()));
        }
    }

    /// Logs one exchange of `record` that has ended. As fit for its worker.
    pub fn exchange(&self, record: &Arc<Record>, exchanged: &Arc<Exchanged>) {
        self.queue(|| Job::Exchange(record.clone(), exchanged.clone()));
    }

    fn queue(&self, job: impl FnOnce() -> Job) {
        if !self.on.load(Relaxed) {
            return;
        }
        let Some(queue) = self.queue.get() else { return };
        if queue.try_send(job()).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Writes to `target` from now on; rows that were logged before go there too if they were not yet
    /// written.
    ///
    /// # Errors
    /// When it cannot be opened; the log then stays as it was.
    pub fn write_to(&self, target: AccessLogTarget) -> io::Result<()> {
        if held(&self.next).target.as_ref() == Some(&target) {
            return Ok(());
        }
        self.switch(target)
    }

    /// Opens the file again, after somebody has moved it away.
    ///
    /// # Errors
    /// When it cannot be opened; the log then goes on writing to the old one.
    pub fn reopen(&self) -> io::Result<()> {
        let target = held(&self.next).target.clone();
        target.map_or(Ok(()), |target| self.switch(target))
    }

    /// How many lines were lost, because the queue was full or the target took them not.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Writes what is queued and ends; waits for that, `within` at the most. Rows that come later are lost.
    pub fn close(&self, within: Duration) {
        self.on.store(false, Release);
        let (Some(queue), Some(stopped)) = (self.queue.get(), held(&self.stopped).take()) else { return };
        // In a full queue there is no room for the word; its rows are written anyway, as long as the time
        // lasts.
        let mut word = Job::Stop;
        let mut left = within;
        while let Err(TrySendError::Full(back)) = queue.try_send(word)
            && !left.is_zero()
        {
            thread::sleep(GATHERED_FOR);
            left = left.saturating_sub(GATHERED_FOR);
            word = back;
        }
        // An answer or its absence: both mean that there is nothing left to wait for.
        let _ = stopped.recv_timeout(left);
    }

    fn switch(&self, target: AccessLogTarget) -> io::Result<()> {
        let sink = Sink::open(&target)?;
        let on = sink.is_some();
        if on && self.queue.get().is_none() {
            self.start()?;
        }
        *held(&self.next) = Change { sink: Some(sink), target: Some(target) };
        self.on.store(on, Release);
        if let Some(queue) = self.queue.get() {
            // A queue that is full keeps the writer awake, and it looks for a new target by itself.
            let _ = queue.try_send(Job::Look);
        }
        Ok(())
    }

    fn start(&self) -> io::Result<()> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let (stopping, stopped) = sync_channel(1);
        let writer = Writer { sink: None, next: self.next.clone(), dropped: self.dropped.clone() };
        thread::Builder::new().name("access-log".into()).spawn(move || {
            writer.write_all(&jobs);
            let _ = stopping.send(());
        })?;
        *held(&self.stopped) = Some(stopped);
        // Two that open it at once would race; reloads come one after the other.
        let _ = self.queue.set(queue);
        Ok(())
    }
}

struct Writer {
    sink: Option<Sink>,
    next: Next,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn write_all(mut self, jobs: &Receiver<Job>) {
        let mut lines = Vec::new();
        while let Ok(first) = jobs.recv() {
            if let Job::Row(_) | Job::Exchange(..) = first {
                thread::sleep(GATHERED_FOR);
            }
            let mut stop = false;
            for job in std::iter::once(first).chain(jobs.try_iter().take(QUEUE_MAX)) {
                match job {
                    Job::Row(record) => line::append(&record, &mut lines),
                    Job::Exchange(record, exchanged) => {
                        line::append_exchange(&record, &exchanged, &mut lines);
                    }
                    Job::Look => {}
                    Job::Stop => stop = true,
                }
            }
            self.write(&lines);
            lines.clear();
            // After a burst, its memory is given back.
            lines.shrink_to(LINES_BYTES_KEPT);
            if stop {
                return;
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if let Some(sink) = held(&self.next).sink.take() {
            self.sink = sink;
        }
        let Some(sink) = &mut self.sink else { return };
        let lost = if lines.is_empty() { 0 } else { sink.write(lines) };
        if lost > 0 && self.dropped.fetch_add(lost, Relaxed) == 0 {
            tracing::warn!(
                lost,
                "the access log cannot be written; tieline_access_log_dropped_total counts on"
            );
        }
    }
}

const LINES_BYTES_KEPT: usize = 1 << 20;

fn held<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    // An assignment is whole or not there, so a holder that panicked left nothing half done.
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
        registry.leave(&record, Reason::ClientClosed, None);
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
        let sent = 4 * QUEUE_MAX as u64;
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
