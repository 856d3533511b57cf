//! What happens, and what follows: the values that [`super::step`] takes and gives.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{Epoch, Fingerprint, JobId, Nonce, SessionId};
use certwave_protocol::message::{Hello, Step, Subject};

use crate::model::{Device, JobKind, Millis};
use crate::policy::JobPolicy;

/// What every decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The controller's clock.
    pub now: Millis,
    /// The controller's epoch.
    pub epoch: Epoch,
    /// How jobs run.
    pub policy: &'a JobPolicy,
}

/// Which of a device's recorded keys signed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signer {
    /// The certificate confirmed last.
    Current,
    /// The one before it: the device went back by itself.
    Previous,
    /// The one issued and not yet proven.
    Pending,
}

/// What a job's messages bear beside their body; checked against the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobMark {
    /// The job's id.
    pub id: JobId,
    /// Its nonce.
    pub nonce: Option<Nonce>,
    /// The epoch that the device echoes.
    pub epoch: Option<Epoch>,
}

/// How a device says that it stands with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// With which key.
    pub signer: Signer,
    /// On which connection.
    pub session: SessionId,
    /// The step.
    pub step: Step,
    /// Why.
    pub code: Option<Code>,
    /// In words.
    pub detail: Option<String>,
}

/// Something that happened to a device. Signatures are checked before; who signed is part of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The device said where it stands.
    Hello {
        /// What it said.
        hello: Hello,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
    },
    /// The device reported a step of a job.
    Status {
        /// For which job.
        mark: JobMark,
        /// What it said.
        report: Report,
    },
    /// The device asks for a certificate; the request itself is sound, its key is this.
    Csr {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
        /// SHA-256 of the request's public key.
        key: Fingerprint,
    },
    /// The request was not sound.
    CsrRefused {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// Why.
        code: Code,
        /// In words.
        detail: String,
    },
    /// The device connected with what is on trial.
    Tested {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
        /// What it tested.
        subject: Subject,
    },
    /// The device is online and there is room: send it the job that it has queued.
    Offer,
    /// A deadline may have passed.
    Deadline,
    /// The device could not be heard or served, for a fault that is not its own: the present state gets its time again, and where its time
    /// was over, the device is asked again.
    Postpone,
    /// A person or a change of plan ends the job, where it has not been accepted.
    Cancel,
}

/// Something to say to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Send {
    /// The job.
    Job,
    /// The pending certificate.
    Certificate,
    /// The commit.
    Commit,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changes; perhaps something is said again.
    Same(Option<Send>),
    /// The ledger changes first, then something is said.
    Change {
        /// What the ledger shall hold.
        device: Box<Device>,
        /// What to say afterwards.
        send: Option<Send>,
    },
    /// A certificate is to be issued for this job; [`issued`](super::issued) makes the change.
    Issue,
    /// The message is refused and changes nothing.
    Refuse(Code, &'static str),
}

/// A job as the scheduler makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// A fresh `UUIDv7`.
    pub id: JobId,
    /// 128 random bits.
    pub nonce: Nonce,
    /// What it is for.
    pub kind: JobKind,
    /// The Rotation it belongs to.
    pub rotation: Option<String>,
}
