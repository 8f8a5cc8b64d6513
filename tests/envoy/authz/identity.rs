//! Who a client is: a claim of a token, a key, an address, a path.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{FILTER, passing, rules, start};

const TWO_AN_HOUR: &str = "rate_limit: { requests_per_unit: 2, unit: hour }";

fn per(key: &str, section: &str) -> String {
    rules(section, &format!("  - key: {key}\n    {TWO_AN_HOUR}"))
}

/// Signed with the key in [`JWT_FILTER`] (HS256): `sub` alice and bob; alice has a `realm.seat`, too.
const ALICE: &str = "Bearer eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJpc3MiOiAidGVzdCIsICJzdWIiOiAiYWxpY2UiLCAicmVhbG0iOiB7InBsYW4iOiAiZ29sZCIsICJzZWF0IjogNDJ9fQ.yHP7CFas_q9eSSmVqxwA3qHrAxx71l5TSjXBz8lg8qU";
const BOB: &str = "Bearer eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJpc3MiOiAidGVzdCIsICJzdWIiOiAiYm9iIn0.VsR0-p5Gm2ZD7Wd9lzl-sVrpCveYqi2kbqQ39DMxr68";

/// Envoy's own filter, before ours.
const JWT_FILTER: &str = r#"- name: envoy.filters.http.jwt_authn
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
                      providers:
                        test:
                          issuer: test
                          payload_in_metadata: jwt_payload
                          local_jwks:
                            inline_string: '{"keys":[{"kty":"oct","alg":"HS256","k":"YSBrZXkgZm9yIHRlc3RzLCB0aGlydHktdHdvIGJ5dGVz"}]}'
                      rules:
                        - match: { prefix: / }
                          requires: { requires_any: { requirements: [{ provider_name: test }, { allow_missing: {} }] } }
                  "#;

#[tokio::test(flavor = "multi_thread")]
async fn per_user_by_a_claim_that_envoys_jwt_filter_has_verified() {
    let section = "  rate_limits: [{ actions: [{ jwt_claim: { claim: sub } }] }]";
    let filters = format!("{JWT_FILTER}{FILTER}");
    let (_service, envoy) = start(&per("sub", section), &[], &[(FILTER, &filters)]);
    let client = envoy.authz_client();
    assert_eq!(passing(&client, "/", &[("authorization", ALICE)]).await, 2);
    assert_eq!(passing(&client, "/", &[("authorization", BOB)]).await, 2);
    // Nobody's token, or one that was tampered with: the filter before ours answers.
    let forged = format!("{}x", &BOB[..BOB.len() - 1]);
    assert_eq!(client.get("/", &[("authorization", &forged)]).await.status, 401);
    // Without a token there is no claim: the list does not apply.
    for _ in 0..5 {
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_deep_in_a_token_may_be_numbers() {
    let section = "  answers: { upstream_header: x-quota }
  rate_limits: [{ actions: [{ jwt_claim: { claim: [realm, seat] } }] }]";
    let only_42 = format!("  - key: seat\n    value: \"42\"\n    {TWO_AN_HOUR}");
    let filters = format!("{JWT_FILTER}{FILTER}");
    let (_service, envoy) = start(&rules(section, &only_42), &[], &[(FILTER, &filters)]);
    assert_eq!(
        passing(&envoy.authz_client(), "/", &[("authorization", ALICE)]).await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn per_key_in_a_header() {
    let section = "  rate_limits:
    - actions: [{ request_headers: { header_name: X-API-Key, descriptor_key: api_key } }]";
    let (_service, envoy) = start(&per("api_key", section), &[], &[]);
    let client = envoy.authz_client();
    assert_eq!(passing(&client, "/", &[("x-api-key", "one")]).await, 2);
    assert_eq!(passing(&client, "/", &[("x-api-key", "two")]).await, 2);
    assert_eq!(client.get("/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_masked_address_behind_two_proxies() {
    let section = "  client_address: { xff_num_trusted_hops: 2 }
  rate_limits: [{ actions: [{ masked_remote_address: { v4_prefix_mask_len: 24 } }] }]";
    let (_service, envoy) = start(&per("masked_remote_address", section), &[], &[]);
    let client = envoy.authz_client();
    // The client, as the first proxy saw it, and the first proxy, as the second saw it; Envoy itself sees the second.
    assert_eq!(
        passing(&client, "/", &[("x-forwarded-for", "203.0.113.7, 198.51.100.1")]).await,
        2
    );
    for same in [
        "203.0.113.99, 198.51.100.1",
        // What the client claims itself stands further left, and is not believed.
        "6.6.6.6, 203.0.113.7, 198.51.100.2",
    ] {
        assert_eq!(
            client.get("/", &[("x-forwarded-for", same)]).await.status,
            429,
            "{same}"
        );
    }
    assert_eq!(
        passing(&client, "/", &[("x-forwarded-for", "203.0.114.7, 198.51.100.1")]).await,
        2
    );
    // IPv6: a /64 is one client.
    assert_eq!(
        passing(&client, "/", &[("x-forwarded-for", "2001:db8:1:2::1, 198.51.100.1")]).await,
        2
    );
    let other_host = [("x-forwarded-for", "2001:db8:1:2:ffff::99, 198.51.100.1")];
    assert_eq!(client.get("/", &other_host).await.status, 429);
    let other_net = [("x-forwarded-for", "2001:db8:1:3::1, 198.51.100.1")];
    assert_eq!(client.get("/", &other_net).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_no_header_makes_another_client() {
    let section = "  rate_limits: [{ actions: [{ remote_address: {} }] }]";
    let (_service, envoy) = start(&per("remote_address", section), &[], &[]);
    let client = envoy.authz_client();
    assert_eq!(passing(&client, "/", &[]).await, 2);
    for forged in ["1.1.1.1", "1.1.1.1, 2.2.2.2", "::1"] {
        for header in ["x-forwarded-for", "x-envoy-external-address", "x-real-ip", "forwarded"] {
            assert_eq!(
                client.get("/", &[(header, forged)]).await.status,
                429,
                "{header}: {forged}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_path_template_whatever_the_spelling() {
    let section = "  rate_limits:
    - match: { method: GET }
      actions: [{ path: { template: \"/users/{id}\" } }]
    - actions: [{ path: { template: \"/teams/{id}/**\", variable: id, descriptor_key: team } }]
    - match: { path_prefix: /admin, host: \"*.internal\" }
      actions: [{ generic_key: { descriptor_value: admin } }]";
    let descriptors = format!(
        "  - key: path\n    value: \"/users/{{id}}\"\n    {TWO_AN_HOUR}\n  - key: team\n    {TWO_AN_HOUR}\n  - key: generic_key\n    {TWO_AN_HOUR}"
    );
    let (_service, envoy) = start(&rules(section, &descriptors), &[], &[]);
    let client = envoy.authz_client();
    assert_eq!(client.get("/users/1", &[]).await.status, 200);
    assert_eq!(client.get("/users/2?x=1", &[]).await.status, 200);
    for same in [
        "/users/3",
        "/users/3/",
        "//users//3",
        "/%75sers/3",
        "/x/../users/3",
        "/users/./3?a#b",
    ] {
        assert_eq!(client.get(same, &[]).await.status, 429, "{same}");
    }
    for other in ["/users", "/users/3/posts", "/user/3"] {
        assert_eq!(client.get(other, &[]).await.status, 200, "{other}");
    }
    assert_eq!(client.post("/users/3", &[], "").await.status, 200, "another method");

    assert_eq!(passing(&client, "/teams/red/a/b", &[]).await, 2);
    assert_eq!(client.get("/teams/red", &[]).await.status, 429);
    assert_eq!(client.get("/teams/blue", &[]).await.status, 200);

    let inside = [("host", "tools.internal:8443")];
    assert_eq!(passing(&client, "/admin/x", &inside).await, 2);
    assert_eq!(client.get("/administrators", &inside).await.status, 200);
    assert_eq!(client.get("/admin", &[]).await.status, 200, "another host");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_counted_like_any_others() {
    let section = "  rate_limits:
    - actions: [{ request_headers: { header_name: x-api-key, descriptor_key: api_key } }]";
    let (_service, envoy) = start(&per("api_key", section), &[], &[]);
    for port in [envoy.authz_port, envoy.front_port] {
        let statuses: Vec<_> = (0..3).map(|_| status(port, b"x-api-key: \xff\xfe\x80")).collect();
        // By the filter's own words the bytes come replaced, by the other as they are: two counters.
        assert_eq!(statuses, [200, 200, 429], "port {port}");
    }
}

/// Sends one request with a header of any bytes.
fn status(port: u16, header: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("Envoy listens");
    let mut request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".to_vec();
    request.extend_from_slice(header);
    request.extend_from_slice(b"\r\n\r\n");
    stream.write_all(&request).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status")
}
