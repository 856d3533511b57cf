//! The images that the cluster runs, built on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::tools::{self, progress};

/// Where the chart finds the project's images.
pub(super) const REPOSITORY: &str = "ghcr.io/certwave";
/// The tag of what is built here; with the other one, it is what an upgrade comes from.
pub(super) const TAG: &str = "e2e";
/// See above: the same programs under another name, as a first release has none before it.
pub(super) const TAG_BEFORE: &str = "e2e-before";

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images")
}

/// An image of the project.
pub(super) fn of(program: &str, tag: &str) -> String {
    format!("{REPOSITORY}/{program}:{tag}")
}

/// An image of the scenery: `mosquitto` or `postgres`.
pub(super) fn scenery(name: &str) -> String {
    format!("certwave-e2e/{name}:{TAG}")
}

/// Builds all of them, and returns their names.
///
/// # Errors
/// When one cannot be built.
pub(super) fn build() -> Result<Vec<String>> {
    progress("building the images: static programs take some minutes the first time");
    let said = tools::output(
        Command::new(sources().join("build"))
            .arg(TAG)
            .env("IMAGE_REPOSITORY", REPOSITORY),
    )?;
    progress(said.trim());
    tools::output(Command::new("docker").args(["tag", &of("certwave", TAG), &of("certwave", TAG_BEFORE)]))?;
    let mut images = vec![
        of("certwave", TAG),
        of("certwave", TAG_BEFORE),
        of("certwave-agent", TAG),
    ];
    for name in ["mosquitto", "postgres"] {
        let mut build = Command::new("docker");
        build.args(["build", "--quiet", "--tag", &scenery(name), "--file"]);
        build.arg(sources().join(format!("{name}.Dockerfile"))).arg(sources());
        tools::output(&mut build)?;
        images.push(scenery(name));
    }
    Ok(images)
}

/// Bytes of the image.
///
/// # Errors
/// When it is not there.
pub(super) fn size(image: &str) -> Result<u64> {
    let said = tools::output(Command::new("docker").args(["image", "inspect", "--format", "{{.Size}}", image]))?;
    Ok(said.trim().parse()?)
}
