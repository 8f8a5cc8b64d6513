//! YAML that is meant to hurt: bombs, depth, size; each is refused, quickly and with a message.

use std::fmt::Write;

use sluicegate::config::Problem;

use super::{rules, try_rules};

fn problem(yaml: &str) -> Problem {
    match try_rules(yaml) {
        Err(errors) => errors.as_slice()[0].problem.clone(),
        Ok(_) => panic!("accepted"),
    }
}

/// Ten levels of ten aliases each would be ten thousand million nodes.
#[test]
fn a_bomb_of_aliases_does_not_go_off() {
    let mut yaml = "domain: d\nx:\n  - &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(yaml, "  - &a{level} [{aliases}]").unwrap();
    }
    assert!(
        matches!(problem(&yaml), Problem::TooComplex { .. }),
        "{:?}",
        problem(&yaml)
    );
}

#[test]
fn depth_is_bounded_however_it_is_written() {
    for yaml in [
        format!("domain: d\ndescriptors: {}", "[".repeat(100_000)),
        format!("domain: d\ndescriptors: {}{}", "[".repeat(1000), "]".repeat(1000)),
        format!("domain: {}", "{a: ".repeat(100_000)),
        format!("{}x", "- ".repeat(100_000)),
        (0..5000).fold(String::new(), |mut yaml, depth| {
            writeln!(yaml, "{}a:", " ".repeat(depth)).unwrap();
            yaml
        }),
        "? ".repeat(100_000),
    ] {
        let found = problem(&yaml);
        assert!(
            matches!(found, Problem::TooComplex { .. } | Problem::Syntax { .. }),
            "{found:?}"
        );
    }
}

/// The deepest tree that is allowed compiles; one more level is refused by name.
#[test]
fn levels_are_bounded() {
    let tree = |levels: usize| {
        let open = "{key: k, rate_limit: {unit: day, replaces: [{name: x}]}, descriptors: [".repeat(levels);
        format!("domain: d\ndescriptors: [{open}{}]\n", "]}".repeat(levels))
    };
    assert_eq!(rules(&tree(32)).rules.len(), 32);
    assert_eq!(problem(&tree(33)), Problem::TooManyLevels { max: 32 });
}

#[test]
fn an_alias_cannot_contain_itself() {
    assert!(matches!(
        problem("domain: d\ndescriptors: &x [*x]\n"),
        Problem::TooComplex { .. }
    ));
}

#[test]
fn long_texts_are_refused() {
    let long = "x".repeat(4097);
    let with = |yaml: &str| problem(&yaml.replace('§', &long));
    assert_eq!(
        with("domain: §\n"),
        Problem::TooLong {
            field: "domain",
            max: 4096
        }
    );
    assert_eq!(
        with("domain: d\ndescriptors: [{key: §}]\n"),
        Problem::TooLong {
            field: "key",
            max: 4096
        }
    );
    assert_eq!(
        with("domain: d\ndescriptors: [{key: k, value: §}]\n"),
        Problem::TooLong {
            field: "value",
            max: 4096
        }
    );
    let stars = "a*".repeat(33);
    let yaml = format!("domain: d\ndescriptors: [{{key: k, value: \"{stars}\"}}]\n");
    assert_eq!(problem(&yaml), Problem::TooManyWildcards { max: 32 });
}

#[test]
fn errors_are_bounded_and_counted() {
    let mut yaml = "domain: d\n".to_owned();
    for at in 0..5000 {
        writeln!(yaml, "field{at}: 1").unwrap();
    }
    let errors = try_rules(&yaml).unwrap_err();
    assert_eq!((errors.as_slice().len(), errors.count()), (1000, 5000));
    assert!(errors.render(false).ends_with("… and 4000 more\n5000 errors\n"));
}

/// Whatever stands in a rule, compiling and dumping it neither fails nor writes a control character.
#[test]
fn any_text_may_stand_in_a_rule() {
    let yaml = r#"{"domain": "d\u0000\n", "descriptors": [{"key": "\u0001|={}", "value": "\u2028\r\n*", "rate_limit": {"unit": "day", "name": "\u001b[0m"}}]}"#;
    let dump = rules(yaml).dump();
    assert_eq!(dump.lines().count(), 1, "{dump:?}");
    assert!(
        !dump.trim_end().contains(|c: char| c.is_control() || c == '\u{2028}'),
        "{dump:?}"
    );
}

/// The greedy walk over what stands between stars must not multiply.
#[test]
fn many_stars_on_a_long_value_cost_little() {
    let pattern = format!("{}b", "*a".repeat(30));
    let rules = rules(&format!(
        "domain: d\ndescriptors: [{{key: k, value: \"{pattern}\", rate_limit: {{unit: day}}}}]\n"
    ));
    let value = "a".repeat(4000);
    let mut probes = 0;
    let found = rules.domains["d"].find_probed(&super::entries(&[("k", &value)]), &mut || probes += 1);
    assert!(found.is_none());
    assert!(probes < 200_000, "{probes}");
}
