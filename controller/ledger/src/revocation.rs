//! Holds, revocations and what has become of them. Times are Unix milliseconds unless a name or its docs say otherwise.

use std::collections::BTreeMap;

use certwave_core::model::{Identity, Millis, ObjectRef};
use certwave_core::revocation::{Holder, Reason, Standing};
use certwave_protocol::ids::{BrokerId, Fingerprint};

use crate::DeviceRow;

/// A certificate by what CRLs and OCSP know it by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialKey {
    /// The issuer's key id, lower-case hexadecimal.
    pub issuer: String,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
}

/// What is to happen to certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Revoke for good. What is revoked already stays as it is.
    Revoke {
        /// Why.
        reason: Reason,
        /// Since when the key may have been misused, Unix seconds (`invalidityDate`, RFC 5280, 5.3.2).
        invalid_since: Option<i64>,
    },
    /// One more holder. Changes nothing where the certificate is revoked.
    Hold(Holder),
    /// One holder less; the last one to let go makes the certificate good again.
    Release(Holder),
}

/// Whose certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All of a device that have not expired, those that are issued and not proven too. A person's hold or revocation also
    /// bars the device: its open job is cancelled if it was not accepted, unused permits count as used, and it gets no
    /// certificate until it is released, or a permit given later is used. Retirement bars nobody.
    Device(Identity),
    /// One of a device's, by serial number; bars nobody unless it is the device's current one.
    DeviceSerial(Identity, String),
    /// Those of a device that a CA (by key id) has issued and that have not expired; bars nobody unless its current one is among
    /// them. What another CA has issued to it since goes on to work.
    DeviceIssuedBy(Identity, String),
    /// One, whoever holds it (a subordinate CA's, a claim's).
    Certificate(Fingerprint),
    /// Those of the CA with this key id that have not expired: a renewed one has the same key.
    Authority(String),
}

/// One change of standing. All of it is stored, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose certificates.
    pub target: Target,
    /// What happens to them.
    pub act: Act,
    /// When a person asked for it.
    pub requested_at: Millis,
    /// Who, for the audit.
    pub who: String,
    /// For people, for the audit.
    pub detail: Option<String>,
    /// The `Revocation` object (uid) in whose name this happens, if one: it is kept with the certificates that change, for
    /// [`Ledger::revocation_progress`](crate::Ledger::revocation_progress).
    pub revocation: Option<String>,
}

/// A certificate that is or was on hold or revoked, and how far the world has heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Which.
    pub key: SerialKey,
    /// SHA-256 of it; `None` where only its serial number is known, after a restore.
    pub fingerprint: Option<Fingerprint>,
    /// Whose it is, if a device's.
    pub identity: Option<Identity>,
    /// The CRL partition that lists it.
    pub partition: String,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// How it stands.
    pub standing: Standing,
    /// Who holds it.
    pub holders: Vec<Holder>,
    /// Who has changed its standing last.
    pub author: Author,
    /// Rises with each change of any certificate: a CRL that [`covers`](CrlCover::covers) it says what stands here.
    pub change: u64,
    /// When it was asked for.
    pub requested_at: Millis,
    /// When it came into the ledger.
    pub recorded_at: Millis,
    /// The first CRL that says so: its number, and when it was published.
    pub crl: Option<(u64, Millis)>,
    /// When every node of its device's broker had loaded that.
    pub shut_at: Option<Millis>,
    /// When its device's live session was closed, or there was none.
    pub closed_at: Option<Millis>,
}

impl Marked {
    /// Whether a person asked for what stands here: not what a rotation has left behind.
    pub fn by_person(&self) -> bool {
        match self.standing {
            Standing::Held { .. } => self
                .holders
                .iter()
                .any(|holder| !matches!(holder, Holder::Retirement(_))),
            Standing::Good | Standing::Revoked { .. } => self.author != Author::Controller,
        }
    }
}

/// Who has changed a certificate's standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// A person, by the `DeviceCertificate`.
    Person,
    /// A person, by the `Revocation` object with this uid.
    Revocation(String),
    /// The controller: the certificate was retired, or its device went back from it.
    Controller,
}

/// What `spec.revocation` of a `DeviceCertificate` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredRevocation {
    /// Revoke or hold ([`Holder::Person`]).
    pub act: Act,
    /// One serial number; `None`: all.
    pub serial: Option<String>,
    /// When a person asked for it. The same asked for at another time is still the same.
    pub requested_at: Millis,
}

/// How far what was done in the name of a `Revocation` object is, in certificates. Released ones do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RevocationProgress {
    /// On hold or revoked.
    pub recorded: u32,
    /// Of those, in a CRL.
    pub in_crl: u32,
    /// Of those, loaded by every node of the broker.
    pub shut: u32,
    /// Of those, with the live session closed.
    pub closed: u32,
}

impl std::iter::Sum for RevocationProgress {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            recorded: sum.recorded + one.recorded,
            in_crl: sum.in_crl + one.in_crl,
            shut: sum.shut + one.shut,
            closed: sum.closed + one.closed,
        })
    }
}

/// A line of a CRL as it is made. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlLine {
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// How it stands; [`Standing::Good`] only in deltas: it was released (`removeFromCRL`).
    pub standing: Standing,
    /// Since when the key may have been misused.
    pub invalid_since: Option<i64>,
    /// When it was released, for [`Standing::Good`].
    pub released_at: Option<i64>,
}

/// Which lines of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlLines {
    /// The issuer's key id.
    pub issuer: String,
    /// The partition; `None`: all that the CA has issued.
    pub partition: Option<String>,
    /// Only certificates that end at or after this (Unix seconds): `thisUpdate` of the scope's last CRL, so that an entry stays
    /// for one CRL beyond the certificate's end (RFC 5280, 3.3).
    pub ends_at_or_after: i64,
    /// For a delta: only what has changed after this.
    pub changed_after: Option<u64>,
}

/// How far a published CRL reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlCover {
    /// Its number.
    pub number: u64,
    /// The last change that it says.
    pub covers: u64,
    /// `thisUpdate`, Unix seconds.
    pub this_update: i64,
    /// When it was published.
    pub published_at: Millis,
}

/// What a node of a broker says that it has loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorLoad {
    /// The broker.
    pub broker: BrokerId,
    /// The node, as it calls itself.
    pub node: String,
    /// The issuer's key id.
    pub issuer: String,
    /// The partition.
    pub partition: String,
    /// The CRL's number.
    pub number: u64,
    /// When we heard of it.
    pub at: Millis,
}

/// Standing of a certificate for OCSP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SerialStatus {
    /// How it stands.
    pub standing: Standing,
    /// End of validity, Unix seconds.
    pub not_after: i64,
}

/// A device and what it starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// Its row.
    pub device: DeviceRow,
    /// When a signed message of it was last heard.
    pub last_seen: Option<Millis>,
    /// Its current certificate, if it is enrolled.
    pub certificate: Option<SerialKey>,
}

/// A change of standing, for those who keep answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the sequence.
    pub change: u64,
    /// Which certificate.
    pub key: SerialKey,
}

/// A live session to be closed: its device's current certificate is held by a person or revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Whose.
    pub identity: Identity,
    /// The greatest change of its certificates' standing.
    pub change: u64,
    /// Whether every node of the broker has loaded that.
    pub shut: bool,
}

/// A device that a bulk revocation matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The device.
    pub identity: Identity,
    /// Its object.
    pub object: ObjectRef,
    /// Labels of the declaration.
    pub labels: BTreeMap<String, String>,
    /// How many of its certificates are good or on hold.
    pub certificates: u32,
}

/// Which ledger this is, and whether it comes from a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Made with the ledger; a backup has it too.
    pub id: String,
    /// When it was restored, while not all that was lost has been taken in again: until then nothing is issued.
    pub restored_at: Option<Millis>,
    /// Lines of the audit. They only grow: a ledger with fewer than before was put back.
    pub lines: u64,
    /// The hash of the last of them, if there is one.
    pub head: Option<Fingerprint>,
}

/// What a ledger holds, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// The present epoch.
    pub epoch: u64,
    /// Devices, withdrawn ones included.
    pub devices: u64,
    /// Certificates, those in the archive left out.
    pub certificates: u64,
    /// Certificates in the archive.
    pub archived: u64,
    /// Of the certificates, those on hold.
    pub held: u64,
    /// Of the certificates, those revoked.
    pub revoked: u64,
    /// Lines of the audit.
    pub audit: u64,
}

/// A certificate that a restored ledger does not know, as status or a published CRL tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenIn {
    /// Which.
    pub key: SerialKey,
    /// SHA-256 of it, if known.
    pub fingerprint: Option<Fingerprint>,
    /// Whose, and as what the device held it.
    pub holder: Option<(Identity, Held)>,
    /// Public key (subject public key info, DER), if known.
    pub public_key: Option<Vec<u8>>,
    /// Start and end of validity, Unix seconds; of a line of a CRL, the end of its partition.
    pub validity: (i64, i64),
    /// The CRL partition.
    pub partition: String,
    /// How it stands.
    pub standing: Standing,
    /// Since when the key may have been misused, Unix seconds, if that is told.
    pub invalid_since: Option<i64>,
}

/// As what a device holds a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It starts from it.
    Current,
    /// The one before.
    Previous,
    /// On trial.
    Pending,
}
