//! The compiled tree.

use std::collections::HashMap;
use std::sync::Arc;

use super::Rule;

/// All rules of one configuration. Immutable; a request pins one on entry.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// By name.
    pub domains: HashMap<Arc<str>, Domain>,
    /// Every rule, at its [`Rule::index`].
    pub rules: Vec<Arc<Rule>>,
}

/// The rules of one domain.
#[derive(Debug)]
pub struct Domain {
    /// The domain's name.
    pub name: Arc<str>,
}
