//! What devices cost the controller that are merely there.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{FLEET, Report, number};
use crate::http::sample;
use crate::stack::Stack;
use crate::tools::progress;
use crate::wait::wait_for;

/// The first start writes every device into the ledger.
const FIRST_START: Duration = Duration::from_mins(15);
const START: Duration = Duration::from_mins(5);
/// What start-up needs for a moment is given back, or not, by then.
const SETTLED: Duration = Duration::from_secs(20);

/// `controller.start`, seconds from start until it counts all devices, with a ledger that knows them; and
/// `controller.rss`.
pub(super) async fn measure(devices: usize, report: &mut Report) -> Result<()> {
    let mut stack = Stack::prepare("idle").await?;
    stack.apply_foundation(&FLEET)?;
    let start = Instant::now();
    stack
        .declare_devices((1..=devices).map(|number| format!("meter-{number:06}")))
        .await?;
    progress(&format!(
        "{devices} devices declared in {} s",
        start.elapsed().as_secs()
    ));
    let first = start_and_count(&mut stack, devices, FIRST_START).await?;
    report.add(format!("controller.first_start.{devices}"), first.as_secs_f64(), "s")?;
    stack.start_broker().await?;
    stack.stop_controller()?;
    let again = start_and_count(&mut stack, devices, START).await?;
    report.add(format!("controller.start.{devices}"), again.as_secs_f64(), "s")?;
    tokio::time::sleep(SETTLED).await;
    let bytes = stack.controller()?.resident_bytes()?;
    report.add(
        format!("controller.rss.{devices}"),
        number(bytes / 1024) / 1024.0,
        "MiB",
    )
}

/// Starts the controller; how long it takes until its metrics count every device.
async fn start_and_count(stack: &mut Stack, devices: usize, deadline: Duration) -> Result<Duration> {
    let start = Instant::now();
    stack.start_controller().await?;
    wait_for("the controller to count all devices", deadline, || async {
        let counted = sample(&stack.controller_metrics().await?, "certwave_devices", &[]).unwrap_or_default();
        ensure!(counted >= number(devices), "{counted} of {devices}");
        Ok(())
    })
    .await?;
    Ok(start.elapsed())
}
