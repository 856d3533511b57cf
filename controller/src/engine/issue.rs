//! From a sound request to a certificate with its record.

use std::sync::Arc;

use certwave_core::model::{Credential, Device};
use certwave_ledger::{CertificateKind, CertificateRecord, FleetKey, SerialKey};
use certwave_pki::{Csr, LeafRequest, LeafUsage, TemplateContext};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId};

use super::Engine;
use super::inbox::{Refusal, code_of};
use crate::clock::{dating, now};
use crate::publish::CrlFault;
use crate::registry::{FleetEntry, IssuerEntry};

impl Engine {
    /// The device's fleet, where its CA and broker are in order.
    pub(super) fn fleet(&self, device: &Device) -> Result<Arc<FleetEntry>, Refusal> {
        self.registry
            .fleet(&FleetKey::of(device))
            .ok_or_else(|| (Code::TryLater, "the device's fleet is not ready".to_owned()))
    }

    /// The CA that issues for this device now: the Rotation's where it moves the fleet, else the fleet's.
    async fn issuer(&self, device: &Device, fleet: &FleetEntry) -> Result<IssuerEntry, Refusal> {
        let own = || fleet.issuer.clone();
        let Some(uid) = device.job.as_ref().and_then(|j| j.rotation.as_ref()) else {
            return Ok(own());
        };
        if let Some(rotation) = self.registry.rotation(uid) {
            return Ok(rotation.issuer.clone().unwrap_or_else(own));
        }
        let stored = self.ledger.rotation(uid).await.map_err(|e| self.out(&e))?;
        let moves = stored.is_some_and(|r| r.ended.is_none() && r.record.issuer.is_some());
        // One that is neither ended nor looked after any more was deleted; its devices are served as their fleet's.
        if moves && (self.registry.waits(uid) || !self.registry.is_open()) {
            return Err((
                Code::TryLater,
                "the Rotation waits for the CA that it moves to".to_owned(),
            ));
        }
        Ok(own())
    }

    /// Has the broker's door let a new certificate in before anybody has it: a door that goes by CRLs refuses whom it has none for.
    async fn let_in(&self, device: &Device, issuer: &str, serial: &str, der: &[u8]) -> Result<(), Refusal> {
        let Some(door) = self.registry.door(&device.id.broker) else {
            return Ok(());
        };
        let key = SerialKey {
            issuer: issuer.to_owned(),
            serial: serial.to_owned(),
        };
        door.admit(&key, der).await.map_err(|error| {
            tracing::warn!(broker = %device.id.broker, %error, "a certificate waits for the broker's door");
            let kind = self.registry.broker(&device.id.broker);
            let kind = kind.as_ref().map_or("none", |entry| entry.door.kind());
            self.metrics
                .brokers
                .door_errors
                .with_label_values(&[kind, error.category()])
                .inc();
            (
                Code::TryLater,
                "the broker would not let the certificate in yet".to_owned(),
            )
        })
    }

    /// Issues for a request that [`Engine::check_request`] has found sound; publishes the partition's first CRL before.
    pub(super) async fn issue(
        &self,
        device: &Device,
        request: &[u8],
    ) -> Result<(Credential, CertificateRecord), Refusal> {
        let job = device.job.as_ref().map(|j| j.id);
        self.issue_for(device, request, job).await
    }

    /// The same for a job that is being made.
    #[tracing::instrument(level = "debug", name = "issue", skip_all, fields(fleet = device.fleet))]
    pub(super) async fn issue_for(
        &self,
        device: &Device,
        request: &[u8],
        job: Option<JobId>,
    ) -> Result<(Credential, CertificateRecord), Refusal> {
        let ours = |e: &dyn std::fmt::Display| {
            tracing::error!(fleet = device.fleet, error = %e, "cannot issue");
            (Code::TryLater, "the CA cannot issue now".to_owned())
        };
        let fleet = self.fleet(device)?;
        let issuer = self.issuer(device, &fleet).await?;
        if issuer.revoked {
            return Err((Code::TryLater, "the CA of the device's fleet is revoked".to_owned()));
        }
        let csr = Csr::parse(request, &fleet.csr).map_err(|e| (code_of(e.code()), e.to_string()))?;
        let subject = fleet
            .template
            .render(&TemplateContext {
                device_id: device.id.device.as_str(),
                fleet: &device.fleet,
                namespace: &device.object.namespace,
                labels: &device.labels,
            })
            .map_err(|e| ours(&e))?;
        let at = now();
        let leaf = issuer
            .ca
            .issue(
                &LeafRequest {
                    subject: &subject,
                    public_key: csr.public_key(),
                    usage: LeafUsage::Device,
                    validity: fleet.validity,
                    backdate: fleet.backdate,
                },
                dating() / 1000,
            )
            .map_err(|e| ours(&e))?;
        self.publisher
            .ensure(&issuer, &leaf.partition)
            .await
            .map_err(|fault| match fault {
                CrlFault::Ledger(error) => self.out(&error),
                other => ours(&other),
            })?;
        self.let_in(device, &issuer.ca.key_id().to_string(), &leaf.serial, &leaf.der)
            .await?;
        let record = CertificateRecord {
            fingerprint: Fingerprint::of(&leaf.der),
            serial: leaf.serial,
            issuer: issuer.ca.key_id().to_string(),
            spki: Fingerprint(*csr.spki_sha256()),
            public_key: csr.spki_der().to_vec(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            kind: CertificateKind::Device,
            holder: device.id.device.to_string(),
            identity: Some(device.id.clone()),
            job,
            der: leaf.der.to_vec(),
            issued_at: at,
        };
        let credential = Credential::from(&record);
        Ok((credential, record))
    }
}
