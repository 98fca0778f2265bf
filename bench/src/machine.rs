//! The machine the bench runs on: its limits, its CPUs, the binary under test.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tieline_testkit::{finish, program, usage};

use crate::arguments::Options;
use crate::product::{Product, Proxy, Traffic};

/// What the largest scenario wants: 20,000 clients, 20,000 connections of a proxy to its backends, and room.
const FILES_WANTED: u64 = 65_536;
/// Files of a process that are no connections: listeners, pipes, logs, what the runtime needs.
const FILES_SPARED: u64 = 400;

/// Lets this process and its children open as many files as the scenarios want, or else as many as they may.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: Some(FILES_WANTED),
        maximum: Some(maximum.map_or(u64::MAX, |old| old.max(FILES_WANTED))),
    };
    // Only CAP_SYS_RESOURCE may raise the hard limit; anybody may go up to it.
    setrlimit(Resource::Nofile, raised)
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }))
        .context("cannot raise the limit of open files")
}

/// How many sockets one process may hold.
pub(crate) fn sockets_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(FILES_WANTED);
    usize::try_from(files.saturating_sub(FILES_SPARED)).unwrap_or(usize::MAX)
}

/// How many relayed connections fit: the bench holds both ends of each, and so does the proxy.
pub(crate) fn connections_max() -> usize {
    sockets_max() / 2
}

/// Makes sure that there is a release binary of Tieline, and that it is current.
pub(crate) fn find_tieline(no_build: bool) -> anyhow::Result<()> {
    if !no_build && std::env::var_os("TIELINE_BIN").is_none() {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        let built = build
            .args(["build", "--release", "-p", "tieline", "--locked"])
            .current_dir(workspace())
            .status()?;
        if !built.success() {
            bail!("cargo build --release -p tieline --locked failed");
        }
    }
    tieline_binary().map(drop)
}

/// The release binary: `TIELINE_BIN` if set, else what cargo built.
pub(crate) fn tieline_binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("TIELINE_BIN") {
        return Ok(named.into());
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let binary = target.join("release/tieline");
    if !binary.is_file() {
        bail!("{} does not exist; build it: cargo build --release -p tieline", binary.display());
    }
    Ok(binary)
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Who runs where while this lives: the proxy under test on the last CPU, the load (all threads of this
/// process and those it starts) on the others. The load gets all CPUs back with the drop.
pub(crate) struct Placement {
    pinned: bool,
}

impl Placement {
    /// Pins the load, unless the arguments or a single CPU forbid it.
    pub(crate) fn new(arguments: &Options) -> anyhow::Result<Placement> {
        let pinned = is_pinned(arguments);
        if pinned {
            pin(std::process::id(), &format!("0-{}", cpus() - 2))?;
        }
        Ok(Placement { pinned })
    }

    /// Starts all `products` before `backends`, each in its place.
    pub(crate) fn start_all(
        &self,
        products: &[Product],
        traffic: Traffic,
        backends: &[SocketAddr],
    ) -> anyhow::Result<HashMap<Product, Proxy>> {
        self.start_all_with(products, |product| Proxy::start(product, traffic, backends))
    }

    /// Has all `products` started by `start`, and puts each in its place.
    pub(crate) fn start_all_with(
        &self,
        products: &[Product],
        start: impl Fn(Product) -> anyhow::Result<Proxy>,
    ) -> anyhow::Result<HashMap<Product, Proxy>> {
        let start = |&product| {
            let proxy = start(product)?;
            self.place(proxy.pid())?;
            Ok((product, proxy))
        };
        products.iter().map(start).collect()
    }

    /// Puts the proxy `pid` in its place.
    pub(crate) fn place(&self, pid: u32) -> anyhow::Result<()> {
        if self.pinned {
            let last = (cpus() - 1).to_string();
            usage::tree(pid).iter().try_for_each(|member| pin(member.pid, &last))?;
        }
        Ok(())
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        if self.pinned {
            let _ = pin(std::process::id(), &format!("0-{}", cpus() - 1)); // the next scenario is only slower
        }
    }
}

fn is_pinned(arguments: &Options) -> bool {
    !arguments.no_pin && cpus() > 1
}

fn pin(pid: u32, cpus: &str) -> anyhow::Result<()> {
    // taskset and not a system call of ours: it walks all threads of a process that has already started.
    let done = finish(Command::new(program("taskset")).args(["-a", "-c", "-p", cpus, &pid.to_string()]));
    if !done.success() {
        bail!("taskset: {}", done.stderr.trim());
    }
    Ok(())
}

/// The CPUs of the machine; what this process was pinned to in between does not matter.
fn cpus() -> usize {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let last = online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}

/// What a reader needs to know before the figures.
pub(crate) fn describe(arguments: &Options) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let pinned = "where CPU is measured the proxy has one of its own, the load the others";
    let placed = if is_pinned(arguments) { pinned } else { "all placed by the scheduler" };
    format!(
        "{} × {}, Linux {}; {}, {} and {}; one worker each, no access logs unless said so, \
         in turns, {} rounds, {placed}.\n\
         Figures are medians; a ratio is the median of each round's ratio, with its least and greatest.",
        cpus(),
        model.unwrap_or("unknown CPU"),
        kernel.trim(),
        version("haproxy", "-v"),
        version("nginx", "-v"),
        version("pgbouncer", "--version"),
        arguments.repeat()
    )
}

/// The first line in which a program tells its version; nginx writes it to its standard error.
fn version(name: &str, flag: &str) -> String {
    let said = finish(Command::new(program(name)).arg(flag));
    let line = [said.stdout, said.stderr].concat();
    let line = line.lines().next().unwrap_or(name).replace("nginx version: nginx/", "nginx ");
    line.split_whitespace()
        .filter(|word| !word.eq_ignore_ascii_case("version"))
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}
