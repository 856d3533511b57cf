//! `-l`: devices by what is known of them (`spec.labels`), as Rotations and Revocations select them.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// `-l`.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct LabelArgument {
    /// Devices with all of these labels in spec.labels: site=north,ring=canary.
    #[arg(long = "selector", short = 'l', value_name = "LABELS")]
    pub selector: Option<String>,
}

impl LabelArgument {
    /// The labels that a device must have; empty where all devices are meant.
    ///
    /// # Errors
    /// When it is not a list of `name=value`.
    pub fn labels(&self) -> Result<BTreeMap<String, String>> {
        self.selector.as_deref().map_or_else(|| Ok(BTreeMap::new()), parse)
    }
}

/// `site=north,ring=canary`; `==` is `=`, as kubectl has it.
fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let pair = |part: &str| {
        let found = part.split_once("==").or_else(|| part.split_once('='));
        found
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .filter(|(name, value)| !name.is_empty() && !name.ends_with('!') && !value.contains('='))
            .ok_or_else(|| {
                Error::Usage(format!(
                    "-l {text}: devices are selected by labels that they have, such as -l site=north,ring=canary"
                ))
            })
    };
    text.split(',').map(pair).collect()
}

/// Whether a device has all of these.
pub fn matches(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_equality_is_known_and_the_rest_is_said() {
        let both = parse("site=north, ring==canary").unwrap();
        assert_eq!(both["site"], "north");
        assert_eq!(both["ring"], "canary");
        for wrong in ["site", "site!=north", "site in (a)", "=x", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_device_must_have_all() {
        let device = parse("site=north,ring=main").unwrap();
        assert!(matches(&parse("site=north").unwrap(), &device));
        assert!(matches(&BTreeMap::new(), &device));
        assert!(!matches(&parse("site=north,ring=canary").unwrap(), &device));
        assert!(!matches(&parse("model=a").unwrap(), &device));
    }
}
