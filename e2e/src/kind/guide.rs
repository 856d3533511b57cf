//! `docs/getting-started.md`, done as it is written: each block of shell one after the other, each file saved under the name that the text
//! gives it.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::api::kind;
use crate::programs;
use crate::scratch::Scratch;
use crate::screen::Screen;

const PAGE: &str = include_str!("../../../docs/getting-started.md");
/// How the page names its cluster. Whoever follows it on this machine may have that one.
const NAMED: &str = "--name certwave ";
/// What it needs of the top directory. All else there is out of its reach: whoever follows the page may have its files there.
const NEEDED: [&str; 3] = ["Makefile", "charts", "e2e"];
/// The plugin and `certwave` are those of the images: the page installs them from the same sources, which takes minutes.
const INSTALLED: [&str; 2] = ["cargo install --locked --path cli", "export PATH="];

/// Does it all.
///
/// # Errors
/// When a command fails; with what was said until then.
pub(super) fn follow(screen: &mut Screen) -> Result<()> {
    let start = Instant::now();
    screen.say("the page docs/getting-started.md, as it is written");
    let scratch = Scratch::new("guide")?;
    let directory = checkout(scratch.path())?;
    let cluster = format!("certwave-guide-{}", std::process::id());
    let _end = kind::delete_at_end(&cluster)?;
    let node = std::env::var("KIND_NODE_IMAGE").ok();
    let script = script(PAGE, &cluster, node.as_deref().filter(|node| !node.is_empty()))?;
    let programs = programs::in_image("kubectl-certwave")?;
    let programs = programs.parent().context("a program without a directory")?;
    let path = std::env::var("PATH")?;
    let log = scratch.path().join("log");
    let output = std::fs::File::create(&log)?;
    let status = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("KUBECONFIG", scratch.path().join("kubeconfig"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()?;
    let said = std::fs::read_to_string(&log)?;
    let lines: Vec<_> = said.lines().collect();
    ensure!(
        status.success(),
        "docs/getting-started.md does not work as it is written:\n{}",
        lines[lines.len().saturating_sub(60)..].join("\n")
    );
    // What the page promises to be seen.
    for promised in ["rotation.certwave.dev/first condition met", ": revoked"] {
        ensure!(said.contains(promised), "nothing said {promised:?}:\n{said}");
    }
    screen.say(&format!("getting started: PASS seconds={}", start.elapsed().as_secs()));
    Ok(())
}

/// A directory that has of the checkout, by links, what the page needs, and takes the files that it has one save.
fn checkout(scratch: &Path) -> Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let directory = scratch.join("checkout");
    std::fs::create_dir(&directory)?;
    for name in NEEDED {
        symlink(project.join(name), directory.join(name))?;
    }
    Ok(directory)
}

/// The page as a shell script that ends with the first command that fails.
fn script(page: &str, cluster: &str, node: Option<&str>) -> Result<String> {
    let mut script = "set -euxo pipefail\n".to_owned();
    let (mut files, mut parts) = (0, page.split("```"));
    let mut before = parts.next().unwrap_or_default();
    while let Some(block) = parts.next() {
        let after = parts.next().context("a block without an end")?;
        let (language, text) = block.split_once('\n').context("a block without a line")?;
        match language {
            "yaml" => {
                let name = saved_as(before)
                    .or_else(|| saved_as(after))
                    .context("a file without a name")?;
                writeln!(script, "cat > {name} <<'END_OF_FILE'\n{text}END_OF_FILE")?;
                files += 1;
            }
            "sh" => {
                for line in text
                    .lines()
                    .filter(|line| INSTALLED.iter().all(|start| !line.starts_with(start)))
                {
                    script.push_str(&here(line, cluster, node));
                    script.push('\n');
                }
            }
            other => anyhow::bail!("a block of {other:?}"),
        }
        before = after;
    }
    ensure!(files == 2, "{files} files are saved");
    Ok(script)
}

/// The name in "Save this as `NAME`", over the end of a line, too.
fn saved_as(text: &str) -> Option<String> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, rest) = words.split_once("ave this as `")?;
    Some(rest.split('`').next()?.to_owned())
}

/// A line with the cluster's name here, and the node's image, where this machine has one of its own.
fn here(line: &str, cluster: &str, node: Option<&str>) -> String {
    let line = format!("{line} ").replace(NAMED, &format!("--name {cluster} "));
    let line = line.strip_suffix(' ').unwrap_or(&line).to_owned();
    match (line.strip_prefix("kind create cluster "), node) {
        (Some(rest), Some(node)) => format!("kind create cluster --image {node} {rest}"),
        _ => line,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_becomes_a_script_that_bash_can_read() {
        let script = script(PAGE, "mine", Some("kindest/node:test")).unwrap();
        for wanted in [
            "kind create cluster --image kindest/node:test --name mine --wait 2m",
            "cat > foundation.yaml <<'END_OF_FILE'\napiVersion: certwave.dev/v1alpha1",
            "cat > devices.yaml <<'END_OF_FILE'\napiVersion: apps/v1",
            "kubectl certwave rotate meters --name first --yes",
            "kind load docker-image --name mine certwave/certwave:dev",
            "kind delete cluster --name mine",
        ] {
            assert!(script.contains(wanted), "{wanted}:\n{script}");
        }
        assert!(!script.contains("cargo install"));
        let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    }
}
