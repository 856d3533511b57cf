//! Shapes and texts of an SVG.

use std::fmt::Write as _;

/// Colours of series without one of their own.
const PALETTE: [&str; 10] = [
    "#56a64b", "#e0b400", "#3274d9", "#e02f44", "#ff780a", "#8f3bb8", "#37872d", "#1f60c4", "#c15c17", "#7c2ea3",
];

/// The colour of series `number`.
pub(super) fn palette(number: usize) -> &'static str {
    PALETTE[number % PALETTE.len()]
}

/// Grafana's colours by name.
pub(super) fn named(name: &str) -> &str {
    match name {
        "green" => "#56a64b",
        "yellow" => "#e0b400",
        "orange" => "#ff780a",
        "red" => "#e02f44",
        "blue" => "#3274d9",
        "light-blue" => "#5794f2",
        "super-light-blue" => "#c0d8ff",
        "dark-orange" => "#e55400",
        "dark-red" => "#c4162a",
        "dark-purple" => "#7c2ea3",
        "purple" => "#8f3bb8",
        "text" => "#52545c",
        other => other,
    }
}

/// Where something stands, and how large it is, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

impl Area {
    /// The same without so much at each side.
    pub(super) fn inset(self, left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self {
            x: self.x + left,
            y: self.y + top,
            w: self.w - left - right,
            h: self.h - top - bottom,
        }
    }
}

/// How a text stands to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// An SVG that is being drawn.
#[derive(Default)]
pub(super) struct Svg(String);

impl Svg {
    /// A filled rectangle.
    pub(super) fn rect(&mut self, area: Area, fill: &str, opacity: f64) {
        let Area { x, y, w, h } = area;
        let _ = writeln!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{fill}" fill-opacity="{opacity}"/>"#,
            w.max(0.0),
            h.max(0.0)
        );
    }

    /// The frame of a panel.
    pub(super) fn frame(&mut self, area: Area) {
        let Area { x, y, w, h } = area;
        let _ = writeln!(
            self.0,
            r##"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" rx="2" fill="#ffffff" stroke="#dcdde0"/>"##
        );
    }

    /// A text of this size in pixels, cut to about `room` pixels.
    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, size: f64, fill: &str, anchor: Anchor, room: f64) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(&cut(text, size, room));
        let _ = writeln!(
            self.0,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    /// A line through points.
    pub(super) fn line(&mut self, points: &[(f64, f64)], stroke: &str, width: f64) {
        if points.len() == 1 {
            let (x, y) = points[0];
            let _ = writeln!(self.0, r#"<circle cx="{x:.1}" cy="{y:.1}" r="1.5" fill="{stroke}"/>"#);
            return;
        }
        let points = joined(points);
        let _ = writeln!(
            self.0,
            r#"<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="{width}"/>"#
        );
    }

    /// A filled shape.
    pub(super) fn shape(&mut self, points: &[(f64, f64)], fill: &str, opacity: f64) {
        let points = joined(points);
        let _ = writeln!(
            self.0,
            r#"<polygon points="{points}" fill="{fill}" fill-opacity="{opacity}"/>"#
        );
    }

    /// The whole, of this size in pixels.
    pub(super) fn finish(self, width: f64, height: f64, title: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
             font-family=\"Inter, Helvetica, Arial, sans-serif\">\n<title>{}</title>\n{}</svg>\n",
            escaped(title),
            self.0
        )
    }
}

fn joined(points: &[(f64, f64)]) -> String {
    let all: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    all.join(" ")
}

/// A letter takes some 0.55 of the size.
fn cut(text: &str, size: f64, room: f64) -> String {
    let most = (room / (size * 0.55)).floor();
    let fits = |number: usize| u32::try_from(number).is_ok_and(|number| f64::from(number) <= most);
    if fits(text.chars().count()) {
        return text.to_owned();
    }
    let kept: String = (1..)
        .zip(text.chars())
        .take_while(|(n, _)| fits(n + 1))
        .map(|(_, c)| c)
        .collect();
    format!("{}…", kept.trim_end())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
