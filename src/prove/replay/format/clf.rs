//! Common and combined log format: `client ident user [time] "GET /path HTTP/1.1" status bytes "referer" "user-agent"`.

use std::cell::RefCell;

use memchr::{memchr, memchr_iter, memchr2_iter};

use super::super::record::{BAD_TIME, Record, Target};
use super::Unread;

/// The time of the line before: most lines are of the same second.
#[derive(Debug, Clone, Default)]
pub(super) struct LastTime(RefCell<(String, u64)>);

impl LastTime {
    fn read(&self, text: &str) -> Option<u64> {
        let mut last = self.0.borrow_mut();
        if last.0 != text || last.1 == 0 {
            last.1 = super::time::parse(text)?;
            last.0.clear();
            last.0.push_str(text);
        }
        Some(last.1)
    }
}

pub(super) fn parse(line: &str, last: &LastTime, record: &mut Record) -> Result<(), Unread> {
    const NO_TIME: Unread = "no time in brackets";
    let end = memchr(b' ', line.as_bytes()).unwrap_or(line.len());
    let client = line.get(..end).unwrap_or_default();
    record.set(Target::Client, client)?;
    let open = memchr(b'[', line.as_bytes()).ok_or(NO_TIME)?;
    let rest = line.get(open + 1..).ok_or(NO_TIME)?;
    let close = memchr(b']', rest.as_bytes()).ok_or(NO_TIME)?;
    let time = rest.get(..close).ok_or(NO_TIME)?;
    record.at_us = last.read(time).ok_or(BAD_TIME.0)?;
    let (request, rest) = quoted(rest.get(close + 1..).unwrap_or_default()).ok_or("no request in quotes")?;
    let mut words = memchr_iter(b' ', request.as_bytes());
    let Some(space) = words.next() else {
        return Err("a request line without a method and a path");
    };
    let end = words.next().unwrap_or(request.len());
    let method = request.get(..space).unwrap_or_default();
    let path = request.get(space + 1..end).unwrap_or_default();
    record.set(Target::Method, method)?;
    record.set(Target::Path, path)?;
    let mut rest = rest;
    for number in 0..2 {
        let Some((value, after)) = quoted(rest) else {
            break;
        };
        if value != "-" {
            record.set(Target::Header(number), value)?;
        }
        rest = after;
    }
    Ok(())
}

/// The next text in quotes, and what follows; `\"` does not end it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let open = memchr(b'"', text.as_bytes())?;
    let inner = text.get(open + 1..)?;
    let mut escaped_at = usize::MAX;
    for at in memchr2_iter(b'"', b'\\', inner.as_bytes()) {
        if at == escaped_at {
            continue;
        }
        if inner.as_bytes().get(at) == Some(&b'\\') {
            escaped_at = at + 1;
            continue;
        }
        return Some((inner.get(..at)?, inner.get(at + 1..)?));
    }
    None
}
