//! Crates that `Cargo.toml` brings and no code names.

use std::collections::BTreeSet;

use crate::project::Project;
use crate::tokens::{Kind, Tests, mentions, tokens};

/// Crates that no code of ours names, each with the reason why it is there.
const UNNAMED: &[(&str, &str)] = &[];

fn check(project: &Project, unnamed: &[(&str, &str)]) -> Vec<String> {
    let named = |folders: &[&str]| -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (path, text) in folders.iter().flat_map(|folder| project.rust(folder)) {
            let tokens = tokens(path, text, Tests::Keep);
            // A name alone may be a variable, unless it is imported.
            let mentions = mentions(&tokens).into_iter();
            let paths = mentions.filter(|mention| mention.segments.len() > 1 || mention.kind != Kind::Plain);
            names.extend(paths.filter_map(|mention| mention.segments.first().cloned()));
            let externs = tokens
                .windows(3)
                .filter_map(|three| match [0, 1, 2].map(|at| three[at].ident()) {
                    [Some("extern"), Some("crate"), Some(name)] => Some(name.to_owned()),
                    _ => None,
                });
            names.extend(externs);
        }
        names
    };
    let sections = [
        ("[dependencies]", named(&["src/"])),
        ("[dev-dependencies]", named(&["src/", "tests/", "benches/"])),
        ("[build-dependencies]", named(&["build.rs"])),
    ];
    let mut wrong = Vec::new();
    let mut section = None;
    for line in project.files["Cargo.toml"].lines() {
        if line.starts_with('[') {
            section = sections.iter().find(|(name, _)| *name == line).map(|(_, named)| named);
            continue;
        }
        let (Some(named), Some((name, _))) = (section, line.split_once(" = ")) else {
            continue;
        };
        let (is_named, is_listed) = (
            named.contains(&name.replace('-', "_")),
            unnamed.iter().any(|(known, _)| *known == name),
        );
        if is_named == is_listed {
            let cure = if is_named { "take it off the list" } else { "remove it" };
            wrong.push(format!(
                "Cargo.toml: `{name}` is {}named by the code: {cure}",
                if is_named { "" } else { "not " }
            ));
        }
    }
    wrong
}

#[test]
fn every_dependency_is_named_by_the_code() {
    crate::assert_none(check(&Project::read(), UNNAMED));
}

#[test]
fn an_unused_dependency_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\n# why\na-b = \"1\"\nc = { version = \"1\" }\nd = \"1\"\n\
                    [dev-dependencies]\nc = \"1\"\ne-f = \"1\"\n[build-dependencies]\nd = \"1\"\n";
    let project = Project::of(&[
        ("Cargo.toml", manifest),
        ("src/a.rs", "use a_b::X; fn f(c: u8) {} // c::Y"),
        ("tests/a.rs", "extern crate e_f as g; fn f() { c::z!() }"),
        ("build.rs", "fn main() { d::run() }"),
    ]);
    assert_eq!(
        check(&project, &[("a-b", "no reason")]),
        [
            "Cargo.toml: `a-b` is named by the code: take it off the list",
            "Cargo.toml: `c` is not named by the code: remove it",
            "Cargo.toml: `d` is not named by the code: remove it",
        ]
    );
}
