//! What is shown of a device. Pure.

use std::fmt::Write as _;

use certwave_crds::{CertificateStatus, DeviceCertificate, DeviceCertificateStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::command::revoke::steps;
use crate::history::Line;
use crate::output::{self, Show, Table};
use crate::time::{age, at, exact, from_now};

/// Something that happened to the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Happened {
    /// When.
    at: Timestamp,
    /// `ledger` (for good) or `event`.
    source: &'static str,
    who: String,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Happened {
    pub(super) fn of_line(line: &Line) -> Option<Self> {
        Some(Self {
            at: Timestamp::from_millisecond(line.at).ok()?,
            source: "ledger",
            who: line.who.clone(),
            what: line.what.clone(),
            job: line.job.clone(),
            detail: line.detail.clone(),
        })
    }

    pub(super) fn of_event(event: &Event) -> Option<Self> {
        let micro = event.event_time.as_ref().map(|time| time.0);
        let last = event
            .series
            .as_ref()
            .and_then(|series| series.last_observed_time.as_ref())
            .map(|time| time.0);
        let old = event
            .last_timestamp
            .as_ref()
            .or(event.first_timestamp.as_ref())
            .map(|time| time.0);
        let who = event
            .reporting_component
            .clone()
            .or_else(|| event.source.clone()?.component);
        Some(Self {
            at: last.or(micro).or(old)?,
            source: "event",
            who: who
                .filter(|who| !who.is_empty())
                .unwrap_or_else(|| "controller".to_owned()),
            what: event.reason.clone().unwrap_or_default(),
            job: None,
            detail: event.message.clone(),
        })
    }
}

/// All that is known of a device.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    device: DeviceCertificate,
    /// The last first.
    history: Vec<Happened>,
    /// Why what the ledger has is not among it.
    #[serde(rename = "ledgerNotRead", skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    #[serde(skip)]
    now: Timestamp,
}

impl Report {
    pub(super) fn of(
        mut device: DeviceCertificate,
        mut history: Vec<Happened>,
        missing: Option<String>,
        now: Timestamp,
    ) -> Self {
        device.metadata.managed_fields = None;
        // The ledger's lines come the last first; of the same time that order stays.
        history.sort_by_key(|happened| std::cmp::Reverse(happened.at));
        Self {
            device,
            history,
            missing,
            now,
        }
    }

    fn facts(&self, status: &DeviceCertificateStatus) -> String {
        let spec = &self.device.spec;
        let labels: Vec<_> = spec
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut lines = vec![
            ("Device", spec.device_id.clone()),
            (
                "Object",
                format!(
                    "{}/{}",
                    self.device.namespace().unwrap_or_default(),
                    self.device.name_any()
                ),
            ),
            ("Fleet", spec.fleet_ref.name.clone()),
            (
                "Labels",
                if labels.is_empty() {
                    "-".to_owned()
                } else {
                    labels.join(",")
                },
            ),
            (
                "State",
                status
                    .state
                    .map_or_else(|| "-".to_owned(), |state| format!("{state:?}")),
            ),
        ];
        if status.last_seen.is_some() {
            // The status is written when something changes, so the device may have been heard since.
            lines.push((
                "Heard",
                format!("{} ago or later", age(status.last_seen.as_ref(), self.now)),
            ));
        }
        if let Some(job) = &status.job {
            let why = [job.code.as_deref(), job.message.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": ");
            let why = if why.is_empty() { why } else { format!(" ({why})") };
            lines.push((
                "Last job",
                format!(
                    "{:?} {:?}{why}, attempt {}, {} ago, {}",
                    job.kind,
                    job.state,
                    job.attempt,
                    age(job.since.as_ref(), self.now),
                    job.id
                ),
            ));
        }
        if let Some(reenrol) = &spec.reenrol {
            lines.push(("Permit", reenrol.permit.clone()));
        }
        lines.into_iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{:<10} {}", format!("{name}:"), plain(&value));
            text
        })
    }

    fn certificates(&self, status: &DeviceCertificateStatus) -> String {
        let certificates = &status.certificates;
        let all = [
            ("current", &certificates.current),
            ("previous", &certificates.previous),
            ("on trial", &certificates.pending),
        ];
        let mut table = Table::new(["CERTIFICATE", "SERIAL", "FROM", "UNTIL", "ENDS", "STANDING", "ISSUER"]);
        for (slot, certificate) in all {
            if let Some(c) = certificate {
                table.row(self.certificate(slot, c));
            }
        }
        if table.is_empty() {
            "no certificate yet\n".to_owned()
        } else {
            table.text()
        }
    }

    fn certificate(&self, slot: &str, c: &CertificateStatus) -> [String; 7] {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        [
            slot.to_owned(),
            text(&c.serial),
            exact(c.not_before.as_ref()),
            exact(c.not_after.as_ref()),
            from_now(c.not_after.as_ref(), self.now),
            c.standing
                .map_or_else(|| "good".to_owned(), |standing| format!("{standing:?}")),
            text(&c.issuer),
        ]
    }
}

impl Show for Report {
    fn table(&self, wide: bool) -> String {
        let status = self.device.status.clone().unwrap_or_default();
        let mut text = format!("{}\n{}", self.facts(&status), self.certificates(&status));
        if let Some(revocation) = &status.revocation {
            let what = if revocation.hold { "On hold" } else { "Revoked" };
            let _ = writeln!(text, "\n{what}:");
            for (step, time) in steps(revocation) {
                let when = time.as_ref().map_or_else(|| "not yet".to_owned(), |time| at(time.0));
                let _ = writeln!(text, "  {step:<38} {when}");
            }
        }
        let mut conditions = Table::new(["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
        for c in &status.conditions {
            let since = format!("{} ago", age(Some(&c.last_transition_time), self.now));
            conditions.row([
                c.type_.clone(),
                c.status.clone(),
                c.reason.clone(),
                since,
                c.message.clone(),
            ]);
        }
        if !conditions.is_empty() {
            let _ = write!(text, "\n{}", conditions.text());
        }
        let _ = write!(text, "\n{}", self.happened(wide));
        text
    }

    fn names(&self) -> Vec<String> {
        vec![output::name_of("DeviceCertificate", &self.device.name_any())]
    }
}

impl Report {
    fn happened(&self, wide: bool) -> String {
        if self.history.is_empty() {
            return "nothing is known to have happened yet\n".to_owned();
        }
        let mut head = vec!["TIME", "FROM", "WHO", "WHAT"];
        if wide {
            head.push("JOB");
        }
        head.push("DETAIL");
        let mut table = Table::new(head);
        for h in &self.history {
            let mut row = vec![at(h.at), h.source.to_owned(), h.who.clone(), h.what.clone()];
            if wide {
                row.push(h.job.clone().unwrap_or_default());
            }
            row.push(h.detail.clone().unwrap_or_default());
            table.row(row);
        }
        table.text()
    }
}

/// What comes from objects does not speak to the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{from_value, json};

    use super::*;

    fn report() -> Report {
        let device = from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate", "metadata": {"name": "pump-1", "namespace": "plant"},
            "spec": {"fleetRef": {"name": "pumps"}, "deviceId": "Pump_1", "labels": {"site": "north"}},
            "status": {"state": "Revoked", "certificates": {"current": {"serial": "ab12", "notAfter": "2026-12-21T12:00:00Z", "standing": "Revoked"}},
                "revocation": {"hold": false, "ledgerAt": "2026-11-21T11:00:00Z"}},
        }));
        let line: Line =
            from_value(json!({"at": 1_795_258_800_000_i64, "who": "device", "what": "job-confirmed", "job": "j-1"}))
                .unwrap();
        let event: Event = from_value(
            json!({"metadata": {}, "involvedObject": {}, "reason": "Refused", "message": "no\nroute",
            "reportingComponent": "certwave", "eventTime": "2026-11-21T11:30:00.000000Z"}),
        )
        .unwrap();
        let history = vec![Happened::of_line(&line).unwrap(), Happened::of_event(&event).unwrap()];
        Report::of(device.unwrap(), history, None, "2026-11-21T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn certificates_revocation_and_history_are_told_the_last_first() {
        let text = report().table(true);
        assert!(text.contains("Device:    Pump_1") && text.contains("ab12"), "{text}");
        assert!(
            text.contains("in a CRL                               not yet"),
            "{text}"
        );
        let happened: Vec<_> = text
            .lines()
            .filter(|line| line.contains("event") || line.contains("ledger "))
            .collect();
        assert!(happened.last().unwrap().contains("job-confirmed"), "{text}");
        assert!(text.contains("no route"), "a message is one line: {text}");
    }

    #[test]
    fn programs_get_the_object_and_the_history() {
        let value = serde_json::to_value(report()).unwrap();
        assert_eq!(value["device"]["spec"]["deviceId"], "Pump_1");
        assert_eq!(value["history"].as_array().unwrap().len(), 2);
        assert!(value.get("ledgerNotRead").is_none());
    }
}
