//! The ledger: the database that decides. It holds identities, jobs, every certificate ever issued, claims, Rotations, CRLs,
//! the epoch and the audit; Kubernetes only shows a projection of it.
//!
//! [`Ledger`] is what the controller sees. Each write is one transaction, on the condition that the writer's epoch is the
//! ledger's present one; when a write has been answered, it survives `kill -9`, a full disk and a lost leader, and every read
//! that begins after the answer sees it. [`SqliteLedger`] keeps it in one file.

mod error;
mod record;
mod rotation;
mod sqlite;

use async_trait::async_trait;
use certwave_core::model::{Device, Identity, Millis, ObjectRef};
use certwave_core::rollout::run::WaveCounts;
use certwave_protocol::ids::{BrokerId, ClaimName, Epoch, Fingerprint};

pub use error::{LedgerError, Result};
pub use record::{
    AuditEntry, CertificateKind, CertificateRecord, Claim, ClaimRecord, ClaimUse, CrlRecord, Declaration, Declared,
    DeclaredObject, DueQuery, FleetCounts, FleetKey, StoredCertificate, Write,
};
pub use rotation::{
    Candidate, DeviceRow, Member, MemberOutcome, MemberQuery, NewMember, Retry, Revert, RotationExample,
    RotationOutcome, RotationRecord, RunWrite, StoredRotation, TemplateBlock, TemplateChange,
};
pub use sqlite::{SqliteLedger, SqliteOptions};

/// The database behind the controller. Writes take the writer's epoch and fail with [`LedgerError::StaleEpoch`] if it is not
/// the present one. Every call may fail with an outage ([`LedgerError::is_outage`]).
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    // Epoch.

    /// Begins a new epoch, max(last + 1, `now`), which fences out every earlier writer.
    async fn take_epoch(&self, holder: &str, now: Millis) -> Result<Epoch>;
    /// The present epoch; 0 before the first.
    async fn epoch(&self) -> Result<Epoch>;

    // Objects.

    /// Takes over what objects declare, all in one transaction, and answers for each in order. An identity belongs to the
    /// object that declared it first, over all namespaces. Once withdrawn, an object of the same namespace may declare it
    /// again, and one of another namespace if the device never got a certificate that may still be good. An object that
    /// declares another identity than before withdraws the one before. The permit to enrol again that was used up last does
    /// not count as one.
    async fn declare(&self, epoch: Epoch, now: Millis, declarations: Vec<Declaration>) -> Result<Vec<Declared>>;
    /// The object is gone. Identity, certificates and history stay, nothing is revoked; an open job that was not sent is
    /// cancelled, another one ends by itself. Answers whose device it was, if any.
    async fn withdraw(&self, epoch: Epoch, now: Millis, object: &ObjectRef) -> Result<Option<Identity>>;
    /// The objects that declare devices at present, by namespace and name, those after `after`.
    async fn declared_objects(&self, after: Option<&ObjectRef>, limit: u32) -> Result<Vec<DeclaredObject>>;

    // Devices.

    /// One device, declared or withdrawn.
    async fn device(&self, identity: &Identity) -> Result<Option<Device>>;
    /// The device that an object declares at present.
    async fn device_by_object(&self, object: &ObjectRef) -> Result<Option<Device>>;
    /// Stores one decision and answers the device's new revision. Fails with `Conflict` if the device is not at the revision
    /// that was read, `NotFound` if a device, credential or claim is unknown, `KeyReused` or `SerialReused` because of the
    /// certificate, `ClaimExhausted` or `ClaimClosed` because of the claim.
    async fn write(&self, epoch: Epoch, write: Write) -> Result<u64>;
    /// Devices whose open job has passed its state's deadline or its own, or whose timed-out job has passed the time after
    /// which it counts as lost; the longest overdue first.
    async fn overdue(&self, now: Millis, limit: u32) -> Result<Vec<Identity>>;
    /// Declared and enrolled devices without an open job, whose `not_before` has passed, and whose certificates end soon, by
    /// end of validity and device id. Those that have expired are left out, as they cannot connect any more.
    async fn due(&self, fleet: &FleetKey, query: &DueQuery) -> Result<Vec<Identity>>;
    /// Declared devices whose job waits for them, the longest waiting first.
    async fn queued(&self, fleet: &FleetKey, limit: u32) -> Result<Vec<Identity>>;
    /// How many devices hold one of the fleet's slots, withdrawn ones included.
    async fn in_flight(&self, fleet: &FleetKey) -> Result<u32>;
    /// Counts a fleet's devices as they stand at `now`; online are those heard of at or after `online_after`.
    async fn counts(&self, fleet: &FleetKey, now: Millis, online_after: Millis) -> Result<FleetCounts>;

    // Projection.

    /// Declared devices with a change that their objects do not show yet: at once if their job has ended, else if their
    /// last change came before `before`; the oldest change first.
    async fn unprojected(&self, limit: u32, before: Millis) -> Result<Vec<Device>>;
    /// The objects show these revisions now.
    async fn projected(&self, epoch: Epoch, shown: Vec<(Identity, u64)>) -> Result<()>;

    // Certificates.

    /// Records a certificate that is not issued by a device's job. The same one again changes nothing. Fails with `KeyReused`
    /// unless all certificates with this key have the same kind, other than `Device`, and the same holder.
    async fn record(&self, epoch: Epoch, certificate: CertificateRecord) -> Result<()>;
    /// One certificate.
    async fn certificate(&self, fingerprint: &Fingerprint) -> Result<Option<StoredCertificate>>;
    /// The latest certificate with this key (SHA-256 of the subject public key info).
    async fn certificate_by_key(&self, spki: &Fingerprint) -> Result<Option<StoredCertificate>>;
    /// The latest certificate of the CA with this key id (the holder of [`CertificateKind::Authority`] records).
    async fn authority(&self, key_id: &str) -> Result<Option<StoredCertificate>>;

    // CRLs.

    /// The CRL published last in a scope.
    async fn crl(&self, issuer: &str, partition: &str) -> Result<Option<CrlRecord>>;
    /// Stores a CRL in place of the one before. Fails with `CrlNumber` unless its number is greater.
    async fn publish_crl(&self, epoch: Epoch, crl: CrlRecord) -> Result<()>;
    /// CRLs whose `nextUpdate` comes before a time (Unix seconds), the earliest first.
    async fn crls_before(&self, next_update_before: i64, limit: u32) -> Result<Vec<CrlRecord>>;
    /// Partition and number of each CRL of an issuer.
    async fn crl_numbers(&self, issuer: &str) -> Result<Vec<(String, u64)>>;

    // Claims.

    /// Takes over a claim as its Fleet declares it now; its uses stay. Fails with `Duplicate` if another Fleet has a claim of
    /// this name, `KeyReused` if the key belongs to another claim or to a certificate of anyone else.
    async fn upsert_claim(&self, epoch: Epoch, claim: ClaimRecord) -> Result<()>;
    /// One claim.
    async fn claim(&self, broker: &BrokerId, name: &ClaimName) -> Result<Option<Claim>>;
    /// A Fleet's claims, by name.
    async fn claims(&self, fleet: &FleetKey) -> Result<Vec<Claim>>;
    /// The latest uses of a claim, the last first.
    async fn claim_uses(&self, broker: &BrokerId, name: &ClaimName, limit: u32) -> Result<Vec<ClaimUse>>;

    // Rotations.

    /// Devices of a fleet that a Rotation could take, by row, those after `after`.
    async fn candidates(
        &self,
        fleet: &FleetKey,
        now: Millis,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<Candidate>>;
    /// Begins a Rotation with these members, once: repeating it changes nothing, whatever the members. Those that have left
    /// the fleet or expired meanwhile are skipped from the start. Answers how many it has. Fails with `NotFound` if a device is
    /// unknown.
    async fn begin_rotation(&self, epoch: Epoch, rotation: RotationRecord, members: Vec<NewMember>) -> Result<u32>;
    /// Stores a step of a run. Fails with `Ended` if the Rotation has ended, `NotFound` if it or a joiner is unknown.
    async fn write_run(&self, epoch: Epoch, uid: &str, now: Millis, write: RunWrite) -> Result<()>;
    /// One Rotation.
    async fn rotation(&self, uid: &str) -> Result<Option<StoredRotation>>;
    /// Candidates of the Rotation's fleet that are not among its members, by row, those after `after`.
    async fn strangers(&self, uid: &str, now: Millis, after: Option<DeviceRow>, limit: u32) -> Result<Vec<Candidate>>;
    /// Planned members that may start now, in their order: without an open job, their `not_before` passed, not expired, and as
    /// the query says.
    async fn waiting_members(&self, uid: &str, query: &MemberQuery) -> Result<Vec<Member>>;
    /// Timed-out members that may have another job now: heard again since, without an open job, nothing committed, not more
    /// than `max_retries` retries, `not_before` passed, not expired; in their order.
    async fn retryable(&self, uid: &str, now: Millis, max_retries: u32, limit: u32) -> Result<Vec<Identity>>;
    /// Members that are to be sent back and have no open job, their `not_before` passed; in their order.
    async fn reverting(&self, uid: &str, now: Millis, limit: u32) -> Result<Vec<Identity>>;
    /// One member.
    async fn member(&self, uid: &str, identity: &Identity) -> Result<Option<Member>>;
    /// How many members of each group are in flight, or timed out; groups without any are left out.
    async fn groups_in_use(&self, uid: &str) -> Result<Vec<(String, u32)>>;
    /// How many of a fleet's devices are in flight by each value of a label, those of one Rotation left out: of another one,
    /// or come back after theirs. Devices without the label count under the empty value.
    async fn groups_elsewhere(&self, fleet: &FleetKey, uid: Option<&str>, label: &str) -> Result<Vec<(String, u32)>>;
    /// How many planned or offline members' current certificates end in each hour (Unix seconds of its beginning), by hour.
    async fn remaining(&self, uid: &str) -> Result<Vec<(i64, u32)>>;
    /// Planned or offline members whose current certificate ends before a time (Unix seconds), the earliest first.
    async fn expiring_members(&self, uid: &str, before_s: i64, limit: u32) -> Result<Vec<Identity>>;
    /// How the members of each wave stand. Costs nothing per member but those in flight and those that wait for another job.
    async fn wave_counts(&self, uid: &str) -> Result<Vec<WaveCounts>>;
    /// Rotations that have not ended: uid and object.
    async fn open_rotations(&self) -> Result<Vec<(String, ObjectRef)>>;
    /// The Rotation of a fleet that ended last.
    async fn last_rotation(&self, fleet: &FleetKey) -> Result<Option<ObjectRef>>;
    /// The template that is blocked for a fleet's automatic Rotations.
    async fn template_block(&self, fleet: &FleetKey) -> Result<Option<TemplateBlock>>;
    /// Skips the planned members without an open job whose certificate was proven since the Rotation began, as another one
    /// came between: what they hold is newer than what was asked for. A Rotation that moves the fleet to another CA skips
    /// nobody. Answers how many.
    async fn skip_renewed(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32>;
    /// Skips the planned members without an open job whose certificate has expired meanwhile: they cannot connect any more,
    /// and no turn of theirs comes; gives up on sending back those whose previous certificate has. Answers how many. To be
    /// called now and then, lest the Rotation wait for them for ever.
    async fn skip_expired(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32>;
    /// Members that went wrong.
    async fn rotation_examples(&self, uid: &str, limit: u32) -> Result<Vec<RotationExample>>;
    /// Ends a Rotation; members still planned are skipped, those still to be sent back stay, open jobs go on. The first end
    /// counts.
    async fn end_rotation(&self, epoch: Epoch, uid: &str, outcome: RotationOutcome, now: Millis) -> Result<()>;

    // Audit.

    /// How many jobs of a fleet's devices were sent at or after `since`, sendings again not counted.
    async fn jobs_sent(&self, fleet: &FleetKey, since: Millis) -> Result<u32>;
    /// Adds lines that belong to no write.
    async fn append_audit(&self, epoch: Epoch, entries: Vec<AuditEntry>) -> Result<()>;
    /// The latest lines about a device, the last first.
    async fn audit(&self, identity: &Identity, limit: u32) -> Result<Vec<AuditEntry>>;
}
