//! Following enrolment and rotations on the cluster, and what must hold when they end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use certwave_crds::{DeviceCertificate, DeviceState, Rotation, RotationPhase, RotationStatus};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams};

use super::cluster::Cluster;
use super::release;
use crate::screen::Screen;
use crate::tally::{Certificates, Course, Tally, certificates};
use crate::wait_for;

/// For a phase: the cluster's node and this program share a small machine.
const PATIENCE: Duration = Duration::from_mins(6);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The Lease of what is of all brokers.
const LEASE: &str = "certwave-controller";
/// The Lease of the broker with the id `kind`.
const BROKER_LEASE: &str = "certwave-broker-kind";

/// SHA-256 of each certificate that a device's object has shown so far.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeSet<String>);

impl Seen {
    pub(super) fn add(&mut self, devices: &[DeviceCertificate]) {
        self.0.extend(devices.iter().flat_map(slots));
    }

    /// How many certificates of this device were not seen before.
    fn unknown(&self, device: &DeviceCertificate) -> usize {
        slots(device).filter(|sha256| !self.0.contains(sha256)).count()
    }
}

/// What the device holds: the current certificate, and the one before.
fn slots(device: &DeviceCertificate) -> impl Iterator<Item = String> + use<> {
    let held = device
        .status
        .as_ref()
        .map(|status| status.certificates.clone())
        .unwrap_or_default();
    [held.current, held.previous]
        .into_iter()
        .flatten()
        .filter_map(|certificate| certificate.sha256)
}

impl Cluster {
    /// Waits until all devices have their first certificate.
    pub(super) async fn enrolled(&self, screen: &mut Screen, devices: usize) -> Result<Certificates> {
        let (start, none) = (Instant::now(), Certificates::new());
        screen.begin("enrolled", 0);
        loop {
            let found = self.devices().await?;
            let tally = Tally::of(&found, &none);
            screen.show(&tally);
            if tally.count(DeviceState::Active) == devices {
                return Ok(certificates(&found));
            }
            if start.elapsed() > PATIENCE {
                bail!("not all devices enrolled\n{}", release::state(&self.api));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until so many devices of the Rotation are confirmed, and others are not. The ledger tells: the status may be seconds behind it, in which
    /// a wave is over.
    pub(super) async fn rotation_under_way(
        &self,
        screen: &mut Screen,
        name: &str,
        before: &Certificates,
        confirmed: usize,
    ) -> Result<()> {
        let of_ledger = format!(
            "SELECT count(*) FROM members m JOIN rotations r ON r.id = m.rotation WHERE r.name = '{name}' AND m.outcome = 'Confirmed'"
        );
        self.follow(screen, name, before, |_| {
            let count: usize = self.ledger(&of_ledger)?.trim().parse()?;
            Ok(count >= confirmed)
        })
        .await
        .map(drop)
    }

    /// Waits until the Rotation is in this phase, and the devices' objects show what it says.
    pub(super) async fn rotation_ends(
        &self,
        screen: &mut Screen,
        name: &str,
        before: &Certificates,
        end: RotationPhase,
    ) -> Result<RotationStatus> {
        self.follow(screen, name, before, |status| Ok(status.phase == Some(end)))
            .await
    }

    async fn follow(
        &self,
        screen: &mut Screen,
        name: &str,
        before: &Certificates,
        reached: impl Fn(&RotationStatus) -> Result<bool>,
    ) -> Result<RotationStatus> {
        let rotations: Api<Rotation> = self.objects();
        let start = Instant::now();
        screen.begin("rotated", 0);
        loop {
            let status = rotations.get(name).await?.status.unwrap_or_default();
            let tally = Tally::of(&self.devices().await?, before).under(Course::from(&status));
            screen.show(&tally);
            if reached(&status)? {
                return Ok(status);
            }
            let over = matches!(
                status.phase,
                Some(RotationPhase::Complete | RotationPhase::Failed | RotationPhase::Aborted)
            );
            if over || start.elapsed() > PATIENCE {
                bail!(
                    "the Rotation {name} went another way: {status:?}\n{}",
                    release::state(&self.api)
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Every device of the last Rotation has one certificate that it had not before, and none has two: no job was lost, and none was
    /// done twice. A device may have gone back to its other slot meanwhile, before or after: that is no job.
    pub(super) async fn all_changed_once(&self, seen: &mut Seen, expected: usize) -> Result<Certificates> {
        let shown = wait_for(
            "the objects to show the new certificates",
            Duration::from_mins(1),
            || async {
                let devices = self.devices().await?;
                let mut changed = 0;
                for device in &devices {
                    match seen.unknown(device) {
                        0 => {}
                        1 => changed += 1,
                        _ => bail!("{} was rotated more than once", device.spec.device_id),
                    }
                }
                ensure!(changed == expected, "{changed} of {expected} have a new certificate");
                Ok(devices)
            },
        );
        let devices = shown.await?;
        seen.add(&devices);
        Ok(certificates(&devices))
    }

    /// Has the pod deleted, with no time to end in good order, that sends the devices their jobs, and says how long it takes from then until
    /// another one sends the next; then, if that is another pod, the one that does what is of all brokers.
    pub(super) async fn kill_leader(&self) -> Result<Duration> {
        let driving = self.holder_in_time(BROKER_LEASE).await?;
        let killed = Timestamp::now();
        self.kill(&driving, BROKER_LEASE).await?;
        let sent = wait_for("the next job to be sent", Duration::from_mins(2), || async {
            // From the new epoch on the killed one can write nothing more.
            let first = format!(
                "SELECT min(at) FROM audit WHERE what = 'job-sent' AND at >=
                    (SELECT min(taken_at) FROM epochs WHERE part = 'kind' AND taken_at >= {})",
                killed.as_millisecond()
            );
            let at: i64 = self.ledger(&first)?.trim().parse().context("none was sent")?;
            Ok(Timestamp::from_millisecond(at)?)
        })
        .await
        .with_context(|| release::state(&self.api))?;
        if self.holder_in_time(LEASE).await? != driving {
            release::wait(&self.api)?;
            let leader = self.holder_in_time(LEASE).await?;
            self.kill(&leader, LEASE).await?;
        }
        Ok(sent.duration_since(killed).try_into()?)
    }

    /// Between two holders there is a moment without one.
    async fn holder_in_time(&self, lease: &str) -> Result<String> {
        wait_for("somebody to hold the Lease", Duration::from_mins(1), || {
            self.holder(lease)
        })
        .await
    }

    async fn holder(&self, lease: &str) -> Result<String> {
        let leases: Api<Lease> = self.objects();
        let spec = leases.get(lease).await?.spec;
        let holder = spec.and_then(|spec| spec.holder_identity);
        holder
            .filter(|name| !name.is_empty())
            .with_context(|| format!("nobody holds {lease}"))
    }

    /// Deletes a pod and waits until another one holds its Lease.
    async fn kill(&self, pod: &str, lease: &str) -> Result<()> {
        let pods: Api<Pod> = self.objects();
        pods.delete(pod, &DeleteParams::default().grace_period(0)).await?;
        wait_for("another replica to take over", Duration::from_mins(1), || async {
            let now = self.holder(lease).await?;
            ensure!(now != pod, "{pod} still holds {lease}");
            Ok(())
        })
        .await
        .with_context(|| release::state(&self.api))
    }

    /// Asks the ledger.
    fn ledger(&self, query: &str) -> Result<String> {
        let ask = r#"PGPASSWORD=$POSTGRES_PASSWORD psql -h /tmp -U certwave -Atc "$0""#;
        self.kubectl(&["exec", "deployment/postgres", "--", "sh", "-c", ask, query])
    }

    /// Ends a Rotation for good, as a person does after a breach.
    pub(super) fn abort(&self, name: &str) -> Result<()> {
        let change = r#"{"spec":{"control":{"state":"Aborted"}}}"#;
        self.kubectl(&["patch", &format!("rotation/{name}"), "--type=merge", "-p", change])
            .map(drop)
    }
}
