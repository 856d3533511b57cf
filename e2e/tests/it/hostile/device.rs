//! A device made of single messages.

use certwave_e2e::identity::Identity;
use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::sign_up;
use certwave_protocol::ids::{DeviceId, Epoch, Fingerprint, JobId, Nonce, SessionId};
use certwave_protocol::message::{
    Body, Certificate, Commit, Csr, Der, Enrol, Hello, JobView, Payload, Progress, Slot, Slots, Status, Step, Subject,
    Task, Tested, Type,
};
use certwave_protocol::topic::User;

use super::keys::{Credential, Key, nonce};
use super::line::Line;
use super::plant::{self, Claim, Plant, World};

/// What ties a message to a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) job: JobId,
    pub(super) nonce: Nonce,
    pub(super) epoch: Epoch,
}

impl Mark {
    pub(super) fn of(payload: &Payload) -> Self {
        Self {
            job: payload.job.unwrap(),
            nonce: payload.nonce.unwrap(),
            epoch: payload.epoch.unwrap(),
        }
    }
}

/// An enrolled device on its line.
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) world: &'static World,
    pub(super) active: Credential,
    pub(super) line: Line,
    /// Of its last confirmed job.
    pub(super) last: Mark,
}

/// An `enrol`, as it goes out.
pub(super) fn enrol(world: &World, id: &str, session: SessionId, csr: Vec<u8>) -> Payload {
    Payload {
        v: VERSION,
        broker: world.broker.clone(),
        device: id.parse().unwrap(),
        session,
        job: None,
        nonce: Some(nonce()),
        epoch: None,
        body: Body::Enrol(Enrol { csr: Der(csr) }),
    }
}

/// Opens a line with a claim.
pub(super) async fn claim_line(world: &'static World, claim: &Claim) -> Line {
    Line::open(world, User::Claim(claim.name.clone()), &claim.credential.identity).await
}

/// Says `enrol` on a claim's line; answers what the controller says.
pub(super) async fn ask(world: &World, line: &mut Line, claim: &Claim, id: &str, csr: Vec<u8>) -> Payload {
    let payload = enrol(world, id, line.session, csr);
    let envelope = sign_up(&payload, &claim.credential.key.signing, claim.credential.fingerprint);
    line.publish(Type::Enrol, &envelope).await;
    line.answer().await
}

/// The certificate in an answer.
pub(super) fn certificate(answer: &Payload) -> &Certificate {
    match &answer.body {
        Body::Certificate(certificate) => certificate,
        other => panic!("{other:?} in place of a certificate"),
    }
}

impl Device {
    /// Exchanges a claim, tests the certificate, and commits.
    pub(super) async fn enrolled(plant: &Plant, claim: &Claim, id: &str) -> Self {
        let key = Key::new();
        let mut line = claim_line(plant.world, claim).await;
        let answer = ask(plant.world, &mut line, claim, id, key.request(id)).await;
        let credential = Credential::new(key, certificate(&answer));
        Self::commissioned(plant.world, id, credential, Mark::of(&answer)).await
    }

    /// From the certificate that a claim got to an enrolled device.
    pub(super) async fn commissioned(world: &'static World, id: &str, credential: Credential, mark: Mark) -> Self {
        let mut device = Self::proven(world, id, credential, mark).await;
        device.committed(mark).await;
        device.hello(None).await;
        device.line.silent("after enrolment").await;
        device
    }

    /// As far as `tested`.
    pub(super) async fn proven(world: &'static World, id: &str, credential: Credential, mark: Mark) -> Self {
        let id: DeviceId = id.parse().unwrap();
        let line = Line::open(world, User::Device(id.clone()), &credential.identity).await;
        let mut device = Self {
            id,
            world,
            active: credential,
            line,
            last: mark,
        };
        device.say(Some(mark), tested(device.active.fingerprint)).await;
        device
    }

    /// Takes the commit and obeys it.
    pub(super) async fn committed(&mut self, mark: Mark) {
        self.commit_comes().await;
        self.obeys(mark).await;
    }

    /// Takes the commit.
    pub(super) async fn commit_comes(&mut self) {
        let commit = Body::Commit(Commit {
            subject: Subject::Certificate(self.active.fingerprint),
        });
        assert_eq!(self.line.answer().await.body, commit);
    }

    /// Obeys the commit.
    pub(super) async fn obeys(&mut self, mark: Mark) {
        self.say(Some(mark), status(Step::Committed, None)).await;
        self.last = mark;
    }

    /// The payload of a message on the present line.
    pub(super) fn payload(&self, mark: Option<Mark>, body: Body) -> Payload {
        Payload {
            v: VERSION,
            broker: self.world.broker.clone(),
            device: self.id.clone(),
            session: self.line.session,
            job: mark.map(|m| m.job),
            nonce: mark.map(|m| m.nonce),
            epoch: mark.map(|m| m.epoch),
            body,
        }
    }

    /// Says it, signed by the active key.
    pub(super) async fn say(&mut self, mark: Option<Mark>, body: Body) {
        let payload = self.payload(mark, body);
        let envelope = sign_up(&payload, &self.active.key.signing, self.active.fingerprint);
        self.line.publish(payload.body.kind(), &envelope).await;
    }

    /// Says it, signed by another key.
    pub(super) async fn say_by(&mut self, by: &Credential, mark: Option<Mark>, body: Body) {
        let payload = self.payload(mark, body);
        let envelope = sign_up(&payload, &by.key.signing, by.fingerprint);
        self.line.publish(payload.body.kind(), &envelope).await;
    }

    /// Says it and expects a refusal.
    pub(super) async fn refused(&mut self, what: &str, mark: Mark, body: Body, code: Code) -> Option<String> {
        let kind = body.kind();
        self.say(Some(mark), body).await;
        self.line.refused(what, kind, code).await.job_state
    }

    /// What `hello` says with the active slot A.
    pub(super) fn hello_body(&self, job: Option<(JobId, Progress)>) -> Hello {
        Hello {
            agent: "hostile 0".to_owned(),
            active: Slot::A,
            slots: Slots {
                a: Some(self.active.fingerprint),
                b: None,
            },
            job: job.map(|(id, progress)| JobView { id, progress }),
            clock: plant::now(),
            bundle: Fingerprint::of_bundle(&self.world.anchors),
            reconnect: None,
            alert: None,
        }
    }

    pub(super) async fn hello(&mut self, job: Option<(JobId, Progress)>) {
        let hello = self.hello_body(job);
        self.say(None, Body::Hello(hello)).await;
    }

    /// A new line with `identity`; the old one ends without a word.
    pub(super) async fn reconnect(&mut self, identity: &Identity) {
        self.line = Line::open(self.world, User::Device(self.id.clone()), identity).await;
    }

    /// Waits for a rotation's job.
    pub(super) async fn job(&mut self) -> Mark {
        let answer = self.line.answer().await;
        match &answer.body {
            Body::Job(job) if matches!(job.task, Task::Rotate { .. }) => Mark::of(&answer),
            other => panic!("{other:?} in place of a job"),
        }
    }

    /// Asks for a certificate.
    pub(super) async fn request(&mut self, mark: Mark, key: Key) -> Credential {
        let csr = key.request(self.id.as_str());
        self.say(Some(mark), request(csr)).await;
        let answer = self.line.answer().await;
        assert_eq!(answer.job, Some(mark.job));
        Credential::new(key, certificate(&answer))
    }

    /// Tries `credential` and starts from it for good.
    pub(super) async fn try_out(&mut self, mark: Mark, credential: Credential) {
        self.reconnect(&credential.identity).await;
        self.active = credential;
        self.say(Some(mark), tested(self.active.fingerprint)).await;
        self.committed(mark).await;
        self.line.silent("after committed").await;
    }

    /// A whole rotation, as it should be.
    pub(super) async fn rotate(&mut self) {
        let mark = self.job().await;
        self.say(Some(mark), status(Step::Accepted, None)).await;
        let credential = self.request(mark, Key::new()).await;
        self.try_out(mark, credential).await;
    }
}

pub(super) fn status(step: Step, code: Option<Code>) -> Body {
    Body::Status(Status {
        step,
        code,
        detail: None,
        alert: None,
    })
}

pub(super) fn tested(certificate: Fingerprint) -> Body {
    Body::Tested(Tested {
        subject: Subject::Certificate(certificate),
    })
}

pub(super) fn request(csr: Vec<u8>) -> Body {
    Body::Csr(Csr { csr: Der(csr) })
}
