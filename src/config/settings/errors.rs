//! What is wrong with the settings: all of it in one go.

use std::fmt;

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The variable or flag.
    pub name: String,
    /// What it said; `None` if it is a secret or was missing.
    pub value: Option<String>,
    /// What is wrong, or what is allowed.
    pub problem: String,
}

/// At least one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsErrors(pub Vec<SettingError>);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, problem, .. } = self;
        match &self.value {
            // Debug form: quoted, controls escaped.
            Some(value) => write!(f, "{name}={value:?}: {problem}"),
            None => write!(f, "{name}: {problem}"),
        }
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsErrors {}

/// Collects errors while settings are read.
#[derive(Debug, Default)]
pub(super) struct Collector(Vec<SettingError>);

impl Collector {
    /// Notes an error with the value that is wrong.
    pub(super) fn bad(&mut self, name: &str, value: &str, problem: impl Into<String>) {
        self.0.push(SettingError {
            name: name.into(),
            value: Some(value.into()),
            problem: problem.into(),
        });
    }

    /// Notes an error whose value is missing or secret.
    pub(super) fn problem(&mut self, name: &str, problem: impl Into<String>) {
        self.0.push(SettingError {
            name: name.into(),
            value: None,
            problem: problem.into(),
        });
    }

    /// Notes errors that were found elsewhere.
    pub(super) fn all(&mut self, errors: SettingsErrors) {
        self.0.extend(errors.0);
    }

    /// Hands out `value` if nothing was noted.
    pub(super) fn finish<T>(self, value: T) -> Result<T, SettingsErrors> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(SettingsErrors(self.0))
        }
    }
}
