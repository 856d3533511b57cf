//! Claims exchanged for a device's own first certificate.

use certwave_core::model::{Device, Identity};
use certwave_core::revocation::Bar;
use certwave_core::step::{self, Context, Enrolment};
use certwave_ledger::{ClaimUse, FleetKey, LedgerError};
use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::Unverified;
use certwave_protocol::ids::{ClaimName, Nonce};
use certwave_protocol::jws::VerifyingKey;
use certwave_protocol::message::{Body, Payload, Type};
use certwave_protocol::topic::User;

use super::Engine;
use super::act::With;
use super::inbox::{Refusal, addressed};
use super::link::Speaker;
use crate::clock::now;
use crate::notice::Notice;

const TRIES: usize = 8;

impl Engine {
    /// Answers one `enrol`, and lets people see a refusal.
    pub(super) async fn enrol(
        &self,
        speaker: &Speaker,
        claim: &ClaimName,
        bytes: &[u8],
        verified: &mut Option<Payload>,
    ) -> Result<(), Refusal> {
        let outcome = self.try_enrol(speaker, claim, bytes, verified).await;
        let label = match &outcome {
            Ok(label) => label,
            Err((code, _)) => code.as_str(),
        };
        self.metrics.enrolments.with_label_values(&[label]).inc();
        outcome.map(|_| ())
    }

    async fn try_enrol(
        &self,
        speaker: &Speaker,
        name: &ClaimName,
        bytes: &[u8],
        verified: &mut Option<Payload>,
    ) -> Result<&'static str, Refusal> {
        let envelope = Unverified::parse(bytes).map_err(|e| (e.code(), e.to_string()))?;
        addressed(speaker, Type::Enrol, envelope.claimed())?;
        let broker = &speaker.entry.id;
        let claim = self.ledger.claim(broker, name).await.map_err(|e| self.out(&e))?;
        let Some(claim) = claim else {
            return Err((Code::ClaimRefused, "no such claim".to_owned()));
        };
        let key = VerifyingKey::from_spki(&claim.record.public_key).map_err(|e| (Code::WrongKey, e.to_string()))?;
        let payload = &*verified.insert(envelope.verify(&key).map_err(|e| (e.code(), e.to_string()))?);
        let fleet = claim.record.fleet.clone();
        let device = self
            .declared(
                Identity {
                    broker: broker.clone(),
                    device: payload.device.clone(),
                },
                &fleet,
            )
            .await?;
        let seen = |(code, detail): Refusal| {
            // A fault of ours is no refusal: the device asks again and is served.
            if code == Code::TryLater {
                return (code, detail);
            }
            self.notify(Notice::EnrolmentRefused {
                object: device.as_ref().map(|d| d.object.clone()),
                fleet: Some(fleet.clone()),
                device: payload.device.clone(),
                code,
                detail: detail.clone(),
            });
            (code, detail)
        };
        if claim.record.suspended || claim.record.not_after <= now() {
            return Err(seen((
                Code::ClaimRefused,
                "the claim is suspended or past its end".to_owned(),
            )));
        }
        if claim
            .record
            .device
            .as_ref()
            .is_some_and(|bound| *bound != payload.device)
        {
            return Err(seen((
                Code::ClaimRefused,
                "the claim is bound to another device".to_owned(),
            )));
        }
        let Some(device) = device.as_ref() else {
            let why = "no such device is declared in the claim's fleet";
            return Err(seen(self.undeclared(why).await));
        };
        self.exchange(speaker, name, device.clone(), payload)
            .await
            .map_err(seen)
    }

    /// The device, if it is declared in this fleet at present.
    async fn declared(&self, identity: Identity, fleet: &FleetKey) -> Result<Option<Device>, Refusal> {
        let Some(device) = self.read(&identity).await? else {
            return Ok(None);
        };
        let declared = self
            .ledger
            .device_by_object(&device.object)
            .await
            .map_err(|e| self.out(&e))?;
        Ok(declared.filter(|d| d.id == identity && FleetKey::of(d) == *fleet))
    }

    async fn exchange(
        &self,
        speaker: &Speaker,
        claim: &ClaimName,
        mut device: Device,
        payload: &Payload,
    ) -> Result<&'static str, Refusal> {
        let Body::Enrol(enrol) = &payload.body else {
            return Err((Code::UnknownType, "not an enrolment".to_owned()));
        };
        let key = self.check_request(&device, &enrol.csr.0)?;
        for _ in 0..TRIES {
            match step::enrolment(&device, key) {
                Enrolment::Refused(code) => {
                    let why = match (code, device.bar) {
                        (Code::Revoked, Some(Bar::Held)) => "the device is on hold",
                        (Code::Revoked, _) => {
                            "the device is revoked; a reenrol permit given since opens enrolment again"
                        }
                        _ => "the device is enrolled; a reenrol permit opens enrolment again",
                    };
                    return Err((code, why.to_owned()));
                }
                Enrolment::Again => {
                    self.hand_out(speaker, claim, &device, payload).await?;
                    return Ok("again");
                }
                Enrolment::New => {}
            }
            let (id, nonce) = (uuid::Uuid::now_v7(), Nonce(rand::random()));
            let (credential, record) = self.issue_for(&device, &enrol.csr.0, Some(id)).await?;
            let policy = self.policy(&device);
            let ctx = Context {
                now: now(),
                epoch: self.epoch,
                policy: &policy,
            };
            let next = step::enrolled(&ctx, &device, id, nonce, claim.clone(), credential);
            let claim_use = ClaimUse {
                broker: device.id.broker.clone(),
                claim: claim.clone(),
                device: device.id.device.clone(),
                job: id,
                at: ctx.now,
            };
            let with = With {
                certificate: Some(record),
                claim_use: Some(claim_use),
            };
            match self.write(&device, next.clone(), with).await {
                Ok(()) => {
                    self.hand_out(speaker, claim, &next, payload).await?;
                    return Ok("issued");
                }
                Err(LedgerError::Conflict) => {}
                Err(LedgerError::KeyReused) => {
                    return Err((Code::KeyReused, "the key has been used before".to_owned()));
                }
                Err(LedgerError::ClaimExhausted | LedgerError::ClaimClosed) => {
                    return Err((Code::ClaimRefused, "the claim is used up or closed".to_owned()));
                }
                Err(error) => return Err(self.out(&error)),
            }
            match self.read(&device.id).await? {
                Some(again) => device = again,
                None => break,
            }
        }
        Err((Code::TryLater, "too much at once for this device".to_owned()))
    }

    async fn hand_out(
        &self,
        speaker: &Speaker,
        claim: &ClaimName,
        device: &Device,
        asked: &Payload,
    ) -> Result<(), Refusal> {
        let (Some(job), Some(certificate)) = (&device.job, self.certificate(device).await) else {
            return Err((Code::TryLater, "the certificate cannot be read now".to_owned()));
        };
        speaker.say(
            &User::Claim(claim.clone()),
            &Payload {
                v: VERSION,
                broker: device.id.broker.clone(),
                device: device.id.device.clone(),
                session: asked.session,
                job: Some(job.id),
                nonce: Some(job.nonce),
                epoch: Some(self.epoch),
                body: Body::Certificate(certificate),
            },
        );
        Ok(())
    }
}
