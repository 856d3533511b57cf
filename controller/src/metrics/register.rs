//! Where metrics are registered: one way for all, which keeps what `docs/metrics.md` must say of them.

use prometheus::core::{Collector, Metric, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result, TextEncoder,
};

/// What a metric's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// How many, or a number of an order.
    Count,
    /// 1 while something holds, else 0.
    Flag,
    /// Seconds.
    Seconds,
    /// A point in time, Unix seconds.
    UnixSeconds,
    /// Of something in a second.
    PerSecond,
}

impl Unit {
    /// How people are told.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Flag => "0 or 1",
            Self::Seconds => "seconds",
            Self::UnixSeconds => "Unix seconds",
            Self::PerSecond => "per second",
        }
    }

    /// What Prometheus' conventions have the name of a gauge of it end with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Count | Self::Flag => "",
            Self::Seconds => "_seconds",
            Self::UnixSeconds => "_timestamp_seconds",
            Self::PerSecond => "_per_second",
        }
    }
}

/// A metric as it was registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its whole name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What its values are.
    pub unit: Unit,
    /// Its labels, in order.
    pub labels: Vec<&'static str>,
    /// What it says.
    pub help: &'static str,
}

/// The metrics of one process. Names are given without `certwave_`. Each registration fails when there is another metric of the name: a fault of the program.
#[derive(Default)]
pub struct Register {
    registry: Registry,
    described: Vec<Described>,
}

impl Register {
    /// One that shows the process itself, too: CPU, memory, files, start.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn of_process() -> Result<Self> {
        let register = Self::default();
        register
            .registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(register)
    }

    /// A counter.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn counter(&mut self, name: &str, help: &'static str) -> Result<IntCounter> {
        let metric = IntCounter::with_opts(options(name, help))?;
        self.add(name, "counter", Unit::Count, &[], help, metric)
    }

    /// A counter for each set of labels.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn counters(&mut self, name: &str, help: &'static str, labels: &[&'static str]) -> Result<IntCounterVec> {
        let metric = IntCounterVec::new(options(name, help), labels)?;
        self.add(name, "counter", Unit::Count, labels, help, metric)
    }

    /// A gauge of whole numbers.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn gauge(&mut self, name: &str, unit: Unit, help: &'static str) -> Result<IntGauge> {
        let metric = IntGauge::with_opts(options(name, help))?;
        self.add(name, "gauge", unit, &[], help, metric)
    }

    /// A gauge of whole numbers for each set of labels.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn gauges(
        &mut self,
        name: &str,
        unit: Unit,
        help: &'static str,
        labels: &[&'static str],
    ) -> Result<IntGaugeVec> {
        let metric = IntGaugeVec::new(options(name, help), labels)?;
        self.add(name, "gauge", unit, labels, help, metric)
    }

    /// A gauge of fractions.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn fraction(&mut self, name: &str, unit: Unit, help: &'static str) -> Result<Gauge> {
        let metric = Gauge::with_opts(options(name, help))?;
        self.add(name, "gauge", unit, &[], help, metric)
    }

    /// A gauge of fractions for each set of labels.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn fractions(
        &mut self,
        name: &str,
        unit: Unit,
        help: &'static str,
        labels: &[&'static str],
    ) -> Result<GaugeVec> {
        let metric = GaugeVec::new(options(name, help), labels)?;
        self.add(name, "gauge", unit, labels, help, metric)
    }

    /// A histogram of seconds.
    ///
    /// # Errors
    /// See [`Register`].
    pub fn durations(&mut self, name: &str, help: &'static str, buckets: &[f64]) -> Result<Histogram> {
        let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
        self.add(
            name,
            "histogram",
            Unit::Seconds,
            &[],
            help,
            Histogram::with_opts(options)?,
        )
    }

    fn add<C: Collector + Clone + 'static>(
        &mut self,
        name: &str,
        kind: &'static str,
        unit: Unit,
        labels: &[&'static str],
        help: &'static str,
        metric: C,
    ) -> Result<C> {
        self.registry.register(Box::new(metric.clone()))?;
        self.described.push(Described {
            name: full(name),
            kind,
            unit,
            labels: labels.to_vec(),
            help,
        });
        Ok(metric)
    }

    /// All that were registered, those too that have no value yet; without those of the process itself.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Their values in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "the metrics cannot be written");
            out.clear();
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

fn full(name: &str) -> String {
    format!("certwave_{name}")
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(full(name), help)
}

/// Takes away every series that has these values of labels, in any order: what it was about is gone.
pub(super) fn forget<B>(metric: &MetricVec<B>, with: &[(&str, &str)])
where
    B: MetricVecBuilder,
    B::M: Metric,
{
    for family in metric.collect() {
        for series in family.get_metric() {
            let labels: std::collections::HashMap<&str, &str> = series
                .get_label()
                .iter()
                .map(|label| (label.name(), label.value()))
                .collect();
            if with.iter().all(|(name, value)| labels.get(name) == Some(value)) {
                // Gone meanwhile is as good.
                let _ = metric.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_gone_leaves_no_series_and_the_others_stay() {
        let mut register = Register::default();
        let metric = register
            .gauges("things", Unit::Count, "Things", &["namespace", "fleet", "state"])
            .unwrap();
        for (fleet, state) in [("a", "x"), ("a", "y"), ("b", "x")] {
            metric.with_label_values(&["plant", fleet, state]).set(1);
        }
        forget(&metric, &[("fleet", "a"), ("namespace", "plant")]);
        forget(&metric, &[("fleet", "b"), ("namespace", "annex")]);
        let text = register.text();
        assert!(text.contains("certwave_things{fleet=\"b\",namespace=\"plant\",state=\"x\"} 1"));
        assert!(!text.contains("fleet=\"a\""), "{text}");
    }

    #[test]
    fn a_metric_without_values_is_described() {
        let mut register = Register::default();
        register.counters("done_total", "Done", &["kind"]).unwrap();
        assert_eq!(register.described()[0].name, "certwave_done_total");
        assert!(register.counters("done_total", "Done", &["kind"]).is_err());
    }
}
