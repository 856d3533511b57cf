//! From the first look to the end of a rotation, and what people say in between.

use certwave_crds::RotationPhase;
use certwave_e2e::wait_for;
use serde_json::json;

use super::plugin::Plugin;
use crate::faults::world::SOON;
use crate::rollout::world::{MAX_IN_FLIGHT, Staged, fleet, strategy};

#[tokio::test]
async fn a_rotation_is_previewed_begun_approved_paused_and_followed_to_its_end() {
    let mut world = Staged::new("cli-rotate").await;
    let ids = world.enrol("m", &fleet(6, 2, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    let plugin = Plugin::of(&world.stack);

    // At a glance.
    let counted = wait_for("the fleet's counts", SOON, || async {
        let status = plugin.json(&["status"]);
        let fleet = &status["fleets"][0];
        anyhow::ensure!(fleet["counts"]["enrolled"] == 6 && fleet["ready"] == true, "{status:#}");
        Ok(())
    });
    world.told(counted.await);
    assert!(plugin.run(&["status", "-o", "wide"]).contains("BROKER"));
    assert_eq!(plugin.run(&["status", "-o", "name"]), "fleet.certwave.dev/meters\n");
    assert!(plugin.fails(3, &["status", "nobody"]).contains("no Fleet nobody"));

    // What would happen, by a strategy in a file; nothing of it stays.
    let plan = strategy(&json!({ "waves": [
        { "name": "canary", "count": 2, "selector": { "matchLabels": { "ring": "canary" } }, "approval": true },
        { "name": "rest", "percent": 100 },
    ] }));
    let file = world.stack.directory().join("rotation.yaml");
    std::fs::write(&file, json!({ "kind": "Rotation", "spec": plan }).to_string()).unwrap();
    let from = file.to_str().unwrap();
    let planned = plugin.json(&["preview", "meters", "--from", from]);
    assert_eq!(planned["waves"][0]["planned"], 2, "{planned:#}");
    assert_eq!(planned["waves"][1]["planned"], 4);
    assert_eq!(
        plugin.json(&["preview", "meters", "-l", "site=north"])["waves"][0]["planned"],
        3
    );
    let rotations = world.stack.objects::<certwave_crds::Rotation>();
    assert_eq!(
        rotations
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        0
    );

    // Without a terminal it begins only when told not to ask.
    let refused = plugin.fails(6, &["rotate", "meters", "--from", from]);
    assert!(refused.contains("--yes") && refused.contains("6 devices"), "{refused}");
    assert_eq!(
        plugin.run(&[
            "rotate", "meters", "--from", from, "--name", "run", "--yes", "-o", "name"
        ]),
        "rotation.certwave.dev/run\n"
    );

    // The canary waits for a person; approving by the Fleet's name means the Rotation that runs.
    world.phase("run", RotationPhase::WaitingForApproval).await;
    let seen = plugin.run(&["watch", "run", "--once"]);
    assert!(
        seen.contains("WaitingForApproval, wave 1/2 canary") && seen.contains("100% 2/2"),
        "{seen}"
    );
    assert!(plugin.run(&["status"]).contains("kubectl certwave approve run"));
    let other = "b".repeat(64);
    let refused = plugin.fails(1, &["approve", "run", "--plan-hash", &other, "--yes"]);
    assert!(refused.contains("look at it again"), "{refused}");
    assert!(plugin.fails(6, &["approve", "meters"]).contains("--yes"));

    // Paused and resumed before it is approved.
    assert_eq!(
        plugin.run(&["pause", "rotation/run"]),
        "rotation.certwave.dev/run paused\n"
    );
    world.phase("run", RotationPhase::Paused).await;
    assert!(plugin.run(&["watch", "--once"]).contains("Paused"));
    assert_eq!(plugin.run(&["resume", "run"]), "rotation.certwave.dev/run resumed\n");
    world.phase("run", RotationPhase::WaitingForApproval).await;
    assert!(plugin.fails(1, &["resume", "run"]).contains("approve run"));

    assert_eq!(
        plugin.run(&["approve", "meters", "--yes"]),
        "rotation.certwave.dev/run approved\n"
    );
    let followed = plugin.run(&["watch", "run"]);
    assert!(followed.lines().last().unwrap().contains("Complete"), "{followed}");
    world.wait_renewed(&ids, &before).await;
    // Who it was stands in the audit.
    let approved = world
        .history()
        .deeds()
        .into_iter()
        .find(|deed| deed.what == "wave-approved")
        .unwrap();
    assert!(approved.who.starts_with("kubectl-certwave"), "{approved:?}");
    assert!(plugin.fails(1, &["abort", "run", "--yes"]).contains("is over"));
}

#[tokio::test]
async fn a_breach_is_told_and_answered_and_an_abort_is_final() {
    let mut world = Staged::new("cli-breach").await;
    world
        .enrol("m", &fleet(4, 1, &["north"]), &["--fault", "reject=m-1"])
        .await;
    let plugin = Plugin::of(&world.stack);
    let plan = strategy(&json!({ "waves": [
        { "name": "canary", "count": 1, "selector": { "matchLabels": { "ring": "canary" } } },
        { "name": "rest", "percent": 100 },
    ] }));
    let file = world.stack.directory().join("rotation.json");
    std::fs::write(&file, json!({ "kind": "Rotation", "spec": plan }).to_string()).unwrap();

    // Who waits for it hears that a person is needed.
    let waited = plugin.fails(
        7,
        &[
            "rotate",
            "meters",
            "--from",
            file.to_str().unwrap(),
            "--name",
            "run",
            "--yes",
            "--wait",
        ],
    );
    assert!(waited.contains("Breached") && waited.contains("retry run"), "{waited}");
    let status = plugin.run(&["status"]);
    assert!(
        status.contains("FAULT") && status.contains("stopped in wave 1/2 canary"),
        "{status}"
    );
    let seen = plugin.run(&["watch", "run", "--once"]);
    assert!(seen.contains("m-1") && seen.contains("BREACHED"), "{seen}");

    // The device refuses again; a word is carried out once.
    assert!(plugin.fails(6, &["retry", "run", "-m", "INC-1"]).contains("--yes"));
    plugin.run(&["retry", "run", "-m", "INC-1", "--yes"]);
    assert!(world.event("run", "RetryFailed").await.contains("INC-1"));
    world.phase("run", RotationPhase::Breached).await;
    assert!(
        plugin
            .fails(1, &["retry", "run", "-m", "INC-1", "--yes"])
            .contains("given before")
    );

    assert!(plugin.fails(6, &["abort", "run"]).contains("for good"));
    plugin.run(&["abort", "run", "--yes"]);
    world.phase("run", RotationPhase::Aborted).await;
    assert_eq!(plugin.json(&["status"])["fleets"][0]["rotation"], json!(null));
}

#[tokio::test]
async fn a_wave_is_sent_back_by_a_persons_word() {
    let mut world = Staged::new("cli-back").await;
    let ids = world.enrol("m", &fleet(4, 2, &["north"]), &[]).await;
    let before = world.certificates().await;
    let plugin = Plugin::of(&world.stack);
    let plan = strategy(&json!({
        "waves": [
            { "name": "canary", "count": 2, "selector": { "matchLabels": { "ring": "canary" } }, "approval": true },
            { "name": "rest", "percent": 100 },
        ],
        "oldCertificate": { "rollbackMinRemaining": "1d" },
    }));
    world.rotate("run", &plan);
    world.phase("run", RotationPhase::WaitingForApproval).await;

    assert!(plugin.fails(6, &["rollback", "run"]).contains("2 devices of wave 1/2"));
    plugin.run(&["rollback", "run", "-m", "INC-2", "--yes"]);
    let back = world.phase("run", RotationPhase::RolledBack).await;
    assert_eq!(back.counts.rolled_back, 2, "{back:#?}");
    assert!(world.event("run", "SentBack").await.contains("INC-2"));
    // Every device starts from the certificate that it had before.
    let shown = wait_for("the old certificates to be shown", SOON, || async {
        let now = world.certificates().await;
        anyhow::ensure!(now == before, "{now:?}");
        Ok(())
    });
    world.told(shown.await);
    let breach = back.breach.unwrap();
    assert_eq!(breach.cause, certwave_crds::BreachCause::Person);

    // And on again, by another word.
    plugin.run(&["resume", "run", "--yes"]);
    world.phase("run", RotationPhase::WaitingForApproval).await;
    plugin.run(&["approve", "run", "--yes"]);
    world.phase("run", RotationPhase::Complete).await;
    world.wait_renewed(&ids, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}
