//! What the controller sees, and which part does it: reads run on a reader's connection, writes under the epoch.

use super::{
    SqlLedger, archive, audit, candidate, certificate, claim, crl, declare, device, door, mark, member, query, recover,
    renewed, retirement, revocation, rotation, standing, tally, term, waiting, write,
};
use crate::{
    AuditEntry, Candidate, CertificateRecord, Change, Claim, ClaimRecord, ClaimUse, CountQuery, CrlCover, CrlLine,
    CrlLines, CrlRecord, Declaration, Declared, DeclaredObject, DeclaredRevocation, DeviceRow, DoorLoad, DueQuery,
    FleetCounts, FleetKey, InUse, Ledger, Mark, Marked, Match, Member, MemberQuery, NewMember, OpenSession, Part,
    Provenance, Result, RevocationProgress, RotationExample, RotationOutcome, RotationRecord, RunWrite, SerialKey,
    SerialStatus, StoredCertificate, StoredRotation, TakenIn, TemplateBlock, Totals, Write,
};
use async_trait::async_trait;
use certwave_core::model::{Device, Identity, Millis, ObjectRef};
use certwave_core::retire::{Phase, Retirement, RetirementCounts};
use certwave_core::rollout::run::WaveCounts;
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Epoch, Fingerprint};

#[async_trait]
impl<D: Send + Sync + 'static> Ledger for SqlLedger<D> {
    async fn begin_term(&self, part: &Part, holder: &str, now: Millis) -> Result<Epoch> {
        let (part, holder) = (part.clone(), holder.to_owned());
        self.writer.run(move |db| term::take(db, &part, &holder, now)).await
    }

    async fn epoch(&self) -> Result<Epoch> {
        self.read(term::last).await
    }

    async fn is_present(&self, epoch: Epoch) -> Result<bool> {
        self.read(move |db| term::is_present(db, epoch)).await
    }

    fn waiting_writes(&self) -> usize {
        self.backlog()
    }

    async fn declare(&self, epoch: Epoch, now: Millis, declarations: Vec<Declaration>) -> Result<Vec<Declared>> {
        self.fenced(epoch, move |db, term| {
            term.devices(declarations.iter().map(|declaration| &declaration.identity))?;
            declare::declare(db, now, &declarations, term.broker())
        })
        .await
    }

    async fn withdraw(&self, epoch: Epoch, now: Millis, object: &ObjectRef) -> Result<Option<Identity>> {
        let object = object.clone();
        self.fenced(epoch, move |db, term| {
            declare::withdraw(db, now, &object, term.broker())
        })
        .await
    }

    async fn withdrawn_revocations(&self, broker: &BrokerId) -> Result<Vec<(ObjectRef, DeviceId)>> {
        let broker = broker.clone();
        self.survey(move |db| declare::withdrawn_revocations(db, &broker)).await
    }

    async fn declared_objects(
        &self,
        broker: &BrokerId,
        after: Option<&ObjectRef>,
        limit: u32,
    ) -> Result<Vec<DeclaredObject>> {
        let (broker, after) = (broker.clone(), after.cloned());
        self.survey(move |db| declare::objects(db, &broker, after.as_ref(), limit))
            .await
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
        self.fenced(epoch, move |db, term| {
            term.about(&write.device.id.broker)?;
            write::write(db, write)
        })
        .await
    }

    async fn overdue(&self, broker: &BrokerId, now: Millis, limit: u32) -> Result<Vec<Identity>> {
        let broker = broker.clone();
        self.read(move |db| query::overdue(db, &broker, now, limit)).await
    }

    async fn dated_ahead(&self, broker: &BrokerId, now: Millis, limit: u32) -> Result<Vec<Identity>> {
        let broker = broker.clone();
        self.read(move |db| query::dated_ahead(db, &broker, now, limit)).await
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

    async fn counts(&self, fleet: &FleetKey, query: CountQuery) -> Result<FleetCounts> {
        let fleet = fleet.clone();
        self.survey(move |db| query::counts(db, &fleet, query)).await
    }

    async fn unprojected(&self, broker: &BrokerId, limit: u32, before: Millis) -> Result<Vec<Device>> {
        let broker = broker.clone();
        self.read(move |db| query::unprojected(db, &broker, limit, before))
            .await
    }

    async fn projected(&self, epoch: Epoch, shown: Vec<(Identity, u64)>) -> Result<()> {
        self.fenced(epoch, move |db, term| {
            term.devices(shown.iter().map(|(identity, _)| identity))?;
            write::projected(db, &shown)
        })
        .await
    }

    async fn record(&self, epoch: Epoch, certificate: CertificateRecord) -> Result<()> {
        self.fenced(epoch, move |db, term| {
            term.devices(&certificate.identity)?;
            certificate::insert(db, &certificate).map(|_| ())
        })
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

    async fn authority_key(&self, object: &ObjectRef) -> Result<Option<String>> {
        let object = object.clone();
        self.read(move |db| certificate::authority_key(db, &object)).await
    }

    async fn note_authority_key(&self, epoch: Epoch, object: ObjectRef, key_id: String) -> Result<()> {
        self.fenced(epoch, move |db, _| {
            certificate::note_authority_key(db, &object, &key_id)
        })
        .await
    }

    async fn crl(&self, issuer: &str, partition: &str) -> Result<Option<CrlRecord>> {
        let (issuer, partition) = (issuer.to_owned(), partition.to_owned());
        self.read(move |db| crl::get(db, &issuer, &partition)).await
    }

    async fn publish_crl(&self, epoch: Epoch, crl: CrlRecord, covers: u64, now: Millis) -> Result<()> {
        self.fenced(epoch, move |db, _| crl::publish(db, &crl, covers, now))
            .await
    }

    async fn crls_before(&self, next_update_before: i64, limit: u32) -> Result<Vec<CrlRecord>> {
        self.read(move |db| crl::before(db, next_update_before, limit)).await
    }

    async fn crl_numbers(&self, issuer: &str) -> Result<Vec<(String, u64)>> {
        let issuer = issuer.to_owned();
        self.read(move |db| crl::numbers(db, &issuer)).await
    }

    async fn crl_scopes(&self) -> Result<Vec<(String, String)>> {
        self.read(crl::scopes).await
    }

    async fn last_change(&self) -> Result<u64> {
        self.read(mark::last).await
    }

    async fn crl_lines(&self, lines: &CrlLines, after: Option<&str>, limit: u32) -> Result<Vec<CrlLine>> {
        let (lines, after) = (lines.clone(), after.map(str::to_owned));
        self.survey(move |db| crl::lines(db, &lines, after.as_deref(), limit))
            .await
    }

    async fn crl_covers(&self, issuer: &str, partition: &str, limit: u32) -> Result<Vec<CrlCover>> {
        let (issuer, partition) = (issuer.to_owned(), partition.to_owned());
        self.read(move |db| crl::covers(db, &issuer, &partition, limit)).await
    }

    async fn crls_behind(&self) -> Result<Vec<(String, String)>> {
        self.read(crl::behind).await
    }

    async fn mark(&self, epoch: Epoch, now: Millis, marks: Vec<Mark>) -> Result<Vec<Vec<Marked>>> {
        self.fenced(epoch, move |db, term| {
            let marked = revocation::mark(db, now, &marks)?;
            term.devices(marked.iter().flatten().filter_map(|marked| marked.identity.as_ref()))?;
            Ok(marked)
        })
        .await
    }

    async fn declare_revocation(
        &self,
        epoch: Epoch,
        now: Millis,
        object: &ObjectRef,
        wanted: Option<DeclaredRevocation>,
        who: &str,
    ) -> Result<Vec<Marked>> {
        let (object, who) = (object.clone(), who.to_owned());
        self.fenced(epoch, move |db, term| {
            let marked = revocation::declare(db, now, &object, wanted.as_ref(), &who)?;
            term.devices(marked.iter().filter_map(|marked| marked.identity.as_ref()))?;
            Ok(marked)
        })
        .await
    }

    async fn revocation_progress_at(&self, uid: &str) -> Result<Vec<(Option<BrokerId>, RevocationProgress)>> {
        self.read_of(uid, standing::progress).await
    }

    async fn holding_revocations(&self) -> Result<Vec<String>> {
        self.read(standing::holding_revocations).await
    }

    async fn held_by(&self, uid: &str, limit: u32) -> Result<Vec<Identity>> {
        self.read_of(uid, move |db, uid| standing::held_by(db, uid, limit))
            .await
    }

    async fn marked(&self, identity: &Identity, limit: u32) -> Result<Vec<Marked>> {
        let identity = identity.clone();
        self.read(move |db| mark::of_device(db, &identity, limit)).await
    }

    async fn marked_certificate(&self, key: &SerialKey) -> Result<Option<Marked>> {
        let key = key.clone();
        self.read(move |db| mark::get(db, &key)).await
    }

    async fn issued_by(
        &self,
        issuer: &str,
        now_s: i64,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<(DeviceRow, Match)>> {
        let issuer = issuer.to_owned();
        self.survey(move |db| standing::issued_by(db, &issuer, now_s, after, limit))
            .await
    }

    async fn revocable(
        &self,
        namespace: &str,
        fleet: Option<&str>,
        now_s: i64,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<(DeviceRow, Match)>> {
        let (namespace, fleet) = (namespace.to_owned(), fleet.map(str::to_owned));
        self.survey(move |db| standing::revocable(db, &namespace, fleet.as_deref(), now_s, after, limit))
            .await
    }

    async fn standings(&self, issuer: &str, serials: &[String]) -> Result<Vec<Option<SerialStatus>>> {
        let (issuer, serials) = (issuer.to_owned(), serials.to_vec());
        self.read(move |db| standing::of_serials(db, &issuer, &serials)).await
    }

    async fn in_use(&self, after: Option<DeviceRow>, limit: u32) -> Result<Vec<InUse>> {
        self.read(move |db| standing::in_use(db, after, limit)).await
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>> {
        self.read(move |db| standing::changes(db, after, limit)).await
    }

    async fn retirement(&self, identity: &Identity) -> Result<Option<Retirement>> {
        let identity = identity.clone();
        self.read(move |db| retirement::open(db, &identity)).await
    }

    async fn due_retirements(
        &self,
        broker: &BrokerId,
        holding: bool,
        now: Millis,
        limit: u32,
    ) -> Result<Vec<Retirement>> {
        let broker = broker.clone();
        self.read(move |db| retirement::due(db, &broker, holding, now, limit))
            .await
    }

    async fn holding(&self, broker: &BrokerId) -> Result<u32> {
        let broker = broker.clone();
        self.read(move |db| retirement::holding(db, &broker)).await
    }

    async fn step_retirement(
        &self,
        epoch: Epoch,
        now: Millis,
        before: (Phase, Millis),
        after: Retirement,
        mark: Option<Mark>,
    ) -> Result<Vec<Marked>> {
        self.fenced(epoch, move |db, term| {
            term.about(&after.identity.broker)?;
            retirement::step(db, now, before, &after, mark.as_ref())
        })
        .await
    }

    async fn retirement_counts(&self, uid: &str) -> Result<RetirementCounts> {
        self.read_of(uid, retirement::counts).await
    }

    async fn doors_loaded(&self, epoch: Epoch, loads: Vec<DoorLoad>, nodes: &[String]) -> Result<()> {
        let nodes = nodes.to_vec();
        self.fenced(epoch, move |db, term| {
            loads.iter().try_for_each(|load| term.about(&load.broker))?;
            door::loaded(db, &loads, &nodes)
        })
        .await
    }

    async fn door_loads(&self, broker: &BrokerId) -> Result<Vec<DoorLoad>> {
        let broker = broker.clone();
        self.read(move |db| door::loads(db, &broker)).await
    }

    async fn loaded_since(
        &self,
        broker: &BrokerId,
        issuer: &str,
        partition: &str,
        change: u64,
    ) -> Result<Vec<(String, Millis)>> {
        let (broker, issuer, partition) = (broker.clone(), issuer.to_owned(), partition.to_owned());
        self.read(move |db| door::since(db, &broker, &issuer, &partition, change))
            .await
    }

    async fn open_sessions(&self, broker: &BrokerId, limit: u32) -> Result<Vec<OpenSession>> {
        let broker = broker.clone();
        self.read(move |db| door::open_sessions(db, &broker, limit)).await
    }

    async fn sessions_closed(&self, epoch: Epoch, now: Millis, closed: Vec<(Identity, u64)>) -> Result<()> {
        self.fenced(epoch, move |db, term| {
            term.devices(closed.iter().map(|(identity, _)| identity))?;
            door::closed(db, now, &closed)
        })
        .await
    }

    async fn provenance(&self) -> Result<Provenance> {
        self.read(recover::provenance).await
    }

    async fn audit_hash(&self, line: u64) -> Result<Option<Fingerprint>> {
        self.read(move |db| audit::hash(db, line)).await
    }

    async fn mark_restored(&self, last: Epoch, now: Millis) -> Result<()> {
        self.writer.run(move |db| recover::restored(db, last, now)).await
    }

    async fn take_in(
        &self,
        epoch: Epoch,
        now: Millis,
        certificates: Vec<TakenIn>,
        numbers: Vec<(String, String, u64)>,
    ) -> Result<u32> {
        self.fenced(epoch, move |db, _| recover::take_in(db, now, &certificates, &numbers))
            .await
    }

    async fn recovered(&self, epoch: Epoch, now: Millis) -> Result<()> {
        self.fenced(epoch, move |db, _| recover::recovered(db, now)).await
    }

    async fn totals(&self) -> Result<Totals> {
        self.survey(recover::totals).await
    }

    async fn archive(&self, epoch: Epoch, ended_before_s: i64, limit: u32) -> Result<u32> {
        self.fenced(epoch, move |db, _| archive::archive(db, ended_before_s, limit))
            .await
    }

    async fn verify_audit(&self) -> Result<(u64, Fingerprint)> {
        // Page by page, so that nobody waits long for the reader.
        let mut checked = audit::Checked::START;
        while let Some(next) = self.survey(move |db| audit::check(db, checked)).await? {
            checked = next;
        }
        Ok((checked.lines, checked.hash))
    }

    async fn upsert_claim(&self, epoch: Epoch, claim: ClaimRecord) -> Result<()> {
        self.fenced(epoch, move |db, term| {
            term.about(&claim.broker)?;
            claim::upsert(db, &claim)
        })
        .await
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
        self.survey(move |db| claim::uses(db, &broker, &name, limit)).await
    }

    async fn candidates(
        &self,
        fleet: &FleetKey,
        now: Millis,
        after: Option<DeviceRow>,
        limit: u32,
    ) -> Result<Vec<Candidate>> {
        let fleet = fleet.clone();
        self.survey(move |db| candidate::of_fleet(db, &fleet, now, after, limit))
            .await
    }

    async fn begin_rotation(&self, epoch: Epoch, rotation: RotationRecord, members: Vec<NewMember>) -> Result<u32> {
        self.fenced(epoch, move |db, term| {
            let members = rotation::begin(db, &rotation, &members)?;
            term.rotation(db, &rotation.uid)?;
            Ok(members)
        })
        .await
    }

    async fn write_run(&self, epoch: Epoch, uid: &str, now: Millis, write: RunWrite) -> Result<()> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db, term| {
            term.rotation(db, &uid)?;
            rotation::write_run(db, &uid, now, &write)
        })
        .await
    }

    async fn rotation(&self, uid: &str) -> Result<Option<StoredRotation>> {
        self.read_of(uid, rotation::get).await
    }

    async fn strangers(&self, uid: &str, now: Millis, after: Option<DeviceRow>, limit: u32) -> Result<Vec<Candidate>> {
        self.survey_of(uid, move |db, uid| candidate::strangers(db, uid, now, after, limit))
            .await
    }

    async fn waiting_members(&self, uid: &str, query: &MemberQuery) -> Result<Vec<Member>> {
        let (uid, query) = (uid.to_owned(), query.clone());
        self.read(move |db| waiting::members(db, &uid, &query)).await
    }

    async fn retryable(&self, uid: &str, now: Millis, max_retries: u32, limit: u32) -> Result<Vec<Identity>> {
        self.read_of(uid, move |db, uid| member::retryable(db, uid, now, max_retries, limit))
            .await
    }

    async fn reverting(&self, uid: &str, now: Millis, limit: u32) -> Result<Vec<Identity>> {
        self.read_of(uid, move |db, uid| member::reverting(db, uid, now, limit))
            .await
    }

    async fn member(&self, uid: &str, identity: &Identity) -> Result<Option<Member>> {
        let (uid, identity) = (uid.to_owned(), identity.clone());
        self.read(move |db| member::get(db, &uid, &identity)).await
    }

    async fn groups_in_use(&self, uid: &str) -> Result<Vec<(String, u32)>> {
        self.read_of(uid, tally::groups_in_use).await
    }

    async fn groups_elsewhere(&self, fleet: &FleetKey, uid: Option<&str>, label: &str) -> Result<Vec<(String, u32)>> {
        let (fleet, uid, label) = (fleet.clone(), uid.map(str::to_owned), label.to_owned());
        self.read(move |db| query::groups_elsewhere(db, &fleet, uid.as_deref(), &label))
            .await
    }

    async fn remaining(&self, uid: &str) -> Result<Vec<(i64, u32)>> {
        self.survey_of(uid, tally::remaining).await
    }

    async fn expiring_members(&self, uid: &str, before_s: i64, limit: u32) -> Result<Vec<Identity>> {
        self.survey_of(uid, move |db, uid| member::expiring(db, uid, before_s, limit))
            .await
    }

    async fn wave_counts(&self, uid: &str) -> Result<Vec<WaveCounts>> {
        self.survey_of(uid, tally::waves).await
    }

    async fn wave_tallies(&self, uid: &str) -> Result<Vec<WaveCounts>> {
        self.read_of(uid, tally::tallies).await
    }

    async fn open_rotations(&self) -> Result<Vec<(String, ObjectRef, Option<BrokerId>)>> {
        self.read(rotation::open).await
    }

    async fn last_rotation(&self, fleet: &FleetKey) -> Result<Option<ObjectRef>> {
        let fleet = fleet.clone();
        self.read(move |db| rotation::last(db, &fleet)).await
    }

    async fn block_template(
        &self,
        epoch: Epoch,
        uid: &str,
        template: &str,
        now: Millis,
        line: AuditEntry,
    ) -> Result<bool> {
        let (uid, template) = (uid.to_owned(), template.to_owned());
        self.fenced(epoch, move |db, term| {
            term.rotation(db, &uid)?;
            rotation::block_late(db, &uid, &template, now, line)
        })
        .await
    }

    async fn template_block(&self, fleet: &FleetKey) -> Result<Option<TemplateBlock>> {
        let fleet = fleet.clone();
        self.read(move |db| rotation::template_block(db, &fleet)).await
    }

    async fn skip_renewed(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32> {
        renewed::skip(self, epoch, uid, now).await
    }

    async fn skip_expired(&self, epoch: Epoch, uid: &str, now: Millis) -> Result<u32> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db, term| {
            term.rotation(db, &uid)?;
            member::skip_expired(db, &uid, now)
        })
        .await
    }

    async fn rotation_examples(&self, uid: &str, limit: u32) -> Result<Vec<RotationExample>> {
        self.read_of(uid, move |db, uid| member::examples(db, uid, limit)).await
    }

    async fn end_rotation(&self, epoch: Epoch, uid: &str, outcome: RotationOutcome, now: Millis) -> Result<()> {
        let uid = uid.to_owned();
        self.fenced(epoch, move |db, term| {
            term.rotation(db, &uid)?;
            rotation::end(db, &uid, outcome, now)
        })
        .await
    }

    async fn append_audit(&self, epoch: Epoch, entries: Vec<AuditEntry>) -> Result<()> {
        self.fenced(epoch, move |db, _| audit::append(db, &entries)).await
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
