//! Paths that documents and comments name, in backticks or as links.

use std::collections::BTreeSet;

use crate::project::Project;

/// Documents that are about the project as it is. The changelog names what was.
fn documents(project: &Project) -> impl Iterator<Item = (&str, &str)> {
    let all = project.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    all.filter(|(path, _)| {
        path.ends_with(".md") && *path != "CHANGELOG.md" || path.starts_with("src/") && path.ends_with(".rs")
    })
}

fn check(project: &Project) -> Vec<String> {
    let mut known: BTreeSet<&str> = project.files.keys().map(String::as_str).collect();
    // Folders, too.
    let folders: Vec<&str> = known
        .iter()
        .flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at]))
        .collect();
    known.extend(folders);
    let exists = |document: &str, path: &str| {
        let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = path.trim_end_matches('/');
        let suffix = format!("/{path}");
        known.contains(path)
            || known.contains(join(folder, path).as_str())
            || known
                .iter()
                .any(|known| known.starts_with("src/") && known.ends_with(&suffix))
            || !path.contains('/') && known.iter().any(|known| known.ends_with(&suffix))
    };
    let mut wrong = Vec::new();
    for (document, text) in documents(project) {
        let is_code = document.ends_with(".rs");
        for (number, line) in text.lines().enumerate() {
            let line = if is_code {
                match line.trim_start() {
                    comment if comment.starts_with("//") => comment,
                    _ => continue,
                }
            } else {
                line
            };
            let quoted = line.split('`').skip(1).step_by(2).filter(|text| is_path(text, &known));
            let links = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
            let links = links.filter_map(|rest| rest.split([')', '#', ' ']).next());
            let links = links.filter(|link| !is_code && !link.is_empty() && !link.contains(':'));
            for path in quoted.chain(links).filter(|path| !exists(document, path)) {
                wrong.push(format!("{document}:{}: there is no `{path}`", number + 1));
            }
        }
    }
    wrong
}

/// Whether a quoted text is a path of this project: a source file, or something in one of its folders.
fn is_path(text: &str, known: &BTreeSet<&str>) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if text.is_empty() || !text.chars().all(plain) || text.starts_with(['/', '.', '-']) {
        return false;
    }
    let is_source = [".rs", ".lua", ".py", ".proto"]
        .iter()
        .any(|end| text.len() > end.len() && text.ends_with(end));
    let first = text.split_once('/').map(|(first, _)| first);
    let in_root = first.is_some_and(|first| known.contains(first));
    let in_src = first.is_some_and(|first| known.contains(format!("src/{first}").as_str()));
    is_source || in_root || in_src && text.chars().all(|c| c.is_ascii_lowercase() || "_/".contains(c))
}

/// A relative path from a folder.
fn join(folder: &str, path: &str) -> String {
    let mut segments: Vec<&str> = folder.split('/').filter(|segment| !segment.is_empty()).collect();
    for segment in path.split('/') {
        match segment {
            ".." => {
                segments.pop();
            }
            "." => {}
            other => segments.push(other),
        }
    }
    segments.join("/")
}

#[test]
fn paths_in_documents_and_comments_lead_somewhere() {
    crate::assert_none(check(&Project::read()));
}

#[test]
fn a_dead_path_is_found() {
    let project = Project::of(&[
        (
            "README.md",
            "See [a](docs/a.md#x), [b](docs/b.md), `store/x.rs`, `y.rs`, `/etc/z.rs`, `grpc/json`, `src/c/`.\n",
        ),
        (
            "docs/a.md",
            "Back to [it](../README.md).\n\n`x.rs`, `store/y`, https://a.b/c.rs\n",
        ),
        ("src/store/x.rs", "//! `docs/c.md`\nlet a = \"`docs/d.md`\";\n"),
    ]);
    assert_eq!(
        check(&project),
        [
            "README.md:1: there is no `y.rs`",
            "README.md:1: there is no `src/c/`",
            "README.md:1: there is no `docs/b.md`",
            "docs/a.md:3: there is no `store/y`",
            "src/store/x.rs:1: there is no `docs/c.md`",
        ]
    );
}
