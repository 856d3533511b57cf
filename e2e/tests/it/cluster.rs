//! The harness's API server, and the controller's permissions on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use certwave_e2e::api::{ApiServer, client_for};
use certwave_e2e::wait_for;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};

use crate::shared;

fn refused<T>(result: kube::Result<T>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 403)
}

#[tokio::test]
async fn the_controller_has_its_permissions_and_no_others() {
    let api = shared::api().await;
    let namespace = api.namespace("rbac").await.unwrap();
    let other = api.namespace("rbac").await.unwrap();
    let client = client_for(&api.controller_kubeconfig(&namespace).await.unwrap())
        .await
        .unwrap();

    let secrets: Api<Secret> = Api::namespaced(client.clone(), &other);
    let metadata = ObjectMeta {
        name: Some("ca-key".into()),
        ..ObjectMeta::default()
    };
    let data = BTreeMap::from([("tls.key".to_owned(), "k".to_owned())]);
    let secret = Secret {
        metadata,
        string_data: Some(data),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    secrets.get("ca-key").await.unwrap();
    assert!(
        refused(secrets.list(&ListParams::default()).await),
        "it must not list Secrets"
    );
    assert!(
        refused(secrets.delete("ca-key", &DeleteParams::default()).await),
        "it must not delete Secrets"
    );

    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.get(&other).await.unwrap();
    assert!(
        refused(namespaces.list(&ListParams::default()).await),
        "it must not list all namespaces"
    );
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some("l".into()),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    let leases = |namespace: &str| Api::<Lease>::namespaced(client.clone(), namespace);
    leases(&namespace).create(&PostParams::default(), &lease).await.unwrap();
    assert!(
        refused(leases(&other).create(&PostParams::default(), &lease).await),
        "leases only where it lives"
    );
}

#[tokio::test]
async fn the_api_server_can_be_paused_and_killed_and_keeps_its_objects() {
    // One of its own: the other tests want theirs to answer.
    let mut api = ApiServer::start().await.unwrap();
    if api.process().is_none() {
        return; // a cluster that is not ours
    }
    let namespace = api.namespace("outage").await.unwrap();
    let get = async |client: kube::Client| -> Result<Namespace> {
        let namespaces: Api<Namespace> = Api::all(client);
        match tokio::time::timeout(Duration::from_secs(1), namespaces.get(&namespace)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => bail!("no answer"),
        }
    };
    api.pause().unwrap();
    assert!(get(api.client().await.unwrap()).await.is_err());
    api.resume().unwrap();
    let client = api.client().await.unwrap();
    wait_for("an answer after the pause", Duration::from_secs(10), || {
        get(client.clone())
    })
    .await
    .unwrap();
    api.restart().await.unwrap();
    get(api.client().await.unwrap()).await.unwrap();
}
