//! `tieline run`.
use std::process::ExitCode;
use std::sync::Arc;
use tieline_config::{Config, Workers};
use tieline_conn::Server;
use tieline_registry::{Limits, Registry};
use crate::args::ConfigArgs;
use crate::assembly::Assembly;
use crate::logging;

pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let checked = match Config::load(&args.config) {
        Ok(checked) => checked,
        Err(problems) => {
            problems.iter().for_each(|problem| logging::say(&problem.to_string()));
            return Ok(ExitCode::FAILURE);
        }
    };
    let config = checked.config;
    let _volume = logging::start(config.live.server.log, config.boot.log_format);
    tieline_transport::raise_file_limit();
    let workers = match config.boot.workers { Workers::Auto => std::thread::available_parallelism()?.get(), Workers::Count(n) => usize::from(n) };
    let registry = Arc::new(Registry::new(workers, Limits { age: config.live.server.history, rows: config.live.server.history_rows }, Box::new(|_| {})));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut assembly = Assembly::new(&args.config.display().to_string(), registry.clone());
        let server = Server::start(registry.clone(), assembly.empty())?;
        let compiled = assembly.compile(&config.live).map_err(|e| anyhow::anyhow!("{}", e[0]))?;
        server.deliver(compiled.snapshot).await;
        let mut keepers = tokio::task::JoinSet::new();
        for upstream in compiled.new_upstreams { keepers.spawn(upstream.keep(std::future::pending())); }
        tokio::signal::ctrl_c().await?;
        Ok(ExitCode::SUCCESS)
    })
}
