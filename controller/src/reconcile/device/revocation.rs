//! `spec.revocation`: taken over before what else the object declares, so that a permit that was given before is void and one given
//! with it counts.

use std::sync::Arc;

use certwave_core::model::{Device, Millis, ObjectRef};
use certwave_core::revocation::{Holder, Reason, Standing};
use certwave_crds::{DeviceCertificate, RevocationReason};
use certwave_ledger::{Act, Declaration, Declared, DeclaredRevocation, LedgerError, Marked};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Intake, persist};
use certwave_protocol::ids::DeviceId;

use crate::reconcile::author;
use crate::reconcile::error::{Error, Result};
use crate::reconcile::projection::{REVOCATION_FAULT, Show};
use crate::reconcile::status::Verdict;
use crate::reconcile::time::{now_ms, time_ms};
use crate::reconcile::views::Key;

/// Marks of a device that are looked at.
const MARKS: u32 = 64;
/// How far `since` may lie ahead: clocks differ.
const AHEAD: Millis = 5 * 60 * 1000;

/// What an object says of its revocation, with who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    wanted: Option<DeclaredRevocation>,
    who: String,
    /// What of it cannot be carried out, in any case.
    fault: Option<Verdict>,
}

impl Said {
    /// As the object has it at `now`.
    pub(super) fn of(object: &DeviceCertificate, now: Millis) -> Self {
        let (mut who, when) = author::last(&object.metadata, &["f:spec", "f:revocation"]);
        let (wanted, fault) = match &object.spec.revocation {
            None => {
                // Nobody owns a field that is gone: whoever wrote the spec last has most likely taken it out.
                (who, _) = author::last(&object.metadata, &["f:spec"]);
                (None, None)
            }
            Some(revocation) => {
                let (invalid_since, fault) = invalid_since(revocation.since.as_ref(), now);
                let declared = DeclaredRevocation {
                    act: act(revocation.hold, revocation.reason, invalid_since, Holder::Person),
                    serial: revocation.serial.clone(),
                    requested_at: when.unwrap_or(now).min(now),
                };
                (Some(declared), fault)
            }
        };
        Self { wanted, who, fault }
    }
}

/// Revoke, or hold.
pub(in crate::reconcile) fn act(
    hold: bool,
    reason: Option<RevocationReason>,
    invalid_since: Option<i64>,
    holder: Holder,
) -> Act {
    if hold {
        return Act::Hold(holder);
    }
    Act::Revoke {
        reason: self::reason(reason.unwrap_or_default()),
        invalid_since,
    }
}

/// A reason as it is declared and shown, as the ledger has it.
pub(in crate::reconcile) const fn reason(reason: RevocationReason) -> Reason {
    match reason {
        RevocationReason::Unspecified => Reason::Unspecified,
        RevocationReason::KeyCompromise => Reason::KeyCompromise,
        RevocationReason::CaCompromise => Reason::CaCompromise,
        RevocationReason::AffiliationChanged => Reason::AffiliationChanged,
        RevocationReason::Superseded => Reason::Superseded,
        RevocationReason::CessationOfOperation => Reason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => Reason::PrivilegeWithdrawn,
    }
}

/// `since` as CRLs tell it. A mistyped one must not keep a stolen device in: then the device is revoked without it.
pub(in crate::reconcile) fn invalid_since(since: Option<&Time>, now: Millis) -> (Option<i64>, Option<Verdict>) {
    let Some(since) = since else {
        return (None, None);
    };
    let since = since.0;
    if since.as_millisecond() <= now.saturating_add(AHEAD) {
        return (Some(since.as_second()), None);
    }
    let message = format!("since ({since}) has not come yet; the revocation stands without it");
    (None, Some(Verdict::yes("SinceInFuture", message)))
}

impl Intake {
    /// Takes over what the object of a declaration says of its revocation. An object that declares another object's device
    /// revokes nothing.
    pub(super) async fn take_revocation(&mut self, declaration: &Declaration, said: &Said) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (ledger, epoch) = (&shared.ledger, shared.epoch);
        let object = &declaration.object;
        let known = persist(&shared, || ledger.device_by_object(object)).await?;
        if known.is_none_or(|device| device.id != declaration.identity) {
            // Its permit comes after the revocation, or that would void it.
            let bare = vec![Declaration {
                reenrol: None,
                ..declaration.clone()
            }];
            let answers = persist(&shared, || ledger.declare(epoch, now_ms(), bare.clone())).await?;
            if matches!(
                answers.first(),
                None | Some(Declared::Duplicate { .. } | Declared::Elsewhere { .. })
            ) {
                return Ok(());
            }
        }
        let device = &declaration.identity.device;
        let mut fault = self.declare_revocation(object, device, said).await?;
        if let (None, Some(wanted)) = (&fault, &said.wanted) {
            let identity = &declaration.identity;
            let marks = persist(&shared, || ledger.marked(identity, MARKS)).await?;
            fault = another_reason(wanted, &marks);
        }
        self.show_fault(object, fault.or_else(|| said.fault.clone())).await;
        let _ = self.show.send(Show::Looked(object.clone())).await;
        Ok(())
    }

    /// The same for an object whose fleet is not ready, if the ledger knows its device.
    pub(super) async fn revoke_known(&mut self, object: &ObjectRef, device: &DeviceId, said: &Said) -> Result<()> {
        let known = persist(&self.shared, || self.shared.ledger.device_by_object(object)).await?;
        if known.is_some_and(|known| known.id.device == *device) {
            // What cannot be carried out is told when the fleet is ready.
            self.declare_revocation(object, device, said).await?;
            if said.wanted.is_none() {
                self.show_fault(object, None).await;
            }
        }
        Ok(())
    }

    /// The object says nothing of a revocation any more, and did when nobody watched.
    pub(super) async fn take_back(&mut self, object: &ObjectRef, device: &DeviceId) -> Result<()> {
        let api = self.shared.api::<DeviceCertificate>(&object.namespace);
        let found = persist(&self.shared, || api.get_opt(&object.name)).await?;
        // What has happened to it since it was listed the watch tells.
        if let Some(found) = found.filter(|found| found.spec.revocation.is_none()) {
            self.declare_revocation(object, device, &Said::of(&found, now_ms()))
                .await?;
            self.show_fault(object, None).await;
        }
        Ok(())
    }

    /// Has people see what cannot be carried out, or that nothing is left of that.
    async fn show_fault(&self, object: &ObjectRef, fault: Option<Verdict>) {
        let (object, kind) = (object.clone(), REVOCATION_FAULT);
        let shown = match fault {
            Some(verdict) => Show::Aspect { object, kind, verdict },
            None => Show::Settled { object, kind },
        };
        // The projection lives as long as this does.
        let _ = self.show.send(shown).await;
    }

    /// Answers what of it cannot be carried out.
    async fn declare_revocation(
        &mut self,
        object: &ObjectRef,
        device: &DeviceId,
        said: &Said,
    ) -> Result<Option<Verdict>> {
        let key = (Key::of(object), device.clone());
        if said.wanted.is_some() {
            self.revoking.insert(key);
        } else {
            self.revoking.remove(&key);
        }
        let (ledger, epoch) = (&self.shared.ledger, self.shared.epoch);
        let answer = persist(&self.shared, || async {
            let answer = ledger
                .declare_revocation(epoch, now_ms(), object, said.wanted.clone(), &said.who)
                .await;
            match answer {
                Ok(changed) => Ok(Ok(changed)),
                Err(LedgerError::NotFound(_)) => Ok(Err(())),
                Err(error) => Err(Error::from(error)),
            }
        });
        let Ok(changed) = answer.await? else {
            let known = persist(&self.shared, || ledger.device_by_object(object)).await?;
            return Ok(known.map(|device| unknown_serial(said, &device)));
        };
        if !changed.is_empty() {
            tracing::info!(
                namespace = object.namespace,
                name = object.name,
                certificates = changed.len(),
                who = said.who,
                "a revocation was taken over"
            );
            self.shared.registry.standing_moved();
        }
        Ok(None)
    }
}

/// The serial number that is named is none of the device's.
fn unknown_serial(said: &Said, device: &Device) -> Verdict {
    let serial = said.wanted.as_ref().and_then(|wanted| wanted.serial.as_deref());
    let held = [
        ("current", &device.current),
        ("previous", &device.previous),
        ("pending", &device.pending),
    ];
    let held: Vec<_> = held
        .into_iter()
        .filter_map(|(slot, credential)| Some(format!("{} ({slot})", credential.as_ref()?.serial)))
        .collect();
    let message = format!(
        "spec.revocation.serial: the device never had a certificate {}; nothing was revoked by it. It has {}",
        serial.unwrap_or("without a number"),
        if held.is_empty() {
            "none".to_owned()
        } else {
            held.join(", ")
        }
    );
    Verdict::yes("UnknownSerial", message)
}

/// What was revoked before keeps the reason that was given then: CRLs and OCSP have told it.
fn another_reason(wanted: &DeclaredRevocation, marks: &[Marked]) -> Option<Verdict> {
    let Act::Revoke { reason: now, .. } = wanted.act else {
        return None;
    };
    let named = |mark: &&Marked| wanted.serial.as_ref().is_none_or(|serial| *serial == mark.key.serial);
    let revoked = marks.iter().filter(named).filter(|mark| mark.by_person());
    let revoked: Vec<_> = revoked
        .filter_map(|mark| match mark.standing {
            Standing::Revoked { reason, .. } => Some((mark.recorded_at, reason)),
            _ => None,
        })
        .collect();
    let last = revoked.iter().map(|(at, _)| *at).max()?;
    let mut of_last = revoked
        .into_iter()
        .filter(|(at, _)| *at == last)
        .map(|(_, reason)| reason);
    let before = of_last.next()?;
    if before == now || of_last.any(|reason| reason == now) {
        return None;
    }
    let message = format!(
        "spec.revocation.reason: it was revoked as {before:?} at {}; a reason does not change, and CRLs and OCSP go on to say the \
         first one",
        time_ms(last).0
    );
    Some(Verdict::yes("AlreadyRevoked", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_ledger::{Author, SerialKey};

    use super::*;

    const NOW: Millis = 1_790_000_000_000;

    fn object(spec: &serde_json::Value) -> DeviceCertificate {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate",
            "metadata": {"name": "pump-1", "managedFields": [
                {"manager": "alice", "operation": "Apply", "time": "2026-01-02T00:00:00Z",
                 "fieldsV1": {"f:spec": {"f:revocation": {"f:reason": {}}}}},
            ]},
            "spec": {"fleetRef": {"name": "pumps"}, "deviceId": "pump-1", "revocation": spec},
        }))
        .unwrap()
    }

    #[test]
    fn a_revocation_is_taken_over_with_who_asked_for_it_and_when() {
        let said = Said::of(
            &object(&serde_json::json!({"reason": "keyCompromise", "since": "2026-01-01T00:00:00Z"})),
            NOW,
        );
        let wanted = said.wanted.unwrap();
        let (reason, invalid_since) = (Reason::KeyCompromise, Some(1_767_225_600));
        assert_eq!(wanted.act, Act::Revoke { reason, invalid_since });
        assert_eq!((said.who.as_str(), wanted.requested_at), ("alice", 1_767_312_000_000));
        assert_eq!(said.fault, None);
        let held = Said::of(&object(&serde_json::json!({"hold": true})), NOW)
            .wanted
            .unwrap();
        assert_eq!(held.act, Act::Hold(Holder::Person));
        assert_eq!(Said::of(&object(&serde_json::Value::Null), NOW).wanted, None);
    }

    #[test]
    fn a_hold_is_taken_out_by_whoever_wrote_the_spec_last() {
        let mut object = object(&serde_json::Value::Null);
        object.metadata.managed_fields = Some(
            [("alice", "2026-01-02T00:00:00Z"), ("bob", "2026-01-03T00:00:00Z")]
                .into_iter()
                .map(|(manager, time)| {
                    serde_json::from_value(serde_json::json!({
                        "manager": manager, "operation": "Update", "time": time, "fieldsV1": {"f:spec": {"f:deviceId": {}}},
                    }))
                    .unwrap()
                })
                .collect(),
        );
        assert_eq!(Said::of(&object, NOW).who, "bob");
    }

    #[test]
    fn another_reason_for_what_is_revoked_is_told_to_be_ignored() {
        let revoked = |reason, author, at: Millis| Marked {
            key: SerialKey {
                issuer: "aa".into(),
                serial: "01".into(),
            },
            fingerprint: None,
            identity: None,
            partition: "2027-01".into(),
            not_after: NOW / 1000,
            standing: Standing::Revoked {
                since: at / 1000,
                reason,
            },
            holders: vec![],
            author,
            change: 1,
            requested_at: at,
            recorded_at: at,
            crl: None,
            shut_at: None,
            closed_at: None,
        };
        let wanted = |spec| Said::of(&object(&spec), NOW).wanted.unwrap();
        let corrected = wanted(serde_json::json!({"reason": "keyCompromise"}));
        let hasty = revoked(Reason::Unspecified, Author::Person, NOW);
        let verdict = another_reason(&corrected, std::slice::from_ref(&hasty)).unwrap();
        assert_eq!(verdict.reason, "AlreadyRevoked");
        assert!(
            verdict.message.contains("revoked as Unspecified"),
            "{}",
            verdict.message
        );
        assert_eq!(another_reason(&wanted(serde_json::json!({})), &[hasty]), None);
        let retired = revoked(Reason::Superseded, Author::Controller, NOW);
        assert_eq!(another_reason(&corrected, &[retired]), None, "a rotation's");
        let again = [
            revoked(Reason::KeyCompromise, Author::Person, NOW),
            revoked(Reason::Unspecified, Author::Person, NOW - 10),
        ];
        assert_eq!(another_reason(&corrected, &again), None, "the last word counts");
    }

    #[test]
    fn a_since_that_has_not_come_yet_keeps_nobody_in() {
        let said = Said::of(&object(&serde_json::json!({"since": "2100-01-01T00:00:00Z"})), NOW);
        let (reason, invalid_since) = (Reason::Unspecified, None);
        assert_eq!(said.wanted.unwrap().act, Act::Revoke { reason, invalid_since });
        assert_eq!(said.fault.unwrap().reason, "SinceInFuture");
    }
}
