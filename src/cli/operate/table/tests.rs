use serde_json::json;

use super::*;

#[test]
fn an_empty_list_of_the_denied_says_what_it_means() {
    let said = |denied: u64, is_filtered| {
        let answer = json!({ "by": "denied", "hits": 9000, "denied": denied, "counters": [] });
        top(&answer, is_filtered, None)
    };
    assert!(said(0, false).ends_with("Nobody is denied.\n"));
    assert!(said(4_000, false).ends_with("4000 denied, spread over so many keys that none stands out.\n"));
    // It may be keys of other rules that are denied.
    assert!(said(4_000, true).ends_with("No such key is among those that stand out.\n"));
}

#[test]
fn what_is_not_as_it_should_be_has_a_line_each() {
    let long = format!("plans are stale: {}", "x".repeat(100));
    let answer = json!({ "healthy": false, "reasons": ["draining", long] });
    let said = status(&answer);
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    let at = lines.iter().position(|line| *line == "healthy    NO");
    let after = at.map_or(&[][..], |at| &lines[at + 1..at + 3]);
    assert_eq!(
        after,
        [format!("{:11}draining", ""), format!("{:11}{long}", "")],
        "{said}"
    );
    let answer = json!({ "healthy": true, "reasons": [] });
    assert!(status(&answer).contains("healthy    yes\nrules"), "{answer}");
}
