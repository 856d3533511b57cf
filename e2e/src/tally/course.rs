//! A Rotation as its status shows it: the phase, and where each wave stands.

use std::fmt::Write as _;

use certwave_crds::{RotationPhase, RotationStatus, WaveStatus};

/// How a Rotation stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// The phase; `None` before the controller has said one.
    pub phase: Option<RotationPhase>,
    /// The wave that runs, of how many: `2/3 early`.
    pub progress: Option<String>,
    /// The waves, in order.
    pub waves: Vec<WaveStatus>,
}

impl From<&RotationStatus> for Course {
    fn from(status: &RotationStatus) -> Self {
        Self {
            phase: status.phase,
            progress: status.progress.clone(),
            waves: status.waves.clone(),
        }
    }
}

impl Course {
    /// Whether devices are being served, so that the speed so far tells something of the time left.
    pub fn goes_on(&self) -> bool {
        use RotationPhase::{Complete, Running, Soaking};
        matches!(self.phase, Some(Running | Soaking | Complete))
    }

    /// In brackets, what of each wave is confirmed; then the phase.
    pub(super) fn line(&self) -> String {
        let waves: Vec<_> = self
            .waves
            .iter()
            .map(|wave| format!("{} {}/{}", wave.name, wave.confirmed, wave.planned))
            .collect();
        if waves.is_empty() {
            return format!("  {}", self.phase());
        }
        format!(" ({})  {}", waves.join(", "), self.phase())
    }

    /// A row for the phase, and one for each wave; 80 columns at most where names have at most 10 letters.
    pub(super) fn table(&self) -> String {
        let mut table = format!("   {:<10} {}", "phase", self.phase());
        if let Some(progress) = &self.progress {
            let _ = write!(table, ", wave {progress}");
        }
        table.push('\n');
        if self.waves.is_empty() {
            return table;
        }
        table.push_str("   wave       phase      planned waiting in flight confirmed failed rolled back\n");
        for wave in &self.waves {
            let failed = wave.failed + wave.rejected + wave.timed_out + wave.lost;
            let _ = writeln!(
                table,
                "   {:<10} {:<10} {:>7} {:>7} {:>9} {:>9} {failed:>6} {:>11}",
                wave.name,
                format!("{:?}", wave.phase),
                wave.planned,
                wave.waiting,
                wave.in_flight,
                wave.confirmed,
                wave.rolled_back,
            );
        }
        table
    }

    fn phase(&self) -> String {
        // As kubectl shows it.
        format!("{:?}", self.phase.unwrap_or(RotationPhase::Pending))
    }
}
