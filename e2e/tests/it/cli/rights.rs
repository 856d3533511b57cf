//! People with few rights, and with none.

use certwave_e2e::stack::Stack;
use certwave_e2e::stack::objects::{self, ONE_AT_A_TIME};

use super::plugin::Plugin;
use crate::shared;

const VIEWER: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: viewer}
rules:
  - {apiGroups: [certwave.dev], resources: [fleets, rotations, brokers, certificateauthorities, devicecertificates, revocations], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}
subjects: [{kind: ServiceAccount, name: viewer}]
";

#[tokio::test]
async fn who_may_not_is_told_so_and_nothing_changes() {
    let stack = Stack::on(shared::api().await, "cli-rights").await.unwrap();
    stack.apply_foundation(&ONE_AT_A_TIME).unwrap();
    stack
        .api
        .apply(&objects::device(stack.namespace(), "m-1").to_string())
        .unwrap();
    stack.rotate("run").unwrap();

    let nobody = stack.api.account_kubeconfig(stack.namespace(), "nobody").await.unwrap();
    let nobody = Plugin::by(&stack, &nobody);
    for arguments in [
        &["status"][..],
        &["watch", "--once"],
        &["preview", "meters"],
        &["rotate", "meters", "--yes"],
        &["approve", "run", "--yes"],
        &["pause", "run"],
        &["resume", "run"],
        &["abort", "run", "--yes"],
        &["retry", "run"],
        &["rollback", "run"],
        &["revoke", "m-1", "--yes"],
        &["hold", "m-1"],
        &["release", "m-1"],
        &["inspect", "m-1"],
        &["expiring"],
        &["export"],
    ] {
        let said = nobody.fails(4, arguments);
        assert!(
            said.contains("nobody") && said.contains("cannot"),
            "{arguments:?}: {said}"
        );
    }
    // The doctor works for everybody, and says what is missing.
    let checkup = nobody.try_run(&["doctor"]);
    assert_eq!(checkup.code, 7, "{checkup:?}");
    assert!(
        checkup.out.contains("you may not") && checkup.out.contains("ClusterRoles"),
        "{}",
        checkup.out
    );

    // Who may look looks, and may do no more.
    let viewer = stack.api.account_kubeconfig(stack.namespace(), "viewer").await.unwrap();
    stack
        .api
        .apply(
            &VIEWER
                .replace(
                    "metadata: {name",
                    &format!("metadata: {{namespace: {}, name", stack.namespace()),
                )
                .replace(
                    "name: viewer}]",
                    &format!("name: viewer, namespace: {}}}]", stack.namespace()),
                ),
        )
        .unwrap();
    let viewer = Plugin::by(&stack, &viewer);
    assert!(viewer.run(&["status"]).contains("meters"));
    assert!(viewer.run(&["expiring", "--within", "400d"]).contains("nothing ends"));
    for arguments in [
        &["pause", "run"][..],
        &["abort", "run", "--yes"],
        &["rotate", "meters", "--yes"],
        &["revoke", "m-1", "--yes"],
        &["hold", "m-1"],
    ] {
        assert!(viewer.fails(4, arguments).contains("cannot"), "{arguments:?}");
    }
    let rotation = stack.rotation("run").await.unwrap();
    assert_eq!(rotation.spec.control, certwave_crds::RotationControl::default());
    assert!(stack.devices().await.unwrap()[0].spec.revocation.is_none());
}
