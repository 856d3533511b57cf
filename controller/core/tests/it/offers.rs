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
        let once_heard = |device: &Device, now| {
            let heard = Device {
                session: Some(Nonce([2; 16])),
                ..device.clone()
            };
            due::may_offer(now, &heard)
        };
        assert!(!once_heard(&device, now + 1));
        now += now - NOW;
        assert!(once_heard(&device, now));
        assert!(!due::may_offer(now, &device), "not before it was heard");
        pauses.push(now - since);
    }
    device.session = Some(Nonce([2; 16]));
    assert!(pauses.is_sorted_by(|a, b| a < b), "{pauses:?}");
    assert!(due::may_offer(now - 100 * p.offline_after, &device), "a clock set back");
}
