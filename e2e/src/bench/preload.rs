//! A ledger that has much in it before anything is measured.

use anyhow::{Context as _, Result};
use certwave_core::model::{Credential, Identity, ObjectRef};
use certwave_ledger::{CertificateKind, CertificateRecord, Declaration, Ledger, Write};
use certwave_pki::Serial;
use certwave_protocol::ids::{Epoch, Fingerprint};
use futures::{StreamExt as _, TryStreamExt as _};

use super::seconds;

/// As many as share one commit, twice.
const AT_ONCE: usize = 512;
/// What a P-256 leaf with its extensions takes.
const DER_BYTES: usize = 620;
/// What a P-256 subject public key info takes.
const SPKI_BYTES: usize = 91;
/// Far behind what a run issues itself, and from the sort of number that CAs give.
const FIRST: u128 = 0x4c65_6467_6572_0000 << 64;
const DAY_S: i64 = 86_400;

/// A device of this broker.
///
/// # Errors
/// When one of the two is no id.
pub fn identity(broker: &str, device: &str) -> Result<Identity> {
    Ok(Identity {
        broker: broker.parse()?,
        device: device.parse()?,
    })
}

/// Puts `count` devices of this broker into the ledger, each with a certificate of the CA with this key id, and without an object:
/// theirs were deleted. Answers them with the serial numbers of their certificates.
///
/// # Errors
/// When the ledger refuses one.
pub async fn devices(
    ledger: &dyn Ledger,
    epoch: Epoch,
    broker: &str,
    issuer: &str,
    count: usize,
) -> Result<Vec<(Identity, Serial)>> {
    let ids = (0..count).map(|place| identity(broker, &format!("gone-{place:07}")));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let object = |id: &Identity| ObjectRef {
        namespace: "gone".to_owned(),
        name: id.device.to_string(),
    };
    let declaration = |id: &Identity| Declaration {
        identity: id.clone(),
        object: object(id),
        uid: id.device.to_string(),
        fleet: "gone".to_owned(),
        labels: std::collections::BTreeMap::new(),
        reenrol: None,
    };
    let now = seconds() * 1000;
    ledger
        .declare(epoch, now, ids.iter().map(declaration).collect())
        .await?;
    give(ledger, epoch, issuer, &ids).await?;
    let withdraw = |id| async move {
        ledger.withdraw(epoch, now, &object(id)).await?;
        anyhow::Ok(())
    };
    futures::stream::iter(&ids)
        .map(withdraw)
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    ids.into_iter()
        .enumerate()
        .map(|(place, id)| Ok((id, serial(place)?)))
        .collect()
}

/// Gives devices that the ledger knows certificates, as if they had enrolled.
///
/// # Errors
/// When the ledger does not know one, or refuses.
pub async fn give(ledger: &dyn Ledger, epoch: Epoch, issuer: &str, ids: &[Identity]) -> Result<()> {
    let now = seconds() * 1000;
    let give = |(place, id): (usize, &Identity)| {
        let id = id.clone();
        async move {
            let mut device = ledger.device(&id).await?.context("the device is not there")?;
            let record = certificate(issuer, place, id)?;
            device.current = Some(Credential::from(&record));
            let write = Write {
                certificate: Some(record),
                ..Write::of(device, now)
            };
            ledger.write(epoch, write).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(ids.iter().enumerate())
        .map(give)
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// Records `count` certificates of the CA with this key id, each of a device that no object declares.
pub(super) async fn certificates(ledger: &dyn Ledger, epoch: Epoch, issuer: &str, count: usize) -> Result<()> {
    let record = |place: usize| async move {
        let identity = Identity {
            broker: "elsewhere".parse()?,
            device: format!("meter-{place:07}").parse()?,
        };
        let certificate = certificate(issuer, place, identity)?;
        ledger.record(epoch, certificate).await?;
        anyhow::Ok(())
    };
    futures::stream::iter(0..count)
        .map(record)
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// The serial number of the certificate in this place.
pub(super) fn serial(place: usize) -> Result<Serial> {
    Ok(Serial::from_bytes(&(FIRST + place as u128).to_be_bytes())?)
}

/// A certificate as the ledger keeps one; of its DER and its key only the size is right.
pub(super) fn certificate(issuer: &str, place: usize, identity: Identity) -> Result<CertificateRecord> {
    let serial = serial(place)?;
    let filled = |size: usize| -> Vec<u8> { serial.as_bytes().iter().copied().cycle().take(size).collect() };
    let (der, public_key) = (filled(DER_BYTES), filled(SPKI_BYTES));
    let now = seconds();
    Ok(CertificateRecord {
        fingerprint: Fingerprint::of(&der),
        serial: serial.to_string(),
        issuer: issuer.to_owned(),
        spki: Fingerprint::of(&public_key),
        public_key,
        not_before: now - DAY_S,
        not_after: now + 30 * DAY_S,
        kind: CertificateKind::Device,
        holder: identity.device.to_string(),
        identity: Some(identity),
        job: None,
        der,
        issued_at: now * 1000,
    })
}
