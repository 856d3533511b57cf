//! Which waves and windows take a device, as bits: the planner and the ledger then need no labels.

use std::collections::BTreeMap;

use super::strategy::{Selector, Wave, Window};
use super::window::ALWAYS;

/// True where a device with `labels` bears every label of `selector` with exactly that value.
pub fn matches(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The waves whose selectors take a device with `labels`: bit i for wave i.
pub fn waves(waves: &[Wave], labels: &BTreeMap<String, String>) -> u64 {
    bits(waves.iter().map(|wave| &wave.selector), labels)
}

/// The windows that a device with `labels` may use: bit i for window i, [`ALWAYS`] where there are no windows at all, and 0
/// where there are some and none selects it.
pub fn windows(windows: &[Window], labels: &BTreeMap<String, String>) -> u64 {
    if windows.is_empty() {
        return ALWAYS;
    }
    bits(windows.iter().map(|window| &window.selector), labels)
}

/// Bit i where selector i matches. Those beyond the 64th are ignored here: plan and calendar refuse more.
fn bits<'a>(selectors: impl Iterator<Item = &'a Selector>, labels: &BTreeMap<String, String>) -> u64 {
    selectors
        .take(64)
        .enumerate()
        .filter(|(_, selector)| matches(selector, labels))
        .fold(0, |mask, (bit, _)| mask | 1 << bit)
}
