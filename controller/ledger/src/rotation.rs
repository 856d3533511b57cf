//! Rotations, their members, and what is written about them. Times are Unix milliseconds unless a name or its docs say
//! otherwise.

use std::collections::BTreeMap;

use certwave_core::model::{Identity, Millis, ObjectRef};
use certwave_core::rollout::run::{Plan, Run};
use certwave_core::rollout::strategy::Strategy;
use certwave_protocol::code::Code;
use certwave_protocol::ids::DeviceId;

use crate::{AuditEntry, FleetKey};

/// A device's row in the ledger; it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceRow(pub i64);

/// A device that a Rotation could take: declared, enrolled and not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its row.
    pub row: DeviceRow,
    /// The device, at its fleet's broker.
    pub device: DeviceId,
    /// End of its current certificate, Unix seconds.
    pub not_after: i64,
    /// Key id of the current certificate's issuer.
    pub issuer: String,
    /// Of a device that came to a Rotation's fleet later: its current certificate was issued since that began.
    pub renewed: bool,
    /// Labels of its declaration.
    pub labels: BTreeMap<String, String>,
    /// Its last job went wrong by its own word, or it has not been heard of since it vanished.
    pub failed: bool,
}

/// A device's place in a Rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// The device.
    pub row: DeviceRow,
    /// Its wave, from 0.
    pub wave: u32,
    /// Its place in the order.
    pub ordinal: u32,
    /// Its value of the label that limits how many of a group may be away at once; empty without one.
    pub group: String,
    /// Bit i: window i of the strategy is for this device.
    pub windows: u64,
}

/// A device in a Rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub identity: Identity,
    /// Its wave, from 0.
    pub wave: u32,
    /// Its place in the order.
    pub ordinal: u32,
    /// As in [`NewMember`].
    pub group: String,
    /// As in [`NewMember`].
    pub windows: u64,
    /// End of its current certificate, Unix seconds.
    pub not_after: i64,
    /// How it stands.
    pub outcome: MemberOutcome,
}

/// Which waiting members are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberQuery {
    /// The present time; devices whose `not_before` lies ahead, and those that have expired, are left out.
    pub now: Millis,
    /// The last wave that is served.
    pub through_wave: u32,
    /// Bit i: window i is open. [`u64::MAX`] serves everybody.
    pub windows: u64,
    /// A device whose current certificate ends before this (Unix seconds) need not wait for a window.
    pub override_before_s: Option<i64>,
    /// Groups of which nobody is wanted.
    pub full_groups: Vec<String>,
    /// Wave and ordinal: members before this place in the order are left out.
    pub from: (u32, u32),
    /// At most so many.
    pub limit: u32,
}

/// A step of a run: everything in it is stored, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWrite {
    /// The run as it shall be.
    pub run: Run,
    /// The plan, where joiners have changed it.
    pub plan: Option<Plan>,
    /// Joiners. Those that are members already stay as they are.
    pub join: Vec<NewMember>,
    /// Members that get another turn.
    pub retry: Option<Retry>,
    /// Members that are sent back.
    pub revert: Option<Revert>,
    /// All members of this wave are offline: the one last heard of those whose turn would come later moves into it.
    pub substitute: Option<u32>,
    /// Ends the Rotation: members still planned are skipped, those still to be sent back stay, open jobs go on.
    pub end: Option<RotationOutcome>,
    /// What becomes of the fleet's blocked template.
    pub template: Option<TemplateChange>,
    /// What to tell the audit.
    pub audit: Vec<AuditEntry>,
}

impl RunWrite {
    /// A write of `run` alone.
    pub fn of(run: Run) -> Self {
        Self {
            run,
            plan: None,
            join: Vec::new(),
            retry: None,
            revert: None,
            substitute: None,
            end: None,
            template: None,
            audit: Vec::new(),
        }
    }
}

/// Members that get another turn. Those that have left the fleet do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The last wave concerned.
    pub through_wave: u32,
    /// Those that failed, refused or went back by themselves; at once, not after the pause that a failure brings. Those that
    /// vanished are heard first: see [`Ledger::retryable`](crate::Ledger::retryable).
    pub failed: bool,
    /// Those that were sent back; those that were to be and are not keep their new certificate.
    pub reverted: bool,
}

/// Confirmed members that are sent back. One that has had no other job since becomes [`Reverted`](MemberOutcome::Reverted) if it went back by
/// itself, [`Reverting`](MemberOutcome::Reverting) if its previous certificate may be used again; any other
/// [`Unreverted`](MemberOutcome::Unreverted).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revert {
    /// The first wave concerned.
    pub from_wave: u32,
    /// The last wave concerned.
    pub through_wave: u32,
    /// The previous certificate must not end before this, Unix seconds.
    pub min_not_after_s: i64,
    /// The new certificate must have been proven at this time or after.
    pub confirmed_after: Millis,
}

/// What becomes of a fleet's blocked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateChange {
    /// This Rotation blocks it.
    Block {
        /// The template's hash.
        template: String,
    },
    /// None is blocked any more.
    Clear,
}

/// A certificate template that no automatic Rotation uses until a person says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateBlock {
    /// Its hash.
    pub template: String,
    /// The Rotation in which it went wrong.
    pub rotation: ObjectRef,
    /// That showed only after the Rotation was complete.
    pub late: bool,
    /// When.
    pub at: Millis,
}

/// A Rotation as it began. Of this only the plan changes, by joiners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationRecord {
    /// The object's uid.
    pub uid: String,
    /// The object.
    pub object: ObjectRef,
    /// The fleet.
    pub fleet: FleetKey,
    /// Why, for people.
    pub reason: String,
    /// The CA (key id) that it moves the fleet to, if it does.
    pub issuer: Option<String>,
    /// When it began.
    pub started: Millis,
    /// What it goes by.
    pub strategy: Strategy,
    /// Its waves with their sizes.
    pub plan: Plan,
}

/// A Rotation in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRotation {
    /// As it began, with the present plan.
    pub record: RotationRecord,
    /// How many devices belong to it.
    pub members: u32,
    /// How far it is.
    pub run: Run,
    /// When and how it ended.
    pub ended: Option<(Millis, RotationOutcome)>,
}

/// How a Rotation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RotationOutcome {
    /// As it should.
    Succeeded,
    /// Not as it should.
    Failed,
    /// A person ended it, or its object was deleted.
    Cancelled,
}

/// How a device stands in a Rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberOutcome {
    /// Its turn is to come, for the first time or again.
    Planned,
    /// It has an open job: waiting, or in flight.
    Running,
    /// New certificate confirmed.
    Confirmed,
    /// The device refused.
    Rejected,
    /// It failed.
    Failed,
    /// A deadline passed, and no later job of it has been accepted.
    TimedOut,
    /// The device went back by itself.
    RolledBack,
    /// Silent ever since.
    Lost,
    /// Not rotated: withdrawn, moved to another Fleet, cancelled, or the Rotation ended first.
    Skipped,
    /// On the new certificate and to be sent back: its rollback job is open, or still to be made.
    Reverting,
    /// Back on the old certificate, by proof: sent back, or gone back by itself when it was to be.
    Reverted,
    /// Should have gone back and did not, or could not.
    Unreverted,
    /// Confirmed, and then did not come back by the new certificate alone when the old one was on hold.
    ProbationFailed,
}

/// A member that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationExample {
    /// The device.
    pub identity: Identity,
    /// Its object.
    pub object: ObjectRef,
    /// How it stands.
    pub outcome: MemberOutcome,
    /// Why its last job in this Rotation ended.
    pub code: Option<Code>,
    /// For people.
    pub detail: Option<String>,
}
