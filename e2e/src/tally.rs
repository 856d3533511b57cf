//! Devices counted by where they stand, and how fast that changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use certwave_crds::DeviceCertificate;

/// Devices by state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Names of states as the objects show them.
    pub states: BTreeMap<String, usize>,
    /// All devices.
    pub total: usize,
    /// Those whose certificate is not the one they had at first.
    pub renewed: usize,
}

/// SHA-256 of each device's current certificate, by deviceId.
pub type Certificates = BTreeMap<String, String>;

impl Tally {
    /// Counts `devices`; `before` says which certificates they had at first.
    pub fn of(devices: &[DeviceCertificate], before: &Certificates) -> Self {
        let mut tally = Self {
            total: devices.len(),
            ..Self::default()
        };
        for device in devices {
            let state = device.status.as_ref().and_then(|status| status.state);
            let state = state.map_or_else(|| "Declared".to_owned(), |state| format!("{state:?}"));
            *tally.states.entry(state).or_default() += 1;
            let old = before.get(&device.spec.device_id);
            if current(device).is_some_and(|now| Some(&now) != old) {
                tally.renewed += 1;
            }
        }
        tally
    }

    /// One line: the states, then `renewed` by its name in this phase, rate and time left.
    pub fn line(&self, renewed: &str, elapsed: Duration) -> String {
        let mut line = format!("{renewed} {}/{}", self.renewed, self.total);
        for (state, count) in &self.states {
            let _ = write!(line, "  {} {count}", state.to_lowercase());
        }
        let _ = match self.pace(elapsed) {
            (rate, Some(left)) => write!(line, "  {rate:.1}/s  {} s left", left.as_secs()),
            (rate, None) => write!(line, "  {rate:.1}/s"),
        };
        line
    }

    /// The same as a small table.
    pub fn table(&self, renewed: &str, elapsed: Duration) -> String {
        const WIDTH: usize = 40;
        let filled = (self.renewed * WIDTH)
            .checked_div(self.total)
            .unwrap_or_default()
            .min(WIDTH);
        let mut table = format!("  {renewed:<10} {}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
        let _ = writeln!(table, " {}/{}", self.renewed, self.total);
        for (state, count) in &self.states {
            let _ = writeln!(table, "  {:<10} {count:>6}", state.to_lowercase());
        }
        let (rate, left) = self.pace(elapsed);
        let left = left.map_or_else(|| "-".to_owned(), |left| format!("{} s", left.as_secs()));
        let _ = writeln!(table, "  {:<10} {rate:>6.1}/s   time left {left}", "speed");
        table
    }

    /// Renewals per second so far, and at that pace the time until all are.
    fn pace(&self, elapsed: Duration) -> (f64, Option<Duration>) {
        let count = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
        let rate = count(self.renewed) / elapsed.as_secs_f64().max(0.001);
        let left = count(self.total.saturating_sub(self.renewed)) / rate;
        (rate, Duration::try_from_secs_f64(left).ok())
    }
}

/// SHA-256 of the device's current certificate, as its object shows it.
pub fn current(device: &DeviceCertificate) -> Option<String> {
    device.status.as_ref()?.certificates.current.as_ref()?.sha256.clone()
}

/// The current certificates of all `devices` that have one.
pub fn certificates(devices: &[DeviceCertificate]) -> Certificates {
    let one = |device: &DeviceCertificate| Some((device.spec.device_id.clone(), current(device)?));
    devices.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_states_rate_and_time_left() {
        let states = BTreeMap::from([("Active".to_owned(), 50), ("Rotating".to_owned(), 50)]);
        let tally = Tally {
            states,
            total: 100,
            renewed: 20,
        };
        let line = tally.line("rotated", Duration::from_secs(10));
        assert_eq!(line, "rotated 20/100  active 50  rotating 50  2.0/s  40 s left");
    }

    #[test]
    fn before_the_first_renewal_there_is_no_time_left_to_tell() {
        let tally = Tally {
            states: BTreeMap::new(),
            total: 100,
            renewed: 0,
        };
        assert_eq!(tally.line("rotated", Duration::from_secs(1)), "rotated 0/100  0.0/s");
        assert!(tally.table("rotated", Duration::ZERO).contains("time left -"));
    }
}
