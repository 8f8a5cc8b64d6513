//! What a setting is: one entry of [`SECTIONS`](super::table::SECTIONS). From it come the flag of `sluicegate serve`,
//! the environment variable, their defaults, the messages about wrong values, `sluicegate settings`, and the table in
//! `docs/migrating.md`.

use super::super::compat::Compatibility;
use super::model::Settings;

/// Settings about one thing.
#[derive(Debug)]
pub struct Section {
    /// What they are about.
    pub topic: Topic,
    /// The settings.
    pub settings: &'static [Setting],
}

/// What settings are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is its title")]
pub enum Topic {
    Listeners,
    Logs,
    Rules,
    ControlPlane,
    Store,
    Counting,
    Answers,
    Metrics,
    Traces,
    Memcached,
    Process,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its environment variable, with and without `serve`.
    pub variable: &'static str,
    /// Its value when it is not set, started as envoyproxy/ratelimit is; empty = none; a text with a space in it tells
    /// how it follows from others.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// How it compares with envoyproxy/ratelimit.
    pub compat: Compatibility,
    /// Its flag of `sluicegate serve`.
    pub flag: Option<Flag>,
    /// Whether its values are never printed.
    pub secret: bool,
    /// Whether it is a flag (and its variable) of `serve` alone.
    pub serve_only: bool,
    /// Parses a value into its field; `None` where several settings are read together, by name.
    pub(super) field: Option<Parse>,
}

/// Parses a text into a field; `Err` says what is allowed.
pub(super) type Parse = fn(&mut Settings, &str) -> Result<(), String>;

/// A flag of `sluicegate serve`.
#[derive(Debug)]
pub struct Flag {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// What its value is called; `BOOL` may be left out, which means true.
    pub value: &'static str,
    /// Its default, where `serve` has another one.
    default: Option<&'static str>,
    /// What it is for, where that needs other words than the variable.
    doc: Option<&'static str>,
    /// Whether it may stand more than once.
    pub many: bool,
    /// A flag that has to stand beside it.
    pub requires: Option<&'static str>,
    /// A flag that must not stand beside it.
    pub conflicts: Option<&'static str>,
}

impl Topic {
    /// The heading over them.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Listeners => "Listeners",
            Self::Logs => "Logs",
            Self::Rules => "Rules",
            Self::ControlPlane => "Control plane",
            Self::Store => "Store",
            Self::Counting => "Counting",
            Self::Answers => "Answers",
            Self::Metrics => "Metrics",
            Self::Traces => "Traces",
            Self::Memcached => "memcached",
            Self::Process => "Process",
        }
    }
}

impl Setting {
    pub(super) const fn new(
        variable: &'static str,
        default: &'static str,
        doc: &'static str,
        compat: Compatibility,
    ) -> Self {
        Self {
            variable,
            default,
            doc,
            compat,
            flag: None,
            secret: false,
            serve_only: false,
            field: None,
        }
    }

    pub(super) const fn field(mut self, parse: Parse) -> Self {
        self.field = Some(parse);
        self
    }

    pub(super) const fn flag(mut self, name: &'static str, value: &'static str) -> Self {
        self.flag = Some(Flag {
            name,
            value,
            default: None,
            doc: None,
            many: false,
            requires: None,
            conflicts: None,
        });
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(super) const fn serve_only(mut self) -> Self {
        self.serve_only = true;
        self
    }

    pub(super) const fn serve_default(mut self, default: &'static str) -> Self {
        if let Some(flag) = &mut self.flag {
            flag.default = Some(default);
        }
        self
    }

    pub(super) const fn serve_doc(mut self, doc: &'static str) -> Self {
        if let Some(flag) = &mut self.flag {
            flag.doc = Some(doc);
        }
        self
    }

    pub(super) const fn many(mut self) -> Self {
        if let Some(flag) = &mut self.flag {
            flag.many = true;
        }
        self
    }

    pub(super) const fn requires(mut self, other: &'static str) -> Self {
        if let Some(flag) = &mut self.flag {
            flag.requires = Some(other);
        }
        self
    }

    pub(super) const fn conflicts_with(mut self, other: &'static str) -> Self {
        if let Some(flag) = &mut self.flag {
            flag.conflicts = Some(other);
        }
        self
    }

    /// The default as a value; `None` where there is none, or it follows from other settings.
    pub(super) fn default_value(&self) -> Option<&'static str> {
        value(self.default)
    }

    /// The default of `serve` as a value.
    pub(super) fn serve_default_value(&self) -> Option<&'static str> {
        self.flag
            .as_ref()
            .and_then(|flag| value(flag.default.unwrap_or(self.default)))
    }

    /// The flag's help.
    pub(super) fn help(&self, flag: &Flag) -> String {
        let doc = flag.doc.unwrap_or(self.doc);
        let mut chars = doc.chars();
        let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
        let default = match flag.default.unwrap_or(self.default) {
            "" => "none",
            default => default,
        };
        // Addresses and names of schemes stay as they are.
        let doc = if doc.contains("://") {
            doc.to_owned()
        } else {
            format!("{first}{}", chars.as_str())
        };
        format!("{doc} [default: {default}]")
    }
}

fn value(default: &'static str) -> Option<&'static str> {
    Some(default).filter(|default| !default.is_empty() && !default.contains(' '))
}
