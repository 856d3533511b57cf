//! Open time as a scale: how much of it has passed by an instant, and at which instant so much of it has.

use super::window::Calendar;
use crate::model::Millis;

/// Openings that are looked at; beyond the last the average is carried on.
const OPENINGS: usize = 5_000;

/// A calendar's open time from an instant on.
pub(super) struct Timeline {
    from: Millis,
    /// Start, end, and the open time before the start.
    spans: Vec<(Millis, Millis, Millis)>,
    /// Until when the spans are known.
    known: Millis,
    /// Open time until then.
    total: Millis,
}

impl Timeline {
    /// Looks at the windows of `mask` between `from` and `to`.
    pub(super) fn new(calendar: &Calendar, mask: u64, from: Millis, to: Millis) -> Self {
        let mut total = 0;
        let spans: Vec<_> = calendar
            .spans(mask, from, to)
            .take(OPENINGS)
            .map(|(start, end)| {
                let before = total;
                total += end - start;
                (start, end, before)
            })
            .collect();
        let known = match spans.last() {
            Some((_, end, _)) if spans.len() == OPENINGS => *end,
            _ => to,
        };
        Self {
            from,
            spans,
            known,
            total,
        }
    }

    /// Open time from the beginning until `at`.
    pub(super) fn passed(&self, at: Millis) -> Millis {
        if at > self.known {
            let beyond = i128::from(at - self.known) * i128::from(self.total);
            let more = beyond / i128::from((self.known - self.from).max(1));
            return self.total.saturating_add(Millis::try_from(more).unwrap_or(Millis::MAX));
        }
        let begun = self.spans.partition_point(|(start, _, _)| *start <= at);
        match begun.checked_sub(1).and_then(|last| self.spans.get(last)) {
            Some((start, end, before)) => before + (at.min(*end) - start),
            None => 0,
        }
    }

    /// The first instant by which `open` milliseconds of open time have passed; `None` where they never do.
    pub(super) fn when(&self, open: Millis) -> Option<Millis> {
        if open <= 0 {
            return Some(self.from);
        }
        if open > self.total {
            let beyond = i128::from(open - self.total) * i128::from(self.known - self.from);
            let more = beyond.checked_div(i128::from(self.total))?;
            return self.known.checked_add(Millis::try_from(more).ok()?);
        }
        let begun = self.spans.partition_point(|(_, _, before)| *before < open);
        let (start, _, before) = self.spans.get(begun.checked_sub(1)?)?;
        Some(start + (open - before))
    }
}
