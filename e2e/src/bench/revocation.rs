//! How long it takes until a revoked device is out, and until ten thousand are.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use certwave_crds::{DeviceCertificate, Revocation, RevocationCounts};
use certwave_ledger::{Ledger as _, SqliteLedger};
use certwave_pki::ocsp::IssuerId;
use certwave_pki::{certificates_from_pem, parse_certificate_info, parse_certificate_info_pem, partition_of};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::rotation::counted;
use super::wire::{Line, get, post, quantile};
use super::{FLEET, Report, ocsp, preload, scaled, seconds};
use crate::device_files;
use crate::identity::Identity;
use crate::mqtt::{self, Connection};
use crate::stack::{Simulation, Stack, objects};
use crate::tools::progress;
use crate::wait::wait_for;

/// Certificates that the ledger holds besides.
const CERTIFICATES: usize = 100_000;
/// Devices revoked one after the other.
const THIEVES: usize = 100;
/// Devices revoked by one object.
const MANY: usize = 10_000;
/// One of so many of them is connected.
const CONNECTED: usize = 10;
const PATIENCE: Duration = Duration::from_mins(15);
const LONG: Duration = Duration::from_mins(2);
/// How often the world is asked; what is measured is late by so much at most.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What of a Revocation's progress counts.
type Count = fn(&RevocationCounts) -> i64;

/// `revocation.latency`: from a person's patch of one device until the CRL lists it, OCSP says revoked, the broker refuses its
/// certificate, and its last session is closed; p50 and p99.
pub(super) async fn latency(report: &mut Report) -> Result<()> {
    let (mut stack, ca) = begin("revocation").await?;
    let count = scaled(CERTIFICATES);
    with_ledger(&mut stack, async |ledger| {
        let epoch = ledger.take_epoch("bench", seconds() * 1000).await?;
        preload::certificates(ledger, epoch, &ca.key_id, count).await
    })
    .await?;
    progress(&format!("{count} certificates in the ledger"));
    let simulation = Simulation {
        state: Some(stack.directory().join("devices")),
        ..simulation(&stack, scaled(THIEVES))?
    };
    stack.declare_devices(simulation.device_ids()).await?;
    stack.start_devices(&simulation)?;
    enrolled(&stack, simulation.devices).await?;
    let mut thieves = Vec::new();
    let state = simulation.state.as_deref().context("no state")?;
    for device in stack.devices().await? {
        let certificates = device.status.context("no status")?.certificates;
        let current = certificates.current.context("no certificate")?;
        let files = state.join(&device.spec.device_id);
        let sha256 = current.sha256.context("no fingerprint")?;
        let identity = device_files::identity(&files, &sha256)?;
        thieves.push((device.spec.device_id, identity));
    }
    // From here on the sessions are ours: a simulated device would come again and again.
    stack.stop_devices();

    let mut times: [Vec<Duration>; 4] = Default::default();
    for (name, identity) in &thieves {
        let out = revoke(&stack, &ca, name, identity).await;
        let out = out.with_context(|| name.clone())?;
        for (all, one) in times.iter_mut().zip(out) {
            all.push(one);
        }
    }
    for (what, times) in ["crl", "ocsp", "refused", "closed"].iter().zip(&mut times) {
        for percent in [50, 99] {
            let name = format!("revocation.latency.{what}.p{percent}");
            report.add(name, quantile(times, percent).as_secs_f64(), "s")?;
        }
    }
    Ok(())
}

/// `revocation.mass`: from the creation of one object about ten thousand devices, a tenth of them connected, until the last
/// certificate is recorded, in the CRL, refused by the broker, and its session closed, as the object shows it.
pub(super) async fn mass(report: &mut Report) -> Result<()> {
    let (mut stack, ca) = begin("mass").await?;
    let devices = scaled(MANY);
    let simulation = simulation(&stack, (devices / CONNECTED).max(1))?;
    let ids: Vec<_> = (1..=devices).map(Simulation::device_id).collect();
    stack.declare_devices(ids.iter().cloned()).await?;
    counted(&stack, devices, &[], PATIENCE).await?;
    let broker = stack.namespace().to_owned();
    with_ledger(&mut stack, async |ledger| {
        let epoch = ledger.take_epoch("bench", seconds() * 1000).await?;
        let given = ids[simulation.devices..]
            .iter()
            .map(|id| preload::identity(&broker, id));
        let given = given.collect::<Result<Vec<_>>>()?;
        preload::give(ledger, epoch, &ca.key_id, &given).await
    })
    .await?;
    stack.start_devices(&simulation)?;
    enrolled(&stack, devices).await?;
    progress(&format!("{devices} devices, {} connected", simulation.devices));

    let api = stack.objects::<Revocation>();
    let spec = json!({ "fleetRef": { "name": objects::FLEET }, "reason": "keyCompromise", "mode": "Run" });
    let object = json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "Revocation", "spec": spec,
        "metadata": { "name": "all", "namespace": stack.namespace() },
    });
    let begun = Instant::now();
    stack.api.apply(&object.to_string())?;
    let stages: [(&str, Count); 4] = [
        ("recorded", |counts| counts.recorded),
        ("in_crl", |counts| counts.in_crl),
        ("shut", |counts| counts.shut),
        ("closed", |counts| counts.closed),
    ];
    let all = i64::try_from(devices)?;
    let mut stages = stages.into_iter().peekable();
    while let Some((name, count)) = stages.peek() {
        let progress = api.get("all").await?.status.unwrap_or_default().progress;
        if count(&progress) >= all {
            report.add(format!("revocation.mass.{name}"), begun.elapsed().as_secs_f64(), "s")?;
            stages.next();
            continue;
        }
        ensure!(begun.elapsed() < PATIENCE, "{progress:?} of {devices}");
        stack.check_running()?;
        tokio::time::sleep(LOOK_EVERY * 5).await;
    }
    Ok(())
}

/// The stack's CA.
struct Ca {
    pem: String,
    key_id: String,
    issuer: IssuerId,
}

/// API server, controller and broker with its companion.
async fn begin(name: &str) -> Result<(Stack, Ca)> {
    let mut stack = Stack::prepare(name).await?;
    stack.check_crls()?;
    stack.apply_foundation(&FLEET)?;
    stack.start_controller().await?;
    stack.start_broker().await?;
    let secrets: Api<Secret> = stack.objects();
    let secret = secrets.get(objects::SERVER_SECRET).await?;
    let pem = secret.data.as_ref().and_then(|data| data.get("ca.crt"));
    let pem = String::from_utf8(pem.context("the Secret has no ca.crt")?.0.clone())?;
    let der = certificates_from_pem(&pem).and_then(|all| all.into_iter().next());
    let der = der.context("ca.crt holds no certificate")?;
    let ca = Ca {
        key_id: parse_certificate_info(&der)?.key_id.to_string(),
        issuer: IssuerId::from_certificate(&der)?,
        pem,
    };
    Ok((stack, ca))
}

/// Does something to the ledger while the controller is away.
pub(super) async fn with_ledger(stack: &mut Stack, act: impl AsyncFnOnce(&SqliteLedger) -> Result<()>) -> Result<()> {
    stack.stop_controller()?;
    let ledger = SqliteLedger::open(stack.ledger())?;
    let done = act(&ledger).await;
    // The file is in use until its last write is through.
    ledger.close().await;
    done?;
    stack.start_controller().await
}

fn simulation(stack: &Stack, devices: usize) -> Result<Simulation> {
    Ok(Simulation {
        devices,
        state: None,
        report: None,
        claim: stack.create_claim(devices)?,
        seed: 5,
        connect_rate: 1_000,
        faults: Vec::new(),
    })
}

/// Waits until so many devices hold a certificate.
async fn enrolled(stack: &Stack, devices: usize) -> Result<()> {
    wait_for("the devices to be enrolled", PATIENCE, || async {
        let all = stack.devices().await?;
        let holds = |device: &&DeviceCertificate| {
            let status = device.status.as_ref();
            status.is_some_and(|status| status.certificates.current.is_some())
        };
        let with = all.iter().filter(holds).count();
        ensure!(with == devices, "{with} of {devices}");
        Ok(())
    })
    .await
}

/// Revokes one device that is connected. How long until the CRL, OCSP, the broker's listener and the session say so.
async fn revoke(stack: &Stack, ca: &Ca, name: &str, identity: &Identity) -> Result<[Duration; 4]> {
    let broker = stack.broker.device_address();
    let leaf = parse_certificate_info_pem(&identity.certificate)?;
    let serial: certwave_pki::Serial = leaf.serial.parse()?;
    let crl = get(&format!("/crl/{}/{}.crl", ca.key_id, partition_of(leaf.not_after)));
    let listed = |body: &[u8]| contains(body, serial.as_bytes()).is_some();
    let question = post(
        "/ocsp",
        "application/ocsp-request",
        &ocsp::request(&ca.issuer, &serial, None)?,
    );
    let name_in_answer = ca.issuer.cert_id(certwave_pki::ocsp::HashAlgorithm::Sha1, &serial);
    // The status follows the name: [1] is revoked (RFC 6960, 4.2.1).
    let revoked = |body: &[u8]| contains(body, &name_in_answer).is_some_and(|end| body.get(end) == Some(&0xa1));
    let mut session = Connection::open(broker, &ca.pem, Some(identity), name).await?;

    let devices = stack.objects::<DeviceCertificate>();
    let patch = Patch::Merge(json!({ "spec": { "revocation": { "reason": "keyCompromise" } } }));
    let begun = Instant::now();
    devices.patch(name, &PatchParams::default(), &patch).await?;
    let refused = async {
        while !mqtt::is_refused(broker, &ca.pem, identity).await? {
            ensure!(begun.elapsed() < LONG, "the broker still lets it in");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(begun.elapsed())
    };
    // A thief comes back at once, until the broker refuses: the last session counts.
    let closed = async {
        loop {
            ensure!(begun.elapsed() < LONG, "the session goes on");
            if session.next(LONG).await.is_ok() {
                continue;
            }
            let ended = begun.elapsed();
            match Connection::open(broker, &ca.pem, Some(identity), name).await {
                Ok(another) => session = another,
                Err(_) => return Ok(ended),
            }
        }
    };
    let (crl, ocsp, refused, closed) = tokio::try_join!(
        until(begun, stack.http(), &crl, listed),
        until(begun, stack.http(), &question, revoked),
        refused,
        closed
    )?;
    Ok([crl, ocsp, refused, closed])
}

/// Asks again and again until the answer says it.
async fn until(begun: Instant, address: SocketAddr, request: &[u8], says: impl Fn(&[u8]) -> bool) -> Result<Duration> {
    let mut line = Line::open(address).await?;
    loop {
        let (status, body) = line.ask(request).await?;
        if status == 200 && says(body) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < LONG, "{status}, {} bytes: not said yet", body.len());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where the first occurrence ends.
fn contains(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let start = bytes.windows(part.len()).position(|window| window == part)?;
    Some(start + part.len())
}
