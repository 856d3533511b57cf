//! Values to test with. Numbers stand for names and keys.

use std::collections::BTreeMap;

use certwave_core::model::{Credential, Device, Identity, Job, JobKind, JobState, Millis, ObjectRef};
use certwave_core::rollout::run::{Plan, PlannedWave};
use certwave_core::rollout::strategy::Strategy;
use certwave_ledger::{
    AuditEntry, CertificateKind, CertificateRecord, ClaimRecord, ClaimUse, CountQuery, CrlRecord, Declaration,
    Declared, FleetKey, Ledger, RotationRecord, Write,
};
use certwave_protocol::ids::{BrokerId, Epoch, Fingerprint, JobId, Nonce};

pub(crate) const NOW: Millis = 1_800_000_000_000;
pub(crate) const NOW_S: i64 = NOW / 1000;
pub(crate) const DAY_S: i64 = 86_400;
/// Certificates that end before are expiring.
pub(crate) const SOON_S: i64 = NOW_S + 25 * DAY_S;

pub(crate) fn broker() -> BrokerId {
    "main".parse().unwrap()
}

pub(crate) fn identity(n: u32) -> Identity {
    Identity {
        broker: broker(),
        device: format!("dev-{n:06}").parse().unwrap(),
    }
}

pub(crate) fn object(namespace: &str, n: u32) -> ObjectRef {
    ObjectRef {
        namespace: namespace.to_owned(),
        name: format!("object-{n:06}"),
    }
}

pub(crate) fn fleet(name: &str) -> FleetKey {
    FleetKey {
        namespace: "plant".to_owned(),
        name: name.to_owned(),
    }
}

/// Device `n` by object `n` in namespace `plant`, fleet `pumps`.
pub(crate) fn declaration(n: u32) -> Declaration {
    Declaration {
        identity: identity(n),
        object: object("plant", n),
        uid: format!("uid-{n}"),
        fleet: "pumps".to_owned(),
        labels: BTreeMap::from([("ring".to_owned(), (n % 2).to_string())]),
        reenrol: None,
    }
}

pub(crate) fn hash(what: &str, n: u64) -> Fingerprint {
    Fingerprint::of(format!("{what} {n}").as_bytes())
}

pub(crate) fn job_id(n: u64) -> JobId {
    JobId::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | u128::from(n))
}

/// Certificate `n` of a device, valid for `days` from [`NOW`].
pub(crate) fn certificate(device: &Identity, n: u64, days: i64) -> CertificateRecord {
    CertificateRecord {
        fingerprint: hash("certificate", n),
        serial: format!("{n:032x}"),
        issuer: "aa".repeat(20),
        spki: hash("key", n),
        public_key: format!("public key {n}").into_bytes(),
        not_before: NOW_S - 3600,
        not_after: NOW_S + days * DAY_S,
        kind: CertificateKind::Device,
        holder: device.device.to_string(),
        identity: Some(device.clone()),
        job: None,
        der: vec![0x30; 600],
        issued_at: NOW,
    }
}

pub(crate) fn job(n: u64, state: JobState) -> Job {
    Job {
        id: job_id(n),
        kind: JobKind::Rotate,
        rotation: None,
        claim: None,
        state,
        attempt: 1,
        nonce: Nonce([7; 16]),
        epoch: 1,
        created: NOW,
        since: NOW,
        deadline: None,
        job_deadline: None,
        csr_key: None,
        subject: None,
        committed: false,
        code: None,
        detail: None,
    }
}

pub(crate) fn audit(device: &Identity, at: Millis, what: &str) -> AuditEntry {
    AuditEntry {
        at,
        who: "controller".to_owned(),
        what: what.to_owned(),
        identity: Some(device.clone()),
        job: None,
        detail: None,
    }
}

pub(crate) fn claim(name: &str, quota: Option<u32>) -> ClaimRecord {
    ClaimRecord {
        broker: "main".parse().unwrap(),
        fleet: fleet("pumps"),
        name: name.parse().unwrap(),
        device: None,
        quota,
        not_after: NOW + 86_400_000,
        suspended: false,
        certificate: None,
        public_key: name.as_bytes().to_vec(),
        spki: Fingerprint::of(name.as_bytes()),
    }
}

pub(crate) fn claim_use(name: &str, n: u32) -> ClaimUse {
    ClaimUse {
        broker: "main".parse().unwrap(),
        claim: name.parse().unwrap(),
        device: identity(n).device,
        job: job_id(u64::from(n)),
        at: NOW,
    }
}

pub(crate) fn crl(number: u64) -> CrlRecord {
    CrlRecord {
        issuer: "aa".repeat(20),
        partition: "2027-01".to_owned(),
        number,
        this_update: NOW_S,
        next_update: NOW_S + DAY_S,
        der: number.to_be_bytes().to_vec(),
    }
}

pub(crate) fn plan(sizes: &[u32]) -> Plan {
    Plan {
        waves: sizes
            .iter()
            .zip(["canary", "early", "rest", "more"])
            .map(|(size, name)| PlannedWave {
                name: name.to_owned(),
                size: *size,
                max_failed: 0,
                max_lost: 1,
            })
            .collect(),
        hash: "ab".repeat(32),
    }
}

pub(crate) fn rotation(uid: &str) -> RotationRecord {
    RotationRecord {
        uid: uid.to_owned(),
        object: object("plant", 1),
        fleet: fleet("pumps"),
        reason: "policy".to_owned(),
        issuer: None,
        started: NOW,
        strategy: Strategy::default(),
        plan: plan(&[1, 10, 100]),
    }
}

/// Begins an epoch and declares devices 0 to `count`.
pub(crate) async fn begin(ledger: &dyn Ledger, count: u32) -> Epoch {
    let epoch = ledger.take_epoch("test", NOW).await.unwrap();
    let declared = ledger
        .declare(epoch, NOW, (0..count).map(declaration).collect())
        .await
        .unwrap();
    assert!(declared.iter().all(|d| *d == Declared::New));
    epoch
}

pub(crate) async fn device(ledger: &dyn Ledger, n: u32) -> Device {
    ledger.device(&identity(n)).await.unwrap().unwrap()
}

/// Changes device `n` in one write.
pub(crate) async fn change(ledger: &dyn Ledger, epoch: Epoch, n: u32, how: impl FnOnce(&mut Device)) -> Device {
    let mut d = device(ledger, n).await;
    how(&mut d);
    ledger.write(epoch, Write::of(d, NOW)).await.unwrap();
    device(ledger, n).await
}

/// Gives device `n` a confirmed certificate with `days` to go.
pub(crate) async fn enrol(ledger: &dyn Ledger, epoch: Epoch, n: u32, days: i64) -> CertificateRecord {
    let record = certificate(&identity(n), 1_000_000 + u64::from(n), days);
    let mut d = device(ledger, n).await;
    d.current = Some(Credential::from(&record));
    ledger
        .write(
            epoch,
            Write {
                certificate: Some(record.clone()),
                ..Write::of(d, NOW)
            },
        )
        .await
        .unwrap();
    record
}

/// How devices are counted here.
pub(crate) fn counting(online_after: Millis) -> CountQuery {
    CountQuery {
        now: NOW,
        online_after,
        expiring_before_s: SOON_S,
    }
}
