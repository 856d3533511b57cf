//! Watching until something is reached, on the screen.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use certwave_crds::{DeviceState, RotationPhase, RotationStatus};

use super::ROTATION;
use crate::screen::Screen;
use crate::stack::Stack;
use crate::tally::{Certificates, Course, Tally, certificates};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Until all have their first certificate; returns which.
pub(super) async fn enrolment(stack: &mut Stack, screen: &mut Screen, devices: usize) -> Result<Certificates> {
    let (start, none) = (Instant::now(), Certificates::new());
    screen.begin("enrolled", 0);
    loop {
        stack.check_running()?;
        let objects = stack.devices().await?;
        let tally = Tally::of(&objects, &none);
        screen.show(&tally);
        let active = tally.count(DeviceState::Active);
        if active == devices {
            return Ok(certificates(&objects));
        }
        if start.elapsed() > patience(devices) {
            bail!(
                "only {active} of {devices} devices enrolled; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Until the Rotation is in phase `end`, and the devices' objects show what it says.
pub(super) async fn rotation(
    stack: &mut Stack,
    screen: &mut Screen,
    first: &Certificates,
    end: RotationPhase,
) -> Result<RotationStatus> {
    let start = Instant::now();
    let mut begun = false;
    loop {
        stack.check_running()?;
        // In this order: devices are shown at least as far as the Rotation was.
        let status = stack.rotation(ROTATION).await?.status.unwrap_or_default();
        let tally = Tally::of(&stack.devices().await?, first).under(Course::from(&status));
        if !std::mem::replace(&mut begun, true) {
            screen.begin("rotated", tally.renewed);
        }
        screen.show(&tally);
        let phase = status.phase;
        // Statuses are written a little later than what they tell.
        if phase == Some(end) && usize::try_from(status.counts.confirmed) == Ok(tally.renewed) {
            return Ok(status);
        }
        let over = matches!(
            phase,
            Some(RotationPhase::Complete | RotationPhase::Failed | RotationPhase::Aborted)
        );
        if over && phase != Some(end) || start.elapsed() > patience(first.len()) {
            bail!(
                "the Rotation was to come to {end:?} and is {phase:?}, with {} devices confirmed, and {} that show a new \
                 certificate; the files are in {}",
                status.counts.confirmed,
                tally.renewed,
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long a phase may take.
fn patience(devices: usize) -> Duration {
    Duration::from_mins(2) + Duration::from_millis(100) * u32::try_from(devices).unwrap_or(u32::MAX)
}
