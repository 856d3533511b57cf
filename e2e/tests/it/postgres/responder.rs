//! `certwave responder` beside the controller, with a role that may only read.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use certwave_crds::CertificateAuthority;
use certwave_e2e::process::Process;
use certwave_e2e::stack::objects;
use certwave_e2e::{ports, programs, tools, wait_for};
use k8s_openapi::api::core::v1::Secret;

use super::world::Shared;
use crate::faults::world::SOON;

/// The Secret's files, where kubelet would mount them.
async fn mount(world: &Shared, on: &Path) {
    let name = format!("{}-ocsp", objects::CA);
    let secret = wait_for("the OCSP signer", SOON, || async {
        Ok(world.stack.objects::<Secret>().get(&name).await?)
    });
    let secret = world.told(secret.await);
    fs::create_dir_all(on).unwrap();
    for (file, content) in secret.data.unwrap() {
        fs::write(on.join(file), content.0).unwrap();
    }
}

#[tokio::test]
async fn a_responder_that_may_only_read_tells_good_from_revoked() {
    let mut world = Shared::new("pg-ocsp").await;
    let ids = world.enrol("m", 2, &[]).await;
    world.verify().await;
    let signers = world.stack.directory().join("signers");
    mount(&world, &signers.join(objects::CA)).await;
    world
        .sql("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        .unwrap();

    let http: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free().unwrap()).into();
    let url = world.url.replace("certwave@", "reader@");
    let mut command = Command::new(programs::certwave().unwrap());
    command.args(["responder", "--log-format", "text", "--http", &http.to_string()]);
    command.args(["--ledger", &url]).arg("--signers").arg(&signers);
    let log = world.stack.directory().join("responder.log");
    let mut responder = Process::spawn("responder", &command, &log).unwrap();
    responder.wait_ready(http, "/readyz", SOON).await.unwrap();

    let issuer = world.stack.directory().join("issuer.pem");
    let ca = world
        .stack
        .objects::<CertificateAuthority>()
        .get(objects::CA)
        .await
        .unwrap();
    fs::write(&issuer, ca.status.unwrap().certificate.unwrap()).unwrap();
    let ask = |device: &str| {
        let mut openssl = Command::new(tools::openssl().unwrap());
        openssl.arg("ocsp").arg("-issuer").arg(&issuer).arg("-cert");
        openssl.arg(world.stack.directory().join(format!("{device}.chain.pem")));
        openssl
            .args(["-url", &format!("http://{http}/ocsp"), "-CAfile"])
            .arg(&issuer);
        tools::output(&mut openssl)
    };
    assert!(ask(&ids[0]).unwrap().contains(": good"));
    world.revoke(&ids[0]).await;
    let revoked = wait_for("OCSP to say revoked", SOON, || async {
        let said = ask(&ids[0])?;
        anyhow::ensure!(said.contains(": revoked"), "{said}");
        Ok(())
    });
    world.told(revoked.await);
    assert!(ask(&ids[1]).unwrap().contains(": good"));
}
