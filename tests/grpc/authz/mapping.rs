//! The mapping against a naive one, and what has to hold of it whatever is sent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use sluicegate::mapping::address::{Masks, masked};
use sluicegate::mapping::spelling::normalize;
use sluicegate::mapping::{Attributes, ClientAddress};

use super::rules;

/// A request, simply.
#[derive(Debug, Clone, Default)]
struct Simple {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    peer: Option<IpAddr>,
    extension: Option<String>,
    claim: Option<String>,
    target: String,
}

impl Attributes for Simple {
    fn method(&self) -> &str {
        &self.method
    }
    fn host(&self) -> &str {
        "h"
    }
    #[allow(
        clippy::misnamed_getters,
        reason = "what HTTP calls the target is what Envoy calls the path"
    )]
    fn path(&self) -> &str {
        &self.target
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers.get(name).map(|value| Cow::Borrowed(value.as_str()))
    }
    fn source_address(&self) -> Option<IpAddr> {
        self.peer
    }
    fn source_principal(&self) -> &str {
        ""
    }
    fn context_extension(&self, key: &str) -> Option<&str> {
        (key == "e").then_some(self.extension.as_deref()).flatten()
    }
    fn metadata(&self, namespace: &str, path: &[Box<str>]) -> Option<Cow<'_, str>> {
        let claim = namespace == "envoy.filters.http.jwt_authn" && *path[0] == *"jwt_payload" && *path[1] == *"sub";
        claim.then_some(self.claim.as_deref().map(Cow::Borrowed)).flatten()
    }
    fn size(&self) -> Option<u64> {
        None
    }
}

/// An action: how it is written, and what it means.
#[derive(Debug, Clone)]
enum Act {
    Header(String, Absent),
    Query(String, Absent),
    Extension(Absent),
    Claim(Absent),
    Generic,
    Method,
    Path,
    Segments(usize),
    User,
    Address,
    HeaderIs {
        name: String,
        value: String,
        invert: bool,
        expect: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Absent {
    List,
    Entry,
    Default,
}

impl Absent {
    const fn yaml(self) -> &'static str {
        match self {
            Self::List => "",
            Self::Entry => ", skip_if_absent: true",
            Self::Default => ", default_value: none",
        }
    }
}

impl Act {
    fn yaml(&self) -> String {
        match self {
            Self::Header(name, absent) => {
                format!(
                    "request_headers: {{header_name: {name}, descriptor_key: k{}}}",
                    absent.yaml()
                )
            }
            Self::Query(name, absent) => {
                format!(
                    "query_parameters: {{query_parameter_name: {name}, descriptor_key: k{}}}",
                    absent.yaml()
                )
            }
            Self::Extension(absent) => format!("context_extension: {{name: e, descriptor_key: k{}}}", absent.yaml()),
            Self::Claim(absent) => format!("jwt_claim: {{claim: sub, descriptor_key: k{}}}", absent.yaml()),
            Self::Generic => "generic_key: {descriptor_key: k, descriptor_value: g}".into(),
            Self::Method => "method: {descriptor_key: k}".into(),
            Self::Path => "path: {descriptor_key: k}".into(),
            Self::Segments(n) => format!("path: {{descriptor_key: k, segments: {n}}}"),
            Self::User => "path: {descriptor_key: k, template: '/{a}/{b}', variable: b}".into(),
            Self::Address => "remote_address: {descriptor_key: k}".into(),
            Self::HeaderIs {
                name,
                value,
                invert,
                expect,
            } => format!(
                "header_value_match: {{descriptor_key: k, descriptor_value: hm, expect_match: {expect}, headers: \
                 [{{name: {name}, string_match: {{exact: '{value}'}}, invert_match: {invert}}}]}}"
            ),
        }
    }

    /// The value, by the words of the reference; with what to do when there is none.
    fn naive(&self, request: &Simple) -> (Option<String>, Absent) {
        match self {
            Self::Header(name, absent) => (request.headers.get(name).cloned(), *absent),
            Self::Query(name, absent) => {
                let found = request.query.iter().find(|(key, _)| key == name);
                (found.map(|(_, value)| value.clone()), *absent)
            }
            Self::Extension(absent) => (request.extension.clone(), *absent),
            Self::Claim(absent) => (request.claim.clone().filter(|claim| !claim.is_empty()), *absent),
            Self::Generic => (Some("g".into()), Absent::List),
            Self::Method => (Some(request.method.clone()).filter(|m| !m.is_empty()), Absent::List),
            Self::Path => (Some(naive_path(&request.path, usize::MAX)), Absent::List),
            Self::Segments(n) => (Some(naive_path(&request.path, *n)), Absent::List),
            Self::User => {
                let path = naive_path(&request.path, usize::MAX);
                let parts: Vec<&str> = path.split('/').skip(1).collect();
                let fits = parts.len() == 2 && parts.iter().all(|part| !part.is_empty());
                (fits.then(|| parts[1].to_owned()), Absent::List)
            }
            Self::Address => (request.peer.map(naive_address), Absent::List),
            Self::HeaderIs {
                name,
                value,
                invert,
                expect,
            } => {
                let matched = request
                    .headers
                    .get(name)
                    .is_some_and(|found| (found == value) != *invert);
                ((matched == *expect).then(|| "hm".into()), Absent::List)
            }
        }
    }
}

/// Segments as a list: dots resolved, empty ones dropped.
fn naive_path(path: &str, count: usize) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.truncate(count);
    format!("/{}", segments.join("/"))
}

fn naive_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => {
                let mut parts = v6.segments();
                parts[4..].fill(0);
                format!("{}/64", std::net::Ipv6Addr::from(parts))
            }
        },
    }
}

fn naive(lists: &[Vec<Act>], request: &Simple) -> Vec<Vec<String>> {
    let mut descriptors = Vec::new();
    'lists: for list in lists {
        let mut entries = Vec::new();
        for act in list {
            match act.naive(request) {
                (Some(value), _) => entries.push(value),
                (None, Absent::List) => continue 'lists,
                (None, Absent::Entry) => {}
                (None, Absent::Default) => entries.push("none".into()),
            }
        }
        if !entries.is_empty() {
            descriptors.push(entries);
        }
    }
    descriptors
}

fn absent() -> impl Strategy<Value = Absent> {
    prop_oneof![Just(Absent::List), Just(Absent::Entry), Just(Absent::Default)]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        ("x-[ab]", absent()).prop_map(|(name, absent)| Act::Header(name, absent)),
        ("[qr]", absent()).prop_map(|(name, absent)| Act::Query(name, absent)),
        absent().prop_map(Act::Extension),
        absent().prop_map(Act::Claim),
        Just(Act::Generic),
        Just(Act::Method),
        Just(Act::Path),
        (1..4_usize).prop_map(Act::Segments),
        Just(Act::User),
        Just(Act::Address),
        ("x-[ab]", "[12]?", any::<bool>(), any::<bool>()).prop_map(|(name, value, invert, expect)| Act::HeaderIs {
            name,
            value,
            invert,
            expect
        }),
    ]
}

fn request() -> impl Strategy<Value = Simple> {
    (
        prop_oneof![Just(""), Just("GET"), Just("odd")],
        "/([ab.]{0,2}/){0,4}[ab.]{0,2}",
        prop::collection::vec(("[qrs]", "[12é %]{0,3}"), 0..4),
        prop::collection::btree_map("x-[ab]", "[12]{0,2}", 0..3),
        prop::option::of(any::<IpAddr>()),
        prop::option::of("[12]{0,2}"),
        prop::option::of("[12]{0,2}"),
    )
        .prop_map(|(method, path, query, headers, peer, extension, claim)| {
            // Percent-encoded throughout, as a client may.
            let encode = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
            let pairs: Vec<_> = query
                .iter()
                .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
                .collect();
            let question = if pairs.is_empty() { "" } else { "?" };
            let target = format!("{path}{question}{}", pairs.join("&"));
            Simple {
                method: method.into(),
                path,
                query,
                headers,
                peer,
                extension,
                claim,
                target,
            }
        })
}

/// Rules for as many entries as a list has here.
fn yaml(lists: &[Vec<Act>]) -> String {
    let limit = "rate_limit: {unit: second, requests_per_unit: 1}";
    let mut yaml = format!(
        "domain: d\ndescriptors: [{{key: k, {limit}, descriptors: [{{key: k, {limit}, descriptors: [{{key: k, {limit}}}]}}]}}]\n\
         ext_authz:\n  rate_limits:\n"
    );
    for list in lists {
        let actions: Vec<_> = list.iter().map(|act| format!("{{{}}}", act.yaml())).collect();
        yaml += &format!("    - actions: [{}]\n", actions.join(", "));
    }
    yaml
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn lists_map_as_their_words_say(
        lists in prop::collection::vec(prop::collection::vec(act(), 1..4), 1..6),
        requests in prop::collection::vec(request(), 1..8),
    ) {
        let rules = rules(&yaml(&lists));
        let mapping = rules.ext_authz.get("d").expect("a mapping");
        for request in &requests {
            let found = mapping.descriptors(request, 1000).expect("short");
            let found: Vec<Vec<String>> =
                found.into_iter().map(|d| d.entries.into_iter().map(|e| e.value).collect()).collect();
            prop_assert_eq!(found, naive(&lists, request), "{:?}", request);
        }
    }

    #[test]
    fn a_normal_path_stays_and_any_other_becomes_one(path in "/[a%2eE0/.é?]{0,30}") {
        let once = normalize(&path).into_owned();
        prop_assert_eq!(normalize(&once).into_owned(), once.clone());
        prop_assert!(once.starts_with('/') && !once.contains("//"));
        prop_assert!(once.len() == 1 || !once.ends_with('/'));
        prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
    }

    /// What a client writes into the header itself stands left of what trusted proxies append: it moves nothing.
    #[test]
    fn a_client_cannot_choose_its_address(claimed in "[0-9a-f.:, ]{0,30}", hops in 1..5_u32, peer in any::<IpAddr>(), proxies in prop::collection::vec(any::<IpAddr>(), 5)) {
        let trusted: Vec<_> = proxies.iter().take(hops as usize + 1).map(ToString::to_string).collect();
        let trusted = trusted.join(", ");
        let find = |header: String| {
            let request = Simple {
                headers: [("x-forwarded-for".to_owned(), header)].into(),
                peer: Some(peer),
                ..Simple::default()
            };
            ClientAddress { xff_num_trusted_hops: hops, ..ClientAddress::default() }.find(&request)
        };
        prop_assert_eq!(find(format!("{claimed},{trusted}")), find(trusted.clone()));
        prop_assert_eq!(find(trusted), Some(proxies[0].to_canonical()));
    }

    #[test]
    fn masked_networks_hold_their_address_and_are_fixed_points(address in any::<IpAddr>(), v4 in 0..=32_u8, v6 in 0..=128_u8) {
        let masks = Masks { v4_prefix_mask_len: v4, v6_prefix_mask_len: v6 };
        let network = masked(address, &masks);
        let (base, length) = network.split_once('/').expect("a slash");
        prop_assert_eq!(length.parse::<u8>().expect("a length"), if address.is_ipv4() { v4 } else { v6 });
        prop_assert_eq!(masked(base.parse().expect("an address"), &masks), network);
    }
}
