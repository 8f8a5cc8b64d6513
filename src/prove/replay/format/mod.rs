//! Lines of access logs → records.

mod clf;
mod envoy;
mod json;
mod names;
pub mod time;

use std::sync::Arc;

pub use names::Unread;

use super::record::Record;
use names::Names;

/// Envoy's own format where a configuration gives none.
const ENVOY_DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
                             %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
                             %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
                             \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

/// How a log's lines are read.
#[derive(Debug, Clone)]
pub struct Format {
    kind: Kind,
    /// Headers by number.
    names: Arc<[Box<str>]>,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Common or combined.
    Clf(clf::LastTime),
    Envoy(envoy::Template),
    Json(json::Fields),
}

impl Format {
    /// A format by its name (`common`, `combined`, `json`, `envoy`), else by an Envoy format string; without one it is
    /// told from the first line of the log. `fields` are `name=path` of JSON lines.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(name: Option<&str>, fields: &[String], first_line: &str) -> Result<Self, String> {
        let guessed = match first_line.trim_start() {
            line if line.starts_with('{') => "json",
            line if line.starts_with('[') => "envoy",
            _ => "combined",
        };
        let name = name.unwrap_or(if fields.is_empty() { guessed } else { "json" });
        if name != "json" && !fields.is_empty() {
            return Err("--field is for JSON lines (--format json)".to_owned());
        }
        let mut names = Names::default();
        let kind = match name {
            "common" | "combined" => {
                names.number("referer");
                names.number("user-agent");
                Kind::Clf(clf::LastTime::default())
            }
            "json" => Kind::Json(json::Fields::new(fields, &mut names)?),
            "envoy" => Kind::Envoy(envoy::Template::new(ENVOY_DEFAULT, &mut names)?),
            text if text.contains('%') => Kind::Envoy(envoy::Template::new(text, &mut names)?),
            other => {
                return Err(format!(
                    "{other:?} is no format: give common, combined, json, envoy, or a format string of Envoy's access log"
                ));
            }
        };
        Ok(Self {
            kind,
            names: names.0.into(),
        })
    }

    /// Whether the client's address is the one that Envoy trusts; else it is the connection's other end.
    #[must_use]
    pub fn client_is_final(&self) -> bool {
        match &self.kind {
            Kind::Envoy(template) => template.client_is_final(),
            Kind::Clf(_) | Kind::Json(_) => true,
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(&self, line: &[u8], record: &mut Record) -> Result<(), Unread> {
        let line = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
        record.clear(&self.names);
        match &self.kind {
            Kind::Clf(last) => clf::parse(line, last, record)?,
            Kind::Envoy(template) => template.parse(line, record)?,
            Kind::Json(fields) => fields.parse(line, record)?,
        }
        if record.at_us == 0 {
            return Err("no time");
        }
        Ok(())
    }
}
