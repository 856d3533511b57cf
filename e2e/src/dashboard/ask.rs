//! Asks a Prometheus what a dashboard's panels ask.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::model::{Dashboard, Panel, Target};
use crate::prometheus::{Prometheus, Series};

/// Points that a range is asked in.
const POINTS: f64 = 240.0;

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Scope {
    /// From and to, Unix seconds.
    pub range: (f64, f64),
    /// What `$__rate_interval` is, seconds: four scrapes at least.
    pub rate_interval: u32,
    /// Variables that are not the first of their values.
    pub chosen: BTreeMap<String, String>,
}

/// What one query of a panel gave.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The query, with values in place of variables.
    pub expression: String,
    /// The series that it gave, with their legends.
    pub series: Vec<(String, Series)>,
}

impl Asked {
    /// Whether there is any number in it.
    pub fn has_data(&self) -> bool {
        self.series.iter().any(|(_, series)| !series.points.is_empty())
    }
}

/// The answers to all queries of a dashboard, by panel.
///
/// # Errors
/// When a variable has no value, or an expression is refused.
pub async fn ask(dashboard: &Dashboard, prometheus: &Prometheus, scope: &Scope) -> Result<BTreeMap<u32, Vec<Asked>>> {
    let mut values = scope.chosen.clone();
    let range = scope.range.1 - scope.range.0;
    values.insert("__rate_interval".to_owned(), format!("{}s", scope.rate_interval));
    values.insert("__range".to_owned(), format!("{range:.0}s"));
    for variable in dashboard
        .templating
        .list
        .iter()
        .filter(|variable| variable.kind == "query")
    {
        let (name, definition) = (&variable.name, filled(&variable.definition, &values));
        let all = label_values(prometheus, &definition, scope.range.1)
            .await
            .with_context(|| name.clone())?;
        let first = all
            .first()
            .with_context(|| format!("${name} has no value by {definition}"))?;
        match values.get(name) {
            Some(chosen) => ensure!(all.contains(chosen), "${name} cannot be {chosen}, but {all:?}"),
            None => drop(values.insert(name.clone(), first.clone())),
        }
    }
    let mut answers = BTreeMap::new();
    for panel in dashboard.shown() {
        let mut asked = Vec::new();
        for target in &panel.targets {
            let answer = ask_one(prometheus, panel, target, &values, scope.range).await;
            asked.push(answer.with_context(|| format!("{}: {}", dashboard.title, panel.title))?);
        }
        answers.insert(panel.id, asked);
    }
    Ok(answers)
}

async fn ask_one(
    prometheus: &Prometheus,
    panel: &Panel,
    target: &Target,
    values: &BTreeMap<String, String>,
    range: (f64, f64),
) -> Result<Asked> {
    let expression = filled(&target.expr, values);
    let found = if target.instant {
        prometheus.query(&expression, range.1).await?
    } else {
        let step = ((range.1 - range.0) / POINTS).max(1.0);
        prometheus.query_range(&expression, range, step).await?
    };
    let legend = |series: &Series| legend(&target.legend_format, &series.labels, &panel.title);
    Ok(Asked {
        series: found.into_iter().map(|series| (legend(&series), series)).collect(),
        expression,
    })
}

/// Values in place of variables; longer names first, as one may begin with another.
fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut names: Vec<_> = values.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let put = |text: String, (name, value): (&String, &String)| text.replace(&format!("${name}"), value);
    names.into_iter().fold(text.to_owned(), put)
}

/// What `label_values(metric, label)` or `label_values(metric{selector}, label)` gives.
async fn label_values(prometheus: &Prometheus, definition: &str, at: f64) -> Result<Vec<String>> {
    let inner = definition
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    let (metric, label) = inner
        .and_then(|inner| inner.rsplit_once(','))
        .context("not label_values(metric, label)")?;
    let label = label.trim();
    let found = prometheus.query(&format!("count by ({label}) ({metric})"), at).await?;
    let mut values: Vec<_> = found
        .into_iter()
        .filter_map(|mut series| series.labels.remove(label))
        .collect();
    values.sort();
    Ok(values)
}

/// `{{label}}` filled in; where there is no format, or nothing is left of it, the panel's title.
fn legend(format: &str, labels: &BTreeMap<String, String>, title: &str) -> String {
    if format == "__auto" {
        return title.to_owned();
    }
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(labels.get(name.trim()).map_or("", String::as_str));
        rest = after;
    }
    out.push_str(rest);
    let out = out.trim();
    if out.is_empty() {
        "none".to_owned()
    } else {
        out.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_labels_are_filled_in() {
        let values = BTreeMap::from(
            [("fleet", "pumps"), ("fleets", "all"), ("__range", "60s")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let text = "x{a=\"$fleet\",b=\"$fleets\"}[$__range]";
        assert_eq!(filled(text, &values), "x{a=\"pumps\",b=\"all\"}[60s]");
        let labels = BTreeMap::from([("code".to_owned(), "none".to_owned())]);
        assert_eq!(legend("{{state}} {{code}}", &labels, "t"), "none");
        assert_eq!(legend("wave {{code}} of", &labels, "t"), "wave none of");
        assert_eq!(legend("__auto", &labels, "t"), "t");
    }
}
