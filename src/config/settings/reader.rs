//! Reads variables, and remembers what was wrong and what had no effect.

use std::fmt;
use std::path::PathBuf;

use super::super::compat::Compatibility;
use super::errors::{Collector, SettingsErrors};
use super::listing::{of_variable, variables};
use super::model::Settings;
use super::setting::Topic;
use super::values;
use crate::tls::ServerTls;

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

/// A variable of the process. A value that is no UTF-8 is none that any setting allows.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

pub(super) struct Reader<'e> {
    /// The value of a variable, or of the flag that stands for it.
    env: &'e dyn Fn(&str) -> Option<String>,
    /// What messages call a variable.
    called: fn(&str) -> String,
    errors: Collector,
    notices: Vec<Notice>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>, called: fn(&str) -> String) -> Self {
        Self {
            env,
            called,
            errors: Collector::default(),
            notices: Vec::new(),
        }
    }

    /// A variable's value, if it is set to something. A newline at its end is none of it: files and Kubernetes Secrets
    /// end in one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let mut value = (self.env)(name)?;
        value.truncate(value.trim_end_matches(['\n', '\r']).len());
        Some(value).filter(|value| !value.is_empty())
    }

    /// A path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// A value; one that is wrong is noted (without the value, if that is secret) and counts as absent.
    pub(super) fn parse<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.text(name)?;
        match parse(value.trim()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.wrong(name, &value, problem);
                None
            }
        }
    }

    /// Parses every setting that has a field of its own into it.
    pub(super) fn fields(&mut self, settings: &mut Settings) {
        for setting in variables() {
            if let (Some(parse), Some(value)) = (setting.field, self.text(setting.variable))
                && let Err(problem) = parse(settings, value.trim())
            {
                self.wrong(setting.variable, &value, problem);
            }
        }
    }

    fn wrong(&mut self, name: &str, value: &str, problem: String) {
        let called = (self.called)(name);
        if of_variable(name).is_some_and(|setting| setting.secret) {
            self.errors.problem(&called, problem);
        } else {
            self.errors.bad(&called, value, problem);
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

    /// TLS on the admin listener, which asks for no certificates of clients: they have the token.
    pub(super) fn admin_tls(&mut self) -> Option<ServerTls> {
        let (cert, key) = self.identity("ADMIN_TLS_CERT", "ADMIN_TLS_KEY")?;
        Some(ServerTls {
            cert,
            key,
            client_ca: None,
            client_sans: Vec::new(),
        })
    }

    /// Notes a problem with a variable whose value is missing or secret.
    pub(super) fn problem(&mut self, name: &str, problem: impl Into<String>) {
        self.errors.problem(&(self.called)(name), problem);
    }

    /// Notes those of `names` that are set (to something that differs from the default): they have no effect, for this
    /// reason.
    pub(super) fn idle(&mut self, names: &[&'static str], why: &'static str) {
        for name in names {
            let usual = of_variable(name).map(|setting| setting.default);
            if self.text(name).is_some_and(|value| Some(value.as_str()) != usual) {
                self.notices.push(Notice { name, why });
            }
        }
    }

    /// The same for every setting about something, but for those that never have an effect and `but`.
    pub(super) fn idle_topic(&mut self, topic: Topic, but: &[&str], why: &'static str) {
        for setting in topic.settings() {
            if !matches!(setting.compat, Compatibility::Ignored(_)) && !but.contains(&setting.variable) {
                self.idle(&[setting.variable], why);
            }
        }
    }

    /// The same for every variable that never has an effect.
    pub(super) fn without_effect(&mut self) {
        for setting in variables() {
            if let Compatibility::Ignored(why) = setting.compat {
                self.idle(&[setting.variable], why);
            }
        }
    }

    pub(super) fn finish<T>(self, settings: T) -> Result<(T, Vec<Notice>), SettingsErrors> {
        self.errors.finish((settings, self.notices))
    }
}
