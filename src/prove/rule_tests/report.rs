//! Results of tests, for people and (by serde) for programs.

use std::fmt;

use serde::Serialize;

use crate::config::problem::Clipped;

/// Results of all files.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order of the command line.
    pub files: Vec<FileReport>,
}

/// Results of one file.
#[derive(Debug, Serialize)]
pub struct FileReport {
    /// The file.
    pub name: String,
    /// In the order of the file.
    pub tests: Vec<TestReport>,
    /// Rules that its requests reached.
    pub coverage: Coverage,
    /// What was decided otherwise than by a server.
    pub notes: Vec<String>,
}

/// Result of one test.
#[derive(Debug, Serialize)]
pub struct TestReport {
    /// The test.
    pub name: String,
    /// Where it begins, from 1; 0 = unknown.
    pub line: usize,
    /// Requests that were asked.
    pub requests: u64,
    /// Steps that went wrong; empty = passed.
    pub misses: Vec<Miss>,
}

/// A step whose expectation was wrong.
#[derive(Debug, Serialize)]
pub struct Miss {
    /// Of the expectation, from 1; 0 = unknown.
    pub line: usize,
    /// From 1.
    pub step: usize,
    /// Which of the step's requests, from 0.
    pub repetition: u32,
    /// How many requests the step has.
    pub times: u32,
    /// Since the test's start.
    pub at: String,
    /// What was expected and did not come.
    pub expected: Vec<String>,
    /// What came instead, one for each.
    pub came: Vec<String>,
    /// Which rule decided what, a line for each descriptor.
    pub why: Vec<String>,
    /// Further requests of the step that went wrong.
    pub further: u32,
}

/// Which rules the requests of a file reached.
#[derive(Debug, Serialize)]
pub struct Coverage {
    /// Rules in the files that are tested.
    pub rules: usize,
    /// Those that applied to a descriptor at least once.
    pub reached: usize,
    /// The others.
    pub unreached: Vec<String>,
}

impl Report {
    /// Tests that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.files.iter().map(FileReport::failed).sum()
    }

    /// Tests.
    #[must_use]
    pub fn tests(&self) -> usize {
        self.files.iter().map(|file| file.tests.len()).sum()
    }
}

impl FileReport {
    /// Tests of the file that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.tests.iter().filter(|test| !test.misses.is_empty()).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            for test in file.tests.iter().filter(|test| !test.misses.is_empty()) {
                writeln!(f, "FAILED  {}:{}: {}", file.name, test.line, Clipped(&test.name))?;
                for miss in &test.misses {
                    writeln!(f, "  {}:{}: {miss}", file.name, miss.line)?;
                }
            }
            let Coverage {
                rules,
                reached,
                unreached,
            } = &file.coverage;
            let passed = file.tests.len() - file.failed();
            writeln!(
                f,
                "{}: {passed} of {} tests passed, {reached} of {rules} rules reached",
                file.name,
                file.tests.len()
            )?;
            for rule in unreached {
                writeln!(f, "  not reached: {rule}")?;
            }
            for note in &file.notes {
                writeln!(f, "  note: {note}")?;
            }
        }
        match (self.tests(), self.failed()) {
            (tests, 0) => write!(f, "ok: {tests} passed"),
            (tests, failed) => write!(f, "FAILED: {failed} of {tests}"),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, at {}", self.step, self.at)?;
        if self.times > 1 {
            write!(f, ", request {} of {}", self.repetition + 1, self.times)?;
        }
        for (expected, came) in self.expected.iter().zip(&self.came) {
            write!(f, "\n    expected {expected}\n    came     {came}")?;
        }
        for why in &self.why {
            write!(f, "\n    because  {why}")?;
        }
        if self.further > 0 {
            write!(f, "\n    and {} further requests of this step", self.further)?;
        }
        Ok(())
    }
}
