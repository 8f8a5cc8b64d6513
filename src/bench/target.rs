//! Where to connect.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::Authority;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port`, HTTP/2 with prior knowledge.
    Tcp(Authority),
    /// `https://host:port`, HTTP/2 over TLS.
    Tls(Authority),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl Target {
    /// What goes into `:authority`.
    #[must_use]
    pub fn authority(&self) -> &str {
        match self {
            Self::Tcp(authority) | Self::Tls(authority) => authority.as_str(),
            Self::Unix(_) => "localhost",
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("unix: needs a path, as in unix:/run/sluicegate.sock".to_owned());
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let secured = text.strip_prefix("https://");
        let rest = secured.or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let authority = rest
            .trim_end_matches('/')
            .parse::<Authority>()
            .map_err(|e| format!("{text:?} is not http://host:port, https://host:port or unix:/path ({e})"))?;
        if authority.port().is_none() {
            return Err(format!("{text:?} has no port; write http://host:8081"));
        }
        Ok(if secured.is_some() {
            Self::Tls(authority)
        } else {
            Self::Tcp(authority)
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_refused() {
        for good in [
            "http://127.0.0.1:8081",
            "http://[::1]:8081/",
            "https://host:1",
            "unix:/run/s.sock",
        ] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in ["http://host", "https://host", "unix:", "http://a b:1", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
