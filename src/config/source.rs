//! Which rules files there are, and what is in them at one moment.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, ConfigErrors, Origin};
use super::problem::Problem;

/// Most files of one configuration.
pub const MAX_FILES: usize = 10_000;
/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// All files together, in bytes.
pub const MAX_BYTES: u64 = 128 << 20;
/// Deepest nesting of directories.
pub const MAX_DIRECTORY_DEPTH: usize = 8;

/// What editors and careful writers leave beside a file while they write it.
const LEFTOVERS: [&str; 5] = ["~", ".swp", ".tmp", ".bak", ".orig"];
/// How the names of tables of plans end, which may lie beside the rules that name them.
const TABLE_ENDING: &str = ".csv";

/// The text of one rules file (or of anything else that is to be compiled).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its path, or what it is called.
    pub name: Arc<str>,
    /// What is in it.
    pub text: Arc<str>,
}

impl Text {
    /// For errors to point at.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            name: Arc::clone(&self.name),
            text: Some(self.printable()),
        }
    }

    /// The text with nothing in it that a terminal would obey; every place in it stays where it is.
    fn printable(&self) -> Arc<str> {
        let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if !self.text.contains(obeyed) {
            return Arc::clone(&self.text);
        }
        let instead = |c: char| match c.len_utf8() {
            _ if !obeyed(c) => c,
            1 => '?',
            // Controls beyond ASCII have two bytes.
            _ => '¿',
        };
        self.text.chars().map(instead).collect::<String>().into()
    }
}

/// Files and directories with rules.
///
/// Of a directory every file counts, at any depth, whatever its name, as in envoyproxy/ratelimit; but not what editors
/// leave behind (`*~`, `*.swp`, `*.tmp`, `*.bak`, `*.orig`, `#*#`), nor `*.csv` (tables of plans), nor the `..`-names of a mounted ConfigMap, nor (by
/// default) anything else that starts with a dot. Symbolic links are followed; what is reached twice counts once.
#[derive(Debug, Clone)]
pub struct Source {
    paths: Vec<PathBuf>,
    ignore_dot_files: bool,
    may_be_empty: bool,
}

/// What was in the files at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// In order of the paths given, by name within a directory.
    pub texts: Vec<Text>,
    /// What could not be read.
    pub errors: ConfigErrors,
}

impl Snapshot {
    /// Differs if a name, a text or an error differs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for text in &self.texts {
            part(text.name.as_bytes());
            part(text.text.as_bytes());
        }
        part(self.errors.to_string().as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// Names, inodes, sizes and times of all files: changes whenever one is written, replaced, added or taken away, and
/// costs a `stat` each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<(PathBuf, Option<Stamp>)>);

impl Fingerprint {
    /// The files that are there.
    pub(super) fn ids(&self) -> impl Iterator<Item = FileId> {
        self.0.iter().filter_map(|(_, stamp)| Some(stamp.as_ref()?.file))
    }
}

/// Device and inode: which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId(u64, u64);

impl FileId {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|meta| Self::from(&meta))
    }
}

impl From<&Metadata> for FileId {
    fn from(meta: &Metadata) -> Self {
        Self(meta.dev(), meta.ino())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    file: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Self {
            file: meta.into(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Source {
    /// Files and directories, in the order in which their rules count as declared.
    #[must_use]
    pub const fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            ignore_dot_files: true,
            may_be_empty: false,
        }
    }

    /// Whether files of a directory whose name starts with a dot are left out (default: yes).
    #[must_use]
    pub const fn ignore_dot_files(mut self, ignore: bool) -> Self {
        self.ignore_dot_files = ignore;
        self
    }

    /// Whether a directory may be without files (default: no), which is a configuration without rules then, as in
    /// envoyproxy/ratelimit.
    #[must_use]
    pub const fn may_be_empty(mut self, may: bool) -> Self {
        self.may_be_empty = may;
        self
    }

    /// The files and directories given.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads every file once.
    #[must_use]
    pub fn read(&self) -> Snapshot {
        let listing = self.list();
        let mut snapshot = Snapshot {
            texts: Vec::with_capacity(listing.files.len()),
            errors: listing.errors,
        };
        let mut left = MAX_BYTES;
        for (path, _) in listing.files {
            match read(&path, left.min(MAX_FILE_BYTES)) {
                Ok(text) => {
                    left = left.saturating_sub(text.len() as u64);
                    snapshot.texts.push(Text {
                        name: name(&path),
                        text: text.into(),
                    });
                }
                Err(problem) => report(&mut snapshot.errors, &path, problem),
            }
        }
        snapshot
    }

    /// What the files look like from outside.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let listing = self.list();
        let mut stamps = listing.files;
        // A path that is not there (yet) is part of the picture too.
        let failed = listing.errors.as_slice().iter();
        stamps.extend(failed.map(|error| (PathBuf::from(error.to_string()), None)));
        Fingerprint(stamps)
    }

    fn list(&self) -> Listing<'_> {
        let mut listing = Listing {
            source: self,
            files: Vec::new(),
            seen: HashSet::new(),
            reached: 0,
            errors: ConfigErrors::default(),
        };
        for path in &self.paths {
            let before = listing.reached;
            match fs::metadata(path) {
                Ok(meta) if meta.is_dir() => match listing.directory(path, &meta, 0) {
                    Ok(()) if listing.reached > before || self.may_be_empty => {}
                    Ok(()) => report(&mut listing.errors, path, Problem::NoFiles),
                    Err(problem) => report(&mut listing.errors, path, problem),
                },
                Ok(meta) if meta.is_file() => listing.file(path.clone(), &meta),
                Ok(_) => {
                    let reason = "it is neither a file nor a directory".to_owned();
                    report(&mut listing.errors, path, Problem::Unreadable { reason });
                }
                Err(error) => report(&mut listing.errors, path, unreadable(&error)),
            }
        }
        listing
    }

    fn counts(&self, name: &str) -> bool {
        let hidden = name.starts_with("..") || (self.ignore_dot_files && name.starts_with('.'));
        let leftover =
            LEFTOVERS.iter().any(|ending| name.ends_with(ending)) || (name.starts_with('#') && name.ends_with('#'));
        !hidden && !leftover && !name.ends_with(TABLE_ENDING)
    }
}

struct Listing<'s> {
    source: &'s Source,
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// What was reached.
    seen: HashSet<FileId>,
    /// How often a file was reached, new or not.
    reached: usize,
    errors: ConfigErrors,
}

impl Listing<'_> {
    fn file(&mut self, path: PathBuf, meta: &Metadata) {
        self.reached += 1;
        if self.seen.insert(meta.into()) {
            self.files.push((path, Some(meta.into())));
        }
    }

    fn directory(&mut self, path: &Path, meta: &Metadata, depth: usize) -> Result<(), Problem> {
        if !self.seen.insert(meta.into()) {
            return Ok(());
        }
        if depth > MAX_DIRECTORY_DEPTH {
            let max = MAX_DIRECTORY_DEPTH;
            return Err(Problem::DirectoriesTooDeep { max });
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| unreadable(&error))? {
            let entry = entry.map_err(|error| unreadable(&error))?;
            if self.source.counts(&entry.file_name().to_string_lossy()) {
                paths.push(entry.path());
            }
            if paths.len() + self.files.len() > MAX_FILES {
                return Err(Problem::TooManyFiles { max: MAX_FILES });
            }
        }
        paths.sort_unstable();
        for path in paths {
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.directory(&path, &meta, depth + 1)?,
                Ok(meta) if meta.is_file() => self.file(path, &meta),
                // Sockets and pipes are no rules.
                Ok(_) => {}
                Err(error) => report(&mut self.errors, &path, unreadable(&error)),
            }
        }
        Ok(())
    }
}

fn read(path: &Path, max: u64) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > max {
        return Err(Problem::TooLarge { max });
    }
    String::from_utf8(bytes).map_err(|_| Problem::NotUtf8)
}

fn unreadable(error: &io::Error) -> Problem {
    let reason = error.to_string();
    Problem::Unreadable { reason }
}

fn report(errors: &mut ConfigErrors, path: &Path, problem: Problem) {
    let origin = Origin {
        name: name(path),
        text: None,
    };
    errors.push(ConfigError::new(&origin, None, String::new(), problem));
}

/// A path as text; what could forge a line of a log is escaped.
fn name(path: &Path) -> Arc<str> {
    let mut name = String::new();
    for c in path.to_string_lossy().chars() {
        if c.is_control() {
            name.extend(c.escape_default());
        } else {
            name.push(c);
        }
    }
    name.into()
}
