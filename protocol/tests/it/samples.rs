//! One message of each kind, as they follow each other in the life of a device.

use certwave_protocol::code::Code;
use certwave_protocol::control::common_name;
use certwave_protocol::envelope::{sign_down, sign_up};
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Fingerprint, JobId, Nonce};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::{
    Body, Certificate, Commit, Csr, Der, Enrol, Hello, Job, JobView, Payload, Progress, Reconnect, Rejected, Slot,
    Slots, Status, Step, Subject, Task, Tested, Type,
};
use certwave_protocol::topic::{self, User};

use crate::pki::{Ca, Leaf, NOW, Profile, csr};

/// A broker, a device and everything that they sign with.
pub(crate) struct Material {
    pub(crate) broker: BrokerId,
    pub(crate) device: DeviceId,
    pub(crate) claim_name: ClaimName,
    pub(crate) root: Der,
    pub(crate) next_root: Der,
    pub(crate) issuing: Der,
    pub(crate) control: Leaf,
    pub(crate) claim: Leaf,
    /// The first certificate, in slot A.
    pub(crate) a: Leaf,
    /// The one that follows, in slot B.
    pub(crate) b: Leaf,
    pub(crate) csr_a: Der,
    pub(crate) csr_b: Der,
}

impl Material {
    pub(crate) fn new(broker: &str, device: &str, claim: &str) -> Self {
        let root = Ca::root("Example Devices Root");
        let issuing = root.intermediate("Example Devices Issuing CA 1");
        let (broker, claim_name): (BrokerId, ClaimName) = (broker.parse().unwrap(), claim.parse().unwrap());
        let a = issuing.leaf(Profile::client(device));
        let b = issuing.leaf(Profile {
            to: (2027, 3, 1),
            from: (2026, 11, 19),
            ..Profile::client(device)
        });
        Self {
            csr_a: csr(device, &a.pkcs8),
            csr_b: csr(device, &b.pkcs8),
            control: issuing.leaf(Profile::control(&common_name(&broker))),
            claim: issuing.leaf(Profile::client(&claim_name.user())),
            root: root.der.clone(),
            next_root: Ca::root("Example Devices Root 2").der,
            issuing: issuing.der.clone(),
            a,
            b,
            broker,
            device: device.parse().unwrap(),
            claim_name,
        }
    }

    pub(crate) fn x5c(&self) -> Vec<Der> {
        vec![self.control.der.clone(), self.issuing.clone()]
    }
}

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Claim,
    A,
    B,
    Control,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) by: By,
    pub(crate) topic: String,
    pub(crate) payload: Payload,
}

impl Material {
    pub(crate) fn key(&self, by: By) -> &SigningKey {
        match by {
            By::Claim => &self.claim.key,
            By::A => &self.a.key,
            By::B => &self.b.key,
            By::Control => &self.control.key,
        }
    }

    pub(crate) fn seal(&self, sample: &Sample) -> Vec<u8> {
        let leaf = match sample.by {
            By::Control => return sign_down(&sample.payload, &self.control.key, &self.x5c()),
            By::Claim => &self.claim,
            By::A => &self.a,
            By::B => &self.b,
        };
        sign_up(&sample.payload, &leaf.key, leaf.fingerprint())
    }

    /// Every message that the specification shows.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let (a, b) = (self.a.fingerprint(), self.b.fingerprint());
        let bundle = Fingerprint::of_bundle([&self.root]);
        let next = vec![self.root.clone(), self.next_root.clone()];
        let next_bundle = Fingerprint::of_bundle(&next);
        let (enrol, rotate, rollback, trust) = (Thread::of(1), Thread::of(2), Thread::of(3), Thread::of(4));
        let only_nonce = |n: u8| Thread {
            job: None,
            nonce: Some(Nonce([n; 16])),
            epoch: None,
        };
        let seen = |n: u8| Thread {
            epoch: Some(EPOCH),
            ..only_nonce(n)
        };
        let hello = Hello {
            agent: "example-agent 1.4.0".into(),
            active: Slot::A,
            slots: Slots { a: Some(a), b: None },
            job: Some(JobView {
                id: enrol.id(),
                progress: Progress::Committed,
            }),
            clock: NOW,
            bundle,
            reconnect: None,
            alert: None,
        };
        let back = Hello {
            slots: Slots { a: Some(a), b: Some(b) },
            job: Some(JobView {
                id: rotate.id(),
                progress: Progress::TrialOver,
            }),
            reconnect: Some(Nonce([0x3a; 16])),
            alert: Some("bad_certificate".into()),
            ..hello.clone()
        };
        let job = |task| {
            Body::Job(Job {
                task,
                attempt: 1,
                step_timeout: 300,
                trial_timeout: 120,
            })
        };
        let certificate = |leaf: &Leaf| {
            let chain = vec![self.issuing.clone()];
            Body::Certificate(Certificate {
                leaf: leaf.der.clone(),
                chain,
                trial_timeout: 120,
            })
        };
        let tested = |subject| Body::Tested(Tested { subject });
        let commit = |subject| Body::Commit(Commit { subject });
        let status = |step| {
            Body::Status(Status {
                step,
                code: None,
                detail: None,
                alert: None,
            })
        };
        let algorithms = vec!["ECDSA-P256".into(), "Ed25519".into()];

        // The session is that of the connection: on the claim, with A, on trial or for good with B.
        let (claim, first, second) = (0xc1, 0x0a, 0x0b);
        let old = Subject::Certificate(a);
        let new = Subject::Certificate(b);
        vec![
            self.sample(
                "enrol",
                By::Claim,
                claim,
                only_nonce(0x11),
                Body::Enrol(Enrol {
                    csr: self.csr_a.clone(),
                }),
            ),
            self.claimed("certificate-enrol", claim, enrol, certificate(&self.a)),
            self.sample("tested-enrol", By::A, first, enrol, tested(old)),
            self.sample("commit-enrol", By::Control, first, enrol, commit(old)),
            self.sample("committed-enrol", By::A, first, enrol, status(Step::Committed)),
            self.sample("hello", By::A, first, Thread::NONE, Body::Hello(hello)),
            self.sample(
                "job-rotate",
                By::Control,
                first,
                rotate,
                job(Task::Rotate { algorithms }),
            ),
            self.sample("accepted", By::A, first, rotate, status(Step::Accepted)),
            self.sample(
                "csr",
                By::A,
                first,
                rotate,
                Body::Csr(Csr {
                    csr: self.csr_b.clone(),
                }),
            ),
            self.sample("certificate", By::Control, first, rotate, certificate(&self.b)),
            self.sample("tested", By::B, second, rotate, tested(new)),
            self.sample("commit", By::Control, second, rotate, commit(new)),
            self.sample("committed", By::B, second, rotate, status(Step::Committed)),
            self.sample(
                "rolled-back",
                By::A,
                first,
                rotate,
                Body::Status(Status {
                    step: Step::RolledBack,
                    code: Some(Code::TestFailed),
                    detail: Some("the broker refused the new certificate 9 times".into()),
                    alert: Some("bad_certificate".into()),
                }),
            ),
            self.sample(
                "rejected-job",
                By::A,
                first,
                rotate,
                Body::Status(Status {
                    step: Step::Rejected,
                    code: Some(Code::Refused),
                    detail: Some("the pump is running".into()),
                    alert: None,
                }),
            ),
            self.sample("hello-trial-over", By::A, first, Thread::NONE, Body::Hello(back)),
            self.sample(
                "job-rollback",
                By::Control,
                second,
                rollback,
                job(Task::Rollback { to: a }),
            ),
            self.sample("tested-rollback", By::A, first, rollback, tested(old)),
            self.sample(
                "job-trust",
                By::Control,
                first,
                trust,
                job(Task::Trust {
                    anchors: next,
                    bundle: next_bundle,
                }),
            ),
            self.sample(
                "tested-trust",
                By::A,
                first,
                trust,
                tested(Subject::Bundle(next_bundle)),
            ),
            self.sample(
                "commit-trust",
                By::Control,
                first,
                trust,
                commit(Subject::Bundle(next_bundle)),
            ),
            self.sample(
                "reconnect",
                By::Control,
                first,
                seen(0x3a),
                Body::Reconnect(Reconnect { within: 60 }),
            ),
            self.sample(
                "rejected",
                By::Control,
                first,
                rotate,
                Body::Rejected(Rejected {
                    of: Type::Csr,
                    code: Code::KeyReused,
                    message: "this key has been used before".into(),
                    job_state: Some("Failed".into()),
                }),
            ),
        ]
    }

    fn sample(&self, name: &'static str, by: By, session: u8, thread: Thread, body: Body) -> Sample {
        let user = match by {
            By::Claim => User::Claim(self.claim_name.clone()),
            _ => User::Device(self.device.clone()),
        };
        self.to(&user, name, by, session, thread, body)
    }

    fn claimed(&self, name: &'static str, session: u8, thread: Thread, body: Body) -> Sample {
        self.to(
            &User::Claim(self.claim_name.clone()),
            name,
            By::Control,
            session,
            thread,
            body,
        )
    }

    fn to(&self, user: &User, name: &'static str, by: By, session: u8, thread: Thread, body: Body) -> Sample {
        let topic = if by == By::Control { topic::down } else { topic::up };
        Sample {
            name,
            by,
            topic: topic(topic::DEFAULT_PREFIX, user, body.kind()),
            payload: Payload {
                v: 1,
                broker: self.broker.clone(),
                device: self.device.clone(),
                session: Nonce([session; 16]),
                job: thread.job,
                nonce: thread.nonce,
                epoch: thread.epoch,
                body,
            },
        }
    }
}

const EPOCH: u64 = 1_795_132_800_123;

/// What ties the messages of one job together.
#[derive(Clone, Copy)]
struct Thread {
    job: Option<JobId>,
    nonce: Option<Nonce>,
    epoch: Option<u64>,
}

impl Thread {
    const NONE: Self = Self {
        job: None,
        nonce: None,
        epoch: None,
    };

    fn of(n: u8) -> Self {
        // UUIDv7 of the moment at which these samples play.
        let job = JobId::from_u128(0x01a1_f640_bc7b_7000_8000_0000_0000_0000 | u128::from(n));
        Self {
            job: Some(job),
            nonce: Some(Nonce([0x20 | n; 16])),
            epoch: Some(EPOCH),
        }
    }

    fn id(&self) -> JobId {
        self.job.unwrap()
    }
}
