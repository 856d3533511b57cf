//! After the breach: the wave that failed is on what worked before, and the one after it has noticed nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use certwave_crds::{JobKind, RotationStatus};
use serde::Deserialize;

use super::staging::{EARLY, Staging};
use super::verifier::Verifier;
use crate::device_files;
use crate::screen::Screen;
use crate::stack::{Simulation, Stack};
use crate::tally::{Certificates, current};
use crate::wait::wait_for;

/// The simulator writes its report every second.
const REPORTED: Duration = Duration::from_secs(20);

/// What the devices say of themselves.
#[derive(Deserialize)]
struct Report {
    devices: Vec<Word>,
}

/// One device's word.
#[derive(Deserialize)]
struct Word {
    id: String,
    connected: bool,
    /// PEM of the leaf that it starts from.
    certificate: Option<String>,
    /// PEM of its intermediates.
    chain: Option<String>,
}

/// Checks it, by the objects, the devices' own word and OpenSSL, and says so.
pub(super) async fn check(
    stack: &Stack,
    screen: &mut Screen,
    staging: &Staging,
    report: &Path,
    first: &Certificates,
    status: &RotationStatus,
) -> Result<()> {
    let breach = status.breach.as_ref().context("the Rotation names no breach")?;
    let wave = status.waves.iter().find(|wave| wave.name == EARLY);
    let wave = wave.with_context(|| format!("the Rotation shows no wave {EARLY}"))?;
    ensure!(breach.wave == EARLY, "the breach is in wave {}", breach.wave);
    ensure!(status.not_rolled_back.is_empty(), "{:?}", status.not_rolled_back);
    screen.say(&format!("   {EARLY}: {}, so the wave went back", breach.message));

    let early: Vec<_> = staging
        .early
        .iter()
        .map(|number| Simulation::device_id(*number))
        .collect();
    let back = wait_for(
        "the wave to be connected with its old certificates",
        REPORTED,
        || async { old_and_connected(&early, &words(report)?, first) },
    );
    let certificates = back.await?;
    let verifier = Verifier::new(stack).await?;
    for (id, certificate) in &certificates {
        verifier.verify(id, certificate)?;
    }
    let shown: BTreeMap<_, _> = stack
        .devices()
        .await?
        .into_iter()
        .map(|device| (device.spec.device_id.clone(), device))
        .collect();
    for id in &early {
        let device = shown.get(id).with_context(|| format!("{id} is gone"))?;
        ensure!(
            current(device).as_ref() == first.get(id),
            "{id} has its old certificate, and its object does not say so"
        );
    }
    let sent_back = early
        .iter()
        .filter(|id| last_job(&shown, id) == Some(JobKind::Rollback))
        .count();
    let expected = early.len() - staging.faults.len();
    ensure!(
        sent_back == expected && usize::try_from(wave.confirmed)? == 0,
        "{sent_back} devices were sent back where {expected} should be: {wave:?}"
    );
    screen.say(&format!(
        "   {sent_back} were sent back, {} had never left: all {} are connected with their\n   \
         old certificates, and OpenSSL verified each",
        staging.faults.len(),
        early.len(),
    ));
    for number in &staging.rest {
        let id = Simulation::device_id(*number);
        if last_job(&shown, &id) != Some(JobKind::Enrol) {
            bail!("{id} was not to be touched");
        }
    }
    if !staging.rest.is_empty() {
        screen.say(&format!(
            "   rest: still to come, nothing was sent to any of its {}",
            staging.rest.len()
        ));
    }
    Ok(())
}

/// The chain that each of `ids` starts from: its first one, with which it is connected.
fn old_and_connected(ids: &[String], words: &BTreeMap<String, Word>, first: &Certificates) -> Result<Certificates> {
    let one = |id: &String| {
        let word = words.get(id).with_context(|| format!("nothing is heard of {id}"))?;
        ensure!(word.connected, "{id} is not connected");
        let leaf = word.certificate.as_deref().unwrap_or_default();
        ensure!(
            first.get(id) == Some(&device_files::sha256(leaf)?),
            "{id} starts from another certificate than at first"
        );
        let chain = word.chain.as_deref().unwrap_or_default();
        Ok((id.clone(), format!("{leaf}{chain}")))
    };
    ids.iter().map(one).collect()
}

fn words(report: &Path) -> Result<BTreeMap<String, Word>> {
    let text = std::fs::read(report).with_context(|| format!("read {}", report.display()))?;
    let report: Report = serde_json::from_slice(&text)?;
    Ok(report.devices.into_iter().map(|word| (word.id.clone(), word)).collect())
}

fn last_job(shown: &BTreeMap<String, certwave_crds::DeviceCertificate>, id: &str) -> Option<JobKind> {
    Some(shown.get(id)?.status.as_ref()?.job.as_ref()?.kind)
}
