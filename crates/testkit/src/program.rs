//! Finding programs and running the short ones to their end.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Where distributions put servers, beside `PATH`.
const SERVER_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The path of an installed program.
///
/// # Panics
/// If it is not installed: a test that needs it must fail, not pass unseen.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not installed; ./test installs it"))
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let searched = std::env::split_paths(&path).chain(SERVER_DIRECTORIES.map(PathBuf::from));
    searched.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// What a program that ran to its end said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Whether it exited with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output, without the white space around it.
    ///
    /// # Panics
    /// If it failed; the message holds all that it said.
    #[track_caller]
    pub fn expect(self, doing: &str) -> String {
        assert!(self.success(), "{doing} failed ({:?}):\n{}\n{}", self.code, self.stdout, self.stderr);
        self.stdout.trim().to_owned()
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// How long a program may take that should end by itself: one that serves instead must not hold up the tests.
const FINISH_WITHIN: Duration = Duration::from_secs(120);

/// Runs `command` to its end; one that does not come to it is killed, and so has no exit code.
///
/// # Panics
/// If it cannot be started.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    finish_within(FINISH_WITHIN, command)
}

/// [`finish`] of a program that may take `longest`.
///
/// # Panics
/// If it cannot be started.
#[track_caller]
pub fn finish_within(longest: Duration, command: &mut Command) -> Finished {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap_or_else(|error| panic!("{piped:?} does not start: {error}"));
    let pid = Pid::from_child(&child);
    let (ended, watched) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if watched.recv_timeout(longest) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL); // it may have ended just now
        }
    });
    let output = child.wait_with_output();
    drop(ended);
    let _ = watch.join(); // it has nothing to panic about
    output.unwrap_or_else(|error| panic!("{command:?} cannot be waited for: {error}")).into()
}

/// The user and group ids that `name` has on this machine.
///
/// # Panics
/// If there is no such user.
pub(crate) fn user_ids(name: &str) -> (u32, u32) {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&name))
            .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))
    });
    ids.flatten()
        .unwrap_or_else(|| panic!("there is no user {name}; ./test installs the package that makes it"))
}

/// Whether this process may change user.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Hands `path` to `user`, if we are root and could not otherwise let that user in.
pub(crate) fn give_to(user: &str, path: &Path) {
    if is_root() {
        let (uid, gid) = user_ids(user);
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .expect("root may change the owner of its own directory");
    }
}

#[cfg(test)]
mod tests {
    use super::{finish, program};
    use std::process::Command;

    #[test]
    #[should_panic(expected = "no-such-server is not installed; ./test installs it")]
    fn a_missing_program_is_a_failure_that_names_it() {
        program("no-such-server");
    }

    #[test]
    fn a_finished_program_tells_its_code_and_both_outputs() {
        let said = finish(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(3), "out\n", "err\n"));
    }
}
