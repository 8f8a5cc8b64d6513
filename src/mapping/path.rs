//! What of a path becomes a descriptor entry's value.

use memchr::memchr2;

use super::Template;

/// What of the path becomes an entry's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathShape {
    /// All of it.
    Whole,
    /// Its first segments.
    Segments(usize),
    /// The text of the first template that matches: one counter for each endpoint.
    Template(Box<[Template]>),
    /// What stands in the place of a variable in the first template that matches.
    Variable(Box<[Template]>, Box<str>),
}

impl PathShape {
    /// The value for a path; `None` when no template matches.
    #[must_use]
    pub fn value<'s>(&'s self, path: &'s str) -> Option<&'s str> {
        match self {
            Self::Whole => (!path.is_empty()).then_some(path),
            Self::Segments(count) => (!path.is_empty()).then(|| first_segments(path, *count)),
            Self::Template(templates) => templates.iter().find(|t| t.matches(path)).map(Template::text),
            Self::Variable(templates, name) => templates
                .iter()
                .find(|t| t.matches(path))
                .and_then(|t| t.variable(path, name)),
        }
    }
}

/// Everything before the query.
#[must_use]
pub fn without_query(path: &str) -> &str {
    memchr2(b'?', b'#', path.as_bytes()).map_or(path, |end| &path[..end])
}

/// The path up to the end of its segment number `count`.
fn first_segments(path: &str, count: usize) -> &str {
    let end = path
        .match_indices('/')
        .map(|(at, _)| at)
        .filter(|at| *at > 0)
        .nth(count.saturating_sub(1));
    end.map_or(path, |end| &path[..end])
}

/// Whether a path is `prefix` or lies below it; `/a` holds `/a/b` and not `/ab`.
#[must_use]
pub fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        for (path, prefix, expected) in [
            ("/api", "/api", true),
            ("/api/x", "/api", true),
            ("/api/x", "/api/", true),
            ("/api", "/api/", true),
            ("/apis", "/api", false),
            ("/", "/", true),
            ("/x", "/", true),
            ("*", "/", false),
        ] {
            assert_eq!(has_prefix(path, prefix), expected, "{prefix} of {path}");
        }
    }

    #[test]
    fn first_segments_of_a_path() {
        for (path, count, expected) in [
            ("/a/b/c", 1, "/a"),
            ("/a/b/c", 2, "/a/b"),
            ("/a/b/c", 3, "/a/b/c"),
            ("/a/b/c", 9, "/a/b/c"),
            ("/", 1, "/"),
        ] {
            assert_eq!(first_segments(path, count), expected, "{count} of {path}");
        }
    }
}
