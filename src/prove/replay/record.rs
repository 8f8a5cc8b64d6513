//! One line of a log as a request: its texts stand in one buffer, which is used again and again.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::mapping::Attributes;
use crate::model::time::micros;

/// A part of the buffer.
type Span = (u32, u32);

/// What a field of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// When the request came.
    Time,
    /// The method.
    Method,
    /// The path with its query.
    Path,
    /// The authority.
    Host,
    /// The client's address, with a port or without.
    Client,
    /// How long the request took, in milliseconds.
    DurationMs,
    /// The request header of this number in the format's list.
    Header(u16),
}

/// A request of the past.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Microseconds since the Unix epoch.
    pub at_us: u64,
    /// How long it took, where the log says so.
    pub duration_us: Option<u64>,
    client: Option<IpAddr>,
    text: String,
    method: Span,
    host: Span,
    path: Span,
    headers: Vec<(u16, Span)>,
    names: Arc<[Box<str>]>,
}

/// Why a field cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadField(pub &'static str);

/// A duration that is none.
const BAD_DURATION: BadField = BadField("a duration that is no number of milliseconds");
/// A time that is none.
pub const BAD_TIME: BadField = BadField("a time that cannot be read");

impl Record {
    /// Forgets everything; `names` are the headers that the format knows.
    pub fn clear(&mut self, names: &Arc<[Box<str>]>) {
        if !Arc::ptr_eq(&self.names, names) {
            self.names = Arc::clone(names);
        }
        self.at_us = 0;
        self.duration_us = None;
        self.client = None;
        self.text.clear();
        (self.method, self.host, self.path) = ((0, 0), (0, 0), (0, 0));
        self.headers.clear();
    }

    /// Takes a field's text; the first of several for one target counts.
    ///
    /// # Errors
    /// When a time or a duration is none. Other fields that are no good count as absent.
    pub fn set(&mut self, target: Target, text: &str) -> Result<(), BadField> {
        match target {
            Target::Time => {
                if self.at_us == 0 {
                    self.at_us = super::format::time::parse(text).ok_or(BAD_TIME)?;
                }
            }
            Target::Method => keep(&mut self.text, &mut self.method, text),
            Target::Path => keep(&mut self.text, &mut self.path, text),
            Target::Host => keep(&mut self.text, &mut self.host, text),
            Target::Client => self.client = self.client.or_else(|| address(text)),
            Target::DurationMs => {
                if self.duration_us.is_none() {
                    self.duration_us = duration_us(text)?;
                }
            }
            Target::Header(number) => {
                let mut span = (0, 0);
                keep(&mut self.text, &mut span, text);
                self.headers.push((number, span));
            }
        }
        Ok(())
    }

    /// What its texts take.
    pub fn text_bytes(&self) -> usize {
        self.text.capacity()
    }

    /// Whether the line has a request header that the format knows.
    pub fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    fn part(&self, (start, end): Span) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// Milliseconds, whole or not, as microseconds; `-` or nothing = the log does not know.
fn duration_us(text: &str) -> Result<Option<u64>, BadField> {
    if matches!(text, "" | "-") {
        return Ok(None);
    }
    if let Ok(ms) = text.parse::<u64>() {
        return Ok(Some(ms.saturating_mul(1000)));
    }
    let ms: f64 = text.parse().map_err(|_| BAD_DURATION)?;
    let duration = Duration::try_from_secs_f64(ms / 1000.0).map_err(|_| BAD_DURATION)?;
    Ok(Some(micros(duration)))
}

/// Lines are bounded far below 4 GiB, so that positions fit.
fn keep(text: &mut String, span: &mut Span, value: &str) {
    if *span != (0, 0) {
        return;
    }
    let start = u32::try_from(text.len()).unwrap_or_default();
    text.push_str(value);
    *span = (start, u32::try_from(text.len()).unwrap_or_default());
}

/// `192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]:4711`
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, _port) = text.rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

impl Attributes for Record {
    fn method(&self) -> &str {
        self.part(self.method)
    }

    fn host(&self) -> &str {
        self.part(self.host)
    }

    fn path(&self) -> &str {
        self.part(self.path)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let is_named = |number: u16| {
            self.names
                .get(usize::from(number))
                .is_some_and(|known| **known == *name)
        };
        let found = self.headers.iter().find(|(number, _)| is_named(*number));
        found.map(|(_, span)| Cow::Borrowed(self.part(*span)))
    }

    fn source_address(&self) -> Option<IpAddr> {
        self.client
    }

    fn source_principal(&self) -> &str {
        ""
    }

    fn context_extension(&self, _key: &str) -> Option<&str> {
        None
    }

    fn metadata(&self, _namespace: &str, _path: &[Box<str>]) -> Option<Cow<'_, str>> {
        None
    }

    fn size(&self) -> Option<u64> {
        None
    }
}
