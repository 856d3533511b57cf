//! People pause, continue and abort in the middle, by name.

use certwave_crds::{RotationPhase, WavePhase};
use serde_json::json;

use super::world::{Staged, condition, fleet, strategy};

/// Devices take their time, so that there is a middle.
const SLOW: [&str; 2] = ["--fault", "slow:1s=*"];

#[tokio::test]
async fn pause_and_abort_in_the_middle_of_a_wave_stop_at_once_and_name_who_asked() {
    let mut world = Staged::new("people").await;
    let mut ids = world.enrol("m", &fleet(8, 0, &["north", "south"]), &SLOW).await;
    // One device is away: its job will be waiting for it.
    let away = world.enrol("away", &fleet(1, 0, &["north"]), &[]).await;
    world.switch_off("away");
    let before = world.certificates().await;
    world.rotate(
        "run",
        &strategy(&json!({
            "limits": { "maxInFlight": 1 },
            "waves": [{ "name": "first", "count": 1 }, { "name": "rest", "percent": 100 }],
        })),
    );
    world
        .when("a job of the second wave", |history| {
            history.reached("confirmed") >= 2 && history.in_flight() > 0
        })
        .await;

    // A pause lets the job in flight end, and sends nothing more.
    world.control_as("alice", "run", &json!({ "state": "Paused" }));
    let status = world.phase("run", RotationPhase::Paused).await;
    assert_eq!(condition(&status, "Progressing").status, "False");
    world
        .when("nothing in flight", |history| history.in_flight() == 0)
        .await;
    let sent = world.history().reached("sent");
    assert_eq!(
        world.history().reached("confirmed"),
        sent,
        "what was under way ended well"
    );
    assert!(world.event("run", "PausedByPerson").await.contains("alice"));
    world.lasts(std::time::Duration::from_secs(2)).await;
    assert_eq!(world.history().reached("sent"), sent, "nothing is sent in a pause");

    world.control_as("bob", "run", &json!({ "state": "Running" }));
    world
        .when("the next device", |history| history.reached("sent") > sent)
        .await;
    assert!(world.event("run", "Continued").await.contains("bob"));

    // An abort is final.
    world.control_as("carol", "run", &json!({ "state": "Aborted" }));
    let status = world.phase("run", RotationPhase::Aborted).await;
    assert_eq!(condition(&status, "Complete").reason, "Aborted");
    assert_eq!(status.waves[0].phase, WavePhase::Done);
    world
        .when("nothing in flight", |history| history.in_flight() == 0)
        .await;
    let sent = world.history().reached("sent");
    assert!(sent < ids.len(), "there was something left to abort");
    let running = json!({ "spec": { "control": { "state": "Running" } } }).to_string();
    let namespace = ["--namespace", world.stack.namespace()];
    let again = namespace
        .into_iter()
        .chain(["patch", "rotation", "run", "--type=merge", "-p", &running]);
    let refused = world.stack.api.kubectl(again).unwrap_err().to_string();
    assert!(refused.contains("an aborted Rotation stays aborted"), "{refused}");
    assert!(world.event("run", "Aborted").await.contains("carol"));

    // Whoever comes back finds nothing to do.
    world.switch_on("away", &away, &[]);
    world.wait_enrolled(&away).await;
    world.lasts(std::time::Duration::from_secs(2)).await;
    assert_eq!(world.history().reached("sent"), sent, "nothing is sent after an abort");
    assert_eq!(world.current_of(&away[0]).await.as_ref(), before.get(&away[0]));

    let deeds = world.history().deeds();
    let people: Vec<_> = deeds.iter().filter(|deed| deed.who != "controller").collect();
    let people: Vec<_> = people
        .iter()
        .map(|deed| (deed.who.as_str(), deed.what.as_str()))
        .collect();
    let expected = [
        ("alice", "rotation-paused"),
        ("bob", "rotation-continued"),
        ("carol", "rotation-aborted"),
    ];
    assert_eq!(people, expected);
    ids.extend(away);
    world.sound(1, 1).await;
}
