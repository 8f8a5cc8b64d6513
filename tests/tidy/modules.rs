//! Which file needs which: paths resolved to the files that define what they name.

use std::collections::{BTreeMap, BTreeSet};

use crate::project::Project;
use crate::tokens::{Kind, Mention, Tests, mentions, tokens};

/// A file as a module: `["store", "redis"]` is `src/store/redis/mod.rs`.
pub type Module = Vec<String>;

/// The modules of the library, with what each mentions.
pub struct Modules {
    mentions: BTreeMap<Module, Vec<Mention>>,
}

/// One file needs another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    pub from: Module,
    pub to: Module,
    pub line: usize,
    /// It only hands on a name of the other.
    pub is_reexport: bool,
}

impl Modules {
    pub fn of(project: &Project) -> Self {
        let files = project.rust("src/").filter_map(|(path, text)| {
            let name = path.strip_prefix("src/")?.strip_suffix(".rs")?;
            let name = name.strip_suffix("/mod").unwrap_or(name);
            let is_outside = name == "main" || name.starts_with("bin/") || name.ends_with("/tests");
            let module = if name == "lib" {
                Vec::new()
            } else {
                name.split('/').map(str::to_owned).collect()
            };
            (!is_outside).then(|| (module, mentions(&tokens(path, text, Tests::Skip))))
        });
        Self {
            mentions: files.collect(),
        }
    }

    /// All needs between different files, once for each pair and kind.
    pub fn needs(&self) -> Vec<Need> {
        let mut all = Vec::new();
        for (from, mentions) in &self.mentions {
            let mut known = BTreeSet::new();
            for mention in mentions {
                let Some((start, rest)) = self.start(from, &mention.segments) else {
                    continue;
                };
                let to = self.find(start, rest, 8);
                let is_reexport = matches!(mention.kind, Kind::Use { is_public: true, .. });
                if to != *from && known.insert((to.clone(), is_reexport)) {
                    all.push(Need {
                        from: from.clone(),
                        to,
                        line: mention.line,
                        is_reexport,
                    });
                }
            }
        }
        all
    }

    /// Where a path begins, and the rest of it; `None` if that is outside of the library.
    fn start<'p>(&self, from: &Module, path: &'p [String]) -> Option<(Module, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut module = from.clone();
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
                while let Some((next, after)) = rest.split_first()
                    && next == "super"
                {
                    module.pop();
                    rest = after;
                }
            }
            _ => {
                module.push(first.clone());
                // A name alone may be a variable.
                if rest.is_empty() || !self.mentions.contains_key(&module) {
                    return None;
                }
            }
        }
        Some((module, rest))
    }

    /// The file that defines what a path names, through at most so many re-exports.
    fn find(&self, mut module: Module, mut path: &[String], depth: usize) -> Module {
        while let Some((first, rest)) = path.split_first() {
            module.push(first.clone());
            if self.mentions.contains_key(&module) {
                path = rest;
                continue;
            }
            module.pop();
            let imported = self.mentions.get(&module).and_then(|mentions| {
                let named = mentions
                    .iter()
                    .find(|mention| matches!(&mention.kind, Kind::Use { name, .. } if name == first));
                self.start(&module, &named?.segments)
            });
            if let (Some((start, named)), 1..) = (imported, depth) {
                let whole: Vec<String> = named.iter().chain(rest).cloned().collect();
                return self.find(start, &whole, depth - 1);
            }
            break;
        }
        module
    }
}

/// `store::redis` of its segments.
pub fn shown(module: &Module) -> String {
    if module.is_empty() {
        "the crate's root".to_owned()
    } else {
        module.join("::")
    }
}

#[test]
fn a_name_is_looked_up_where_it_is_defined() {
    let modules = Modules::of(&Project::of(&[
        ("src/lib.rs", "pub mod a; pub mod b;"),
        ("src/a/mod.rs", "mod c; pub use c::Thing; fn f() { c::g(); }"),
        ("src/a/c.rs", "use crate::b; pub struct Thing; pub fn g() { b::h() }"),
        ("src/b.rs", "use crate::a::Thing;"),
    ]));
    let found: Vec<_> = modules
        .needs()
        .iter()
        .map(|n| (shown(&n.from), shown(&n.to), n.is_reexport))
        .collect();
    let expected = [
        ("a", "a::c", true),
        ("a", "a::c", false),
        ("a::c", "b", false),
        ("b", "a::c", false),
    ];
    assert_eq!(
        found,
        expected.map(|(from, to, is_reexport)| (from.to_owned(), to.to_owned(), is_reexport))
    );
}
