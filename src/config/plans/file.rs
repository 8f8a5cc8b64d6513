//! A source that is a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::super::error::{ConfigError, ConfigErrors, Origin};
use super::super::problem::Problem;
use super::lines::SourceLines;
use crate::rules::RuleSet;
use crate::rules::plans::{PlanOrigin, PlanRows, PlanSource};

/// Largest file of a source, in bytes.
pub const MAX_BYTES: u64 = 1 << 30;
/// What is read at once.
const PIECE: usize = 64 << 10;

/// Reads a source's file, piece by piece.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(source: &PlanSource, path: &Path) -> Result<PlanRows, ConfigErrors> {
    let name: Arc<str> = path.to_string_lossy().into();
    let failed = |problem: Problem| {
        let origin = Origin {
            name: Arc::clone(&name),
            text: None,
        };
        let mut errors = ConfigErrors::default();
        errors.push(ConfigError::new(&origin, None, String::new(), problem));
        errors
    };
    let unreadable = |error: std::io::Error| {
        let reason = error.to_string();
        failed(Problem::Unreadable { reason })
    };
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        let reason = "it is no file".to_owned();
        return Err(failed(Problem::Unreadable { reason }));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut lines = SourceLines::new(source, Arc::clone(&name));
    let mut piece = vec![0; PIECE];
    let mut left = MAX_BYTES;
    loop {
        let read = file.read(&mut piece).map_err(unreadable)?;
        let Some(text) = piece.get(..read).filter(|text| !text.is_empty()) else {
            break;
        };
        left = match left.checked_sub(text.len() as u64) {
            Some(left) => left,
            None => return Err(failed(Problem::TooLarge { max: MAX_BYTES })),
        };
        if !lines.feed(text) {
            break;
        }
    }
    lines.finish()
}

/// Reads the sources of rules that are files, where nothing keeps them fresh: for checks and tests of rules.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn load_all(rules: &RuleSet) -> Result<(), ConfigErrors> {
    let mut errors = ConfigErrors::default();
    for source in &rules.sources {
        let PlanOrigin::File { path, .. } = &source.from else {
            continue;
        };
        match load(source, Path::new(&**path)) {
            Ok(rows) => drop(source.replace(Arc::new(rows))),
            Err(wrong) => errors.append(wrong),
        }
    }
    errors.into_result(())
}
