//! The client's address. By default the connection's other end: a header is a claim that any client can make, and is
//! believed only as far as trusted proxies stand in front, counted as Envoy counts them (`xff_num_trusted_hops`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Attributes;

/// How the client's address is found and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// Proxies in front of Envoy that are trusted to append to X-Forwarded-For; 0 = the header is not looked at.
    pub xff_num_trusted_hops: u32,
    /// Envoy's own `skip_xff_append`: it did not append its peer's address to the header before it asked.
    pub skip_xff_append: bool,
    /// Bits of an IPv6 address that are one client (`remote_address`): a host commonly owns a whole /64.
    pub ipv6_prefix_len: u8,
}

impl Default for ClientAddress {
    fn default() -> Self {
        Self {
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            ipv6_prefix_len: 64,
        }
    }
}

/// The bits of an address that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masks {
    /// At most 32.
    pub v4_prefix_mask_len: u8,
    /// At most 128.
    pub v6_prefix_mask_len: u8,
}

impl Default for Masks {
    fn default() -> Self {
        Self {
            v4_prefix_mask_len: 32,
            v6_prefix_mask_len: 64,
        }
    }
}

/// A network, as a CIDR range names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// The network of an address; a prefix that is longer than the address counts as the whole of it.
    #[must_use]
    pub fn new(address: IpAddr, prefix_len: u8) -> Self {
        Self { address, prefix_len }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let masks = Masks {
            v4_prefix_mask_len: self.prefix_len,
            v6_prefix_mask_len: self.prefix_len,
        };
        self.address.is_ipv4() == address.is_ipv4() && network(self.address, &masks).0 == network(address, &masks).0
    }
}

/// A list of networks, or with `invert` everything outside of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks {
    /// Any of them.
    pub ranges: Box<[Network]>,
    /// Whether an address is to be outside of all of them.
    pub invert: bool,
}

impl Networks {
    pub(super) fn matches(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address)) != self.invert
    }
}

impl ClientAddress {
    /// The address of the client.
    ///
    /// With N trusted hops that is the Nth address from the right of the X-Forwarded-For that reached Envoy, with or
    /// without a port; where there are fewer, or it is no address, the peer's. Envoy has appended its peer when it asks,
    /// unless `skip_xff_append`.
    pub fn find(&self, attributes: &impl Attributes) -> Option<IpAddr> {
        self.look(attributes).0
    }

    /// The same, and why it is not the one that the header should name, if it is not.
    pub(super) fn look(&self, attributes: &impl Attributes) -> (Option<IpAddr>, Option<NotNamed>) {
        let named = self.hops_to_skip().map(|hops| {
            let header = attributes.header("x-forwarded-for");
            forwarded_for(header.as_deref().unwrap_or_default(), hops)
        });
        let (named, reason) = match named {
            None => (None, None),
            Some(Ok(address)) => (Some(address), None),
            Some(Err(reason)) => (None, Some(reason)),
        };
        // One client on a dual-stack socket is one client.
        let address = named.or_else(|| attributes.source_address());
        (address.map(|address| address.to_canonical()), reason)
    }

    fn hops_to_skip(&self) -> Option<usize> {
        let hops = usize::try_from(self.xff_num_trusted_hops)
            .ok()
            .filter(|hops| *hops > 0)?;
        Some(if self.skip_xff_append { hops - 1 } else { hops })
    }

    /// How `remote_address` shows it: IPv4 whole, IPv6 as its network, so that one host cannot take endless identities.
    #[must_use]
    pub fn show(&self, address: IpAddr) -> String {
        match address {
            IpAddr::V6(_) if self.ipv6_prefix_len < 128 => masked(
                address,
                &Masks {
                    v4_prefix_mask_len: 32,
                    v6_prefix_mask_len: self.ipv6_prefix_len,
                },
            ),
            IpAddr::V4(v4) => dotted(v4),
            IpAddr::V6(v6) => v6.to_string(),
        }
    }
}

/// An IPv4 address as text: most requests have one, and `fmt` takes several times as long.
fn dotted(address: Ipv4Addr) -> String {
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (unit, leading) in [(100, 100), (10, 10), (1, 0)] {
            if octet >= leading {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

/// Why X-Forwarded-For does not name the client, so that the peer's address is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotNamed {
    /// There are fewer addresses in it than trusted hops.
    #[error("x-forwarded-for has {found} elements, too few for xff_num_trusted_hops")]
    TooFew {
        /// How many there are.
        found: usize,
    },
    /// The element is no address.
    #[error("the element of x-forwarded-for that should name the client is no address: {shown}")]
    NoAddress {
        /// The element, escaped and cut to a length that logs bear.
        shown: String,
    },
}

impl NotNamed {
    /// A fixed word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TooFew { .. } => "too_few",
            Self::NoAddress { .. } => "no_address",
        }
    }
}

/// The element after `skip` others from the right.
fn forwarded_for(header: &str, skip: usize) -> Result<IpAddr, NotNamed> {
    let Some(element) = header.rsplit(',').nth(skip).filter(|_| !header.is_empty()) else {
        let found = if header.is_empty() {
            0
        } else {
            header.split(',').count()
        };
        return Err(NotNamed::TooFew { found });
    };
    let element = element.trim_matches(|c| matches!(c, ' ' | '\t'));
    address(element).ok_or_else(|| NotNamed::NoAddress {
        shown: format!("{:?}", element.chars().take(super::SHOWN_CHARS).collect::<String>()),
    })
}

/// An address as proxies write it: alone, or with a port (Azure Application Gateway), IPv6 then in brackets (RFC 7239).
fn address(element: &str) -> Option<IpAddr> {
    let bracketed = || {
        let inner = element.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok().map(IpAddr::V6)
    };
    element
        .parse()
        .ok()
        .or_else(|| element.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
        .or_else(bracketed)
}

/// `network/length`, as Envoy's `masked_remote_address` writes it.
#[must_use]
pub fn masked(address: IpAddr, masks: &Masks) -> String {
    let (network, length) = network(address, masks);
    format!("{network}/{length}")
}

/// The address with only the bits of its prefix, and how many those are.
fn network(address: IpAddr, masks: &Masks) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(v4) => {
            let length = masks.v4_prefix_mask_len.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            (Ipv4Addr::from_bits(v4.to_bits() & mask).into(), length)
        }
        IpAddr::V6(v6) => {
            let length = masks.v6_prefix_mask_len.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            (Ipv6Addr::from_bits(v6.to_bits() & mask).into(), length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(address: &str, v4: u8, v6: u8) -> String {
        let masks = Masks {
            v4_prefix_mask_len: v4,
            v6_prefix_mask_len: v6,
        };
        masked(address.parse().unwrap(), &masks)
    }

    #[test]
    fn masks_keep_the_network() {
        assert_eq!(mask("10.1.2.3", 32, 64), "10.1.2.3/32");
        assert_eq!(mask("10.1.2.3", 24, 64), "10.1.2.0/24");
        assert_eq!(mask("10.1.2.3", 0, 64), "0.0.0.0/0");
        assert_eq!(mask("2001:db8:1:2:3:4:5:6", 32, 64), "2001:db8:1:2::/64");
        assert_eq!(mask("2001:db8:1:2:3:4:5:6", 32, 128), "2001:db8:1:2:3:4:5:6/128");
        assert_eq!(mask("2001:db8:1:2:3:4:5:6", 32, 0), "::/0");
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(octet, 255 - octet, 0, octet);
            assert_eq!(dotted(address), address.to_string());
        }
    }

    #[test]
    fn hops_are_counted_from_the_right() {
        let header = "6.6.6.6, 1.1.1.1 ,2001:db8::2,\t3.3.3.3";
        let at = |skip| forwarded_for(header, skip).map(|address| address.to_string());
        assert_eq!(at(0).as_deref(), Ok("3.3.3.3"));
        assert_eq!(at(1).as_deref(), Ok("2001:db8::2"));
        assert_eq!(at(2).as_deref(), Ok("1.1.1.1"));
        assert_eq!(at(3).as_deref(), Ok("6.6.6.6"));
        assert_eq!(at(4), Err(NotNamed::TooFew { found: 4 }));
        assert_eq!(forwarded_for("", 0), Err(NotNamed::TooFew { found: 0 }));
    }

    #[test]
    fn an_address_may_have_a_port() {
        for (element, address) in [
            ("203.0.113.7:51234", "203.0.113.7"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1"),
        ] {
            assert_eq!(forwarded_for(element, 0), Ok(address.parse().unwrap()), "{element}");
        }
        for bad in [
            "unknown",
            "1.1.1.1:",
            "1.1.1.1:65536",
            "1.1.1.1:x",
            "[1.1.1.1]",
            "[::1]:",
            "[::1",
            "1.1.1.1;",
            "1.1.1.01",
            "_hidden:80",
            "\u{1b}[31m",
        ] {
            let error = forwarded_for(bad, 0).unwrap_err();
            assert_eq!(error.kind(), "no_address", "{bad:?}");
            assert!(!error.to_string().contains('\u{1b}'), "{error}");
        }
    }
}
