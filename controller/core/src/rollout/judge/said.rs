//! What a judge says.

use crate::model::Millis;
use crate::rollout::run::{Breach, Ended, Run};

/// How far it is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Devices are served.
    Running,
    /// The wave is through and must stay well.
    Soaking,
    /// A person must approve.
    WaitingForApproval,
    /// Nothing new is sent, by a person's wish or for a fault of ours.
    Paused,
    /// Stopped by a breach.
    Breached,
    /// Devices are sent back.
    RollingBack,
    /// Those that could be sent back were.
    RolledBack,
    /// Over, as it should be.
    Complete,
    /// Over by a breach.
    Failed,
    /// Over by a person's wish.
    Aborted,
}

/// What it waits for, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Devices in line or in flight.
    Devices,
    /// Any device of the wave: all are offline, or none has proven the new certificate.
    Proof,
    /// The end of the soak.
    Soak(Millis),
    /// A gate's answer.
    Gates(String),
    /// A person's approval.
    Approval,
    /// A person who resumes.
    Person,
    /// Our own side.
    Fault(String),
    /// The end of another Rotation.
    Another(String),
}

/// What is to be done, beside storing the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Puts members of these waves back in line.
    Retry {
        /// The last of the waves.
        through_wave: u32,
        /// Those that failed; whoever vanished is heard first.
        failed: bool,
    },
    /// Marks the confirmed devices of a wave as to be sent back, those for which it is possible.
    Revert {
        /// The wave.
        wave: u32,
    },
    /// All devices of a wave are offline: the one last heard of those whose turn would come later takes part in it.
    Substitute {
        /// The wave.
        wave: u32,
    },
    /// The template has failed: no automatic Rotation uses it until a person answers.
    BlockTemplate,
    /// A person has answered, or a Rotation has shown that the template works.
    ClearTemplate,
}

/// Something that happened, for events and the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A wave began.
    WaveBegan(u32),
    /// A limit was exceeded.
    Breached(Breach),
    /// All that could be sent back were.
    RolledBack(u32),
    /// A person went on after a breach.
    Resumed(String),
    /// A person asked for the wave to be sent back.
    SentBack(String),
    /// A person asked for another try.
    Retried(String),
    /// A person approved so many waves.
    Approved(u32),
    /// A person wants nothing new to be sent.
    Paused,
    /// A person wants it to go on.
    Continued,
    /// It is over.
    Ended(Ended),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What to remember.
    pub run: Run,
    /// For people.
    pub phase: Phase,
    /// For people.
    pub waiting: Option<Waiting>,
    /// Whether devices of the waves begun may be sent new jobs.
    pub admits: bool,
    /// Whether devices may be sent back.
    pub reverts: bool,
    /// What to do.
    pub actions: Vec<Action>,
    /// What to tell.
    pub notes: Vec<Note>,
    /// Why an approval was not taken.
    pub refused: Option<String>,
}
