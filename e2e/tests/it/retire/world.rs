//! A stack whose broker checks CRLs, and what became of old certificates, by the ledger and by what is served.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use certwave_e2e::identity::Identity;
use certwave_e2e::mqtt::Connection;
use certwave_e2e::{device_files, revoked, wait_for};
use serde_json::{Value, json};

use crate::faults::history::History;
use crate::faults::world::{SOON, World};
use crate::rollout::world::{Staged, strategy};

/// A [`Staged`] whose broker reports what it has loaded.
pub(crate) struct Retiring(Staged);

impl Deref for Retiring {
    type Target = Staged;
    fn deref(&self) -> &Staged {
        &self.0
    }
}

impl DerefMut for Retiring {
    fn deref_mut(&mut self) -> &mut Staged {
        &mut self.0
    }
}

/// How far the retirement of a device's old certificate is, by the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) phase: String,
    pub(crate) why: Option<String>,
}

/// A certificate that was to be retired.
#[derive(Debug, Clone)]
pub(crate) struct Old {
    /// Lower-case hexadecimal.
    pub(crate) serial: String,
    /// SHA-256, lower-case hexadecimal.
    pub(crate) sha256: String,
    der: Vec<u8>,
}

impl History {
    /// The latest retirement of each device.
    pub(crate) fn stages(&self) -> BTreeMap<String, Stage> {
        let mut get = self
            .0
            .prepare("SELECT device, phase, why FROM retirements ORDER BY job")
            .unwrap();
        let rows = get.query_map([], |row| {
            Ok((
                row.get(0)?,
                Stage {
                    phase: row.get(1)?,
                    why: row.get(2)?,
                },
            ))
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    /// How many retirements are in this phase.
    pub(crate) fn staged(&self, phase: &str) -> usize {
        self.stages().values().filter(|stage| stage.phase == phase).count()
    }

    /// The certificate that the latest retirement of a device is about.
    pub(crate) fn old(&self, device: &str) -> Old {
        let query =
            "SELECT c.serial, c.fingerprint, c.der FROM retirements r JOIN certificates c ON c.fingerprint = r.old
             WHERE r.device = ?1 ORDER BY r.job DESC LIMIT 1";
        self.0
            .query_row(query, [device], |row| {
                Ok(Old {
                    serial: row.get(0)?,
                    sha256: hex::encode(row.get::<_, Vec<u8>>(1)?),
                    der: row.get(2)?,
                })
            })
            .unwrap()
    }
}

/// One wave, and short times; `old` is merged into `oldCertificate`.
pub(crate) fn revoking(changes: &Value, old: &Value) -> Value {
    let mut whole = json!({
        "waves": [{ "name": "all", "percent": 100 }],
        "oldCertificate": { "retire": "Revoke", "grace": "1s", "probation": "10s", "reconnectsPerSecond": 100 },
    });
    for (key, value) in changes.as_object().unwrap() {
        whole[key] = value.clone();
    }
    for (key, value) in old.as_object().unwrap() {
        whole["oldCertificate"][key] = value.clone();
    }
    strategy(&whole)
}

impl Retiring {
    pub(crate) async fn new(name: &str) -> Self {
        Self(Staged::revoking(name).await)
    }

    /// What the CRL that the old certificate names says of it.
    fn said_of(&self, old: &Old) -> anyhow::Result<Option<String>> {
        let file = self.stack.directory().join(format!("{}.der", old.serial));
        std::fs::write(&file, &old.der)?;
        revoked::said_of(&file)
    }

    /// Waits until the served CRL says this of an old certificate.
    pub(crate) async fn wait_said(&self, old: &Old, what: Option<&str>) {
        let said = wait_for("the CRL to say so", SOON, || async {
            let said = self.said_of(old)?;
            anyhow::ensure!(said.as_deref() == what, "{said:?} where {what:?} should be");
            Ok(())
        });
        self.told(said.await);
    }

    /// A certificate that lies on the device, with its key.
    pub(crate) fn identity(&self, device: &str, sha256: &str) -> Identity {
        let files = self.stack.directory().join("devices").join(device);
        device_files::identity(&files, sha256).unwrap()
    }

    /// Whether the broker lets somebody in by this.
    pub(crate) async fn admits(&self, device: &str, identity: &Identity) -> bool {
        let roots = self.roots().await;
        Connection::open(self.stack.broker.device_address(), &roots, Some(identity), device)
            .await
            .is_ok()
    }

    /// Whether the broker lets somebody in by a certificate that lies on the device.
    pub(crate) async fn lets_in(&self, device: &str, sha256: &str) -> bool {
        self.admits(device, &self.identity(device, sha256)).await
    }
}

/// All devices' retirements have ended so.
pub(crate) fn all(world: &World, ids: &[String], phase: &str) -> bool {
    let stages = world.history().stages();
    ids.iter()
        .all(|id| stages.get(id).is_some_and(|stage| stage.phase == phase))
}
