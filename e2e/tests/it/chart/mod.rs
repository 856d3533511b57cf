//! The Helm chart.

mod found;
mod people;
mod refused;

use std::fs;
use std::path::Path;
use std::process::Command;

use certwave_e2e::api::ApiServer;
use certwave_e2e::chart::{CASES, GENERATE_COMMAND, NAMESPACE, directory, generated, template, values};
use certwave_e2e::tools;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::shared;

#[test]
fn what_is_made_from_the_chart_is_current() {
    for (path, text) in generated().unwrap() {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{} is stale: run `{GENERATE_COMMAND}` and look at what changed",
            path.display()
        );
    }
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    for case in CASES {
        let mut lint = Command::new(tools::helm().unwrap());
        lint.args(["lint", "--strict"]).arg(directory());
        tools::output(lint.arg("--values").arg(values(case))).unwrap();
    }
}

#[test]
fn a_package_holds_the_crds_of_the_project() {
    let scratch = tempfile::tempdir().unwrap();
    let mut package = Command::new(tools::helm().unwrap());
    package.arg("package").arg(directory());
    tools::output(package.arg("--destination").arg(scratch.path())).unwrap();
    let archive = fs::read_dir(scratch.path()).unwrap().next().unwrap().unwrap().path();
    tools::output(
        Command::new("tar")
            .arg("-C")
            .arg(scratch.path())
            .arg("-xzf")
            .arg(archive),
    )
    .unwrap();

    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = scratch.path().join("certwave/files");
    for (from, ending) in [("crds", "yaml")] {
        let mut found = 0;
        for entry in fs::read_dir(project.join(from)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == ending) {
                let packed = fs::read(files.join(from).join(path.file_name().unwrap()));
                assert!(
                    packed.is_ok_and(|packed| packed == fs::read(&path).unwrap()),
                    "{}",
                    path.display()
                );
                found += 1;
            }
        }
        assert!(found > 0, "no {from}");
    }
}

#[test]
fn the_dockerfile_is_given_every_part_of_the_workspace() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| fs::read_to_string(project.join(name)).unwrap();
    let (manifest, ignore) = (read("Cargo.toml"), read(".dockerignore"));
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .unwrap();
    let members: Vec<String> = serde_json::from_str(members).unwrap();
    assert!(members.len() > 5, "{members:?}");
    for member in members {
        let top = member.split('/').next().unwrap();
        assert!(
            ignore.lines().any(|line| line == format!("!{top}")),
            "{member}: cargo would miss it"
        );
    }
}

/// Kinds and names of the objects that a release has outside of its namespace.
fn cluster_wide(release: &str, set: &[&str]) -> Vec<String> {
    let mut helm = Command::new(tools::helm().unwrap());
    helm.args(["template", release]).arg(directory());
    helm.args(["--namespace", release]);
    helm.args(set.iter().flat_map(|set| ["--set", *set]));
    let rendered = tools::output(&mut helm).unwrap();
    let field = |object: &str, field: &str| {
        let line = object.lines().find_map(|line| line.strip_prefix(field));
        line.map(str::to_owned)
    };
    let objects = rendered
        .split("\n---")
        .filter(|object| field(object, "kind: ").is_some());
    let wide = objects.filter(|object| field(object, "  namespace: ").is_none());
    wide.map(|object| {
        [field(object, "kind: "), field(object, "  name: ")]
            .map(Option::unwrap)
            .join(" ")
    })
    .collect()
}

#[test]
fn two_releases_in_one_cluster_share_no_object() {
    // As docs/install.md says.
    let second = ["crds.enabled=false", "people.enabled=false", "watchNamespace=south"];
    let (one, other) = (cluster_wide("north", &[]), cluster_wide("south", &second));
    assert!(one.iter().any(|name| name.starts_with("ClusterRole ")), "{one:?}");
    let shared: Vec<_> = one.iter().filter(|name| other.contains(name)).collect();
    assert!(shared.is_empty(), "{shared:?}");
    let none = cluster_wide("south", &[second.as_slice(), &["flowSchema.enabled=false"]].concat());
    assert!(none.is_empty(), "rights in one namespace suffice: {none:?}");
}

#[tokio::test]
async fn an_api_server_takes_every_object_without_a_warning() {
    is_taken(&*shared::api().await).await;
}

/// The real schemas, and restricted pod security, speak.
pub(crate) async fn is_taken(api: &ApiServer) {
    let crds = tools::prometheus_operator_crds().unwrap();
    for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
        let file = crds.join(format!("monitoring.coreos.com_{kind}.yaml"));
        let mut apply = api.kubectl_command();
        tools::output(apply.args(["apply", "--server-side", "-f"]).arg(&file)).unwrap();
        let mut wait = api.kubectl_command();
        wait.args(["wait", "--for=condition=Established", "--timeout=60s", "-f"]);
        tools::output(wait.arg(&file)).unwrap();
    }
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(api.client().await.unwrap());
    for name in [NAMESPACE, "meters"] {
        let labels = ["enforce", "warn"].map(|mode| {
            let key = format!("pod-security.kubernetes.io/{mode}");
            (key, "restricted".to_owned())
        });
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        };
        let namespace = k8s_openapi::api::core::v1::Namespace {
            metadata,
            ..k8s_openapi::api::core::v1::Namespace::default()
        };
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }
    let scratch = tempfile::tempdir().unwrap();
    for case in CASES {
        let rendered = tools::output(template().unwrap().arg("--values").arg(values(case))).unwrap();
        let file = scratch.path().join(case);
        fs::write(&file, rendered).unwrap();
        let mut apply = api.kubectl_command();
        apply.args([
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--force-conflicts",
            "-f",
        ]);
        let output = apply.arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{case}: {said}");
    }
}
