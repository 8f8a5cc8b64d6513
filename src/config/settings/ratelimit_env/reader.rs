//! Reads variables, and remembers what was wrong and what had no effect.

use std::fmt;
use std::path::PathBuf;

use super::super::errors::{Collector, SettingsErrors};
use super::super::values;
use super::table::{Fate, VARIABLES};

/// A variable that is set but has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The variable.
    pub name: &'static str,
    /// Why.
    pub why: &'static str,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.name, self.why)
    }
}

pub(super) struct Reader<'e> {
    env: &'e dyn Fn(&str) -> Option<String>,
    errors: Collector,
    notices: Vec<Notice>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            env,
            errors: Collector::default(),
            notices: Vec::new(),
        }
    }

    /// A variable's value, if it is set to something.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// A path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// A value; one that is wrong is noted and counts as absent.
    pub(super) fn parse<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.text(name)?;
        match parse(value.trim()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.errors.bad(name, &value, problem);
                None
            }
        }
    }

    /// The same for a value that must not be printed.
    pub(super) fn parse_secret<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.text(name)?.trim()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.errors.problem(name, problem);
                None
            }
        }
    }

    /// Overwrites `slot` if the variable is set and right.
    pub(super) fn set<T>(&mut self, slot: &mut T, name: &str, parse: impl Fn(&str) -> Result<T, String>) {
        if let Some(value) = self.parse(name, parse) {
            *slot = value;
        }
    }

    /// A truth value; false if unset.
    pub(super) fn truth(&mut self, name: &str) -> bool {
        self.parse(name, values::boolean).unwrap_or(false)
    }

    /// A TCP port.
    pub(super) fn port(&mut self, name: &str) -> Option<u16> {
        self.parse(name, |text| {
            let hint = if text.contains("://") {
                "; this is what Kubernetes sets for a Service of that name: rename the Service, or set \
                 enableServiceLinks: false in the pod"
            } else {
                ""
            };
            text.parse()
                .map_err(|_| format!("allowed is a port from 0 to 65535{hint}"))
        })
    }

    /// The files of a certificate and its key, if they are named; one without the other is noted.
    pub(super) fn identity(&mut self, cert: &str, key: &str) -> Option<(PathBuf, PathBuf)> {
        match (self.path(cert), self.path(key)) {
            (Some(cert), Some(key)) => return Some((cert, key)),
            (None, None) => {}
            (with_cert, _) => self.problem(
                if with_cert.is_some() { key } else { cert },
                "is needed: a certificate and its key come together",
            ),
        }
        None
    }

    /// Notes a problem with a variable whose value is missing or secret.
    pub(super) fn problem(&mut self, name: &str, problem: impl Into<String>) {
        self.errors.problem(name, problem);
    }

    /// Notes those of `names` that are set (to something that differs from the default): they have no effect, for this
    /// reason.
    pub(super) fn idle(&mut self, names: &[&'static str], why: &'static str) {
        for name in names {
            let usual = VARIABLES
                .iter()
                .find(|variable| variable.name == *name)
                .map(|variable| variable.default);
            if self.text(name).is_some_and(|value| Some(value.as_str()) != usual) {
                self.notices.push(Notice { name, why });
            }
        }
    }

    /// The same for every variable that never has an effect here.
    pub(super) fn without_effect(&mut self) {
        for variable in VARIABLES {
            if let Fate::NotTaken(why) = variable.fate {
                self.idle(&[variable.name], why);
            }
        }
    }

    pub(super) fn finish<T>(self, settings: T) -> Result<(T, Vec<Notice>), SettingsErrors> {
        self.errors.finish((settings, self.notices))
    }
}
