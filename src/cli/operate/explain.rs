//! `sluicegate explain`: which rule counts a request, and whether it would pass.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::client::ClientError;
use super::common::{Common, entry};
use super::table;
use crate::mapping::{Attributes, MAX_VALUE_BYTES};
use crate::model::Descriptor;
use crate::prove::envoy::{FilterCall, Routes};
use crate::prove::http::HttpRequest;

const PATH: &str = "/api/v1/explain";

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExplainArgs {
    /// The domain; with --http only where the request's context extensions name none
    #[arg(long, value_name = "NAME", required_unless_present = "http")]
    domain: Option<String>,
    /// The descriptor's entries in order
    #[arg(value_name = "KEY=VALUE", required_unless_present = "http")]
    entries: Vec<String>,
    /// What the request would cost
    #[arg(long, value_name = "N")]
    hits: Option<u64>,
    /// An HTTP request instead, through the rules' ext_authz section or Envoy's routes
    #[arg(long, num_args = 2, value_names = ["METHOD", "PATH"], conflicts_with_all = ["entries", "hits"])]
    http: Option<Vec<String>>,
    /// A header of it; may stand more than once, also with the same name
    #[arg(short = 'H', long, value_name = "NAME: VALUE", requires = "http", value_parser = header)]
    header: Vec<(String, String)>,
    /// Its host
    #[arg(long, value_name = "HOST", requires = "http")]
    host: Option<String>,
    /// The address of the connection's other end
    #[arg(long, value_name = "ADDRESS", requires = "http")]
    client: Option<IpAddr>,
    /// By the routes of this Envoy instead of the rules' ext_authz section: its bootstrap, or its /config_dump
    #[arg(long, value_name = "FILE", requires = "http", conflicts_with = "domain")]
    envoy: Option<PathBuf>,
    /// Which of its listeners, if several have the rate limit filter
    #[arg(long, value_name = "NAME", requires = "envoy")]
    listener: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// A header's name, in lower case, and its value.
fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        }
        _ => Err("a header is NAME: VALUE".to_owned()),
    }
}

impl ExplainArgs {
    /// The HTTP request, if it is one that is asked about.
    fn request(&self) -> Option<HttpRequest> {
        let [method, path] = self.http.as_deref()? else {
            return None;
        };
        Some(HttpRequest {
            method: method.clone(),
            path: path.clone(),
            host: self.host.clone().unwrap_or_default(),
            headers: self.header.clone(),
            client: self.client,
            extensions: Vec::new(),
        })
    }

    fn question(&self, request: Option<&HttpRequest>) -> Value {
        let Some(request) = request else {
            let entries: Vec<Value> = self.entries.iter().map(|text| entry(text)).collect();
            let descriptor = json!({ "entries": entries, "hits_addend": self.hits });
            return json!({ "domain": self.domain, "descriptors": [descriptor] });
        };
        // A name that stands more than once is told as one header, as Envoy tells it.
        let value = |name: &str| request.header(name).unwrap_or_default().into_owned();
        let names = request.headers.iter().map(|(name, _)| name);
        let headers: BTreeMap<&String, String> = names.map(|name| (name, value(name))).collect();
        let (method, path, host) = (&request.method, &request.path, &request.host);
        let http =
            json!({ "method": method, "path": path, "host": host, "headers": headers, "client": request.client });
        json!({ "http": http, "domain": self.domain })
    }

    /// What the routes of an Envoy ask about the request, filter by filter.
    fn by_routes(&self, file: &Path, request: Option<&HttpRequest>) -> Result<Vec<Value>, String> {
        let request = request.ok_or("give the request: --http METHOD PATH")?;
        let routes = Routes::read(file, self.listener.as_deref()).map_err(|error| error.to_string())?;
        let calls = routes.calls(request, false, MAX_VALUE_BYTES);
        let calls = calls.map_err(|error| error.to_string())?;
        calls.iter().map(question).collect()
    }
}

fn question(call: &FilterCall) -> Result<Value, String> {
    if call.descriptors.iter().any(|descriptor| descriptor.limit.is_some()) {
        return Err("the route brings a limit of its own: no rule counts this request".to_owned());
    }
    let descriptors: Vec<Value> = call.descriptors.iter().map(asked).collect();
    Ok(json!({ "domain": *call.domain, "descriptors": descriptors }))
}

fn asked(descriptor: &Descriptor) -> Value {
    let entry = |entry: &crate::model::Entry| json!({ "key": entry.key, "value": entry.value });
    let entries: Vec<Value> = descriptor.entries.iter().map(entry).collect();
    // What gives hits back always passes: how the counter stands is all that there is to know.
    let hits = if descriptor.is_negative_hits {
        Some(0)
    } else {
        descriptor.hits_addend
    };
    json!({ "entries": entries, "hits_addend": hits })
}

pub(super) async fn run(args: ExplainArgs) -> Result<(), ClientError> {
    let request = args.request();
    let questions = match &args.envoy {
        Some(file) => {
            let made = args.by_routes(file, request.as_ref());
            made.map_err(|reason| ClientError::Envoy(file.clone(), reason))?
        }
        None => vec![args.question(request.as_ref())],
    };
    if questions.is_empty() {
        let nothing = json!({ "descriptors": [] });
        args.common.show(&nothing, |_| {
            "the request's route makes no descriptors: nothing limits it".to_owned()
        });
        return Ok(());
    }
    let client = args.common.open()?;
    for question in &questions {
        let explained = client.post(PATH, question).await?;
        let would_pass = explained["would_pass"] != false;
        args.common.show(&explained, table::explain);
        if !would_pass && questions.len() > 1 {
            // Envoy asks through the next filter only if this one let the request pass.
            break;
        }
    }
    Ok(())
}
