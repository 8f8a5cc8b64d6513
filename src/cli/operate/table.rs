//! Answers as tables.

mod top;

use std::fmt::Write;

use serde_json::Value;

pub(in crate::cli) use top::{clipped, top};

/// Longest text of a column.
const MAX_CHARS: usize = 60;

/// Characters that a terminal shows as nothing, or that turn the order of what follows (Unicode's default ignorable code points, and
/// those of its bidirectional algorithm).
const UNSEEN: [(char, char); 17] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Text as a terminal may get it: what would move its cursor, turn the order of what follows, or not be seen is escaped.
pub(in crate::cli) fn shown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let is_unseen = UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c));
        if c.is_control() || is_unseen {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => shown(text),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn descriptor(entries: &Value) -> String {
    let entry = |entry: &Value| {
        let sign = if entry["shared"] == true { '~' } else { '=' };
        format!("{}{sign}{}", cell(&entry["key"]), cell(&entry["value"]))
    };
    list(entries).map(entry).collect::<Vec<_>>().join(" ")
}

pub(in crate::cli) fn status(status: &Value) -> String {
    let rules = &status["rules"];
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<10} {text}");
    };
    line(
        "version",
        format!("{}, up {} s", cell(&status["version"]), cell(&status["uptime_seconds"])),
    );
    line(
        "healthy",
        if status["healthy"] == true { "yes" } else { "NO" }.to_owned(),
    );
    for reason in list(&status["reasons"]).filter_map(Value::as_str) {
        line("", shown(reason));
    }
    let (count, domains) = (cell(&rules["rules"]), cell(&rules["domains"]));
    let (generation, hash) = (cell(&rules["generation"]), cell(&rules["hash"]));
    line(
        "rules",
        format!("{count} in {domains} domains, generation {generation}, hash {hash}"),
    );
    line(
        "store",
        format!(
            "{}, on_store_error {}",
            cell(&status["store"]),
            cell(&status["on_store_error"])
        ),
    );
    for store in list(&status["stores"]) {
        let failing = store["failing"] == true;
        let text = if failing {
            "DOES NOT ANSWER: the failure mode decides"
        } else {
            "answers"
        };
        line(&format!("  {}", cell(&store["name"])), text.to_owned());
    }
    for (flag, text) in [
        ("shadow_mode", "nothing is denied: shadow mode"),
        ("quota_mode", "every rule is a quota"),
    ] {
        if status[flag] == true {
            line("mode", text.to_owned());
        }
    }
    if let Some(last) = list(&status["reloads"]).last().filter(|last| last["ok"] != true) {
        let errors = last["errors"].as_str().unwrap_or_default();
        let errors: Vec<String> = errors.lines().map(|text| format!("  {}", shown(text))).collect();
        line(
            "reload",
            format!("REFUSED, the old rules stay in force:\n{}", errors.join("\n")),
        );
    }
    out
}

pub(in crate::cli) fn counter(state: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "  {name:<10} {text}");
    };
    line("used", format!("{} of {}", cell(&state["used"]), cell(&state["quota"])));
    let (limit, window) = (cell(&state["limit"]), cell(&state["window"]));
    line("limit", format!("{limit} per {window}, {}", cell(&state["algorithm"])));
    if state["held"] != 0 {
        line("held", cell(&state["held"]));
    }
    line("remaining", cell(&state["remaining"]));
    line("resets in", seconds(&state["resets_in_ms"]));
    let verdict = match (state["would_pass"] == true, state["retry_in_ms"].as_u64()) {
        (true, _) => "yes".to_owned(),
        (false, Some(_)) => format!("no; in {}", seconds(&state["retry_in_ms"])),
        (false, None) => "no; waiting does not help".to_owned(),
    };
    line("would pass", verdict);
    if state["enforced"] != true {
        match state["marks"] == true {
            true => line("marks", "what is over passes with a mark".to_owned()),
            false => line("shadow", "counted, never denies".to_owned()),
        }
    }
    let cached = if state["cached"] == true {
        " (a cached denial)"
    } else {
        ""
    };
    line("read from", format!("{}{cached}", cell(&state["read_from"])));
    line("key", cell(&state["key"]));
    for other in list(&state["others"]) {
        let _ = writeln!(out, "another limit of the descriptor:");
        out.push_str(&counter(other));
    }
    out
}

fn seconds(ms: &Value) -> String {
    let ms = ms.as_u64().unwrap_or(0);
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

pub(in crate::cli) fn explain(explained: &Value) -> String {
    let mut out = String::new();
    if explained["domain_known"] != true {
        let _ = writeln!(
            out,
            "domain {}: no rules have it, everything passes",
            cell(&explained["domain"])
        );
    }
    for of in list(&explained["descriptors"]) {
        let _ = writeln!(out, "{}: {}", descriptor(&of["entries"]), outcome(of));
        for step in list(&of["steps"]) {
            out.push_str(&self::step(step));
        }
        if of["counter"].is_object() {
            out.push_str(&counter(&of["counter"]));
        }
        for other in list(&of["others"]) {
            let _ = writeln!(out, "{}: also {}", descriptor(&of["entries"]), outcome(other));
            out.push_str(&counter(&other["counter"]));
        }
    }
    let verdict = if explained["would_pass"] == true {
        "would pass"
    } else {
        "would be denied"
    };
    let _ = writeln!(out, "the request {verdict} now");
    out
}

fn outcome(of: &Value) -> String {
    let rule = &of["rule"];
    let place = || format!("rule {} ({})", cell(&rule["path"]), cell(&rule["source"]));
    match of["outcome"].as_str() {
        Some("counted") if rule.is_object() => format!("counted by {}{}", place(), plan(&of["plan"])),
        Some("counted") => "counted by the request's own limit".to_owned(),
        Some("unlimited") => format!("unlimited by {}{}", place(), plan(&of["plan"])),
        Some("replaced") => format!("{} is replaced by another rule of the request", place()),
        _ => "no rule counts it".to_owned(),
    }
}

/// Which plan the value has.
fn plan(plan: &Value) -> String {
    let (name, source) = (cell(&plan["name"]), cell(&plan["source"]));
    match plan["by_default"].as_bool() {
        Some(false) => format!(", plan {name} of {source}"),
        Some(true) if plan["expired"] == true => {
            format!(", plan {name} by default, because the value's entry in {source} has expired")
        }
        Some(true) => format!(", plan {name} by default, because {source} has none for the value"),
        None => String::new(),
    }
}

fn step(step: &Value) -> String {
    let (key, value) = (cell(&step["key"]), cell(&step["value"]));
    let how = match step["matched"].as_str() {
        Some("value") => "matches by its value".to_owned(),
        Some("list") => format!("is in the list {}", cell(&step["pattern"])),
        Some("network") => format!("is in a network of {}", cell(&step["pattern"])),
        Some("pattern") => format!("matches the pattern {}", cell(&step["pattern"])),
        Some("regex") => format!("matches the expression {}", cell(&step["pattern"])),
        Some("key") => "matches by its key alone".to_owned(),
        _ => "matches nothing here".to_owned(),
    };
    let mut out = format!("  {key}={value} {how}\n");
    for other in list(&step["others"]) {
        let text = match other["text"].as_str() {
            Some("") => format!("{key} (any value)"),
            _ => cell(&other["text"]),
        };
        let why = match other["why"].as_str() {
            Some("other_value") => "is another value",
            Some("pattern_does_not_fit") => "does not fit",
            Some("too_long_for_regex") => "is not tried on values so long",
            Some("less_specific") => "fits, but is less specific",
            _ => "is another key",
        };
        let _ = writeln!(out, "    not {text}: {why}");
    }
    out
}

/// What would be reset.
pub(in crate::cli) fn selection(selection: &Value) -> String {
    let mut out = String::new();
    let counters = selection["counters"].as_u64().unwrap_or(0);
    let mut shown = 0;
    for counter in list(&selection["sample"]) {
        shown += 1;
        let _ = write!(
            out,
            "{}  {}",
            cell(&counter["domain"]),
            descriptor(&counter["descriptor"])
        );
        let _ = match &selection["used"] {
            Value::Null => writeln!(out),
            used => writeln!(out, "  {used} used"),
        };
    }
    if counters > shown {
        let _ = writeln!(out, "and {} more", counters - shown);
    }
    let _ = writeln!(out, "{counters} {} would be reset", plural(counters));
    if selection["complete"] == false {
        let _ = writeln!(out, "the search is not complete: it goes on after these");
    }
    out
}

/// What was reset.
pub(in crate::cli) fn reset(done: &Value) -> String {
    let counters = done["counters"].as_u64().unwrap_or(0);
    let told = match done["replicas_told"] == true {
        true => "all replicas let them through within a second",
        false => "other replicas were not told: they keep cached denials until these end; repeat it",
    };
    format!(
        "{counters} {} reset ({} hits were in use); {told}",
        plural(counters),
        done["hits"]
    )
}

fn plural(counters: u64) -> &'static str {
    if counters == 1 { "counter" } else { "counters" }
}

#[cfg(test)]
mod tests;
