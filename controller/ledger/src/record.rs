//! What goes into the ledger and comes out of it. Times are Unix milliseconds unless a name or its docs say otherwise.

use std::collections::BTreeMap;

use certwave_core::model::{Credential, Device, Identity, Millis, ObjectRef};
use certwave_core::retire::Retirement;
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Fingerprint, JobId};

use crate::{Mark, MemberOutcome};

/// A Fleet by its object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FleetKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FleetKey {
    /// The fleet of a device.
    pub fn of(device: &Device) -> Self {
        Self {
            namespace: device.object.namespace.clone(),
            name: device.fleet.clone(),
        }
    }
}

/// What a `DeviceCertificate` object declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The device.
    pub identity: Identity,
    /// The object.
    pub object: ObjectRef,
    /// The object's uid; another one means that it was deleted and made anew.
    pub uid: String,
    /// Its Fleet's name, in the object's namespace.
    pub fleet: String,
    /// The object's labels: site, model, ring.
    pub labels: BTreeMap<String, String>,
    /// The one-time permit to enrol again.
    pub reenrol: Option<String>,
}

/// What became of a [`Declaration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// The ledger had no such device, or one that was withdrawn.
    New,
    /// Nothing changed.
    Unchanged,
    /// Fleet, labels, permit or uid changed.
    Changed,
    /// Another object declares this identity, or did when the device enrolled; nothing changed.
    Duplicate {
        /// That object.
        holder: ObjectRef,
    },
    /// The object declared a device of another broker before, which only that broker's holder can withdraw; nothing changed.
    Elsewhere {
        /// That broker.
        broker: BrokerId,
    },
}

/// An object that declares a device at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredObject {
    /// The object.
    pub object: ObjectRef,
    /// Its uid as last seen.
    pub uid: String,
    /// The device.
    pub identity: Identity,
    /// A revocation or hold that the object declared was taken over, and that it declares none any more was not.
    pub revocation: bool,
}

/// One decision about one device: everything in it is stored, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The device as it shall be, with the revision that was read. Identity, object, fleet belong to `declare` and are not
    /// written. Credentials must be in the ledger, or come as `certificate`. A job that is waiting
    /// ([`Queued`](certwave_core::model::JobState::Queued)) while the device is no longer declared is stored as cancelled.
    pub device: Device,
    /// When this was decided.
    pub now: Millis,
    /// A certificate just issued to the device.
    pub certificate: Option<CertificateRecord>,
    /// A certificate that is about to be sent to the device: from now on it may be out there.
    pub sent_certificate: Option<Fingerprint>,
    /// The use of a claim that this enrolment counts as.
    pub claim_use: Option<ClaimUse>,
    /// How the device stands in the Rotation that its job belongs to. `None`: as the job's state says, a cancelled one being
    /// skipped, and one whose trust job is confirmed being planned again. [`MemberOutcome::Planned`] keeps the device in line
    /// for another attempt, with a rollback job for going back; not once it has left the fleet or the Rotation has ended. One
    /// that timed out or was lost stays so, whatever is given, while its next job has not been accepted.
    pub member: Option<MemberOutcome>,
    /// The retirement of the certificate that this step has replaced. One of the same device that is still open is released.
    pub retirement: Option<Retirement>,
    /// What becomes of a certificate by this step: one that the device has gone back from is revoked.
    pub mark: Option<Mark>,
    /// Whether the change is one that the object's status should show.
    pub project: bool,
    /// What to tell the audit.
    pub audit: Vec<AuditEntry>,
}

impl Write {
    /// A write of `device` alone, which the object's status should show.
    pub fn of(device: Device, now: Millis) -> Self {
        Self {
            device,
            now,
            certificate: None,
            sent_certificate: None,
            claim_use: None,
            member: None,
            retirement: None,
            mark: None,
            project: true,
            audit: Vec::new(),
        }
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificateKind {
    /// A device's own.
    Device,
    /// A claim's.
    Claim,
    /// The controller's client certificate at a broker.
    Controller,
    /// Signs what the controller says to devices.
    Control,
    /// A broker's server certificate.
    Server,
    /// Signs a CA's OCSP answers.
    OcspSigner,
    /// A CA's.
    Authority,
}

/// A certificate that was issued. Times of validity are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// SHA-256 of `der`.
    pub fingerprint: Fingerprint,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// The issuer's key id, lower-case hexadecimal.
    pub issuer: String,
    /// SHA-256 of `public_key`.
    pub spki: Fingerprint,
    /// The subject public key info, DER.
    pub public_key: Vec<u8>,
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// What it is for.
    pub kind: CertificateKind,
    /// Who holds it, for people and for telling a renewal from a key used twice: a deviceId, claim, broker or object.
    pub holder: String,
    /// The device, for [`CertificateKind::Device`].
    pub identity: Option<Identity>,
    /// The job in which it was issued.
    pub job: Option<JobId>,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// When it was issued.
    pub issued_at: Millis,
}

impl From<&CertificateRecord> for Credential {
    fn from(record: &CertificateRecord) -> Self {
        Self {
            fingerprint: record.fingerprint,
            spki: record.spki,
            serial: record.serial.clone(),
            issuer: record.issuer.clone(),
            not_before: record.not_before,
            not_after: record.not_after,
            public_key: record.public_key.clone(),
        }
    }
}

/// A certificate with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// As issued.
    pub record: CertificateRecord,
    /// When it was first about to be sent to its device.
    pub sent_at: Option<Millis>,
    /// When it first became its device's current one.
    pub confirmed_at: Option<Millis>,
}

/// Which devices of a fleet are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueQuery {
    /// The present time; devices whose `not_before` lies ahead are left out.
    pub now: Millis,
    /// A current certificate that ends before this (Unix seconds) makes a device due.
    pub expires_before_s: i64,
    /// Devices whose last job went wrong are due only when their certificates end before this (Unix seconds).
    pub failed_before_s: i64,
    /// At most so many.
    pub limit: u32,
}

/// What devices are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountQuery {
    /// Certificates have expired by this time.
    pub now: Millis,
    /// Devices heard since then are online.
    pub online_after: Millis,
    /// Certificates that end before count as expiring, Unix seconds.
    pub expiring_before_s: i64,
}

/// The devices of a fleet, counted. Only declared ones count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// All.
    pub total: u32,
    /// By [`DeviceState`](certwave_core::model::DeviceState).
    pub declared: u32,
    /// As above.
    pub enrolling: u32,
    /// As above.
    pub active: u32,
    /// As above.
    pub rotating: u32,
    /// As above.
    pub failed: u32,
    /// As above.
    pub expired: u32,
    /// With a job that waits for them (whatever the state above).
    pub offline: u32,
    /// Holding a slot of `maxInFlight` (whatever the state above).
    pub in_flight: u32,
    /// Heard of since the time asked about (whatever the state above).
    pub online: u32,
    /// Revoked, until a person permits them to enrol again (whatever the state above).
    pub revoked: u32,
    /// On hold (whatever the state above).
    pub held: u32,
    /// With a job that was lost (whatever the state above).
    pub lost: u32,
    /// With a current certificate that ends before the time asked about, and has not yet; those on hold or revoked left out.
    pub expiring: u32,
    /// The earliest end of a current certificate that has not expired, Unix seconds.
    pub next_expiry: Option<i64>,
}

/// A claim as its Fleet declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The broker; a claim's name is unique below it.
    pub broker: BrokerId,
    /// The Fleet that declares it.
    pub fleet: FleetKey,
    /// Its name.
    pub name: ClaimName,
    /// The only device that may use it, if it is bound.
    pub device: Option<DeviceId>,
    /// How many different devices may use it.
    pub quota: Option<u32>,
    /// When it ends.
    pub not_after: Millis,
    /// A person stopped it, or it is gone from its Fleet.
    pub suspended: bool,
    /// Its certificate, once issued.
    pub certificate: Option<Fingerprint>,
    /// Subject public key info, DER: verifies `enrol` messages.
    pub public_key: Vec<u8>,
    /// SHA-256 of `public_key`.
    pub spki: Fingerprint,
}

/// A claim and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// As declared.
    pub record: ClaimRecord,
    /// Different devices that have used it.
    pub used: u32,
    /// The last use.
    pub last_used: Option<Millis>,
}

/// One use of a claim. The same device may use it again (answers are lost, keys made anew): recorded, not counted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    /// The broker.
    pub broker: BrokerId,
    /// The claim.
    pub claim: ClaimName,
    /// Who used it.
    pub device: DeviceId,
    /// The job that enrols the device.
    pub job: JobId,
    /// When.
    pub at: Millis,
}

/// A published CRL. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlRecord {
    /// The issuer's key id, lower-case hexadecimal.
    pub issuer: String,
    /// The partition: UTC month of the leaves' end, `YYYY-MM`, or `ca`.
    pub partition: String,
    /// CRL number.
    pub number: u64,
    /// `thisUpdate`, Unix seconds.
    pub this_update: i64,
    /// `nextUpdate`, Unix seconds.
    pub next_update: i64,
    /// The CRL, DER.
    pub der: Vec<u8>,
}

/// One line of the audit. It is never changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Millis,
    /// Who: `controller`, `device`, a claim or a person.
    pub who: String,
    /// What happened, in a word or two of a closed set.
    pub what: String,
    /// To which device.
    pub identity: Option<Identity>,
    /// In which job.
    pub job: Option<JobId>,
    /// For people.
    pub detail: Option<String>,
}
