//! The sections of all files together: each domain has one, one of them is the default, and every list has a rule.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mapping::{Absent, Clash, List, Mapping, Mappings};
use crate::rules::Domain;

use super::super::error::{ConfigError, ConfigErrors, Place};
use super::super::problem::{Clipped, Problem};
use super::super::raw::File;

/// Puts the sections of all files together.
pub(super) fn sections(files: &[File], domains: &HashMap<Arc<str>, Domain>, errors: &mut ConfigErrors) -> Mappings {
    let mut mappings = Mappings::default();
    for file in files {
        add(&mut mappings, file, errors);
    }
    mappings.settle();
    // Rules that have errors are missing here: what follows from that is no news.
    if errors.count() == 0 {
        for file in files {
            let domain = file.domain.value().and_then(|name| domains.get(name.as_str()));
            check(domain, file, errors);
        }
    }
    mappings
}

/// Adds a file's section, if it has one.
fn add(mappings: &mut Mappings, file: &File, errors: &mut ConfigErrors) {
    let (Some(section), Some(name)) = (&file.ext_authz, file.domain.value().filter(|name| !name.is_empty())) else {
        return;
    };
    let mapping = Mapping {
        domain: Arc::from(name.as_str()),
        ..section.mapping.clone()
    };
    let problem = match mappings.insert(Arc::new(mapping), &section.extension, section.default) {
        Ok(()) => return,
        Err(Clash::Domain) => Problem::SecondExtAuthz,
        Err(Clash::Default) => Problem::SecondDefault,
    };
    report(file, section.place, "", problem, errors);
}

/// Finds lists that no rule counts: most likely a key is misspelt, and nothing would ever be limited by them.
fn check(domain: Option<&Domain>, file: &File, errors: &mut ConfigErrors) {
    let (Some(section), Some(domain)) = (&file.ext_authz, domain) else {
        return;
    };
    for (number, (list, place)) in (1..).zip(section.mapping.lists.iter().zip(&section.lists)) {
        let keys = list
            .actions
            .iter()
            .map(|action| (&*action.key, action.absent == Absent::SkipEntry));
        if !domain.has_rule_for(keys) {
            let problem = Problem::NoRuleFor { keys: keys_of(list) };
            report(file, *place, &format!(" / rate_limits #{number}"), problem, errors);
        }
    }
}

fn keys_of(list: &List) -> String {
    let keys: Vec<_> = list
        .actions
        .iter()
        .map(|action| Clipped(&action.key).to_string())
        .collect();
    keys.join(" / ")
}

fn report(file: &File, place: Option<Place>, below: &str, problem: Problem, errors: &mut ConfigErrors) {
    let domain = file.domain.value().map_or("", String::as_str);
    let path = format!("{} / ext_authz{below}", Clipped(domain));
    errors.push(ConfigError::new(&file.origin, place, path, problem));
}
