//! The flags of `sluicegate-bench load`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_rustls::TlsConnector;

use super::BenchError;
use super::keys::Distribution;
use super::service::Service;
use super::target::Target;
use super::template::{KEY_LIMIT, Template};
use crate::model::HOLD_ENTRY;
use crate::tls::{ClientTls, client_config};

/// Puts load on any server with Envoy's gRPC interface for rate limits or for external authorization, and reports
/// throughput, latency and answers.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The server: `http://host:port`, `https://host:port` or `unix:/path`. Repeat it to spread the connections over several replicas.
    #[arg(long = "target", value_name = "URL", default_value = "http://127.0.0.1:8081", value_parser = parse::<Target>)]
    pub targets: Vec<Target>,

    /// Certificates of the authorities that may sign an https:// server's, in PEM; by default those of the system.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The client's certificate for https:// servers, in PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// The key of --cert, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// What is called: the rate limit service, or ext_authz. Of the latter's requests each --descriptor's entries are
    /// headers, beside those that a browser and Envoy send.
    #[arg(long, value_enum, default_value_t = Service::Ratelimit)]
    pub service: Service,

    /// HTTP/2 connections, over all targets.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,

    /// Calls under way at once on each connection.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams: u32,

    /// Threads of the load generator; by default half the machine's cores, and at most one for each connection.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Option<u32>,

    /// Different keys that are asked for.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub keys: u64,

    /// How keys are drawn: uniform, zipf:EXPONENT, single, or fresh (each key once, forever).
    #[arg(long, default_value = "uniform", value_parser = parse::<Distribution>)]
    pub distribution: Distribution,

    /// The domain of every request.
    #[arg(long, default_value = "bench")]
    pub domain: String,

    /// A descriptor as `key=value,key=value`; `{key}` in a value becomes the key's number, in ten digits. Repeat it
    /// for requests with several different descriptors.
    #[arg(long = "descriptor", value_name = "ENTRIES", default_value = "user=user-{key}")]
    pub descriptors: Vec<String>,

    /// Descriptors in each request, taken in turn from --descriptor; by default each of those once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub descriptors_per_request: Option<u32>,

    /// The request's hits addend; 0 leaves it unset, which means 1.
    #[arg(long, default_value_t = 0)]
    pub hits: u32,

    /// Settles the hold that an answer names by a second call: with the same descriptors, an entry with the hold's id in
    /// each, and the same hits. Both calls are counted.
    #[arg(long)]
    pub settle: bool,

    /// Calls per second, on a fixed schedule; latency then counts from the scheduled moment. Without it, each stream
    /// calls again as soon as it is answered.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,

    /// How long to measure.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: Duration,

    /// Stops after this many calls, if that comes before the end of --duration.
    #[arg(long, value_name = "N")]
    pub calls: Option<u64>,

    /// How long to call before measuring.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,

    /// After this long without an answer, a call counts as failed.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,

    /// Sends this `grpc-timeout` with each call, in milliseconds, as Envoy does.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=99_999_999))]
    pub grpc_timeout_ms: Option<u32>,

    /// A local process whose CPU time is to be reported per call: the server, its Redis. Can be repeated.
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,

    /// Start of the random numbers, so that a run can be repeated.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Writes a line for each allowed call, `sent_us answered_us` since the start: to count what a window admitted.
    #[arg(long, value_name = "FILE")]
    pub admissions: Option<PathBuf>,

    /// Prints the report as JSON.
    #[arg(long)]
    pub json: bool,
}

impl BenchArgs {
    /// The encoded request.
    ///
    /// # Errors
    /// When a flag makes no sense by itself or beside another.
    pub fn template(&self) -> Result<Template, BenchError> {
        if self.keys > KEY_LIMIT {
            return Err(BenchError::Argument(format!(
                "--keys {} is above {KEY_LIMIT}",
                self.keys
            )));
        }
        let count = self.descriptors_in_request();
        match self.service {
            Service::Ratelimit => Template::rate_limit(&self.domain, &self.descriptors, count, self.hits),
            Service::ExtAuthz => Template::check(&self.domain, &self.descriptors),
        }
    }

    /// The encoded request that settles what a first one has held; `None` without --settle.
    ///
    /// # Errors
    /// As of [`Self::template`], and for a service that tells of no holds.
    pub fn settlement(&self) -> Result<Option<Template>, BenchError> {
        match (self.settle, self.service) {
            (false, _) => Ok(None),
            (true, Service::ExtAuthz) => Err(BenchError::Argument(
                "--settle goes with --service ratelimit only".to_owned(),
            )),
            (true, Service::Ratelimit) => {
                let descriptors = self.descriptors.iter();
                let descriptors: Vec<_> = descriptors
                    .map(|text| format!("{text},{HOLD_ENTRY}={{hold}}"))
                    .collect();
                Template::rate_limit(&self.domain, &descriptors, self.descriptors_in_request(), self.hits).map(Some)
            }
        }
    }

    fn descriptors_in_request(&self) -> usize {
        self.descriptors_per_request
            .map_or(self.descriptors.len(), |n| n as usize)
    }

    /// What connects to https:// targets; `None` if there are none.
    ///
    /// # Errors
    /// When a file of certificates cannot be read.
    pub fn tls(&self) -> Result<Option<TlsConnector>, BenchError> {
        if !self.targets.iter().any(|target| matches!(target, Target::Tls(_))) {
            return Ok(None);
        }
        let tls = ClientTls {
            ca: self.ca.clone(),
            identity: self.cert.clone().zip(self.key.clone()),
            server_name: None,
        };
        let mut config = client_config(&tls).map_err(|error| BenchError::Argument(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(Arc::new(config).into()))
    }

    /// Threads that carry the connections.
    #[must_use]
    pub fn thread_count(&self) -> u32 {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let half = u32::try_from(cores / 2).unwrap_or(1).max(1);
        self.threads.unwrap_or(half).min(self.connections)
    }
}

fn parse<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err = String>,
{
    text.parse()
}
