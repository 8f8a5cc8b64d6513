//! Path templates such as `/users/{id}`.

use super::spelling::normalize;

/// Longest template, in segments.
pub const MAX_SEGMENTS: usize = 64;

/// A path template: `{name}` and `*` stand for one segment, `{name=**}` and `**` for all that
/// follow (also none), as in Envoy's URI templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Fixed(Box<str>),
    One(Option<Box<str>>),
    Rest(Option<Box<str>>),
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It has to begin with a slash.
    #[error("a template starts with `/`")]
    NoSlash,
    /// `**` before the end.
    #[error("`**` stands for all that follows, so nothing can follow it")]
    RestNotLast,
    /// Half a segment is a variable.
    #[error("a variable takes a whole segment: `{0}` is neither fixed text nor `{{name}}`, `{{name=**}}`, `*` or `**`")]
    BadSegment(String),
    /// A name twice.
    #[error("the variable `{0}` stands in it twice")]
    RepeatedVariable(String),
    /// Fixed text that no normalized path holds.
    #[error("paths are compared as `{0}`: write it like that")]
    NotNormal(String),
    /// Too many segments.
    #[error("more than {MAX_SEGMENTS} segments")]
    TooLong,
}

impl Template {
    /// Reads a template; `normalized` = for paths in one spelling.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong.
    pub fn parse(text: &str, normalized: bool) -> Result<Self, TemplateError> {
        let body = text.strip_prefix('/').ok_or(TemplateError::NoSlash)?;
        let plain = text.replace(['{', '}', '*', '='], "_");
        if normalized && normalize(&plain) != plain {
            return Err(TemplateError::NotNormal(normalize(text).into_owned()));
        }
        let words: Vec<&str> = if body.is_empty() {
            Vec::new()
        } else {
            body.split('/').collect()
        };
        if words.len() > MAX_SEGMENTS {
            return Err(TemplateError::TooLong);
        }
        let segments = words.iter().map(|word| segment(word)).collect::<Result<Vec<_>, _>>()?;
        let (_, before_last) = segments.split_last().unzip();
        if before_last.is_some_and(|before: &[Segment]| before.iter().any(|s| matches!(s, Segment::Rest(_)))) {
            return Err(TemplateError::RestNotLast);
        }
        let names: Vec<&str> = segments.iter().filter_map(Segment::name).collect();
        if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(TemplateError::RepeatedVariable((*name).to_owned()));
        }
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has a variable of that name.
    #[must_use]
    pub fn has_variable(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| segment.name() == Some(name))
    }

    /// Whether a path (without query) fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        for segment in &self.segments {
            if let Segment::Rest(_) = segment {
                return true;
            }
            let Some((word, tail)) = next_segment(rest) else {
                return false;
            };
            let fits = match segment {
                Segment::Fixed(text) => **text == *word,
                Segment::One(_) | Segment::Rest(_) => !word.is_empty(),
            };
            if !fits {
                return false;
            }
            rest = tail;
        }
        rest.is_empty() || (self.segments.is_empty() && rest == "/")
    }

    /// What stands in a matching path in a variable's place; `None` for no such variable, or one that took nothing.
    #[must_use]
    pub fn variable<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        let mut rest = path;
        for segment in &self.segments {
            if let Segment::Rest(variable) = segment {
                let found = rest.strip_prefix('/').unwrap_or(rest);
                return (variable.as_deref() == Some(name) && !found.is_empty()).then_some(found);
            }
            let (word, tail) = next_segment(rest)?;
            if segment.name() == Some(name) {
                return Some(word);
            }
            rest = tail;
        }
        None
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::One(name) | Self::Rest(name) => name.as_deref(),
            Self::Fixed(_) => None,
        }
    }
}

fn segment(word: &str) -> Result<Segment, TemplateError> {
    let bad = || TemplateError::BadSegment(word.to_owned());
    match word {
        "*" => return Ok(Segment::One(None)),
        "**" => return Ok(Segment::Rest(None)),
        _ => {}
    }
    let Some(inside) = word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) else {
        return if word.is_empty() || word.contains(['{', '}', '*']) {
            Err(bad())
        } else {
            Ok(Segment::Fixed(word.into()))
        };
    };
    let (name, what) = inside.split_once('=').unwrap_or((inside, "*"));
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match what {
        "*" if is_name => Ok(Segment::One(Some(name.into()))),
        "**" if is_name => Ok(Segment::Rest(Some(name.into()))),
        _ => Err(bad()),
    }
}

/// `/a/b` is `a` and `/b`.
fn next_segment(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.find('/').map_or((path, ""), |end| path.split_at(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_whole_paths() {
        for (template, path, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users", false),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users/7/posts", false),
            ("/users/*/posts", "/users/7/posts", true),
            ("/users/**", "/users", true),
            ("/users/**", "/users/7/posts", true),
            ("/users/**", "/usersx", false),
            ("/users/{id}", "users/7", false),
            ("/users/{id}", "", false),
        ] {
            assert_eq!(
                Template::parse(template, true).unwrap().matches(path),
                expected,
                "{template} on {path}"
            );
        }
    }

    #[test]
    fn variables_take_what_stands_in_their_place() {
        let template = Template::parse("/users/{id}/files/{file=**}", true).unwrap();
        let variable = |path, name| template.variable(path, name).map(str::to_owned);
        assert_eq!(variable("/users/7/files/a/b", "id").as_deref(), Some("7"));
        assert_eq!(variable("/users/7/files/a/b", "file").as_deref(), Some("a/b"));
        assert_eq!(variable("/users/7/files", "file"), None);
        assert_eq!(variable("/users/7/files/a", "nobody"), None);
    }

    #[test]
    fn bad_templates_say_why() {
        for (template, expected) in [
            ("users", TemplateError::NoSlash),
            ("/**/a", TemplateError::RestNotLast),
            ("/a{id}", TemplateError::BadSegment("a{id}".into())),
            ("/{}", TemplateError::BadSegment("{}".into())),
            ("/{id=a}", TemplateError::BadSegment("{id=a}".into())),
            ("/{a}/{a}", TemplateError::RepeatedVariable("a".into())),
            ("/a//b", TemplateError::NotNormal("/a/b".into())),
            ("/a/", TemplateError::NotNormal("/a".into())),
        ] {
            assert_eq!(Template::parse(template, true), Err(expected), "{template}");
        }
        assert_eq!(Template::parse(&"/a".repeat(65), true), Err(TemplateError::TooLong));
    }
}
