//! JSON lines: a map from names to paths of fields.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::record::{Record, Target};
use super::names::{Names, Unread};

/// Where fields are looked for unless `--field` says otherwise; keys that access logs often have.
const DEFAULTS: [(&str, &[&str]); 6] = [
    ("time", &["start_time", "time", "timestamp", "@timestamp", "ts"]),
    ("method", &["method", "request_method"]),
    ("path", &["path", "request_uri", "uri", "url"]),
    ("host", &["authority", "host"]),
    (
        "client",
        &[
            "downstream_remote_address",
            "remote_address",
            "remote_addr",
            "client_ip",
            "client",
        ],
    ),
    ("duration", &["duration"]),
];
/// Most fields of a map.
const MAX_FIELDS: usize = 256;

/// Which fields are read, as a tree by their paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    here: Option<Target>,
    below: Vec<(Box<str>, Fields)>,
}

impl Fields {
    pub(super) fn new(given: &[String], names: &mut Names) -> Result<Self, String> {
        if given.len() > MAX_FIELDS {
            return Err(format!("more than {MAX_FIELDS} --field"));
        }
        let mut fields = Self::default();
        for (name, paths) in DEFAULTS {
            if !given.iter().any(|field| field.split('=').next() == Some(name)) {
                for path in paths {
                    fields.add(&[path], target(name, names)?)?;
                }
            }
        }
        for field in given {
            let Some((name, path)) = field.split_once('=').filter(|(_, path)| !path.is_empty()) else {
                return Err(format!("--field {field:?}: write name=path, as in client=source.ip"));
            };
            let steps: Vec<&str> = path.split('.').collect();
            fields.add(&steps, target(name, names)?)?;
        }
        Ok(fields)
    }

    fn add(&mut self, steps: &[&str], target: Target) -> Result<(), String> {
        let Some((first, rest)) = steps.split_first() else {
            if self.here.replace(target).is_some_and(|before| before != target) {
                return Err("two --field read the same path".to_owned());
            }
            return Ok(());
        };
        let at = self
            .below
            .iter()
            .position(|(name, _)| **name == **first)
            .unwrap_or_else(|| {
                self.below.push(((*first).into(), Self::default()));
                self.below.len() - 1
            });
        match self.below.get_mut(at) {
            Some((_, below)) => below.add(rest, target),
            None => Ok(()),
        }
    }

    pub(super) fn parse(&self, line: &str, record: &mut Record) -> Result<(), Unread> {
        let mut failed = None;
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let seed = Reading {
            fields: self,
            record,
            failed: &mut failed,
        };
        seed.deserialize(&mut deserializer).map_err(|_| "not JSON")?;
        deserializer.end().map_err(|_| "not JSON")?;
        failed.map_or(Ok(()), Err)
    }
}

fn target(name: &str, names: &mut Names) -> Result<Target, String> {
    Ok(match name {
        "time" => Target::Time,
        "method" => Target::Method,
        "path" => Target::Path,
        "host" => Target::Host,
        "client" => Target::Client,
        "duration" => Target::DurationMs,
        _ => match name.strip_prefix("header.").filter(|header| !header.is_empty()) {
            Some(header) => names.target(header),
            None => {
                return Err(format!(
                    "--field {name}: the names are time, method, path, host, client, duration, header.NAME"
                ));
            }
        },
    })
}

/// Reads one value by its part of the tree.
struct Reading<'a> {
    fields: &'a Fields,
    record: &'a mut Record,
    failed: &'a mut Option<Unread>,
}

impl Reading<'_> {
    fn take(self, text: &str) {
        if let Some(target) = self.fields.here.filter(|_| text != "-")
            && let Err(error) = self.record.set(target, text)
        {
            self.failed.get_or_insert(error.into());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.take(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.take(&value.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.take(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.take(&value.to_string());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.take(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            match self.fields.below.iter().find(|(name, _)| **name == *key) {
                Some((_, fields)) => map.next_value_seed(Reading {
                    fields,
                    record: &mut *self.record,
                    failed: &mut *self.failed,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
