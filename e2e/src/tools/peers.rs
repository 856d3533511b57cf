//! The Go programs that `make bench-peers` measures, built from the modules in `peers/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::go_module::{built, go_build};
use super::{find, output, progress};

/// The directory of the modules.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];
const HINT: &str = "to build what Certwave is compared to takes Go (https://go.dev/dl), which is missing";

/// The program of one of the modules.
///
/// # Errors
/// When it cannot be built, most likely for want of Go.
pub fn peer(name: &str) -> Result<PathBuf> {
    let module = Path::new(MODULES).join(name);
    // One without dependencies has no go.sum.
    let sources: Vec<_> = SOURCES
        .iter()
        .map(|file| module.join(file))
        .filter(|file| file.is_file())
        .collect();
    let directory = built(&format!("peer-{name}"), &sources, HINT, |go, into| {
        progress(&format!(
            "building {name} and what it requires, once; some minutes on 2 cores"
        ));
        go_build(go, &module, name, ".", "-s -w", into)
    })?;
    Ok(directory.join(name))
}

/// The directory of a module that one of the modules requires, in the version that it requires.
///
/// # Errors
/// When it cannot be had.
pub fn peer_source(name: &str, required: &str) -> Result<PathBuf> {
    let go = find("go").context(HINT)?;
    let mut command = Command::new(go);
    command.args(["mod", "download", "-json", required]);
    let said = output(command.current_dir(Path::new(MODULES).join(name)))?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    Ok(PathBuf::from(
        said["Dir"].as_str().context("the module has no directory")?,
    ))
}

/// The version of a module that one of the modules requires.
///
/// # Errors
/// When it does not require it.
pub fn peer_version(name: &str, required: &str) -> Result<String> {
    let file = Path::new(MODULES).join(name).join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let version =
        version(&text, required).with_context(|| format!("{} does not require {required}", file.display()))?;
    Ok(version.to_owned())
}

/// The version after the module's name, in a go.mod.
fn version<'a>(go_mod: &'a str, required: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim_start().trim_start_matches("require ");
        line.strip_prefix(required)?.strip_prefix(' ')?.split(' ').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_version_is_found_alone_and_in_a_block() {
        let text = "module a/b\n\nrequire x/y/z v9.9.9\nrequire (\n\tx/y v1.2.3\n\tv/w v0.1.0 // indirect\n)\n";
        assert_eq!(version(text, "x/y"), Some("v1.2.3"));
        assert_eq!(version(text, "x/y/z"), Some("v9.9.9"));
        assert_eq!(version(text, "v/w"), Some("v0.1.0"));
        assert_eq!(version(text, "y"), None);
    }
}
