//! An HTTP request as a test or a log line describes it.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::mapping::Attributes;

/// One HTTP request. What is empty or `None` is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, for instance `GET`.
    pub method: String,
    /// The authority.
    pub host: String,
    /// The path with its query.
    pub path: String,
    /// Names in lower case, in the order of the request.
    pub headers: Vec<(String, String)>,
    /// The address of the connection's other end.
    pub client: Option<IpAddr>,
    /// Context extensions of Envoy's route.
    pub extensions: Vec<(String, String)>,
}

impl Attributes for HttpRequest {
    fn method(&self) -> &str {
        &self.method
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let (_, first) = values.next()?;
        let join = |joined, (_, next): &(String, String)| Cow::Owned(format!("{joined},{next}"));
        Some(values.fold(Cow::Borrowed(first.as_str()), join))
    }

    fn header_values(&self, name: &str) -> SmallVec<[Cow<'_, str>; 1]> {
        let values = self.headers.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| Cow::Borrowed(value.as_str())).collect()
    }

    fn source_address(&self) -> Option<IpAddr> {
        self.client
    }

    fn source_principal(&self) -> &str {
        ""
    }

    fn context_extension(&self, key: &str) -> Option<&str> {
        let found = self.extensions.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    }

    fn metadata(&self, _namespace: &str, _path: &[Box<str>]) -> Option<Cow<'_, str>> {
        None
    }

    fn size(&self) -> Option<u64> {
        None
    }
}
