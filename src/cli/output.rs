//! What every subcommand ends with: a runtime, a report, an exit code.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Runs a future on a runtime with a thread for each core.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, ExitCode> {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => Err(fail(&format_args!("cannot start the runtime: {error}"), 1)),
    }
}

/// Writes a report to standard output as one line of JSON.
pub(crate) fn print_json(report: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string(report) {
        Ok(text) => print(&text),
        Err(error) => fail(&error, 1),
    }
}

/// Writes a line to standard output.
pub(crate) fn print(text: &dyn std::fmt::Display) -> ExitCode {
    let mut out = std::io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A closed pipe is the reader's choice, not a failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&format_args!("standard output: {error}"), 1),
        _ => ExitCode::SUCCESS,
    }
}

/// Writes an error to standard error; the process is to end with `code`.
pub(crate) fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
