//! Who writes of a metric writes of one that there is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use certwave_controller::metrics::Metrics;

/// A file or directory of the project.
pub(super) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The names of all series: a histogram has three.
pub(super) fn series() -> BTreeSet<String> {
    let metrics = Metrics::new().unwrap();
    let names = metrics.described().iter().flat_map(|metric| match metric.kind {
        "histogram" => ["_bucket", "_sum", "_count"]
            .iter()
            .map(|end| format!("{}{end}", metric.name))
            .collect(),
        _ => vec![metric.name.clone()],
    });
    names.collect()
}

/// Names of metrics in a text: `certwave_` and what follows, without those of crates and of names cut short by a star.
pub(super) fn mentioned(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in text.match_indices("certwave_") {
        let rest = &text[start..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let before = text[..start].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '/') && !rest[end..].starts_with('*') {
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

/// The Markdown files below `docs/`.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_documents_name_only_metrics_that_exist() {
    let mut known = series();
    known.extend(
        Metrics::new()
            .unwrap()
            .described()
            .iter()
            .map(|metric| metric.name.clone()),
    );
    for page in pages(&project("docs")) {
        let text = std::fs::read_to_string(&page).unwrap();
        // A database may have such a name, too; metrics are set as code.
        let unknown: Vec<_> = mentioned(&text)
            .into_iter()
            .filter(|name| !known.contains(name) && text.contains(&format!("`{name}")))
            .collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", page.display());
    }
}

#[test]
fn names_are_found_in_expressions_and_prose() {
    let text = "max(certwave_leader) and `certwave_crl_*` of certwave_e2e::x, path/certwave_y: sum(rate(certwave_a_total[5m]))";
    let expected = ["certwave_a_total", "certwave_e2e", "certwave_leader"];
    assert_eq!(mentioned(text), expected.map(str::to_owned).into());
}
