//! Results as JUnit XML, which CI systems show.

use std::fmt::{self, Write};

use super::report::{FileReport, Report, TestReport};

/// A report as JUnit XML.
pub struct Junit<'a>(pub &'a Report);

impl fmt::Display for Junit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        writeln!(f, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        let (tests, failures) = (report.tests(), report.failed());
        writeln!(f, r#"<testsuites tests="{tests}" failures="{failures}">"#)?;
        for file in &report.files {
            suite(f, file)?;
        }
        writeln!(f, "</testsuites>")
    }
}

fn suite(f: &mut fmt::Formatter<'_>, file: &FileReport) -> fmt::Result {
    let (tests, failures, name) = (file.tests.len(), file.failed(), Escaped(&file.name));
    writeln!(
        f,
        r#"  <testsuite name="{name}" tests="{tests}" failures="{failures}">"#
    )?;
    for test in &file.tests {
        case(f, file, test)?;
    }
    writeln!(f, "  </testsuite>")
}

fn case(f: &mut fmt::Formatter<'_>, file: &FileReport, test: &TestReport) -> fmt::Result {
    let (name, class, line) = (Escaped(&test.name), Escaped(&file.name), test.line);
    write!(
        f,
        r#"    <testcase name="{name}" classname="{class}" file="{class}" line="{line}""#
    )?;
    if test.misses.is_empty() {
        return writeln!(f, "/>");
    }
    writeln!(f, ">")?;
    for miss in &test.misses {
        let message = miss.expected.iter().zip(&miss.came);
        let message: Vec<String> = message
            .map(|(want, came)| format!("expected {want}, came {came}"))
            .collect();
        let message = message.join("; ");
        let text = format!("{}:{}: {miss}", file.name, miss.line);
        writeln!(
            f,
            r#"      <failure message="{}">{}</failure>"#,
            Escaped(&message),
            Escaped(&text)
        )?;
    }
    writeln!(f, "    </testcase>")
}

/// Text in an XML document; what XML 1.0 cannot hold, even escaped, becomes U+FFFD.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\n' => f.write_str("&#10;")?,
                '\t' => f.write_str("&#9;")?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
