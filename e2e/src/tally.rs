//! Devices counted by where they stand, and how fast that changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use certwave_crds::{DeviceCertificate, DeviceState};

/// The order in which states are shown: a device's way, then what can go wrong on it.
const ORDER: [DeviceState; 8] = [
    DeviceState::Declared,
    DeviceState::Enrolling,
    DeviceState::Rotating,
    DeviceState::Active,
    DeviceState::Failed,
    DeviceState::Lost,
    DeviceState::Expired,
    DeviceState::Refused,
];

/// Devices by state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The states that occur, in the order in which they are shown.
    pub states: Vec<(DeviceState, usize)>,
    /// All devices.
    pub total: usize,
    /// Those whose certificate is not the one they had at first.
    pub renewed: usize,
}

/// How fast a phase goes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Renewals per second.
    pub rate: f64,
    /// Time until no device is outstanding; `None` while nobody can tell.
    pub left: Option<Duration>,
}

/// SHA-256 of each device's current certificate, by deviceId.
pub type Certificates = BTreeMap<String, String>;

impl Tally {
    /// Counts `devices`; `before` says which certificates they had at first.
    pub fn of(devices: &[DeviceCertificate], before: &Certificates) -> Self {
        let state = |device: &DeviceCertificate| {
            let shown = device.status.as_ref().and_then(|status| status.state);
            shown.unwrap_or(DeviceState::Declared)
        };
        let is_renewed = |device: &&DeviceCertificate| {
            let old = before.get(&device.spec.device_id);
            current(device).is_some_and(|now| Some(&now) != old)
        };
        let count = |wanted: DeviceState| devices.iter().filter(|device| state(device) == wanted).count();
        Self {
            states: ORDER
                .map(|state| (state, count(state)))
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            total: devices.len(),
            renewed: devices.iter().filter(is_renewed).count(),
        }
    }

    /// How many devices are in `state`.
    pub fn count(&self, state: DeviceState) -> usize {
        self.states
            .iter()
            .find(|(shown, _)| *shown == state)
            .map_or(0, |(_, count)| *count)
    }

    /// The pace when the last renewal came `took` after the phase began.
    pub fn pace(&self, took: Duration) -> Pace {
        let number = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
        let rate = number(self.renewed) / took.as_secs_f64().max(0.001);
        let outstanding = self
            .total
            .saturating_sub(self.renewed + self.count(DeviceState::Failed));
        Pace {
            rate,
            left: Duration::try_from_secs_f64(number(outstanding) / rate).ok(),
        }
    }

    /// One line: `renewed` by its name in this phase, the states, rate and time left.
    pub fn line(&self, renewed: &str, pace: Pace) -> String {
        let mut line = format!("{renewed} {}/{}", self.renewed, self.total);
        for (state, count) in &self.states {
            let _ = write!(line, "  {} {count}", name(*state));
        }
        let _ = write!(line, "  {:.1}/s", pace.rate);
        if let Some(left) = pace.left {
            let _ = write!(line, "  {} s left", whole_seconds(left));
        }
        line
    }

    /// The same as a small table.
    pub fn table(&self, renewed: &str, pace: Pace) -> String {
        const WIDTH: usize = 40;
        let filled = (self.renewed * WIDTH)
            .checked_div(self.total)
            .unwrap_or_default()
            .min(WIDTH);
        let mut table = format!("   {renewed:<10} {}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
        let _ = writeln!(table, " {}/{}", self.renewed, self.total);
        for (state, count) in &self.states {
            let _ = writeln!(table, "   {:<10} {count:>6}", name(*state));
        }
        let left = match pace.left {
            Some(left) => format!("{} s", whole_seconds(left)),
            None => "-".to_owned(),
        };
        let _ = writeln!(table, "   {:<10} {:>6.1}/s   time left {left}", "speed", pace.rate);
        table
    }
}

fn name(state: DeviceState) -> String {
    format!("{state:?}").to_lowercase()
}

/// Rounded up: "0 s" means that nothing is outstanding.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
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

    const TEN: Duration = Duration::from_secs(10);

    fn tally(renewed: usize, states: &[(DeviceState, usize)]) -> Tally {
        Tally {
            states: states.to_vec(),
            total: 100,
            renewed,
        }
    }

    #[test]
    fn the_line_shows_states_rate_and_time_left() {
        let tally = tally(20, &[(DeviceState::Rotating, 50), (DeviceState::Active, 50)]);
        let line = tally.line("rotated", tally.pace(TEN));
        assert_eq!(line, "rotated 20/100  rotating 50  active 50  2.0/s  40 s left");
    }

    #[test]
    fn a_device_that_failed_is_no_longer_waited_for() {
        let tally = tally(97, &[(DeviceState::Active, 97), (DeviceState::Failed, 3)]);
        assert_eq!(tally.pace(TEN).left, Some(Duration::ZERO));
        assert!(tally.table("rotated", tally.pace(TEN)).contains("time left 0 s"));
    }

    #[test]
    fn before_the_first_renewal_there_is_no_time_left_to_tell() {
        let tally = tally(0, &[]);
        assert_eq!(tally.line("rotated", tally.pace(TEN)), "rotated 0/100  0.0/s");
        assert!(tally.table("rotated", Pace::default()).contains("time left -"));
    }
}
