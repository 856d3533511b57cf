//! What the ledger holds of the device, its certificates and their retirement.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use certwave_core::model::{Device, Identity, ObjectRef};
use certwave_core::retire::Retirement;

use crate::symbols::{self, Leaf, PAST};

/// Why a certificate does not stand as good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools, reason = "each stands by itself")]
pub struct Marks {
    /// On hold by a retirement.
    pub retiring: bool,
    /// On hold by a person.
    pub held: bool,
    /// Revoked by the controller.
    pub revoked: bool,
    /// Revoked by a person.
    pub person: bool,
}

impl Marks {
    /// Whether a door that has heard of it lets it in.
    pub fn good(self) -> bool {
        self == Self::default()
    }
}

/// An open retirement, comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retiring(pub Retirement);

impl Hash for Retiring {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let r = &self.0;
        (r.job, r.old, r.new, r.phase, r.wake, r.nonce, r.attempt).hash(state);
    }
}

/// What the ledger holds of the device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// The device.
    pub device: Arc<Device>,
    /// Its retirement that has not ended.
    pub retirement: Option<Retiring>,
    /// This process saw it enter its phase.
    pub watched: bool,
    /// Every certificate that somebody may still name, with its marks.
    pub issued: BTreeMap<Leaf, Marks>,
    /// The epoch.
    pub epoch: u8,
    /// The number of the latest job.
    pub jobs: u8,
}

impl Ledger {
    /// A device with one confirmed certificate, seen on an earlier connection.
    pub fn enrolled() -> Self {
        let id = Identity {
            broker: symbols::name("plant"),
            device: symbols::name("meter-1"),
        };
        let object = ObjectRef {
            namespace: String::new(),
            name: String::new(),
        };
        let mut device = Device::declared(id, object, String::new());
        device.current = Some(symbols::credential(1));
        device.bundle = Some(symbols::bundle(1));
        device.session = Some(PAST);
        Self {
            device: Arc::new(device),
            retirement: None,
            watched: true,
            issued: BTreeMap::from([(1, Marks::default())]),
            epoch: 1,
            jobs: 0,
        }
    }

    /// Certificates that are not let in once the door has heard of them.
    pub fn shut(&self) -> BTreeSet<Leaf> {
        self.issued
            .iter()
            .filter(|(_, m)| !m.good())
            .map(|(leaf, _)| *leaf)
            .collect()
    }

    pub(crate) fn marks(&self, leaf: Leaf) -> Marks {
        self.issued.get(&leaf).copied().unwrap_or_default()
    }

    /// The number of the device's current certificate.
    pub fn current(&self) -> Leaf {
        self.device
            .current
            .as_ref()
            .map_or(0, |c| symbols::leaf(&c.fingerprint))
    }
}
