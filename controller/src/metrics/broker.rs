//! What is shown of brokers: connections, what waits, the controller's credentials, the doors.

use certwave_core::model::ObjectRef;
use certwave_protocol::ids::BrokerId;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Result};

use super::register::{Register, Unit, forget};

const BROKER: [&str; 1] = ["broker"];
const CERTIFICATE: [&str; 3] = ["namespace", "name", "purpose"];

/// Metrics of brokers and of what devices say through them.
pub struct BrokerMetrics {
    /// 1 while this process looks after a broker, by broker id.
    pub held: IntGaugeVec,
    /// 1 while connected to a broker, by broker id.
    pub connected: IntGaugeVec,
    /// 1 while connected to a broker's claims' listener, by broker id.
    pub claims_connected: IntGaugeVec,
    waiting: IntGaugeVec,
    /// 1 while every node of a broker goes by the CRLs published last, by broker id.
    pub door_current: IntGaugeVec,
    not_before: IntGaugeVec,
    not_after: IntGaugeVec,
    /// Messages of devices, by type and outcome (`ok` or a code).
    pub messages: IntCounterVec,
    /// Seconds from a message's arrival to its answer's hand-over to the broker's connection.
    pub message_duration: Histogram,
    /// Seconds from a CRL's publication to its being loaded by a node of a broker.
    pub crl_load_duration: Histogram,
    /// Brokers' doors that could not be told or asked, by adapter and category.
    pub door_errors: IntCounterVec,
    /// Live sessions of revoked devices that were closed.
    pub sessions_closed: IntCounter,
}

impl BrokerMetrics {
    pub(super) fn new(register: &mut Register) -> Result<Self> {
        Ok(Self {
            held: register.gauges(
                "broker_held",
                Unit::Flag,
                "1 while this process looks after the broker",
                &BROKER,
            )?,
            connected: register.gauges(
                "broker_connected",
                Unit::Flag,
                "1 while the broker's holder is connected to it and subscribed",
                &BROKER,
            )?,
            claims_connected: register.gauges(
                "broker_claims_connected",
                Unit::Flag,
                "1 while the broker's holder is connected to its listener for claims",
                &BROKER,
            )?,
            waiting: register.gauges(
                "broker_messages_waiting",
                Unit::Count,
                "Messages of devices that were read from the broker and are not answered yet",
                &BROKER,
            )?,
            door_current: register.gauges(
                "door_current",
                Unit::Flag,
                "1 while every node of the broker goes by the CRLs published last, as far as it says so",
                &BROKER,
            )?,
            not_before: register.gauges(
                "broker_certificate_not_before_timestamp_seconds",
                Unit::UnixSeconds,
                "When the certificate began that the controller uses at the broker, or the broker itself",
                &CERTIFICATE,
            )?,
            not_after: register.gauges(
                "broker_certificate_not_after_timestamp_seconds",
                Unit::UnixSeconds,
                "When the certificate ends that the controller uses at the broker, or the broker itself",
                &CERTIFICATE,
            )?,
            messages: register.counters(
                "messages_total",
                "Messages of devices, by type and outcome: ok, or the code of a refusal",
                &["type", "outcome"],
            )?,
            message_duration: register.durations(
                "message_duration_seconds",
                "From a device's message to its answer",
                &[
                    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                ],
            )?,
            crl_load_duration: register.durations(
                "crl_load_duration_seconds",
                "From a CRL's publication to its being loaded by a node of a broker",
                &[0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0],
            )?,
            door_errors: register.counters(
                "door_errors_total",
                "Calls of brokers' adapters that failed: the door could not be told or asked",
                &["adapter", "category"],
            )?,
            sessions_closed: register.counter(
                "sessions_closed_total",
                "Live sessions of revoked devices that were closed for good",
            )?,
        })
    }

    /// Counts a message that waits, for as long as this lives.
    pub fn waits(&self, broker: &BrokerId) -> Waits {
        let gauge = self.waiting.with_label_values(&[broker.as_str()]);
        gauge.inc();
        Waits(gauge)
    }

    /// Nobody keeps a connection to this broker any more.
    pub fn forget_links(&self, broker: &BrokerId) {
        for metric in [&self.connected, &self.claims_connected, &self.waiting] {
            // Not there is as good.
            let _ = metric.remove_label_values(&[broker.as_str()]);
        }
    }

    /// Shows the validity of a certificate of a Broker object (Unix seconds); `purpose` is `client`, `control` or `server`.
    pub fn show_certificate(&self, object: &ObjectRef, purpose: &str, (not_before, not_after): (i64, i64)) {
        let labels = [object.namespace.as_str(), object.name.as_str(), purpose];
        self.not_before.with_label_values(&labels).set(not_before);
        self.not_after.with_label_values(&labels).set(not_after);
    }

    /// A Broker object is gone.
    pub fn forget(&self, object: &ObjectRef) {
        let with = [("namespace", object.namespace.as_str()), ("name", object.name.as_str())];
        for metric in [&self.not_before, &self.not_after] {
            forget(metric, &with);
        }
    }
}

/// A message that waits.
pub struct Waits(IntGauge);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}
