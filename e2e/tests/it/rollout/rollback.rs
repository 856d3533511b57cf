//! A wave is sent back while its devices are in every state that there is.

use std::collections::BTreeMap;

use certwave_crds::{RotationPhase, WavePhase};
use serde_json::json;

use super::world::{Staged, condition, fleet, strategy};

#[tokio::test]
async fn a_wave_goes_back_from_every_state_that_its_devices_are_in() {
    let mut world = Staged::new("states").await;
    let sites = ["north"];
    let confirmed = world.enrol("confirmed", &fleet(2, 2, &sites), &[]).await;
    let queued = world.enrol("queued", &fleet(1, 1, &sites), &[]).await;
    let sent = world
        .enrol("sent", &fleet(1, 1, &sites), &["--fault", "never-answer=*"])
        .await;
    let accepted = world
        .enrol("accepted", &fleet(1, 1, &sites), &["--fault", "vanish:accepted=*"])
        .await;
    let issued = world
        .enrol("issued", &fleet(1, 1, &sites), &["--fault", "vanish:stored=*"])
        .await;
    let tested = world
        .enrol("tested", &fleet(1, 1, &sites), &["--fault", "vanish:tested=*"])
        .await;
    let faults = ["--fault", "reject=*", "--fault", "slow:1s=*"];
    let refuses = world.enrol("refuses", &fleet(1, 1, &sites), &faults).await;
    let rest = world.enrol("rest", &fleet(2, 0, &sites), &[]).await;
    world.switch_off("queued");
    let before = world.certificates().await;
    world.rotate(
        "run",
        &strategy(&json!({
            "defaults": { "onBreach": "Rollback", "maxLost": 3 },
            "limits": { "maxInFlight": 8 },
            "device": { "stepTimeout": "4s", "jobTimeout": "8s", "offlineAfter": "6s", "retries": { "max": 1 } },
            "waves": [
                { "name": "canary", "count": 8, "selector": { "matchLabels": { "ring": "canary" } } },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );

    // One refuses, which nobody may: at that moment the others are in all states.
    let status = world.phase("run", RotationPhase::RolledBack).await;
    let at = world.history().states_at("rotation-breached");
    let groups = [
        (&confirmed, "confirmed"),
        (&queued, "queued"),
        (&sent, "sent"),
        (&accepted, "accepted"),
        (&issued, "issued"),
        (&tested, "committing"),
        (&refuses, "rejected"),
    ];
    let expected: BTreeMap<_, _> = groups
        .into_iter()
        .flat_map(|(ids, state)| ids.iter().map(move |id| (id.clone(), state.to_owned())))
        .collect();
    assert_eq!(at, expected);

    // Those that had proven the new certificate are back on the old one, and nobody else ever left it.
    let canary = &status.waves[0];
    assert_eq!(
        (canary.phase, canary.confirmed, canary.rolled_back),
        (WavePhase::RolledBack, 0, 2),
        "{canary:#?}"
    );
    assert_eq!((canary.rejected, canary.timed_out + canary.lost), (1, 3), "{canary:#?}");
    assert_eq!(canary.in_flight, 0);
    world.wait_shown(&before).await;

    // All are switched on again. One of them has the new certificate at hand and proves it: too late, it goes back as well.
    for (name, ids) in [("sent", &sent), ("refuses", &refuses)] {
        world.cut_power(name);
        world.switch_on(name, ids, &[]);
    }
    for (name, ids) in [
        ("accepted", &accepted),
        ("issued", &issued),
        ("tested", &tested),
        ("queued", &queued),
    ] {
        if name != "queued" {
            world.cut_power(name);
        }
        world.switch_on(name, ids, &[]);
    }
    world
        .when("the late one to be sent back", |history| {
            history.kinds(&issued[0]).last().is_some_and(|kind| kind == "rollback")
        })
        .await;
    let status = world.until("run", "all to be back", |status| {
        status.phase == Some(RotationPhase::RolledBack) && status.waves[0].rolled_back == 4
    });
    let status = status.await;
    assert!(status.not_rolled_back.is_empty(), "{status:#?}");
    world.sound(8, 8).await;
    assert_eq!(
        world.certificates().await,
        before,
        "the whole wave is on its old certificates"
    );
    for id in &rest {
        assert_eq!(world.history().kinds(id), ["enrol"]);
    }

    // A person resumes with all devices mended.
    world.control_as("alice", "run", &json!({ "resume": "mended", "retryFailed": "mended" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(condition(&status, "Complete").reason, "AllConfirmed", "{status:#?}");
    assert_eq!(status.counts.confirmed, 10);
    let all: Vec<_> = before.keys().cloned().collect();
    world.wait_renewed(&all, &before).await;
    world.sound(8, 8).await;
}
