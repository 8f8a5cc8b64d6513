use serde_json::json;

use super::*;

#[test]
fn an_empty_list_of_the_denied_says_what_it_means() {
    let said = |denied: u64, is_filtered| {
        let answer = json!({ "by": "denied", "hits": 9000, "denied": denied, "counters": [] });
        top(&answer, is_filtered)
    };
    assert!(said(0, false).ends_with("Nobody is denied.\n"));
    assert!(said(4_000, false).ends_with("4000 denied, spread over so many keys that none stands out.\n"));
    // It may be keys of other rules that are denied.
    assert!(said(4_000, true).ends_with("No such key is among those that stand out.\n"));
}
