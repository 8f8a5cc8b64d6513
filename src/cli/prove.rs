//! `test`, `replay`, `check --diff`: flags of what proves rules before they are enforced.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::settings::values;
use crate::config::{Source, read_rules};
use crate::model::AlgorithmKind;
use crate::model::time::micros;
use crate::prove::diff::Diff;
use crate::prove::replay::html::Page;
use crate::prove::replay::run::Progress;
use crate::prove::replay::{self, ReplayError};
use crate::prove::rule_tests::junit::Junit;
use crate::prove::rule_tests::run::TestError;
use crate::prove::rule_tests::{self};
use crate::rules::Defaults;

use super::output::{fail, print, print_json};

/// How rules are compiled, as with `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct CompileArgs {
    /// Algorithm of rules that name none
    #[arg(long, env, value_name = "NAME", default_value = "sliding_window", value_parser = values::algorithm)]
    default_algorithm: AlgorithmKind,
    /// Let the same domain stand in several files
    #[arg(long, env = "MERGE_DOMAIN_CONFIG")]
    merge_domains: bool,
}

impl CompileArgs {
    pub(super) fn defaults(&self) -> Defaults {
        Defaults {
            algorithm: self.default_algorithm,
            merge_domains: self.merge_domains,
            ..Defaults::default()
        }
    }
}

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Test files (docs/testing-rules.md)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the results as JUnit XML to this file, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

/// Exit code 0 = all passed, 1 = a test failed, 2 = a file cannot be run.
pub(super) fn test(args: &TestArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format_args!("cannot start the runtime: {error}"), 2),
    };
    let report = match runtime.block_on(rule_tests::run(&args.files, &args.compile.defaults())) {
        Ok(report) => report,
        Err(TestError::Config(errors)) => return fail(&errors.render(std::io::stderr().is_terminal()), 2),
        Err(error) => return fail(&error, 2),
    };
    if let Some(path) = &args.junit
        && let Err(error) = std::fs::write(path, Junit(&report).to_string())
    {
        return fail(&format_args!("{}: {error}", path.display()), 2);
    }
    let printed = if args.json { print_json(&report) } else { print(&report) };
    if report.failed() > 0 {
        return ExitCode::FAILURE;
    }
    printed
}

/// Exit code 0, whatever differs; 1 when one of the two is wrong.
pub(super) fn diff(old: &Path, new: &Path, compile: &CompileArgs) -> ExitCode {
    let read = |path: &Path| read_rules(&Source::new(vec![path.to_owned()]), &compile.defaults());
    match (read(old), read(new)) {
        (Ok(old), Ok(new)) => print(&Diff { old: &old, new: &new }),
        (Err(errors), _) | (_, Err(errors)) => fail(&errors.render(std::io::stderr().is_terminal()), 1),
    }
}

/// How often the progress is shown.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);

/// Flags of `replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Access logs, plain, gzip or zstd, in any order; `-` reads the standard input
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// Rules to decide by: files, or directories
    #[arg(long, required = true, value_name = "RULES")]
    rules: Vec<PathBuf>,
    /// Rules to compare with
    #[arg(long, value_name = "RULES")]
    against: Vec<PathBuf>,
    /// Envoy's bootstrap or /config_dump: requests become descriptors by its routes, not by `ext_authz` of the rules
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// The listener in it, where more than one has a rate limit filter
    #[arg(long, value_name = "NAME", requires = "envoy")]
    listener: Option<String>,
    /// common, combined, json, envoy (its default), or a format string of Envoy's access log [default: by the first line]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Where a field stands in JSON lines, for instance client=source.ip or header.x-api-key=headers.key; names: time,
    /// method, path, host, client, duration (milliseconds), header.NAME
    #[arg(long = "field", value_name = "NAME=PATH")]
    fields: Vec<String>,
    /// The host of requests whose log has none
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Lines that are at most so late are set right; Envoy writes a line when its request is done
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    reorder_window: Duration,
    /// Counters that are kept for each set of rules
    #[arg(long, value_name = "COUNT", default_value = "1000000")]
    max_keys: NonZeroUsize,
    /// Share of denied requests, in per cent, for which limits are advised
    #[arg(long, value_name = "PERCENT", default_value = "0.1", value_parser = percent)]
    deny_at_most: f64,
    /// Keys of each rule that are listed
    #[arg(long, value_name = "COUNT", default_value = "10")]
    top: usize,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Write the results as one HTML page with charts to this file, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArgs,
}

/// A number from 0 to 100.
fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 100".to_owned()),
    }
}

/// Exit code 0, or 2 when the logs cannot be replayed, or have lines and none that can be used.
pub(super) fn replay(args: ReplayArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format_args!("cannot start the runtime: {error}"), 2),
    };
    let options = replay::Options {
        defaults: args.compile.defaults(),
        rules: args.rules,
        against: args.against,
        envoy: args.envoy,
        listener: args.listener,
        format: args.format,
        fields: args.fields,
        host: args.host,
        window_us: micros(args.reorder_window),
        max_keys: args.max_keys,
        deny_share: args.deny_at_most / 100.0,
        top: args.top,
        logs: args.logs,
    };
    let result = runtime.block_on(replay::run(&options, show_progress()));
    clear_progress();
    let report = match result {
        Ok(report) => report,
        Err(ReplayError::Config(errors)) => return fail(&errors.render(std::io::stderr().is_terminal()), 2),
        Err(error) => return fail(&error, 2),
    };
    if let Some(path) = &args.html
        && let Err(error) = std::fs::write(path, Page(&report).to_string())
    {
        return fail(&format_args!("{}: {error}", path.display()), 2);
    }
    let printed = if args.json {
        print_json(&report)
    } else {
        print(&report.to_string().trim_end())
    };
    if report.requests == 0 && report.unreadable.lines() > 0 {
        return fail(&"no line could be used: the reasons stand in the report", 2);
    }
    printed
}

/// Shows how far it is, on a terminal only.
fn show_progress() -> impl FnMut(Progress) {
    let start = Instant::now();
    let mut last = start;
    let is_terminal = std::io::stderr().is_terminal();
    move |progress| {
        if !is_terminal || last.elapsed() < PROGRESS_PERIOD {
            return;
        }
        last = Instant::now();
        let Progress {
            lines,
            bytes,
            total_bytes,
        } = progress;
        let share = total_bytes
            .map(|total| format!("{:>3} %, ", bytes.saturating_mul(100) / total.max(1)))
            .unwrap_or_default();
        let per_second = u128::from(lines) * 1000 / start.elapsed().as_millis().max(1);
        let _ = write!(std::io::stderr(), "\r{share}{lines} lines, {per_second} a second   ");
    }
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}
