//! Who is denied most, or asks most, in columns.

use std::fmt::Write;

use serde_json::Value;

use super::{cell, descriptor, list};

/// What stands between columns, in characters.
const GAP: usize = 2;
/// A column of text is made no narrower than this for a terminal.
const MIN_CHARS: usize = 8;

/// `is_filtered`: only keys of one rule or domain were asked for. Columns of text are made so narrow that a line has `width`
/// characters, if that can be.
pub(in crate::cli) fn top(top: &Value, is_filtered: bool, width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = list(&top["counters"])
        .map(|counter| {
            vec![
                count(counter, "denied"),
                count(counter, "hits"),
                percent(&counter["share"]),
                cell(&counter["domain"]),
                if counter["is_override"] == true {
                    "(of the request)".into()
                } else {
                    cell(&counter["rule"])
                },
                descriptor(&counter["descriptor"]),
            ]
        })
        .collect();
    let mut out = format!(
        "{} decisions, {} denied in the last {} s (window {}, by {})\n\n",
        cell(&top["hits"]),
        cell(&top["denied"]),
        cell(&top["covers_seconds"]),
        cell(&top["window"]),
        cell(&top["by"])
    );
    if rows.is_empty() {
        let (sum, what, nothing) = match top["by"] == "denied" {
            true => (&top["denied"], "denied", "Nobody is denied."),
            false => (&top["hits"], "decisions", "No requests."),
        };
        // The sums are those of all keys.
        let _ = match sum.as_u64().unwrap_or(0) {
            0 => writeln!(out, "{nothing}"),
            _ if is_filtered => writeln!(out, "No such key is among those that stand out."),
            sum => writeln!(out, "{sum} {what}, spread over so many keys that none stands out."),
        };
    } else {
        let heads = [">DENIED", ">HITS", ">SHARE", "DOMAIN", "RULE", "DESCRIPTOR"];
        out.push_str(&columns(&heads, &rows, width));
    }
    out
}

/// At least so many; `+` and how many more there may be.
fn count(of: &Value, name: &str) -> String {
    let error = of[format!("{name}_error")].as_u64().unwrap_or(0);
    match error {
        0 => cell(&of[name]),
        error => format!("{}+{error}", cell(&of[name])),
    }
}

fn percent(share: &Value) -> String {
    format!("{:.1}%", share.as_f64().unwrap_or(0.0) * 100.0)
}

/// Columns as wide as they need to be and may be; numbers (a head that starts with `>`) to the right.
fn columns(heads: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let needed = |at: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count());
        cells
            .chain([heads[at].trim_start_matches('>').len()])
            .max()
            .unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..heads.len()).map(needed).collect();
    if let Some(width) = width {
        narrow(&mut widths, heads, width);
    }
    let mut out = String::new();
    let names: Vec<String> = heads
        .iter()
        .map(|head| head.trim_start_matches('>').to_owned())
        .collect();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((text, head), width) in row.iter().zip(heads).zip(&widths) {
            let text = clipped(text, *width);
            // Writing to a String cannot fail.
            let _ = if head.starts_with('>') {
                write!(line, "{text:>width$}  ")
            } else {
                write!(line, "{text:<width$}  ")
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Takes from the widest columns of text until all fit.
fn narrow(widths: &mut [usize], heads: &[&str], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let texts = widths.iter_mut().zip(heads).filter(|(_, head)| !head.starts_with('>'));
        match texts.map(|(width, _)| width).max() {
            Some(widest) if *widest > MIN_CHARS => *widest -= 1,
            _ => return,
        }
    }
}

/// So many characters of a text; a cut ends in `…`.
pub(in crate::cli) fn clipped(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_as_wide_as_the_terminal_and_show_of_each_text_what_there_is_room_for() {
        let rule = "tenant.path_/api/v1/orders/of/a/customer";
        let entries =
            json!([{ "key": "tenant", "value": "acme" }, { "key": "path", "value": "/api/v1/orders/of/a/customer" }]);
        let counter = json!({ "denied": 1_234_567, "hits": 7_654_321, "share": 0.161, "domain": "shop", "rule": rule, "descriptor": entries });
        let answer = json!({ "by": "denied", "hits": 7_654_321, "denied": 1_234_567, "counters": [counter] });
        let lines = |width| -> Vec<String> {
            let said = top(&answer, false, width);
            said.lines().skip(2).map(str::to_owned).collect()
        };
        assert!(lines(None)[1].contains(rule));
        for width in [80, 100, 120] {
            let line = &lines(Some(width))[1];
            assert_eq!(line.chars().count(), width, "{line}");
            assert!(line.contains(" 1234567 ") || line.starts_with("1234567 "), "{line}");
            assert!(
                line.contains("shop    tenant.path_") && line.contains("tenant=acme path"),
                "{line}"
            );
        }
        // Numbers are never cut, whatever the terminal.
        assert!(
            lines(Some(10))[1].starts_with("1234567  7654321  16.1%  shop    tenant."),
            "{:?}",
            lines(Some(10))
        );
    }
}
