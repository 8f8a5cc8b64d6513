//! Rules as YAML, with notes.

use std::fmt::{self, Write};

use super::super::problem::Clipped;
use super::condition::WantedValues;
use super::descriptor::{GENERIC_KEY, PlacedLimit};
use super::limit::{LimitEntry, LimitadorLimit};

/// The rules of one namespace.
pub(super) fn rules(file: &str, namespace: &str, placed: &[PlacedLimit<'_>]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = notes(&mut out, file, placed);
    let _ = envoy(&mut out, placed);
    let _ = writeln!(out, "domain: {}\ndescriptors:", YamlText(namespace));
    let paths: Vec<(&[LimitEntry], &LimitadorLimit)> =
        placed.iter().map(|placed| (&*placed.path, placed.limit)).collect();
    let _ = level(&mut out, 1, &paths);
    out
}

fn notes(out: &mut String, file: &str, placed: &[PlacedLimit<'_>]) -> fmt::Result {
    writeln!(
        out,
        "# Translated from limitador's {} by `sluicegate import limitador`.",
        Clipped(file)
    )?;
    out.push_str(
        "#\n\
         # Different from limitador:\n\
         # - A window of limitador begins with the first hit and then starts over, so that nearly twice the limit can pass\n\
         #   around its end. Here windows slide: in no window passes more than the limit.\n\
         # - A request with 0 hits counts as 1 there. Here it asks without counting: send 1, or leave `hits_addend` out.\n\
         # - Counters start anew: none is taken over.\n",
    );
    if placed.iter().any(|placed| placed.limit.plain) {
        out.push_str(
            "# - Plain names (`user_id`) are taken as entries of the descriptor, as before limitador 2.0; since then Envoy's\n\
             #   requests match them no more, only those of its HTTP interface.\n",
        );
    }
    Ok(())
}

/// What has to stand in Envoy's routes.
fn envoy(out: &mut String, placed: &[PlacedLimit<'_>]) -> fmt::Result {
    out.push_str(
        "#\n\
         # Envoy: limitador finds its entries anywhere in the first descriptor. Here each limit is asked for by a descriptor of\n\
         # exactly its entries, in this order. So `rate_limits` of the routes need these lists; put in the actions that make\n\
         # these entries today:\n\
         #   rate_limits:\n",
    );
    let shape = |placed: &PlacedLimit<'_>| -> Vec<(String, Option<String>)> {
        let entry = |entry: &LimitEntry| match &entry.values {
            WantedValues::Exact(tag) if entry.key == GENERIC_KEY => (entry.key.clone(), Some(tag.clone())),
            _ => (entry.key.clone(), None),
        };
        placed.path.iter().map(entry).collect()
    };
    let mut shapes: Vec<(Vec<_>, Vec<usize>)> = Vec::new();
    for placed in placed {
        let wanted = shape(placed);
        match shapes.iter_mut().find(|(known, _)| *known == wanted) {
            Some((_, limits)) => limits.push(placed.limit.number),
            None => shapes.push((wanted, vec![placed.limit.number])),
        }
    }
    for (shape, limits) in shapes {
        let limits: Vec<String> = limits.iter().map(ToString::to_string).collect();
        writeln!(out, "#   - actions:   # limit {}", limits.join(", "))?;
        for (key, tag) in shape {
            match tag {
                Some(tag) => writeln!(out, "#     - generic_key: {{ descriptor_value: {} }}", YamlText(&tag))?,
                None => writeln!(out, "#     - (the action with `descriptor_key: {}`)", YamlText(&key))?,
            }
        }
    }
    Ok(())
}

/// The nodes of one level: limits that begin with the same entry stand on the same one.
fn level(out: &mut String, depth: usize, paths: &[(&[LimitEntry], &LimitadorLimit)]) -> fmt::Result {
    let mut heads: Vec<&LimitEntry> = Vec::new();
    for head in paths.iter().filter_map(|(path, _)| path.first()) {
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
    for head in heads {
        let mut below: Vec<(&[LimitEntry], &LimitadorLimit)> = Vec::new();
        for (path, limit) in paths {
            if let Some((first, rest)) = path.split_first()
                && first == head
            {
                below.push((rest, limit));
            }
        }
        node(out, depth, head, &below)?;
    }
    Ok(())
}

/// The field of a node that says which values of its key it stands for; `None` = any.
fn written(values: &WantedValues) -> Option<String> {
    match values {
        WantedValues::Any => None,
        WantedValues::Exact(text) => Some(format!("value: {}", YamlText(text))),
        WantedValues::OneOf(list) => Some(format!("value_in: {}", serde_json::Value::from(list.as_slice()))),
        WantedValues::Prefix(prefix) => Some(format!("value: {}", YamlText(&format!("{prefix}*")))),
    }
}

fn node(out: &mut String, depth: usize, entry: &LimitEntry, below: &[(&[LimitEntry], &LimitadorLimit)]) -> fmt::Result {
    let indent = "  ".repeat(2 * depth);
    writeln!(out, "{}- key: {}", "  ".repeat(2 * depth - 1), YamlText(&entry.key))?;
    if let Some(values) = written(&entry.values) {
        writeln!(out, "{indent}{values}")?;
    }
    if matches!(entry.values, WantedValues::Prefix(_) | WantedValues::OneOf(_)) {
        writeln!(out, "{indent}share_threshold: {}", !entry.alone)?;
    }
    let limits: Vec<_> = below
        .iter()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, limit)| *limit)
        .collect();
    match limits.as_slice() {
        [] => {}
        [limit] => {
            writeln!(out, "{indent}rate_limit:   {}", WrittenAt(limit))?;
            fields(out, &format!("{indent}  "), limit)?;
        }
        several => {
            writeln!(out, "{indent}rate_limits:")?;
            for limit in several {
                writeln!(out, "{indent}  -   {}", WrittenAt(limit))?;
                fields(out, &format!("{indent}    "), limit)?;
            }
        }
    }
    if below.iter().any(|(rest, _)| !rest.is_empty()) {
        writeln!(out, "{indent}descriptors:")?;
        level(out, depth + 1, below)?;
    }
    Ok(())
}

/// Which limit it is, as a comment.
struct WrittenAt<'l>(&'l LimitadorLimit);

impl fmt::Display for WrittenAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# limit {}, line {}", self.0.number, self.0.line)
    }
}

fn fields(out: &mut String, indent: &str, limit: &LimitadorLimit) -> fmt::Result {
    if let Some(name) = limit.name.as_deref().filter(|name| !name.is_empty()) {
        writeln!(out, "{indent}name: {}", YamlText(name))?;
    }
    writeln!(out, "{indent}requests_per_unit: {}", limit.max_value)?;
    match limit.seconds {
        1 => writeln!(out, "{indent}unit: second"),
        60 => writeln!(out, "{indent}unit: minute"),
        3600 => writeln!(out, "{indent}unit: hour"),
        86_400 => writeln!(out, "{indent}unit: day"),
        seconds => writeln!(out, "{indent}window: {seconds}s"),
    }
}

/// A text in quotes, as YAML and JSON have it.
struct YamlText<'t>(&'t str);

impl fmt::Display for YamlText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::Value::from(self.0).to_string())
    }
}
