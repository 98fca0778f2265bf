//! `tieline demo`.
use std::process::ExitCode;
use crate::args::DemoArgs;
pub(crate) fn run(_: &DemoArgs) -> anyhow::Result<ExitCode> { anyhow::bail!("not yet") }
