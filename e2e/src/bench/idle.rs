//! What devices cost the controller that are merely there.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{FLEET, Report, number};
use crate::stack::Stack;
use crate::tools::progress;

/// The first start writes every device into the ledger.
const FIRST_START: Duration = Duration::from_mins(15);
const START: Duration = Duration::from_mins(5);
/// What start-up needs for a moment is given back, or not, by then.
const SETTLED: Duration = Duration::from_secs(20);

/// `controller.start`, seconds from start to ready with a ledger that knows all devices; and `controller.rss`.
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
    let first = stack.start_controller(Some(FIRST_START)).await?;
    report.add(format!("controller.first_start.{devices}"), first.as_secs_f64(), "s")?;
    stack.start_broker().await?;
    stack.stop_controller()?;
    let again = stack.start_controller(Some(START)).await?;
    report.add(format!("controller.start.{devices}"), again.as_secs_f64(), "s")?;
    tokio::time::sleep(SETTLED).await;
    let bytes = stack.controller()?.resident_bytes()?;
    report.add(
        format!("controller.rss.{devices}"),
        number(bytes / 1024) / 1024.0,
        "MiB",
    )
}
