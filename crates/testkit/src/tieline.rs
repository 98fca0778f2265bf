//! The real `tieline` binary.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{HttpAnswer, http_over_unix};
use crate::process::{Launch, Process};
use crate::program::{Finished, finish};
use crate::usage;
use crate::wait::{PATIENCE, wait_for};

/// The file that `tieline` reads when it is told of none.
const CONFIG: &str = "tieline.toml";
/// The data directory when the config names none; the testkit asks tests to leave it so.
const DATA: &str = "tieline-data";

/// A running `tieline run`, alone in a temporary directory that is its working directory.
pub struct Tieline {
    process: Process,
    binary: PathBuf,
    directory: TempDir,
}

impl Tieline {
    /// Runs the binary with `config`; ready when its admin socket says so. `{dir}` in the config becomes the
    /// temporary directory, and an admin API on a port of its own is added if there is no `[admin]`.
    ///
    /// # Panics
    /// With all it said, if it does not get ready.
    #[track_caller]
    pub fn start(config: &str) -> Tieline {
        Tieline::start_from(&Tieline::binary(), config)
    }

    /// [`Tieline::start`] with a given binary, as `env!("CARGO_BIN_EXE_tieline")`.
    ///
    /// # Panics
    /// If it does not get ready.
    #[track_caller]
    pub fn start_from(binary: &Path, config: &str) -> Tieline {
        Tieline::start_under(binary, &[], config)
    }

    /// [`Tieline::start_from`] under a tool, as `["valgrind", "--tool=callgrind"]`.
    ///
    /// # Panics
    /// If it does not get ready.
    #[track_caller]
    pub fn start_under(binary: &Path, tool: &[&str], config: &str) -> Tieline {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        write_config(directory.path(), config);
        Tieline::launch(tool, binary, directory, &["run"])
    }

    /// Runs `tieline demo` with `arguments`, alone in a temporary directory.
    ///
    /// # Panics
    /// With all it said, if it does not get ready.
    #[track_caller]
    pub fn demo(arguments: &[&str]) -> Tieline {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        // Two that start in the same moment want the same ports; one that has them shows it to the next.
        let lock = fs::File::create(std::env::temp_dir().join("tieline-demo.lock"));
        let lock = lock.expect("the temporary directory is writable");
        lock.lock().expect("a file can be locked");
        Tieline::launch(&[], &Tieline::binary(), directory, &[&["demo"], arguments].concat())
    }

    #[track_caller]
    fn launch(tool: &[&str], binary: &Path, directory: TempDir, arguments: &[&str]) -> Tieline {
        let launch = Launch::under(tool, "tieline", binary.to_owned(), directory.path());
        let process = ready(launch.args(arguments.iter().copied()), directory.path());
        Tieline { process, binary: binary.to_owned(), directory }
    }

    /// Runs `tieline run` anew in the same directory; what ran before has ended.
    ///
    /// # Panics
    /// As [`Tieline::start`].
    #[track_caller]
    pub fn restart(&mut self) {
        let launch = Launch::under(&[], "tieline", self.binary.clone(), self.directory.path());
        self.process = ready(launch.args(["run"]), self.directory.path());
    }

    /// The binary to test: `TIELINE_BIN` if set, else the one that cargo built beside the running test.
    ///
    /// # Panics
    /// If there is none.
    pub fn binary() -> PathBuf {
        if let Some(named) = std::env::var_os("TIELINE_BIN") {
            return named.into();
        }
        let me = std::env::current_exe().expect("a running program knows its file");
        // A test is target/PROFILE/deps/NAME-HASH, a program target/PROFILE/NAME.
        let beside = me.ancestors().skip(1).take(2).map(|directory| directory.join("tieline"));
        let found = beside.into_iter().find(|file| file.is_file());
        found.unwrap_or_else(|| {
            panic!("no tieline binary beside {}; build it: cargo build -p tieline", me.display())
        })
    }

    /// Runs `tieline` with `arguments` as an operator of this server would: in its directory.
    pub fn cli<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Finished {
        finish(&mut self.command(arguments))
    }

    /// [`Tieline::cli`] as a command yet to be run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(self.directory.path()).env("NO_COLOR", "1");
        command
    }

    /// The TCP address that the listener `name` is bound to: for configs that bind port 0.
    ///
    /// # Panics
    /// If the API does not show one in time.
    #[track_caller]
    pub fn listener_address(&self, name: &str) -> SocketAddr {
        let address = wait_for(PATIENCE, || self.bound_addresses(name).first().copied());
        address.unwrap_or_else(|| panic!("no TCP address of listener {name}: {:?}", self.listeners()))
    }

    /// All TCP addresses that the listener `name` is bound to; none if it does not exist.
    pub fn bound_addresses(&self, name: &str) -> Vec<SocketAddr> {
        let Some(listeners) = self.listeners() else { return Vec::new() };
        let named = listeners.as_array().into_iter().flatten().filter(|listener| listener["name"] == name);
        let bound = named.filter_map(|listener| listener["bound"].as_array()).flatten();
        bound.filter_map(|address| address.as_str()?.parse().ok()).collect()
    }

    /// Calls the admin API over its unix socket; the body and the answer are JSON, and `null` stands for
    /// none.
    ///
    /// # Panics
    /// If the server does not answer, or not with JSON.
    #[track_caller]
    pub fn api(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.http(method, target, &body);
        if answer.body.is_empty() {
            return (answer.status, Value::Null);
        }
        let json = serde_json::from_slice(&answer.body);
        (
            answer.status,
            json.unwrap_or_else(|_| panic!("{method} {target} answered no JSON: {}", answer.text())),
        )
    }

    /// `GET` of the admin API; see [`Tieline::api`].
    ///
    /// # Panics
    /// If the answer is not 200 with JSON.
    #[track_caller]
    pub fn get(&self, target: &str) -> Value {
        let (status, json) = self.api("GET", target, &Value::Null);
        assert_eq!(status, 200, "GET {target}: {json}");
        json
    }

    /// Any request over the admin socket, as bytes.
    ///
    /// # Panics
    /// If the server does not answer.
    #[track_caller]
    pub fn http(&self, method: &str, target: &str, body: &[u8]) -> HttpAnswer {
        let answer = http_over_unix(&self.admin_socket(), method, target, &[], body);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}; its log:\n{}", self.log()))
    }

    /// What Prometheus would scrape.
    #[track_caller]
    pub fn metrics(&self) -> String {
        self.http("GET", "/metrics", b"").text()
    }

    /// The value of one series, named as it is exposed: `tieline_connections{listener="web"}`; 0 if it is
    /// not there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.split(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Writes `config` and applies it, as an operator would.
    ///
    /// # Panics
    /// If the server refuses it.
    #[track_caller]
    pub fn reload(&self, config: &str) {
        self.try_reload(config).expect("tieline reload");
    }

    /// [`Tieline::reload`] with a config that may be refused.
    pub fn try_reload(&self, config: &str) -> Finished {
        self.write_config(config);
        self.cli(["reload"])
    }

    /// Writes `config` without applying it, completed as [`Tieline::start`] does.
    pub fn write_config(&self, config: &str) {
        write_config(self.directory.path(), config);
    }

    /// Asks it to drain and end, and waits for it.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.stop()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for it to end by itself.
    pub fn wait_end(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.process.wait_end(patience)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its working directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join(DATA)
    }

    /// Its config file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join(CONFIG)
    }

    /// The unix socket of its admin API.
    pub fn admin_socket(&self) -> PathBuf {
        self.data().join("admin.sock")
    }

    /// What it keeps of an agent that has joined.
    ///
    /// # Panics
    /// If there is none of that name.
    #[track_caller]
    pub fn known_agent(&self, name: &str) -> Value {
        let text = fs::read(self.data().join("agents/known").join(name)).expect("the agent has joined");
        serde_json::from_slice(&text).expect("what is kept of an agent is JSON")
    }

    /// Changes that, as another process would: in one step.
    ///
    /// # Panics
    /// If the data directory cannot be written.
    #[track_caller]
    pub fn set_known_agent(&self, name: &str, known: &Value) {
        let (draft, file) = (self.data().join("draft"), self.data().join("agents/known").join(name));
        fs::write(&draft, known.to_string()).expect("the data directory is writable");
        fs::rename(&draft, file).expect("the data directory is writable");
    }

    /// All it has written to its standard output and error.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its open file descriptors.
    pub fn fd_count(&self) -> usize {
        usage::fd_count(self.pid())
    }

    /// How many of those are ends of kernel pipes.
    pub fn pipe_end_count(&self) -> usize {
        usage::pipe_end_count(self.pid())
    }

    /// How many bytes lie in those.
    pub fn pipe_bytes(&self) -> u64 {
        usage::pipe_bytes(self.pid())
    }

    /// Its resident memory, in KiB.
    pub fn rss_kib(&self) -> u64 {
        usage::rss_kib(self.pid())
    }

    /// The CPU time it has used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        usage::cpu_time(self.pid()).as_secs_f64()
    }

    fn listeners(&self) -> Option<Value> {
        let answer = http_over_unix(&self.admin_socket(), "GET", "/api/v1/listeners", &[], b"").ok()?;
        serde_json::from_slice(&answer.body).ok()
    }
}

/// Starts it, and waits until its admin socket says that it is ready.
#[track_caller]
fn ready(launch: Launch, directory: &Path) -> Process {
    let socket = directory.join(DATA).join("admin.sock");
    launch.start(|| {
        http_over_unix(&socket, "GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200)
    })
}

fn write_config(directory: &Path, config: &str) {
    // Two servers on one machine cannot share the default admin port. Added at the end: line numbers stay.
    let has_admin = config.lines().any(|line| line.trim() == "[admin]");
    let admin = if has_admin { "" } else { "\n[admin]\nlisten = \"127.0.0.1:0\"\n" };
    let text = format!("{config}{admin}").replace("{dir}", &directory.display().to_string());
    fs::write(directory.join(CONFIG), text).expect("our own directory is writable");
}

#[cfg(test)]
mod tests {
    use super::{CONFIG, write_config};

    fn written(config: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        write_config(directory.path(), config);
        std::fs::read_to_string(directory.path().join(CONFIG))
            .unwrap()
            .replace(directory.path().to_str().unwrap(), "D")
    }

    #[test]
    fn a_config_gets_an_admin_port_of_its_own_unless_it_has_one() {
        assert_eq!(written("[server]"), "[server]\n[admin]\nlisten = \"127.0.0.1:0\"\n");
        assert_eq!(written("[admin]\nlisten = \"x\""), "[admin]\nlisten = \"x\"");
    }

    #[test]
    fn the_directory_can_be_named_in_the_config() {
        assert_eq!(written("[admin]\nfile = \"{dir}/a.log\""), "[admin]\nfile = \"D/a.log\"");
    }
}
