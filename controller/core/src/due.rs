//! Who needs a job, and which.

use certwave_protocol::ids::Fingerprint;

use crate::model::{Device, JobKind, JobState, Millis};

/// A device that does not answer is asked at least this often, milliseconds.
const LONGEST_SILENCE: Millis = 6 * 60 * 60 * 1000;

/// Where a run wants its devices to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// Key id of the issuer.
    pub issuer: &'a str,
    /// Hash of the trust bundle.
    pub bundle: Fingerprint,
    /// A certificate with less life than this is due, milliseconds; `None` renews whatever its age.
    pub renew_before: Option<Millis>,
}

/// Whether a job that the device has not been asked for yet is still the right one: a fleet's bundle may have changed since.
/// If not, it is cancelled, and the next one begins with trust.
pub fn still_wanted(device: &Device, bundle: Fingerprint) -> bool {
    match device.open_job().map(|job| &job.kind) {
        Some(JobKind::Trust(asked)) => *asked == bundle,
        Some(JobKind::Rotate) => device.bundle.is_none_or(|held| held == bundle),
        Some(JobKind::Enrol | JobKind::Rollback) | None => true,
    }
}

/// Whether a waiting job may be offered now: at once the first time. A device that is connected and did not answer is
/// asked again when as much time has passed as its job had taken by then, so that many of them leave the slots to others; and
/// only once it was heard, on this connection or another: an offer without one would use a slot up and say nothing.
pub fn may_offer(now: Millis, device: &Device) -> bool {
    let heard = device.session.is_some() && device.bar.is_none();
    let waiting = device.open_job().filter(|job| heard && job.state == JobState::Queued);
    waiting.is_some_and(|job| {
        let pause = job.since.saturating_sub(job.created).min(LONGEST_SILENCE);
        // A clock that was set back must not keep a device waiting.
        now < job.since || now.saturating_sub(job.since) >= pause
    })
}

/// Whether the pause after a failure lasts. One that began in the future did so by a clock that was put back since; nobody knows when it would
/// be over.
fn pauses(now: Millis, device: &Device) -> bool {
    let began = device.job.as_ref().is_none_or(|job| job.since <= now);
    began && device.not_before.is_some_and(|end| end > now)
}

/// The next job that brings `device` closer to `target`, if it needs one now: trust first, then the leaf, as no leaf of
/// a new CA may leave before its anchor is confirmed.
pub fn next_job(now: Millis, device: &Device, target: &Target<'_>) -> Option<JobKind> {
    let current = device.current.as_ref()?;
    let expiry = current.not_after.saturating_mul(1000);
    // An expired credential cannot connect: only a permit and a claim help.
    let expired = expiry <= now;
    if device.bar.is_some() || device.open_job().is_some() || expired || pauses(now, device) {
        return None;
    }
    let due = target
        .renew_before
        .is_none_or(|before| expiry.saturating_sub(before) <= now);
    if !due && current.issuer == target.issuer {
        return None;
    }
    // A device that has not said which bundle it holds is asked for its leaf only where the issuer stays.
    let trusts = device
        .bundle
        .map_or(current.issuer == target.issuer, |b| b == target.bundle);
    Some(if trusts {
        JobKind::Rotate
    } else {
        JobKind::Trust(target.bundle)
    })
}
