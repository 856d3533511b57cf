//! Numbers in Grafana's units, for people.

/// A value in the unit of that name.
pub(super) fn shown(value: f64, unit: &str) -> String {
    match unit {
        "s" => duration(value),
        "bytes" => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        "percentunit" => format!("{} %", number(value * 100.0)),
        "cpm" => format!("{}/min", number(value)),
        "reqps" | "mps" => format!("{}/s", number(value)),
        "bool_yes_no" => word(value, "yes", "no"),
        "bool_on_off" => word(value, "on", "off"),
        _ => scaled(value, 1000.0, &["", "K", "M", "G"]),
    }
}

fn word(value: f64, yes: &str, no: &str) -> String {
    if value >= 0.5 { yes } else { no }.to_owned()
}

fn duration(seconds: f64) -> String {
    let steps = [
        (86_400.0 * 365.0, "years"),
        (86_400.0, "days"),
        (3600.0, "h"),
        (60.0, "min"),
        (1.0, "s"),
        (0.001, "ms"),
        (0.000_001, "µs"),
    ];
    let fits = |(length, _): &&(f64, &str)| seconds.abs() >= *length;
    match steps.iter().find(fits) {
        Some((length, name)) => format!("{} {name}", number(seconds / length)),
        None => "0 s".to_owned(),
    }
}

fn scaled(mut value: f64, by: f64, names: &[&str]) -> String {
    let mut names = names.iter();
    let mut name = names.next().copied().unwrap_or_default();
    for next in names {
        if value.abs() < by {
            break;
        }
        (value, name) = (value / by, next);
    }
    format!("{} {name}", number(value)).trim_end().to_owned()
}

/// Three digits at most, without zeros behind the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, unit, expected) in [
            (0.0, "short", "0"),
            (12.0, "short", "12"),
            (12_345.0, "short", "12.3 K"),
            (0.0015, "s", "1.5 ms"),
            (604_000.0, "s", "6.99 days"),
            (-90.0, "s", "-1.5 min"),
            (0.955, "percentunit", "95.5 %"),
            (20_971_520.0, "bytes", "20 MiB"),
            (1.0, "bool_yes_no", "yes"),
        ] {
            assert_eq!(shown(value, unit), expected);
        }
    }
}
