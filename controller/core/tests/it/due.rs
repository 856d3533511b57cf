//! Who needs a job, and which.

use certwave_core::due::{self, Target};
use certwave_core::model::{JobKind, JobState};
use certwave_protocol::ids::Fingerprint;

use crate::fixtures::{NOW, YEAR, enrolled, rotating};

#[test]
fn trust_comes_before_the_leaf_and_an_expired_device_is_not_asked() {
    let mut device = enrolled();
    device.bundle = Some(Fingerprint([1; 32]));
    let target = Target {
        issuer: "new-ca",
        bundle: Fingerprint([2; 32]),
        renew_before: Some(0),
    };
    assert_eq!(
        due::next_job(NOW, &device, &target),
        Some(JobKind::Trust(Fingerprint([2; 32])))
    );
    device.bundle = Some(Fingerprint([2; 32]));
    assert_eq!(due::next_job(NOW, &device, &target), Some(JobKind::Rotate));
    assert_eq!(due::next_job(NOW + 2 * YEAR * 1000, &device, &target), None);
}

#[test]
fn a_pause_counts_unless_it_began_by_a_clock_that_was_put_back() {
    let mut device = rotating(JobState::Failed);
    let target = Target {
        issuer: "new-ca",
        bundle: Fingerprint([2; 32]),
        renew_before: Some(0),
    };
    (device.bundle, device.not_before) = (Some(target.bundle), Some(NOW + 60_000));
    assert_eq!(due::next_job(NOW, &device, &target), None);
    assert!(due::next_job(NOW + 60_000, &device, &target).is_some());
    let failed = device.job.as_mut().unwrap();
    failed.since = NOW + 1;
    assert!(due::next_job(NOW, &device, &target).is_some());
}
