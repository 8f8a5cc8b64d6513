//! Subcommands. Each is one function that turns its flags into a call of the room that does the work.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::App;
use crate::config::settings::ratelimit_env::table;
use crate::config::settings::{Notice, ServeArgs, Settings, values};
use crate::config::{self, Source, Summary};
use crate::model::AlgorithmKind;
use crate::rules::Defaults;
use crate::telemetry::logs;

/// A rate limiter for Envoy whose limits are never passed.
///
/// Without a subcommand (also when called as `ratelimit`) it serves as envoyproxy/ratelimit does: by environment
/// variables, which `sluicegate settings` lists. To try it out: `sluicegate serve`.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: answer Envoy's rate limit requests
    Serve(Box<ServeArgs>),
    /// Validate rules files without serving; every error in every file, exit code 1 if there is one
    Check(CheckArgs),
    /// List the environment variables that are read without a subcommand, with defaults and what becomes of each
    Settings(SettingsArgs),
}

/// Flags of `settings`.
#[derive(Debug, clap::Args)]
struct SettingsArgs {
    /// As a Markdown table
    #[arg(long)]
    markdown: bool,
}

/// Flags of `check`.
#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// Rules: files, or directories
    #[arg(required = true, value_name = "RULES")]
    rules: Vec<PathBuf>,
    /// Algorithm of rules that name none
    #[arg(long, env, value_name = "NAME", default_value = "sliding_window", value_parser = values::algorithm)]
    default_algorithm: AlgorithmKind,
    /// Let the same domain stand in several files
    #[arg(long, env = "MERGE_DOMAIN_CONFIG")]
    merge_domains: bool,
}

/// Does what the command line says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        None => serve_by_variables(),
        Some(Command::Serve(args)) => match args.into_settings() {
            Ok(settings) => serve(settings, &[]),
            Err(errors) => fail(&errors, 2),
        },
        Some(Command::Check(args)) => check(&args),
        Some(Command::Settings(args)) => {
            let table = if args.markdown {
                table::markdown()
            } else {
                table::text()
            };
            print(&table.trim_end())
        }
    }
}

/// As envoyproxy/ratelimit is started.
fn serve_by_variables() -> ExitCode {
    // A value that is no UTF-8 is none that any of them allows.
    match Settings::from_ratelimit_env(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    {
        Ok((settings, notices)) => serve(settings, &notices),
        Err(errors) => fail(
            &format_args!("these environment variables are wrong (`sluicegate settings` lists all of them):\n{errors}"),
            2,
        ),
    }
}

fn serve(settings: Settings, notices: &[Notice]) -> ExitCode {
    if let Err(error) = logs::init(settings.telemetry.log_format, &settings.telemetry.log_level) {
        return fail(&error, 2);
    }
    for notice in notices {
        tracing::warn!("{notice}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format_args!("cannot start the runtime: {error}"), 1),
    };
    match runtime.block_on(serve_until_signal(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_signal(settings: Settings) -> Result<(), crate::app::AppError> {
    let app = App::bind(settings).await?;
    app.serve(terminated()).await
}

/// SIGTERM or SIGINT.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be watched; end the process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    let defaults = Defaults {
        algorithm: args.default_algorithm,
        merge_domains: args.merge_domains,
        ..Defaults::default()
    };
    match config::check(&Source::new(args.rules.clone()), &defaults) {
        Ok(Summary { domains, rules, files }) => {
            print(&format_args!("ok: {domains} domains, {rules} rules in {files} files"))
        }
        Err(errors) => fail(&errors.render(std::io::stderr().is_terminal()), 1),
    }
}

fn print(text: &dyn std::fmt::Display) -> ExitCode {
    // A closed pipe is the reader's choice, not a failure.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
