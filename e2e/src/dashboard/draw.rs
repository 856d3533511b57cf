//! A dashboard over what was answered to its queries, as SVG.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ask::Asked;
use super::chart::chart;
use super::model::{Dashboard, Panel};
use super::paint::{Anchor, Area, Svg, named, palette};
use super::units;
use crate::prometheus::Series;

const WIDTH: f64 = 1400.0;
const COLUMNS: f64 = 24.0;
const ROW: f64 = 30.0;
const GAP: f64 = 4.0;
const HEAD: f64 = 40.0;
const INK: &str = "#24292e";
const GREY: &str = "#6e7077";

/// Draws a dashboard: `answers` by panel, over the range from and to (Unix seconds).
pub fn draw(dashboard: &Dashboard, answers: &BTreeMap<u32, Vec<Asked>>, range: (f64, f64)) -> String {
    let mut svg = Svg::default();
    let bottom = dashboard
        .panels
        .iter()
        .map(|panel| panel.grid_pos.y + panel.grid_pos.h)
        .max();
    let height = HEAD + f64::from(bottom.unwrap_or_default()) * ROW + GAP;
    let whole = Area {
        x: 0.0,
        y: 0.0,
        w: WIDTH,
        h: height,
    };
    svg.rect(whole, "#f4f5f5", 1.0);
    svg.text((GAP + 6.0, 26.0), &dashboard.title, 17.0, INK, Anchor::Start, WIDTH);
    for panel in &dashboard.panels {
        let place = panel.grid_pos;
        let area = Area {
            x: f64::from(place.x) * WIDTH / COLUMNS + GAP,
            y: HEAD + f64::from(place.y) * ROW,
            w: f64::from(place.w) * WIDTH / COLUMNS - GAP * 2.0,
            h: f64::from(place.h) * ROW - GAP * 2.0,
        };
        if panel.kind == "row" {
            svg.text(
                (area.x + 4.0, area.y + 19.0),
                &format!("⌄ {}", panel.title),
                13.0,
                INK,
                Anchor::Start,
                area.w,
            );
            continue;
        }
        svg.frame(area);
        svg.text(
            (area.x + 8.0, area.y + 17.0),
            &panel.title,
            12.0,
            INK,
            Anchor::Start,
            area.w - 16.0,
        );
        let inner = area.inset(0.0, 24.0, 0.0, 4.0);
        let asked = answers.get(&panel.id).map(Vec::as_slice).unwrap_or_default();
        let series: Vec<_> = asked.iter().flat_map(|asked| asked.series.clone()).collect();
        let series: Vec<_> = series
            .into_iter()
            .filter(|(_, series)| !series.points.is_empty())
            .collect();
        match panel.kind.as_str() {
            _ if series.is_empty() => nothing(&mut svg, inner),
            "stat" => stat(&mut svg, inner, panel, &series),
            "bargauge" => bars(&mut svg, inner, panel, &series),
            "state-timeline" => states(&mut svg, inner, panel, &series, range),
            "table" => table(&mut svg, inner, panel, asked),
            _ => chart(&mut svg, inner, panel, &series, range),
        }
    }
    svg.finish(WIDTH, height, &dashboard.title)
}

fn nothing(svg: &mut Svg, area: Area) {
    let middle = (area.x + area.w / 2.0, area.y + area.h / 2.0);
    svg.text(middle, "No data", 12.0, GREY, Anchor::Middle, area.w);
}

fn last(series: &Series) -> f64 {
    series.points.last().map_or(0.0, |(_, value)| *value)
}

/// What is said of a value, and its colour.
fn said(panel: &Panel, value: f64) -> (String, String) {
    let field = &panel.field_config.defaults;
    match field.word(value) {
        Some(word) => {
            let color = word.color.as_deref().unwrap_or("text");
            (word.text.clone(), named(color).to_owned())
        }
        None => (units::shown(value, &field.unit), named(field.color(value)).to_owned()),
    }
}

fn stat(svg: &mut Svg, area: Area, panel: &Panel, series: &[(String, Series)]) {
    let by_name = panel.options["textMode"] == "name";
    let background = panel.options["colorMode"] == "background";
    let (mut words, mut color) = (Vec::new(), String::new());
    for (name, series) in series {
        let (text, of_value) = said(panel, last(series));
        words.push(if by_name { name.replace('_', " ") } else { text });
        color = of_value;
    }
    let middle = (area.x + area.w / 2.0, area.y + area.h / 2.0 + 6.0);
    let ink = if background {
        svg.rect(area.inset(1.0, 0.0, 1.0, -3.0), &color, 1.0);
        "#ffffff"
    } else {
        color.as_str()
    };
    let words = words.join(", ");
    let size = if area.w < 140.0 || words.len() > 9 { 20.0 } else { 28.0 };
    svg.text(middle, &words, size, ink, Anchor::Middle, area.w * 1.2);
}

fn bars(svg: &mut Svg, area: Area, panel: &Panel, series: &[(String, Series)]) {
    let most = series.iter().map(|(_, series)| last(series)).fold(1.0, f64::max);
    let count = u32::try_from(series.len()).map_or(1.0, f64::from);
    let height = (area.h / count).min(34.0);
    let mut y = area.y + 4.0;
    for (name, series) in series {
        let (text, color) = said(panel, last(series));
        svg.text(
            (area.x + 10.0, y + height * 0.6),
            name,
            11.0,
            INK,
            Anchor::Start,
            area.w * 0.45,
        );
        let room = area.inset(area.w * 0.5, 0.0, 60.0, 0.0).w;
        let bar = Area {
            x: area.x + area.w * 0.5,
            y: y + 3.0,
            w: room * last(series) / most,
            h: height - 8.0,
        };
        svg.rect(bar, &color, 0.8);
        svg.text(
            (bar.x + bar.w + 6.0, y + height * 0.6),
            &text,
            11.0,
            INK,
            Anchor::Start,
            60.0,
        );
        y += height;
    }
}

/// A row for each series; a bar while it has values.
fn states(svg: &mut Svg, area: Area, panel: &Panel, series: &[(String, Series)], range: (f64, f64)) {
    let count = u32::try_from(series.len()).map_or(1.0, f64::from);
    let plot = area.inset(110.0, 4.0, 10.0, 14.0);
    let height = (plot.h / count).min(34.0);
    let mut y = plot.y;
    for (number, (name, series)) in series.iter().enumerate() {
        let words = name.replace('_', " ");
        svg.text((plot.x - 6.0, y + height * 0.6), &words, 10.5, INK, Anchor::End, 104.0);
        let width = plot.w * gap(&series.points) / (range.1 - range.0);
        for (at, value) in &series.points {
            let x = plot.x + plot.w * (at - range.0) / (range.1 - range.0);
            let word = panel
                .field_config
                .defaults
                .word(*value)
                .and_then(|word| word.color.as_deref());
            let color = word.map_or(palette(number), named);
            let bar = Area {
                x,
                y: y + 2.0,
                w: width.min(plot.x + plot.w - x) + 0.3,
                h: height - 4.0,
            };
            svg.rect(bar, color, 0.85);
        }
        y += height;
    }
    let ago = format!("−{}", units::shown(range.1 - range.0, "s"));
    let below = plot.y + plot.h + 11.0;
    svg.text((plot.x, below), &ago, 9.5, GREY, Anchor::Start, 80.0);
    svg.text((plot.x + plot.w, below), "now", 9.5, GREY, Anchor::End, 80.0);
}

/// The time between two points.
fn gap(points: &[(f64, f64)]) -> f64 {
    points
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0)
        .fold(f64::INFINITY, f64::min)
        .min(5.0)
}

/// Queries side by side, joined by their labels, named as `organize` says.
fn table(svg: &mut Svg, area: Area, panel: &Panel, asked: &[Asked]) {
    let organize = panel.transformations.iter().find(|step| step["id"] == "organize");
    let names = organize.map_or(Value::Null, |step| step["options"]["renameByName"].clone());
    let head = |key: &str| names[key].as_str().unwrap_or(key).to_owned();
    let mut rows: BTreeMap<Vec<(String, String)>, BTreeMap<usize, f64>> = BTreeMap::new();
    for (number, asked) in asked.iter().enumerate() {
        for (_, series) in &asked.series {
            let labels = series.labels.clone().into_iter().filter(|(name, _)| name != "__name__");
            rows.entry(labels.collect()).or_default().insert(number, last(series));
        }
    }
    let labels: Vec<_> = rows.keys().flatten().map(|(name, _)| name.clone()).collect();
    let mut labels: Vec<_> = labels.into_iter().fold(Vec::new(), |mut all, name| {
        if !all.contains(&name) {
            all.push(name);
        }
        all
    });
    labels.sort_by_key(|name| std::cmp::Reverse(name.clone()));
    let columns: Vec<String> = (b'A'..)
        .take(asked.len())
        .map(|letter| head(&format!("Value #{}", char::from(letter))))
        .collect();
    let count = u32::try_from(labels.len() + columns.len()).map_or(1.0, f64::from);
    let width = (area.w - 20.0) / count;
    let mut line = |y: f64, cells: Vec<String>, ink: &str| {
        let mut x = area.x + 10.0;
        for cell in cells {
            svg.text((x, y), &cell, 11.5, ink, Anchor::Start, width - 6.0);
            x += width;
        }
    };
    let mut y = area.y + 16.0;
    line(
        y,
        labels
            .iter()
            .map(|label| head(label))
            .chain(columns.iter().cloned())
            .collect(),
        GREY,
    );
    for (of, values) in &rows {
        y += 22.0;
        let text = |label: &String| {
            of.iter()
                .find(|(name, _)| name == label)
                .map_or("", |(_, value)| value)
                .to_owned()
        };
        let value = |(number, column): (usize, &String)| {
            let unit = unit_of(panel, column);
            values
                .get(&number)
                .map_or_else(String::new, |value| units::shown(*value, unit))
        };
        line(
            y,
            labels
                .iter()
                .map(text)
                .chain(columns.iter().enumerate().map(value))
                .collect(),
            INK,
        );
    }
}

/// The unit of a column, by name.
fn unit_of<'a>(panel: &'a Panel, column: &str) -> &'a str {
    let own = panel.field_config.own(column, "unit").and_then(Value::as_str);
    own.unwrap_or(&panel.field_config.defaults.unit)
}
