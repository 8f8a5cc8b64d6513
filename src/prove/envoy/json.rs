//! Protobuf messages as JSON: fields by their names, in snake or camel case.

use serde_json::Value;

/// A field that is set.
pub(super) fn field<'v>(message: &'v Value, name: &str) -> Option<&'v Value> {
    let found = message.get(name).or_else(|| message.get(camel(name)));
    found.filter(|value| !value.is_null())
}

/// A field inside of fields.
pub(super) fn path<'v>(message: &'v Value, names: &[&str]) -> Option<&'v Value> {
    names.iter().try_fold(message, |message, name| field(message, name))
}

/// The items of a repeated field; none if it is not set.
pub(super) fn items<'v>(message: &'v Value, name: &str) -> &'v [Value] {
    field(message, name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A text; empty if it is not set. Numbers and truth values that YAML made of a text become one again.
pub(super) fn text(message: &Value, name: &str) -> String {
    match field(message, name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(value)) => value.to_string(),
        _ => String::new(),
    }
}

/// A truth value, if it is set.
pub(super) fn truth(message: &Value, name: &str) -> Option<bool> {
    field(message, name)?.as_bool()
}

/// A whole number, also as the text that protobuf writes for 64 bits.
pub(super) fn number(message: &Value, name: &str) -> Option<u64> {
    match field(message, name)? {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

/// Names of the fields that are set and stand in none of `known`.
pub(super) fn unknown<'v>(message: &'v Value, known: &[&str]) -> Option<&'v str> {
    let fields = message.as_object()?;
    let is_known = |name: &str| known.iter().any(|known| *known == name || camel(known) == name);
    let set = fields.iter().filter(|(_, value)| !value.is_null());
    set.map(|(name, _)| name.as_str()).find(|name| !is_known(name))
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_either_spelling() {
        let message = serde_json::json!({ "rateLimits": [1], "use_remote_address": true, "number": "7", "none": null });
        assert_eq!(items(&message, "rate_limits").len(), 1);
        assert_eq!(truth(&message, "use_remote_address"), Some(true));
        assert_eq!(number(&message, "number"), Some(7));
        assert_eq!(field(&message, "none"), None);
        assert_eq!(
            unknown(&message, &["rate_limits", "use_remote_address"]),
            Some("number")
        );
    }
}
