//! The chart's README: a table of its values, from the comments in `values.yaml`.

use std::fmt::Write as _;

use anyhow::{Result, bail};

const HEAD: &str = "\
# Certwave's chart

<!-- Made from values.yaml by `make chart`; do not edit. -->

Installs Certwave's controller and, where asked for, OCSP responders and a Mosquitto with its companion. How to install, upgrade
and uninstall: [docs/install.md](../../docs/install.md).

```
helm install certwave charts/certwave --namespace certwave-system --create-namespace
```

| value | default | means |
|---|---|---|
";
/// What begins a description.
const MARK: &str = "# -- ";

/// A key of `values.yaml` that others may be below.
struct Parent {
    indent: usize,
    path: String,
    /// Its own description, for children that have none.
    description: String,
}

/// The README for this `values.yaml`.
///
/// # Errors
/// When a value has no description.
pub(super) fn of(values: &str) -> Result<String> {
    let mut text = HEAD.to_owned();
    for (path, default, description) in rows(values)? {
        let description = description.replace('|', "\\|");
        let _ = writeln!(text, "| `{path}` | `{default}` | {description} |");
    }
    Ok(text)
}

/// Path, default and description of each value. It reads the YAML that `values.yaml` is written in: maps in block style, all else
/// on one line.
fn rows(values: &str) -> Result<Vec<(String, String, String)>> {
    let mut parents: Vec<Parent> = Vec::new();
    let mut rows = Vec::new();
    let mut description = String::new();
    for line in values.lines() {
        let content = line.trim_start();
        if let Some(text) = content.strip_prefix(MARK) {
            text.clone_into(&mut description);
            continue;
        }
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let Some((key, default)) = content.split_once(':') else {
            bail!("values.yaml: not a key: {line}");
        };
        let (indent, default) = (line.len() - content.len(), default.trim());
        while parents.last().is_some_and(|parent| parent.indent >= indent) {
            parents.pop();
        }
        let path = match parents.last() {
            Some(parent) => format!("{}.{key}", parent.path),
            None => key.to_owned(),
        };
        let own = std::mem::take(&mut description);
        if default.is_empty() {
            parents.push(Parent {
                indent,
                path,
                description: own,
            });
            continue;
        }
        let inherited = || {
            parents
                .last()
                .map(|parent| parent.description.clone())
                .unwrap_or_default()
        };
        let description = if own.is_empty() { inherited() } else { own };
        if description.is_empty() {
            bail!("values.yaml: {path} has no description: put a line that begins with `{MARK}` before it");
        }
        rows.push((path, default.to_owned(), description));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_value_has_a_row_with_its_path() {
        let text = "# no description\n# -- How many.\nreplicas: 1\na:\n  # -- Deep.\n  b: {c: 1}\n  # -- Of both.\n  d:\n    e: \"\"\n    f: x\ng:\n  # -- Last.\n  h: []\n";
        let found = rows(text).unwrap();
        let paths: Vec<_> = found.iter().map(|(path, _, _)| path.as_str()).collect();
        assert_eq!(paths, ["replicas", "a.b", "a.d.e", "a.d.f", "g.h"]);
        assert_eq!(found[1].1, "{c: 1}");
        assert_eq!((found[2].2.as_str(), found[3].2.as_str()), ("Of both.", "Of both."));
    }

    #[test]
    fn a_value_without_description_is_an_error_that_names_it() {
        let error = rows("a:\n  b: 1\n").unwrap_err().to_string();
        assert!(error.contains("a.b"), "{error}");
    }
}
