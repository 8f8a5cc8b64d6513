//! Subcommands. Each is one function that turns its flags into a call of the room that does the work.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::app::App;
use crate::bench::{self, BenchArgs, noop::NoopArgs};
use crate::config::settings::{ServeArgs, Settings, values};
use crate::config::{self, Source, Summary};
use crate::model::AlgorithmKind;
use crate::rules::Defaults;
use crate::telemetry::logs;

/// A rate limiter for Envoy whose limits are never passed.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: answer Envoy's rate limit requests
    Serve(Box<ServeArgs>),
    /// Validate rules files without serving; every error in every file, exit code 1 if there is one
    Check(CheckArgs),
    /// Ask a running process whether it is healthy; exit code 0 if it is (for a container's health check)
    Health(HealthArgs),
    /// Put load on any server with this gRPC interface; report throughput, latency and answers
    Bench(Box<BenchArgs>),
    /// Serve answers that cost nothing: the floor that a measurement is compared with
    #[command(hide = true)]
    BenchNoop(NoopArgs),
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
        Command::Serve(args) => serve(*args),
        Command::Check(args) => check(&args),
        Command::Health(args) => health(&args),
        Command::Bench(args) => bench(*args),
        Command::BenchNoop(args) => bench_noop(&args),
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    let settings = match args.into_settings() {
        Ok(settings) => settings,
        Err(errors) => return fail(&errors, 2),
    };
    if let Err(error) = logs::init(settings.telemetry.log_format, &settings.telemetry.log_level) {
        return fail(&error, 2);
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

fn bench(args: BenchArgs) -> ExitCode {
    let json = args.json;
    match block_on(bench::run(args)) {
        Ok(Ok(report)) if json => match serde_json::to_string(&report) {
            Ok(text) => print(&text),
            Err(error) => fail(&error, 1),
        },
        Ok(Ok(report)) => print(&report),
        Ok(Err(error)) => fail(&error, 1),
        Err(code) => code,
    }
}

fn bench_noop(args: &NoopArgs) -> ExitCode {
    match block_on(bench::noop::serve(args)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error, 1),
        Err(code) => code,
    }
}

/// Runs a future on a runtime with a thread for each core.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, ExitCode> {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => Err(fail(&format_args!("cannot start the runtime: {error}"), 1)),
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
