//! A CA with its signer, and a ledger of which a test says everything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use certwave_core::revocation::Standing;
use certwave_ledger::{Change, DeviceRow, InUse, LedgerError, Result, SerialKey, SerialStatus};
use certwave_pki::ocsp::{HashAlgorithm, IssuerId, OcspSigner};
use certwave_pki::{
    CaProfile, CertificateAuthority, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey, Serial,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::metrics::Register;
use crate::ocsp::{OcspMetrics, Options, Reply, Responder, Signers, Source};

pub(super) const NOW: i64 = 1_790_000_000;
const ROOM: u32 = 1000;

/// See the module.
#[derive(Clone)]
pub(super) struct Held(Arc<State>);

pub(super) struct State {
    rows: Mutex<HashMap<SerialKey, SerialStatus>>,
    changes: Mutex<Vec<Change>>,
    devices: Mutex<Vec<InUse>>,
    gone: AtomicBool,
    restored: AtomicBool,
    reads: AtomicU32,
    door: Arc<Semaphore>,
    began: Notify,
}

impl std::ops::Deref for Held {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl State {
    fn check(&self) -> Result<()> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(LedgerError::Unavailable("gone".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Held {
    async fn standings(&self, issuer: &str, serials: &[String]) -> Result<Vec<Option<SerialStatus>>> {
        self.check()?;
        self.0.reads.fetch_add(1, Ordering::Relaxed);
        let found = {
            let rows = self.0.rows.lock().unwrap();
            let key = |serial: &String| SerialKey {
                issuer: issuer.to_owned(),
                serial: serial.clone(),
            };
            serials.iter().map(|serial| rows.get(&key(serial)).copied()).collect()
        };
        self.0.began.notify_one();
        let _open = self.0.door.acquire().await.unwrap();
        Ok(found)
    }

    async fn last_change(&self) -> Result<u64> {
        self.check()?;
        Ok(self.0.changes.lock().unwrap().last().map_or(0, |change| change.change))
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>> {
        self.check()?;
        let all = self.0.changes.lock().unwrap();
        let later = all.iter().filter(|change| change.change > after);
        Ok(later.take(limit as usize).cloned().collect())
    }

    async fn in_use(&self, after: Option<DeviceRow>, limit: u32) -> Result<Vec<InUse>> {
        self.check()?;
        let all = self.0.devices.lock().unwrap();
        let later = all
            .iter()
            .filter(|device| after.is_none_or(|after| device.device > after));
        Ok(later.take(limit as usize).cloned().collect())
    }

    async fn restored(&self) -> Result<bool> {
        self.check()?;
        Ok(self.0.restored.load(Ordering::Relaxed))
    }
}

pub(super) struct Ledger {
    held: Held,
    pub(super) reads: Reads,
}

/// How often the ledger was read.
pub(super) struct Reads(Held);

impl Reads {
    pub(super) fn load(&self, order: Ordering) -> u32 {
        self.0.0.reads.load(order)
    }
}

impl Ledger {
    fn new() -> Self {
        let held = Held(Arc::new(State {
            rows: Mutex::default(),
            changes: Mutex::default(),
            devices: Mutex::default(),
            gone: AtomicBool::new(false),
            restored: AtomicBool::new(false),
            reads: AtomicU32::new(0),
            door: Arc::new(Semaphore::new(ROOM as usize)),
            began: Notify::new(),
        }));
        Self {
            reads: Reads(held.clone()),
            held,
        }
    }

    pub(super) fn set(&self, ca: &CertificateAuthority, n: u32, standing: Standing) {
        let key = SerialKey {
            issuer: ca.key_id().to_string(),
            serial: serial(n).to_string(),
        };
        let status = SerialStatus {
            standing,
            not_after: NOW - 86_400,
        };
        let issued = self.held.rows.lock().unwrap().insert(key.clone(), status).is_none();
        // Issuing is no change of standing.
        if issued && standing == Standing::Good {
            return;
        }
        let mut changes = self.held.changes.lock().unwrap();
        let change = changes.last().map_or(0, |last| last.change) + 1;
        changes.push(Change { change, key });
    }

    /// A device starts from this certificate, and was heard so many seconds before [`NOW`].
    pub(super) fn uses(&self, ca: &CertificateAuthority, n: u32, ago: i64) {
        self.set(ca, n, Standing::Good);
        self.held.devices.lock().unwrap().push(InUse {
            device: DeviceRow(n.into()),
            last_seen: Some((NOW - ago) * 1000),
            certificate: Some(SerialKey {
                issuer: ca.key_id().to_string(),
                serial: serial(n).to_string(),
            }),
        });
    }

    /// Another ledger with fewer changes, in which this one stands so.
    pub(super) fn replace(&self, ca: &CertificateAuthority, n: u32, standing: Standing) {
        self.set(ca, n, standing);
        self.held.changes.lock().unwrap().clear();
    }

    pub(super) fn gone(&self, gone: bool) {
        self.held.gone.store(gone, Ordering::Relaxed);
    }

    pub(super) fn restored(&self, restored: bool) {
        self.held.restored.store(restored, Ordering::Relaxed);
    }

    /// From now on reads have their answer, and do not come back before this is dropped.
    pub(super) fn hold(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.held.door).try_acquire_many_owned(ROOM).unwrap()
    }

    /// Waits until a read has its answer.
    pub(super) async fn reading(&self) {
        self.held.began.notified().await;
    }
}

pub(super) struct World {
    pub(super) ca: CertificateAuthority,
    issuer: IssuerId,
    pub(super) source: Ledger,
    pub(super) responder: Arc<Responder>,
    seen: tokio::sync::Mutex<Option<u64>>,
}

impl World {
    /// A responder that has looked at its empty ledger.
    pub(super) async fn new() -> Self {
        let world = Self::unseen();
        world.look(NOW).await.unwrap();
        world
    }

    pub(super) fn unseen() -> Self {
        Self::with(Options::default())
    }

    pub(super) fn with(options: Options) -> Self {
        let key = || PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CertificateAuthority::self_signed(key(), &CaProfile::named("root"), NOW - 10).unwrap();
        let own = key();
        let request = LeafRequest {
            subject: &LeafSubject::common_name("~ocsp").unwrap(),
            public_key: own.public_key(),
            usage: LeafUsage::OcspSigner,
            // Longer than the real clock is away from NOW.
            validity: Duration::from_hours(24 * 3000),
            backdate: Duration::from_hours(1),
        };
        let certificate = ca.issue(&request, NOW).unwrap().der;
        let signer = OcspSigner::new(own, certificate, ca.certificate_der()).unwrap();
        let metrics = Arc::new(OcspMetrics::new(&mut Register::default()).unwrap());
        let signers = Arc::new(Signers::new(Arc::clone(&metrics)));
        signers.set(&ca.key_id().to_string(), signer);
        signers.set_complete();
        let source = Ledger::new();
        Self {
            issuer: IssuerId::of(&ca),
            ca,
            responder: Arc::new(Responder::new(source.held.clone(), signers, metrics, options)),
            source,
            seen: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn signer_not_after(&self) -> i64 {
        self.responder.signers().all()[0].signer.not_after()
    }

    pub(super) async fn look(&self, now: i64) -> Result<()> {
        self.responder.look(&mut *self.seen.lock().await, now).await
    }

    pub(super) async fn ask(&self, der: &[u8]) -> Reply {
        self.ask_at(der, NOW).await
    }

    pub(super) async fn ask_at(&self, der: &[u8], now: i64) -> Reply {
        self.responder.answer(None, der, now).await
    }

    pub(super) fn name(&self, algorithm: HashAlgorithm, n: u32) -> Vec<u8> {
        self.issuer.cert_id(algorithm, &serial(n))
    }
}

fn serial(n: u32) -> Serial {
    Serial::from_bytes(&n.to_be_bytes()).unwrap()
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match content.len() {
        0..0x80 => vec![tag, length[1]],
        0x80..0x100 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [header, content.to_vec()].concat()
}

fn whole(names: &[Vec<u8>], extensions: &[u8]) -> Vec<u8> {
    let singles: Vec<_> = names.iter().map(|name| tlv(0x30, name)).collect();
    let tbs = [tlv(0x30, &singles.concat()), extensions.to_vec()].concat();
    tlv(0x30, &tlv(0x30, &tbs))
}

pub(super) fn request(names: &[Vec<u8>]) -> Vec<u8> {
    whole(names, &[])
}

pub(super) fn with_nonce(names: &[Vec<u8>], nonce: &[u8]) -> Vec<u8> {
    let id = tlv(6, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2]);
    let extension = tlv(0x30, &[id, tlv(4, &tlv(4, nonce))].concat());
    whole(names, &tlv(0xa2, &tlv(0x30, &extension)))
}
