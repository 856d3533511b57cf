//! What the comparisons found: figures round by round, their medians, and ratios to Certwave's.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::CERTWAVE;
use super::machine::Machine;

/// All that is known, by the group's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) groups: BTreeMap<String, Group>,
}

/// One group, measured in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Of the run's end, ISO 8601.
    pub(super) date: String,
    /// What the counts were divided by.
    pub(super) divisor: usize,
    pub(super) rounds: usize,
    pub(super) machine: Machine,
    /// Of all that took part, with their names.
    pub(super) versions: Vec<String>,
    pub(super) measures: Vec<Measure>,
}

/// The same figure of each subject, Certwave first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) better: Better,
    pub(super) subjects: Vec<Subject>,
}

/// One subject's figures, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) figures: Vec<f64>,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Better {
    More,
    Less,
}

/// What is measured in each round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
}

/// The figures of a group while it is being measured; each is printed at once.
#[derive(Debug)]
pub(super) struct Rounds {
    count: usize,
    measures: Vec<Measure>,
}

impl Results {
    /// What the file holds.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}", file.display()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }
}

impl Rounds {
    pub(super) const fn new(count: usize) -> Self {
        Self {
            count,
            measures: Vec::new(),
        }
    }

    /// How many.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// A figure of this round. Those of one round come before those of the next.
    pub(super) fn add(&mut self, figure: Figure, of: &str, value: f64) {
        let value = rounded(value);
        println!("{:<52} {of:<20} {value:>12} {}", figure.name, figure.unit);
        let place = self.measures.iter().position(|measure| measure.name == figure.name);
        let place = place.unwrap_or_else(|| {
            self.measures.push(Measure {
                name: figure.name.to_owned(),
                unit: figure.unit.to_owned(),
                better: figure.better,
                subjects: Vec::new(),
            });
            self.measures.len() - 1
        });
        let subjects = &mut self.measures[place].subjects;
        match subjects.iter_mut().find(|subject| subject.name == of) {
            Some(subject) => subject.figures.push(value),
            None => subjects.push(Subject {
                name: of.to_owned(),
                figures: vec![value],
            }),
        }
    }

    pub(super) fn into_measures(self) -> Vec<Measure> {
        self.measures
    }
}

impl Measure {
    /// How many times as good Certwave is as the other: the median of the rounds' own ratios, as what disturbed a round
    /// disturbed both. `None` of Certwave itself, and where nothing was measured.
    pub(super) fn ratio(&self, other: &Subject) -> Option<f64> {
        let ours = self.subjects.iter().find(|subject| subject.name == CERTWAVE)?;
        if ours.name == other.name {
            return None;
        }
        let ratios: Vec<_> = ours
            .figures
            .iter()
            .zip(&other.figures)
            .map(|(ours, theirs)| match self.better {
                Better::More => ours / theirs,
                Better::Less => theirs / ours,
            })
            .collect();
        median(&ratios).filter(|ratio| ratio.is_finite())
    }
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(super) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return sorted.get(middle).copied();
    }
    let (below, above) = (sorted.get(middle.checked_sub(1)?)?, sorted.get(middle)?);
    Some(f64::midpoint(*below, *above))
}

/// To four digits: more would be noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const SPEED: Figure = Figure {
        name: "lists a second",
        unit: "1/s",
        better: Better::More,
    };
    const TIME: Figure = Figure {
        name: "time",
        unit: "s",
        better: Better::Less,
    };

    /// Three rounds of two measures.
    pub(in super::super) fn measures() -> Vec<Measure> {
        let mut rounds = Rounds::new(3);
        for (ours, theirs) in [(30.0, 10.0), (60.0, 10.0), (12_000.0, 10_000.0)] {
            rounds.add(SPEED, CERTWAVE, ours);
            rounds.add(SPEED, "another", theirs);
            rounds.add(TIME, CERTWAVE, 4.0);
            rounds.add(TIME, "another", 2.0);
        }
        rounds.into_measures()
    }

    fn near(value: Option<f64>, expected: f64) {
        assert!((value.unwrap() - expected).abs() < 1e-9, "{value:?}, not {expected}");
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        near(median(&[9.0, 1.0, 2.0]), 2.0);
        near(median(&[4.0, 1.0, 100.0, 2.0]), 3.0);
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_ratio_compares_round_by_round_and_says_how_much_better_we_are() {
        let measures = measures();
        let [speed, time] = measures.as_slice() else {
            unreachable!("two measures")
        };
        // 3, 6 and 1.2: not the ratio of the medians, which is 6.
        near(speed.ratio(&speed.subjects[1]), 3.0);
        near(time.ratio(&time.subjects[1]), 0.5);
        assert_eq!(time.ratio(&time.subjects[0]), None);
    }

    #[test]
    fn figures_keep_four_digits() {
        near(Some(rounded(12_345.678)), 12_350.0);
        near(Some(rounded(0.001_234_56)), 0.001_235);
        near(Some(rounded(0.0)), 0.0);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let scratch = Scratch::new("results").unwrap();
        let file = scratch.path().join("benchmarks.json");
        let group = Group {
            date: "2026-01-02".to_owned(),
            divisor: 1,
            rounds: 3,
            machine: Machine::default(),
            versions: vec!["a 1".to_owned()],
            measures: measures(),
        };
        let results = Results {
            groups: [("crl".to_owned(), group)].into(),
        };
        results.write(&file).unwrap();
        assert_eq!(Results::read(&file).unwrap(), results);
    }
}
