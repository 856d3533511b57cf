//! A frame on a screen, or as text.

use certwave_crds::{RotationPhase, WavePhase, WaveStatus};
use ratatui::Frame as Screen;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::Paragraph;

use super::frame::{Frame, Run};
use crate::progress::{bar, percent};

/// Examples of failures that are shown of each Rotation.
const EXAMPLES: usize = 5;
/// What stands beside a bar.
const BESIDE: u16 = 80;

/// Draws it, scrolled down by so many lines; answers how many lines there are.
pub(super) fn screen(frame: &Frame, screen: &mut Screen<'_>, scroll: u16, trouble: Option<&str>) -> u16 {
    let area = screen.area();
    let mut lines = lines(frame, area.width);
    if let Some(trouble) = trouble {
        lines.insert(
            0,
            Line::styled(format!("not up to date: {trouble}"), Style::new().fg(Color::Red)),
        );
    }
    let count = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let body = Rect {
        height: area.height.saturating_sub(1),
        ..area
    };
    screen.render_widget(Paragraph::new(Text::from(lines)).scroll((scroll, 0)), body);
    let foot = Rect {
        y: area.bottom().saturating_sub(1),
        height: area.height.min(1),
        ..area
    };
    let help = Line::styled("q ends, up and down scroll", Style::new().add_modifier(Modifier::DIM));
    screen.render_widget(Paragraph::new(help), foot);
    count
}

/// The same without colours, as lines of text; what is too long for a screen of this width stays whole.
pub(super) fn text(frame: &Frame, width: u16) -> String {
    let all = lines(frame, width).into_iter();
    all.map(|line| line.to_string().trim_end().to_owned() + "\n").collect()
}

fn lines(frame: &Frame, width: u16) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(format!("kubectl certwave watch   {}", frame.at), bold)];
    lines.extend(frame.fleets.iter().map(|fleet| Line::raw(plain(fleet))));
    if frame.runs.is_empty() {
        lines.push(Line::raw(""));
        lines.push(Line::raw("no rotation runs"));
    }
    for run in &frame.runs {
        lines.push(Line::raw(""));
        lines.extend(rotation(run, width));
    }
    lines
}

fn rotation(run: &Run, width: u16) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let head = vec![
        Span::styled(run.name.clone(), bold),
        Span::raw("  "),
        Span::styled(run.head.clone(), Style::new().fg(colour(run.phase))),
    ];
    let mut lines = vec![Line::from(head)];
    lines.extend(run.why.iter().map(|why| Line::raw(format!("  {}", plain(why)))));
    let wide = usize::from(width.saturating_sub(BESIDE).clamp(10, 60));
    lines.extend(run.waves.iter().map(|one| wave(one, wide)));
    for example in run.examples.iter().take(EXAMPLES) {
        let words = example.message.as_deref().unwrap_or_default();
        let text = plain(&format!("  {} {} {words}", example.device_id, example.code));
        lines.push(Line::styled(text, Style::new().fg(Color::Red)));
    }
    if run.examples.len() > EXAMPLES {
        lines.push(Line::raw(format!(
            "  and {} more in status.examples",
            run.examples.len() - EXAMPLES
        )));
    }
    lines.extend(
        run.advice
            .iter()
            .map(|advice| Line::styled(format!("  {advice}"), bold)),
    );
    lines
}

fn wave(wave: &WaveStatus, wide: usize) -> Line<'static> {
    let wrong = wave.failures + wave.losses;
    let bar = bar(wave.confirmed, wrong, wave.in_flight, wave.planned, wide);
    let cells = bar.chars().map(|c| {
        let colour = match c {
            '#' => Color::Green,
            'x' => Color::Red,
            '>' => Color::Yellow,
            _ => Color::DarkGray,
        };
        Span::styled(c.to_string(), Style::new().fg(colour))
    });
    let name: String = wave.name.chars().take(12).collect();
    let mut spans = vec![Span::raw(format!("  {name:<12} {:<10} [", word(wave.phase)))];
    spans.extend(cells);
    spans.push(Span::raw(format!(
        "] {:>3}% {}/{}  fly {} fail {}/{} lost {}/{} off {}",
        percent(wave.confirmed, wave.planned),
        wave.confirmed,
        wave.planned,
        wave.in_flight,
        wave.failures,
        wave.max_failed,
        wave.losses,
        wave.max_lost,
        wave.offline
    )));
    Line::from(spans)
}

const fn word(phase: WavePhase) -> &'static str {
    match phase {
        WavePhase::Pending => "pending",
        WavePhase::Running => "running",
        WavePhase::Soaking => "soaking",
        WavePhase::Done => "done",
        WavePhase::Breached => "BREACHED",
        WavePhase::RolledBack => "rolledback",
    }
}

const fn colour(phase: RotationPhase) -> Color {
    match phase {
        RotationPhase::Complete | RotationPhase::Running => Color::Green,
        RotationPhase::Breached | RotationPhase::RollingBack | RotationPhase::RolledBack | RotationPhase::Failed => {
            Color::Red
        }
        RotationPhase::WaitingForApproval | RotationPhase::Paused | RotationPhase::Aborted => Color::Yellow,
        RotationPhase::Pending | RotationPhase::Previewed | RotationPhase::Soaking => Color::Cyan,
    }
}

/// What comes from devices does not speak to the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_crds::FailureExample;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{from_value, json};

    use super::*;

    fn frame() -> Frame {
        let waves = json!([
            {"name": "canary", "phase": "Done", "planned": 5, "confirmed": 5},
            {"name": "early", "phase": "Breached", "planned": 40, "confirmed": 20, "failures": 2, "inFlight": 4, "maxFailed": 1},
        ]);
        let example = FailureExample {
            device_id: "m-7".to_owned(),
            code: "trial-failed".to_owned(),
            message: Some("no\u{1b}[31m route".to_owned()),
        };
        Frame {
            at: "2026-11-21T12:00:00Z".to_owned(),
            fleets: vec!["meters: ready".to_owned()],
            runs: vec![Run {
                name: "meters-7".to_owned(),
                phase: RotationPhase::Breached,
                head: "Breached, wave 2/3 early".to_owned(),
                why: Some("2 devices failed where 1 may".to_owned()),
                waves: from_value(waves).unwrap(),
                examples: vec![example; 7],
                advice: Some("kubectl certwave retry meters-7".to_owned()),
            }],
        }
    }

    #[test]
    fn a_frame_shows_waves_failures_and_what_to_do() {
        let text = text(&frame(), 100);
        assert!(
            text.contains("early        BREACHED   [##########x>>.......]"),
            "{text}"
        );
        assert!(text.contains("100% 5/5") && text.contains("fail 2/1"), "{text}");
        assert!(text.contains("m-7 trial-failed no [31m route"), "{text}");
        assert!(text.contains("and 2 more") && text.contains("retry meters-7"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn it_fits_any_terminal() {
        for (width, height) in [(1, 1), (20, 3), (80, 24), (300, 100)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal
                .draw(|view| {
                    screen(&frame(), view, 0, Some("gone"));
                })
                .unwrap();
        }
    }
}
