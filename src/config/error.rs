//! What can be wrong with rules: typed, each with its place and how to fix it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::{self, Write};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::problem::Problem;

/// Most errors that one load keeps; further ones are only counted.
pub const MAX_ERRORS: usize = 1000;
/// Most warnings that one load keeps; further ones are only counted.
pub const MAX_WARNINGS: usize = 100;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// From 0, in bytes.
    pub offset: usize,
    /// In bytes.
    pub length: usize,
}

/// Where a rules file (or an xDS resource) comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// A path, or the name of a resource.
    pub name: Arc<str>,
    /// The text that places refer to, if there is one.
    pub text: Option<Arc<str>>,
}

/// Whether what was found keeps the rules from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// The rules can be used, but a part of them does not do what it seems to.
    Warning,
}

/// One error, or one warning.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// Which file.
    pub origin: Origin,
    /// Where in it; `None` = the file as a whole, or a resource without text.
    pub place: Option<Place>,
    /// Where in the rules' tree: domain and levels joined by ` / `, for instance `basic / user=alice / path`.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
    /// The same as miette wants it.
    source_code: Option<NamedSource<Arc<str>>>,
}

impl ConfigError {
    /// An error at a place.
    #[must_use]
    pub fn new(origin: &Origin, place: Option<Place>, path: String, problem: Problem) -> Self {
        let source_code = origin
            .text
            .as_ref()
            .map(|text| NamedSource::new(&*origin.name, Arc::clone(text)).with_language("yaml"));
        Self {
            origin: origin.clone(),
            place,
            path,
            problem,
            source_code,
        }
    }
}

/// `file:line:column: path in the tree: what is wrong` on one line.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin.name)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.problem)
    }
}

impl Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place?;
        self.source_code.as_ref().map(|code| code as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place?;
        let span = (place.offset, place.length);
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(
            Some("here".to_owned()),
            span,
        ))))
    }
}

/// Every error of one load, and what was only warned of.
#[derive(Debug, Clone, Default)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    dropped: usize,
    warnings: Warnings,
}

/// What was found in rules that can be used.
#[derive(Debug, Clone, Default)]
pub struct Warnings {
    warnings: Vec<ConfigError>,
    dropped: usize,
}

impl Warnings {
    fn push(&mut self, warning: ConfigError) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Those that are kept, in the order in which they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.warnings
    }

    /// One text for each, with its cure; the last one says how many more there were.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let line = |warning: &ConfigError| {
            let help = warning
                .problem
                .help()
                .map_or_else(String::new, |help| format!(" ({help})"));
            format!("{warning}{help}")
        };
        let more = (self.dropped > 0).then(|| format!("… and {} more warnings", self.dropped));
        self.warnings.iter().map(line).chain(more)
    }
}

impl ConfigErrors {
    /// Adds one.
    pub fn push(&mut self, error: ConfigError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Adds one of either kind.
    pub fn add(&mut self, severity: Severity, found: ConfigError) {
        match severity {
            Severity::Error => self.push(found),
            Severity::Warning => self.warnings.push(found),
        }
    }

    /// What was only warned of.
    #[must_use]
    pub const fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// Adds those of another.
    pub fn append(&mut self, other: Self) {
        for error in other.errors {
            self.push(error);
        }
        self.dropped = self.dropped.saturating_add(other.dropped);
        for warning in other.warnings.warnings {
            self.warnings.push(warning);
        }
        self.warnings.dropped = self.warnings.dropped.saturating_add(other.warnings.dropped);
    }

    /// Puts them in the order of their files, and of their places within a file.
    pub fn sort<'n>(&mut self, files: impl Iterator<Item = &'n str>) {
        let order: HashMap<&str, usize> = files.zip(0..).collect();
        let place = |error: &ConfigError| {
            let file = order.get(&*error.origin.name).copied();
            (file, error.place.map(|place| place.offset))
        };
        self.errors.sort_by_key(place);
        self.warnings.warnings.sort_by_key(place);
    }

    /// Those that are kept, in the order of files and lines in which they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.errors
    }

    /// How many there are, kept or not.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.errors.len().saturating_add(self.dropped)
    }

    /// `Err` with them if there are any.
    ///
    /// # Errors
    /// Itself, unless it has no errors.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        self.with_warnings(value).map(|(value, _)| value)
    }

    /// The value with the warnings, or `Err` with everything if there are errors.
    ///
    /// # Errors
    /// Itself, unless it has no errors.
    pub fn with_warnings<T>(self, value: T) -> Result<(T, Warnings), Self> {
        if self.errors.is_empty() {
            Ok((value, self.warnings))
        } else {
            Err(self)
        }
    }

    /// For people: each error with how to fix it; `fancy` = with the lines around it, for a terminal.
    #[must_use]
    pub fn render(&self, fancy: bool) -> String {
        let mut out = String::new();
        let handler = miette::GraphicalReportHandler::new();
        for error in &self.errors {
            // Writing to a String cannot fail; if the graphics do, the plain line is there.
            if !fancy || handler.render_report(&mut out, error).is_err() {
                let _ = writeln!(out, "{error}");
                if let Some(help) = error.problem.help() {
                    let _ = writeln!(out, "  help: {help}");
                }
            }
        }
        if self.dropped > 0 {
            let _ = writeln!(out, "… and {} more", self.dropped);
        }
        for warning in self.warnings.lines() {
            let _ = writeln!(out, "warning: {warning}");
        }
        let count = self.count();
        let plural = if count == 1 { "" } else { "s" };
        let _ = writeln!(out, "{count} error{plural}");
        out
    }
}

/// All of them in one text, a line each with its help; for logs and for NACKs.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let break_ = if at == 0 { "" } else { "\n" };
            write!(f, "{break_}{error}")?;
            if let Some(help) = error.problem.help() {
                write!(f, " ({help})")?;
            }
        }
        if self.dropped > 0 {
            write!(f, "\n… and {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}
