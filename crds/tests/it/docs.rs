//! The documentation: links lead somewhere, objects in it are what the types know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use certwave_crds::{GROUP, VERSION};
use serde_json::Value;

use super::{here, known};

/// The repository.
fn root() -> PathBuf {
    here().parent().unwrap().to_owned()
}

/// README.md and all pages below docs.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::from([(root().join("README.md"), String::new())]);
    let mut directories = vec![root().join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.insert(path, String::new());
            }
        }
    }
    for (path, text) in &mut pages {
        *text = fs::read_to_string(path).unwrap();
    }
    pages
}

/// A block of code: its first line's number, language and text.
type Block<'a> = (usize, &'a str, String);

/// The lines of a page that are no code, numbered, and its blocks of code.
fn parts(text: &str) -> (Vec<(usize, &str)>, Vec<Block<'_>>) {
    let (mut lines, mut blocks) = (Vec::new(), Vec::new());
    let mut open: Option<(usize, &str, &str, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let indented = line.trim_start();
        open = match open.take() {
            Some((from, fence, language, block)) if indented.trim_end() == fence => {
                blocks.push((from, language, block));
                None
            }
            Some((from, fence, language, block)) => Some((from, fence, language, format!("{block}{line}\n"))),
            None if indented.starts_with("```") => {
                Some((number, "```", indented.trim_start_matches('`').trim(), String::new()))
            }
            None => {
                lines.push((number, line));
                None
            }
        };
    }
    assert!(open.is_none(), "a block of code that does not end: {open:?}");
    (lines, blocks)
}

/// The line without its code.
fn prose(line: &str) -> String {
    let parts = line.split('`').enumerate();
    parts
        .filter(|(number, _)| number % 2 == 0)
        .map(|(_, part)| part)
        .collect()
}

/// What links and pictures of a line lead to.
fn targets(line: &str) -> Vec<String> {
    let line = prose(line);
    let after = line.split("](").skip(1);
    let targets = after
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned());
    targets.collect()
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let headings = parts(text).0.into_iter().filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        let is_one = (1..=6).contains(&(line.len() - heading.len())) && heading.starts_with(' ');
        is_one.then(|| heading.trim())
    });
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let times = seen.entry(anchor.clone()).or_default();
        *times += 1;
        if *times == 1 {
            anchor
        } else {
            format!("{anchor}-{}", *times - 1)
        }
    };
    headings.map(anchor).collect()
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The file or directory that a link of a page leads to, and the anchor in it; `None` where it leads out of the repository.
fn destination(page: &Path, target: &str) -> Option<(PathBuf, Option<String>)> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor.to_owned())),
        None => (target, None),
    };
    let path = if file.is_empty() {
        page.to_owned()
    } else {
        plain(&page.parent().unwrap().join(file))
    };
    Some((path, anchor))
}

#[test]
fn every_link_leads_to_something() {
    let (pages, mut broken, mut seen) = (pages(), Vec::new(), 0);
    for (page, text) in &pages {
        let prose = parts(text).0;
        let links = prose
            .iter()
            .flat_map(|(number, line)| targets(line).into_iter().map(move |target| (number, target)));
        for (number, target) in links {
            let Some((path, anchor)) = destination(page, &target) else {
                continue;
            };
            seen += 1;
            let fault = match (path.exists(), anchor) {
                (false, _) => "is not there",
                (true, Some(anchor)) => match fs::read_to_string(&path) {
                    Ok(text) if anchors(&text).contains(&anchor) => continue,
                    _ => "has no such heading",
                },
                (true, None) => continue,
            };
            broken.push(format!("{}:{number}: {target} {fault}", page.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(seen > 100, "only {seen} links were found");
}

#[test]
fn the_index_names_every_page() {
    let index = root().join("docs/README.md");
    let pages = pages();
    let lines = parts(&pages[&index]).0;
    let named: BTreeSet<_> = lines
        .iter()
        .flat_map(|(_, line)| targets(line))
        .filter_map(|target| destination(&index, &target))
        .map(|(path, _)| path)
        .collect();
    let missing: Vec<_> = pages
        .keys()
        .filter(|page| page.starts_with(root().join("docs")) && **page != index)
        // A directory that is named stands for the pages in it.
        .filter(|page| !named.contains(*page) && !named.contains(page.parent().unwrap()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_object_in_the_documentation_is_one_that_the_types_know() {
    let (api_version, mut seen) = (format!("{GROUP}/{VERSION}"), 0);
    for (page, text) in pages() {
        for (number, _, block) in parts(&text)
            .1
            .into_iter()
            .filter(|(_, language, _)| *language == "yaml")
        {
            let at = page.with_file_name(format!("{}:{number}", page.file_name().unwrap().display()));
            let objects: Vec<Value> =
                serde_saphyr::from_multiple(&block).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
            for object in objects.iter().filter(|object| object["apiVersion"] == api_version) {
                known(&at, object);
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "only {seen} objects were found");
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let page = "# Rules, and `code`\n```sh\n# no heading\n```\n## After a breach, at three in the morning\n## Same\n## Same\n#none\n";
    let expected = [
        "rules-and-code",
        "after-a-breach-at-three-in-the-morning",
        "same",
        "same-1",
    ];
    assert_eq!(anchors(page), expected.map(str::to_owned).into());
    assert_eq!(
        targets("see [a](b.md#c) and `[x](y)`, ![p](q.svg)"),
        ["b.md#c", "q.svg"]
    );
    assert_eq!(
        destination(Path::new("/r/docs/a.md"), "../b#c"),
        Some(("/r/b".into(), Some("c".into())))
    );
}
