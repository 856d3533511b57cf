//! The end of a run: all is whole again, one more Rotation reaches everybody, and then each party is asked by itself.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use certwave_crds::CertificateAuthority;

use super::rig::Rig;
use super::standing::{InObject, Standing, rows};
use crate::demo::verifier::Verifier;
use crate::mqtt::Connection;
use crate::stack::objects;
use crate::{device_files, http, programs, tools, wait_for};

/// By then statuses have arrived and devices that were cut off have come back.
const AGREED: Duration = Duration::from_mins(2);
/// A device that has just come back for its retirement may lose its first connection to us, or we ours to it.
const LET_IN: Duration = Duration::from_secs(30);

impl Rig {
    /// What all parties say of all devices.
    async fn standing(&self) -> Result<Standing> {
        let objects = self.stack.devices().await?;
        Ok(Standing {
            devices: self.devices()?,
            ledger: rows(self.store.devices(&self.stack)?)?,
            objects: objects
                .iter()
                .map(|d| (d.spec.device_id.clone(), InObject::from(d)))
                .collect(),
        })
    }

    /// Waits until all parties agree on all devices; what is left when time is up.
    pub(super) async fn agreement(&mut self, before: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let (ids, end) = (self.ids(), Instant::now() + AGREED);
        loop {
            self.keep_controller()?;
            let left = self.standing().await?.disagreements(&ids, before);
            if left.is_empty() || Instant::now() > end {
                return Ok(left);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Has OpenSSL judge the certificate that each device starts from, with the CRL that is served, and the broker let each in by what
    /// lies on its disk. What is wrong.
    pub(super) async fn doors(&self) -> Result<Vec<String>> {
        let verifier = Verifier::new(&self.stack).await?;
        let crl = self.stack.directory().join("full.crl.pem");
        let key = self.stack.objects::<CertificateAuthority>().get(objects::CA).await?;
        let key = key
            .status
            .and_then(|status| status.key_id)
            .context("the CA has no key")?;
        let list = wait_for("the CRL", AGREED, || async {
            let (status, list) = http::get(self.stack.http(), &format!("/crl/{key}/full.pem")).await?;
            anyhow::ensure!(status == 200, "{status}");
            Ok(list)
        });
        std::fs::write(&crl, list.await?)?;
        let mut wrong = Vec::new();
        for (id, device) in self.devices()? {
            let sha256 = device.leaf.with_context(|| format!("{id} starts from nothing"))?;
            let identity = device_files::identity(&self.device_files().join(&id), &sha256)?;
            if let Err(error) = verifier.verify_unrevoked(&id, &identity.certificate, &crl) {
                wrong.push(format!("{error:#}"));
            }
            let what = format!("the broker to let {id} in");
            let let_in = wait_for(&what, LET_IN, || async {
                let broker = self.stack.broker.device_address();
                Connection::open(broker, &verifier.root, Some(&identity), &id)
                    .await
                    .map(drop)
            });
            if let Err(error) = let_in.await {
                wrong.push(format!("{error:#}"));
            }
        }
        Ok(wrong)
    }

    /// Keeps the files and, as its disk or server ends with the run, a copy of the ledger. Where they are.
    pub(super) fn keep(&mut self) -> String {
        let files = self.stack.keep_files();
        match self.keep_ledger() {
            Ok(()) => files,
            Err(error) => format!("{files} (without the ledger: {error:#})"),
        }
    }

    fn keep_ledger(&self) -> Result<()> {
        let mut backup = Command::new(programs::certwave()?);
        backup.args(["ledger", "backup", "--ledger", &self.store.url(&self.stack), "--to"]);
        tools::output(backup.arg(self.stack.directory().join("kept.sqlite"))).map(drop)
    }

    /// Ends the controller and has the ledger's audit checked from its first line to its last; what is wrong.
    pub(super) fn audit(&mut self) -> Result<Vec<String>> {
        self.stack.stop_controller()?;
        let mut command = Command::new(programs::certwave()?);
        let checked = tools::output(command.args(["ledger", "verify", "--ledger", &self.store.url(&self.stack)]));
        Ok(checked.err().map(|error| format!("{error:#}")).into_iter().collect())
    }
}
