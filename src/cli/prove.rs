//! `test`: flags of what proves rules before they are enforced.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::settings::values;
use crate::model::AlgorithmKind;
use crate::prove::rule_tests::junit::Junit;
use crate::prove::rule_tests::run::TestError;
use crate::prove::rule_tests::{self};
use crate::rules::Defaults;

use super::{fail, print, print_json};

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
