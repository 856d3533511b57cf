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
    count: Option<Count>,
}

/// What is counted at present.
struct Count {
    /// What a renewal is called.
    renewed: &'static str,
    start: Instant,
    /// When the last renewal was seen, and how many were seen since the start.
    moved: Instant,
    gained: usize,
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
            count: None,
        }
    }
}

impl Screen {
    /// Says something that stays, and so ends what was counted.
    pub fn say(&mut self, text: &str) {
        if let Some(line) = self.count.take().and_then(|count| count.due) {
            let _ = writeln!(io::stdout(), "   {line}");
        }
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Begins to count: `renewed` names it, and `already` were renewed before.
    pub fn begin(&mut self, renewed: &'static str, already: usize) {
        self.count = Some(Count::new(renewed, already, Instant::now()));
    }

    /// Shows where the devices stand.
    pub fn show(&mut self, tally: &Tally) {
        let now = Instant::now();
        let count = self.count.get_or_insert_with(|| Count::new("renewed", 0, now));
        let pace = count.pace(tally, now);
        if self.terminal {
            let table = tally.table(count.renewed, pace);
            // Over what was drawn. Without wrapping meanwhile: on a narrow terminal too, a line then takes one row.
            let up = match count.rows {
                0 => String::new(),
                rows => format!("\x1b[{rows}A\x1b[J"),
            };
            let _ = write!(io::stdout(), "{up}\x1b[?7l{table}\x1b[?7h");
            let _ = io::stdout().flush();
            count.rows = table.lines().count();
        } else {
            if count.seen != *tally {
                count.due = Some(tally.line(count.renewed, pace));
            }
            if count.said.is_none_or(|said| now - said >= LINE_EVERY)
                && let Some(line) = count.due.take()
            {
                let _ = writeln!(io::stdout(), "   {line}");
                count.said = Some(now);
            }
        }
        count.seen = tally.clone();
    }
}

impl Count {
    fn new(renewed: &'static str, already: usize, start: Instant) -> Self {
        Self {
            renewed,
            start,
            moved: start,
            gained: 0,
            seen: Tally {
                renewed: already,
                ..Tally::default()
            },
            rows: 0,
            said: None,
            due: None,
        }
    }

    fn pace(&mut self, tally: &Tally, now: Instant) -> Pace {
        // A rollback takes some away again; that is no speed.
        if let Some(gained) = tally
            .renewed
            .checked_sub(self.seen.renewed)
            .filter(|gained| *gained > 0)
        {
            self.gained += gained;
            self.moved = now;
        }
        let pace = tally.pace(self.gained, self.moved - self.start);
        let told = pace.left.filter(|left| left.is_zero() || now - self.moved < STALLED);
        Pace { left: told, ..pace }
    }
}
