//! Devices counted by where they stand, and how fast that changes.

mod course;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use certwave_crds::{DeviceCertificate, DeviceState};

pub use course::Course;

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
    /// The Rotation that renews them, if one does.
    pub course: Option<Course>,
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
            course: None,
        }
    }

    /// The same under a Rotation.
    #[must_use]
    pub fn under(self, course: Course) -> Self {
        Self {
            course: Some(course),
            ..self
        }
    }

    /// How many devices are in `state`.
    pub fn count(&self, state: DeviceState) -> usize {
        self.states
            .iter()
            .find(|(shown, _)| *shown == state)
            .map_or(0, |(_, count)| *count)
    }

    /// The pace when `gained` renewals were seen, the last of them `took` after the first look.
    pub fn pace(&self, gained: usize, took: Duration) -> Pace {
        let number = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
        let rate = number(gained) / took.as_secs_f64().max(0.001);
        let outstanding = self
            .total
            .saturating_sub(self.renewed + self.count(DeviceState::Failed));
        let left = || Duration::try_from_secs_f64(number(outstanding) / rate).ok();
        Pace {
            rate,
            left: self.course.as_ref().is_none_or(Course::goes_on).then(left).flatten(),
        }
    }

    /// One line: `renewed` by its name in this phase, the waves, the states, rate and time left.
    pub fn line(&self, renewed: &str, pace: Pace) -> String {
        let mut line = format!("{renewed} {}/{}", self.renewed, self.total);
        if let Some(course) = &self.course {
            line.push_str(&course.line());
        }
        line.push_str(&self.states());
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
        if let Some(course) = &self.course {
            table.push_str(&course.table());
        }
        let _ = writeln!(table, "   {:<10} {}", "devices", self.states().trim_start());
        let left = match pace.left {
            Some(left) => format!("{} s", whole_seconds(left)),
            None => "-".to_owned(),
        };
        let _ = writeln!(table, "   {:<10} {:.1}/s   time left {left}", "speed", pace.rate);
        table
    }

    /// Each state that occurs, after two spaces.
    fn states(&self) -> String {
        let one = |(state, count): &(DeviceState, usize)| format!("  {} {count}", name(*state));
        self.states.iter().map(one).collect()
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
#[allow(clippy::unwrap_used)]
mod tests {
    use certwave_crds::{RotationPhase, RotationStatus};
    use serde_json::json;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn tally(renewed: usize, states: &[(DeviceState, usize)]) -> Tally {
        Tally {
            states: states.to_vec(),
            total: 100,
            renewed,
            course: None,
        }
    }

    fn course(phase: RotationPhase) -> Course {
        let status: RotationStatus = serde_json::from_value(json!({
            "phase": phase,
            "progress": "2/3 early",
            "waves": [
                { "name": "canary", "phase": "Done", "planned": 5, "confirmed": 5 },
                { "name": "early", "phase": "RolledBack", "planned": 20, "rejected": 1, "timedOut": 1, "rolledBack": 18 },
                { "name": "rest", "phase": "Pending", "planned": 1_000_000, "waiting": 1_000_000 },
            ],
        }))
        .unwrap();
        Course::from(&status)
    }

    #[test]
    fn the_line_shows_states_rate_and_time_left() {
        let tally = tally(20, &[(DeviceState::Rotating, 50), (DeviceState::Active, 50)]);
        let line = tally.line("rotated", tally.pace(20, TEN));
        assert_eq!(line, "rotated 20/100  rotating 50  active 50  2.0/s  40 s left");
    }

    #[test]
    fn renewals_from_before_the_first_look_are_no_speed() {
        let tally = tally(60, &[(DeviceState::Active, 100)]);
        let line = tally.line("rotated", tally.pace(20, TEN));
        assert_eq!(line, "rotated 60/100  active 100  2.0/s  20 s left");
    }

    #[test]
    fn a_device_that_failed_is_no_longer_waited_for() {
        let tally = tally(97, &[(DeviceState::Active, 97), (DeviceState::Failed, 3)]);
        assert_eq!(tally.pace(97, TEN).left, Some(Duration::ZERO));
        assert!(tally.table("rotated", tally.pace(97, TEN)).contains("time left 0 s"));
    }

    #[test]
    fn before_the_first_renewal_there_is_no_time_left_to_tell() {
        let tally = tally(0, &[]);
        assert_eq!(tally.line("rotated", tally.pace(0, TEN)), "rotated 0/100  0.0/s");
        assert!(tally.table("rotated", Pace::default()).contains("time left -"));
    }

    #[test]
    fn a_rotation_shows_its_phase_and_every_wave() {
        let tally =
            tally(5, &[(DeviceState::Active, 97), (DeviceState::Failed, 3)]).under(course(RotationPhase::Running));
        assert_eq!(
            tally.line("rotated", tally.pace(5, TEN)),
            "rotated 5/100 (canary 5/5, early 0/20, rest 0/1000000)  Running  active 97  failed 3  0.5/s  184 s left"
        );
        let table = tally.table("rotated", tally.pace(5, TEN));
        let rows: Vec<_> = table.lines().collect();
        assert_eq!(rows[1], "   phase      Running, wave 2/3 early");
        assert_eq!(
            rows[2..6],
            [
                "   wave       phase      planned waiting in flight confirmed failed rolled back",
                "   canary     Done             5       0         0         5      0           0",
                "   early      RolledBack      20       0         0         0      2          18",
                "   rest       Pending    1000000 1000000         0         0      0           0",
            ]
        );
        assert!(rows.iter().all(|row| row.len() <= 80), "{table}");
    }

    #[test]
    fn a_rotation_that_stands_still_has_no_time_left_to_tell() {
        for phase in [
            RotationPhase::RollingBack,
            RotationPhase::RolledBack,
            RotationPhase::Paused,
        ] {
            let tally = tally(5, &[(DeviceState::Active, 100)]).under(course(phase));
            assert_eq!(tally.pace(5, TEN).left, None, "{phase:?}");
        }
    }
}
