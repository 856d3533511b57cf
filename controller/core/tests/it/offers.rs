//! When a job that waits is offered.

use certwave_core::due;
use certwave_core::model::{Device, JobState};
use certwave_core::step::{self, Event};
use certwave_protocol::ids::Nonce;

use crate::fixtures::{NOW, after, ctx, policy, rotating};

#[test]
fn a_device_that_does_not_answer_is_asked_ever_more_seldom() {
    let p = policy();
    let queued = rotating(JobState::Queued);
    assert!(due::may_offer(NOW, &queued), "the first time at once");
    assert!(!due::may_offer(NOW, &rotating(JobState::Sent)), "only what waits");

    let (mut device, mut now, mut pauses) = (queued, NOW, Vec::new());
    for _ in 0..3 {
        let asked = Device {
            session: Some(Nonce([2; 16])),
            ..device
        };
        (device, _) = after(step::step(&ctx(&p, now), &asked, &Event::Offer));
        now += p.offline_after;
        (device, _) = after(step::step(&ctx(&p, now), &device, &Event::Deadline));
        let since = now;
        assert!(!due::may_offer(now + 1, &device));
        now += now - NOW;
        assert!(due::may_offer(now, &device));
        pauses.push(now - since);
    }
    assert!(pauses.is_sorted_by(|a, b| a < b), "{pauses:?}");
    assert!(due::may_offer(now - 100 * p.offline_after, &device), "a clock set back");
}
