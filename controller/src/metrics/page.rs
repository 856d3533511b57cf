//! Keeps `docs/metrics.md` and the code equal.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::{Described, Metrics, Unit};

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// The line of the page's tables for a metric.
fn line(metric: &Described) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let (name, kind, unit) = (&metric.name, metric.kind, metric.unit.words());
    format!(
        "| `{name}` | {kind} | {unit} | {} | {} |",
        labels.join(" "),
        metric.help
    )
}

#[test]
fn the_page_lists_every_metric_as_it_is() {
    let metrics = Metrics::new().unwrap();
    let wanted: BTreeSet<String> = metrics.described().iter().map(line).collect();
    let listed: BTreeSet<String> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `certwave_"))
        .map(str::to_owned)
        .collect();
    let difference = |a: &BTreeSet<String>, b| a.difference(b).cloned().collect::<Vec<_>>().join("\n");
    let (missing, extra) = (difference(&wanted, &listed), difference(&listed, &wanted));
    assert!(
        missing.is_empty() && extra.is_empty(),
        "docs/metrics.md lacks\n{missing}\nand should not have\n{extra}"
    );
    let count = PAGE.lines().filter(|line| line.starts_with("| `certwave_")).count();
    assert_eq!(count, listed.len(), "a metric is listed twice");
}

#[test]
fn the_page_lists_the_metrics_of_the_process() {
    let text = Metrics::new().unwrap().text();
    let own: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.starts_with("certwave_"))
        .collect();
    let listed: BTreeSet<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `process_"))
        .filter_map(|line| line.split('`').next())
        .collect();
    let own_names: BTreeSet<&str> = own.iter().filter_map(|name| name.strip_prefix("process_")).collect();
    assert_eq!(own.len(), own_names.len(), "{own:?}");
    assert_eq!(listed, own_names);
}

#[test]
fn names_and_labels_follow_prometheus_conventions() {
    let metrics = Metrics::new().unwrap();
    for metric in metrics.described() {
        let Described { name, kind, unit, .. } = metric;
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
        if *kind != "counter" {
            assert!(name.ends_with(unit.suffix()), "{name} is in {unit:?}");
        }
        if *unit == Unit::Seconds {
            assert!(!name.ends_with("_timestamp_seconds"), "{name}");
        }
        for label in &metric.labels {
            assert!(!label.contains("device"), "{name}: no label names a device");
        }
        assert!(
            !metric.help.ends_with('.') && !metric.help.contains('|'),
            "{name}: {}",
            metric.help
        );
    }
}
