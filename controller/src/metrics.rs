//! Prometheus metrics: bounded label values, never the name of a device.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Every metric of the controller.
pub struct Metrics {
    registry: Registry,
    /// Messages of devices, by type and outcome (`ok` or a code).
    pub messages: IntCounterVec,
    /// Seconds from a message's arrival to its answer's hand-over to the broker's connection.
    pub message_seconds: Histogram,
    /// Jobs that ended, by kind, state and code (`none` for success).
    pub jobs_ended: IntCounterVec,
    /// Jobs started, by kind.
    pub jobs_started: IntCounterVec,
    /// Certificates issued, by kind.
    pub certificates_issued: IntCounterVec,
    /// Uses of claims, by outcome (`issued`, `again` or a code).
    pub enrolments: IntCounterVec,
    /// Failed operations on the ledger, by category.
    pub ledger_errors: IntCounterVec,
    /// Writes to the Kubernetes API, by kind and result: `ok`, `409`, `429`, `4xx`, `5xx`, or `unanswered`.
    pub api_writes: IntCounterVec,
    /// 1 while connected to a broker, by broker id.
    pub broker_connected: IntGaugeVec,
    /// 1 while connected to a broker's claims' listener, by broker id.
    pub claims_connected: IntGaugeVec,
    /// When a CA's certificate ends, Unix seconds.
    pub authority_not_after: IntGaugeVec,
    /// Devices by fleet and state.
    pub devices: IntGaugeVec,
    /// 1 while this process leads.
    pub leader: IntGauge,
    /// Reconciles that failed, by kind and reason.
    pub reconcile_errors: IntCounterVec,
    /// CRLs signed.
    pub crls_published: IntCounter,
    /// Devices of the Rotation that runs over a fleet, by wave (from 1) and state.
    pub rotation_devices: IntGaugeVec,
    /// The wave (from 1) of the Rotation that runs over a fleet.
    pub rotation_wave: IntGaugeVec,
    /// Devices whose certificates will end before their turn, by fleet.
    pub devices_at_risk: IntGaugeVec,
    /// Limits exceeded, by cause.
    pub rotation_breaches: IntCounterVec,
    /// Rotations that ended, by outcome.
    pub rotations_ended: IntCounterVec,
    /// Answers of gates, by kind of gate and answer.
    pub gate_answers: IntCounterVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two have the same name: a fault of the program.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(format!("certwave_{name}"), help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(format!("certwave_{name}"), help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let message_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "certwave_message_seconds",
                "Seconds from a device's message to its answer",
            )
            .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0]),
        )?;
        registry.register(Box::new(message_seconds.clone()))?;
        let leader = IntGauge::new("certwave_leader", "1 while this process leads")?;
        registry.register(Box::new(leader.clone()))?;
        let crls_published = IntCounter::new("certwave_crls_published_total", "CRLs signed and published")?;
        registry.register(Box::new(crls_published.clone()))?;
        Ok(Self {
            messages: counters("messages_total", "Messages of devices", &["type", "outcome"])?,
            jobs_ended: counters("jobs_ended_total", "Jobs that ended", &["kind", "state", "code"])?,
            jobs_started: counters("jobs_started_total", "Jobs started", &["kind"])?,
            certificates_issued: counters("certificates_issued_total", "Certificates issued", &["kind"])?,
            enrolments: counters("enrolments_total", "Uses of claims", &["outcome"])?,
            ledger_errors: counters("ledger_errors_total", "Failed operations on the ledger", &["category"])?,
            api_writes: counters("api_writes_total", "Writes to the Kubernetes API", &["kind", "result"])?,
            reconcile_errors: counters("reconcile_errors_total", "Reconciles that failed", &["kind", "reason"])?,
            broker_connected: gauges("broker_connected", "1 while connected to the broker", &["broker"])?,
            claims_connected: gauges(
                "broker_claims_connected",
                "1 while connected to the broker's claims' listener",
                &["broker"],
            )?,
            authority_not_after: gauges(
                "authority_not_after_timestamp_seconds",
                "When the CA's certificate ends, Unix seconds",
                &["namespace", "name"],
            )?,
            devices: gauges("devices", "Devices by state", &["namespace", "fleet", "state"])?,
            rotation_devices: gauges(
                "rotation_devices",
                "Devices of the running Rotation by wave and state",
                &["namespace", "fleet", "wave", "state"],
            )?,
            rotation_wave: gauges("rotation_wave", "The running Rotation's wave", &["namespace", "fleet"])?,
            devices_at_risk: gauges(
                "devices_at_risk",
                "Devices whose certificates will end before their turn",
                &["namespace", "fleet"],
            )?,
            rotation_breaches: counters("rotation_breaches_total", "Limits exceeded in Rotations", &["cause"])?,
            rotations_ended: counters("rotations_ended_total", "Rotations that ended", &["outcome"])?,
            gate_answers: counters("gate_answers_total", "Answers of gates", &["kind", "answer"])?,
            message_seconds,
            leader,
            crls_published,
            registry,
        })
    }

    /// The metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        if TextEncoder::new().encode(&self.registry.gather(), &mut out).is_err() {
            out.clear();
        }
        String::from_utf8(out).unwrap_or_default()
    }
}
