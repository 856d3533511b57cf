//! The manifest by which krew installs the plugin, from the archives of a release.

use serde_json::{Value, json};

/// Where releases are.
const RELEASES: &str = "https://github.com/certwave/certwave/releases/download";
/// Operating system and architecture, as krew calls them, of each archive `kubectl-certwave-<os>-<arch>.tar.gz`.
pub const PLATFORMS: [(&str, &str); 4] = [
    ("linux", "amd64"),
    ("linux", "arm64"),
    ("darwin", "amd64"),
    ("darwin", "arm64"),
];

/// The archive's name.
pub fn archive(os: &str, arch: &str) -> String {
    format!("kubectl-certwave-{os}-{arch}.tar.gz")
}

/// The manifest of a release (`version` without the `v`), from the SHA-256 of each archive, as lower-case hexadecimal digits.
/// Platforms without an archive are left out.
pub fn manifest(version: &str, sha256: impl Fn(&str) -> Option<String>) -> Value {
    let platform = |(os, arch): (&str, &str)| {
        let archive = archive(os, arch);
        Some(json!({
            "selector": { "matchLabels": { "os": os, "arch": arch } },
            "uri": format!("{RELEASES}/v{version}/{archive}"),
            "sha256": sha256(&archive)?,
            "bin": "kubectl-certwave",
            "files": [{ "from": "kubectl-certwave", "to": "." }, { "from": "LICENSE", "to": "." }],
        }))
    };
    json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": { "name": "certwave" },
        "spec": {
            "version": format!("v{version}"),
            "homepage": "https://github.com/certwave/certwave",
            "shortDescription": "Rotate and revoke certificates of device fleets",
            "description": "Shows fleets of devices and their certificates, follows rotations live, rotates, approves, revokes, \
                tells a device's whole history, and finds out what is wrong. Needs Certwave in the cluster.\n",
            "caveats": "For completion put a script called kubectl_complete-certwave on the PATH:\n  #!/bin/sh\n  exec kubectl certwave __complete \"$@\"\n",
            "platforms": PLATFORMS.into_iter().filter_map(platform).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_without_an_archive_is_left_out() {
        let made = manifest("0.1.0", |archive| archive.contains("linux").then(|| "ab".repeat(32)));
        let platforms = made["spec"]["platforms"].as_array().map_or(0, Vec::len);
        assert_eq!(platforms, 2);
        let first = &made["spec"]["platforms"][0];
        assert_eq!(
            first["uri"],
            format!("{RELEASES}/v0.1.0/kubectl-certwave-linux-amd64.tar.gz")
        );
        // What krew's index checks: a version with a v, and a short description without a full stop, of 50 characters at most.
        assert_eq!(made["spec"]["version"], "v0.1.0");
        let short = made["spec"]["shortDescription"].as_str().unwrap_or_default();
        assert!(short.len() <= 50 && !short.ends_with('.'), "{short}");
    }
}
