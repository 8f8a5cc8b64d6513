//! Subcommands. Each is one function that turns its flags into a call of the module that does the work.

mod import;
mod operate;
pub(crate) mod output;
mod prove;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use self::output::{block_on, fail, print};
use crate::app::App;
use crate::config::settings::{self, Notice, ServeArgs, Settings, listing, values};
use crate::config::{self, Source, Summary};
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
    /// Flags that nobody knows.
    #[arg(skip)]
    ignored: Vec<OsString>,
}

impl Cli {
    /// Reads this process' command line, and ends it where that is wrong or asks for help.
    ///
    /// Called as `ratelimit`, unknown flags are ignored: envoyproxy/ratelimit reads none, and published manifests give it
    /// some (Envoy AI Gateway's `--quotaRateLimitServiceAddr`).
    #[must_use]
    pub fn of_process() -> Self {
        let args: Vec<OsString> = std::env::args_os().collect();
        Self::try_parse_from(&args).unwrap_or_else(|error| match args.split_first() {
            Some((name, flags)) if error.kind() == ErrorKind::UnknownArgument && is_ratelimit(name, flags) => Self {
                command: None,
                ignored: flags.to_vec(),
            },
            _ => error.exit(),
        })
    }
}

/// Whether a process of this name was given flags and no subcommand.
fn is_ratelimit(name: &OsStr, flags: &[OsString]) -> bool {
    Path::new(name).file_name() == Some(OsStr::new("ratelimit"))
        && flags
            .first()
            .is_some_and(|flag| flag.as_encoded_bytes().starts_with(b"-"))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: answer Envoy's rate limit requests
    Serve(Box<ServeArgs>),
    /// Validate rules files without serving; every error in every file, exit code 1 if there is one
    Check(CheckArgs),
    /// Translate another rate limiter's limits into rules
    #[command(subcommand)]
    Import(Import),
    /// Run tests of rules on a virtual clock: requests at their times, and what must come; exit code 1 if a test fails
    Test(prove::TestArgs),
    /// Decide the requests of access logs by rules that are not in force yet; say which would have been denied
    Replay(Box<prove::ReplayArgs>),
    /// Ask a running process whether it is healthy; exit code 0 if it is (for a container's health check)
    Health(HealthArgs),
    /// List the environment variables that are read without a subcommand, with defaults and what becomes of each
    Settings(SettingsArgs),
    #[command(flatten)]
    Operate(Box<operate::Operate>),
}

/// Whose limits are translated.
#[derive(Debug, Subcommand)]
enum Import {
    /// Translate a limits file of limitador; rules on standard output, with notes as comments. Nothing is printed, and the
    /// exit code is 1, if any limit in the file cannot be translated
    Limitador(import::LimitadorArgs),
    /// Files of envoyproxy/ratelimit load as they are: this is `sluicegate check`
    EnvoyRatelimit(CheckArgs),
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
    #[arg(required_unless_present = "diff", value_name = "RULES")]
    rules: Vec<PathBuf>,
    /// Say what changes from OLD to NEW: which limits get tighter or looser, which counters start anew
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "rules")]
    diff: Option<Vec<PathBuf>>,
    #[command(flatten)]
    compile: prove::CompileArgs,
}

/// Flags of `health`: where the other process serves HTTP, from the same variables as it.
#[derive(Debug, clap::Args)]
struct HealthArgs {
    /// HTTP address of the process [default: 127.0.0.1:8080, or HOST and PORT]
    #[arg(long, env, value_name = "ADDRESS", value_parser = values::listen_address)]
    http_addr: Option<SocketAddr>,
    /// Its address as envoyproxy/ratelimit has it; ignored unless it is an IP address (shells set HOST, too)
    #[arg(long, env, value_name = "ADDRESS", hide = true)]
    host: Option<String>,
    /// Its port as envoyproxy/ratelimit has it
    #[arg(long, env, value_name = "PORT", hide = true)]
    port: Option<u16>,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::positive_duration)]
    timeout: Duration,
}

/// Does what the command line says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        None => serve_by_variables(&cli.ignored),
        Some(Command::Serve(args)) => match args.into_settings() {
            Ok((settings, notices)) => serve(settings, notices),
            Err(errors) => fail(&errors, 2),
        },
        Some(Command::Check(args)) => check(&args),
        Some(Command::Import(Import::Limitador(args))) => import::limitador(args),
        Some(Command::Import(Import::EnvoyRatelimit(args))) => {
            let _ = writeln!(
                std::io::stderr(),
                "files of envoyproxy/ratelimit load as they are: this is `sluicegate check`"
            );
            check(&args)
        }
        Some(Command::Test(args)) => prove::test(&args),
        Some(Command::Operate(operate)) => operate::run(*operate),
        Some(Command::Replay(args)) => prove::replay(*args),
        Some(Command::Health(args)) => health(&args),
        Some(Command::Settings(args)) => {
            let table = if args.markdown {
                listing::markdown()
            } else {
                listing::text()
            };
            print(&table.trim_end())
        }
    }
}

/// Where envoyproxy/ratelimit looks for rules when no variable says otherwise.
const DEFAULT_RULES: &str = "/srv/runtime_data/current/config";

/// As envoyproxy/ratelimit is started.
fn serve_by_variables(ignored: &[OsString]) -> ExitCode {
    let told = listing::variables().any(|setting| std::env::var_os(setting.variable).is_some());
    if !told && !Path::new(DEFAULT_RULES).exists() {
        return fail(
            &format_args!(
                "no subcommand, no environment variable of envoyproxy/ratelimit, and no rules in {DEFAULT_RULES}\n  \
                 to try it out: `sluicegate serve`; to see what there is: `sluicegate --help`, `sluicegate settings`"
            ),
            2,
        );
    }
    match Settings::from_ratelimit_env(settings::variable) {
        Ok((settings, notices)) => {
            let flags = format!("{ignored:?} on the command line: ignored, everything is read from the environment");
            let flags = Some(flags).filter(|_| !ignored.is_empty());
            serve(settings, notices.iter().map(Notice::to_string).chain(flags))
        }
        Err(errors) => fail(
            &format_args!("these environment variables are wrong (`sluicegate settings` lists all of them):\n{errors}"),
            2,
        ),
    }
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(settings: Settings, notices: impl IntoIterator<Item = impl Display>) -> ExitCode {
    let _logs = match logs::init(settings.telemetry.log_format, &settings.telemetry.log_level) {
        Ok(logs) => logs,
        Err(error) => return fail(&error, 2),
    };
    for notice in notices {
        tracing::warn!("{notice}");
    }
    match block_on(serve_until_signal(settings)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}

async fn serve_until_signal(settings: Settings) -> Result<(), crate::app::AppError> {
    // Before anything else: the first process of a container ignores a signal that it does not watch.
    let mut terminated = Box::pin(terminated());
    let app = tokio::select! {
        app = App::bind(settings) => app?,
        () = &mut terminated => return Ok(()),
    };
    app.serve(terminated).await
}

/// SIGTERM or SIGINT, from the call on; SIGHUP changes nothing.
fn terminated() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let watched = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    async {
        let (Ok(mut term), Ok(mut int), Ok(mut hangup)) = watched else {
            tracing::error!("signals cannot be watched; end the process with SIGKILL");
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = term.recv() => return,
                _ = int.recv() => return,
                // It would end the process with all answers under way; who sends it wants files to be read again.
                _ = hangup.recv() => tracing::info!("SIGHUP: rules and certificates are read again whenever they change"),
            }
        }
    }
}

fn health(args: &HealthArgs) -> ExitCode {
    let host = args.host.as_deref().and_then(|host| values::listen_host(host).ok());
    let fallback = SocketAddr::new(host.unwrap_or(Ipv4Addr::LOCALHOST.into()), args.port.unwrap_or(8080));
    let address = args.http_addr.unwrap_or(fallback);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format_args!("cannot start the runtime: {error}"), 1),
    };
    match runtime.block_on(crate::admin::probe::probe(address, args.timeout)) {
        Ok(()) => print(&"healthy"),
        Err(error) => fail(&error, 1),
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    if let Some([old, new]) = args.diff.as_deref() {
        return prove::diff(old, new, &args.compile);
    }
    match config::check(&Source::new(args.rules.clone()), &args.compile.defaults()) {
        Ok((Summary { domains, rules, files }, warnings)) => {
            for warning in warnings.lines() {
                let _ = writeln!(std::io::stderr(), "warning: {warning}");
            }
            let [domains, rules, files] = [(domains, "domain"), (rules, "rule"), (files, "file")].map(counted);
            print(&format_args!("ok: {domains}, {rules} in {files}"))
        }
        Err(errors) => fail(&errors.render(std::io::stderr().is_terminal()), 1),
    }
}

/// `1 rule`, `2 rules`.
fn counted((count, noun): (usize, &str)) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
