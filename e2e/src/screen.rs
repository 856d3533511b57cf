//! The live view: a table that is drawn over itself on a terminal, lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::tally::{Pace, Tally};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// When nothing was renewed for this long, the speed so far does not tell the time left.
const STALLED: Duration = Duration::from_secs(2);

/// Where progress is shown.
pub struct Screen {
    terminal: bool,
    phase: Option<Phase>,
}

/// What is counted at present, from its first view on.
struct Phase {
    start: Instant,
    /// When the last renewal was seen.
    moved: Instant,
    seen: Tally,
    /// Rows of the table on the terminal.
    rows: usize,
    /// When the last line was written, and the line that is due.
    said: Option<Instant>,
    due: Option<String>,
}

impl Default for Screen {
    fn default() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
        Self {
            terminal: io::stdout().is_terminal() && !dumb,
            phase: None,
        }
    }
}

impl Screen {
    /// Says something that stays, and so ends what was counted.
    pub fn say(&mut self, text: &str) {
        if let Some(line) = self.phase.take().and_then(|phase| phase.due) {
            let _ = writeln!(io::stdout(), "   {line}");
        }
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Shows where the devices stand; `renewed` names what is counted.
    pub fn show(&mut self, tally: &Tally, renewed: &str) {
        let now = Instant::now();
        let phase = self.phase.get_or_insert_with(|| Phase::new(now));
        let pace = phase.pace(tally, now);
        if self.terminal {
            let table = tally.table(renewed, pace);
            // Over what was drawn. Without wrapping meanwhile: on a narrow terminal too, a line then takes one row.
            let up = match phase.rows {
                0 => String::new(),
                rows => format!("\x1b[{rows}A\x1b[J"),
            };
            let _ = write!(io::stdout(), "{up}\x1b[?7l{table}\x1b[?7h");
            let _ = io::stdout().flush();
            phase.rows = table.lines().count();
        } else {
            if phase.seen != *tally {
                phase.due = Some(tally.line(renewed, pace));
            }
            if phase.said.is_none_or(|said| now - said >= LINE_EVERY)
                && let Some(line) = phase.due.take()
            {
                let _ = writeln!(io::stdout(), "   {line}");
                phase.said = Some(now);
            }
        }
        phase.seen = tally.clone();
    }
}

impl Phase {
    fn new(start: Instant) -> Self {
        Self {
            start,
            moved: start,
            seen: Tally::default(),
            rows: 0,
            said: None,
            due: None,
        }
    }

    fn pace(&mut self, tally: &Tally, now: Instant) -> Pace {
        if tally.renewed > self.seen.renewed {
            self.moved = now;
        }
        let pace = tally.pace(self.moved - self.start);
        let told = pace.left.filter(|left| left.is_zero() || now - self.moved < STALLED);
        Pace { left: told, ..pace }
    }
}
