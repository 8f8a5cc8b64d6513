//! `sluicegate top`: which keys are denied most, or asked most, as a list that refreshes.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use terminal_size::{Height, Width, terminal_size};

use super::client::{ClientError, with_query};
use super::common::{Common, Output};
use super::table;

/// Between two looks.
const REFRESH: Duration = Duration::from_secs(2);
/// Lines of a list that is printed once.
const USUAL_LINES: u16 = 20;
/// Most lines that the API gives.
const MAX_LINES: u16 = 200;
/// Lines over the list.
const HEAD_LINES: u16 = 3;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Denied,
    Hits,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Window {
    #[value(name = "1m")]
    Minute,
    #[value(name = "10m")]
    TenMinutes,
    #[value(name = "1h")]
    Hour,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// The order
    #[arg(long, value_name = "ORDER", default_value = "denied")]
    by: By,
    /// How far back
    #[arg(long, value_name = "WINDOW", default_value = "1m")]
    window: Window,
    /// Keys of the rule with this path only
    #[arg(long, value_name = "PATH")]
    rule: Option<String>,
    /// Keys of this domain only
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Keys of candidate limits in place of those in force: "denied" is what the candidates would deny
    #[arg(long)]
    candidates: bool,
    /// Lines [default: as many as the terminal has, or 20]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    lines: Option<u16>,
    /// Print once, in a terminal too
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    common: Common,
}

/// Columns and lines of the terminal.
type Size = Option<(u16, u16)>;

impl TopArgs {
    /// The question for a list that fits.
    fn path(&self, size: Size) -> String {
        let fitting = size.map_or(USUAL_LINES, |(_, height)| height.saturating_sub(HEAD_LINES));
        let lines = self.lines.unwrap_or(fitting).clamp(1, MAX_LINES).to_string();
        let (by, window) = (name(self.by), name(self.window));
        let mut query = vec![("by", by.as_str()), ("window", &window), ("limit", &lines)];
        query.extend(self.candidates.then_some(("candidates", "true")));
        query.extend(self.rule.as_deref().map(|rule| ("rule", rule)));
        query.extend(self.domain.as_deref().map(|domain| ("domain", domain)));
        with_query("/api/v1/top", query)
    }

    fn table(&self, top: &Value, size: Size) -> String {
        let is_filtered = self.rule.is_some() || self.domain.is_some();
        table::top(top, is_filtered, size.map(|(width, _)| width.into()))
    }
}

pub(super) async fn run(args: TopArgs) -> Result<(), ClientError> {
    let client = args.common.open()?;
    let refreshes = !args.once && args.common.output == Output::Table && std::io::stdout().is_terminal();
    if !refreshes {
        let top = client.get(&args.path(None)).await?;
        args.common.show(&top, |top| args.table(top, None));
        return Ok(());
    }
    // What is wrong with the question itself ends it; a later look that fails does not.
    let mut newest = client.get(&args.path(size())).await?;
    let mut problem = None;
    loop {
        let size = size();
        let text = args.table(&newest, size);
        let mut out = std::io::stdout();
        let shown = write!(out, "{}", frame(&text, problem.as_deref(), size)).and_then(|()| out.flush());
        // A closed terminal ends it.
        if shown.is_err() {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
        match client.get(&args.path(self::size())).await {
            Ok(top) => (newest, problem) = (top, None),
            Err(error) => problem = Some(error.to_string()),
        }
    }
}

fn size() -> Size {
    terminal_size().map(|(Width(width), Height(height))| (width, height))
}

/// What makes the terminal show a text, and nothing else: from its first line on, no line longer than it, and no more lines than it
/// has. Over it what is wrong, if anything is.
fn frame(text: &str, problem: Option<&str>, size: Size) -> String {
    // Over the list, in place of the empty line that follows the first.
    let problem = problem.and_then(|problem| problem.lines().next());
    let problem = problem.map(|problem| format!("NO ANSWER, this is old; trying again: {problem}"));
    let (width, height) = size.map_or((usize::MAX, usize::MAX), |(width, height)| {
        (width.into(), height.into())
    });
    let mut lines: Vec<&str> = text.lines().collect();
    if let (Some(problem), Some(place)) = (&problem, lines.get_mut(1)) {
        *place = problem;
    }
    let lines = lines.into_iter().take(height).map(|line| table::clipped(line, width));
    // Home; each line's rest is cleared, and what stood below. No line is wrapped: some characters take two columns.
    let lines: Vec<String> = lines.map(|line| format!("{line}\x1b[K")).collect();
    format!("\x1b[?7l\x1b[H{}\x1b[J\x1b[?7h", lines.join("\n"))
}

fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(frame: &str) -> Vec<&str> {
        let shown = frame
            .strip_prefix("\x1b[?7l\x1b[H")
            .and_then(|rest| rest.strip_suffix("\x1b[K\x1b[J\x1b[?7h"));
        shown.expect("a frame").split("\x1b[K\n").collect()
    }

    #[test]
    fn a_frame_fits_the_terminal_and_does_not_scroll_it() {
        let text = "9 decisions\n\nDENIED  DESCRIPTOR\n     3  user=alice\n     2  user=bob\n";
        assert_eq!(lines_of(&frame(text, None, None)), text.lines().collect::<Vec<_>>());
        let small = frame(text, None, Some((12, 4)));
        assert_eq!(lines_of(&small), ["9 decisions", "", "DENIED  DES…", "     3  use…"]);
    }

    #[test]
    fn what_is_wrong_takes_no_line_from_the_list() {
        let text = "9 decisions\n\nDENIED  DESCRIPTOR\n     3  user=alice\n";
        let failed = frame(
            text,
            Some("127.0.0.1:6070 does not answer: refused\n  --admin names another"),
            None,
        );
        let wrong = "NO ANSWER, this is old; trying again: 127.0.0.1:6070 does not answer: refused";
        assert_eq!(
            lines_of(&failed),
            ["9 decisions", wrong, "DENIED  DESCRIPTOR", "     3  user=alice"]
        );
    }
}
