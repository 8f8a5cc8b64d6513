//! Wrong `ext_authz` sections, and what each is told.

/// The section, then `line:column path | part of the message | part of the help`; the section begins on line 9.
pub const CASES: &[(&str, &str)] = &[
    (
        "default: true",
        "9:3 d / ext_authz | `ext_authz` has no `rate_limits` | add `rate_limits:`",
    ),
    ("rate_limits: []", "9:16 d / ext_authz | `rate_limits` is empty | text"),
    (
        "rate_limits: 5",
        "9:16 d / ext_authz | `rate_limits` must be a list, not 5 | list",
    ),
    (
        "ratelimits: []\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:3 d / ext_authz | unknown field \"ratelimits\" in `ext_authz` | did you mean `rate_limits`?",
    ),
    (
        "failure_mode: open\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:17 d / ext_authz | unknown failure_mode \"open\" | one of: allow, deny",
    ),
    (
        "client_address: {xff_num_trusted_hops: -1}\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:42 d / ext_authz | must be between 0 and 100, not -1 | whole number",
    ),
    (
        "client_address: {ipv6_prefix_len: 129}\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:37 d / ext_authz | must be between 0 and 128, not 129 | whole number",
    ),
    (
        "answers: {denied_status: 418}\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:28 d / ext_authz | `denied_status` \"418\" cannot be used: Envoy | ",
    ),
    (
        "answers: {headers: [x-ratelimit]}\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:23 d / ext_authz | unknown headers \"x-ratelimit\" | did you mean `x_ratelimit`?",
    ),
    (
        "answers: {upstream_header: 'a b'}\nrate_limits: [{actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:30 d / ext_authz | `upstream_header` \"a b\" cannot be used: it is no name of a header | ",
    ),
    // Lists
    (
        "rate_limits: [{}]",
        "9:17 d / ext_authz / rate_limits #1 | has no `actions` | add `actions:`",
    ),
    (
        "rate_limits: [{actions: []}]",
        "9:27 d / ext_authz / rate_limits #1 | `actions` is empty | ",
    ),
    (
        "rate_limits: [{actions: [{}]}]",
        "9:28 d / ext_authz / rate_limits #1 / actions #1 | exactly one of its kinds | give one of: request_headers",
    ),
    (
        "rate_limits: [{actions: [{method: {}, host: {}}]}]",
        "9:28 d / ext_authz / rate_limits #1 / actions #1 | exactly one of its kinds | give one of",
    ),
    (
        "rate_limits: [{actions: [{remote_addres: {}}]}]",
        "9:29 d / ext_authz / rate_limits #1 / actions #1 | unknown field \"remote_addres\" in an action | did you mean `remote_address`?",
    ),
    (
        "rate_limits: [{actions: [{remote_address: {descriptor_key: nobody}}]}]",
        "9:17 d / ext_authz / rate_limits #1 | no rule of the domain counts what these actions make: nobody | descriptor_key",
    ),
    (
        "rate_limits: [{actions: [{request_headers: {header_name: x, descriptor_key: a, skip_if_absent: true}}, {method: {}}]}]",
        "9:17 d / ext_authz / rate_limits #1 | make: a / method | below `descriptors`",
    ),
    (
        "rate_limits: [{hits_addend: many, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:31 d / ext_authz / rate_limits #1 | `hits_addend` must be a mapping | mapping",
    ),
    (
        "rate_limits: [{hits_addend: -1, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:31 d / ext_authz / rate_limits #1 | must be between 0 and 4294967295, not -1 | whole number",
    ),
    (
        "rate_limits: [{hits_addend: {header: {}}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:40 d / ext_authz / rate_limits #1 | `header` has no `name` | add `name",
    ),
    (
        "rate_limits: [{hits_addend: {content_length: {bytes_per_hit: 0}}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:64 d / ext_authz / rate_limits #1 | must be between 1 and | whole number",
    ),
    // Actions
    (
        "rate_limits: [{actions: [{request_headers: {descriptor_key: a}}]}]",
        "9:46 d / ext_authz / rate_limits #1 / actions #1 | `request_headers` has no `header_name` | add `header_name",
    ),
    (
        "rate_limits: [{actions: [{request_headers: {header_name: x}}]}]",
        "9:46 d / ext_authz / rate_limits #1 / actions #1 | `request_headers` has no `descriptor_key` | add `descriptor_key",
    ),
    (
        "rate_limits: [{actions: [{request_headers: {header_name: x, descriptor_key: a, skip_if_absent: true, default_value: v}}]}]",
        "9:98 d / ext_authz / rate_limits #1 / actions #1 | `skip_if_absent` beside `default_value` | not both",
    ),
    (
        "rate_limits: [{actions: [{generic_key: {descriptor_key: a}}]}]",
        "9:42 d / ext_authz / rate_limits #1 / actions #1 | `generic_key` has no `descriptor_value` | add",
    ),
    (
        "rate_limits: [{actions: [{masked_remote_address: {v4_prefix_mask_len: 33}}]}]",
        "9:73 d / ext_authz / rate_limits #1 / actions #1 | must be between 0 and 32, not 33 | whole number",
    ),
    (
        "rate_limits: [{actions: [{path: {template: users}}]}]",
        "9:46 d / ext_authz / rate_limits #1 / actions #1 | `template` \"users\" cannot be used: a template starts with `/` | ",
    ),
    (
        "rate_limits: [{actions: [{path: {template: '/users/{id}', variable: name}}]}]",
        "9:71 d / ext_authz / rate_limits #1 / actions #1 | the template `/users/{id}` has no such variable | ",
    ),
    (
        "rate_limits: [{actions: [{path: {variable: id}}]}]",
        "9:35 d / ext_authz / rate_limits #1 / actions #1 | `path` with a `variable` has no `template` | add `template",
    ),
    (
        "rate_limits: [{actions: [{path: {template: /a, segments: 1}}]}]",
        "9:60 d / ext_authz / rate_limits #1 / actions #1 | `segments` beside `template` | not both",
    ),
    (
        "rate_limits: [{actions: [{jwt_claim: {}}]}]",
        "9:40 d / ext_authz / rate_limits #1 / actions #1 | `jwt_claim` has no `claim` | add `claim",
    ),
    (
        "rate_limits: [{actions: [{metadata: {descriptor_key: a}}]}]",
        "9:39 d / ext_authz / rate_limits #1 / actions #1 | `metadata` has no `metadata_key` | as in Envoy",
    ),
    (
        "rate_limits: [{actions: [{header_value_match: {descriptor_key: a, descriptor_value: v}}]}]",
        "9:49 d / ext_authz / rate_limits #1 / actions #1 | `header_value_match` has no `headers` | add",
    ),
    // Matchers
    (
        "rate_limits: [{match: {path: /a, path_prefix: /b}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:49 d / ext_authz / rate_limits #1 | `path` beside `path_prefix` | not both",
    ),
    (
        "rate_limits: [{match: {path: '/a//b/'}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:32 d / ext_authz / rate_limits #1 | paths are compared as `/a/b` | ",
    ),
    (
        "rate_limits: [{match: {path: '/a?b'}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:32 d / ext_authz / rate_limits #1 | without their query | ",
    ),
    (
        "rate_limits: [{match: {method: get}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:34 d / ext_authz / rate_limits #1 | methods are written in capitals | ",
    ),
    (
        "rate_limits: [{match: {host: 'a:80'}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:32 d / ext_authz / rate_limits #1 | a host without its port | ",
    ),
    (
        "rate_limits: [{match: {headers: [{name: x, string_match: {}}]}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:60 d / ext_authz / rate_limits #1 | `string_match` must have exactly one | give one of: exact",
    ),
    (
        "rate_limits: [{match: {headers: [{name: x, string_match: {safe_regex: {regex: 'a)(b'}}}]}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:81 d / ext_authz / rate_limits #1 | `regex` \"a)(b\" cannot be used: error: unopened group | ",
    ),
    (
        "rate_limits: [{match: {headers: [{name: x, string_match: {safe_regex: {regex: '(a{1000}){1000}'}}}]}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:81 d / ext_authz / rate_limits #1 | it is too large once compiled | ",
    ),
    (
        "rate_limits: [{match: {headers: [{name: x, string_match: {exact: a}, present_match: true}]}, actions: [{remote_address: {descriptor_key: a}}]}]",
        "9:87 d / ext_authz / rate_limits #1 | `present_match` beside `string_match` | not both",
    ),
];
