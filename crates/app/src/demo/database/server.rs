//! A PostgreSQL server of the demo's own, as this machine has it installed: in a folder in the temporary
//! directory, at a unix socket there, as an unprivileged user. Both go when the demo does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};

/// Where distributions put the server's programs, which are rarely in `PATH`.
const FOLDERS: [&str; 3] = ["/usr/lib/postgresql", "/usr/lib", "/usr"];

/// How its folders are called, before the number of the process.
const PREFIX: &str = "tieline-demo-";

/// How long it may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A running server.
pub(super) struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    /// Starts one with a database called `name`, of a user called so, with what `sql` makes there.
    ///
    /// # Errors
    /// Why there is none, in one line.
    pub(super) fn start(name: &str, sql: &str) -> Result<Server, String> {
        let programs = programs().ok_or("no PostgreSQL server on this machine (`apt install postgresql`)")?;
        let account = account()?;
        clear(account);
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let made = (|| {
            if let Some((user, group)) = account {
                chown(&folder, Some(user), Some(group)).map_err(failed)?;
            }
            let run = |program: &str| Run { program: programs.join(program), account, folder: &folder };
            run("initdb").all(&["-D", "cluster", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-N"], "")?;
            let alone = |database: &str, sql: &str| {
                run("postgres").all(&["--single", "-D", "cluster", "-F", database], sql)
            };
            alone("postgres", &format!("create role {name} login;\ncreate database {name} owner {name};\n"))?;
            alone(name, sql)?;
            run("postgres").go_on().map_err(failed)
        })();
        match made {
            Ok(process) => Ok(Server { process, folder }),
            Err(why) => {
                let _ = fs::remove_dir_all(&folder);
                Err(why)
            }
        }
    }

    /// The path of its socket.
    pub(super) fn socket(&self) -> String {
        self.folder.join(".s.PGSQL.5432").display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            // At once, whatever it does: nothing of it is kept.
            let _ = kill_process(pid, Signal::QUIT);
        }
        let (step, mut waited) = (Duration::from_millis(20), Duration::ZERO);
        while waited < STOP_WITHIN && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(step);
            waited += step;
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program of the server's, in the demo's folder.
struct Run<'r> {
    program: PathBuf,
    account: Option<(u32, u32)>,
    folder: &'r Path,
}

impl Run<'_> {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder).env("LC_ALL", "C").env("TZ", "UTC").process_group(0);
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    /// Runs it to its end, with `input`.
    fn all(&self, arguments: &[&str], input: &str) -> Result<(), String> {
        let failed = |why: &str| format!("{}: {why}", self.program.display());
        let mut command = self.command(&self.program);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| failed(&error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not read it says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let ended = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        Err(failed(said.lines().last().unwrap_or("it failed without a word")))
    }

    /// Starts it to stay.
    fn go_on(&self) -> std::io::Result<Child> {
        let folder = self.folder.display().to_string();
        let arguments = ["-D", "cluster", "-k", &folder, "-c", "listen_addresses=", "-c", "port=5432", "-F"];
        let log = fs::File::create(self.folder.join("server.log"))?;
        let quietly = |mut command: Command| {
            command
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log.try_clone()?)
                .spawn()
        };
        // It goes when we go, however that happens, where there is the tool that can say so to the kernel.
        let bound = || {
            let mut command = self.command(Path::new("setpriv"));
            command.args(["--pdeathsig", "QUIT", "--"]).arg(&self.program);
            command
        };
        quietly(bound()).or_else(|_| quietly(self.command(&self.program)))
    }
}

/// Removes the folders that demos left behind which were killed.
fn clear(account: Option<(u32, u32)>) {
    let own = account.map_or_else(|| getuid().as_raw(), |(user, _)| user);
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let lives = |process: u32| Path::new(&format!("/proc/{process}")).exists();
        let is_ours = || entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == own);
        if process.is_some_and(|process| !lives(process)) && is_ours() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let is_whole = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|it| folder.join(it).is_file());
    let listed = std::env::var_os("PATH").unwrap_or_default();
    let known = FOLDERS.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let version = |folder: &Path| {
        let digits =
            |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u32>();
        folder.parent().and_then(|it| it.file_name()).and_then(|it| digits(&it.to_string_lossy()).ok())
    };
    let known = known.map(|entry| entry.path().join("bin")).filter(is_whole);
    let newest = known.max_by_key(|folder| version(folder));
    std::env::split_paths(&listed).find(is_whole).or(newest)
}

/// The user and the group that it runs as, if it may not be ours: the server refuses to be root.
fn account() -> Result<Option<(u32, u32)>, String> {
    if !getuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |name: &str| {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let mut found = fields.filter(|fields| fields.len() > 3 && fields[0] == name);
        found.next().and_then(|fields| Some((fields[2].parse().ok()?, fields[3].parse().ok()?)))
    };
    let found = of("postgres").or_else(|| of("nobody"));
    found.map(Some).ok_or_else(|| "PostgreSQL does not run as root, and there is no other user".into())
}
