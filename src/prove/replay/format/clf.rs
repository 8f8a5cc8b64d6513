//! Common and combined log format: `client ident user [time] "GET /path HTTP/1.1" status bytes "referer" "user-agent"`.

use memchr::{memchr, memchr2_iter};

use super::super::record::{Record, Target};
use super::Unread;

pub(super) fn parse(line: &str, record: &mut Record) -> Result<(), Unread> {
    const NO_TIME: Unread = "no time in brackets";
    let client = line.split(' ').next().unwrap_or_default();
    record.set(Target::Client, client)?;
    let open = memchr(b'[', line.as_bytes()).ok_or(NO_TIME)?;
    let rest = line.get(open + 1..).ok_or(NO_TIME)?;
    let close = memchr(b']', rest.as_bytes()).ok_or(NO_TIME)?;
    record.set(Target::Time, rest.get(..close).ok_or(NO_TIME)?)?;
    let (request, rest) = quoted(rest.get(close + 1..).unwrap_or_default()).ok_or("no request in quotes")?;
    let mut words = request.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err("a request line without a method and a path");
    };
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
