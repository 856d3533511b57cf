//! What is shown of each fleet's devices.

use certwave_ledger::{FleetCounts, FleetKey};
use prometheus::{IntCounterVec, IntGaugeVec, Result};

use super::register::{Register, Unit, forget};

const FLEET: [&str; 2] = ["namespace", "fleet"];

/// Gauges and counters by fleet.
pub struct FleetMetrics {
    devices: IntGaugeVec,
    online: IntGaugeVec,
    lost: IntGaugeVec,
    revoked: IntGaugeVec,
    held: IntGaugeVec,
    expiring: IntGaugeVec,
    next_expiry: IntGaugeVec,
    waiting: IntGaugeVec,
    in_flight: IntGaugeVec,
    /// Jobs sent for the first time, by fleet and kind.
    pub jobs_started: IntCounterVec,
    /// Jobs that ended, by fleet, kind, state and code (`none` for success).
    pub jobs_ended: IntCounterVec,
}

impl FleetMetrics {
    pub(super) fn new(register: &mut Register) -> Result<Self> {
        Ok(Self {
            devices: register.gauges(
                "devices",
                Unit::Count,
                "Declared devices by state; each is counted once",
                &["namespace", "fleet", "state"],
            )?,
            online: register.gauges(
                "devices_online",
                Unit::Count,
                "Devices heard within offlineAfter",
                &FLEET,
            )?,
            lost: register.gauges(
                "devices_lost",
                Unit::Count,
                "Devices that accepted a job, passed its deadline, and have not been heard for lostAfter",
                &FLEET,
            )?,
            revoked: register.gauges(
                "devices_revoked",
                Unit::Count,
                "Devices that are revoked, until a person permits them to enrol again",
                &FLEET,
            )?,
            held: register.gauges("devices_held", Unit::Count, "Devices on hold", &FLEET)?,
            expiring: register.gauges(
                "devices_expiring",
                Unit::Count,
                "Devices, neither revoked nor on hold, whose certificates end within a third of renewBefore: they should have been renewed",
                &FLEET,
            )?,
            next_expiry: register.gauges(
                "devices_next_expiry_timestamp_seconds",
                Unit::UnixSeconds,
                "The earliest end of a device's present certificate that has not ended",
                &FLEET,
            )?,
            waiting: register.gauges(
                "jobs_waiting",
                Unit::Count,
                "Jobs that wait for their devices to come online and accept them",
                &FLEET,
            )?,
            in_flight: register.gauges(
                "jobs_in_flight",
                Unit::Count,
                "Jobs between being sent and their end: they count against maxInFlight",
                &FLEET,
            )?,
            jobs_started: register.counters(
                "jobs_started_total",
                "Jobs sent to devices, each time anew",
                &["namespace", "fleet", "kind"],
            )?,
            jobs_ended: register.counters(
                "jobs_ended_total",
                "Jobs that ended",
                &["namespace", "fleet", "kind", "state", "code"],
            )?,
        })
    }

    /// Shows a fleet's counts.
    pub fn show(&self, fleet: &FleetKey, counts: &FleetCounts) {
        let labels = [fleet.namespace.as_str(), fleet.name.as_str()];
        let states = [
            ("declared", counts.declared),
            ("enrolling", counts.enrolling),
            ("active", counts.active),
            ("rotating", counts.rotating),
            ("failed", counts.failed),
            ("expired", counts.expired),
        ];
        for (state, count) in states {
            let gauge = self.devices.with_label_values(&[labels[0], labels[1], state]);
            gauge.set(count.into());
        }
        for (metric, count) in [
            (&self.online, counts.online),
            (&self.lost, counts.lost),
            (&self.revoked, counts.revoked),
            (&self.held, counts.held),
            (&self.expiring, counts.expiring),
            (&self.waiting, counts.offline),
            (&self.in_flight, counts.in_flight),
        ] {
            metric.with_label_values(&labels).set(count.into());
        }
        match counts.next_expiry {
            Some(end) => self.next_expiry.with_label_values(&labels).set(end),
            // Not there is as good.
            None => drop(self.next_expiry.remove_label_values(&labels)),
        }
    }

    /// A fleet is gone, and its metrics with it.
    pub fn forget(&self, fleet: &FleetKey) {
        let with = [("namespace", fleet.namespace.as_str()), ("fleet", fleet.name.as_str())];
        for metric in [
            &self.devices,
            &self.online,
            &self.lost,
            &self.revoked,
            &self.held,
            &self.expiring,
            &self.next_expiry,
            &self.waiting,
            &self.in_flight,
        ] {
            forget(metric, &with);
        }
        forget(&self.jobs_started, &with);
        forget(&self.jobs_ended, &with);
    }
}
