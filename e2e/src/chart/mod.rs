//! The Helm chart: rendered as Helm does it, and the files that are made from it.

mod readme;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::tools;

/// The command that writes anew what is made from the chart.
pub const GENERATE_COMMAND: &str = "make chart";
/// The ways to install the chart of which snapshots are kept: `e2e/chart/<name>.values.yaml` and `<name>.snapshot.yaml`.
pub const CASES: [&str; 3] = ["default", "full", "namespaced"];
/// The namespace that they are rendered for.
pub const NAMESPACE: &str = "certwave-system";
/// The release's name.
pub const RELEASE: &str = "certwave";
/// The name of a release that may work in one namespace alone.
const CONFINED: &str = "confined";

/// The chart's directory.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/certwave")
}

/// The file with the values of a case.
pub fn values(case: &str) -> PathBuf {
    cases().join(format!("{case}.values.yaml"))
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("chart")
}

/// `helm template` for the release, to add arguments to.
///
/// # Errors
/// When Helm cannot be had.
pub fn template() -> Result<Command> {
    helm_template(RELEASE)
}

fn helm_template(release: &str) -> Result<Command> {
    let mut command = Command::new(tools::helm()?);
    command.args(["template", release]).arg(directory());
    command.args(["--namespace", NAMESPACE]);
    Ok(command)
}

/// What Helm makes of a case, without the CRDs and the dashboards, which are files of their own.
///
/// # Errors
/// When Helm refuses it.
pub fn render(case: &str) -> Result<String> {
    let mut command = template()?;
    command.arg("--values").arg(values(case));
    command.args(["--set", "crds.enabled=false,metrics.dashboards.enabled=false"]);
    tools::output(&mut command)
}

/// Path and content of every file that is made from the chart: its README, the snapshots, and what the controller of the end-to-end
/// tests may do.
///
/// # Errors
/// When Helm refuses the chart, or a value has no description.
pub fn generated() -> Result<Vec<(PathBuf, String)>> {
    let values = fs::read_to_string(directory().join("values.yaml")).context("read values.yaml")?;
    let mut files = vec![(directory().join("README.md"), readme::of(&values)?)];
    for case in CASES {
        files.push((cases().join(format!("{case}.snapshot.yaml")), render(case)?));
    }
    let wide = permissions(&mut template()?)?;
    files.push((Path::new(env!("CARGO_MANIFEST_DIR")).join("rbac.yaml"), wide));
    let mut confined = helm_template(CONFINED)?;
    confined.args(["--set", &format!("watchNamespace={NAMESPACE}")]);
    let confined = permissions(&mut confined)?;
    ensure!(
        !confined.contains("kind: ClusterRole"),
        "a confined release asks for the whole cluster"
    );
    files.push((
        Path::new(env!("CARGO_MANIFEST_DIR")).join("rbac-confined.yaml"),
        confined,
    ));
    Ok(files)
}

/// The controller's account and permissions as this renders them.
fn permissions(template: &mut Command) -> Result<String> {
    for file in ["serviceaccount", "rbac"] {
        template.args(["--show-only", &format!("templates/{file}.yaml")]);
    }
    let rbac = tools::output(template)?;
    ensure!(rbac.contains(NAMESPACE), "the permissions name no namespace");
    Ok(format!(
        "# Rendered from the chart by `{GENERATE_COMMAND}`; do not edit.\n{rbac}"
    ))
}
