//! Limits of other rate limiters as rules: `sluicegate import limitador`.
//!
//! | file | what is in it |
//! |---|---|
//! | `condition` | one CEL condition or variable → what it asks of a descriptor entry |
//! | `limit` | a limits file → limits, with every refusal in its place |
//! | `descriptor` | limits → the descriptors that ask for them, none in another's way |
//! | `print` | rules as YAML, with notes |

mod condition;
mod descriptor;
mod limit;
mod print;

use super::error::{ConfigError, ConfigErrors};
use super::load::load;
use super::problem::Problem;
use super::source::Text;
use crate::rules::Defaults;

/// Translates one limits file of limitador; `namespace` picks one where the file has several.
///
/// # Errors
/// Everything in the file that cannot be translated so that it decides as before: then nothing is.
pub fn limitador(text: &Text, namespace: Option<&str>) -> Result<String, ConfigErrors> {
    let origin = text.origin();
    let mut errors = ConfigErrors::default();
    let limits = limit::read(&origin, &text.text, &mut errors);
    let mut namespaces: Vec<&str> = Vec::new();
    for limit in &limits {
        if !namespaces.contains(&limit.namespace.as_str()) {
            namespaces.push(&limit.namespace);
        }
    }
    let mut whole = |reason: String, word: &str| {
        let problem = Problem::Unusable {
            field: "namespace",
            word: word.to_owned(),
            reason: reason.into(),
        };
        errors.push(ConfigError::new(&origin, None, String::new(), problem));
    };
    let chosen = match (namespace, namespaces.as_slice()) {
        (Some(wanted), all) if !all.contains(&wanted) => {
            whole(
                format!("the file has no limit of it, but of: {}", all.join(", ")),
                wanted,
            );
            ""
        }
        (Some(wanted), _) => wanted,
        (None, [one]) => one,
        (None, []) => "",
        (None, all) => {
            let reason = "the file has several, and a rules file has one domain: import each into a file of its own, by \
                          `--namespace`";
            whole(reason.to_owned(), &all.join(", "));
            ""
        }
    };
    let limits: Vec<_> = limits.iter().filter(|limit| limit.namespace == chosen).collect();
    let placed = descriptor::place(&limits);
    let printed = print::rules(&text.name, chosen, &placed);
    errors.into_result(printed).and_then(verified)
}

/// The rules, if they load.
fn verified(printed: String) -> Result<String, ConfigErrors> {
    let text = Text {
        name: "the translated rules".into(),
        text: printed.as_str().into(),
    };
    load(&[text], &Defaults::default()).map(|_| printed)
}
