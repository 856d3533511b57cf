//! What the demo believes only after somebody else has looked: OpenSSL at the certificates, the broker at the devices.

use anyhow::{Context, Result};
use certwave_crds::DeviceCertificate;

use super::verifier::Verifier;
use super::{FAULTS, Outcome};
use crate::device_files;
use crate::mqtt::Connection;
use crate::screen::Screen;
use crate::stack::{Simulation, Stack};
use crate::tally::{Certificates, current};

/// Checks every device's active certificate, and that those that failed still get in with their old one.
pub(super) async fn all(
    stack: &mut Stack,
    screen: &mut Screen,
    simulation: &Simulation,
    first: &Certificates,
) -> Result<Outcome> {
    let verifier = Verifier::new(stack).await?;
    let files = simulation.state.as_ref().context("the devices keep no files")?;
    let mut outcome = Outcome::default();
    let mut stayed = Vec::new();
    for device in stack.devices().await? {
        let id = device.spec.device_id.clone();
        let sha256 = current(&device).with_context(|| format!("{id} has no current certificate"))?;
        let identity = device_files::identity(&files.join(&id), &sha256)?;
        verifier.verify(&id, &identity.certificate)?;
        if first.get(&id) == Some(&sha256) {
            // The door is asked last: a second connection of a device ends its first one, which then comes back.
            let address = stack.broker.device_address();
            Connection::open(address, &verifier.root, Some(&identity), &id)
                .await
                .with_context(|| format!("{id} no longer gets in with its old certificate"))?;
            stayed.push((id, reason(&device)));
        } else {
            outcome.rotated += 1;
        }
    }
    screen.say(&format!(
        "   OpenSSL verified {} certificates",
        outcome.rotated + stayed.len()
    ));
    for (number, fault) in &simulation.faults {
        let id = Simulation::device_id(*number);
        let what = FAULTS
            .iter()
            .find(|(known, _)| known == fault)
            .map_or("failed", |(_, text)| text);
        match stayed.iter().find(|(stayed, _)| *stayed == id) {
            Some((_, reason)) => {
                outcome.rolled_back += 1;
                screen.say(&format!("   {id} {what:<32} {reason}"));
            }
            None => screen.say(&format!("   {id} {what}, and yet has another certificate")),
        }
    }
    screen.say(&format!(
        "   {} got in again with the certificate that they had before",
        stayed.len()
    ));
    Ok(outcome)
}

/// What the object says of the last job.
fn reason(device: &DeviceCertificate) -> String {
    let job = device.status.as_ref().and_then(|status| status.job.as_ref());
    match job {
        Some(job) => format!("{:?} {}", job.state, job.code.as_deref().unwrap_or_default())
            .trim_end()
            .to_owned(),
        None => "no job".to_owned(),
    }
}
