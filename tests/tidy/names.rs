//! Types that share a name: whoever reads one must ask which.

use std::collections::BTreeMap;

use crate::project::Project;
use crate::tokens::{Tests, Token, tokens};

/// Deliberate siblings: the same thing in each of several modules, so it has the same name, and why.
const SIBLINGS: &[(&str, usize, &str)] = &[
    ("Command", 2, "the command line of each binary"),
    ("Params", 5, "the parameters of each algorithm, and the sum over them"),
    ("State", 6, "the state of each algorithm, and the sum over them"),
];

/// Names that are still shared, with how many types have them. The numbers may only get smaller.
const STILL_SHARED: &[(&str, usize)] = &[
    ("Answer", 4),
    ("Answers", 2),
    ("Backoff", 2),
    ("By", 2),
    ("Change", 2),
    ("Client", 3),
    ("Collector", 2),
    ("Counted", 2),
    ("Counts", 2),
    ("Descriptor", 2),
    ("Entry", 2),
    ("Escaped", 3),
    ("Event", 2),
    ("Fields", 3),
    ("Hits", 2),
    ("Kind", 5),
    ("Level", 2),
    ("Line", 5),
    ("Lines", 2),
    ("Names", 3),
    ("Node", 2),
    ("Options", 4),
    ("Page", 2),
    ("Parts", 2),
    ("Plan", 2),
    ("Problem", 3),
    ("Question", 3),
    ("Reader", 2),
    ("Refusal", 2),
    ("Report", 3),
    ("Section", 2),
    ("Series", 2),
    ("Shard", 2),
    ("Source", 2),
    ("Span", 2),
    ("Stamp", 2),
    ("Status", 2),
    ("Step", 3),
    ("Summary", 2),
    ("Tally", 2),
    ("Target", 2),
    ("Template", 3),
    ("Tls", 2),
    ("TooLong", 2),
    ("Transport", 2),
    ("Value", 3),
    ("Values", 2),
    ("View", 2),
    ("Which", 2),
    ("Window", 3),
];

fn check(project: &Project, shared: &[(&str, usize)]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (path, text) in project.rust("src/").filter(|(path, _)| !path.ends_with("/tests.rs")) {
        let mut depth = 0;
        let mut after_keyword = false;
        for at in tokens(path, text, Tests::Skip) {
            match &at.token {
                Token::Open(_) => depth += 1,
                Token::Close => depth -= 1,
                Token::Ident(name) if after_keyword => places.entry(name.clone()).or_default().push(path),
                _ => {}
            }
            after_keyword = depth == 0 && matches!(at.ident(), Some("struct" | "enum" | "trait" | "type" | "union"));
        }
    }
    let mut wrong = Vec::new();
    for (name, files) in &places {
        let most = shared
            .iter()
            .find(|(known, _)| known == name)
            .map_or(1, |(_, count)| *count);
        if files.len() > most {
            wrong.push(format!(
                "`{name}` is defined in {}: give each a telling name",
                files.join(", ")
            ));
        }
    }
    for (name, count) in shared {
        let now = places.get(*name).map_or(0, Vec::len);
        if now < *count {
            wrong.push(format!(
                "`{name}` is defined {now} times, not {count}: correct the list"
            ));
        }
    }
    wrong
}

#[test]
fn a_type_has_a_name_of_its_own() {
    let siblings = SIBLINGS.iter().map(|(name, count, _)| (*name, *count));
    let shared: Vec<_> = siblings.chain(STILL_SHARED.iter().copied()).collect();
    crate::assert_none(check(&Project::read(), &shared));
}

#[test]
fn a_second_type_of_a_name_is_found() {
    let project = Project::of(&[
        (
            "src/a.rs",
            "pub struct A; impl T for A { type B = u8; } fn f() { struct C; }",
        ),
        ("src/b.rs", "enum A {} type B = u8; struct C; trait D {}"),
        (
            "src/c.rs",
            "#[cfg(test)] mod tests { struct C; } struct D<'a>(&'a u8); struct E;",
        ),
    ]);
    assert_eq!(
        check(&project, &[("D", 2), ("E", 2)]),
        [
            "`A` is defined in src/a.rs, src/b.rs: give each a telling name",
            "`E` is defined 1 times, not 2: correct the list"
        ]
    );
}
