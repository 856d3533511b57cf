//! The old certificates end: on hold first, and revoked once their devices have come back by the new ones.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::ROTATION;
use crate::screen::Screen;
use crate::stack::Stack;
use crate::{device_files, revoked, tally::Certificates};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Grace, two times of probation, and the pace.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until every old certificate has ended, checks one of them with OpenSSL, and answers how many were revoked.
pub(super) async fn all(
    stack: &mut Stack,
    screen: &mut Screen,
    first: &Certificates,
    stayed: &[String],
) -> Result<usize> {
    let start = Instant::now();
    let counts = loop {
        stack.check_running()?;
        let status = stack.rotation(ROTATION).await?.status.unwrap_or_default();
        let counts = status.retirements.context("the Rotation counts no retirements")?;
        if counts.waiting + counts.held + counts.asked == 0 {
            break counts;
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "the old certificates did not end: {counts:?}; the files are in {}",
                stack.keep_files()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let revoked = usize::try_from(counts.revoked)?;
    let rotated = first.len() - stayed.len();
    ensure!(
        revoked >= rotated,
        "{revoked} old certificates were revoked where {rotated} should be: {counts:?}"
    );
    let (id, sha256) = first
        .iter()
        .find(|(id, _)| !stayed.contains(id))
        .context("nobody was rotated")?;
    let identity = device_files::identity(&stack.directory().join("devices").join(id), sha256)?;
    let file = stack.directory().join(format!("{id}.old.pem"));
    std::fs::write(&file, identity.certificate)?;
    let said = revoked::said_of(&file)?;
    ensure!(
        said.as_deref() == Some("Superseded"),
        "the CRL says {said:?} of the old certificate of {id}"
    );
    screen.say(&format!(
        "   put on hold, the hold loaded by the broker, each device asked to come back and back by\n   \
         its new key: {revoked} old certificates are revoked, in the CRL as superseded"
    ));
    Ok(revoked)
}
