//! What the engine's unit tests share.

use certwave_core::model::Identity;
use certwave_ledger::{CertificateKind, CertificateRecord};
use certwave_protocol::ids::Fingerprint;

use crate::clock::now;

/// The `n`th certificate of a device.
pub(super) fn certificate(identity: &Identity, n: u8) -> CertificateRecord {
    let at = now() / 1000;
    CertificateRecord {
        fingerprint: Fingerprint([n; 32]),
        serial: format!("{n:032x}"),
        issuer: "aa".repeat(20),
        spki: Fingerprint([n ^ 0x80; 32]),
        public_key: vec![n],
        not_before: at - 60,
        not_after: at + 86_400,
        kind: CertificateKind::Device,
        holder: identity.device.to_string(),
        identity: Some(identity.clone()),
        job: None,
        der: vec![0x30; 16],
        issued_at: now(),
    }
}
