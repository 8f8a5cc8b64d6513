//! Reloading, however the files are changed. The waits are for what must come, with time to spare on a busy machine;
//! only where nothing must come is the time itself waited out.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::Duration;

use sluicegate::config::{Event, Loaded, Source, Watch, watch};
use sluicegate::rules::Defaults;
use tempfile::TempDir;

use super::support::certs::Volume;

const PATIENCE: Duration = Duration::from_secs(20);

struct Watched {
    events: Receiver<Event>,
    loaded: Loaded,
    _watch: Watch,
}

fn start(path: &Path) -> Watched {
    let source = Source::new(vec![path.to_owned()]);
    let loaded = watch::first(&source, &Defaults::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let (send, events) = channel();
    let on_event = move |event| {
        let _ = send.send(event);
    };
    let watch = watch(source, Defaults::default(), Some(&loaded), on_event);
    Watched {
        events,
        loaded,
        _watch: watch.unwrap_or_else(|error| panic!("{error}")),
    }
}

impl Watched {
    fn event(&self) -> Event {
        self.events
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("no event: {error}"))
    }

    /// The limit of the only rule of the next good load.
    fn limit(&self, generation: u64) -> u32 {
        match self.event() {
            Event::Loaded(loaded) => {
                assert_eq!(loaded.generation, generation);
                loaded.rules.rules[0].requests_per_unit
            }
            Event::Failed(errors) => panic!("{errors}"),
        }
    }

    fn failure(&self) -> String {
        match self.event() {
            Event::Failed(errors) => errors.to_string(),
            Event::Loaded(loaded) => panic!("{loaded:?}"),
        }
    }

    fn nothing(&self, for_ms: u64) {
        let nothing = self.events.recv_timeout(Duration::from_millis(for_ms));
        assert!(matches!(nothing, Err(RecvTimeoutError::Timeout)), "{nothing:?}");
    }
}

fn limit(requests: u32) -> String {
    format!(
        "domain: d\ndescriptors:\n  - key: k\n    rate_limit:\n      unit: day\n      requests_per_unit: {requests}\n"
    )
}

fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    write(&dir, "rules.yaml", &limit(1));
    dir
}

fn write(dir: &TempDir, name: &str, text: &str) {
    fs::write(dir.path().join(name), text).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_file_written_in_place_is_loaded() {
    let dir = directory();
    for path in [dir.path().to_owned(), dir.path().join("rules.yaml")] {
        write(&dir, "rules.yaml", &limit(1));
        let watched = start(&path);
        assert_eq!(watched.loaded.generation, 1);
        write(&dir, "rules.yaml", &limit(2));
        assert_eq!(watched.limit(2), 2);
        // The same size, right after it.
        write(&dir, "rules.yaml", &limit(3));
        assert_eq!(watched.limit(3), 3);
    }
}

#[test]
fn a_file_renamed_over_is_loaded() {
    let dir = directory();
    for path in [dir.path().to_owned(), dir.path().join("rules.yaml")] {
        write(&dir, "rules.yaml", &limit(1));
        let watched = start(&path);
        write(&dir, "rules.yaml.tmp", &limit(2));
        fs::rename(dir.path().join("rules.yaml.tmp"), dir.path().join("rules.yaml")).unwrap();
        assert_eq!(watched.limit(2), 2);
    }
}

#[test]
fn a_swapped_config_map_is_loaded() {
    for name in ["", "rules.yaml"] {
        let volume = Volume::new(&[("rules.yaml", &limit(1))]);
        let watched = start(&volume.path(name));
        for generation in 2..5 {
            volume.replace(&[("rules.yaml", &limit(generation))]);
            assert_eq!(watched.limit(generation.into()), generation);
        }
    }
}

#[test]
fn files_come_and_go() {
    let dir = directory();
    let watched = start(dir.path());
    write(&dir, "second.yaml", "domain: e\n");
    let Event::Loaded(loaded) = watched.event() else {
        panic!("failed")
    };
    assert_eq!(loaded.summary.domains, 2);
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::rename(dir.path().join("second.yaml"), dir.path().join("sub/second.yaml")).unwrap();
    let Event::Loaded(loaded) = watched.event() else {
        panic!("failed")
    };
    assert_eq!((loaded.generation, loaded.summary.files), (3, 2));
    fs::remove_file(dir.path().join("sub/second.yaml")).unwrap();
    let Event::Loaded(loaded) = watched.event() else {
        panic!("failed")
    };
    assert_eq!(loaded.summary.domains, 1);
}

#[test]
fn a_bad_file_is_reported_once_with_all_its_errors_and_a_good_one_heals_it() {
    let dir = directory();
    let watched = start(dir.path());
    write(&dir, "rules.yaml", "domain: d\ntypo: 1\nother: 2\n");
    let errors = watched.failure();
    assert!(errors.contains("\"typo\"") && errors.contains("\"other\""), "{errors}");
    // Touched, but no other text: no news.
    write(&dir, "rules.yaml", "domain: d\ntypo: 1\nother: 2\n");
    watched.nothing(1000);
    write(&dir, "rules.yaml", &limit(2));
    assert_eq!(watched.limit(2), 2);
    fs::remove_file(dir.path().join("rules.yaml")).unwrap();
    assert!(watched.failure().contains("has no rules files"), "nothing left");
    write(&dir, "rules.yaml", &limit(2));
    assert_eq!(watched.limit(3), 2);
}

#[test]
fn text_that_did_not_change_is_no_news() {
    let dir = directory();
    let watched = start(dir.path());
    write(&dir, "rules.yaml", &limit(1));
    watched.nothing(1000);
}

/// The first half is a whole rules file in itself; the writer takes longer than any moment of quiet.
#[test]
fn a_file_is_not_read_while_its_writer_has_it_open() {
    let dir = directory();
    let watched = start(dir.path());
    let mut file = File::create(dir.path().join("rules.yaml")).unwrap();
    file.write_all(limit(2).as_bytes()).unwrap();
    file.sync_all().unwrap();
    sleep(Duration::from_millis(800));
    file.write_all(b"  - key: second\n    rate_limit: {unit: day, requests_per_unit: 5}\n")
        .unwrap();
    drop(file);
    let Event::Loaded(loaded) = watched.event() else {
        panic!("failed")
    };
    assert_eq!((loaded.generation, loaded.summary.rules), (2, 2));
    watched.nothing(500);
}

/// What others write beside the rules holds nothing up.
#[test]
fn an_open_file_beside_the_rules_does_not_matter() {
    let dir = directory();
    let watched = start(&dir.path().join("rules.yaml"));
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.path().join("x.log"))
        .unwrap();
    for generation in 2..4 {
        log.write_all(b"line\n").unwrap();
        write(&dir, "rules.yaml", &limit(generation));
        assert_eq!(watched.limit(generation.into()), generation);
    }
}

#[test]
fn a_watch_without_first_rules_loads_when_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let (send, events) = channel();
    let source = Source::new(vec![dir.path().join("later.yaml")]);
    let on_event = move |event| {
        let _ = send.send(event);
    };
    let _watch = watch(source, Defaults::default(), None, on_event).unwrap();
    assert!(matches!(events.recv_timeout(PATIENCE), Ok(Event::Failed(_))));
    write(&dir, "later.yaml", &limit(7));
    match events.recv_timeout(PATIENCE) {
        Ok(Event::Loaded(loaded)) => assert_eq!(loaded.generation, 1),
        other => panic!("{other:?}"),
    }
}
