//! Wrong rules files, and what each is told.

/// The YAML, then `line:column path | part of the message | part of the help`.
pub const CASES: &[(&str, &str)] = &[
    // The file
    ("", "-  | no `domain` | domain:"),
    ("# nothing\n", "-  | no `domain` | domain:"),
    ("descriptors: []\n", "-  | no `domain` | add `domain"),
    ("domain: ''\n", "1:9  | `domain` is empty | text"),
    ("domain: [a]\n", "1:9  | `domain` must be text, not a list | text"),
    ("- a\n", "1:1  | a rules file must be a mapping | mapping"),
    (
        "domain: d\ndescriptor: []\n",
        "2:1 d | unknown field \"descriptor\" in a rules file | did you mean `descriptors`?",
    ),
    (
        "domain: d\n0.25: x\n",
        "2:1 d | unknown field \"0.25\" | one of: domain, descriptors",
    ),
    (
        "domain: d\ndescriptors: 5\n",
        "2:14 d | `descriptors` must be a list, not 5 | a list",
    ),
    (
        "domain: d\ndomain: e\n",
        "2:1 d | `domain` stands here twice, the first time on line 1 | keep one",
    ),
    (
        "domain: d\non_store_error: alow\n",
        "2:17 d | unknown on_store_error \"alow\" | did you mean `allow`?",
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\ndata: {config.yaml: 'domain: d'}\n",
        "1:1  | a Kubernetes resource (\"ConfigMap\") is no rules file | each text below its `data`",
    ),
    (
        "kind: RateLimit\napiVersion: getambassador.io/v2\nspec: {domain: d}\n",
        "1:1  | a Kubernetes resource (\"RateLimit\") is no rules file | has `domain` and `descriptors`",
    ),
    // YAML
    (
        "domain: d\n---\ndomain: e\n",
        "3:1  | more than one YAML document | file of its own",
    ),
    (
        "domain: [a\n",
        "1:9  | not valid YAML: unclosed bracket '[' | indentation",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    value: *\n",
        "4:12  | stands without quotes | quote it",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    value: *.example.com\n",
        "4:12  | stands without quotes | quote it",
    ),
    (
        "domain: d\n\tdescriptors: []\n",
        "1:9  | not valid YAML: while scanning a plain scalar, found a tab | spaces only",
    ),
    // A descriptor
    (
        "domain: d\ndescriptors: [a]\n",
        "2:15 d / #1 | a descriptor must be a mapping (`field: value`), not the text \"a\" | mapping",
    ),
    (
        "domain: d\ndescriptors:\n  - value: x\n",
        "3:5 d / #1 | a descriptor has no `key` | add `key",
    ),
    (
        "domain: d\ndescriptors:\n  - key: ''\n",
        "3:10 d / #1 | `key` is empty | text",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    ratelimit: {}\n",
        "4:5 d / a | unknown field \"ratelimit\" in a descriptor | did you mean `rate_limit`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    shadow_mode: 'true'\n",
        "4:18 d / a | `shadow_mode` must be true or false (without quotes), not the text \"true\" | without quotes",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: 5\n",
        "4:15 d / a | `metadata` must be a mapping, not 5 | a mapping",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: {x: .nan}\n",
        "4:19 d / a | not finite | quote it",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: {? [x] : y}\n",
        "4:18 d / a | a key in `metadata` must be text, not a list | text",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    value: x\n    share_threshold: true\n",
        "5:22 d / a=x | without a wildcard | put a `*`",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    share_threshold: true\n",
        "4:22 d / a | without a wildcard | put a `*`",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    value: x\n  - key: a\n    value: x\n",
        "5:10 d / a=x | stand on this level already: rules.yaml:3 | keep one of them",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n  - {key: a, value: ''}\n",
        "4:11 d / a | on this level already: rules.yaml:3 | keep one",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    lease: maybe\n",
        "4:12 d / a | `lease` must be true or false | true or false",
    ),
    // A rate limit
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {requests_per_unit: 5}\n",
        "4:17 d / a | a `rate_limit` has no `unit` | window: 30s",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: 5\n",
        "4:17 d / a | `rate_limit` must be a mapping (`field: value`), not 5 | mapping",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: minit, requests_per_unit: 5}\n",
        "4:24 d / a | unknown unit \"minit\" | did you mean `minute`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: fortnight, requests_per_unit: 5}\n",
        "4:24 d / a | unknown unit \"fortnight\" | one of: second, minute, hour, day, week, month, year",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requestsperunit: 5}\n",
        "4:29 d / a | unknown field \"requestsperunit\" in `rate_limit` | did you mean `requests_per_unit`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: -1}\n",
        "4:48 d / a | between 0 and 4294967295, not -1 | whole number",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: 4294967296}\n",
        "4:48 d / a | between 0 and 4294967295, not 4294967296 | whole number",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: 1.5}\n",
        "4:48 d / a | `requests_per_unit` must be a whole number (without quotes), not 1.5 | whole number",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: '5'}\n",
        "4:48 d / a | must be a whole number (without quotes), not the text \"5\" | without quotes",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, requests_per_unit: 99999999999999999999999}\n",
        "4:48 d / a | must be a whole number (without quotes), not 99999999999999999999999 | whole",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unlimited: true, unit: day}\n",
        "4:41 d / a | `unit` beside `unlimited: true` | leave out",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unlimited: true, algorithm: token_bucket}\n",
        "4:46 d / a | `algorithm` beside `unlimited: true` | leave out",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, name: x, replaces: [{name: x}]}\n",
        "4:56 d / a | cannot replace itself (\"x\") | another rule",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, name: x, replaces: [{name: }]}\n",
        "4:49 d / a | `replaces.name` is empty | text",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, replaces: [x]}\n",
        "4:40 d / a | an entry of `replaces` must be a mapping | mapping",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, replaces: x}\n",
        "4:39 d / a | `replaces` must be a list of `name: …`, not the text \"x\" | a list of",
    ),
    // Ours
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: slidingwindow}\n",
        "4:40 d / a | unknown algorithm \"slidingwindow\" | did you mean `sliding_window`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: magic}\n",
        "4:40 d / a | unknown algorithm \"magic\" | one of: sliding_window, sliding_log",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {window: 30}\n",
        "4:26 d / a | `window` \"30\" is no duration: it has no unit | window: 30s",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {window: 1500ms}\n",
        "4:26 d / a | windows are whole seconds | window: 30s",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {window: 20y}\n",
        "4:26 d / a | its units are ms, s, m, h, d, w | window: 30s",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {window: 5000d}\n",
        "4:26 d / a | too long | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: year, unit_multiplier: 4294967295}\n",
        "4:24 d / a | too long: the longest is 10 years | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {window: 5m, unit: minute}\n",
        "4:26 d / a | `window` beside `unit` | not both",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {window: 5m, unit_multiplier: 2}\n",
        "4:26 d / a | `window` beside `unit_multiplier` | not both",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, unit_multiplier: 0}\n",
        "4:46 d / a | `unit_multiplier` must be between 1 and 4294967295, not 0 | whole number",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, burst: 5}\n",
        "4:36 d / a | `burst` has no meaning for sliding_window: remove it, or set `algorithm: token_bucket` | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: token_bucket, precision: 5}\n",
        "4:65 d / a | `precision` has no meaning for token_bucket | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: concurrency, count_denied: true}\n",
        "4:67 d / a | `count_denied` has no meaning for concurrency | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, precision: 0}\n",
        "4:40 d / a | 1 to 1000 slices | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: leaky_bucket, requests_per_unit: 9, max_delay: 5}\n",
        "4:87 d / a | `max_delay` \"5\" is no duration: it has no unit | max_delay: 500ms",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: leaky_bucket, requests_per_unit: 9, max_delay: 2m}\n",
        "4:87 d / a | the longest is 60 s | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, algorithm: sliding_log, requests_per_unit: 1000000}\n",
        "4:72 d / a | use `algorithm: sliding_window` | ",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    burst: 5\n    rate_limit: {unit: day}\n",
        "4:5 d / a | `burst` has no effect in a descriptor: it belongs in `rate_limit` | move `burst` to `rate_limit`",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, on_store_error: DENY}\n",
        "4:45 d / a | unknown on_store_error \"DENY\" | did you mean `deny`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, on_limit: marks}\n",
        "4:39 d / a | unknown on_limit \"marks\" | did you mean `mark`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {unit: day, headers: no-thanks}\n",
        "4:38 d / a | `headers` must be true or false | true or false",
    ),
    // Ours in metadata
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: {sluicegate: {windw: 30s}}\n    rate_limit: {unit: day}\n",
        "4:29 d / a | unknown field \"windw\" in `metadata.sluicegate` | did you mean `window`?",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: {sluicegate: fast}\n    rate_limit: {unit: day}\n",
        "4:28 d / a | `metadata.sluicegate` must be a mapping | mapping",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: {sluicegate: {window: 30s}}\n",
        "4:37 d / a | `window` needs a `rate_limit` | add a `rate_limit`",
    ),
    (
        "domain: d\ndescriptors:\n  - key: a\n    metadata: {sluicegate: {window: 30s}}\n    rate_limit: {window: 30s}\n",
        "5:26 d / a | `window` beside `the same in `metadata.sluicegate`` | not both",
    ),
];
