//! The report as one HTML page: no script, nothing from elsewhere.

use std::fmt::{self, Write};

use crate::prove::explain::Micros;

use super::report::{Against, ReplaySpan, Report, RuleReport};
use super::series::Series;
use super::text::percent;

/// Size of a chart.
const WIDTH: usize = 960;
const HEIGHT: usize = 160;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5d6b7c;--line:#d8dee6;--ok:#9bb8d3;--bad:#c8412f;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e4e9f0;--dim:#98a5b5;--line:#39434f;--ok:#48698a;--bad:#f0705c;--page:#161b22}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.2rem}p.dim,td.dim,th{color:var(--dim)}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}td.k{overflow-wrap:anywhere}
svg{width:100%;height:auto;border-bottom:1px solid var(--line)}.ok{fill:var(--ok)}.bad{fill:var(--bad)}";

/// A report as HTML.
pub struct Page<'a>(pub &'a Report);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        f.write_str(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Replay of an access log</title>",
        )?;
        f.write_str("<meta name=\"viewport\" content=\"width=device-width\">")?;
        write!(f, "<style>{STYLE}</style></head><body><h1>Replay: ")?;
        match report.span {
            Some(ReplaySpan { from, to }) => write!(f, "{from} to {to}</h1>")?,
            None => f.write_str("no request</h1>")?,
        }
        let denied = percent(report.denied, report.requests);
        let (requests, unlimited) = (report.requests, report.unlimited);
        write!(
            f,
            "<p>{requests} requests, <strong>{} would be denied ({denied})</strong>, {unlimited} are not limited.</p>",
            report.denied
        )?;
        chart(f, &report.series, "all requests")?;
        for note in &report.notes {
            write!(f, "<p>Note: {}</p>", Escaped(note))?;
        }
        unreadable(f, report)?;
        overview(f, report)?;
        if let Some(against) = &report.against {
            changes(f, against)?;
        }
        for rule in report.rules.iter().filter(|rule| rule.requests > 0) {
            section(f, rule, report.deny_share)?;
        }
        f.write_str("</body></html>\n")
    }
}

fn unreadable(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    if report.unreadable.lines() == 0 {
        return Ok(());
    }
    write!(
        f,
        "<h2>{} of {} lines could not be used</h2><table>",
        report.unreadable.lines(),
        report.lines
    )?;
    f.write_str("<tr><th>lines<th>reason<th>example")?;
    for (text, reason) in report.unreadable.reasons() {
        let (lines, text, example) = (reason.lines, Escaped(text), Escaped(&reason.example));
        write!(f, "<tr><td class=n>{lines}<td>{text}<td class=k>{example}")?;
    }
    f.write_str("</table>")
}

fn overview(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    f.write_str(
        "<h2>Rules</h2><table><tr><th>rule<th>limit<th>requests<th>keys<th>denied<th>share<th>over and not denied",
    )?;
    for rule in &report.rules {
        let (name, limit) = (
            Escaped(&rule.rule),
            Escaped(rule.limit.as_deref().unwrap_or("unlimited")),
        );
        let share = percent(rule.denied, rule.requests);
        write!(
            f,
            "<tr><td class=k>{name}<td>{limit}<td class=n>{}<td class=n>{}",
            rule.requests, rule.keys
        )?;
        write!(
            f,
            "<td class=n>{}<td class=n>{share}<td class=n>{}",
            rule.denied, rule.shadow_denied
        )?;
    }
    f.write_str("</table>")
}

fn changes(f: &mut fmt::Formatter<'_>, against: &Against) -> fmt::Result {
    let (new, old) = (against.newly_denied, against.newly_allowed);
    write!(
        f,
        "<h2>Against the other rules</h2><p>They would deny {}. {new} requests are newly denied, {old} newly allowed.</p>",
        against.denied
    )?;
    f.write_str("<table><tr><th>rule<th>denied by them<th>denied now")?;
    let count = |count: Option<u64>| count.map_or_else(|| "no such rule".to_owned(), |count| count.to_string());
    for rule in &against.rules {
        write!(
            f,
            "<tr><td class=k>{}<td class=n>{}<td class=n>{}",
            Escaped(&rule.rule),
            count(rule.before),
            count(rule.after)
        )?;
    }
    f.write_str("</table><table><tr><th>key<th>newly denied<th>newly allowed")?;
    for key in &against.keys {
        write!(
            f,
            "<tr><td class=k>{}<td class=n>{}<td class=n>{}",
            Escaped(&key.key),
            key.newly_denied,
            key.newly_allowed
        )?;
    }
    f.write_str("</table>")
}

fn section(f: &mut fmt::Formatter<'_>, rule: &RuleReport, share: f64) -> fmt::Result {
    write!(
        f,
        "<h2>{}</h2><p class=dim>{}</p>",
        Escaped(&rule.rule),
        Escaped(rule.limit.as_deref().unwrap_or("unlimited"))
    )?;
    if let Some(candidate) = &rule.candidate {
        write!(f, "<p>{}</p>", Escaped(&candidate.to_string()))?;
    }
    chart(f, &rule.series, &rule.rule)?;
    let demand = &rule.demand;
    if rule.limit.is_some() {
        write!(
            f,
            "<table><tr><th>a key's hits in a window<th>half<th>90 %<th>99 %<th>99.9 %<th>most<th>limit for at most {} % denied\
             <tr><td class=dim>at most<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}</table>",
            share * 100.0,
            demand.p50,
            demand.p90,
            demand.p99,
            demand.p999,
            demand.max,
            demand.limit_for_share
        )?;
    }
    if rule.worst.is_empty() {
        return Ok(());
    }
    f.write_str("<table><tr><th>key<th>denied<th>first<th>last<th>longest denial")?;
    for key in &rule.worst {
        let (name, denied, longest) = (Escaped(&key.key), key.denied, Micros(key.longest_us));
        write!(
            f,
            "<tr><td class=k>{name}<td class=n>{denied}<td>{}<td>{}<td>{longest}",
            key.first, key.last
        )?;
    }
    f.write_str("</table>")
}

/// Bars over time: all requests, and the denied ones in front.
fn chart(f: &mut fmt::Formatter<'_>, series: &Series, label: &str) -> fmt::Result {
    let most = series.requests.iter().copied().max().unwrap_or(0).max(1);
    let steps = series.requests.len().max(1);
    write!(
        f,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: requests over time, denied ones in front\">",
        Escaped(label)
    )?;
    for (class, counts) in [("ok", &series.requests), ("bad", &series.denied)] {
        write!(f, "<path class=\"{class}\" d=\"")?;
        for (step, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (left, right) = (step * WIDTH * 10 / steps, (step + 1) * WIDTH * 10 / steps);
            let height = u64::try_from(HEIGHT).unwrap_or_default() * 10 * count / most;
            let top = HEIGHT as u64 * 10 - height.max(5);
            write!(
                f,
                "M{} {}V{HEIGHT}H{}V{}Z",
                Tenths(left as u64),
                Tenths(top),
                Tenths(right as u64),
                Tenths(top)
            )?;
        }
        f.write_str("\"/>")?;
    }
    let step = Micros(series.step_us);
    write!(
        f,
        "</svg><p class=dim>Each bar is {step}, the highest {most} requests; red: denied.</p>"
    )
}

struct Tenths(u64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// Text in HTML.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
