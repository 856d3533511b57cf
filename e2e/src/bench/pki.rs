//! How fast requests become recorded certificates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use certwave_core::model::{Device, Identity, ObjectRef};
use certwave_ledger::{CertificateKind, CertificateRecord, Declaration, Ledger, SqliteLedger, Write};
use certwave_pki::{
    CaProfile, CertificateAuthority, Csr, CsrPolicy, KeyAlgorithm, LeafRequest, LeafTemplate, LeafUsage, PrivateKey,
    Publication, TemplateContext, create_leaf_csr,
};
use certwave_protocol::ids::{Epoch, Fingerprint};
use futures::{StreamExt, TryStreamExt};

use super::wire::cpu_seconds;
use super::{Report, number, seconds};
use crate::scratch::Scratch;

const CERTIFICATES: usize = 20_000;
/// Requests under way at once, as many devices answer together.
const AT_ONCE: usize = 256;
/// Devices declared in one transaction.
const BATCH: usize = 1_000;

struct Bench {
    ca: CertificateAuthority,
    ledger: SqliteLedger,
    epoch: Epoch,
    policy: CsrPolicy,
    template: LeafTemplate,
}

/// What it took to issue.
pub(super) struct Took {
    pub(super) seconds: f64,
    /// CPU time of this process.
    pub(super) cpu_seconds: f64,
}

/// `pki.issue`: see [`issue`].
pub(super) async fn measure(report: &mut Report) -> Result<()> {
    let took = issue(CERTIFICATES).await?;
    report.add("pki.issue", number(CERTIFICATES) / took.seconds, "1/s")
}

/// P-256 requests in, certificates out that the ledger has on disk. What the controller does besides (envelopes, MQTT) is left out;
/// keys and requests are made before the clock starts.
pub(super) async fn issue(certificates: usize) -> Result<Took> {
    let scratch = Scratch::new("pki")?;
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let ca = CertificateAuthority::self_signed(key, &CaProfile::named("bench"), seconds())?;
    let ledger = SqliteLedger::open(scratch.path().join("ledger.sqlite"))?;
    let epoch = ledger.take_epoch("bench", seconds() * 1000).await?;
    let bench = Arc::new(Bench {
        ca: ca.with_publication(Publication::new("http://pki.example.com")?),
        ledger,
        epoch,
        policy: CsrPolicy::default(),
        template: LeafTemplate::default(),
    });
    let mut work = Vec::with_capacity(certificates);
    for device in bench.declare(certificates).await? {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let request = create_leaf_csr(&key, device.id.device.as_str())?;
        work.push((device, request));
    }
    let (cpu, start) = (cpu_seconds(std::process::id())?, Instant::now());
    futures::stream::iter(work)
        .map(|(device, request)| {
            let bench = Arc::clone(&bench);
            async move { tokio::spawn(async move { bench.issue(device, &request).await }).await? }
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    Ok(Took {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(std::process::id())? - cpu,
    })
}

impl Bench {
    /// Declares the devices, as their objects would.
    async fn declare(&self, devices: usize) -> Result<Vec<Device>> {
        let ids = (0..devices)
            .map(|number| format!("meter-{number:06}"))
            .collect::<Vec<_>>();
        let mut devices = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let declarations: Vec<_> = batch.iter().map(|id| declaration(id)).collect::<Result<_>>()?;
            let identities: Vec<_> = declarations.iter().map(|declared| declared.identity.clone()).collect();
            self.ledger.declare(self.epoch, seconds() * 1000, declarations).await?;
            for identity in identities {
                devices.push(
                    self.ledger
                        .device(&identity)
                        .await?
                        .context("a declared device is not there")?,
                );
            }
        }
        Ok(devices)
    }

    async fn issue(&self, device: Device, request: &[u8]) -> Result<()> {
        let csr = Csr::parse(request, &self.policy)?;
        let subject = self.template.render(&TemplateContext {
            device_id: device.id.device.as_str(),
            fleet: &device.fleet,
            namespace: &device.object.namespace,
            labels: &device.labels,
        })?;
        let now = seconds();
        let leaf = LeafRequest {
            subject: &subject,
            public_key: csr.public_key(),
            usage: LeafUsage::Device,
            validity: Duration::from_hours(90 * 24),
            backdate: Duration::from_hours(1),
        };
        let issued = self.ca.issue(&leaf, now)?;
        let record = CertificateRecord {
            fingerprint: Fingerprint::of(&issued.der),
            serial: issued.serial,
            issuer: self.ca.key_id().to_string(),
            spki: Fingerprint(*csr.spki_sha256()),
            public_key: csr.spki_der().to_vec(),
            not_before: issued.not_before,
            not_after: issued.not_after,
            kind: CertificateKind::Device,
            holder: device.id.device.to_string(),
            identity: Some(device.id.clone()),
            job: None,
            der: issued.der.to_vec(),
            issued_at: now * 1000,
        };
        let write = Write {
            certificate: Some(record),
            ..Write::of(device, now * 1000)
        };
        self.ledger.write(self.epoch, write).await?;
        Ok(())
    }
}

fn declaration(id: &str) -> Result<Declaration> {
    Ok(Declaration {
        identity: Identity {
            broker: "bench".parse()?,
            device: id.parse()?,
        },
        object: ObjectRef {
            namespace: "bench".to_owned(),
            name: id.to_owned(),
        },
        uid: id.to_owned(),
        fleet: "meters".to_owned(),
        labels: BTreeMap::new(),
        reenrol: None,
    })
}
