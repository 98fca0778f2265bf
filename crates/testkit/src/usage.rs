//! What a process and its children use, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};

/// One process, told from a later one with the same id by the moment it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its process id.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot.
    started: u64,
    parent: u32,
}

impl Member {
    /// Whether this very process still runs (one that ended and awaits its parent does not).
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.member.started == self.started && stat.state != 'Z')
    }

    /// Ends it by force, if it still runs.
    pub fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            let _ = kill_process(pid, Signal::KILL); // it may end in between
        }
    }
}

/// The process `pid` and all that descend from it, parents first. Empty if it has ended.
pub fn tree(pid: u32) -> Vec<Member> {
    let everyone: Vec<Member> =
        numbers_in("/proc").into_iter().filter_map(|pid| Some(stat(pid)?.member)).collect();
    let mut family: Vec<Member> = everyone.iter().copied().filter(|member| member.pid == pid).collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).map(|member| member.pid) {
        family.extend(everyone.iter().filter(|member| member.parent == parent && member.pid != pid));
        next += 1;
    }
    family
}

/// CPU time of the process and its descendants, user and system, to the nanosecond. Threads that have ended
/// are not counted: measure servers whose threads stay.
pub fn cpu_time(pid: u32) -> Duration {
    let threads = tree(pid).into_iter().flat_map(|member| {
        let tasks = format!("/proc/{}/task", member.pid);
        numbers_in(&tasks).into_iter().map(move |thread| format!("{tasks}/{thread}/schedstat"))
    });
    // The first field of schedstat is the time spent on the CPU, in nanoseconds (kernel: sched-stats.rst).
    let ns = threads
        .filter_map(|file| fs::read_to_string(file).ok()?.split(' ').next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(ns)
}

/// How the CPU time of the process and its descendants divides: user, system. To the kernel's tick of 10 ms.
pub fn user_and_system_time(pid: u32) -> (Duration, Duration) {
    let tick = Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    let stats = tree(pid).into_iter().filter_map(|member| stat(member.pid));
    stats.fold((Duration::ZERO, Duration::ZERO), |(user, system), stat| {
        (user + tick * stat.user_ticks, system + tick * stat.system_ticks)
    })
}

/// Resident memory of the process and its descendants, in KiB; pages that several share are counted for each.
pub fn rss_kib(pid: u32) -> u64 {
    tree(pid).iter().map(|member| kib(&format!("/proc/{}/status", member.pid), "VmRSS:")).sum()
}

/// Memory that belongs to the process and its descendants alone and to no file, in KiB: anonymous pages and
/// shared memory, divided among those who share them. What a server spends on its work, without its
/// program's text.
pub fn own_memory_kib(pid: u32) -> u64 {
    let rollups = tree(pid).into_iter().map(|member| format!("/proc/{}/smaps_rollup", member.pid));
    rollups.map(|file| kib(&file, "Pss_Anon:") + kib(&file, "Pss_Shmem:")).sum()
}

/// Open file descriptors of the process alone.
pub fn fd_count(pid: u32) -> usize {
    numbers_in(&format!("/proc/{pid}/fd")).len()
}

/// How many of those are ends of kernel pipes.
pub fn pipe_end_count(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

/// How many bytes lie now in kernel pipes of which it has both ends: those of spliced transfers whose
/// receivers take no more.
pub fn pipe_bytes(pid: u32) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let ends = entries.filter_map(|entry| Some((fs::read_link(entry.path()).ok()?, entry.path())));
    let mut pipes: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for (pipe, end) in ends.filter(|(to, _)| to.to_string_lossy().starts_with("pipe:")) {
        pipes.entry(pipe).or_default().push(end);
    }
    let held = |ends: &Vec<PathBuf>| {
        let [_, end, ..] = &ends[..] else { return None };
        let read = rustix::fs::open(end, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).ok()?;
        rustix::io::ioctl_fionread(&read).ok()
    };
    pipes.values().filter_map(held).sum()
}

/// Threads of the process alone.
pub fn thread_count(pid: u32) -> usize {
    numbers_in(&format!("/proc/{pid}/task")).len()
}

struct Stat {
    member: Member,
    state: char,
    user_ticks: u32,
    system_ticks: u32,
}

/// Reads `/proc/PID/stat` (proc(5)); the fields are counted after the name, which may hold anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        member: Member { pid, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? },
        state: fields.first()?.chars().next()?,
        user_ticks: fields.get(11)?.parse().ok()?,
        system_ticks: fields.get(12)?.parse().ok()?,
    })
}

/// The value of a line `Key:   123 kB`; 0 if there is none.
fn kib(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn numbers_in(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{cpu_time, fd_count, own_memory_kib, rss_kib, thread_count, tree};
    use std::hint::black_box;

    #[test]
    fn our_own_use_is_seen_to_grow() {
        let me = std::process::id();
        let (cpu, memory) = (cpu_time(me), own_memory_kib(me));
        let block = black_box(vec![1u8; 64 << 20]);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        assert!(black_box(sum) > 0 && cpu_time(me) > cpu);
        assert!(own_memory_kib(me) >= memory + (32 << 10));
        assert!(rss_kib(me) > own_memory_kib(me) / 2 && thread_count(me) >= 1);
    }

    #[test]
    fn open_files_are_counted() {
        let files: Vec<_> = (0..40).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(fd_count(std::process::id()) >= files.len());
    }

    #[test]
    fn a_process_that_is_gone_has_no_tree() {
        assert!(tree(u32::MAX).is_empty());
        assert_eq!(tree(std::process::id())[0].pid, std::process::id());
    }
}
