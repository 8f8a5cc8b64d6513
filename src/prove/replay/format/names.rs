//! What all formats share: the headers that a line has, and why it cannot be read.

use super::super::record::{BadField, Target};

/// Why a line cannot be used, in fixed words.
pub type Unread = &'static str;

impl From<BadField> for Unread {
    fn from(BadField(reason): BadField) -> Self {
        reason
    }
}

/// Headers of a format, each once.
#[derive(Debug, Default)]
pub(super) struct Names(pub Vec<Box<str>>);

impl Names {
    pub fn number(&mut self, name: &str) -> Target {
        let name = name.to_ascii_lowercase();
        let at = self.0.iter().position(|known| **known == *name).unwrap_or_else(|| {
            self.0.push(name.into());
            self.0.len() - 1
        });
        Target::Header(u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// A request header, or the pseudo-header that is a field of its own.
    pub fn target(&mut self, name: &str) -> Target {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Target::Method,
            ":path" => Target::Path,
            ":authority" | "host" => Target::Host,
            name => self.number(name),
        }
    }
}
