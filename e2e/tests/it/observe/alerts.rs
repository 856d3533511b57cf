//! The alerts: judged by promtool, with a runbook for each, about metrics that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use certwave_e2e::tools;
use serde::Deserialize;

use super::names::{mentioned, project, series};

const RULES: &str = "charts/certwave/files/alerts.yaml";
const TESTS: &str = "e2e/tests/it/observe/alerts.test.yaml";
const RUNBOOKS: &str = "docs/runbooks";
/// Where the runbooks are read by whoever is paged.
const PUBLISHED: &str = "https://github.com/certwave/certwave/blob/main/docs/runbooks";
const HEADINGS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Tests {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    alert_rule_test: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    alertname: String,
    exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    exp_labels: BTreeMap<String, String>,
}

fn read<T: serde::de::DeserializeOwned>(path: &str) -> T {
    serde_saphyr::from_str(&std::fs::read_to_string(project(path)).unwrap()).unwrap()
}

fn rules() -> Vec<Rule> {
    let rules: Rules = read(RULES);
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

fn promtool(arguments: &[&str], file: &str) {
    let mut command = Command::new(tools::promtool().unwrap());
    command.args(arguments).arg(project(file));
    tools::output(&mut command).unwrap();
}

#[test]
fn prometheus_takes_the_rules_and_each_fires_when_it_should_and_only_then() {
    promtool(&["check", "rules"], RULES);
    promtool(&["test", "rules"], TESTS);
}

#[test]
fn each_rule_is_tested_firing_and_silent() {
    let tests: Tests = read(TESTS);
    let cases: Vec<Case> = tests.tests.into_iter().flat_map(|test| test.alert_rule_test).collect();
    for rule in rules() {
        let mine = || cases.iter().filter(|case| case.alertname == rule.alert);
        let severity = &rule.labels["severity"];
        let fires = |case: &Case| {
            case.exp_alerts
                .iter()
                .any(|alert| &alert.exp_labels["severity"] == severity)
        };
        assert!(mine().any(fires), "{} ({severity}) is not tested firing", rule.alert);
        assert!(
            mine().any(|case| !fires(case)),
            "{} ({severity}) is not tested silent",
            rule.alert
        );
    }
}

#[test]
fn each_alert_says_what_is_wrong_and_leads_to_its_runbook() {
    for rule in rules() {
        let name = &rule.alert;
        assert!(
            ["warning", "critical"].contains(&rule.labels["severity"].as_str()),
            "{name}"
        );
        assert_eq!(rule.annotations["runbook_url"], format!("{PUBLISHED}/{name}.md"));
        for text in ["summary", "description"] {
            assert!(!rule.annotations[text].is_empty(), "{name} has no {text}");
        }
        let path = project(RUNBOOKS).join(format!("{name}.md"));
        let book = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = book.lines();
        assert_eq!(lines.next(), Some(format!("# {name}").as_str()));
        let headings: Vec<_> = book.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, HEADINGS, "{name}");
        for part in book.split("\n## ").skip(1) {
            let (heading, text) = part.split_once('\n').unwrap();
            assert!(text.trim().len() > 60, "{name} says nothing under {heading}");
        }
    }
}

#[test]
fn there_is_no_runbook_without_an_alert() {
    let alerts: BTreeSet<String> = rules().into_iter().map(|rule| rule.alert).collect();
    let books: BTreeSet<String> = std::fs::read_dir(project(RUNBOOKS))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(books, alerts);
}

#[test]
fn links_between_runbooks_and_to_the_documents_lead_somewhere() {
    for entry in std::fs::read_dir(project(RUNBOOKS)).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = path.parent().unwrap().join(file);
            let text = std::fs::read_to_string(&target);
            let text = text.unwrap_or_else(|error| panic!("{}: {link}: {error}", path.display()));
            if target.extension().is_some_and(|end| end == "md") && !heading.is_empty() {
                assert!(
                    text.lines().any(|line| anchor(line) == heading),
                    "{}: {link}",
                    path.display()
                );
            }
        }
    }
}

/// What GitHub makes of a heading.
fn anchor(line: &str) -> String {
    let title = line.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn rules_name_only_metrics_that_exist() {
    let known = series();
    for rule in rules() {
        let named = mentioned(&rule.expr);
        assert!(!named.is_empty(), "{} is about nothing of ours", rule.alert);
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", rule.alert);
    }
}
