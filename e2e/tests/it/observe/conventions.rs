//! The dashboards' JSON, by Grafana's conventions.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::names::{mentioned, project, series};

/// The files of all dashboards.
pub(super) fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project("dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    files
}

/// Each dashboard with the name of its file.
fn dashboards() -> Vec<(String, Value)> {
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (
            name,
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
        )
    };
    files().into_iter().map(read).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The panels that ask something.
fn asking(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").filter(|panel| panel["type"] != "row")
}

#[test]
fn there_are_the_four_that_people_were_promised() {
    let names: Vec<_> = dashboards().into_iter().map(|(name, _)| name).collect();
    let expected = [
        "certwave-controller",
        "certwave-fleets",
        "certwave-revocation",
        "certwave-rotation",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_dashboard_can_be_imported_again_and_again() {
    let mut titles = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert_eq!(text(&dashboard, "uid"), name, "links by uid go on after an import");
        assert!(name.len() <= 40, "Grafana takes no longer uid");
        assert!(dashboard["id"].is_null(), "{name}: an id belongs to one Grafana");
        assert!(dashboard["schemaVersion"].as_i64() >= Some(36), "{name}");
        assert!(titles.insert(text(&dashboard, "title").to_owned()), "{name}");
        assert!(text(&dashboard, "title").starts_with("Certwave / "), "{name}");
        assert!(!text(&dashboard, "description").is_empty(), "{name}");
        assert_eq!(dashboard["tags"], serde_json::json!(["certwave"]), "{name}");
        assert!(
            dashboard.get("__inputs").is_none(),
            "{name}: the variable asks for the data source"
        );
        let links: Vec<_> = list(&dashboard, "links").map(|link| text(link, "title")).collect();
        assert_eq!(links, ["Certwave", "Runbooks"], "{name}");
    }
}

#[test]
fn the_data_source_is_a_variable_everywhere() {
    for (name, dashboard) in dashboards() {
        let variables: Vec<_> = list(&dashboard["templating"], "list").collect();
        assert_eq!(
            (text(variables[0], "name"), text(variables[0], "type")),
            ("datasource", "datasource"),
            "{name}"
        );
        assert_eq!(variables[0]["query"], "prometheus");
        let mut sources: Vec<&Value> = variables[1..].iter().map(|variable| &variable["datasource"]).collect();
        for panel in asking(&dashboard) {
            sources.push(&panel["datasource"]);
            sources.extend(list(panel, "targets").map(|target| &target["datasource"]));
        }
        for source in sources {
            let expected = serde_json::json!({ "type": "prometheus", "uid": "${datasource}" });
            assert_eq!(*source, expected, "{name}: no data source of one Grafana's own");
        }
    }
}

#[test]
fn variables_choose_fleets_and_are_used() {
    for (name, dashboard) in dashboards() {
        let whole = dashboard.to_string();
        for variable in list(&dashboard["templating"], "list").skip(1) {
            let own = text(variable, "name");
            assert!(whole.contains(&format!("${own}")), "{name}: ${own} is not used");
            assert!(
                !text(variable, "label").is_empty() && variable["refresh"] == 2,
                "{name}: ${own}"
            );
            assert_eq!(variable["definition"], variable["query"]["query"], "{name}: ${own}");
        }
        let names: Vec<_> = list(&dashboard["templating"], "list")
            .map(|variable| text(variable, "name"))
            .collect();
        let expected: &[&str] = match name.as_str() {
            "certwave-fleets" => &["datasource", "namespace", "fleet"],
            "certwave-rotation" => &["datasource", "namespace", "fleet", "rotation"],
            "certwave-revocation" => &["datasource", "namespace", "authority"],
            _ => &["datasource", "job"],
        };
        assert_eq!(names, expected, "{name}");
    }
}

#[test]
fn panels_have_ids_places_titles_units_and_descriptions() {
    for (name, dashboard) in dashboards() {
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(
                !title.is_empty() && ids.insert(panel["id"].as_i64().unwrap()),
                "{name}: {title}"
            );
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_i64().unwrap());
            assert!(
                x >= 0 && w > 0 && h > 0 && x + w <= 24,
                "{name}: {title} is out of the grid"
            );
            for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
                assert!(taken.insert(cell), "{name}: {title} covers another panel at {cell:?}");
            }
        }
        for panel in asking(&dashboard) {
            let title = text(panel, "title");
            assert!(
                text(panel, "description").len() > 8,
                "{name}: {title} has no description"
            );
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(defaults, "unit").is_empty(), "{name}: {title} has no unit");
            let first = &defaults["thresholds"]["steps"][0];
            assert!(
                first["value"].is_null() && !text(first, "color").is_empty(),
                "{name}: {title}"
            );
        }
    }
}

#[test]
fn queries_ask_for_rates_that_fit_the_scrape_interval_and_for_metrics_that_exist() {
    let known = series();
    for (name, dashboard) in dashboards() {
        for panel in asking(&dashboard) {
            let title = text(panel, "title");
            let mut refs = BTreeSet::new();
            for target in list(panel, "targets") {
                let expression = text(target, "expr");
                assert!(refs.insert(text(target, "refId")), "{name}: {title}");
                assert!(target["instant"] != target["range"], "{name}: {title}");
                for range in expression.split('[').skip(1) {
                    let range = range.split(']').next().unwrap();
                    assert_eq!(range, "$__rate_interval", "{name}: {title}");
                }
                let unknown: Vec<_> = mentioned(expression).difference(&known).cloned().collect();
                assert!(unknown.is_empty(), "{name}: {title}: {unknown:?}");
                assert!(
                    !expression.contains("instance=") && !expression.contains("pod="),
                    "{name}: {title}"
                );
            }
            assert!(!refs.is_empty(), "{name}: {title} asks nothing");
        }
    }
}

#[test]
fn panels_lead_to_runbooks_and_every_alert_has_a_panel_that_leads_to_its_own() {
    let mut linked = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        for link in asking(&dashboard).flat_map(|panel| list(panel, "links")) {
            let url = text(link, "url");
            let book = url.rsplit('/').next().unwrap();
            assert!(project("docs/runbooks").join(book).is_file(), "{name}: {url}");
            linked.insert(book.to_owned());
        }
    }
    let books: BTreeSet<String> = std::fs::read_dir(project("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(linked, books);
}
