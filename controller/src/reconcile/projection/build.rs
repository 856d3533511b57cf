//! A device's status, from what the ledger has. Pure.

use base64::Engine as _;
use certwave_core::model::{Credential, Device, DeviceState, Job, JobKind, JobState};
use certwave_core::revocation::Bar;
use certwave_crds::{
    CertificateStatus, DeviceCertificateStatus, DeviceCertificates, DeviceState as ShownState, JobKind as ShownKind,
    JobState as ShownJobState, JobStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::aspects::Aspects;
use super::revoked::{self, Heard};
use crate::reconcile::status::{Verdict, condition, shorten};
use crate::reconcile::time::{time, time_ms};
use crate::reconcile::views::{View, digest};

/// The status of a device. `now` in Unix milliseconds.
pub(super) fn status(
    device: &Device,
    view: &View,
    aspects: Option<&Aspects>,
    heard: Option<&Heard>,
    now: i64,
) -> DeviceCertificateStatus {
    let state = state(device, now);
    let generation = Some(i64::from(view.generation));
    let mut conditions = vec![ready(&verdict(device, state), view, now / 1000)];
    if let Some(verdict) = heard.and_then(|heard| revoked::verdict(device, heard)) {
        // It holds, or does not any more, since its certificates were marked.
        let marked = heard
            .and_then(|heard| heard.last.first())
            .map(|mark| mark.recorded_at / 1000);
        let since = marked.unwrap_or(now / 1000);
        conditions.push(condition("Revoked", &verdict, generation, &[], since));
    }
    let certificate = |credential: &Credential| CertificateStatus {
        standing: revoked::standing(credential, heard),
        ..certificate(credential)
    };
    for (kind, aspect) in aspects.map(Aspects::conditions).unwrap_or_default() {
        conditions.push(condition(kind, &aspect.verdict, generation, &[], aspect.since));
    }
    DeviceCertificateStatus {
        state: Some(state),
        certificates: DeviceCertificates {
            current: device.current.as_ref().map(certificate),
            previous: device.previous.as_ref().map(certificate),
            pending: device.pending.as_ref().map(certificate),
        },
        job: device.job.as_ref().map(job),
        revocation: heard.and_then(revoked::status),
        last_seen: device.last_seen.map(time_ms),
        observed_generation: generation,
        conditions,
    }
}

/// The status of an object that cannot have its device.
pub(super) fn refused(verdict: &Verdict, view: &View, now: i64) -> DeviceCertificateStatus {
    DeviceCertificateStatus {
        state: Some(ShownState::Refused),
        observed_generation: Some(i64::from(view.generation)),
        conditions: vec![ready(verdict, view, now)],
        ..DeviceCertificateStatus::default()
    }
}

/// `True` and `False` as a condition has them.
pub(super) fn truth(status: &str) -> Option<bool> {
    match status {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn ready(verdict: &Verdict, view: &View, now: i64) -> Condition {
    let since = if view.ready == verdict.holds && view.since != 0 {
        i64::from(view.since)
    } else {
        now
    };
    condition("Ready", verdict, Some(i64::from(view.generation)), &[], since)
}

/// A short hash of a status without what changes all the time: when the device was last heard, and since when conditions
/// hold.
pub(in crate::reconcile) fn digest_of(status: &DeviceCertificateStatus) -> u64 {
    let mut stable = status.clone();
    stable.last_seen = None;
    for condition in &mut stable.conditions {
        condition.last_transition_time = time(0);
    }
    serde_json::to_vec(&stable).map_or(0, |bytes| digest(&bytes).max(1))
}

fn state(device: &Device, now: i64) -> ShownState {
    match device.bar {
        Some(Bar::Held) => return ShownState::Held,
        Some(Bar::Revoked) => return ShownState::Revoked,
        None => {}
    }
    if device.job.as_ref().is_some_and(|job| job.state == JobState::Lost) {
        return ShownState::Lost;
    }
    match device.state(now) {
        DeviceState::Declared => ShownState::Declared,
        DeviceState::Enrolling => ShownState::Enrolling,
        DeviceState::Active => ShownState::Active,
        DeviceState::Rotating => ShownState::Rotating,
        DeviceState::Failed => ShownState::Failed,
        DeviceState::Expired => ShownState::Expired,
    }
}

fn verdict(device: &Device, state: ShownState) -> Verdict {
    let failure = || {
        let job = device.job.as_ref();
        let code = job
            .and_then(|job| job.code)
            .map_or("other", certwave_protocol::code::Code::as_str);
        let detail = job.and_then(|job| job.detail.as_deref()).unwrap_or("no details");
        format!("{code}: {detail}")
    };
    match state {
        ShownState::Declared => {
            let message = match device.job.as_ref().filter(|job| job.state.went_wrong()) {
                Some(_) => format!(
                    "the last enrolment failed: {}; the device may try again with its claim",
                    failure()
                ),
                None => "no certificate yet: make a claim (certwave claim create) and give it to the device".to_owned(),
            };
            Verdict::no("NotEnrolled", message)
        }
        ShownState::Enrolling => Verdict::no("Enrolling", "the first certificate awaits its proof"),
        ShownState::Active | ShownState::Rotating => {
            Verdict::yes("CertificateValid", "the device holds a certificate that works")
        }
        ShownState::Failed => Verdict::yes(
            "LastJobFailed",
            format!("the device keeps its certificate; its last job failed: {}", failure()),
        ),
        ShownState::Lost => Verdict::unknown(
            "Lost",
            format!(
                "the device has been silent since its job timed out; look at it on site ({})",
                failure()
            ),
        ),
        ShownState::Expired => Verdict::no(
            "Expired",
            "the certificate has expired; permit another enrolment with spec.reenrol and make a claim for the device",
        ),
        ShownState::Held => Verdict::no("OnHold", "a person has put it on hold; see the condition Revoked"),
        ShownState::Revoked => Verdict::no("Revoked", "a person has revoked it; see the condition Revoked"),
        ShownState::Refused => Verdict::no("Refused", "see the other conditions"),
    }
}

fn certificate(credential: &Credential) -> CertificateStatus {
    CertificateStatus {
        serial: Some(credential.serial.clone()),
        sha256: Some(credential.fingerprint.to_string()),
        not_before: Some(time(credential.not_before)),
        not_after: Some(time(credential.not_after)),
        issuer: Some(credential.issuer.clone()),
        public_key: Some(base64::engine::general_purpose::STANDARD.encode(&credential.public_key)),
        standing: None,
    }
}

fn job(job: &Job) -> JobStatus {
    JobStatus {
        id: job.id.to_string(),
        kind: match job.kind {
            JobKind::Enrol => ShownKind::Enrol,
            JobKind::Rotate => ShownKind::Rotate,
            JobKind::Rollback => ShownKind::Rollback,
            JobKind::Trust(_) => ShownKind::Trust,
        },
        state: match job.state {
            JobState::Queued => ShownJobState::Queued,
            JobState::Sent => ShownJobState::Sent,
            JobState::Accepted => ShownJobState::Accepted,
            JobState::Issued => ShownJobState::Issued,
            JobState::Committing => ShownJobState::Committing,
            JobState::Confirmed => ShownJobState::Confirmed,
            JobState::Rejected => ShownJobState::Rejected,
            JobState::Failed => ShownJobState::Failed,
            JobState::TimedOut => ShownJobState::TimedOut,
            JobState::RolledBack => ShownJobState::RolledBack,
            JobState::Cancelled => ShownJobState::Cancelled,
            JobState::Lost => ShownJobState::Lost,
        },
        attempt: i32::try_from(job.attempt).unwrap_or(i32::MAX),
        code: job.code.map(|code| code.as_str().to_owned()),
        message: job.detail.as_deref().map(|detail| shorten(detail, 1024)),
        since: Some(time_ms(job.since)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::model::{Identity, ObjectRef};
    use certwave_protocol::ids::Fingerprint;

    use super::*;
    use crate::reconcile::projection::aspects::Aspect;

    const NOW: i64 = 1_790_000_000_000;

    fn device() -> Device {
        let id = Identity {
            broker: "b".parse().unwrap(),
            device: "pump-1".parse().unwrap(),
        };
        Device::declared(
            id,
            ObjectRef {
                namespace: "n".into(),
                name: "pump-1".into(),
            },
            "pumps".into(),
        )
    }

    fn enrolled(not_after: i64) -> Device {
        let credential = Credential {
            fingerprint: Fingerprint([1; 32]),
            spki: Fingerprint([2; 32]),
            serial: "40".into(),
            issuer: "aa".into(),
            not_before: 0,
            not_after,
            public_key: vec![],
        };
        Device {
            current: Some(credential),
            ..device()
        }
    }

    fn ready_of(status: &DeviceCertificateStatus) -> (&str, &str) {
        let ready = &status.conditions[0];
        (&ready.status, &ready.reason)
    }

    #[test]
    fn ready_means_that_the_device_holds_a_certificate_that_works() {
        let view = View::default();
        assert_eq!(
            ready_of(&status(&device(), &view, None, None, NOW)),
            ("False", "NotEnrolled")
        );
        assert_eq!(
            ready_of(&status(&enrolled(NOW / 1000 + 1), &view, None, None, NOW)),
            ("True", "CertificateValid")
        );
        assert_eq!(
            ready_of(&status(&enrolled(NOW / 1000), &view, None, None, NOW)),
            ("False", "Expired")
        );
    }

    #[test]
    fn being_heard_alone_changes_no_status() {
        let view = View::default();
        let before = enrolled(NOW / 1000 + 10);
        let after = Device {
            last_seen: Some(NOW),
            ..before.clone()
        };
        let digests = [before, after].map(|device| digest_of(&status(&device, &view, None, None, NOW)));
        assert_eq!(digests[0], digests[1]);
        let later = digest_of(&status(&enrolled(NOW / 1000 + 10), &view, None, None, NOW + 5000));
        assert_eq!(digests[0], later, "time alone changes nothing either");
    }

    #[test]
    fn the_digest_of_what_is_read_back_is_that_of_what_was_written() {
        let mut aspects = Aspects::default();
        aspects.set(
            "ClockSkew",
            Aspect {
                verdict: Verdict::yes("ClockSkew", "an hour"),
                since: 7,
            },
        );
        let written = status(
            &enrolled(NOW / 1000 + 10),
            &View {
                generation: 3,
                ..View::default()
            },
            Some(&aspects),
            None,
            NOW,
        );
        let read: DeviceCertificateStatus = serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
        assert_eq!(digest_of(&written), digest_of(&read));
    }

    #[test]
    fn the_transition_time_of_ready_stays_while_its_status_does() {
        let view = View {
            ready: Some(true),
            since: 1000,
            ..View::default()
        };
        let shown = status(&enrolled(NOW / 1000 + 10), &view, None, None, NOW);
        assert_eq!(shown.conditions[0].last_transition_time, time(1000));
        let turned = status(&enrolled(1), &view, None, None, NOW);
        assert_eq!(turned.conditions[0].last_transition_time, time(NOW / 1000));
    }
}
