//! ext_authz with a real Envoy.

mod answers;
mod failure;
mod grpc;
mod identity;
mod mapping;

use crate::support::{
    envoy::{Envoy, PATIENT},
    http::{Answer, Client},
    sluicegate::Sluicegate,
};

/// The filter in `envoy.yaml`, to put others before it.
const FILTER: &str = "- name: envoy.filters.http.ext_authz\n";

/// A rules file of the domain `demo`: the lists of its section, then its rules.
fn rules(section: &str, descriptors: &str) -> String {
    format!("domain: demo\next_authz:\n{section}\ndescriptors:\n{descriptors}\n")
}

/// The service with these rules, and an Envoy that asks it patiently and fails closed: what passes has been counted.
fn start(rules: &str, arguments: &[&str], changes: &[(&str, &str)]) -> (Sluicegate, Envoy) {
    let service = Sluicegate::start(rules, arguments);
    let mut all = vec![PATIENT, crate::support::envoy::AUTHZ_FAILURE_DENIES];
    all.extend(changes);
    let envoy = Envoy::start(service.grpc_port, &all);
    (service, envoy)
}

/// Sends requests until one does not pass; returns how many passed, and the answer to that one.
async fn until_denied(client: &Client, path: &str, headers: &[(&str, &str)]) -> (u64, Answer) {
    for passed in 0..100 {
        let answer = client.get(path, headers).await;
        if answer.status != 200 {
            return (passed, answer);
        }
    }
    panic!("100 requests passed");
}

/// How many pass before the first 429.
async fn passing(client: &Client, path: &str, headers: &[(&str, &str)]) -> u64 {
    let (passed, denied) = until_denied(client, path, headers).await;
    assert_eq!(denied.status, 429, "{denied:?}");
    passed
}
