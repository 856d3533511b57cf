//! The results as a page of the documentation.

use std::fmt::Write as _;

use super::results::{Group, Measure, Results, median};
use super::{GROUPS, about};

/// The page for these results.
pub(super) fn of(results: &Results) -> String {
    let mut page = about::HEAD.to_owned();
    for name in GROUPS {
        let about = about::of(name);
        let _ = write!(page, "\n## {}\n{}\n", about.title, about.text);
        match results.groups.get(name) {
            Some(group) => {
                let _ = write!(page, "\n{}\n{}", conditions(name, group), table(&group.measures));
            }
            None => page.push_str("\nNot measured yet.\n"),
        }
    }
    page.push_str(about::FOOT);
    page
}

/// When, on what, with what, and how again.
fn conditions(name: &str, group: &Group) -> String {
    let machine = &group.machine;
    let size = match group.divisor {
        1 => String::new(),
        divisor => format!(", with a {divisor}th of the counts above: a quick look, no measurement"),
    };
    format!(
        "Measured on {}, {} rounds{size}. {}, {} cores for everything, {} GiB, {}, Linux {}. {}. Again: `make bench-peers GROUPS={name}`.\n",
        group.date,
        group.rounds,
        machine.processor,
        machine.cpus,
        machine.memory_gib,
        machine.system,
        machine.kernel,
        group.versions.join(", "),
    )
}

fn table(measures: &[Measure]) -> String {
    let mut table =
        "| measured | of | median | lowest to highest | Certwave to it |\n|---|---|---:|---:|---:|\n".to_owned();
    for measure in measures {
        for (place, subject) in measure.subjects.iter().enumerate() {
            let what = if place == 0 {
                format!("{}, {}", measure.name, measure.unit)
            } else {
                String::new()
            };
            let lowest = subject.figures.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = subject.figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let ratio = measure.ratio(subject).map(|ratio| format!("{} ×", number(ratio)));
            let _ = writeln!(
                table,
                "| {what} | {} | {} | {} to {} | {} |",
                subject.name,
                median(&subject.figures).map(number).unwrap_or_default(),
                number(lowest),
                number(highest),
                ratio.unwrap_or_default()
            );
        }
    }
    table
}

/// Three digits, and thousands apart.
fn number(value: f64) -> String {
    let three: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    if three.abs() < 100.0 {
        return three.to_string();
    }
    let whole = format!("{three:.0}");
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::results::tests::measures;
    use super::*;

    fn group(divisor: usize) -> Group {
        Group {
            date: "2026-01-02".to_owned(),
            divisor,
            rounds: 3,
            machine: Machine {
                processor: "Abacus".to_owned(),
                cpus: 2,
                memory_gib: 8,
                system: "Debian".to_owned(),
                kernel: "6.1".to_owned(),
            },
            versions: vec!["a 1".to_owned(), "b 2".to_owned()],
            measures: measures(),
        }
    }

    #[test]
    fn a_table_has_medians_bounds_and_ratios() {
        let expected = "\
            | lists a second, 1/s | Certwave | 60 | 30 to 12,000 |  |\n\
            |  | another | 10 | 10 to 10,000 | 3 × |\n\
            | time, s | Certwave | 4 | 4 to 4 |  |\n\
            |  | another | 2 | 2 to 2 | 0.5 × |\n";
        let table = table(&measures());
        assert!(table.ends_with(expected), "{table}");
    }

    #[test]
    fn a_page_tells_the_measured_from_what_is_not() {
        let results = Results {
            groups: [("crl".to_owned(), group(1))].into(),
        };
        let page = of(&results);
        assert_eq!(page.matches("Not measured yet.").count(), GROUPS.len() - 1);
        assert!(
            page.contains("Measured on 2026-01-02, 3 rounds. Abacus, 2 cores"),
            "{page}"
        );
        assert!(
            page.contains("a 1, b 2. Again: `make bench-peers GROUPS=crl`."),
            "{page}"
        );
    }

    #[test]
    fn a_quick_look_is_called_one() {
        assert!(conditions("crl", &group(100)).contains("3 rounds, with a 100th of the counts above: a quick look"));
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (0.001_234_5, "0.00123"),
            (0.123_456, "0.123"),
            (3.0, "3"),
            (3.146, "3.15"),
            (99.96, "100"),
            (1_234.5, "1,230"),
            (9_876_543.0, "9,880,000"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
