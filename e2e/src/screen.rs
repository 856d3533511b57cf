//! The live view: a table that is drawn over itself on a terminal, lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::tally::Tally;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where progress is shown.
pub struct Screen {
    terminal: bool,
    drawn: usize,
    last: Option<(Instant, Tally)>,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            drawn: 0,
            last: None,
        }
    }
}

impl Screen {
    /// Says something that stays.
    pub fn say(&mut self, text: &str) {
        self.drawn = 0;
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Shows where the devices stand; `renewed` names what is counted in this phase.
    pub fn show(&mut self, tally: &Tally, renewed: &str, elapsed: Duration) {
        if self.terminal {
            let table = tally.table(renewed, elapsed);
            // Up over what was drawn, and clear from there.
            let up = if self.drawn > 0 {
                format!("\x1b[{}A\x1b[J", self.drawn)
            } else {
                String::new()
            };
            let _ = write!(io::stdout(), "{up}{table}");
            let _ = io::stdout().flush();
            self.drawn = table.lines().count();
            return;
        }
        let news = match &self.last {
            Some((said, last)) => last != tally && said.elapsed() >= LINE_EVERY,
            None => true,
        };
        if news {
            let _ = writeln!(io::stdout(), "{}", tally.line(renewed, elapsed));
            self.last = Some((Instant::now(), tally.clone()));
        }
    }
}
