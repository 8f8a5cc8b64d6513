//! How single values are written, in flags and in variables alike. An error says what would have been right; the
//! caller adds the name and the value.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::model::AlgorithmKind;
use crate::rules::OnStoreError;

use super::model::{LimitHeaders, LogFormat, MaskValues, OnOverload, StoreKind};
use super::secret::Secret;

/// The longest duration that is taken: ten years.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `true` or `false`, in all the ways that Go's `strconv.ParseBool` reads it, and `on`/`off`, `yes`/`no`.
///
/// # Errors
/// What is allowed.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "on" | "yes" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "off" | "no" => Ok(false),
        _ => Err("allowed are true and false (also 1, t, on, yes; 0, f, off, no)".into()),
    }
}

/// Any text.
///
/// # Errors
/// None.
#[allow(clippy::unnecessary_wraps, reason = "the shape of every parser of the table")]
pub fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A path.
///
/// # Errors
/// None.
#[allow(clippy::unnecessary_wraps, reason = "the shape of every parser of the table")]
pub fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

/// Whether answers have limit headers, by the usual names.
///
/// # Errors
/// What is allowed.
pub fn limit_headers(text: &str) -> Result<Option<LimitHeaders>, String> {
    boolean(text).map(|on| on.then(LimitHeaders::default))
}

/// An age, after which something ends; 0 = never.
///
/// # Errors
/// What is allowed.
pub fn age(text: &str) -> Result<Option<Duration>, String> {
    duration(text).map(|age| Some(age).filter(|age| !age.is_zero()))
}

/// A duration as Go writes it: `1m30s`, `1.5h`, `250ms`; `0`. Units: ns, us (µs), ms, s, m, h. Not negative.
///
/// # Errors
/// What is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "allowed is a duration such as 250ms, 5s, 1m30s or 24h (units ns us ms s m h), not negative";
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(ALLOWED.into());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("{ALLOWED}: the unit is missing"))?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let part = scaled(number, unit).ok_or(ALLOWED)?;
        total = total
            .checked_add(part)
            .filter(|total| *total <= MAX_DURATION)
            .ok_or("allowed are at most ten years")?;
        rest = tail;
    }
    Ok(total)
}

/// `number` (digits with at most one dot) times `unit`; digits below a nanosecond are dropped.
fn scaled(number: &str, unit: &str) -> Option<Duration> {
    let unit_ns: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // More digits than this are less than a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(18)];
    let fraction_ns = match fraction {
        "" => 0,
        digits => {
            let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
            digits.parse::<u128>().ok()?.checked_mul(unit_ns)? / scale
        }
    };
    let ns = whole.checked_mul(unit_ns)?.checked_add(fraction_ns)?;
    Some(Duration::from_nanos(u64::try_from(ns).ok()?))
}

/// An address to listen on: `0.0.0.0:8081`, `[::]:8081`, `localhost:8081`, or `:8081` for every address (IPv4).
///
/// # Errors
/// What is allowed.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let allowed = "allowed is address:port, such as 0.0.0.0:8081, [::]:8081 or :8081";
    let (host, port) = text.rsplit_once(':').ok_or(allowed)?;
    let port: u16 = port.parse().map_err(|_| allowed)?;
    Ok(SocketAddr::new(listen_host(host).map_err(|_| allowed)?, port))
}

/// The address half of [`listen_address`]: an IP address (IPv6 with or without brackets), `localhost`, or nothing.
///
/// # Errors
/// What is allowed.
pub fn listen_host(text: &str) -> Result<IpAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(text);
    match bare {
        "" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host
            .parse()
            .map_err(|_| "allowed is an IP address of this machine, such as 0.0.0.0, :: or 127.0.0.1".into()),
    }
}

/// A part of one: above 0, at most 1.
///
/// # Errors
/// What is allowed.
pub fn ratio(text: &str) -> Result<f64, String> {
    let allowed = "allowed is a number above 0 and at most 1, such as 0.8";
    let ratio: f64 = text.parse().map_err(|_| allowed)?;
    if ratio > 0.0 && ratio <= 1.0 {
        Ok(ratio)
    } else {
        Err(allowed.into())
    }
}

/// The name of an HTTP header.
///
/// # Errors
/// What is allowed.
pub fn header_name(text: &str) -> Result<String, String> {
    http::HeaderName::from_bytes(text.as_bytes())
        .map(|_| text.to_owned())
        .map_err(|_| "allowed is an HTTP header name: letters, digits, - and _, for instance x-ratelimit-limit".into())
}

/// `key<separator>value` pairs, separated by commas; keys are not empty and stand once.
///
/// # Errors
/// What is allowed.
pub fn pairs(text: &str, separators: &[char]) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for item in text.split(',').filter(|item| !item.trim().is_empty()) {
        let (key, value) = item
            .split_once(separators)
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| {
                let sign = separators.first().copied().unwrap_or('=');
                format!("allowed are pairs such as name{sign}value,other{sign}value")
            })?;
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{key:?} stands twice in it"));
        }
    }
    Ok(pairs)
}

/// What each connection sends; names become lower case. An error repeats no value.
///
/// # Errors
/// What is allowed.
pub fn headers(pairs: BTreeMap<String, String>) -> Result<BTreeMap<String, Secret>, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in pairs {
        let name = header_name(&name)?.to_ascii_lowercase();
        if http::HeaderValue::from_str(&value).is_err() || !value.is_ascii() {
            return Err(format!(
                "the value of {name} is no header value: visible ASCII is allowed"
            ));
        }
        headers.insert(name, Secret::new(value));
    }
    Ok(headers)
}

/// What labels of envoyproxy/ratelimit's metrics are called (beside `key1`, `key2`, …), and those that Prometheus itself
/// gives a meaning. Where one of our own metrics has a label of a tag's name, the label stays.
const RESERVED_LABELS: [&str; 5] = ["domain", "grpc_method", "err_type", "le", "quantile"];

/// Labels of metrics: `name:value,name:value`. What a label's name cannot hold becomes `_`.
///
/// # Errors
/// What is allowed.
pub fn tags(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut tags = BTreeMap::new();
    for (name, value) in pairs(text, &[':', '='])? {
        let mut label: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        if label.starts_with(|c: char| c.is_ascii_digit()) {
            label.insert(0, '_');
        }
        let number = label.strip_prefix("key");
        let is_key = number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()));
        if is_key || RESERVED_LABELS.contains(&label.as_str()) {
            return Err(format!(
                "the label {label} is one that metrics have already; use another name"
            ));
        }
        if tags.insert(label.clone(), value).is_some() {
            return Err(format!("two names become the label {label}"));
        }
    }
    Ok(tags)
}

/// A whole number of at least 1.
///
/// # Errors
/// What is allowed.
pub fn at_least_one<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + From<u8>,
{
    text.parse()
        .ok()
        .filter(|n| *n >= T::from(1))
        .ok_or_else(|| "allowed is a whole number of at least 1".into())
}

/// A duration above zero.
///
/// # Errors
/// What is allowed.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|duration| {
        if duration.is_zero() {
            Err("allowed is a duration above zero, such as 15ms".into())
        } else {
            Ok(duration)
        }
    })
}

/// The name of an algorithm.
///
/// # Errors
/// What is allowed.
pub fn algorithm(text: &str) -> Result<AlgorithmKind, String> {
    AlgorithmKind::parse(text).ok_or_else(|| format!("allowed are {}", names(AlgorithmKind::ALL, AlgorithmKind::name)))
}

/// What to do when the store cannot answer.
///
/// # Errors
/// What is allowed.
pub fn on_store_error(text: &str) -> Result<OnStoreError, String> {
    OnStoreError::parse(text).ok_or_else(|| format!("allowed are {}", names(OnStoreError::ALL, OnStoreError::name)))
}

/// What to do with requests that there is no room for.
///
/// # Errors
/// What is allowed.
pub fn on_overload(text: &str) -> Result<OnOverload, String> {
    match text {
        "allow" => Ok(OnOverload::Allow),
        "unavailable" => Ok(OnOverload::Unavailable),
        _ => Err("allowed are allow and unavailable".into()),
    }
}

/// Which store.
///
/// # Errors
/// What is allowed.
pub fn store_kind(text: &str) -> Result<StoreKind, String> {
    match text {
        "memory" => Ok(StoreKind::Memory),
        "redis" => Ok(StoreKind::Redis),
        _ => Err("allowed are memory and redis".into()),
    }
}

/// How the admin API shows values of descriptors.
///
/// # Errors
/// What is allowed.
pub fn mask_values(text: &str) -> Result<MaskValues, String> {
    match text {
        "off" => Ok(MaskValues::Off),
        "hash" => Ok(MaskValues::Hash),
        "truncate" => Ok(MaskValues::Truncate),
        _ => Err("allowed are off, hash and truncate".into()),
    }
}

/// How log lines look, in any case.
///
/// # Errors
/// What is allowed.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("allowed are text and json".into()),
    }
}

/// A log level in any case, also by the names that logrus knows (`warning`; `fatal` and `panic` for `error`), or
/// directives such as `info,fred=warn`.
///
/// # Errors
/// What is allowed.
pub fn log_level(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        level @ ("trace" | "debug" | "info" | "warn" | "error") => Ok(level.to_owned()),
        "warning" => Ok("warn".into()),
        "fatal" | "panic" => Ok("error".into()),
        _ if text.contains('=') && EnvFilter::try_new(text).is_ok() => Ok(text.to_owned()),
        _ => Err("allowed are error, warn, info, debug, trace, or directives such as info,fred=warn".into()),
    }
}

fn names<T, const N: usize>(all: [T; N], name: impl Fn(T) -> &'static str) -> String {
    all.map(name).join(", ")
}
