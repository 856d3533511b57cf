//! What the chart goes by that it finds in the cluster.

use std::process::Command;

use anyhow::Result;
use certwave_e2e::api::ApiServer;
use certwave_e2e::chart::directory;
use certwave_e2e::tools;
use serde_json::json;

use crate::shared;

/// What Helm would install as the release `north` in this namespace, after a look at the cluster.
fn rendered(api: &ApiServer, namespace: &str, watched: &str) -> Result<String> {
    let mut helm = Command::new(tools::helm()?);
    helm.args(["template", "north"]).arg(directory());
    helm.arg("--kubeconfig").arg(api.kubeconfig());
    helm.args(["--dry-run=server", "--namespace", namespace]);
    helm.args(["--set", "people.enabled=false,flowSchema.enabled=false"]);
    helm.args(["--set", &format!("watchNamespace={watched}")]);
    tools::output(&mut helm)
}

/// A Deployment as the release `south` has it.
fn controller(namespace: &str, watches: &str) -> String {
    let labels = json!({ "app.kubernetes.io/name": "certwave", "app.kubernetes.io/instance": "south" });
    let pod = json!({ "containers": [{ "name": "controller", "image": "certwave" }] });
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "south-controller",
            "namespace": namespace,
            "labels": labels,
            "annotations": { "certwave.dev/watches": watches },
        },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    object.to_string()
}

/// One test, as a controller that watches everything is in the way of all that look.
#[tokio::test]
async fn crds_that_people_applied_stay_theirs_and_controllers_that_would_share_are_refused() {
    let api = shared::api().await;
    let north = api.namespace("north").await.unwrap();
    let south = api.namespace("south").await.unwrap();
    let taken = |namespace: &str, watched: &str| {
        let text = rendered(&api, namespace, watched).unwrap();
        assert!(text.contains("kind: Deployment"), "{text}");
        // The CRDs are there by kubectl.
        assert!(!text.contains("kind: CustomResourceDefinition"), "{text}");
    };
    let refused = |namespace: &str, watched: &str, why: &str| {
        let said = rendered(&api, namespace, watched).unwrap_err();
        let said = format!("{said:#}");
        assert!(said.contains(why) && said.contains("south-controller"), "{said}");
    };
    taken(&north, &north);

    api.apply(&controller(&south, &south)).unwrap();
    taken(&north, &north);
    refused(&north, &south, "may not share objects");
    refused(&north, "", "may not share objects");
    refused(&south, &north, "share their Leases");

    api.apply(&controller(&south, "*")).unwrap();
    refused(&north, &north, "may not share objects");
    api.kubectl(["--namespace", &south, "delete", "deployment", "south-controller"])
        .unwrap();
}
