//! A panel of lines over time.

use std::collections::BTreeMap;

use super::model::Panel;
use super::paint::{Anchor, Area, Svg, named, palette};
use super::units;
use crate::prometheus::Series;

const GREY: &str = "#6e7077";
const GRID: &str = "#ebecee";
const SMALL: f64 = 9.5;
const LEGEND_LINE: f64 = 13.0;
/// Lines in a legend; more are counted.
const LEGEND_LINES: usize = 3;

/// A line to be drawn: points by time, upwards.
struct Line<'a> {
    name: &'a str,
    color: &'a str,
    points: Vec<(f64, f64)>,
    /// What it stands upon, where lines are stacked.
    base: Vec<f64>,
}

/// Draws lines in the time from `from` to `to`.
pub(super) fn chart(svg: &mut Svg, area: Area, panel: &Panel, series: &[(String, Series)], range: (f64, f64)) {
    let custom = &panel.field_config.defaults.custom;
    let stacked = custom["stacking"]["mode"] == "normal";
    let stepped = custom["lineInterpolation"] == "stepAfter";
    let fill = custom["fillOpacity"].as_f64().unwrap_or_default() / 100.0;
    let lines = lines(panel, series, stacked);
    let (low, high) = scale(panel, &lines);
    let rows = legend_rows(area, &lines);
    let plot = area.inset(52.0, 6.0, 8.0, 16.0 + LEGEND_LINE * rows_shown(&rows));
    let place = |at: f64, value: f64| {
        let x = plot.x + plot.w * (at - range.0) / (range.1 - range.0);
        (x, plot.y + plot.h * (1.0 - (value - low) / (high - low)))
    };
    axes(svg, plot, panel, (low, high), range);
    for line in &lines {
        let tops: Vec<_> = line.points.iter().map(|(at, value)| place(*at, *value)).collect();
        let tops = if stepped { steps(&tops) } else { tops };
        if fill > 0.0 && tops.len() > 1 {
            let mut bottoms: Vec<_> = line
                .points
                .iter()
                .zip(&line.base)
                .map(|((at, _), base)| place(*at, base.max(low)))
                .collect();
            if stepped {
                bottoms = steps(&bottoms);
            }
            bottoms.reverse();
            svg.shape(&[tops.clone(), bottoms].concat(), line.color, fill);
        }
        svg.line(&tops, line.color, 1.4);
    }
    legend(svg, area, &rows, &lines);
}

/// Values hold until the next one.
fn steps(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut out: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if let Some(last) = out.last() {
            out.push((point.0, last.1));
        }
        out.push(*point);
    }
    out
}

fn lines<'a>(panel: &'a Panel, series: &'a [(String, Series)], stacked: bool) -> Vec<Line<'a>> {
    // By time in whole milliseconds.
    let mut sums: BTreeMap<i64, f64> = BTreeMap::new();
    let mut lines = Vec::new();
    for (number, (name, series)) in series.iter().enumerate() {
        let (mut points, mut base) = (Vec::new(), Vec::new());
        for (at, value) in &series.points {
            #[allow(clippy::cast_possible_truncation)]
            let sum = sums.entry((at * 1000.0) as i64).or_default();
            base.push(if stacked { *sum } else { 0.0 });
            *sum += value;
            points.push((*at, if stacked { *sum } else { *value }));
        }
        lines.push(Line {
            name,
            color: color(panel, name).unwrap_or_else(|| palette(number)),
            points,
            base,
        });
    }
    lines
}

/// The colour that a panel gives a series by its name.
fn color<'a>(panel: &'a Panel, name: &str) -> Option<&'a str> {
    let own = panel.field_config.own(name, "color")?;
    own["fixedColor"].as_str().map(named)
}

/// The least and the greatest value of the axis.
fn scale(panel: &Panel, lines: &[Line<'_>]) -> (f64, f64) {
    let field = &panel.field_config.defaults;
    let values = || lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
    let low = field.min.unwrap_or_else(|| values().fold(0.0, f64::min));
    let high = field.max.unwrap_or_else(|| round_up(values().fold(low, f64::max)));
    if high > low { (low, high) } else { (low, low + 1.0) }
}

/// To 1, 2, 4 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return value;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(value)
}

fn axes(svg: &mut Svg, plot: Area, panel: &Panel, (low, high): (f64, f64), range: (f64, f64)) {
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = plot.y + plot.h * (1.0 - part);
        svg.line(&[(plot.x, y), (plot.x + plot.w, y)], GRID, 1.0);
        let words = units::shown(low + (high - low) * part, &panel.field_config.defaults.unit);
        svg.text((plot.x - 5.0, y + 3.0), &words, SMALL, GREY, Anchor::End, 60.0);
    }
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (x, ago) = (plot.x + plot.w * part, (range.1 - range.0) * (1.0 - part));
        let anchor = match part {
            0.0 => Anchor::Start,
            1.0 => Anchor::End,
            _ => Anchor::Middle,
        };
        let words = if ago < 1.0 {
            "now".to_owned()
        } else {
            format!("−{}", units::shown(ago, "s"))
        };
        svg.text((x, plot.y + plot.h + 12.0), &words, SMALL, GREY, anchor, 80.0);
    }
}

/// Which lines stand in which line of the legend, and where from.
fn legend_rows(area: Area, lines: &[Line<'_>]) -> Vec<Vec<(usize, f64)>> {
    let mut rows: Vec<Vec<(usize, f64)>> = vec![Vec::new()];
    let mut x = 0.0;
    for (number, line) in lines.iter().enumerate() {
        let width = 20.0 + letters(line.name) * SMALL * 0.55;
        if x > 0.0 && x + width > area.w - 20.0 {
            rows.push(Vec::new());
            x = 0.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push((number, x));
        }
        x += width;
    }
    rows
}

fn letters(text: &str) -> f64 {
    u32::try_from(text.chars().count()).map_or(0.0, f64::from)
}

fn rows_shown(rows: &[Vec<(usize, f64)>]) -> f64 {
    u32::try_from(rows.len().min(LEGEND_LINES)).map_or(0.0, f64::from)
}

fn legend(svg: &mut Svg, area: Area, rows: &[Vec<(usize, f64)>], lines: &[Line<'_>]) {
    let mut y = area.y + area.h - LEGEND_LINE * rows_shown(rows) + 8.0;
    for row in rows.iter().take(LEGEND_LINES) {
        for (number, x) in row {
            let (line, x) = (&lines[*number], area.x + 10.0 + x);
            let dash = Area {
                x,
                y: y - 5.0,
                w: 10.0,
                h: 3.0,
            };
            svg.rect(dash, line.color, 1.0);
            svg.text((x + 13.0, y), line.name, SMALL, GREY, Anchor::Start, area.w - 30.0);
        }
        y += LEGEND_LINE;
    }
    if rows.len() > LEGEND_LINES {
        let more: usize = rows.iter().skip(LEGEND_LINES).map(Vec::len).sum();
        let at = (area.x + area.w - 8.0, y - LEGEND_LINE);
        svg.text(at, &format!("and {more} more"), SMALL, GREY, Anchor::End, 90.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn series(values: &[(f64, f64)]) -> (String, Series) {
        let series = Series {
            labels: BTreeMap::new(),
            points: values.to_vec(),
        };
        ("x".to_owned(), series)
    }

    #[test]
    fn stacked_lines_stand_upon_each_other_where_both_have_a_value() {
        let both = [series(&[(1.0, 2.0), (2.0, 3.0)]), series(&[(2.0, 4.0)])];
        let panel =
            json!({ "id": 1, "type": "timeseries", "title": "t", "gridPos": { "x": 0, "y": 0, "w": 8, "h": 8 } });
        let panel = serde_json::from_value(panel).unwrap();
        let lines = lines(&panel, &both, true);
        assert_eq!(lines[1].points, [(2.0, 7.0)]);
        assert_eq!(lines[1].base, [3.0]);
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, end) in [(0.3, 0.4), (7.0, 10.0), (1.0, 1.0), (230.0, 400.0)] {
            assert!((round_up(value) - end).abs() < 1e-9, "{value}");
        }
    }
}
