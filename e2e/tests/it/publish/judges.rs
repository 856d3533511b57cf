//! Relying parties on what a running controller serves: a root, a subordinate, and a device's certificate of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use certwave_crds::{CertificateAuthority, Fleet};
use certwave_e2e::judges::{self, Lint};
use certwave_e2e::stack::objects;
use certwave_e2e::{http, tools, wait_for};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::faults::authority::create;
use crate::faults::world::{SOON, World, patch};

/// What the judges are shown; all files are PEM.
struct Court {
    world: World,
    root: PathBuf,
    line: PathBuf,
    leaf: PathBuf,
    /// The month whose CRL the leaf names.
    month: String,
    root_id: String,
    line_id: String,
}

impl Court {
    async fn new(name: &str) -> Self {
        let mut world = World::new(name, 2).await;
        let spec = json!({ "subordinate": { "issuerRef": { "name": objects::CA } } });
        let line = create(&world, "line", &spec).await;
        let to = json!({ "spec": { "issuerRef": { "name": "line" } } });
        patch::<Fleet>(&world.stack, objects::FLEET, &to).await;
        wait_for("the fleet to be taken up", SOON, || async {
            let fleet: Fleet = world.stack.objects().get(objects::FLEET).await?;
            let seen = fleet.status.as_ref().and_then(|status| status.observed_generation);
            ensure!(seen == fleet.metadata.generation, "{seen:?}");
            Ok(())
        })
        .await
        .unwrap();
        world.enrol("m", 1, &[]).await;
        let root: CertificateAuthority = world.stack.objects().get(objects::CA).await.unwrap();
        let (root, line) = (root.status.unwrap(), line.status.unwrap());
        let (root_id, line_id) = (root.key_id.unwrap(), line.key_id.unwrap());
        let device = world
            .history()
            .0
            .query_row(
                "SELECT der FROM certificates WHERE issuer = ?1 AND holder = 'm-1' ORDER BY issued_at DESC",
                [&line_id],
                |row| row.get::<_, Vec<u8>>(0),
            )
            .unwrap();
        let file = |name: &str| world.stack.directory().join(name);
        std::fs::write(file("leaf.der"), device).unwrap();
        openssl(
            &["x509", "-inform", "DER"],
            &[("-in", &file("leaf.der")), ("-out", &file("leaf.pem"))],
        )
        .unwrap();
        std::fs::write(file("root.pem"), root.certificate.unwrap()).unwrap();
        std::fs::write(file("line.pem"), line.certificate.unwrap()).unwrap();
        let text = openssl(
            &["x509", "-noout", "-ext", "crlDistributionPoints"],
            &[("-in", &file("leaf.pem"))],
        )
        .unwrap();
        let month = text.split(&format!("/crl/{line_id}/")).nth(1).unwrap();
        let month = month.split(".crl").next().unwrap().to_owned();
        Self {
            root: file("root.pem"),
            line: file("line.pem"),
            leaf: file("leaf.pem"),
            month,
            root_id,
            line_id,
            world,
        }
    }

    /// A CRL as it is served, once it is.
    async fn served(&self, issuer: &str, scope: &str) -> PathBuf {
        let path = format!("/crl/{issuer}/{scope}.pem");
        let pem = wait_for(&path, SOON, || async {
            let (status, pem) = http::get(self.world.stack.http(), &path).await?;
            ensure!(status == 200, "{status}: {pem}");
            Ok(pem)
        });
        let file = self.world.stack.directory().join(format!("{issuer}-{scope}.pem"));
        std::fs::write(&file, pem.await.unwrap()).unwrap();
        file
    }

    /// OpenSSL's verdict on the device's certificate.
    fn verify(&self, check: &str, crls: &[&Path]) -> anyhow::Result<String> {
        let mut files = vec![("-CAfile", self.root.as_path()), ("-untrusted", &self.line)];
        files.extend(crls.iter().map(|file| ("-CRLfile", *file)));
        let mut command = Command::new(tools::openssl()?);
        command.args(["verify", "-x509_strict", check]);
        for (option, file) in files {
            command.arg(option).arg(file);
        }
        tools::output(command.arg(&self.leaf))
    }
}

fn openssl(arguments: &[&str], files: &[(&str, &Path)]) -> anyhow::Result<String> {
    let mut command = Command::new(tools::openssl()?);
    command.args(arguments);
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    tools::output(&mut command)
}

#[tokio::test]
async fn openssl_go_python_pkilint_and_zlint_take_root_subordinate_device_and_their_crls() {
    let court = Court::new("judges").await;
    let month = court.served(&court.line_id, &court.month).await;
    court.verify("-crl_check", &[&month]).unwrap();
    let whole = [
        court.served(&court.root_id, "full").await,
        court.served(&court.line_id, "full").await,
    ];
    court.verify("-crl_check_all", &[&whole[0], &whole[1]]).unwrap();
    let verdict = court.verify("-crl_check_all", &[&whole[1]]).unwrap_err().to_string();
    assert!(verdict.contains("unable to get certificate CRL"), "{verdict}");

    let authorities = court.served(&court.root_id, "ca").await;
    let lists = [
        (&court.root, &authorities),
        (&court.root, &whole[0]),
        (&court.line, &month),
        (&court.line, &whole[1]),
    ];
    let mut findings = Vec::new();
    for (ca, list) in lists {
        let der = list.with_extension("crl");
        openssl(&["crl", "-outform", "DER"], &[("-in", list), ("-out", &der)]).unwrap();
        let go = judges::go_crl(ca, &der).unwrap();
        let python = judges::cryptography(ca, list).unwrap();
        let number = go.split_whitespace().next().unwrap();
        assert!(python.contains(&format!("number {number}\n")), "{go}{python}");
        let partitioned = !list.to_str().unwrap().ends_with("full.pem");
        assert_eq!(python.contains("scope True http://"), partitioned, "{python}");
        findings.extend(judges::pkilint(Lint::Crl, list).err());
    }

    let secrets = court.world.stack.objects::<Secret>();
    let signer = wait_for("the OCSP signer", SOON, || async {
        Ok(secrets.get("line-ocsp").await?)
    });
    let signer = signer.await.unwrap().data.unwrap();
    let signer_file = court.world.stack.directory().join("signer.pem");
    std::fs::write(&signer_file, &signer["tls.crt"].0).unwrap();
    for certificate in [&court.root, &court.line, &court.leaf, &signer_file] {
        findings.extend(judges::zlint(&[certificate]).err());
        findings.extend(judges::pkilint(Lint::Certificate, certificate).err());
    }
    let findings: Vec<_> = findings.iter().map(|finding| format!("{finding:#}")).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
