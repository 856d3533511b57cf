//! Those who watch a device, and the simulator's faults.

use std::pin::Pin;
use std::time::Duration;

use certwave_protocol::message::{Body, Slot};
use tokio::sync::OwnedSemaphorePermit;

use crate::journal::Journal;
use crate::machine::{Effect, Failure, State, Via};
use crate::mqtt::LinkError;

/// Leave to connect, held as long as the connection lives.
pub type Leave = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// Those who watch a device, and the simulator's faults. Every method does nothing unless it is written anew.
pub trait Hooks: Send + Sync {
    /// Something happened; `state` is what came of it and `effects` what will be done.
    fn stepped(&self, state: &State, effects: &[Effect]) {
        let _ = (state, effects);
    }
    /// A connection was not made or broke.
    fn link_failed(&self, error: &LinkError) {
        let _ = error;
    }
    /// Waits before connecting.
    fn leave(&self, via: Via) -> Option<Leave> {
        let _ = via;
        None
    }
    /// A connection that shall fail without being tried.
    fn shut(&self, journal: &Journal, via: Via) -> Option<Failure> {
        let _ = (journal, via);
        None
    }
    /// The slot whose certificate opens a connection, where a mistake makes that another one than the device thinks.
    fn opens(&self, journal: &Journal, via: Via) -> Option<Slot> {
        let _ = (journal, via);
        None
    }
    /// How many times a message is published.
    fn copies(&self, journal: &Journal, body: &Body) -> usize {
        let _ = (journal, body);
        1
    }
    /// How long the device takes for each message it gets.
    fn delay(&self, journal: &Journal) -> Duration {
        let _ = journal;
        Duration::ZERO
    }
}

/// Nobody watches.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;
impl Hooks for Unwatched {}
