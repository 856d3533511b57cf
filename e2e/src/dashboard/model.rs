//! What of a dashboard's JSON is gone by. Tests look at the rest as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A dashboard.
#[derive(Debug, Clone, Deserialize)]
pub struct Dashboard {
    /// Its id in URLs.
    pub uid: String,
    /// Its title.
    pub title: String,
    /// Its panels, rows among them.
    pub panels: Vec<Panel>,
    /// Its variables.
    pub templating: Templating,
}

/// Variables.
#[derive(Debug, Clone, Deserialize)]
pub struct Templating {
    /// In order.
    pub list: Vec<Variable>,
}

/// A variable.
#[derive(Debug, Clone, Deserialize)]
pub struct Variable {
    /// Its name, without `$`.
    pub name: String,
    /// `datasource`, or `query`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For a query: `label_values(...)`.
    #[serde(default)]
    pub definition: String,
}

/// A panel, or a row.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    /// Unique in its dashboard.
    pub id: u32,
    /// `row`, `stat`, `timeseries` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    pub title: String,
    /// Where it stands.
    pub grid_pos: Place,
    /// Its queries.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Units, colours and the like.
    #[serde(default)]
    pub field_config: Fields,
    /// What is done with tables.
    #[serde(default)]
    pub transformations: Vec<Value>,
    /// The rest of how it is shown.
    #[serde(default)]
    pub options: Value,
}

/// In a grid of 24 columns.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Place {
    /// Columns from the left.
    pub x: u32,
    /// Rows from the top.
    pub y: u32,
    /// Columns.
    pub w: u32,
    /// Rows.
    pub h: u32,
}

/// A query.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// `A`, `B` and so on.
    pub ref_id: String,
    /// In `PromQL`, with variables.
    pub expr: String,
    /// The legend of each series.
    #[serde(default)]
    pub legend_format: String,
    /// Asked at one time, not over a range.
    #[serde(default)]
    pub instant: bool,
}

/// How values are shown.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Fields {
    /// Of every series.
    #[serde(default)]
    pub defaults: Field,
    /// Of some, by name.
    #[serde(default)]
    pub overrides: Vec<Value>,
}

/// How a value is shown.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Field {
    /// Grafana's name of the unit.
    #[serde(default)]
    pub unit: String,
    /// Words for values.
    #[serde(default)]
    pub mappings: Vec<Mapping>,
    /// Colours by value.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// The least of the axis.
    pub min: Option<f64>,
    /// The greatest of the axis.
    pub max: Option<f64>,
    /// Of this kind of panel.
    #[serde(default)]
    pub custom: Value,
}

/// Words and colours for values.
#[derive(Debug, Clone, Deserialize)]
pub struct Mapping {
    /// By value.
    pub options: BTreeMap<String, Word>,
}

/// A word for a value.
#[derive(Debug, Clone, Deserialize)]
pub struct Word {
    /// In its place.
    pub text: String,
    /// Its colour.
    pub color: Option<String>,
}

/// Colours by value.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Thresholds {
    /// Upwards; the first has no value.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A colour from a value on.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// Grafana's name of the colour.
    pub color: String,
    /// From which value on; from anything on where there is none.
    pub value: Option<f64>,
}

impl Dashboard {
    /// Reads one.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    /// Its panels without rows.
    pub fn shown(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.kind != "row")
    }
}

impl Fields {
    /// A property of the series or column of this name alone.
    pub fn own(&self, name: &str, property: &str) -> Option<&Value> {
        let of_name = self
            .overrides
            .iter()
            .filter(|entry| entry["matcher"]["options"] == name);
        let mut properties = of_name.filter_map(|entry| entry["properties"].as_array()).flatten();
        properties
            .find(|found| found["id"] == property)
            .map(|found| &found["value"])
    }
}

impl Field {
    /// The colour of a value by the thresholds, by Grafana's name.
    pub fn color(&self, value: f64) -> &str {
        let passed = |step: &&Step| step.value.is_none_or(|from| value >= from);
        self.thresholds
            .steps
            .iter()
            .rfind(passed)
            .map_or("text", |step| &step.color)
    }

    /// The word that stands for a value.
    pub fn word(&self, value: f64) -> Option<&Word> {
        self.mappings
            .iter()
            .find_map(|mapping| mapping.options.get(&value.to_string()))
    }
}
