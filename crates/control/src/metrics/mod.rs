//! `/metrics`: everything that is counted, read when somebody asks. Nothing is done for it on the way of
//! bytes.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>; the format is OpenMetrics text 1.0.

mod data_plane;
mod process;
mod series;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text::encode};
use prometheus_client::registry::Registry as Exposed;
use tieline_conn::Server;

use crate::access_log::AccessLog;
use crate::plane::Reloads;

pub(crate) use process::ProcessReading;

use data_plane::DataPlane;
use series::Series;

/// The content type of [`Exposition::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of this process.
pub(crate) struct Exposition(Exposed);

impl Exposition {
    pub(crate) fn new(
        version: &'static str,
        server: Arc<Server>,
        access_log: Arc<AccessLog>,
        reloads: Arc<Reloads>,
    ) -> Self {
        let mut exposed = Exposed::default();
        exposed.register_collector(Box::new(DataPlane::new(server.clone())));
        exposed.register_collector(Box::new(Itself { version, server, access_log, reloads }));
        Self(exposed)
    }

    /// All metrics as they stand now.
    ///
    /// # Errors
    /// Never in fact: writing into memory does not fail.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// What Tieline tells of itself and its process.
struct Itself {
    version: &'static str,
    server: Arc<Server>,
    access_log: Arc<AccessLog>,
    reloads: Arc<Reloads>,
}

impl Collector for Itself {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut series = Series::new(&mut encoder);
        series
            .gauge("tieline_build_info", "The version that runs; always 1")?
            .add(&[("version", self.version)], 1u64)?;
        let generation = u64::from(self.server.snapshot().generation.0);
        series
            .gauge("tieline_config_generation", "Which config is in force, counted from 1")?
            .add(&[], generation)?;
        let mut reloads =
            series.counter("tieline_config_reloads", "Reloads of the config by their result")?;
        reloads.add(&[("result", "success")], self.reloads.succeeded.load(Relaxed))?;
        reloads.add(&[("result", "failure")], self.reloads.failed.load(Relaxed))?;
        let lost = "Lines that the access log lost, because its queue was full or its target took them not";
        series.counter("tieline_access_log_dropped", lost)?.add(&[], self.access_log.dropped())?;
        process(&mut series)
    }
}

fn process(series: &mut Series<'_, '_>) -> fmt::Result {
    let reading = ProcessReading::take();
    series
        .counter("process_cpu_seconds", "User and system time of the process")?
        .add(&[], reading.cpu_seconds)?;
    for (name, help, value) in [
        ("process_open_fds", "Open file descriptors", reading.open_fds),
        ("process_max_fds", "The most file descriptors that may be open", reading.max_fds),
        ("process_resident_memory_bytes", "Memory of the process in RAM", reading.resident_bytes),
        ("process_virtual_memory_bytes", "Address space of the process", reading.virtual_bytes),
        ("process_threads", "Threads of the process", reading.threads),
    ] {
        series.gauge(name, help)?.add(&[], value)?;
    }
    let started = "When the process started, in seconds since 1970-01-01 UTC";
    series.gauge("process_start_time_seconds", started)?.add(&[], reading.start_unix_seconds)
}

impl fmt::Debug for Itself {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Itself").field("version", &self.version).finish_non_exhaustive()
    }
}
