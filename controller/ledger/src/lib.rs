//! The ledger: the database that decides. It holds identities, jobs, every certificate ever issued, claims, Rotations, CRLs,
//! the epoch and the audit; Kubernetes only shows a projection of it.
//!
//! [`Ledger`] is what the controller sees. Each write is one transaction, on the condition that the writer's epoch is the
//! present one of its [`Part`] of the work; when a write has been answered, it survives `kill -9`, a full disk and a lost leader, and every read
//! that begins after the answer sees it. [`SqliteLedger`] keeps it in one file, [`PostgresLedger`] in a database that several replicas share.

mod backup;
mod chain;
mod error;
mod part;
mod partition;
mod postgres;
mod record;
mod revocation;
mod rotation;
mod sql;
mod sqlite;
mod store;
mod way;

use async_trait::async_trait;
use certwave_core::model::{Device, Identity, Millis, ObjectRef};
use certwave_core::retire::{Retirement, RetirementCounts};
use certwave_core::rollout::run::WaveCounts;
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Epoch, Fingerprint};

pub use backup::{Copied, Place, backup, restore};
pub use error::{LedgerError, Result};
pub use part::Part;
pub use partition::{CA_PARTITION, FULL_PARTITION};
pub use postgres::{Postgres, PostgresLedger, PostgresOptions};
pub use record::{
    AuditEntry, CertificateKind, CertificateRecord, Claim, ClaimRecord, ClaimUse, CountQuery, CrlRecord, Declaration,
    Declared, DeclaredObject, DueQuery, FleetCounts, FleetKey, StoredCertificate, Write,
};
pub use revocation::{
    Act, Author, Change, CrlCover, CrlLine, CrlLines, DeclaredRevocation, DoorLoad, Held, InUse, Mark, Marked, Match,
    OpenSession, Provenance, RevocationProgress, SerialKey, SerialStatus, TakenIn, Target, Totals,
};
pub use rotation::{
    Candidate, DeviceRow, Member, MemberOutcome, MemberQuery, NewMember, Retry, Revert, RotationExample,
    RotationOutcome, RotationRecord, RunWrite, StoredRotation, TemplateBlock, TemplateChange,
};
pub use sqlite::{Sqlite, SqliteLedger, SqliteOptions};
pub use store::SqlLedger;
pub use way::{Open, Way};

/// The database behind the controller. Writes take the writer's epoch and fail with [`LedgerError::StaleEpoch`] if it is not
/// the present one of its part. Every call may fail with an outage ([`LedgerError::is_outage`]).
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    // Epochs.

    /// Begins a new epoch of a part, max(last of all + 1, `now`), which fences out every earlier writer of that part and nobody else.
    /// A broker's epoch is good for writes about that broker's devices; others fail with `Invalid`.
    async fn begin_term(&self, part: &Part, holder: &str, now: Millis) -> Result<Epoch>;
    /// The same for the controller's part.
    async fn take_epoch(&self, holder: &str, now: Millis) -> Result<Epoch> {
        self.begin_term(&Part::Controller, holder, now).await
    }
    /// The last epoch of all parts; 0 before the first.
    async fn epoch(&self) -> Result<Epoch>;
    /// Whether an epoch is the present one of its part.
    async fn is_present(&self, epoch: Epoch) -> Result<bool>;
    /// Writes that wait for their turn, for a metric.
    fn waiting_writes(&self) -> usize;

    // Objects.

    /// Takes over what objects declare, all in one transaction, and answers for each in order. An identity belongs to the
    /// object that declared it first, over all namespaces. Once withdrawn, an object of the same namespace may declare it
    /// again, and one of another namespace if the device never got a certificate that may still be good. An object that
    /// declares another identity than before withdraws the one before, unless that is a broker's whose part is another one's. A permit to enrol again that was used up once does
    /// not count as one.
    async fn declare(&self, epoch: Epoch, now: Millis, declarations: Vec<Declaration>) -> Result<Vec<Declared>>;
    /// The object is gone. Identity, certificates and history stay, nothing is revoked; an open job that was not sent is
    /// cancelled, another one ends by itself. Answers whose device it was, if any. Whoever looks after one broker leaves an object be that
    /// declares another one's by now.
    async fn withdraw(&self, epoch: Epoch, now: Millis, object: &ObjectRef) -> Result<Option<Identity>>;
    /// Objects that declared a broker's devices, and a revocation or hold of them, until they were withdrawn; and those devices.
    async fn withdrawn_revocations(&self, broker: &BrokerId) -> Result<Vec<(ObjectRef, DeviceId)>>;
    /// The objects that declare a broker's devices at present, by namespace and name, those after `after`.
    async fn declared_objects(
        &self,
        broker: &BrokerId,
        after: Option<&ObjectRef>,
        limit: u32,
    ) -> Result<Vec<DeclaredObject>>;

    // Devices.

    /// One device, declared or withdrawn.
    async fn device(&self, identity: &Identity) -> Result<Option<Device>>;
    /// The device that an object declares at present.
    async fn device_by_object(&self, object: &ObjectRef) -> Result<Option<Device>>;
    /// Stores one decision and answers the device's new revision. Fails with `Conflict` if the device is not at the revision
    /// that was read, or would get a job while one of its certificates is on hold to be retired, `NotFound` if a device, credential
    /// or claim is unknown, `KeyReused` or `SerialReused` because of the certificate, `Barred` or `Restoring` because none may be
    /// issued now, `ClaimExhausted` or `ClaimClosed` because of the claim.
    async fn write(&self, epoch: Epoch, write: Write) -> Result<u64>;
    /// A broker's devices whose open job has passed its state's deadline or its own, or whose timed-out job has passed the time after
    /// which it counts as lost; the longest overdue first.
    async fn overdue(&self, broker: &BrokerId, now: Millis, limit: u32) -> Result<Vec<Identity>>;
    /// A broker's devices whose job has a deadline and came to its state after `now`: by a clock that was put back since, so that
    /// nobody knows how late the deadline is. Enrolments and jobs that wait end with a certificate, and are left out.
    async fn dated_ahead(&self, broker: &BrokerId, now: Millis, limit: u32) -> Result<Vec<Identity>>;
    /// Declared and enrolled devices without an open job, whose `not_before` has passed, and whose certificates end soon, by
    /// end of validity and device id. Those that have expired are left out, as they cannot connect any more.
    async fn due(&self, fleet: &FleetKey, query: &DueQuery) -> Result<Vec<Identity>>;
    /// Declared devices whose job waits for them, the longest waiting first.
    async fn queued(&self, fleet: &FleetKey, limit: u32) -> Result<Vec<Identity>>;
    /// How many devices hold one of the fleet's slots, withdrawn ones included.
    async fn in_flight(&self, fleet: &FleetKey) -> Result<u32>;
    /// Counts a fleet's devices as they stand at `now`; online are those heard of at or after `online_after`.
    async fn counts(&self, fleet: &FleetKey, query: CountQuery) -> Result<FleetCounts>;

    // Projection.

    /// A broker's declared devices with a change that their objects do not show yet: at once if their job has ended, else if their
    /// last change came before `before`; the oldest change first.
    async fn unprojected(&self, broker: &BrokerId, limit: u32, before: Millis) -> Result<Vec<Device>>;
    /// The objects show these revisions now.
    async fn projected(&self, epoch: Epoch, shown: Vec<(Identity, u64)>) -> Result<()>;

    // Certificates.

    /// Records a certificate that is not issued by a device's job. The same one again changes nothing. Fails with `Restoring`
    /// while nothing is to be issued, `KeyReused`
    /// unless all certificates with this key have the same kind, other than `Device`, and the same holder.
    async fn record(&self, epoch: Epoch, certificate: CertificateRecord) -> Result<()>;
    /// One certificate.
    async fn certificate(&self, fingerprint: &Fingerprint) -> Result<Option<StoredCertificate>>;
    /// The latest certificate with this key (SHA-256 of the subject public key info).
    async fn certificate_by_key(&self, spki: &Fingerprint) -> Result<Option<StoredCertificate>>;
    /// The latest certificate of the CA with this key id (the holder of [`CertificateKind::Authority`] records).
    async fn authority(&self, key_id: &str) -> Result<Option<StoredCertificate>>;
    /// The key id that [`note_authority_key`](Self::note_authority_key) has noted for a CA's object.
    async fn authority_key(&self, object: &ObjectRef) -> Result<Option<String>>;
    /// Notes the key of a CA's object, once and for all: fails with `Conflict` if it had another one.
    async fn note_authority_key(&self, epoch: Epoch, object: ObjectRef, key_id: String) -> Result<()>;

    // CRLs.

    /// The CRL published last in a scope.
    async fn crl(&self, issuer: &str, partition: &str) -> Result<Option<CrlRecord>>;
    /// Stores a CRL in place of the one before, and notes it as the first to say all changes up to `covers` that no CRL of its
    /// scope said yet. Fails with `CrlNumber` unless its number is greater.
    async fn publish_crl(&self, epoch: Epoch, crl: CrlRecord, covers: u64, now: Millis) -> Result<()>;
    /// Every scope (issuer, partition) that has a CRL.
    async fn crl_scopes(&self) -> Result<Vec<(String, String)>>;
    /// The last change of any certificate's standing: read it before the lines of a CRL, which then covers at least that.
    async fn last_change(&self) -> Result<u64>;
    /// The lines of a CRL, by serial number, those after `after`.
    async fn crl_lines(&self, lines: &CrlLines, after: Option<&str>, limit: u32) -> Result<Vec<CrlLine>>;
    /// How far the CRLs published last in a scope reach, the newest first.
    async fn crl_covers(&self, issuer: &str, partition: &str, limit: u32) -> Result<Vec<CrlCover>>;
    /// Scopes (issuer, partition) with changes that their last CRL does not say yet. A scope without a CRL is not among them.
    async fn crls_behind(&self) -> Result<Vec<(String, String)>>;
    /// CRLs whose `nextUpdate` comes before a time (Unix seconds), the earliest first.
    async fn crls_before(&self, next_update_before: i64, limit: u32) -> Result<Vec<CrlRecord>>;
    /// Partition and number of each CRL of an issuer.
    async fn crl_numbers(&self, issuer: &str) -> Result<Vec<(String, u64)>>;

    // Revocation. Whatever changes a mark, its CRL, `shut_at` or `closed_at` makes the status of the device due, if the device is
    // declared ([`unprojected`](Self::unprojected)).

    /// Changes the standing of certificates, all in one transaction; answers for each mark those whose standing or
    /// holders changed. Fails with `NotFound` if a target is unknown. Who lives through a mark of all or of the current certificate
    /// by a person (any but a retirement's) has a session to be closed ([`open_sessions`](Self::open_sessions)).
    async fn mark(&self, epoch: Epoch, now: Millis, marks: Vec<Mark>) -> Result<Vec<Vec<Marked>>>;
    /// Takes over what `spec.revocation` says at present (`None`: nothing), once: the same again changes nothing, though the
    /// device may have new certificates by now, and neither does another date of misuse or request. Nothing any more releases a person's hold and takes no revocation back. Answers
    /// the certificates that changed.
    async fn declare_revocation(
        &self,
        epoch: Epoch,
        now: Millis,
        object: &ObjectRef,
        wanted: Option<DeclaredRevocation>,
        who: &str,
    ) -> Result<Vec<Marked>>;
    /// How far what was done in the name of a `Revocation` object (by uid) is.
    async fn revocation_progress(&self, uid: &str) -> Result<RevocationProgress> {
        let at = self.revocation_progress_at(uid).await?;
        Ok(at.into_iter().map(|(_, progress)| progress).sum())
    }
    /// The same for the devices of each broker; without one: what no device has, or is archived.
    async fn revocation_progress_at(&self, uid: &str) -> Result<Vec<(Option<BrokerId>, RevocationProgress)>>;
    /// The `Revocation` objects (uids) that keep certificates on hold.
    async fn holding_revocations(&self) -> Result<Vec<String>>;
    /// Devices of which a `Revocation` object (by uid) keeps certificates on hold.
    async fn held_by(&self, uid: &str, limit: u32) -> Result<Vec<Identity>>;
    /// A device's certificates that are or were marked, the last change first.
    async fn marked(&self, identity: &Identity, limit: u32) -> Result<Vec<Marked>>;
    /// One certificate's marks; `None` where it never had any.
    async fn marked_certificate(&self, key: &SerialKey) -> Result<Option<Marked>>;
    /// Devices of which a CA (by key id) issued certificates that have not expired and are not revoked, by device row.
    async fn issued_by(
        &self,
        issuer: &str,
        now_s: i64,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<(DeviceRow, Match)>>;
    /// Declared devices of a namespace (of one fleet, if named) with certificates that have not expired and are not revoked, by
    /// device row.
    async fn revocable(
        &self,
        namespace: &str,
        fleet: Option<&str>,
        now_s: i64,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<(DeviceRow, Match)>>;
    /// For OCSP: the standing of certificates of one CA, in order; `None`: never issued by it.
    async fn standings(&self, issuer: &str, serials: &[String]) -> Result<Vec<Option<SerialStatus>>>;
    /// Devices after one, by device row, with what they start from: certificates that are likely to be asked about.
    async fn in_use(&self, after: Option<DeviceRow>, limit: u32) -> Result<Vec<InUse>>;
    /// Changes of standing after one, in order.
    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>>;

    // Retirement. One is begun by [`Write::retirement`].

    /// A device's retirement that has not ended.
    async fn retirement(&self, identity: &Identity) -> Result<Option<Retirement>>;
    /// Retirements of a broker's devices whose `wake` has come, the longest overdue first: those whose certificates are on hold,
    /// or those that wait. Each kind is asked for by itself, so that many that wait keep nobody on hold for longer.
    async fn due_retirements(
        &self,
        broker: &BrokerId,
        holding: bool,
        now: Millis,
        limit: u32,
    ) -> Result<Vec<Retirement>>;
    /// How many retirements of a broker's devices have their certificates on hold.
    async fn holding(&self, broker: &BrokerId) -> Result<u32>;
    /// Stores a step of a retirement with the mark that belongs to it, in one transaction. Fails with `Conflict` unless the stored
    /// one is in `before` (phase and since), and where a certificate would go on hold while its device has a job. With
    /// [`Phase::Revoked`](certwave_core::retire::Phase::Revoked) the device forgets the old certificate, if that is its previous one.
    /// One that is released for a cause that [counts](certwave_core::retire::Why::counts) makes its member of the Rotation
    /// [`ProbationFailed`](MemberOutcome::ProbationFailed), if that is `Confirmed`.
    async fn step_retirement(
        &self,
        epoch: Epoch,
        now: Millis,
        before: (certwave_core::retire::Phase, Millis),
        after: Retirement,
        mark: Option<Mark>,
    ) -> Result<Vec<Marked>>;
    /// How the retirements of a Rotation stand.
    async fn retirement_counts(&self, uid: &str) -> Result<RetirementCounts>;

    // The door.

    /// Nodes have loaded CRLs. Marks whose CRL every one of the broker's `nodes` has loaded get their `shut_at`. What was loaded
    /// before and is not newer is ignored.
    async fn doors_loaded(&self, epoch: Epoch, loads: Vec<DoorLoad>, nodes: &[String]) -> Result<()>;
    /// What each node of a broker has loaded, by node, issuer and partition.
    async fn door_loads(&self, broker: &BrokerId) -> Result<Vec<DoorLoad>>;
    /// When each node of a broker had first loaded a CRL of a scope that covers a change.
    async fn loaded_since(
        &self,
        broker: &BrokerId,
        issuer: &str,
        partition: &str,
        change: u64,
    ) -> Result<Vec<(String, Millis)>>;
    /// Devices of a broker whose live sessions must be closed: those whose door is shut first, then the longest waiting.
    async fn open_sessions(&self, broker: &BrokerId, limit: u32) -> Result<Vec<OpenSession>>;
    /// The sessions of these devices were closed, or there were none, after the given change of standing was loaded.
    async fn sessions_closed(&self, epoch: Epoch, now: Millis, closed: Vec<(Identity, u64)>) -> Result<()>;

    // Recovery.

    /// Which ledger this is.
    async fn provenance(&self) -> Result<Provenance>;
    /// The hash of a line of the audit, by its number.
    async fn audit_hash(&self, line: u64) -> Result<Option<Fingerprint>>;
    /// It comes from a backup: nothing is issued until [`recovered`](Self::recovered), and every epoch so far, of whatever part, is
    /// over. Fails with `StaleEpoch` unless `last` is the last epoch of all.
    async fn mark_restored(&self, last: Epoch, now: Millis) -> Result<()>;
    /// Takes in certificates that it does not know, and marks those that it knows as good; what it knows as revoked stays so.
    /// A device whose current certificate turns out to be revoked, but for one that was only superseded, gets none until a person
    /// permits it. CRL numbers are never below `numbers` (issuer, partition, number) again. Answers how many were new.
    async fn take_in(
        &self,
        epoch: Epoch,
        now: Millis,
        certificates: Vec<TakenIn>,
        numbers: Vec<(String, String, u64)>,
    ) -> Result<u32>;
    /// All that could be taken in has been.
    async fn recovered(&self, epoch: Epoch, now: Millis) -> Result<()>;
    /// What the ledger holds. Counts everything: not for what is done often.
    async fn totals(&self) -> Result<Totals>;
    /// Moves certificates that ended before a time (Unix seconds) and that nobody refers to any more into the archive, where OCSP
    /// still finds them. Answers how many.
    async fn archive(&self, epoch: Epoch, ended_before_s: i64, limit: u32) -> Result<u32>;

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
    /// The same, but for planned members that wait for another job, which are `planned` here: costs the same however many those are.
    async fn wave_tallies(&self, uid: &str) -> Result<Vec<WaveCounts>>;
    /// Rotations that have not ended: uid, object, and the broker of their devices; none where they have no devices.
    async fn open_rotations(&self) -> Result<Vec<(String, ObjectRef, Option<BrokerId>)>>;
    /// The Rotation of a fleet that ended last.
    async fn last_rotation(&self, fleet: &FleetKey) -> Result<Option<ObjectRef>>;
    /// Blocks a template by what showed only after a Rotation (by uid) was complete, with a line of the audit; answers whether it was
    /// blocked just now. Nothing changes if a later Rotation of the fleet has ended, or this one's block stands.
    async fn block_template(
        &self,
        epoch: Epoch,
        uid: &str,
        template: &str,
        now: Millis,
        line: AuditEntry,
    ) -> Result<bool>;
    /// The template that is blocked for a fleet's automatic Rotations.
    async fn template_block(&self, fleet: &FleetKey) -> Result<Option<TemplateBlock>>;
    /// Skips the planned members without an open job whose certificate was issued after the one with which they became
    /// members, as another Rotation came between: what they hold is newer than what was asked for. Told by order, not by
    /// clocks. A Rotation that moves the fleet to another CA skips nobody. Answers how many.
    async fn skip_renewed(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32>;
    /// Skips the planned members without an open job whose certificate has expired meanwhile: they cannot connect any more,
    /// and no turn of theirs comes; gives up on sending back those whose previous certificate has, and those that went back by
    /// themselves. Answers how many. To be called now and then, lest the Rotation wait for them for ever.
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
    /// Checks the chain of hashes over the whole audit; answers how many lines it has and the last one's hash. Fails with
    /// `Corrupt`, naming the first line that does not fit.
    async fn verify_audit(&self) -> Result<(u64, Fingerprint)>;
    /// The latest lines about a device, the last first.
    async fn audit(&self, identity: &Identity, limit: u32) -> Result<Vec<AuditEntry>>;
}
