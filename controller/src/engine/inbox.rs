//! What devices say becomes events: who says it, whether they may, and what it is about.

use certwave_core::model::{Device, Identity};
use certwave_core::step::{self, Context, Decision, Event, JobMark, Report, Signer};
use certwave_ledger::{FleetKey, LedgerError};
use certwave_pki::Csr;
use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{self, Unverified};
use certwave_protocol::ids::{DeviceId, Fingerprint};
use certwave_protocol::message::{Body, Online, Payload, Rejected, Type};
use certwave_protocol::topic::User;

use super::act::With;
use super::link::Speaker;
use super::{Engine, describe};
use crate::clock::now;
use crate::notice::Notice;

/// A device's clock may differ from ours by so many seconds before people hear of it.
const CLOCK_SKEW: u64 = 300;
const TRIES: usize = 8;

/// Why a message was refused, with words for people.
pub(super) type Refusal = (Code, String);

impl Engine {
    /// Takes in one message; answers its outcome as a metric label.
    pub(super) async fn hear(&self, speaker: &Speaker, user: &User, kind: Type, bytes: &[u8]) -> &'static str {
        // Known once a signature has verified: nothing else may be repeated under the control key's signature.
        let mut verified = None;
        let refusal = match (user, kind) {
            (User::Device(device), Type::Online) => {
                let Ok(message) = serde_json::from_slice::<Online>(bytes) else {
                    return Code::Malformed.as_str();
                };
                let identity = Identity {
                    broker: speaker.entry.id.clone(),
                    device: device.clone(),
                };
                self.registry.presence.heard(identity, &message);
                return "ok";
            }
            (User::Claim(claim), Type::Enrol) => self.enrol(speaker, claim, bytes, &mut verified).await,
            (User::Device(device), Type::Hello | Type::Csr | Type::Tested | Type::Status) => {
                self.device_says(speaker, device, kind, bytes, &mut verified).await
            }
            _ => Err((Code::UnknownType, "not a message that this user may send".to_owned())),
        };
        match refusal {
            Ok(()) => "ok",
            Err((code, message)) => {
                tracing::debug!(user = user.name(), %kind, %code, message, "refused a message");
                self.reject(speaker, user, kind, bytes, verified.as_ref(), (code, &message))
                    .await;
                code.as_str()
            }
        }
    }

    async fn device_says(
        &self,
        speaker: &Speaker,
        id: &DeviceId,
        kind: Type,
        bytes: &[u8],
        verified: &mut Option<Payload>,
    ) -> Result<(), Refusal> {
        let envelope = Unverified::parse(bytes).map_err(|e| (e.code(), e.to_string()))?;
        let claimed = envelope.claimed();
        addressed(speaker, kind, claimed)?;
        if claimed.device != *id {
            return Err((
                Code::WrongDevice,
                "the message names another device than its topic".to_owned(),
            ));
        }
        let identity = Identity {
            broker: speaker.entry.id.clone(),
            device: id.clone(),
        };
        let Some(device) = self.read(&identity).await? else {
            return Err(self.undeclared("no such device").await);
        };
        let by = envelope.signer();
        let (signer, key) = self.signer(&device, by).await?;
        let payload = verified.insert(envelope.verify(&key).map_err(|e| (e.code(), e.to_string()))?);
        if let Body::Hello(hello) = &payload.body {
            self.judge_clock(&device, hello.clock.saturating_sub(now() / 1000));
        }
        self.decide(&identity, device, signer, payload).await?;
        if let Body::Hello(hello) = &payload.body {
            self.came_back(&identity, by, hello.reconnect).await;
        }
        Ok(())
    }

    /// Tells people of a clock that is wrong by `skew` seconds, and of one that was.
    fn judge_clock(&self, device: &Device, skew: i64) {
        let object = device.object.clone();
        if skew.unsigned_abs() > CLOCK_SKEW {
            self.skewed.add(&object);
            // Each time: on this connection another message may have come first. What is shown is not written again.
            self.notify(Notice::ClockSkew { object, seconds: skew });
        } else if self.skewed.remove(&object) && !self.notify(Notice::ClockRight { object: object.clone() }) {
            self.skewed.add(&object);
        }
    }

    /// Asks `core`, writes, speaks; again from the beginning when somebody else was faster.
    async fn decide(
        &self,
        identity: &Identity,
        first: Device,
        signer: Signer,
        payload: &Payload,
    ) -> Result<(), Refusal> {
        let event = self.event(&first, signer, payload)?;
        let mut device = first;
        for _ in 0..TRIES {
            let policy = self.policy(&device);
            let ctx = Context {
                now: now(),
                epoch: self.epoch,
                policy: &policy,
            };
            let mut with = With::default();
            let mut decision = step::step(&ctx, &device, &event);
            if let (Decision::Issue, Body::Csr(csr)) = (&decision, &payload.body) {
                let issued = self.issue(&device, &csr.csr.0).await;
                if matches!(&issued, Err((Code::TryLater, _))) {
                    // The device has done its part: its time must not run out for a fault of ours.
                    self.happen(identity, Event::Postpone).await.map_err(|e| self.out(&e))?;
                }
                let (credential, record) = issued?;
                decision = step::issued(&ctx, &device, signer, payload.session, credential);
                with.certificate = Some(record);
            }
            if let Decision::Refuse(code, why) = decision {
                return Err((code, why.to_owned()));
            }
            let ended = matches!(&decision, Decision::Change { device: next, .. }
                if next.job.as_ref().is_some_and(|j| j.code == Some(Code::CsrChanged) && j.state.ended()));
            match self.carry_out(&device, decision, with).await {
                Ok(()) if ended => return Err((Code::CsrChanged, "another request for the same job".to_owned())),
                Ok(()) => {
                    // The job has ended by it; the device has to hear why.
                    if let Event::CsrRefused { code, detail, .. } = event {
                        return Err((code, detail));
                    }
                    if matches!(event, Event::Hello { .. }) {
                        self.offer_when_room(identity, &device);
                    }
                    return Ok(());
                }
                Err(LedgerError::Conflict) => {}
                Err(LedgerError::KeyReused) => {
                    let refused =
                        Self::refused_request(signer, payload, Code::KeyReused, "the key has been used before");
                    return self.fail_request(identity, refused).await;
                }
                Err(error) => return Err(self.out(&error)),
            }
            match self.read(identity).await? {
                Some(again) => device = again,
                None => return Ok(()),
            }
        }
        Err((Code::TryLater, "too much at once for this device".to_owned()))
    }

    fn event(&self, device: &Device, signer: Signer, payload: &Payload) -> Result<Event, Refusal> {
        let session = payload.session;
        let mark = || match payload.job {
            Some(id) => Ok(JobMark {
                id,
                nonce: payload.nonce,
                epoch: payload.epoch,
            }),
            None => Err((Code::UnknownJob, "the message belongs to no job".to_owned())),
        };
        Ok(match &payload.body {
            Body::Hello(hello) => Event::Hello {
                hello: hello.clone(),
                signer,
                session,
            },
            Body::Tested(tested) => Event::Tested {
                mark: mark()?,
                signer,
                session,
                subject: tested.subject,
            },
            Body::Status(status) => Event::Status {
                mark: mark()?,
                report: Report {
                    signer,
                    session,
                    step: status.step,
                    code: status.code,
                    detail: match (&status.detail, &status.alert) {
                        (Some(detail), Some(alert)) => Some(format!("{detail} (TLS alert {alert})")),
                        (None, Some(alert)) => Some(format!("TLS alert {alert}")),
                        (detail, None) => detail.clone(),
                    },
                },
            },
            Body::Csr(csr) => {
                let mark = mark()?;
                match self.check_request(device, &csr.csr.0) {
                    Ok(key) => Event::Csr {
                        mark,
                        signer,
                        session,
                        key,
                    },
                    // A fault of ours is not the request's.
                    Err((Code::TryLater, why)) => return Err((Code::TryLater, why)),
                    Err((code, detail)) => Event::CsrRefused {
                        mark,
                        signer,
                        code,
                        detail,
                    },
                }
            }
            _ => return Err((Code::UnknownType, "not a device's message".to_owned())),
        })
    }

    fn refused_request(signer: Signer, payload: &Payload, code: Code, detail: &str) -> Option<Event> {
        let mark = JobMark {
            id: payload.job?,
            nonce: payload.nonce,
            epoch: payload.epoch,
        };
        Some(Event::CsrRefused {
            mark,
            signer,
            code,
            detail: detail.to_owned(),
        })
    }

    /// Ends the job whose request turned out to be unacceptable while it was being recorded.
    async fn fail_request(&self, identity: &Identity, event: Option<Event>) -> Result<(), Refusal> {
        if let Some(event) = event {
            self.happen(identity, event).await.map_err(|e| self.out(&e))?;
        }
        Err((
            Code::KeyReused,
            "the key has been used before; make a fresh one for each request".to_owned(),
        ))
    }

    /// SHA-256 of the request's key, if the request is sound for this device.
    pub(super) fn check_request(&self, device: &Device, der: &[u8]) -> Result<Fingerprint, Refusal> {
        let fleet = self.fleet(device)?;
        let csr = Csr::parse(der, &fleet.csr).map_err(|e| (code_of(e.code()), e.to_string()))?;
        match csr.common_name() {
            Some(name) if name != device.id.device.as_str() => Err((
                Code::CsrSubject,
                format!("the request names another device, {name:.56}"),
            )),
            _ => Ok(Fingerprint(*csr.spki_sha256())),
        }
    }

    pub(super) async fn read(&self, identity: &Identity) -> Result<Option<Device>, Refusal> {
        self.ledger.device(identity).await.map_err(|e| self.out(&e))
    }

    /// The ledger has no such device. One that was restored hears of all that is declared only once it is complete.
    pub(super) async fn undeclared(&self, why: &str) -> Refusal {
        match self.restored().await {
            Ok(false) => (Code::NotDeclared, why.to_owned()),
            Ok(true) => (Code::TryLater, "the controller cannot answer now".to_owned()),
            Err(error) => self.out(&error),
        }
    }

    /// A fault of ours: counted, and never the device's.
    pub(super) fn out(&self, error: &LedgerError) -> Refusal {
        self.ledger_failed(error);
        (Code::TryLater, "the controller cannot answer now".to_owned())
    }

    /// Says why a message was refused. What an unverified message claims is not repeated, its session excepted: that
    /// alone tells the device which of its connections is answered.
    async fn reject(
        &self,
        speaker: &Speaker,
        user: &User,
        of: Type,
        bytes: &[u8],
        verified: Option<&Payload>,
        (code, message): (Code, &str),
    ) {
        let Some(session) = verified.map(|p| p.session).or_else(|| envelope::claimed_session(bytes)) else {
            return;
        };
        let device = match (user, verified) {
            (User::Device(id), _) => id.clone(),
            (User::Claim(_), Some(payload)) => payload.device.clone(),
            // Many devices may share the claim; none is known to have said this.
            (User::Claim(_), None) => return,
        };
        let job = verified.and_then(|p| p.job);
        let job_state = match (job, user) {
            (Some(id), User::Device(_)) => {
                let identity = Identity {
                    broker: speaker.entry.id.clone(),
                    device: device.clone(),
                };
                let known = self.ledger.device(&identity).await.ok().flatten().and_then(|d| d.job);
                known.filter(|j| j.id == id).map(|j| j.state.as_str().to_owned())
            }
            _ => None,
        };
        let message = message.chars().take(256).collect();
        speaker.say(
            user,
            &Payload {
                v: VERSION,
                broker: speaker.entry.id.clone(),
                device,
                session,
                job,
                nonce: verified.and_then(|p| p.nonce),
                epoch: Some(self.epoch),
                body: Body::Rejected(Rejected {
                    of,
                    code,
                    message,
                    job_state,
                }),
            },
        );
    }

    /// A queued job is offered as soon as there is room, now that the device has been heard.
    fn offer_when_room(&self, identity: &Identity, device: &Device) {
        if device
            .job
            .as_ref()
            .is_some_and(|j| j.state == certwave_core::model::JobState::Queued)
        {
            self.ready.push(FleetKey::of(device), identity.clone());
            self.registry.nudge();
        } else if device.job.is_none() {
            tracing::trace!(device = describe(identity), "hello");
        }
    }
}

/// Checks that a message is what its topic says, for this broker.
pub(super) fn addressed(speaker: &Speaker, kind: Type, claimed: &Payload) -> Result<(), Refusal> {
    if claimed.broker != speaker.entry.id {
        return Err((Code::WrongBroker, "the message is for another broker".to_owned()));
    }
    if claimed.body.kind() != kind {
        return Err((Code::UnknownType, "the message's type is not its topic's".to_owned()));
    }
    Ok(())
}

/// Reads a code that another crate gives as text.
pub(super) fn code_of(text: &str) -> Code {
    text.parse().unwrap_or(Code::Other)
}
