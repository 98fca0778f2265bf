//! Counting what a proxy does per unit of load: instructions with callgrind, system calls with strace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tieline_testkit::{PATIENCE, program, usage, wait_until};

use crate::product::{Product, Proxy, Traffic};

/// User-space instructions that one more unit of `load` costs `product`: the difference of two run lengths,
/// so that start and end cancel out.
pub(crate) fn instructions_per_unit(
    product: Product,
    traffic: Traffic,
    backends: &[std::net::SocketAddr],
    lengths: (usize, usize),
    load: impl Fn(&Proxy, usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    instructions_between(lengths, |tool, length| {
        let proxy = Proxy::start_under(tool, product, traffic, backends)?;
        load(&proxy, length)?;
        proxy.stop();
        Ok(())
    })
}

/// [`instructions_per_unit`] of whatever `run` starts under a tool, gives so many units of load, and stops.
pub(crate) fn instructions_between(
    lengths: (usize, usize),
    run: impl Fn(&[&str], usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let count = |length| -> anyhow::Result<u64> {
        let reports = tempfile::tempdir()?;
        // A server may have an account of its own.
        fs::set_permissions(reports.path(), fs::Permissions::from_mode(0o777))?;
        let file = format!("--callgrind-out-file={}/%p", reports.path().display());
        run(&["valgrind", "--tool=callgrind", "--trace-children=yes", "--quiet", &file], length)?;
        total_instructions(reports.path())
    };
    let (short, long) = (count(lengths.0)?, count(lengths.1)?);
    Ok((long as f64 - short as f64) / (lengths.1 - lengths.0) as f64)
}

/// Sums the reports of all processes of a server.
fn total_instructions(reports: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for report in fs::read_dir(reports)? {
        let text = fs::read_to_string(report?.path())?;
        let summary =
            text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
        total += summary.context("callgrind wrote no summary")?.trim().parse::<u64>()?;
    }
    if total == 0 {
        bail!("callgrind wrote no report");
    }
    Ok(total)
}

/// System calls that the process `pid` and its children make while `load` runs, by name.
pub(crate) fn system_calls(
    pid: u32,
    load: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let directory = tempfile::tempdir()?;
    let report = directory.path().join("calls");
    let family = usage::tree(pid);
    let mut strace = Command::new(program("strace"));
    strace.args(["-f", "-c", "-o"]).arg(&report).stderr(Stdio::null());
    strace.args(family.iter().flat_map(|member| ["-p".to_owned(), member.pid.to_string()]));
    let mut strace = strace.spawn().context("cannot start strace")?;
    let attached = wait_until(PATIENCE, || family.iter().all(|member| is_traced(member.pid)));
    let loaded = if attached { load() } else { Err(anyhow::anyhow!("strace cannot attach")) };
    kill_process(Pid::from_child(&strace), Signal::INT)?; // it detaches and writes its report
    strace.wait()?;
    loaded?;
    Ok(parse_calls(&fs::read_to_string(report)?))
}

/// Whether every thread of `pid` has a tracer (proc(5), `TracerPid`).
fn is_traced(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    states.all(|state| !state.contains("TracerPid:\t0\n"))
}

/// Reads the table of `strace -c`: `% time, seconds, usecs/call, calls, [errors], syscall`.
fn parse_calls(report: &str) -> BTreeMap<String, u64> {
    let rows = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let calls = rows.filter_map(|row| Some(((*row.last()?).to_owned(), row.get(3)?.parse().ok()?)));
    calls.filter(|(name, _)| name != "total").collect()
}

#[cfg(test)]
mod tests {
    use super::parse_calls;

    #[test]
    fn straces_table_is_read_with_and_without_errors() {
        let report = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
             60.00    0.000600           3       200        17 recvfrom\n\
             40.00    0.000400           4       100           close\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.001000           3       300        17 total\n";
        let calls = parse_calls(report);
        assert_eq!(calls.into_iter().collect::<Vec<_>>(), [("close".into(), 100), ("recvfrom".into(), 200)]);
    }
}
