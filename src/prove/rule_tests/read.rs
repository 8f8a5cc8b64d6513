//! YAML → test file; every error of a file in one go, each with its place.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::config::field::Field;
use crate::config::fields::{Fields, Reader};
use crate::config::node::{Node, Value};
use crate::config::problem::{Problem, nearest};
use crate::config::{ConfigError, ConfigErrors, Origin, Source};
use crate::model::time::micros;
use crate::model::{self, Entry};
use crate::prove::http::HttpRequest;

use super::case::{Case, Expect, Hits, Kind, Question, Step, TestFile};
use super::range::Measure;
use super::values::{duration_us, in_order, list, missing, own_text, pairs, range, some, texts, unusable};

const FILE: [&str; 6] = ["start", "rules", "envoy", "listener", "domain", "tests"];
const TEST: [&str; 3] = ["name", "domain", "steps"];
const STEP: [&str; 5] = ["at", "times", "every", "request", "expect"];
const REQUEST: [&str; 8] = [
    "http",
    "client",
    "host",
    "headers",
    "context_extensions",
    "descriptors",
    "domain",
    "hits",
];
const EXPECT: [&str; 7] = [
    "allowed",
    "denied_by",
    "shadow_denied_by",
    "retry_after",
    "remaining",
    "delay",
    "descriptors",
];
const WORDS: [&str; 2] = ["allowed", "denied"];
/// Most repetitions of a step.
const MAX_TIMES: u64 = 1_000_000;
/// Most steps of a file, so that a report stays readable and memory bounded.
const MAX_STEPS: usize = 100_000;
/// 2026-01-01T00:00:00Z: where a file names no `start`.
const DEFAULT_START: Duration = Duration::from_secs(1_767_225_600);

/// Reads a test file. Paths in it are relative to its directory.
///
/// # Errors
/// Everything that is wrong in it.
pub fn read(path: &Path) -> Result<TestFile, ConfigErrors> {
    let snapshot = Source::new(vec![path.to_owned()]).read();
    let mut errors = snapshot.errors;
    let [text] = snapshot.texts.as_slice() else {
        if errors.count() == 0 {
            let origin = Origin {
                name: path.display().to_string().into(),
                text: None,
            };
            let problem = Problem::Unreadable {
                reason: "a test file is one file, not a directory".into(),
            };
            errors.push(ConfigError::new(&origin, None, String::new(), problem));
        }
        return Err(errors);
    };
    let origin = text.origin();
    let mut reader = Reader::new(&origin, Vec::new(), &mut errors);
    let file = match Node::parse(&text.text) {
        Ok(root) => file(&mut reader, &root, path),
        Err((problem, place)) => {
            reader.report(problem, place);
            None
        }
    };
    match file {
        Some(file) => errors.into_result(file),
        None => Err(errors),
    }
}

fn file(reader: &mut Reader<'_>, root: &Node, path: &Path) -> Option<TestFile> {
    let fields = reader.fields(root, "a test file", &FILE)?;
    let directory = path.parent().unwrap_or_else(|| Path::new(""));
    let rules: Vec<PathBuf> = texts(reader, &fields, "rules")
        .iter()
        .map(|name| directory.join(name))
        .collect();
    if rules.is_empty() && fields.get("rules").is_none() {
        missing(
            reader,
            root,
            "rules",
            "a test file",
            "name the rules files that it tests, as in `rules: [shop.yaml]`",
        );
    }
    let start = match reader.text(&fields, "start") {
        Field::Given(text) => match humantime::parse_rfc3339_weak(&text.value) {
            Ok(time) => time.duration_since(UNIX_EPOCH).unwrap_or_default(),
            Err(_) => {
                let reason = "a time is written as 2026-03-28T00:00:00Z, in UTC".into();
                unusable(reader, &fields, "start", &text.value, reason);
                DEFAULT_START
            }
        },
        Field::Absent | Field::Broken => DEFAULT_START,
    };
    let mut tests = Vec::new();
    match fields.get("tests") {
        Some(node) => {
            for (number, item) in some(reader, node, "tests").iter().enumerate() {
                tests.extend(case(reader, item, number + 1));
            }
        }
        None => missing(
            reader,
            root,
            "tests",
            "a test file",
            "add a list of tests, each with a `name` and `steps`",
        ),
    }
    if tests.iter().map(|test: &Case| test.steps.len()).sum::<usize>() > MAX_STEPS {
        reader.report(
            Problem::TooMany {
                field: "steps",
                max: MAX_STEPS,
            },
            root.place,
        );
    }
    Some(TestFile {
        name: path.display().to_string(),
        start_us: micros(start),
        rules,
        envoy: reader.text(&fields, "envoy").value().map(|name| directory.join(name)),
        listener: reader.text(&fields, "listener").value().cloned(),
        domain: reader.text(&fields, "domain").value().cloned(),
        tests,
    })
}

fn case(reader: &mut Reader<'_>, node: &Node, number: usize) -> Option<Case> {
    let fields = reader.fields(node, "a test", &TEST)?;
    let name = reader.text(&fields, "name").value().cloned();
    let name = name.unwrap_or_else(|| format!("#{number}"));
    reader.path.push(name.clone());
    let mut steps = Vec::new();
    match fields.get("steps") {
        Some(items) => {
            for item in some(reader, items, "steps") {
                steps.extend(step(reader, item));
            }
        }
        None => missing(
            reader,
            node,
            "steps",
            "a test",
            "add a list of steps, each with a `request` and an `expect`",
        ),
    }
    in_order(reader, &steps);
    let domain = reader.text(&fields, "domain").value().cloned();
    reader.path.pop();
    Some(Case {
        name,
        place: node.place,
        domain,
        steps,
    })
}

fn step(reader: &mut Reader<'_>, node: &Node) -> Option<Step> {
    let fields = reader.fields(node, "a step", &STEP)?;
    let times: Field<u32> = reader.number(&fields, "times", MAX_TIMES);
    if times
        .value()
        .is_some_and(|times| *times == 0 || u64::from(*times) > MAX_TIMES)
    {
        let found = times.value().map(ToString::to_string).unwrap_or_default();
        let problem = Problem::OutOfRange {
            field: "times",
            min: 1,
            max: MAX_TIMES,
            found,
        };
        reader.report(problem, times.place());
    }
    let at_us = duration_us(reader, &fields, "at");
    let every_us = duration_us(reader, &fields, "every").unwrap_or(0);
    let question = match fields.get("request") {
        Some(node) => question(reader, node),
        None => {
            missing(
                reader,
                node,
                "request",
                "a step",
                "say what is asked: `http:` or `descriptors:`",
            );
            None
        }
    };
    let expect = match fields.get("expect") {
        Some(node) => expect(reader, node),
        None => {
            missing(
                reader,
                node,
                "expect",
                "a step",
                "say what must come, as in `expect: allowed`",
            );
            None
        }
    };
    Some(Step {
        place: node.place,
        at_us,
        times: times.value().copied().unwrap_or(1).max(1),
        every_us,
        question: question?,
        expect: expect?,
    })
}

fn question(reader: &mut Reader<'_>, node: &Node) -> Option<Question> {
    let fields = reader.fields(node, "`request`", &REQUEST)?;
    let hits: Option<i64> = reader.number(&fields, "hits", u32::MAX.into()).value().copied();
    let hits = match hits.map(|hits| (u32::try_from(hits.unsigned_abs()), hits < 0)) {
        Some((Ok(count), is_negative)) => Some(Hits { count, is_negative }),
        Some((Err(_), _)) => {
            let word = fields.get("hits").and_then(Node::text).unwrap_or_default();
            unusable(reader, &fields, "hits", &word, "it needs more than 32 bits".into());
            None
        }
        None => None,
    };
    let kind = match (fields.get("http"), fields.get("descriptors")) {
        (Some(_), None) => {
            let (request, client) = http(reader, &fields)?;
            Kind::Http { request, client }
        }
        (None, Some(list)) => {
            for field in ["client", "host", "headers", "context_extensions"] {
                if fields.get(field).is_some() {
                    let other = "descriptors";
                    reader.report(Problem::Conflict { field, other }, node.place);
                }
            }
            Kind::Descriptors(descriptors(reader, list)?)
        }
        _ => {
            let problem = Problem::NotOne {
                context: "`request`",
                allowed: &["http", "descriptors"],
            };
            reader.report(problem, node.place);
            return None;
        }
    };
    Some(Question {
        place: node.place,
        domain: reader.text(&fields, "domain").value().cloned(),
        hits,
        kind,
    })
}

/// The request, and the text of its client's address.
fn http(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<(HttpRequest, Option<String>)> {
    let line = reader.text(fields, "http").value().cloned()?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (method, target) = match *words.as_slice() {
        [method, target] => (method, target),
        [target] => ("GET", target),
        _ => {
            let reason = "write a method and a path, as in `GET /login?user=1`".into();
            unusable(reader, fields, "http", &line, reason);
            return None;
        }
    };
    let client = match reader.text(fields, "client") {
        Field::Given(text) if !text.value.contains("{i}") => match text.value.parse::<std::net::IpAddr>() {
            Ok(_) => Some(text.value),
            Err(_) => {
                unusable(reader, fields, "client", &text.value, "it is no IP address".into());
                None
            }
        },
        Field::Given(text) => Some(text.value),
        Field::Absent | Field::Broken => None,
    };
    let mut headers = pairs(reader, fields, "headers");
    for (name, _) in &mut headers {
        name.make_ascii_lowercase();
    }
    let request = HttpRequest {
        method: method.to_owned(),
        host: reader.text(fields, "host").value().cloned().unwrap_or_default(),
        path: target.to_owned(),
        headers,
        client: None,
        extensions: pairs(reader, fields, "context_extensions"),
    };
    Some((request, client))
}

fn descriptors(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<model::Descriptor>> {
    let mut all = Vec::new();
    for item in list(reader, node, "`descriptors`") {
        let mut entries = Vec::new();
        for entry in list(reader, item, "a descriptor") {
            match &entry.value {
                Value::Map(pairs) => entries.extend(pairs.iter().map(|(key, value)| Entry {
                    key: own_text(reader, "descriptors", key).unwrap_or_default(),
                    value: own_text(reader, "descriptors", value).unwrap_or_default(),
                })),
                _ => reader.wrong("an entry of a descriptor".to_owned(), "`key: value`", entry),
            }
        }
        if entries.is_empty() {
            reader.report(Problem::Empty { field: "descriptors" }, item.place);
        }
        all.push(model::Descriptor {
            entries,
            ..model::Descriptor::default()
        });
    }
    Some(all)
}

fn expect(reader: &mut Reader<'_>, node: &Node) -> Option<Expect> {
    if let Some(word) = node.text() {
        let allowed = match word.as_str() {
            "allowed" => true,
            "denied" => false,
            _ => {
                let suggestion = nearest(&word, &WORDS);
                let problem = Problem::UnknownWord {
                    field: "expect",
                    word,
                    suggestion,
                    allowed: &WORDS,
                };
                reader.report(problem, node.place);
                return None;
            }
        };
        return Some(Expect {
            place: node.place,
            allowed: Some(allowed),
            ..Expect::default()
        });
    }
    let fields = reader.fields(node, "`expect`", &EXPECT)?;
    if fields.all().is_empty() {
        reader.report(Problem::Empty { field: "expect" }, node.place);
    }
    let denied_by = texts(reader, &fields, "denied_by");
    let allowed = reader.truth(&fields, "allowed").value().copied();
    if allowed == Some(true) && !denied_by.is_empty() {
        let (field, other) = ("denied_by", "allowed: true");
        reader.report(Problem::Conflict { field, other }, node.place);
    }
    Some(Expect {
        place: node.place,
        allowed: allowed.or_else(|| (!denied_by.is_empty()).then_some(false)),
        denied_by,
        shadow_denied_by: texts(reader, &fields, "shadow_denied_by"),
        retry_after: range(reader, &fields, "retry_after", Measure::Duration),
        remaining: range(reader, &fields, "remaining", Measure::Number),
        delay: range(reader, &fields, "delay", Measure::Duration),
        descriptors: match fields.get("descriptors") {
            Some(node) => Some(descriptors(reader, node)?),
            None => None,
        },
    })
}
