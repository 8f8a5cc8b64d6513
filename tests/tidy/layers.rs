//! Imports against the table of the crate docs: a module may use only those above it.

use crate::modules::{Modules, shown};
use crate::project::Project;

/// The modules in the order of the table.
fn table(docs: &str) -> Vec<&str> {
    let cells = docs
        .lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    cells
        .flat_map(|cell| cell.split(", "))
        .filter_map(|name| {
            let name = name.trim_start_matches('[').trim_end_matches(']');
            name.strip_prefix('`')?.strip_suffix('`')
        })
        .collect()
}

fn check(project: &Project) -> Vec<String> {
    let order = table(&project.files["src/lib.rs"]);
    let mut wrong = Vec::new();
    let place = |module: &str| order.iter().position(|known| *known == module);
    for need in Modules::of(project).needs() {
        let (Some(from), Some(to)) = (need.from.first(), need.to.first()) else {
            continue;
        };
        match (place(from), place(to)) {
            (Some(at), Some(above)) if above <= at => {}
            (Some(_), Some(_)) => wrong.push(format!(
                "src/{}.rs:{}: {} uses {}, but `{from}` stands above `{to}` in the table of src/lib.rs",
                need.from.join("/"),
                need.line,
                shown(&need.from),
                shown(&need.to)
            )),
            (None, _) => wrong.push(format!("src/lib.rs: `{from}` is not in the table")),
            (_, None) => wrong.push(format!("src/lib.rs: `{to}` is not in the table")),
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

#[test]
fn imports_go_up_the_table_of_the_crate_docs() {
    crate::assert_none(check(&Project::read()));
}

#[test]
fn an_import_down_the_table_is_found() {
    let docs = "//! | module | what |\n//! |---|---|\n//! | [`a`] | first |\n//! | `b`, [`c`] | then |\n";
    let sample = |a: &str, d: &str| {
        check(&Project::of(&[
            ("src/lib.rs", docs),
            ("src/a.rs", a),
            ("src/b.rs", "use crate::a::A;"),
            ("src/c/mod.rs", "mod e;"),
            ("src/c/e.rs", "pub struct E;"),
            ("src/d.rs", d),
        ]))
    };
    assert_eq!(sample("pub struct A;", ""), [] as [&str; 0]);
    let down = sample("fn f() {\n    println!(\"{}\", crate::c::e::E);\n}", "");
    assert_eq!(
        down,
        ["src/a.rs:2: a uses c::e, but `a` stands above `c` in the table of src/lib.rs"]
    );
    assert_eq!(sample("", "use crate::a;"), ["src/lib.rs: `d` is not in the table"]);
}
