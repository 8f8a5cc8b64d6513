//! How a setting or a rule option compares with envoyproxy/ratelimit (commit f2fb157).

/// The comparison of one setting or option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    /// It means the same.
    Supported,
    /// It means the same, with this difference or addition.
    Extended(&'static str),
    /// It is accepted and has no effect, for this reason.
    Ignored(&'static str),
    /// envoyproxy/ratelimit does not have it.
    Native,
}

impl Compatibility {
    /// One cell of a table.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Supported => "supported".into(),
            Self::Extended(how) => format!("extended: {how}"),
            Self::Ignored(why) => format!("ignored: {why}"),
            Self::Native => "native".into(),
        }
    }
}
