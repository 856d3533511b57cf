//! What must hold after every fault of our own side.

use certwave_crds::{DeviceState, RotationPhase};
use certwave_e2e::tally::Certificates;
use certwave_e2e::wait_for;

use super::world::{ENDS, World};

/// Waits for the Rotation's end and asserts that it is as if nothing had been: each device has got one new certificate by one
/// job, is Active on it and proves it, nobody is charged with anything, and objects and ledger say the same.
pub(crate) async fn rotated_once(world: &mut World, rotation: &str, ids: &[String], before: &Certificates) {
    let ended = world.ended(rotation).await;
    assert_eq!(
        ended.phase,
        Some(RotationPhase::Complete),
        "{ended:#?}\n{}",
        world.log()
    );
    assert_eq!(
        usize::try_from(ended.counts.confirmed).unwrap(),
        ids.len(),
        "{ended:#?}"
    );
    let history = world.history();
    assert_eq!(history.went_wrong(), 0, "{}", world.log());
    for id in ids {
        assert_eq!(history.kinds(id), ["enrol", "rotate"], "{id}");
    }
    world.wait_renewed(ids, before).await;
    let agree = wait_for("objects to show what the ledger has", ENDS, || async {
        let unshown = world.history().unshown();
        anyhow::ensure!(unshown == 0, "{unshown} devices are not shown as they are");
        Ok(())
    });
    world.told(agree.await);
    let (shown, states) = (world.certificates().await, world.states().await);
    for id in ids {
        assert_eq!(shown.get(id), history.current(id).as_ref(), "{id}");
        assert_eq!(states[id], Some(DeviceState::Active), "{id}");
    }
    world.verify().await;
}
