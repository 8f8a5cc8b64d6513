//! Networks in CIDR notation, and the one with the longest prefix that an address is in.

use std::fmt;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::pattern::NodeId;

/// A network in CIDR notation. One of IPv4-mapped addresses is the IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// It is not `address/length`.
    #[error("it is no network: write it as in `10.0.0.0/8` or `2001:db8::/32`")]
    Syntax,
    /// The address goes on behind the prefix.
    #[error("its address has bits behind the prefix: write {0}")]
    HostBits(Cidr),
}

impl Cidr {
    /// Reads `address/length`, or an address alone.
    ///
    /// # Errors
    /// [`CidrError`] says how to write it.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().map_err(|_| CidrError::Syntax)?;
        let bits = if given.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length: u8 = text.parse().map_err(|_| CidrError::Syntax)?;
                Some(length).filter(|length| *length <= bits).ok_or(CidrError::Syntax)?
            }
            Some(_) => return Err(CidrError::Syntax),
        };
        let canonical = given.to_canonical();
        // A mapped network of 96 bits and more is one of IPv4.
        let network = match (given, canonical) {
            (IpAddr::V6(_), IpAddr::V4(_)) if length >= 96 => Self {
                address: canonical,
                length: length - 96,
            },
            _ => Self { address: given, length },
        };
        let whole = Self {
            address: unmap(network.address.is_ipv4(), bits_of(network.address) & network.mask()),
            ..network
        };
        if whole == network {
            Ok(network)
        } else {
            Err(CidrError::HostBits(whole))
        }
    }

    /// Over 128 bits, as IPv4-mapped addresses have them.
    const fn mask(self) -> u128 {
        mask(self.address.is_ipv4(), self.length)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

const fn mask(is_ipv4: bool, length: u8) -> u128 {
    let length = if is_ipv4 { 96 + length as u32 } else { length as u32 };
    match u128::MAX.checked_shr(length) {
        Some(behind) => !behind,
        None => u128::MAX,
    }
}

const fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

const fn unmap(is_ipv4: bool, bits: u128) -> IpAddr {
    let address = std::net::Ipv6Addr::from_bits(bits);
    if is_ipv4 {
        IpAddr::V6(address).to_canonical()
    } else {
        IpAddr::V6(address)
    }
}

/// The networks of one key at one level.
#[derive(Debug, Default)]
pub(super) struct CidrTables {
    /// Longest prefix first; one for each length that there is.
    tables: Vec<PrefixTable>,
}

#[derive(Debug)]
struct PrefixTable {
    is_ipv4: bool,
    length: u8,
    nodes: HashMap<u128, NodeId>,
}

impl CidrTables {
    pub(super) fn insert(&mut self, network: Cidr, node: NodeId) {
        let (is_ipv4, length) = (network.address.is_ipv4(), network.length);
        let key = |table: &PrefixTable| (table.length, table.is_ipv4);
        let at = self.tables.partition_point(|table| key(table) > (length, is_ipv4));
        if self.tables.get(at).is_none_or(|table| key(table) != (length, is_ipv4)) {
            let nodes = HashMap::new();
            self.tables.insert(at, PrefixTable { is_ipv4, length, nodes });
        }
        if let Some(table) = self.tables.get_mut(at) {
            table.nodes.entry(bits_of(network.address)).or_insert(node);
        }
    }

    /// The node of the longest prefix.
    pub(super) fn find(&self, address: IpAddr, probe: &mut impl FnMut()) -> Option<NodeId> {
        self.all(address, probe).next()
    }

    /// A value as an address, if there are networks. An IPv4-mapped address is an IPv4 one.
    pub(super) fn address(&self, value: &str) -> Option<IpAddr> {
        if self.tables.is_empty() {
            return None;
        }
        value.parse().ok().map(|address: IpAddr| address.to_canonical())
    }

    fn all(&self, address: IpAddr, probe: &mut impl FnMut()) -> impl Iterator<Item = NodeId> {
        let (is_ipv4, bits) = (address.is_ipv4(), bits_of(address));
        let tables = self.tables.iter().filter(move |table| table.is_ipv4 == is_ipv4);
        tables.filter_map(move |table| {
            probe();
            table.nodes.get(&(bits & mask(is_ipv4, table.length))).copied()
        })
    }

    /// All nodes whose networks have it, for explanations.
    pub(super) fn fitting(&self, value: &str) -> Vec<NodeId> {
        let address = self.address(value);
        address.map_or_else(Vec::new, |address| self.all(address, &mut || {}).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_they_are_written_or_told_how_to_be() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "x",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "1.2.3.4:80",
        ] {
            assert_eq!(Cidr::parse(text), Err(CidrError::Syntax), "{text}");
        }
        let error = Cidr::parse("10.1.2.3/8").unwrap_err();
        assert!(error.to_string().ends_with("write 10.0.0.0/8"), "{error}");
    }
}
