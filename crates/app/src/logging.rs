//! The server's own log, and words to people at the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)] // the one place that speaks to the terminal

use std::io::{IsTerminal, Write};

use tieline_config::{LogFormat, LogLevel};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes how much the log says while the server runs.
pub(crate) struct Volume(reload::Handle<LevelFilter, Registry>);

impl Volume {
    pub(crate) fn set(&self, level: LogLevel) {
        // It fails only when the log is gone, and then nobody listens.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts the log, to the standard error.
pub(crate) fn start(level: LogLevel, format: LogFormat) -> Volume {
    let (level, handle) = reload::Layer::new(filter(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(level);
    // It fails only when a log was started before, which is as good.
    let _ = match format {
        LogFormat::Text => log.with(lines.with_target(false)).try_init(),
        LogFormat::Json => log.with(lines.json()).try_init(),
    };
    Volume(handle)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Says one line to the person at the terminal; whether anybody still reads is their business.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints `text` as the result that was asked for; a closed pipe means that enough was read.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
