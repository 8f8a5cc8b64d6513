//! One CEL condition or variable → what it asks of an entry of the request's first descriptor.
//!
//! Of CEL only what a descriptor can express is read; a parser of the whole language would not help, since the rest has to
//! be refused by name.

use super::super::problem::Quoted;

/// What a limit asks of one entry's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedValues {
    /// Any, and each counts alone.
    Any,
    /// This one.
    Exact(String),
    /// One of these; sorted.
    OneOf(Vec<String>),
    /// Those that begin so.
    Prefix(String),
}

/// A part of a condition: the entry of this key has one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryCondition {
    pub(super) key: String,
    pub(super) values: WantedValues,
    /// Written as a plain name, as before limitador 2.0.
    pub(super) plain: bool,
}

/// Why it is refused, with what to do.
pub(super) type Unsupported = String;

#[derive(Debug, Clone, PartialEq)]
enum CelToken {
    Name(String),
    Text(String),
    Number(String),
    Sign(&'static str),
}

const SIGNS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "[", "]", "(", ")", ".", ",", "!", "<", ">", "?", ":", "+", "-", "*", "/", "%",
];

/// The parts of a condition that all have to hold.
pub(super) fn condition(text: &str) -> Result<Vec<EntryCondition>, Unsupported> {
    let tokens = tokens(text)?;
    if let Some(refusal) = tokens.iter().find_map(refused_sign) {
        return Err(refusal);
    }
    let parts = tokens.split(|token| *token == CelToken::Sign("&&"));
    parts.map(part).collect()
}

/// The key of the entry whose value a variable is, and whether it is a plain name.
pub(super) fn variable(text: &str) -> Result<(String, bool), Unsupported> {
    let tokens = tokens(text)?;
    match entry(&tokens)? {
        (key, plain, []) => Ok((key, plain)),
        _ => Err("it is more than one entry of a descriptor: write `descriptors[0][\"key\"]`".to_owned()),
    }
}

/// Operators that no tree of descriptors can express.
fn refused_sign(token: &CelToken) -> Option<Unsupported> {
    let CelToken::Sign(sign) = token else { return None };
    Some(match *sign {
        "||" => {
            "`||` has no counterpart: write a limit for each side, or `key in [\"a\", \"b\"]` if both sides ask for \
                 one key"
                .to_owned()
        }
        "!=" => {
            "`!=` has no counterpart: let Envoy leave the descriptor out for that value (`header_value_match` with \
                 `expect_match: false`), or give the value a descriptor without a `rate_limit`"
                .to_owned()
        }
        "!" => "`!` has no counterpart: let Envoy leave the descriptor out (`header_value_match` with `expect_match: \
                false`)"
            .to_owned(),
        "==" | "&&" | "[" | "]" | "(" | ")" | "." | "," => return None,
        other => format!(
            "`{other}` has no counterpart: let Envoy decide it by `header_value_match` or by an `expression` action, and \
             ask for what it makes"
        ),
    })
}

/// One comparison.
fn part(tokens: &[CelToken]) -> Result<EntryCondition, Unsupported> {
    if let [CelToken::Text(_), CelToken::Sign("=="), ..] = tokens {
        return Err("write the entry first: `descriptors[0][\"key\"] == \"value\"`".to_owned());
    }
    if let [CelToken::Text(_), CelToken::Name(word), ..] = tokens
        && word == "in"
    {
        return Err(
            "whether an entry is there cannot be asked apart from its value: make it one of `variables`, or let \
                    Envoy send the descriptor only then"
                .to_owned(),
        );
    }
    let (key, plain, rest) = entry(tokens)?;
    let values = match rest {
        [CelToken::Sign("=="), CelToken::Text(text)] => WantedValues::Exact(literal(text)?),
        [
            CelToken::Name(word),
            CelToken::Sign("["),
            list @ ..,
            CelToken::Sign("]"),
        ] if word == "in" => one_of(list)?,
        [
            CelToken::Sign("."),
            CelToken::Name(word),
            CelToken::Sign("("),
            CelToken::Text(text),
            CelToken::Sign(")"),
        ] if word == "startsWith" => WantedValues::Prefix(literal(text)?),
        [CelToken::Sign("."), CelToken::Name(word), CelToken::Sign("("), ..] => {
            return Err(format!(
                "`{word}` has no counterpart: use `==`, `in` or `startsWith`, or let Envoy match it by \
                 `header_value_match` and ask for the descriptor that it makes"
            ));
        }
        [CelToken::Sign("=="), ..] => {
            return Err(
                "an entry is compared with one text in quotes: `descriptors[0][\"key\"] == \"value\"`".to_owned(),
            );
        }
        _ => {
            return Err(
                "only `==`, `in` and `startsWith` of one entry can be translated, joined by `&&`: write it so, or \
                        let Envoy match it by `header_value_match`"
                    .to_owned(),
            );
        }
    };
    Ok(EntryCondition { key, values, plain })
}

/// The entry that tokens begin with: its key, whether it is a plain name, and what follows.
fn entry(tokens: &[CelToken]) -> Result<(String, bool, &[CelToken]), Unsupported> {
    let (index, rest) = match tokens {
        [
            CelToken::Name(name),
            CelToken::Sign("["),
            CelToken::Number(index),
            CelToken::Sign("]"),
            rest @ ..,
        ] if name == "descriptors" => (index, rest),
        [CelToken::Name(name), ..] if name == "limit" || name == "descriptors" => {
            return Err(format!(
                "`{name}` cannot be asked like this: ask for an entry, `descriptors[0][\"key\"]`"
            ));
        }
        [CelToken::Name(name), rest @ ..] => return Ok((key(name)?, true, rest)),
        _ => {
            return Err("it does not begin with an entry of a descriptor: write `descriptors[0][\"key\"]`".to_owned());
        }
    };
    if index != "0" {
        return Err(format!(
            "`descriptors[{index}]` is not the first descriptor: rules ask for one descriptor at a time. Let Envoy put \
             these entries into one list of actions, and ask for them by `descriptors[0]`"
        ));
    }
    match rest {
        [
            CelToken::Sign("["),
            CelToken::Text(name),
            CelToken::Sign("]"),
            rest @ ..,
        ]
        | [CelToken::Sign("."), CelToken::Name(name), rest @ ..] => Ok((key(name)?, false, rest)),
        _ => Err("it asks for a whole descriptor: ask for one entry, `descriptors[0][\"key\"]`".to_owned()),
    }
}

fn one_of(list: &[CelToken]) -> Result<WantedValues, Unsupported> {
    let text = |part: &[CelToken]| match part {
        [CelToken::Text(text)] => literal(text),
        _ => Err("`in` takes a list of texts in quotes: `in [\"a\", \"b\"]`".to_owned()),
    };
    let mut texts: Vec<String> = list
        .split(|token| *token == CelToken::Sign(","))
        .map(text)
        .collect::<Result<_, _>>()?;
    texts.sort();
    texts.dedup();
    Ok(match texts.as_slice() {
        [one] => WantedValues::Exact(one.clone()),
        _ => WantedValues::OneOf(texts),
    })
}

fn key(name: &str) -> Result<String, Unsupported> {
    match name.is_empty() {
        true => Err("the key is empty, which no descriptor's is: name the entry".to_owned()),
        false => Ok(name.to_owned()),
    }
}

/// A value that means itself in a rules file.
fn literal(text: &str) -> Result<String, Unsupported> {
    if text.is_empty() {
        return Err(
            "an empty value cannot be asked for (in a rule it means any): let Envoy leave out the entry, or send \
                    another value for it (`default_value`)"
                .to_owned(),
        );
    }
    if text.contains('*') {
        return Err(format!(
            "the value {} has a `*`, which stands for any text in a rule: let Envoy send another value",
            Quoted(text)
        ));
    }
    Ok(text.to_owned())
}

fn tokens(text: &str) -> Result<Vec<CelToken>, Unsupported> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '"' | '\'' => quoted(rest, first)?,
            _ if first.is_ascii_digit() => {
                let length = span(rest, |c| c.is_ascii_alphanumeric() || c == '.');
                (CelToken::Number(rest[..length].to_owned()), length)
            }
            _ if first == '_' || first.is_ascii_alphabetic() => {
                let length = span(rest, |c| c == '_' || c.is_ascii_alphanumeric());
                let name = &rest[..length];
                // Raw and byte strings: r"…", b'…'.
                if rest[length..].starts_with(['"', '\'']) {
                    return Err(format!(
                        "`{name}` in front of a text is not taken: write the text as it is, in quotes"
                    ));
                }
                (CelToken::Name(name.to_owned()), length)
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign = sign.ok_or_else(|| format!("`{}` is no CEL: see the quotes", first.escape_debug()))?;
                (CelToken::Sign(sign), sign.len())
            }
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn span(text: &str, within: impl Fn(char) -> bool) -> usize {
    text.find(|c| !within(c)).unwrap_or(text.len())
}

/// A text in quotes, and its length with them.
fn quoted(rest: &str, quote: char) -> Result<(CelToken, usize), Unsupported> {
    let body = &rest[1..];
    let end = body
        .find(quote)
        .ok_or_else(|| format!("a text that begins with {quote} does not end: close it"))?;
    let text = &body[..end];
    if end == 0 && body[1..].starts_with(quote) {
        return Err("triple quotes are not taken: use single ones".to_owned());
    }
    if text.contains('\\') {
        return Err(
            "a `\\` in a text is not taken: write the character itself, or let Envoy send another value".to_owned(),
        );
    }
    Ok((CelToken::Text(text.to_owned()), end + 2))
}
