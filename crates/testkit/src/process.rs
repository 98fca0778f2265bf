//! One server process: started, watched, ended with the value that holds it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{is_root, program};
use crate::usage;
use crate::wait::{PATIENCE, wait_for, wait_until};

/// How long a server may take to end once asked, before it is killed.
const GOODBYE: Duration = Duration::from_secs(10);

/// How to start a server.
pub(crate) struct Launch {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    directory: PathBuf,
    user: Option<&'static str>,
    stop: Signal,
}

impl Launch {
    /// `program` as `name`, with `directory` as its working directory and the place of its log.
    pub(crate) fn new(name: &'static str, program: PathBuf, directory: &Path) -> Launch {
        let directory = directory.to_owned();
        Launch { name, program, arguments: Vec::new(), directory, user: None, stop: Signal::TERM }
    }

    /// [`Launch::new`] under a tool, as `["valgrind", "--tool=callgrind"]`; no words are no tool.
    pub(crate) fn under(
        tool: &[&str],
        name: &'static str,
        program_file: PathBuf,
        directory: &Path,
    ) -> Launch {
        let Some((first, options)) = tool.split_first() else {
            return Launch::new(name, program_file, directory);
        };
        Launch::new(name, program(first), directory).args(options.iter().copied()).arg(program_file)
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Launch {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Launch {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The account to run as when we are root: some servers refuse to be root.
    pub(crate) fn user(mut self, user: &'static str) -> Launch {
        self.user = Some(user);
        self
    }

    /// The signal that ends this server at once and cleanly, where that is not SIGTERM.
    pub(crate) fn stopped_by(mut self, signal: Signal) -> Launch {
        self.stop = signal;
        self
    }

    /// Starts it and waits until `ready` answers yes.
    ///
    /// # Panics
    /// With the server's log, if it ends or is not ready in time.
    #[track_caller]
    pub(crate) fn start(self, ready: impl FnMut() -> bool) -> Process {
        let mut process = self.spawn();
        process.wait_ready(ready);
        process
    }

    /// Starts it without waiting for anything.
    #[track_caller]
    pub(crate) fn spawn(self) -> Process {
        let log = self.directory.join(format!("{}.log", self.name));
        let mut command = self.command(&log);
        let child = on_lasting_thread(move || command.spawn());
        let child = child.unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        Process { name: self.name, child, log, stop: self.stop, ended: None, orphans: Vec::new() }
    }

    /// `setpriv` becomes the program: it changes the account, and asks the kernel to signal the server when
    /// we die.
    fn command(&self, log: &Path) -> Command {
        let log = File::create(log).expect("a fresh temporary directory is writable");
        let mut command = Command::new(program("setpriv"));
        command.arg("--pdeathsig").arg(signal_name(self.stop));
        if let Some(user) = self.user.filter(|_| is_root()) {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        command.current_dir(&self.directory).stdin(Stdio::null());
        for name in WAYS_OUT {
            command.env_remove(name);
        }
        command.stdout(log.try_clone().expect("an open file can be cloned")).stderr(log);
        command
    }
}

/// What leads programs out of the network of this machine: tests talk to themselves alone.
pub(crate) const WAYS_OUT: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

/// A running server. Dropping it ends it and everything it started.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    stop: Signal,
    ended: Option<ExitStatus>,
    /// What it had started when it was killed.
    orphans: Vec<usage::Member>,
}

impl Process {
    /// Starts `words`, a program and its arguments, as `name` in `directory`, where its log goes too, and
    /// waits until `ready` answers yes: for what has no home of its own here.
    ///
    /// # Panics
    /// With its log, if it ends or is not ready in time.
    #[track_caller]
    pub fn run(
        name: &'static str,
        words: &[String],
        directory: &Path,
        ready: impl FnMut() -> bool,
    ) -> Process {
        let (first, arguments) = words.split_first().expect("a program is named");
        let launch = Launch::new(name, program(first), directory).args(arguments.iter().cloned());
        launch.start(ready)
    }

    /// Its process id; the measurements of [`usage`] start from it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has written to its standard output and error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Sends it a signal; nothing happens if it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process(self.os_pid(), signal); // it may end in between
        }
    }

    /// Waits for it to end by itself; `None` if it does not in time.
    pub fn wait_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        wait_for(patience, || self.poll())
    }

    /// Ends it as its own users would, then by force; also whatever it started and left behind. None of them
    /// lives when this returns.
    pub fn stop(&mut self) -> ExitStatus {
        let family = usage::tree(self.pid());
        self.signal(self.stop);
        let status = self.wait_end(GOODBYE).unwrap_or_else(|| self.kill());
        self.orphans.extend(family);
        self.end_orphans();
        status
    }

    /// Ends it by force with all that it started, and returns when none of them lives. What [`Process::kill`]
    /// leaves behind of a server of several processes goes on serving for a while.
    pub fn kill_all(&mut self) -> ExitStatus {
        let status = self.kill();
        self.end_orphans();
        status
    }

    fn end_orphans(&mut self) {
        let orphans = std::mem::take(&mut self.orphans);
        orphans.iter().for_each(usage::Member::kill);
        let _ = wait_until(GOODBYE, || !orphans.iter().any(usage::Member::is_alive));
    }

    /// Ends it alone by force, leaving it no time to say anything.
    pub fn kill(&mut self) -> ExitStatus {
        if self.is_running() {
            self.orphans = usage::tree(self.pid());
            let _ = self.child.kill(); // it may end in between
        }
        let status = self.child.wait().expect("a child can be waited for");
        *self.ended.insert(status)
    }

    #[track_caller]
    pub(crate) fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let came_up = wait_until(PATIENCE, || !self.is_running() || ready()) && self.is_running();
        assert!(came_up, "{} did not get ready ({:?}); its log:\n{}", self.name, self.ended, self.log());
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    fn os_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::QUIT => "QUIT",
        Signal::KILL => "KILL",
        Signal::INT => "INT",
        _ => "TERM",
    }
}

/// Runs `start` on a thread that lives as long as this process. The kernel delivers the parent-death signal
/// when the *thread* that forked ends, and a test's thread ends before the servers it shares with other
/// tests may.
fn on_lasting_thread<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    type Job = Box<dyn FnOnce() + Send>;
    static THREAD: OnceLock<Sender<Job>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || jobs.iter().for_each(|job| job()));
        sender
    });
    let (answer, answered) = channel();
    let job = Box::new(move || answer.send(start()).expect("the asking thread waits for the answer"));
    thread.send(job).expect("the starting thread never ends");
    answered.recv().expect("the starting thread answers every job")
}

#[cfg(test)]
mod tests {
    use super::Launch;
    use crate::program::program;
    use crate::usage;
    use crate::wait::{PATIENCE, wait_until};

    fn shell(script: &str, directory: &tempfile::TempDir) -> Launch {
        Launch::new("shell", program("sh"), directory.path()).arg("-c").arg(script)
    }

    #[test]
    fn dropping_a_process_ends_it_and_what_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell("setsid sleep 1000 & wait", &directory).spawn();
        let pid = process.pid();
        assert!(wait_until(PATIENCE, || usage::tree(pid).len() == 2));
        let family = usage::tree(pid);
        drop(process);
        assert!(!family.iter().any(usage::Member::is_alive), "{family:?}");
    }

    #[test]
    fn killing_all_of_a_process_leaves_nothing_of_it_and_killing_it_alone_nothing_for_long() {
        let directory = tempfile::tempdir().unwrap();
        for all in [true, false] {
            let mut process = shell("setsid sleep 1000 & wait", &directory).spawn();
            assert!(wait_until(PATIENCE, || usage::tree(process.pid()).len() == 2));
            let family = usage::tree(process.pid());
            if all {
                process.kill_all();
            } else {
                process.kill();
                assert!(family[1].is_alive());
                drop(process);
            }
            assert!(!family.iter().any(usage::Member::is_alive), "{family:?}");
        }
    }

    #[test]
    #[should_panic(expected = "cannot open the frobnicator")]
    fn a_server_that_ends_at_once_fails_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        shell("echo cannot open the frobnicator; exit 1", &directory).start(|| false);
    }

    #[test]
    fn a_process_that_ignores_its_stop_signal_is_killed_with_the_test() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("trap '' TERM; echo up; while :; do sleep 0.01; done", &directory).spawn();
        process.wait_ready(|| directory.path().join("shell.log").metadata().is_ok_and(|file| file.len() > 0));
        let status = process.kill();
        assert!(!status.success());
        assert!(!process.is_running());
    }
}
