//! What is asked of a request. The implementor borrows from the wire message: nothing is copied that no rule needs.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::SmallVec;

/// One HTTP request as a proxy describes it.
pub trait Attributes {
    /// The method, for instance `GET`; may be empty.
    fn method(&self) -> &str;

    /// The authority as the client sent it, with its port.
    fn host(&self) -> &str;

    /// The path with its query, undecoded.
    fn path(&self) -> &str;

    /// A header by its lower-case name; the values of a repeated one joined by a comma.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;

    /// Each value of a header; where the values of a repeated one are known joined only, that text alone.
    fn header_values(&self, name: &str) -> SmallVec<[Cow<'_, str>; 1]> {
        self.header(name).into_iter().collect()
    }

    /// The address of the connection's other end; `None` where that is no IP connection.
    fn source_address(&self) -> Option<IpAddr>;

    /// The identity that mTLS proved, or nothing.
    fn source_principal(&self) -> &str;

    /// What the route's configuration says under this key.
    fn context_extension(&self, key: &str) -> Option<&str>;

    /// The text, number or truth value at a path in a filter's metadata; `None` for anything else.
    fn metadata(&self, namespace: &str, path: &[Box<str>]) -> Option<Cow<'_, str>>;

    /// Bytes of the request, where the proxy knows.
    fn size(&self) -> Option<u64>;
}
