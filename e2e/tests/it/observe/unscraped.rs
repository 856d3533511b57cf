//! Nobody asks for the metrics: nothing waits for it, nothing is lost, and they do not grow with the fleet.

use std::collections::BTreeSet;

use certwave_crds::RotationPhase;
use certwave_e2e::http::sample;
use serde_json::json;

use crate::faults::world::World;

/// The series of an exposition, without their values.
fn series(exposition: &str) -> BTreeSet<&str> {
    let lines = exposition.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

#[tokio::test]
async fn metrics_that_nobody_scrapes_count_all_the_same_and_do_not_grow_with_the_fleet() {
    let mut world = World::new("unscraped", 8).await;
    world.enrol("m", 2, &[]).await;
    world.rotate("few", &json!({}));
    assert_eq!(world.ended("few").await.phase, Some(RotationPhase::Complete));
    world.rotate("again", &json!({}));
    assert_eq!(world.ended("again").await.phase, Some(RotationPhase::Complete));
    // The first time that anybody asks.
    let few = world.stack.controller_metrics().await.unwrap();
    let confirmed = |text: &str| {
        let labels = ["kind=\"rotate\"", "state=\"Confirmed\""];
        sample(text, "certwave_jobs_ended_total", &labels)
    };
    assert_eq!(confirmed(&few), Some(4.0), "{few}");

    let more = world.enrol("n", 20, &[]).await;
    world.rotate("many", &json!({}));
    assert_eq!(world.ended("many").await.phase, Some(RotationPhase::Complete));
    let many = world.stack.controller_metrics().await.unwrap();
    assert_eq!(confirmed(&many), Some(26.0), "{many}");
    let (few, many) = (series(&few), series(&many));
    // What is new is of the Rotation.
    let grown: Vec<_> = many
        .difference(&few)
        .filter(|series| !series.contains("rotation=\"many\""))
        .collect();
    assert!(grown.is_empty(), "{grown:#?}");
    assert!(!many.iter().any(|series| more.iter().any(|id| series.contains(id))));
}
