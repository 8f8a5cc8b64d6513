//! Which files of a directory count.

use std::fs;
use std::os::unix::fs::symlink;

use sluicegate::config::{Problem, Source, Summary, check};
use sluicegate::rules::Defaults;

use super::support::certs::Volume;

fn domain(name: &str) -> String {
    format!("domain: {name}\ndescriptors: [{{key: k, rate_limit: {{unit: day}}}}]\n")
}

fn names(source: &Source) -> Vec<String> {
    let snapshot = source.read();
    let texts = snapshot.texts.iter();
    texts
        .map(|text| text.name.rsplit('/').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_file_counts_but_hidden_ones_and_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    let files = [
        "b.yaml",
        "a.json",
        "noending",
        "sub/c.yml",
        ".hidden.yaml",
        ".git/config",
        "b.yaml~",
        ".b.yaml.swp",
        "x.tmp",
        "x.bak",
        "#b.yaml#",
        "tenants.csv",
        "..data.yaml",
    ];
    for file in files {
        fs::write(dir.path().join(file), domain(&file.replace('#', "h"))).unwrap();
    }
    // A link to a directory is followed, once; a link in a circle ends.
    symlink(dir.path().join("sub"), dir.path().join("zlink")).unwrap();
    symlink(dir.path(), dir.path().join("circle")).unwrap();
    let source = Source::new(vec![dir.path().to_owned()]);
    assert_eq!(names(&source), ["a.json", "b.yaml", "noending", "c.yml"]);
    let all = source.clone().ignore_dot_files(false);
    assert_eq!(
        names(&all),
        ["config", ".hidden.yaml", "a.json", "b.yaml", "noending", "c.yml"]
    );
    let (summary, _) = check(&source, &Defaults::default()).unwrap();
    assert_eq!(
        summary,
        Summary {
            domains: 4,
            rules: 4,
            files: 4
        }
    );
}

#[test]
fn a_mounted_config_map_is_read_through_its_links() {
    let volume = Volume::new(&[("a.yaml", &domain("a")), ("b.yaml", &domain("b"))]);
    for ignore in [true, false] {
        let source = Source::new(vec![volume.path("")]).ignore_dot_files(ignore);
        assert_eq!(names(&source), ["a.yaml", "b.yaml"]);
    }
}

#[test]
fn what_cannot_be_read_is_said_with_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("latin1.yaml"), b"domain: \xe4\n").unwrap();
    fs::write(path("wrong.yaml"), "domain: [\n").unwrap();
    fs::create_dir(path("empty")).unwrap();
    symlink("nowhere", path("dangling.yaml")).unwrap();
    let source = Source::new(vec![
        path("missing.yaml"),
        path("latin1.yaml"),
        path("wrong.yaml"),
        path("empty"),
        "/dev/null".into(),
        dir.path().to_owned(),
    ]);
    let errors = check(&source, &Defaults::default()).unwrap_err();
    let found: Vec<(String, &Problem)> = errors
        .as_slice()
        .iter()
        .map(|error| {
            (
                error.origin.name.rsplit('/').next().unwrap_or_default().to_owned(),
                &error.problem,
            )
        })
        .collect();
    let has = |name: &str, test: fn(&Problem) -> bool| {
        assert!(
            found.iter().any(|(file, problem)| file == name && test(problem)),
            "{name}: {found:#?}"
        );
    };
    has(
        "missing.yaml",
        |problem| matches!(problem, Problem::Unreadable { reason } if reason.contains("No such file")),
    );
    has("latin1.yaml", |problem| matches!(problem, Problem::NotUtf8));
    has("wrong.yaml", |problem| matches!(problem, Problem::Syntax { .. }));
    has("empty", |problem| matches!(problem, Problem::NoFiles));
    has(
        "null",
        |problem| matches!(problem, Problem::Unreadable { reason } if reason.contains("neither")),
    );
    has("dangling.yaml", |problem| matches!(problem, Problem::Unreadable { .. }));
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn a_file_over_the_bound_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((16 << 20) + 1).unwrap();
    let errors = check(&Source::new(vec![file.path().to_owned()]), &Defaults::default()).unwrap_err();
    assert_eq!(errors.as_slice()[0].problem, Problem::TooLarge { max: 16 << 20 });
}
