//! The share of devices online, compared with before the wave.

use super::Answer;

/// Devices of the fleet that are online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Online {
    /// When the wave began; `None` when they were not counted then.
    pub before: Option<u32>,
    /// Now.
    pub now: u32,
}

/// Whether at least `min_percent` of those that were online before are online now.
pub fn answer(online: Online, min_percent: u8) -> Answer {
    let Some(before) = online.before else {
        return Answer::Unknown("nobody counted the devices online when the wave began".to_owned());
    };
    let detail = format!(
        "{} devices online, {before} before; at least {min_percent} % of that",
        online.now
    );
    if u64::from(online.now) * 100 >= u64::from(before) * u64::from(min_percent) {
        Answer::Well(detail)
    } else {
        Answer::Bad(detail)
    }
}
