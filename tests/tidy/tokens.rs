//! Rust as a flat list of tokens, without comments, strings and tests.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Ident(String),
    Punct(char),
    Open(char),
    Close,
    Literal,
}

#[derive(Debug, Clone)]
pub struct At {
    pub token: Token,
    pub line: usize,
}

impl At {
    pub fn ident(&self) -> Option<&str> {
        match &self.token {
            Token::Ident(name) => Some(name),
            _ => None,
        }
    }

    pub fn is(&self, punct: char) -> bool {
        self.token == Token::Punct(punct)
    }
}

/// What to do with items that only tests have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    Skip,
    Keep,
}

/// The tokens of a file.
pub fn tokens(path: &str, text: &str, tests: Tests) -> Vec<At> {
    let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut all = Vec::new();
    flatten(stream, tests, &mut all);
    all
}

fn flatten(stream: TokenStream, tests: Tests, all: &mut Vec<At>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let token = match tree {
            TokenTree::Ident(ident) => Token::Ident(ident.to_string()),
            TokenTree::Literal(_) => Token::Literal,
            TokenTree::Punct(punct) => Token::Punct(punct.as_char()),
            TokenTree::Group(group) => {
                if tests == Tests::Skip && group.stream().to_string().replace(' ', "") == "cfg(test)" {
                    // The item that the attribute stands at.
                    for skipped in trees.by_ref() {
                        let ends = match &skipped {
                            TokenTree::Group(body) => body.delimiter() == Delimiter::Brace,
                            TokenTree::Punct(punct) => punct.as_char() == ';',
                            _ => false,
                        };
                        if ends {
                            break;
                        }
                    }
                    continue;
                }
                let open = match group.delimiter() {
                    Delimiter::Parenthesis => '(',
                    Delimiter::Brace => '{',
                    Delimiter::Bracket => '[',
                    Delimiter::None => ' ',
                };
                let end = group.span_close().start().line;
                all.push(At {
                    token: Token::Open(open),
                    line,
                });
                flatten(group.stream(), tests, all);
                all.push(At {
                    token: Token::Close,
                    line: end,
                });
                continue;
            }
        };
        all.push(At { token, line });
    }
}

/// A path such as `crate::model::Limit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    pub segments: Vec<String>,
    pub line: usize,
    /// How it is mentioned.
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// In an expression or a type.
    Plain,
    /// By `use`, under this name; `*` for everything.
    Use { name: String, is_public: bool },
}

/// All paths in these tokens, but for those of visibilities (`pub(in crate::store)`).
pub fn mentions(tokens: &[At]) -> Vec<Mention> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let Some(name) = token.ident() else {
            at += 1;
            continue;
        };
        if name == "pub" && tokens.get(at + 1).is_some_and(|next| next.token == Token::Open('(')) {
            at += 1 + tokens[at + 1..]
                .iter()
                .take_while(|token| token.token != Token::Close)
                .count();
        } else if name == "use" && !tokens.get(at + 1).is_some_and(|next| next.is('<')) {
            let is_public = is_public(&tokens[..at]);
            at = imports(tokens, at + 1, &[], is_public, &mut all);
        } else {
            let mut segments = vec![name.to_owned()];
            while let [first, second, third, ..] = &tokens[at + 1..]
                && let (true, true, Some(next)) = (first.is(':'), second.is(':'), third.ident())
            {
                segments.push(next.to_owned());
                at += 3;
            }
            all.push(Mention {
                segments,
                line: token.line,
                kind: Kind::Plain,
            });
            at += 1;
        }
    }
    all
}

/// Whether what follows these tokens is `pub`, or `pub(…)`.
fn is_public(before: &[At]) -> bool {
    match before {
        [.., last] if last.token == Token::Close => {
            let opens = before.iter().rposition(|token| token.token == Token::Open('('));
            opens.is_some_and(|at| at > 0 && before[at - 1].ident() == Some("pub"))
        }
        [.., last] => last.ident() == Some("pub"),
        [] => false,
    }
}

/// One branch of a `use` tree; returns where it ends.
fn imports(tokens: &[At], mut at: usize, prefix: &[String], is_public: bool, all: &mut Vec<Mention>) -> usize {
    let mut segments = prefix.to_vec();
    let mut name = None;
    let line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match &token.token {
            Token::Ident(word) if word == "as" => {
                name = tokens.get(at + 1).and_then(At::ident).map(str::to_owned);
                at += 1;
            }
            // `a::{self}` is `a`.
            Token::Ident(word) if word == "self" && !prefix.is_empty() => {}
            Token::Ident(word) => segments.push(word.clone()),
            Token::Punct('*') => name = Some("*".to_owned()),
            Token::Open(_) => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.token != Token::Close) {
                    at = imports(tokens, at, &segments, is_public, all);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.is(',')));
                }
                return at + 1;
            }
            Token::Punct(',' | ';') | Token::Close => break,
            Token::Punct(_) | Token::Literal => {}
        }
        at += 1;
    }
    let name = name.or_else(|| segments.last().cloned()).unwrap_or_default();
    all.push(Mention {
        segments,
        line,
        kind: Kind::Use { name, is_public },
    });
    at
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = r#"
        use a::{b::{self, C as D}, e::*};
        pub(in crate::x) use super::f;
        #[cfg(test)] mod tests { use never::seen; }
        fn g() -> impl Fn() + use<> { h!("{}", crate::i::J); k::<l::M>() } // not::here
    "#;
    let found: Vec<String> = mentions(&tokens("sample", text, Tests::Skip))
        .into_iter()
        .filter(|mention| mention.segments.len() > 1)
        .map(|mention| match mention.kind {
            Kind::Plain => mention.segments.join("::"),
            Kind::Use { name, is_public } => format!("{} = {name} {is_public}", mention.segments.join("::")),
        })
        .collect();
    assert_eq!(
        found,
        [
            "a::b = b false",
            "a::b::C = D false",
            "a::e = * false",
            "super::f = f true",
            "crate::i::J",
            "l::M"
        ]
    );
}
