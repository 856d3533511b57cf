//! What the engine wants people to know: becomes conditions and events on objects.

use certwave_core::model::ObjectRef;
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
    /// The device's clock differs from ours (condition `ClockSkew`).
    ClockSkew {
        /// The `DeviceCertificate`.
        object: ObjectRef,
        /// Device minus controller, seconds.
        seconds: i64,
    },
}
