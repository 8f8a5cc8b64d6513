//! Random route configurations, and requests that may match them.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sluicegate::prove::http::HttpRequest;

pub struct Generator(pub StdRng);

impl Generator {
    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all.choose(&mut self.0).expect("not empty").clone()
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn string_match(&mut self) -> Value {
        let text = self.one_of(&["1", "one", "On", "a", "a,b"]);
        let kind = self.one_of(&["exact", "prefix", "suffix", "contains"]);
        match self.0.random_range(0..4) {
            0 => json!({ "safe_regex": { "regex": self.one_of(&["o.e", "[0-9]+", "a.*", "(?i)one"]) } }),
            1 => json!({ kind: text, "ignore_case": true }),
            _ => json!({ kind: text }),
        }
    }

    fn header_matcher(&mut self) -> Value {
        let mut matcher = json!({ "name": self.one_of(&["x-a", "x-b", ":method", ":path", ":authority"]) });
        match self.0.random_range(0..3) {
            0 => matcher["present_match"] = json!(self.chance(60)),
            _ => matcher["string_match"] = self.string_match(),
        }
        if self.chance(25) {
            matcher["invert_match"] = json!(true);
        }
        if self.chance(15) {
            matcher["treat_missing_header_as_empty"] = json!(true);
        }
        matcher
    }

    fn query_matcher(&mut self) -> Value {
        let name = self.one_of(&["q", "r", "a b"]);
        match self.chance(40) {
            true => json!({ "name": name, "present_match": self.chance(60) }),
            false => json!({ "name": name, "string_match": self.string_match() }),
        }
    }

    fn action(&mut self) -> Value {
        let key = self.one_of(&["k", "l"]);
        match self.0.random_range(0..11) {
            10 => self.address_match(key),
            0 => json!({ "source_cluster": {} }),
            1 => json!({ "destination_cluster": {} }),
            2 => json!({ "remote_address": {} }),
            3 => json!({ "masked_remote_address": { "v4_prefix_mask_len": self.one_of(&[0, 8, 24, 31, 32]) } }),
            4 => match self.chance(50) {
                true => json!({ "generic_key": { "descriptor_value": "v" } }),
                false => json!({ "generic_key": { "descriptor_value": "v", "descriptor_key": key } }),
            },
            5 => json!({ "header_value_match": {
                "descriptor_value": "matched", "expect_match": self.chance(70),
                "headers": (0..self.0.random_range(1..3)).map(|_| self.header_matcher()).collect::<Vec<_>>(),
            } }),
            6 => json!({ "query_parameter_value_match": {
                "descriptor_value": "matched", "expect_match": self.chance(70), "descriptor_key": key,
                "query_parameters": [self.query_matcher()],
            } }),
            7 => json!({ "query_parameters": {
                "query_parameter_name": self.one_of(&["q", "r", "a b"]), "descriptor_key": key,
                "skip_if_absent": self.chance(30),
            } }),
            8 => json!({ "metadata": {
                "source": "ROUTE_ENTRY", "descriptor_key": key,
                "metadata_key": { "key": "shop", "path": [{ "key": self.one_of(&["plan", "nothing"]) }] },
                "default_value": self.one_of(&["", "fallback"]), "skip_if_absent": self.chance(30),
            } }),
            _ => json!({ "request_headers": {
                "header_name": self.one_of(&["x-a", "X-B", ":path", ":method", ":authority"]), "descriptor_key": key,
                "skip_if_absent": self.chance(30),
            } }),
        }
    }

    fn address_match(&mut self, key: &str) -> Value {
        let (prefix, length) = self.one_of(&[
            ("0.0.0.0", 0),
            ("10.1.2.3", 24),
            ("127.0.0.1", 32),
            ("192.0.2.0", 24),
            ("::", 0),
        ]);
        let mut action = json!({
            "descriptor_value": self.one_of(&["inside", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"]),
            "address_matcher": {
                "ranges": [{ "address_prefix": prefix, "prefix_len": length }, { "address_prefix": "172.16.0.0", "prefix_len": 12 }],
                "invert_match": self.chance(40),
            },
        });
        if self.chance(70) {
            action["descriptor_key"] = json!(key);
        }
        json!({ "remote_address_match": action })
    }

    fn rate_limits(&mut self) -> Vec<Value> {
        let limit = |this: &mut Self| {
            let actions: Vec<_> = (0..this.0.random_range(1..4)).map(|_| this.action()).collect();
            let mut limit = json!({ "actions": actions });
            if this.chance(15) {
                limit["stage"] = json!(this.0.random_range(0..2));
            }
            if this.chance(15) {
                limit["hits_addend"] = json!({ "number": this.0.random_range(0..4) });
            }
            limit
        };
        (0..self.0.random_range(0..3)).map(|_| limit(self)).collect()
    }

    fn route_match(&mut self) -> Value {
        let mut matcher = match self.0.random_range(0..6) {
            0 => json!({ "path": self.one_of(&["/a", "/A/b", "/c"]) }),
            1 => json!({ "path_separated_prefix": self.one_of(&["/a", "/A/b"]) }),
            2 => json!({ "safe_regex": { "regex": self.one_of(&["/a.*", "/[abc]", "/.+/b"]) } }),
            _ => json!({ "prefix": self.one_of(&["/", "/a", "/A"]) }),
        };
        if self.chance(20) && matcher.get("safe_regex").is_none() {
            matcher["case_sensitive"] = json!(false);
        }
        if self.chance(25) {
            matcher["headers"] = json!([self.header_matcher()]);
        }
        if self.chance(20) {
            matcher["query_parameters"] = json!([self.query_matcher()]);
        }
        matcher
    }

    fn per_route(&mut self) -> Value {
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
            "vh_rate_limits": self.one_of(&["OVERRIDE", "INCLUDE", "IGNORE"]),
        });
        if self.chance(30) {
            config["domain"] = json!("other");
        }
        if self.chance(30) {
            let mut limits = self.rate_limits();
            for limit in &mut limits {
                // Envoy refuses stages here.
                limit.as_object_mut().expect("an object").remove("stage");
            }
            config["rate_limits"] = json!(limits);
        }
        match self.chance(15) {
            true => json!({
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                "config": config, "disabled": self.chance(50),
            }),
            false => config,
        }
    }

    fn route(&mut self) -> Value {
        let mut route =
            json!({ "match": self.route_match(), "metadata": { "filter_metadata": { "shop": { "plan": "gold" } } } });
        if self.chance(8) {
            route["direct_response"] = json!({ "status": 204 });
            return route;
        }
        route["route"] = json!({ "cluster": "upstream", "rate_limits": self.rate_limits() });
        if self.chance(25) {
            route["route"]["include_vh_rate_limits"] = json!(true);
        }
        if self.chance(35) {
            route["typed_per_filter_config"] = json!({ "limiter": self.per_route() });
        }
        route
    }

    pub fn host(&mut self, number: usize) -> Value {
        let mut routes: Vec<_> = (0..self.0.random_range(1..4)).map(|_| self.route()).collect();
        if self.chance(70) {
            let mut last = self.route();
            last["match"] = json!({ "prefix": "/" });
            routes.push(last);
        }
        let mut host = json!({
            "name": format!("host {number}"),
            "domains": [format!("h{number}.test"), format!("*.h{number}.test"), format!("h{number}.*")],
            "routes": routes, "rate_limits": self.rate_limits(),
        });
        if self.chance(20) {
            host["typed_per_filter_config"] = json!({ "limiter": self.per_route() });
        }
        host
    }

    pub fn request(&mut self, number: usize) -> HttpRequest {
        let host = match self.0.random_range(0..6) {
            0 => format!("www.h{number}.test"),
            1 => format!("h{number}.example"),
            2 => format!("H{number}.TEST"),
            3 => format!("h{number}.test:80"),
            _ => format!("h{number}.test"),
        };
        let mut path = self.one_of(&["/", "/a", "/A", "/a/b", "/ab", "/A/b", "/c"]).to_owned();
        if self.chance(60) {
            path += self.one_of(&[
                "?q=1",
                "?q=one&r=a",
                "?q=On%65",
                "?r=",
                "?q",
                "?a%20b=a,b&q=2&q=1",
                "?a+b=1",
            ]);
        }
        let mut headers = vec![("host".to_owned(), host.clone())];
        for name in ["x-a", "x-b"] {
            for _ in 0..self.one_of(&[0, 1, 1, 2]) {
                headers.push((
                    name.to_owned(),
                    self.one_of(&["1", "one", "ONE", "a", "a,b"]).to_owned(),
                ));
            }
        }
        if self.chance(50) {
            let forwarded = self.one_of(&[
                "10.1.2.3",
                "192.0.2.77, 10.1.2.3",
                "nobody",
                "10.9.9.9, 10.1.2.3, 172.16.5.4",
            ]);
            headers.push(("x-forwarded-for".to_owned(), forwarded.to_owned()));
        }
        HttpRequest {
            method: "GET".to_owned(),
            host,
            path,
            headers,
            client: Some([127, 0, 0, 1].into()),
            extensions: Vec::new(),
        }
    }
}
