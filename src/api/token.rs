//! The bearer token.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::tls::reload::{EVERY, Reloaded};

/// Longest token file, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;
/// Shortest token, in bytes.
const MIN_TOKEN_BYTES: usize = 16;
/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// It holds none.
    #[error("{0}: a token is one line of {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} visible ASCII characters")]
    NoToken(PathBuf),
}

/// A bearer token from a file that is read again when it changes. Only its hash is kept.
pub struct Token(Reloaded<blake3::Hash>);

impl Token {
    /// Reads it. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no token in the file.
    pub fn open(file: &Path) -> Result<Self, TokenError> {
        let path = file.to_owned();
        Reloaded::start("the admin token", vec![path.clone()], EVERY, move || read(&path)).map(Self)
    }

    /// Compares hashes, which takes the same time wherever the two differ (`blake3::Hash` promises that) and whatever
    /// their lengths.
    pub(super) fn is(&self, given: &str) -> bool {
        *self.0.get() == blake3::hash(given.as_bytes())
    }
}

fn read(path: &Path) -> Result<blake3::Hash, TokenError> {
    let unreadable = |error| TokenError::Unreadable(path.to_owned(), error);
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_TOKEN_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let token = text.trim();
    let fits = (MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len());
    if fits && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(blake3::hash(token.as_bytes()))
    } else {
        Err(TokenError::NoToken(path.to_owned()))
    }
}
