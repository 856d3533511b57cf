//! Devices are sent something new only while a window of theirs is open.

use std::time::Duration;

use certwave_crds::RotationPhase;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::world::{MAX_IN_FLIGHT, Staged, fleet, strategy};

const MINUTE: i64 = 60;
const HALF_A_DAY: i64 = 12 * 60 * MINUTE;

/// A window that opens at this time of every day, a full minute in Unix seconds.
fn window(opens: i64, seconds: i64, selector: &Value) -> Value {
    assert_eq!(opens % MINUTE, 0);
    let (minute, hour) = (opens / MINUTE % 60, opens / MINUTE / 60 % 24);
    json!({
        "cron": format!("{minute} {hour} * * *"), "duration": format!("{seconds}s"), "timeZone": "UTC", "selector": selector,
    })
}

#[tokio::test]
async fn a_window_that_closes_in_the_middle_lets_jobs_in_flight_end_and_nothing_new_begin() {
    let mut world = Staged::new("window").await;
    let ids = world
        .enrol("m", &fleet(8, 0, &["north", "south"]), &["--fault", "slow:1s=*"])
        .await;
    let before = world.certificates().await;
    // It has been open since the full minute, and closes soon; another one opens a little later.
    let now = Timestamp::now().as_second();
    let (opened, closes) = (now / MINUTE * MINUTE, now + 9);
    let opens_again = (closes + 3 + MINUTE - 1) / MINUTE * MINUTE;
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [{ "name": "all", "percent": 100 }],
            "limits": { "maxInFlight": 2 },
            "device": { "stepTimeout": "10s", "jobTimeout": "40s" },
            "windows": [window(opened, closes - opened, &json!({})), window(opens_again, 1800, &json!({}))],
        })),
    );

    let status = world
        .until("run", "the window to close", |status| {
            Timestamp::now().as_second() >= closes && status.counts.confirmed > 0 && status.counts.in_flight == 0
        })
        .await;
    assert!(status.counts.waiting > 0, "{status:#?}");
    assert_eq!(status.phase, Some(RotationPhase::Running));
    assert_eq!(
        status.counts.confirmed + status.counts.waiting,
        8,
        "who had begun has ended well: {status:#?}"
    );
    let next: Vec<_> = status
        .plan
        .unwrap()
        .windows
        .iter()
        .map(|window| window.opens.0.as_second())
        .collect();
    assert!(next.contains(&opens_again), "{next:?}");
    world.switch_off("m");
    world.switch_on("m", &ids, &[]);

    let status = world.ended("run").await;
    assert_eq!(status.counts.confirmed, 8, "{status:#?}");
    let history = world.history();
    let shut = closes * 1000 + 1000..opens_again * 1000;
    // A job that is being written when the window closes is sent.
    let outside: Vec<_> = history
        .sent_at("run")
        .into_iter()
        .filter(|at| shut.contains(at))
        .collect();
    assert!(outside.is_empty(), "sent at {outside:?}, closed in {shut:?}");
    assert!(history.sent_at("run").iter().any(|at| *at < shut.start));
    world.wait_renewed(&ids, &before).await;
    world.sound(2, 2).await;
}

#[tokio::test]
async fn a_site_whose_window_is_closed_waits_for_it_unless_its_certificates_are_near_their_end() {
    let mut world = Staged::new("site-window").await;
    let ids = world.enrol("m", &fleet(6, 0, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    let opened = Timestamp::now().as_second() / MINUTE * MINUTE;
    let site = |name: &str| json!({ "matchLabels": { "site": name } });
    let windows = json!([
        window(opened, 3600, &site("north")),
        window(opened + HALF_A_DAY, 3600, &site("south")),
    ]);
    let one_wave = json!([{ "name": "all", "percent": 100 }]);
    world.rotate("run", &strategy(&json!({ "waves": one_wave, "windows": windows })));
    let (north, south): (Vec<_>, Vec<_>) = ids.iter().cloned().enumerate().partition(|(n, _)| n % 2 == 0);
    let ids = |of: Vec<(usize, String)>| of.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    let (north, south) = (ids(north), ids(south));
    world
        .until("run", "the site in the north", |status| status.counts.confirmed == 3)
        .await;
    world.lasts(Duration::from_secs(3)).await;
    let status = world.status("run").await;
    assert_eq!(
        (status.phase, status.counts.waiting, status.counts.in_flight),
        (Some(RotationPhase::Running), 3, 0),
        "{status:#?}"
    );
    world.wait_renewed(&north, &before).await;
    for id in &south {
        assert_eq!(world.current_of(id).await.as_ref(), before.get(id), "{id}");
    }
    world.control_as("alice", "run", &json!({ "state": "Aborted" }));
    world.phase("run", RotationPhase::Aborted).await;

    // With their end that near, the site in the south does not wait for its window.
    world.rotate(
        "urgent",
        &strategy(&json!({
            "selector": site("south"), "waves": one_wave, "windows": windows, "windowOverrideBeforeExpiry": "40d",
        })),
    );
    let status = world.phase("urgent", RotationPhase::Complete).await;
    assert_eq!((status.counts.planned, status.counts.confirmed), (3, 3), "{status:#?}");
    world.wait_renewed(&south, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}
