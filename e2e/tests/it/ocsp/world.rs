//! A running controller, its CAs, and what is asked about them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use certwave_crds::{CertificateAuthority, DeviceCertificate};
use certwave_e2e::stack::{FleetOptions, Simulation, Stack};
use certwave_e2e::wait_for;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::judges::{self, Asked, Said};
use crate::shared;

/// For what takes seconds, on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(90);
const FLEET: FleetOptions = FleetOptions {
    max_in_flight: 5,
    step_timeout: "20s",
    trial_timeout: "10s",
    job_timeout: "60s",
};

/// A CA as relying parties know it.
pub(super) struct Ca {
    pub(super) object: CertificateAuthority,
    /// Its certificate, PEM.
    pub(super) file: PathBuf,
    /// Where it is asked, as certificates say.
    pub(super) url: String,
}

impl Ca {
    /// A certificate of this CA's.
    pub(super) fn asked<'a>(&'a self, serial: &'a str) -> Asked<'a> {
        Asked {
            url: &self.url,
            issuer: &self.file,
            serial,
        }
    }

    /// The serial number of the CA's own certificate, which a root has issued itself.
    pub(super) fn own_serial(&self) -> &str {
        self.object.status.as_ref().unwrap().serial.as_deref().unwrap()
    }
}

/// A controller with the stack's own CA.
pub(super) async fn controller() -> Stack {
    let mut stack = Stack::on(shared::api().await, "ocsp").await.unwrap();
    stack.apply_foundation(&FLEET).unwrap();
    stack.start_controller().await.unwrap();
    stack
}

/// A controller with a broker and enrolled devices.
pub(super) async fn devices(count: usize) -> Stack {
    let mut stack = controller().await;
    stack.start_broker().await.unwrap();
    let simulation = Simulation {
        devices: count,
        state: None,
        report: None,
        claim: stack.create_claim(count).unwrap(),
        seed: 5,
        connect_rate: 100,
        faults: Vec::new(),
    };
    stack.declare_devices(simulation.device_ids()).await.unwrap();
    stack.start_devices(&simulation).unwrap();
    for id in simulation.device_ids() {
        serial(&stack, &id).await;
    }
    stack
}

/// The serial number of a device's certificate, once it has one.
pub(super) async fn serial(stack: &Stack, id: &str) -> String {
    wait_for(&format!("the certificate of {id}"), SOON, || async {
        let status = stack.objects::<DeviceCertificate>().get(id).await?.status;
        let current = status.and_then(|status| status.certificates.current);
        current.and_then(|current| current.serial).context("it has none")
    })
    .await
    .unwrap()
}

/// A root of that name, made now.
pub(super) async fn create(stack: &Stack, name: &str, mut spec: Value) -> Ca {
    spec["root"] = json!({});
    spec["publication"] = json!({ "baseURL": format!("http://{}", stack.http()) });
    let object = json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "CertificateAuthority",
        "metadata": { "name": name, "namespace": stack.namespace() }, "spec": spec,
    });
    stack.api.apply(&object.to_string()).unwrap();
    ca(stack, name).await
}

/// A CA, once it has an OCSP signer.
pub(super) async fn ca(stack: &Stack, name: &str) -> Ca {
    let object = wait_for(&format!("the OCSP signer of {name}"), SOON, || async {
        let object = stack.objects::<CertificateAuthority>().get(name).await?;
        let status = object.status.as_ref().context("no status")?;
        ensure!(status.ocsp_signer.is_some(), "{:?}", status.conditions);
        Ok(object)
    })
    .await
    .unwrap();
    let status = object.status.as_ref().unwrap();
    let file = stack.directory().join(format!("{name}.ca.pem"));
    std::fs::write(&file, status.certificate.as_ref().unwrap()).unwrap();
    let key_id = status.key_id.as_ref().unwrap();
    Ca {
        url: format!("http://{}/ocsp/{key_id}", stack.http()),
        file,
        object,
    }
}

/// Merges this into the object, as a person would.
pub(super) async fn change<K>(stack: &Stack, name: &str, patch: &Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let objects = stack.objects::<K>();
    objects
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Has the controller look at a CA now: Secrets are not watched.
pub(super) async fn touch(stack: &Stack, name: &str) {
    let now = format!("{:?}", std::time::SystemTime::now());
    let patch = json!({ "metadata": { "annotations": { "example.com/touched": now } } });
    change::<CertificateAuthority>(stack, name, &patch).await;
}

/// Waits until OpenSSL is told this; answers after how long.
pub(super) async fn told(asked: Asked<'_>, expected: Said) -> Duration {
    let begun = Instant::now();
    wait_for(&format!("{expected:?} of {}", asked.serial), SOON, || async {
        let said = judges::openssl(asked, "sha256", false)?;
        ensure!(said == expected, "{said:?}");
        Ok(())
    })
    .await
    .unwrap();
    begun.elapsed()
}

/// Waits until the CA's signer is said to near its end, or not.
pub(super) async fn expiring(stack: &Stack, name: &str, status: &str) -> Condition {
    wait_for(&format!("OCSPSignerExpiring={status}"), SOON, || async {
        let object = stack.objects::<CertificateAuthority>().get(name).await?;
        let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|c| c.type_ == "OCSPSignerExpiring");
        let found = found.context("not there yet")?;
        ensure!(found.status == status, "{}: {}", found.reason, found.message);
        Ok(found)
    })
    .await
    .unwrap()
}

/// The serial number of the signer's certificate, by the CA's status.
pub(super) async fn signer(stack: &Stack, name: &str) -> Result<String> {
    let object = stack.objects::<CertificateAuthority>().get(name).await?;
    let signer = object.status.and_then(|status| status.ocsp_signer);
    Ok(signer.context("no signer")?.serial)
}
