//! Prometheus metrics: bounded label values, never the name of a device. `docs/metrics.md` lists them all, and a test
//! keeps it so.

mod authority;
mod broker;
mod fleet;
#[cfg(test)]
mod page;
mod register;
mod rotation;

use std::sync::Arc;

use certwave_ledger::LedgerError;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

use crate::ocsp::OcspMetrics;

pub use authority::{AuthorityMetrics, CrlShown, CrlTimes};
pub use broker::{BrokerMetrics, Waits};
pub use fleet::FleetMetrics;
pub use register::{Described, Register, Unit};
pub use rotation::{Forecast, RotationMetrics, Shown};

/// Every metric of the controller.
pub struct Metrics {
    register: Register,
    /// 1 while this process leads.
    pub leader: IntGauge,
    /// This process' clock minus the API server's, seconds.
    pub clock_ahead: IntGauge,
    /// Failed operations on the ledger, by category.
    pub ledger_errors: IntCounterVec,
    /// Writes that wait for the ledger.
    pub ledger_writes_waiting: IntGauge,
    /// 1 while a restored ledger misses what came after its backup.
    pub ledger_restoring: IntGauge,
    /// Writes to the Kubernetes API, by kind and result: `ok`, `409`, `429`, `4xx`, `5xx`, or `unanswered`.
    pub api_writes: IntCounterVec,
    /// Reconciles that failed, by kind and reason.
    pub reconcile_errors: IntCounterVec,
    /// Statuses of devices that the round under way has to write.
    pub statuses_waiting: IntGauge,
    /// What people should have seen as events, and was dropped as there was too much of it.
    pub notices_dropped: IntCounter,
    /// Certificates issued, by kind.
    pub certificates_issued: IntCounterVec,
    /// Uses of claims, by outcome (`issued`, `again` or a code).
    pub enrolments: IntCounterVec,
    /// CRLs signed.
    pub crls_published: IntCounter,
    /// Retirements of old certificates that ended, by outcome (`revoked`, or why the certificate was let go).
    pub retirements_ended: IntCounterVec,
    /// By fleet.
    pub fleets: FleetMetrics,
    /// By fleet and wave.
    pub rotations: RotationMetrics,
    /// By CA.
    pub authorities: AuthorityMetrics,
    /// By broker.
    pub brokers: BrokerMetrics,
    /// What is counted of OCSP.
    pub ocsp: Arc<OcspMetrics>,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two have the same name: a fault of the program.
    pub fn new() -> prometheus::Result<Self> {
        let mut all = Register::of_process()?;
        build_info(&mut all)?;
        let ledger_errors = all.counters(
            "ledger_errors_total",
            "Failed operations on the ledger of the parts that talk to devices",
            &["category"],
        )?;
        // An alert sees a counter rise only when it was there before.
        for category in LedgerError::OUTAGES {
            ledger_errors.with_label_values(&[category]);
        }
        Ok(Self {
            leader: all.gauge("leader", Unit::Flag, "1 while this process leads")?,
            clock_ahead: all.gauge(
                "clock_ahead_seconds",
                Unit::Seconds,
                "This process' clock minus the API server's; negative: it is behind",
            )?,
            ledger_errors,
            ledger_writes_waiting: all.gauge(
                "ledger_writes_waiting",
                Unit::Count,
                "Writes that wait for the ledger; more than 1024 slow down whoever has more",
            )?,
            ledger_restoring: all.gauge(
                "ledger_restoring",
                Unit::Flag,
                "1 while a restored ledger misses what came after its backup: nothing is issued until then",
            )?,
            api_writes: all.counters(
                "api_writes_total",
                "Writes to the Kubernetes API, by kind and result: ok, 409, 429, 4xx, 5xx, unanswered",
                &["kind", "result"],
            )?,
            reconcile_errors: all.counters("reconcile_errors_total", "Reconciles that failed", &["kind", "reason"])?,
            statuses_waiting: all.gauge(
                "statuses_waiting",
                Unit::Count,
                "Statuses of devices that the present round of writing has before it, at most some 256",
            )?,
            notices_dropped: all.counter(
                "notices_dropped_total",
                "Events about devices that were not published, as there were too many at once",
            )?,
            certificates_issued: all.counters("certificates_issued_total", "Certificates issued", &["kind"])?,
            enrolments: all.counters(
                "enrolments_total",
                "Uses of claims, by outcome: issued, again, or the code of a refusal",
                &["outcome"],
            )?,
            crls_published: all.counter("crls_published_total", "CRLs signed and published")?,
            retirements_ended: all.counters(
                "retirements_ended_total",
                "Retirements of old certificates that ended: revoked, or why the certificate was let go",
                &["outcome"],
            )?,
            fleets: FleetMetrics::new(&mut all)?,
            rotations: RotationMetrics::new(&mut all)?,
            authorities: AuthorityMetrics::new(&mut all)?,
            brokers: BrokerMetrics::new(&mut all)?,
            ocsp: Arc::new(OcspMetrics::new(&mut all)?),
            register: all,
        })
    }

    /// All of them, whether they have a value yet or not; without those of the process itself.
    pub fn described(&self) -> &[Described] {
        self.register.described()
    }

    /// The metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        self.register.text()
    }
}

/// Shows which version this is, as Prometheus' own programs do.
///
/// # Errors
/// When there is another metric of this name: a fault of the program.
pub fn build_info(register: &mut Register) -> prometheus::Result<()> {
    let info = register.gauges(
        "build_info",
        Unit::Flag,
        "1, with the version of this program",
        &["version"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}
