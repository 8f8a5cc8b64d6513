//! Circles: files of which each needs the other, so that none can be read, tested or changed by itself. A re-export is
//! no need: it only gives a name of a file inside a second place.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{Module, Modules, shown};
use crate::project::Project;

/// Circles that are what the code is about, each with the reason.
const MEANT: &[(&str, &str)] = &[(
    "algorithms -> algorithms::held::step -> algorithms",
    "holds stand beside any other algorithm, and are one of the sum",
)];

fn check(project: &Project, meant: &[(&str, &str)]) -> Vec<String> {
    let mut needs: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for need in Modules::of(project).needs() {
        if !need.is_reexport {
            needs.entry(need.from).or_default().insert(need.to);
        }
    }
    let mut found = BTreeSet::new();
    for from in needs.keys() {
        if let Some(mut way) = way_back(&needs, from) {
            // Each circle once, from its first file on.
            let first = way
                .iter()
                .enumerate()
                .min_by_key(|(_, module)| *module)
                .map_or(0, |(at, _)| at);
            way.rotate_left(first);
            way.push(way[0].clone());
            found.insert(way.iter().map(shown).collect::<Vec<_>>().join(" -> "));
        }
    }
    let gone = meant.iter().filter(|(circle, _)| !found.contains(*circle));
    let gone: Vec<String> = gone
        .map(|(circle, _)| format!("{circle}: no more, take it off the list"))
        .collect();
    let others = found
        .into_iter()
        .filter(|circle| !meant.iter().any(|(known, _)| known == circle));
    others.chain(gone).collect()
}

/// The shortest way from a file over others back to it.
fn way_back(needs: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> Option<Vec<Module>> {
    let mut ways = std::collections::VecDeque::from([vec![from.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way.last().and_then(|last| needs.get(last)).into_iter().flatten() {
            if next == from {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn no_file_needs_itself_through_others() {
    crate::assert_none(check(&Project::read(), MEANT));
}

#[test]
fn a_circle_is_found_with_its_way() {
    let sample = |c: &str, meant: &[(&str, &str)]| {
        check(
            &Project::of(&[
                ("src/a/mod.rs", "mod b; mod c; pub use b::B;"),
                ("src/a/b.rs", "use super::c::C; pub struct B;"),
                ("src/a/c.rs", c),
            ]),
            meant,
        )
    };
    assert_eq!(sample("pub struct C;", &[]), [] as [&str; 0]);
    // Through the parent's re-export.
    assert_eq!(sample("use super::B; pub struct C;", &[]), ["a::b -> a::c -> a::b"]);
    let meant = [("a::b -> a::c -> a::b", "why")];
    assert_eq!(sample("use super::B; pub struct C;", &meant), [] as [&str; 0]);
    assert_eq!(sample("pub struct C;", &meant).len(), 1, "no longer there");
}
