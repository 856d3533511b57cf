//! What is handed to support holds no secret.

use std::path::Path;
use std::process::Command;

use certwave_e2e::stack::objects;
use certwave_e2e::tools;
use serde_json::json;

use super::plugin::Plugin;
use crate::faults::world::World;

/// Stands in every place where a person may have put a secret.
const PLANTED: &str = "Hunter2Hunter2Hunter2";

#[tokio::test]
async fn a_bundle_has_what_support_needs_and_no_secret() {
    let mut world = World::new("cli-bundle", 10).await;
    world.enrol("b", 1, &[]).await;
    let namespace = world.stack.namespace().to_owned();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "certwave-0", "namespace": namespace, "labels": { "app.kubernetes.io/name": "certwave" } },
        "spec": { "serviceAccountName": "certwave-controller", "containers": [{ "name": "certwave", "image": "certwave:test",
            "args": ["run", "--ledger", format!("postgres://certwave:{PLANTED}@db/ledger")],
            "env": [{ "name": "PGPASSWORD", "value": PLANTED }] }] },
    });
    world.stack.api.apply(&pod.to_string()).unwrap();
    let plugin = Plugin::of(&world.stack);
    let archive = world.stack.directory().join("bundle.tar.gz");
    let path = archive.to_str().unwrap();
    plugin.run(&["bundle", "-f", path]);
    assert!(
        plugin.fails(1, &["bundle", "-f", path]).contains("exists"),
        "it is never written over another file"
    );

    let text = unpacked(&archive);
    for wanted in [
        "CertificateAuthority",
        "kind: Fleet",
        "deviceId: b-1",
        "certwave-0",
        "holderIdentity",
        "LEVEL",
        "--ledger",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    assert!(!text.contains(PLANTED) && !text.contains("PRIVATE KEY"));
    // Nothing that stands in any Secret, in whatever form.
    let secrets = world.stack.secrets().await.unwrap();
    assert!(!secrets.is_empty());
    let keys = secrets
        .iter()
        .flat_map(|secret| secret.data.iter().flatten())
        .filter(|(name, _)| Path::new(name).extension().is_some_and(|end| end == "key"));
    let mut seen = 0;
    for (name, value) in keys {
        let pem = String::from_utf8_lossy(&value.0).into_owned();
        for line in pem.lines().filter(|line| line.len() > 20 && !line.starts_with("-----")) {
            assert!(!text.contains(line), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 0, "there were keys to look for");
    assert!(text.contains(objects::FLEET));
}

/// The text of all files of a bundle.
pub(crate) fn unpacked(archive: &Path) -> String {
    tools::output(Command::new("tar").arg("-xzOf").arg(archive)).unwrap()
}
