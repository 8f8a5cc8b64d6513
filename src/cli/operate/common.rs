//! What all questions to a running process have in common.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, ClientError};
use crate::cli::output::print;
use crate::tls::ClientTls;

/// Where to ask, and how to show the answer.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The admin port of the process: http://host:port, or https://host:port
    #[arg(
        long,
        env = "ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:6070",
        hide_env_values = true
    )]
    admin: String,
    /// PEM file: CA of its certificate, with https; without one the system's roots
    #[arg(long, env = "ADMIN_TLS_CACERT", value_name = "FILE")]
    admin_tls_ca: Option<PathBuf>,
    /// Name that its certificate carries, if not the host's (through a port-forward)
    #[arg(long, env = "ADMIN_TLS_SAN", value_name = "NAME")]
    admin_tls_san: Option<String>,
    /// File with the admin token; needed from off loopback, and for every change
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How to show the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

impl Common {
    pub fn open(&self) -> Result<Client, ClientError> {
        let tls = ClientTls {
            ca: self.admin_tls_ca.clone(),
            identity: None,
            server_name: self.admin_tls_san.clone(),
        };
        Client::new(&self.admin, &tls, self.token_file.as_deref())
    }

    pub fn show(&self, answer: &Value, table: impl Fn(&Value) -> String) {
        match self.output {
            Output::Json => print(&format_args!("{answer:#}")),
            Output::Table => print(&table(answer).trim_end()),
        };
    }
}

/// `key=value`, or a key alone, as an entry of a descriptor.
pub fn entry(text: &str) -> Value {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    json!({ "key": key, "value": value })
}
