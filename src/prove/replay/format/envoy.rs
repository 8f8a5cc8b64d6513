//! Envoy's text format, by its format string: `[%START_TIME%] "%REQ(:METHOD)% …`.

use memchr::memmem;

use super::super::record::{Record, Target};
use super::names::{Names, Unread};

/// A format string as parts.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Before the first field.
    start: Box<str>,
    /// Each field with the text that ends it.
    fields: Vec<(Option<Target>, Box<str>)>,
    client_is_final: bool,
}

impl Template {
    /// Reads a format string.
    pub(super) fn new(text: &str, names: &mut Names) -> Result<Self, String> {
        let text = text.trim_end_matches(['\n', '\r']).replace("\\n", "");
        let mut template = Self {
            start: Box::default(),
            fields: Vec::new(),
            client_is_final: !text.contains("DOWNSTREAM_DIRECT_REMOTE_ADDRESS"),
        };
        let mut literal = String::new();
        let mut rest = text.trim_end();
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (operator, after) = operator(rest)?;
            template.end_literal(&mut literal, operator)?;
            template.fields.push((target(operator, names)?, Box::default()));
            rest = after;
        }
        literal.push_str(rest);
        template.end_literal(&mut literal, "")?;
        let has = |wanted| template.fields.iter().any(|(target, _)| *target == Some(wanted));
        if !has(Target::Time) {
            return Err("the format has no %START_TIME%: replay needs the time of each request".to_owned());
        }
        Ok(template)
    }

    fn end_literal(&mut self, literal: &mut String, next: &str) -> Result<(), String> {
        let text = std::mem::take(literal).into_boxed_str();
        match self.fields.last_mut() {
            None => self.start = text,
            Some(_) if text.is_empty() && !next.is_empty() => {
                return Err(format!(
                    "nothing stands between %{next}% and the field before it: their texts cannot be told apart"
                ));
            }
            Some((_, end)) => *end = text,
        }
        Ok(())
    }

    pub(super) const fn client_is_final(&self) -> bool {
        self.client_is_final
    }

    pub(super) fn parse(&self, line: &str, record: &mut Record) -> Result<(), Unread> {
        const OTHER: Unread = "the line does not match the format";
        let mut rest = line.strip_prefix(&*self.start).ok_or(OTHER)?;
        for (target, end) in &self.fields {
            let at = match end.len() {
                0 => rest.len(),
                _ => memmem::find(rest.as_bytes(), end.as_bytes()).ok_or(OTHER)?,
            };
            let value = rest.get(..at).ok_or(OTHER)?;
            rest = rest.get(at + end.len()..).ok_or(OTHER)?;
            if let Some(target) = target.filter(|_| value != "-") {
                record.set(target, value)?;
            }
        }
        if rest.trim().is_empty() { Ok(()) } else { Err(OTHER) }
    }
}

/// What stands between two `%`: `NAME`, `NAME(…)`, `NAME(…):20`. The parentheses may hold `%`.
fn operator(text: &str) -> Result<(&str, &str), String> {
    let name_end = text.find(['(', '%']).ok_or_else(|| format!("%{text} has no end"))?;
    let end = match text.as_bytes().get(name_end) {
        Some(b'(') => {
            let close = text
                .find(')')
                .ok_or_else(|| format!("%{text} has no closing parenthesis"))?;
            let rest = text.get(close..).unwrap_or_default();
            close + rest.find('%').ok_or_else(|| format!("%{text} has no end"))?
        }
        _ => name_end,
    };
    Ok((&text[..end], &text[end + 1..]))
}

fn target(operator: &str, names: &mut Names) -> Result<Option<Target>, String> {
    let (name, rest) = operator.split_once('(').unwrap_or((operator, ""));
    let argument = rest.rsplit_once(')').map_or("", |(argument, _)| argument);
    Ok(Some(match name {
        "START_TIME" | "START_TIME_LOCAL" => Target::Time,
        "DURATION" => Target::DurationMs,
        "DOWNSTREAM_REMOTE_ADDRESS"
        | "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"
        | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS"
        | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Target::Client,
        "REQ" | "REQUEST_HEADER" => match argument.split_once('?') {
            // What the path was before a route rewrote it: the rate limit filter saw that.
            Some((first, second)) if second.eq_ignore_ascii_case(":path") && is_original_path(first) => Target::Path,
            Some(_) => {
                return Err(format!(
                    "%{operator}% is one of two headers, and the line does not say which"
                ));
            }
            None => names.target(argument),
        },
        _ => return Ok(None),
    }))
}

fn is_original_path(name: &str) -> bool {
    name.eq_ignore_ascii_case("x-envoy-original-path")
}
