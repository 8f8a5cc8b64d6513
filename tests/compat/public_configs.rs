//! Configurations that Istio, Envoy Gateway, Contour, Emissary, kgateway, Gloo and envoyproxy/ratelimit publish: each loads
//! and limits, or is refused with the cure. `tests/compat/public/` holds them with their sources; a file has
//!
//! - `rules`: the rules files, as text;
//! - `envoy` (where the source has it): virtual hosts of the Envoy that asks, with their `rate_limits`;
//! - `tests` (those of `sluicegate test`), or `refused`: what `sluicegate check` says;
//! - `says`: the warnings of `sluicegate check`, a part of each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::sluicegate::run as sluicegate;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    rules: Vec<String>,
    envoy: Option<Envoy>,
    #[serde(default)]
    tests: Vec<Value>,
    #[serde(default)]
    refused: Vec<String>,
    #[serde(default)]
    says: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envoy {
    /// `--service-cluster`
    cluster: Option<String>,
    #[serde(default)]
    use_remote_address: bool,
    virtual_hosts: Vec<Value>,
}

impl Envoy {
    /// A bootstrap of a listener with the filter; its domain is that of the first rules.
    fn bootstrap(&self, domain: &str) -> Value {
        json!({
            "node": { "id": "test", "cluster": self.cluster },
            "static_resources": { "listeners": [{ "name": "http", "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "use_remote_address": self.use_remote_address,
                    "route_config": { "virtual_hosts": self.virtual_hosts },
                    "http_filters": [{ "name": "envoy.filters.http.ratelimit", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                        "domain": domain,
                    } }],
                },
            }] }] }] },
        })
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/public")
}

/// Names and texts of the files.
fn files() -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder()).expect("the folder");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .expect("a name")
                .to_owned();
            (name, fs::read_to_string(&path).expect("a file"))
        })
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// Whether it holds: otherwise what came instead.
fn verify(text: &str) -> Result<(), String> {
    let config: Config = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
    let names: Vec<_> = (1..=config.rules.len())
        .map(|number| format!("rules-{number}.yaml"))
        .collect();
    for (name, rules) in names.iter().zip(&config.rules) {
        write(name, rules);
    }
    let arguments: Vec<_> = std::iter::once("check")
        .chain(names.iter().map(String::as_str))
        .collect();
    let checked = sluicegate(directory.path(), &arguments);
    let (passed, output) = (checked.status.success(), said(&checked));
    if passed != config.refused.is_empty() {
        return Err(format!("check: {output}"));
    }
    if let Some(missing) = config
        .refused
        .iter()
        .chain(&config.says)
        .find(|part| !output.contains(*part))
    {
        return Err(format!("check does not say {missing:?}: {output}"));
    }
    let mut warnings = output.lines().filter(|line| line.starts_with("warning: "));
    if let Some(more) = warnings.find(|line| !config.says.iter().any(|part| line.contains(part))) {
        return Err(format!("not expected: {more}"));
    }
    if !passed {
        return Ok(());
    }
    let mut file = json!({ "rules": names, "tests": config.tests });
    if let Some(envoy) = &config.envoy {
        let first = config.rules.first().map(String::as_str).unwrap_or_default();
        let domain = first
            .lines()
            .find_map(|line| line.strip_prefix("domain: "))
            .unwrap_or_default();
        write("envoy.json", &envoy.bootstrap(domain).to_string());
        file["envoy"] = json!("envoy.json");
    }
    write("t.yaml", &file.to_string());
    let tested = sluicegate(directory.path(), &["test", "t.yaml"]);
    if !tested.status.success() {
        return Err(said(&tested));
    }
    // One request beyond a limit was denied, and another passed, or the file proves nothing.
    let tests = Value::from(config.tests).to_string();
    let proves = ["denied", "allowed"].iter().all(|word| tests.contains(word));
    proves
        .then_some(())
        .ok_or_else(|| "no step expects a denial".to_owned())
}

#[test]
fn each_limits_or_is_refused_with_the_cure() {
    let files = files();
    assert!(files.len() >= 40, "{}", files.len());
    let wrong: Vec<_> = files
        .iter()
        .filter_map(|(name, text)| Some(format!("--- {name}\n{}", verify(text).err()?)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        files.len(),
        wrong.join("\n")
    );
}

#[test]
fn each_names_its_source_and_stands_in_the_table() {
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/public-configurations.md"))
        .expect("a page");
    for (name, text) in files() {
        let header = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect::<String>();
        assert!(header.contains("(Apache-2.0)"), "{name} names no source");
        assert!(
            table.contains(&format!("`{name}`")),
            "{name} is not in docs/public-configurations.md"
        );
    }
}
