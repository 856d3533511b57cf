//! What the engine wants people to know: becomes conditions and events on objects.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use certwave_core::model::ObjectRef;
use certwave_core::retire::Why;
use certwave_ledger::FleetKey;
use certwave_protocol::code::Code;
use certwave_protocol::ids::DeviceId;

/// Something happened to a device that a person would want to know.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A job of this device ended badly.
    JobFailed {
        /// The `DeviceCertificate`.
        object: ObjectRef,
        /// Its fleet.
        fleet: FleetKey,
        /// Why.
        code: Code,
        /// In words.
        detail: String,
    },
    /// A device did not come back by its new certificate once the old one was on hold; it is let in by the old one again.
    ProbationFailed {
        /// The `DeviceCertificate`.
        object: ObjectRef,
        /// Its fleet.
        fleet: FleetKey,
        /// Why it counts as failed.
        why: Why,
    },
    /// A claim was refused (condition `EnrolmentRefused`, event, metric).
    EnrolmentRefused {
        /// The `DeviceCertificate`, where the device is declared.
        object: Option<ObjectRef>,
        /// The claim's fleet, where known.
        fleet: Option<FleetKey>,
        /// The device that asked.
        device: DeviceId,
        /// Why.
        code: Code,
        /// In words.
        detail: String,
    },
    /// A `DeviceCertificate` was deleted, and its device revoked, as the Fleet asks for.
    DeletionRevoked {
        /// The Fleet.
        fleet: FleetKey,
        /// The device.
        device: DeviceId,
        /// How many certificates were revoked by it.
        certificates: usize,
    },
    /// A `DeviceCertificate` was deleted, and nothing was revoked though the Fleet asks for it.
    DeletionKept {
        /// The Fleet.
        fleet: FleetKey,
        /// The device.
        device: DeviceId,
        /// Why.
        why: String,
    },
    /// The device's clock differs from ours (condition `ClockSkew`).
    ClockSkew {
        /// The `DeviceCertificate`.
        object: ObjectRef,
        /// Device minus controller, seconds.
        seconds: i64,
    },
    /// The device's clock was wrong and is right again.
    ClockRight {
        /// The `DeviceCertificate`.
        object: ObjectRef,
    },
}

/// Devices remembered at most; what is beyond is said again with each `hello`, and taken back by nothing.
const MOST: usize = 10_000;

/// Devices whose clocks are known to be wrong: only for them is it news that a clock is right.
#[derive(Default)]
pub struct Skewed(Mutex<HashSet<ObjectRef>>);

impl Skewed {
    /// Remembers one.
    pub fn add(&self, object: &ObjectRef) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST && !all.contains(object) {
            all.insert(object.clone());
        }
    }

    /// Forgets one; whether it was known.
    pub fn remove(&self, object: &ObjectRef) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(object)
    }
}
