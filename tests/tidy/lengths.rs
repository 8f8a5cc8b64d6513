//! Files that nobody reads in one go.

use crate::project::Project;

const MAX_LINES: usize = 400;

/// Longer ones, with their lines; they may only get shorter.
const TOO_LONG: &[(&str, usize)] = &[];

fn check(project: &Project, too_long: &[(&str, usize)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in project.rust("") {
        let lines = text.lines().count();
        let known = too_long
            .iter()
            .find(|(known, _)| *known == path)
            .map(|(_, lines)| *lines);
        match known {
            Some(most) if lines > most => wrong.push(format!("{path}: {lines} lines, {most} before: split it")),
            Some(_) if lines <= MAX_LINES => wrong.push(format!("{path}: short enough: take it off the list")),
            None if lines > MAX_LINES => wrong.push(format!("{path}: {lines} lines: split it along its meaning")),
            _ => {}
        }
    }
    wrong
}

#[test]
fn no_file_is_longer_than_400_lines() {
    crate::assert_none(check(&Project::read(), TOO_LONG));
}

#[test]
fn a_long_file_is_found() {
    let sample = |lines: usize| {
        let text = "\n".repeat(lines);
        check(
            &Project::of(&[("src/a.rs", &text), ("tests/b.rs", &text)]),
            &[("tests/b.rs", 402)],
        )
    };
    assert_eq!(sample(400), ["tests/b.rs: short enough: take it off the list"]);
    assert_eq!(sample(401), ["src/a.rs: 401 lines: split it along its meaning"]);
    assert_eq!(sample(403).len(), 2);
}
