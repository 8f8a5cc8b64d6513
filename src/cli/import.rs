//! `sluicegate import`: rules from another rate limiter's limits.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::{fail, print};
use crate::config::{ConfigErrors, Snapshot, Source, import};

/// Flags of `import limitador`.
#[derive(Debug, Args)]
pub(super) struct LimitadorArgs {
    /// The limits file (`limits.yaml`)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Limits of this namespace, if the file has several: a rules file has one domain
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
}

pub(super) fn limitador(args: LimitadorArgs) -> ExitCode {
    let wrong = |errors: &ConfigErrors| fail(&errors.render(std::io::stderr().is_terminal()), 1);
    if args.file.is_dir() {
        return fail(
            &format_args!("{}: give one limits file, not a directory", args.file.display()),
            1,
        );
    }
    let Snapshot { texts, errors } = Source::new(vec![args.file]).read();
    let Some(text) = texts.first() else {
        return wrong(&errors);
    };
    match import::limitador(text, args.namespace.as_deref()) {
        Ok(rules) => print(&rules.trim_end()),
        Err(errors) => wrong(&errors),
    }
}
