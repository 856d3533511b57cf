//! The ledger in one `SQLite` file (WAL, `synchronous=FULL`).
//!
//! One thread writes: it takes all operations that wait, runs each in a savepoint of one transaction, commits once and then
//! answers them. Two threads read, each from its own read-only connection, so that a long count holds up no decision.

mod audit;
mod candidate;
mod certificate;
mod claim;
mod column;
mod crl;
mod declare;
mod device;
mod enlist;
mod member;
mod open;
mod outcome;
mod query;
mod reader;
mod rotation;
mod tally;
mod waiting;
mod write;
mod writer;

use std::path::Path;
use std::thread::JoinHandle;

use async_trait::async_trait;
use certwave_core::model::{Device, Identity, Millis, ObjectRef};
use certwave_core::rollout::run::WaveCounts;
use certwave_protocol::ids::{BrokerId, ClaimName, Epoch, Fingerprint};
use rusqlite::Connection;

use crate::{
    AuditEntry, Candidate, CertificateRecord, Claim, ClaimRecord, ClaimUse, CrlRecord, Declaration, Declared,
    DeclaredObject, DeviceRow, DueQuery, FleetCounts, FleetKey, Ledger, LedgerError, Member, MemberQuery, NewMember,
    Result, RotationExample, RotationOutcome, RotationRecord, RunWrite, StoredCertificate, StoredRotation,
    TemplateBlock, Write,
};

/// How to open a [`SqliteLedger`].
#[derive(Debug, Clone, Default)]
pub struct SqliteOptions {
    /// The size that the file may reach, in bytes; then writes fail with [`LedgerError::Full`]. The write-ahead log comes on
    /// top.
    pub max_bytes: Option<u64>,
    /// Read the whole file and check it (`PRAGMA quick_check`) before opening; about a second per 500 MB.
    pub check: bool,
}

/// The ledger in one `SQLite` file.
#[derive(Debug)]
pub struct SqliteLedger {
    writer: writer::Writer,
    readers: reader::Readers,
    /// The readers', then the writer's.
    threads: Vec<JoinHandle<()>>,
}

impl SqliteLedger {
    /// Opens the file, creates it (mode 0600) or migrates it. Blocks.
    ///
    /// One process at a time: a lock beside the file (`<file>-lock`) keeps a second one out, which fails with `Unavailable`
    /// and may try again. Epochs would fence two writers too, but two processes on one file usually means two pods on one
    /// network volume, where `SQLite`'s own locks cannot be relied on. The lock ends with the process, however it ends.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &SqliteOptions::default())
    }

    /// As [`open`](Self::open), with options.
    pub fn open_with(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self> {
        let path = path.as_ref();
        let opened = open::writer(path, options)?;
        let (readers, mut threads) = reader::start(path)?;
        let (writer, thread) = writer::start(opened)?;
        threads.push(thread);
        Ok(Self {
            writer,
            readers,
            threads,
        })
    }

    /// Waits for what is under way and closes the file. Without it, dropping the ledger does the same in the background.
    pub async fn close(self) {
        let Self {
            writer,
            readers,
            mut threads,
        } = self;
        let join = tokio::task::spawn_blocking(move || {
            // The writer comes last: as the last connection it moves the write-ahead log into the file.
            let last = threads.pop();
            drop(readers);
            for thread in threads {
                ended(thread);
            }
            drop(writer);
            if let Some(last) = last {
                ended(last);
            }
        });
        if join.await.is_err() {
            tracing::error!("closing the ledger was interrupted");
        }
    }

    /// Operations that wait for the writer, for a metric.
    pub fn backlog(&self) -> usize {
        self.writer.backlog()
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.run(work).await
    }

    async fn fenced<T, F>(&self, epoch: Epoch, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.writer
            .run(move |db| {
                let present = audit::epoch(db)?;
                if present != epoch {
                    return Err(LedgerError::StaleEpoch { given: epoch, present });
                }
                work(db)
            })
            .await
    }
}

fn ended(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the ledger panicked");
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn take_epoch(&self, holder: &str, now: Millis) -> Result<Epoch> {
        let holder = holder.to_owned();
        self.writer.run(move |db| audit::take_epoch(db, &holder, now)).await
    }

    async fn epoch(&self) -> Result<Epoch> {
        self.read(audit::epoch).await
    }

    async fn declare(&self, epoch: Epoch, now: Millis, declarations: Vec<Declaration>) -> Result<Vec<Declared>> {
        self.fenced(epoch, move |db| declare::declare(db, now, &declarations))
            .await
    }

    async fn withdraw(&self, epoch: Epoch, now: Millis, object: &ObjectRef) -> Result<Option<Identity>> {
        let object = object.clone();
        self.fenced(epoch, move |db| declare::withdraw(db, now, &object)).await
    }

    async fn declared_objects(&self, after: Option<&ObjectRef>, limit: u32) -> Result<Vec<DeclaredObject>> {
        let after = after.cloned();
        self.read(move |db| declare::objects(db, after.as_ref(), limit)).await
    }

    async fn device(&self, identity: &Identity) -> Result<Option<Device>> {
        let identity = identity.clone();
        self.read(move |db| device::by_identity(db, &identity)).await
    }

    async fn device_by_object(&self, object: &ObjectRef) -> Result<Option<Device>> {
        let object = object.clone();
        self.read(move |db| device::by_object(db, &object)).await
    }

    async fn write(&self, epoch: Epoch, write: Write) -> Result<u64> {
        self.fenced(epoch, move |db| write::write(db, write)).await
    }

    async fn overdue(&self, now: Millis, limit: u32) -> Result<Vec<Identity>> {
        self.read(move |db| query::overdue(db, now, limit)).await
    }

    async fn due(&self, fleet: &FleetKey, query: &DueQuery) -> Result<Vec<Identity>> {
        let (fleet, query) = (fleet.clone(), query.clone());
        self.read(move |db| query::due(db, &fleet, &query)).await
    }

    async fn queued(&self, fleet: &FleetKey, limit: u32) -> Result<Vec<Identity>> {
        let fleet = fleet.clone();
        self.read(move |db| query::queued(db, &fleet, limit)).await
    }

    async fn in_flight(&self, fleet: &FleetKey) -> Result<u32> {
        let fleet = fleet.clone();
        self.read(move |db| query::in_flight(db, &fleet)).await
    }

    async fn counts(&self, fleet: &FleetKey, now: Millis, online_after: Millis) -> Result<FleetCounts> {
        let fleet = fleet.clone();
        self.read(move |db| query::counts(db, &fleet, now, online_after)).await
    }

    async fn unprojected(&self, limit: u32, before: Millis) -> Result<Vec<Device>> {
        self.read(move |db| query::unprojected(db, limit, before)).await
    }

    async fn projected(&self, epoch: Epoch, shown: Vec<(Identity, u64)>) -> Result<()> {
        self.fenced(epoch, move |db| write::projected(db, &shown)).await
    }

    async fn record(&self, epoch: Epoch, certificate: CertificateRecord) -> Result<()> {
        self.fenced(epoch, move |db| certificate::insert(db, &certificate).map(|_| ()))
            .await
    }

    async fn certificate(&self, fingerprint: &Fingerprint) -> Result<Option<StoredCertificate>> {
        let fingerprint = *fingerprint;
        self.read(move |db| certificate::by_fingerprint(db, &fingerprint)).await
    }

    async fn certificate_by_key(&self, spki: &Fingerprint) -> Result<Option<StoredCertificate>> {
        let spki = *spki;
        self.read(move |db| certificate::by_key(db, &spki)).await
    }

    async fn authority(&self, key_id: &str) -> Result<Option<StoredCertificate>> {
        let key_id = key_id.to_owned();
        self.read(move |db| certificate::authority(db, &key_id)).await
    }

    async fn crl(&self, issuer: &str, partition: &str) -> Result<Option<CrlRecord>> {
        let (issuer, partition) = (issuer.to_owned(), partition.to_owned());
        self.read(move |db| crl::get(db, &issuer, &partition)).await
    }

    async fn publish_crl(&self, epoch: Epoch, crl: CrlRecord) -> Result<()> {
        self.fenced(epoch, move |db| crl::publish(db, &crl)).await
    }

    async fn crls_before(&self, next_update_before: i64, limit: u32) -> Result<Vec<CrlRecord>> {
        self.read(move |db| crl::before(db, next_update_before, limit)).await
    }

    async fn crl_numbers(&self, issuer: &str) -> Result<Vec<(String, u64)>> {
        let issuer = issuer.to_owned();
        self.read(move |db| crl::numbers(db, &issuer)).await
    }

    async fn upsert_claim(&self, epoch: Epoch, claim: ClaimRecord) -> Result<()> {
        self.fenced(epoch, move |db| claim::upsert(db, &claim)).await
    }

    async fn claim(&self, broker: &BrokerId, name: &ClaimName) -> Result<Option<Claim>> {
        let (broker, name) = (broker.clone(), name.clone());
        self.read(move |db| claim::get(db, &broker, &name)).await
    }

    async fn claims(&self, fleet: &FleetKey) -> Result<Vec<Claim>> {
        let fleet = fleet.clone();
        self.read(move |db| claim::of_fleet(db, &fleet)).await
    }

    async fn claim_uses(&self, broker: &BrokerId, name: &ClaimName, limit: u32) -> Result<Vec<ClaimUse>> {
        let (broker, name) = (broker.clone(), name.clone());
        self.read(move |db| claim::uses(db, &broker, &name, limit)).await
    }

    async fn candidates(
        &self,
        fleet: &FleetKey,
        now: Millis,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<Candidate>> {
        let fleet = fleet.clone();
        self.read(move |db| candidate::of_fleet(db, &fleet, now, after, limit))
            .await
    }

    async fn begin_rotation(&self, epoch: Epoch, rotation: RotationRecord, members: Vec<NewMember>) -> Result<u32> {
        self.fenced(epoch, move |db| rotation::begin(db, &rotation, &members))
            .await
    }

    async fn write_run(&self, epoch: Epoch, uid: &str, now: Millis, write: RunWrite) -> Result<()> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db| rotation::write_run(db, &uid, now, &write))
            .await
    }

    async fn rotation(&self, uid: &str) -> Result<Option<StoredRotation>> {
        let uid = uid.to_owned();
        self.read(move |db| rotation::get(db, &uid)).await
    }

    async fn strangers(&self, uid: &str, now: Millis, after: Option<DeviceRow>, limit: u32) -> Result<Vec<Candidate>> {
        let uid = uid.to_owned();
        self.read(move |db| candidate::strangers(db, &uid, now, after, limit))
            .await
    }

    async fn waiting_members(&self, uid: &str, query: &MemberQuery) -> Result<Vec<Member>> {
        let (uid, query) = (uid.to_owned(), query.clone());
        self.read(move |db| waiting::members(db, &uid, &query)).await
    }

    async fn retryable(&self, uid: &str, now: Millis, max_retries: u32, limit: u32) -> Result<Vec<Identity>> {
        let uid = uid.to_owned();
        self.read(move |db| member::retryable(db, &uid, now, max_retries, limit))
            .await
    }

    async fn reverting(&self, uid: &str, now: Millis, limit: u32) -> Result<Vec<Identity>> {
        let uid = uid.to_owned();
        self.read(move |db| member::reverting(db, &uid, now, limit)).await
    }

    async fn member(&self, uid: &str, identity: &Identity) -> Result<Option<Member>> {
        let (uid, identity) = (uid.to_owned(), identity.clone());
        self.read(move |db| member::get(db, &uid, &identity)).await
    }

    async fn groups_in_use(&self, uid: &str) -> Result<Vec<(String, u32)>> {
        let uid = uid.to_owned();
        self.read(move |db| tally::groups_in_use(db, &uid)).await
    }

    async fn groups_elsewhere(&self, fleet: &FleetKey, uid: Option<&str>, label: &str) -> Result<Vec<(String, u32)>> {
        let (fleet, uid, label) = (fleet.clone(), uid.map(str::to_owned), label.to_owned());
        self.read(move |db| query::groups_elsewhere(db, &fleet, uid.as_deref(), &label))
            .await
    }

    async fn remaining(&self, uid: &str) -> Result<Vec<(i64, u32)>> {
        let uid = uid.to_owned();
        self.read(move |db| tally::remaining(db, &uid)).await
    }

    async fn expiring_members(&self, uid: &str, before_s: i64, limit: u32) -> Result<Vec<Identity>> {
        let uid = uid.to_owned();
        self.read(move |db| member::expiring(db, &uid, before_s, limit)).await
    }

    async fn wave_counts(&self, uid: &str) -> Result<Vec<WaveCounts>> {
        let uid = uid.to_owned();
        self.read(move |db| tally::waves(db, &uid)).await
    }

    async fn open_rotations(&self) -> Result<Vec<(String, ObjectRef)>> {
        self.read(rotation::open).await
    }

    async fn last_rotation(&self, fleet: &FleetKey) -> Result<Option<ObjectRef>> {
        let fleet = fleet.clone();
        self.read(move |db| rotation::last(db, &fleet)).await
    }

    async fn template_block(&self, fleet: &FleetKey) -> Result<Option<TemplateBlock>> {
        let fleet = fleet.clone();
        self.read(move |db| rotation::template_block(db, &fleet)).await
    }

    async fn skip_renewed(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db| member::skip_renewed(db, &uid, now)).await
    }

    async fn skip_expired(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db| member::skip_expired(db, &uid, now)).await
    }

    async fn rotation_examples(&self, uid: &str, limit: u32) -> Result<Vec<RotationExample>> {
        let uid = uid.to_owned();
        self.read(move |db| member::examples(db, &uid, limit)).await
    }

    async fn end_rotation(&self, epoch: Epoch, uid: &str, outcome: RotationOutcome, now: Millis) -> Result<()> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db| rotation::end(db, &uid, outcome, now))
            .await
    }

    async fn append_audit(&self, epoch: Epoch, entries: Vec<AuditEntry>) -> Result<()> {
        self.fenced(epoch, move |db| audit::append(db, &entries)).await
    }

    async fn audit(&self, identity: &Identity, limit: u32) -> Result<Vec<AuditEntry>> {
        let identity = identity.clone();
        self.read(move |db| audit::of_device(db, &identity, limit)).await
    }

    async fn jobs_sent(&self, fleet: &FleetKey, since: Millis) -> Result<u32> {
        let fleet = fleet.clone();
        self.read(move |db| audit::jobs_sent(db, &fleet, since)).await
    }
}
