//! What a device is told before it starts.

use std::sync::Arc;
use std::time::Duration;

use certwave_protocol::message::Der;

use crate::claim::Claim;
use crate::machine::Config;
use crate::mqtt::{Address, Dial};
use crate::trust::Trusts;

/// What a device needs to know to run.
#[derive(Debug)]
pub struct Setup {
    /// For the state machine.
    pub config: Config,
    /// Where devices connect.
    pub url: Address,
    /// Topic prefix.
    pub prefix: String,
    /// To enrol with.
    pub claim: Option<Arc<Claim>>,
    /// The first trust bundle.
    pub anchors: Vec<Der>,
    /// The first and the longest wait between attempts to connect.
    pub backoff: (Duration, Duration),
    /// Seconds between pings on an idle connection.
    pub keep_alive: u16,
    /// Parsed bundles, shared by all devices of a process.
    pub trusts: Arc<Trusts>,
    /// Seconds that the device's clock is off. Not 0 in the simulator only.
    pub clock_offset: i64,
    /// How connections are made.
    pub dial: Arc<dyn Dial>,
}
