//! `google.protobuf.Struct`, written straight into bytes.
//!
//! The generated `Struct` is a tree of maps of strings, built and measured level by level: for the metadata of a
//! denial that is work to be spared.

use bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};

/// Field numbers and wire types of `google.protobuf.Struct`, as tag bytes.
mod tag {
    /// `Struct.fields`, `ListValue.values`, and the key of a map's entry.
    pub const FIRST: u8 = 0x0a;
    /// The value of a map's entry.
    pub const ENTRY_VALUE: u8 = 0x12;
    pub const NULL: u8 = 0x08;
    pub const NUMBER: u8 = 0x11;
    pub const STRING: u8 = 0x1a;
    pub const BOOL: u8 = 0x20;
    pub const STRUCT: u8 = 0x2a;
    pub const LIST: u8 = 0x32;
}

/// The fields of one `Struct`, encoded; a key that is set twice has its last value.
#[derive(Debug, Default)]
pub struct Fields(Vec<u8>);

/// The values of one `ListValue`, encoded.
#[derive(Debug, Default)]
pub struct Values(Vec<u8>);

/// One `Value`.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A string.
    String(&'a str),
    /// A whole number; beyond 2^53 to the nearest double, as protobuf's own JSON has it.
    Number(u64),
    /// An object.
    Struct(&'a Fields),
    /// A list.
    List(&'a Values),
    /// Whatever a rules file says.
    Json(&'a serde_json::Value),
}

impl Fields {
    /// Sets a field.
    pub fn set(&mut self, key: &str, value: Value<'_>) {
        // The entry's length stands before it, so the value is written aside first.
        let mut encoded = Vec::with_capacity(64);
        put_value(&mut encoded, value);
        let entry = prefixed_len(key.len()) + prefixed_len(encoded.len());
        self.0.put_u8(tag::FIRST);
        encode_varint(entry as u64, &mut self.0);
        put_bytes(&mut self.0, tag::FIRST, key.as_bytes());
        put_bytes(&mut self.0, tag::ENTRY_VALUE, &encoded);
    }

    /// The encoded `Struct`.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Values {
    /// Adds a value.
    pub fn push(&mut self, value: Value<'_>) {
        let mut encoded = Vec::with_capacity(64);
        put_value(&mut encoded, value);
        put_bytes(&mut self.0, tag::FIRST, &encoded);
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Tag, length and content.
const fn prefixed_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.put_u8(tag);
    encode_varint(content.len() as u64, out);
    out.put_slice(content);
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::String(text) => put_bytes(out, tag::STRING, text.as_bytes()),
        #[allow(clippy::cast_precision_loss, reason = "protobuf Struct numbers are doubles")]
        Value::Number(n) => put_number(out, n as f64),
        Value::Struct(fields) => put_bytes(out, tag::STRUCT, &fields.0),
        Value::List(values) => put_bytes(out, tag::LIST, &values.0),
        Value::Json(json) => put_json(out, json),
    }
}

fn put_number(out: &mut Vec<u8>, n: f64) {
    out.put_u8(tag::NUMBER);
    out.put_f64_le(n);
}

fn put_json(out: &mut Vec<u8>, json: &serde_json::Value) {
    match json {
        serde_json::Value::Null => out.put_slice(&[tag::NULL, 0]),
        serde_json::Value::Bool(b) => out.put_slice(&[tag::BOOL, u8::from(*b)]),
        serde_json::Value::Number(n) => put_number(out, n.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => put_bytes(out, tag::STRING, text.as_bytes()),
        serde_json::Value::Array(items) => {
            let mut values = Values::default();
            items.iter().for_each(|item| values.push(Value::Json(item)));
            put_bytes(out, tag::LIST, &values.0);
        }
        serde_json::Value::Object(map) => {
            let mut fields = Fields::default();
            map.iter().for_each(|(key, item)| fields.set(key, Value::Json(item)));
            put_bytes(out, tag::STRUCT, &fields.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use prost_types::value::Kind;
    use prost_types::{ListValue, Struct};

    fn value(kind: Kind) -> prost_types::Value {
        prost_types::Value { kind: Some(kind) }
    }

    /// The generated types say what was meant.
    fn meant(json: &serde_json::Value) -> prost_types::Value {
        value(match json {
            serde_json::Value::Null => Kind::NullValue(0),
            serde_json::Value::Bool(b) => Kind::BoolValue(*b),
            serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap()),
            serde_json::Value::String(s) => Kind::StringValue(s.clone()),
            serde_json::Value::Array(items) => Kind::ListValue(ListValue {
                values: items.iter().map(meant).collect(),
            }),
            serde_json::Value::Object(map) => Kind::StructValue(Struct {
                fields: map.iter().map(|(k, v)| (k.clone(), meant(v))).collect(),
            }),
        })
    }

    #[test]
    fn decodes_to_what_was_meant() {
        let json = serde_json::json!({
            "a": null, "b": [true, false, -1.5, "x", [], {}], "": {"deep": {"er": "é\0\"" }},
            "long": "y".repeat(300),
        });
        let (mut fields, mut list, mut inner) = (Fields::default(), Values::default(), Fields::default());
        inner.set("n", Value::Number(7));
        list.push(Value::String("one"));
        fields.set("json", Value::Json(&json));
        fields.set("list", Value::List(&list));
        fields.set("twice", Value::String("first"));
        fields.set("twice", Value::String("last"));
        fields.set("object", Value::Struct(&inner));
        let decoded = Struct::decode(fields.into_bytes().as_slice()).unwrap();
        let expected = serde_json::json!({
            "json": json, "list": ["one"], "twice": "last", "object": {"n": 7},
        });
        assert_eq!(value(Kind::StructValue(decoded)), meant(&expected));
    }
}
