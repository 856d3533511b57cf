//! What is counted of OCSP.

use std::time::Duration;

use certwave_ledger::LedgerError;
use certwave_pki::ocsp::Failure;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Reply;
use crate::metrics::{Register, Unit};

/// By which method of HTTP a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

impl Method {
    const ALL: [Self; 2] = [Self::Get, Self::Post];

    const fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

/// What became of a request, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered,
    Refused,
    Failed(Failure),
}

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Answered,
        Self::Refused,
        Self::Failed(Failure::MalformedRequest),
        Self::Failed(Failure::InternalError),
        Self::Failed(Failure::TryLater),
        Self::Failed(Failure::Unauthorized),
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed(failure) => failure.category(),
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::Refused => 1,
            Self::Failed(Failure::MalformedRequest) => 2,
            Self::Failed(Failure::InternalError) => 3,
            Self::Failed(Failure::TryLater) => 4,
            Self::Failed(Failure::Unauthorized) => 5,
        }
    }
}

/// The responder's metrics. Label values are found once, as each answer takes microseconds.
pub struct OcspMetrics {
    requests: [[IntCounter; 6]; 2],
    duration: Histogram,
    /// Answers that were there already.
    pub(super) hits: IntCounter,
    /// Answers that were signed: on request, and ahead of any.
    pub(super) signed: IntCounter,
    pub(super) signed_ahead: IntCounter,
    /// Failed operations on the ledger, by category.
    pub(super) ledger_errors: IntCounterVec,
    /// When the ledger was heard last, Unix seconds.
    pub(super) ledger_heard: IntGauge,
    /// Validity of answers, seconds.
    pub(super) answer_validity: IntGauge,
    signer_not_before: IntGaugeVec,
    signer_not_after: IntGaugeVec,
}

impl OcspMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When another metric has the same name: a fault of the program.
    pub fn new(register: &mut Register) -> prometheus::Result<Self> {
        let requests = register.counters(
            "ocsp_requests_total",
            "OCSP requests by method and outcome",
            &["method", "outcome"],
        )?;
        let answers = register.counters(
            "ocsp_answers_total",
            "OCSP answers by origin: cached, signed on request, or signed ahead of requests",
            &["origin"],
        )?;
        let ledger_errors = register.counters(
            "ocsp_ledger_errors_total",
            "Reads of the ledger that failed, for OCSP",
            &["category"],
        )?;
        for category in LedgerError::OUTAGES.into_iter().chain(["timeout"]) {
            ledger_errors.with_label_values(&[category]);
        }
        let signer = |register: &mut Register, name, help| register.gauges(name, Unit::UnixSeconds, help, &["issuer"]);
        let counter = |method: Method, outcome: Outcome| requests.with_label_values(&[method.label(), outcome.label()]);
        Ok(Self {
            requests: Method::ALL.map(|method| Outcome::ALL.map(|outcome| counter(method, outcome))),
            duration: register.durations(
                "ocsp_request_duration_seconds",
                "From an OCSP request to its answer",
                &[
                    0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0,
                ],
            )?,
            hits: answers.with_label_values(&["cached"]),
            signed: answers.with_label_values(&["signed"]),
            signed_ahead: answers.with_label_values(&["ahead"]),
            ledger_errors,
            ledger_heard: register.gauge(
                "ocsp_ledger_heard_timestamp_seconds",
                Unit::UnixSeconds,
                "When the ledger last said what has changed; answers made before are served until they end",
            )?,
            answer_validity: register.gauge(
                "ocsp_answer_validity_seconds",
                Unit::Seconds,
                "From thisUpdate to nextUpdate of an answer",
            )?,
            signer_not_before: signer(
                register,
                "ocsp_signer_not_before_timestamp_seconds",
                "When the certificate began that signs a CA's OCSP answers, by the CA's key id",
            )?,
            signer_not_after: signer(
                register,
                "ocsp_signer_not_after_timestamp_seconds",
                "When the certificate ends that signs a CA's OCSP answers, by the CA's key id",
            )?,
        })
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, method: Method, reply: &Reply, took: Duration) {
        let outcome = match reply {
            Reply::Failure(failure) => Outcome::Failed(*failure),
            Reply::Once(_) | Reply::Reusable(_) => Outcome::Answered,
        };
        self.requests[method as usize][outcome.place()].inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a request that HTTP alone refused: too long, too slow, of another type.
    pub(super) fn refused(&self, method: Method) {
        self.requests[method as usize][Outcome::Refused.place()].inc();
    }

    /// Shows the validity of a CA's signer, Unix seconds; `None`: there is none any more.
    pub(super) fn show_signer(&self, issuer: &str, validity: Option<(i64, i64)>) {
        if let Some((not_before, not_after)) = validity {
            self.signer_not_before.with_label_values(&[issuer]).set(not_before);
            self.signer_not_after.with_label_values(&[issuer]).set(not_after);
            return;
        }
        for metric in [&self.signer_not_before, &self.signer_not_after] {
            // Not there is as good.
            let _ = metric.remove_label_values(&[issuer]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_counter() {
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.place(), place);
        }
    }
}
