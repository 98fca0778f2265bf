//! Families of series, written one after the other.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use tieline_registry::{BUCKETS, HistogramReading};

/// Labels of one series. Their values are escaped as they are written.
type Labels<'l> = &'l [(&'l str, &'l str)];

/// Writes families.
pub(super) struct Series<'e, 'w>(&'e mut DescriptorEncoder<'w>);

impl<'e, 'w> Series<'e, 'w> {
    pub(super) fn new(encoder: &'e mut DescriptorEncoder<'w>) -> Self {
        Self(encoder)
    }

    /// A family of counters; `_total` is put behind its name.
    pub(super) fn counter<'f>(&'f mut self, name: &'f str, help: &str) -> Result<Counters<'f>, fmt::Error> {
        Ok(Counters(self.0.encode_descriptor(name, help, None, MetricType::Counter)?))
    }

    /// A family of gauges.
    pub(super) fn gauge<'f>(&'f mut self, name: &'f str, help: &str) -> Result<Gauges<'f>, fmt::Error> {
        Ok(Gauges(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?))
    }

    /// A family of histograms of seconds.
    pub(super) fn histogram<'f>(
        &'f mut self,
        name: &'f str,
        help: &str,
    ) -> Result<Histograms<'f>, fmt::Error> {
        Ok(Histograms(self.0.encode_descriptor(name, help, None, MetricType::Histogram)?))
    }
}

pub(super) struct Counters<'f>(MetricEncoder<'f>);

impl Counters<'_> {
    pub(super) fn add(&mut self, labels: Labels<'_>, value: impl EncodeCounterValue) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_counter::<NoLabelSet, _, u64>(&value, None);
        }
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }
}

pub(super) struct Gauges<'f>(MetricEncoder<'f>);

impl Gauges<'_> {
    pub(super) fn add(&mut self, labels: Labels<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_gauge(&value);
        }
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }
}

pub(super) struct Histograms<'f>(MetricEncoder<'f>);

impl Histograms<'_> {
    pub(super) fn add(&mut self, labels: Labels<'_>, reading: &HistogramReading) -> fmt::Result {
        // The encoder adds the buckets up, as the format wants them.
        let buckets: [(f64, u64); BUCKETS] =
            std::array::from_fn(|index| (HistogramReading::bound_seconds(index), reading.counts[index]));
        let count = reading.counts.iter().sum();
        let sum = reading.sum.as_secs_f64();
        self.0.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
