//! Limits files of limitador, and conditions that no rule can express.

use super::model::Limit;

/// A file, and the same limits for the model: (maximum, seconds, conditions, variables).
pub struct Case {
    pub name: &'static str,
    pub file: &'static str,
    pub limits: fn() -> Vec<Limit>,
    /// Keys and values that requests are made of.
    pub entries: &'static [(&'static str, &'static [&'static str])],
}

pub const CASES: &[Case] = &[
    Case {
        name: "limitador-server/examples/limits.yaml, with a smaller limit of all",
        file: r#"---
- namespace: test_namespace
  max_value: 12
  seconds: 60
  conditions:
  variables:
- namespace: test_namespace
  max_value: 5
  seconds: 60
  conditions:
    - "descriptors[0]['req.method'] == 'POST'"
  variables:
    - descriptors[0]['user_id']
"#,
        limits: || {
            vec![
                Limit::new(12, 60, &[], &[]),
                Limit::new(5, 60, &[("req.method", |value| value == "POST")], &["user_id"]),
            ]
        },
        entries: &[("req.method", &["GET", "POST"]), ("user_id", &["alice", "bob", ""])],
    },
    Case {
        name: "doc/server/configuration.md",
        file: r#"
- namespace: example.org
  max_value: 10
  seconds: 60
  conditions:
    - "descriptors[0].req_method == 'GET'"
  variables:
    - descriptors[0].user_id
"#,
        limits: || {
            vec![Limit::new(
                10,
                60,
                &[("req_method", |value| value == "GET")],
                &["user_id"],
            )]
        },
        entries: &[("req_method", &["GET", "PUT"]), ("user_id", &["a", "b"])],
    },
    Case {
        name: "doc/how-it-works.md, all in one file",
        file: r#"
- conditions: [ "descriptors[0].KEY_A == 'VALUE_A'" ]
  max_value: 1
  seconds: 60
  variables: []
  namespace: example.org
- conditions: [ "descriptors[0].KEY_B == 'VALUE_B'" ]
  max_value: 1
  seconds: 60
  variables: []
  namespace: example.org
- conditions:
  - "descriptors[0].KEY_A == 'VALUE_A'"
  - "descriptors[0].OTHER_KEY == 'WRONG_VALUE'"
  max_value: 1
  seconds: 60
  variables: []
  namespace: example.org
- conditions: []
  max_value: 1
  seconds: 60
  variables: [ "descriptors[0].MY_VAR" ]
  namespace: example.org
- conditions: [ "descriptors[0].KEY_B == 'VALUE_B'" ]
  max_value: 1
  seconds: 60
  variables: [ "descriptors[0].MY_VAR" ]
  namespace: example.org
"#,
        limits: || {
            vec![
                Limit::new(1, 60, &[("KEY_A", |value| value == "VALUE_A")], &[]),
                Limit::new(1, 60, &[("KEY_B", |value| value == "VALUE_B")], &[]),
                Limit::new(
                    1,
                    60,
                    &[
                        ("KEY_A", |value| value == "VALUE_A"),
                        ("OTHER_KEY", |value| value == "WRONG_VALUE"),
                    ],
                    &[],
                ),
                Limit::new(1, 60, &[], &["MY_VAR"]),
                Limit::new(1, 60, &[("KEY_B", |value| value == "VALUE_B")], &["MY_VAR"]),
            ]
        },
        entries: &[
            ("KEY_A", &["VALUE_A", "x"]),
            ("KEY_B", &["VALUE_B", "x"]),
            ("OTHER_KEY", &["WRONG_VALUE", "OTHER_VALUE"]),
            ("MY_VAR", &["1", "2"]),
        ],
    },
    Case {
        name: "limitador-server/e2e/file-watcher, and limitador-server/kubernetes with its plain names",
        file: r#"---
- namespace: test
  max_value: 4
  seconds: 1
  conditions: []
  variables: ["user_id"]
-
  namespace: test
  max_value: 9
  seconds: 1
  conditions: []
  variables:
    - per_hostname_per_second_burst
"#,
        limits: || {
            vec![
                Limit::new(4, 1, &[], &["user_id"]),
                Limit::new(9, 1, &[], &["per_hostname_per_second_burst"]),
            ]
        },
        entries: &[("user_id", &["1", "2"]), ("per_hostname_per_second_burst", &["h", "i"])],
    },
    Case {
        name: "limits in each other's way",
        file: r#"
- {namespace: n, max_value: 9, seconds: 60, conditions: [], variables: ["descriptors[0].user"]}
- {namespace: n, max_value: 3, seconds: 60, conditions: ["descriptors[0].user == 'alice'"], variables: []}
- {namespace: n, max_value: 20, seconds: 3600, conditions: [], variables: ["descriptors[0].user"]}
- {namespace: n, max_value: 2, seconds: 60, conditions: ["descriptors[0].user == 'alice' && descriptors[0].path.startsWith('/a')"], variables: []}
- {namespace: n, max_value: 1, seconds: 7, conditions: ["descriptors[0].user == 'alice'", "descriptors[0].path.startsWith(\"/ab\")"], variables: []}
- {namespace: n, max_value: 2, seconds: 60, conditions: ["descriptors[0].path in ['/x', '/y']"], variables: ["descriptors[0].path"]}
- {namespace: n, max_value: 3, seconds: 60, conditions: ["descriptors[0].path.startsWith('/')"], variables: ["descriptors[0].path", "descriptors[0].user"]}
- {namespace: n, max_value: 4, seconds: 60, conditions: ["descriptors[0].path in ['/y', 'z', '/a']"], variables: []}
"#,
        limits: || {
            vec![
                Limit::new(9, 60, &[], &["user"]),
                Limit::new(3, 60, &[("user", |value| value == "alice")], &[]),
                Limit::new(20, 3600, &[], &["user"]),
                Limit::new(
                    2,
                    60,
                    &[
                        ("user", |value| value == "alice"),
                        ("path", |value| value.starts_with("/a")),
                    ],
                    &[],
                ),
                Limit::new(
                    1,
                    7,
                    &[
                        ("user", |value| value == "alice"),
                        ("path", |value| value.starts_with("/ab")),
                    ],
                    &[],
                ),
                Limit::new(2, 60, &[("path", |value| value == "/x" || value == "/y")], &["path"]),
                Limit::new(3, 60, &[("path", |value| value.starts_with('/'))], &["path", "user"]),
                Limit::new(4, 60, &[("path", |value| ["/y", "z", "/a"].contains(&value))], &[]),
            ]
        },
        entries: &[
            ("user", &["alice", "bob"]),
            ("path", &["/", "/a", "/ab", "/x", "/y", "z"]),
        ],
    },
];

/// What is refused: the line that it stands on, and what is said.
pub const REFUSED: &[(&str, &str)] = &[
    (
        "descriptors[0].a == 'x' || descriptors[0].b == 'y'",
        "a limit for each side",
    ),
    ("descriptors[0]['req.path'] != '/json'", "expect_match: false"),
    ("!(descriptors[0].a == 'x')", "`!` has no counterpart"),
    ("descriptors[0].a.matches('x.*')", "`matches` has no counterpart"),
    ("descriptors[0].a.endsWith('x')", "`endsWith` has no counterpart"),
    ("descriptors[1].a == 'x'", "descriptors[1]` is not the first"),
    ("limit.name == 'x'", "ask for an entry"),
    ("'x' == descriptors[0].a", "write the entry first"),
    ("'a' in descriptors[0]", "apart from its value"),
    ("descriptors[0].a in ['x', 1]", "a list of texts"),
    ("descriptors[0].a in []", "a list of texts"),
    ("descriptors[0].a == 5", "one text in quotes"),
    ("descriptors[0].a == descriptors[0].b", "one text in quotes"),
    ("descriptors[0].a == 'x' ? true : false", "`?` has no counterpart"),
    ("descriptors[0].a == ''", "an empty value"),
    ("descriptors[0].a == 'x*'", "stands for any text"),
    ("descriptors[0].a == r'x'", "in front of a text"),
    (r"descriptors[0].a == 'x\\'", "write the character itself"),
    ("descriptors[0].a == 'x", "does not end"),
    (
        "descriptors[0].a == 'x' && descriptors[0].a == 'y'",
        "asks for the same entry",
    ),
    ("descriptors[0].exists(k, k == 'x')", "only `==`, `in` and `startsWith`"),
    ("size(descriptors) == 1", "only `==`, `in` and `startsWith`"),
    ("descriptors[0]", "a whole descriptor"),
    ("descriptors", "ask for an entry"),
    ("true", "only `==`, `in` and `startsWith`"),
    ("", "does not begin with an entry"),
    ("ä == 'x'", "is no CEL"),
];
