//! The files of the project.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Texts by path from the root of the project.
pub struct Project {
    pub files: BTreeMap<String, String>,
}

/// What is read of the project; everything else in its directory is built or fetched.
const FOLDERS: [&str; 8] = [".ci", "benches", "deploy", "docs", "proto", "scripts", "src", "tests"];

impl Project {
    /// All text files.
    pub fn read() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&root)
            .expect("the root")
            .map(|entry| entry.expect("an entry"))
        {
            let name = entry.file_name().into_string().expect("UTF-8");
            let path = entry.path();
            if path.is_file() || FOLDERS.contains(&name.as_str()) {
                collect(&root, &path, &mut files);
            }
        }
        Self { files }
    }

    /// A sample.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let owned = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: owned.collect() }
    }

    /// Rust files below a folder.
    pub fn rust(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        all.filter(move |(path, _)| path.starts_with(folder) && path.ends_with(".rs"))
    }
}

fn collect(root: &Path, path: &Path, files: &mut BTreeMap<String, String>) {
    if path.is_dir() {
        if path
            .file_name()
            .is_some_and(|name| name == "__pycache__" || name == "node_modules")
        {
            return;
        }
        for entry in fs::read_dir(path).expect("a folder") {
            collect(root, &entry.expect("an entry").path(), files);
        }
        return;
    }
    let name = path
        .strip_prefix(root)
        .expect("below the root")
        .to_string_lossy()
        .into_owned();
    // An image is a file that documents may name, too.
    files.insert(name, fs::read_to_string(path).unwrap_or_default());
}
