//! Reads the options of one level, as the table says.

use std::sync::LazyLock;

use super::super::compat::Compatibility;
use super::super::error::Severity;
use super::super::field::Field;
use super::super::fields::{Fields, Reader};
use super::super::node::{Node, Value};
use super::super::problem::Problem;
use super::option::{Kind, Level, METADATA_KEY, Options, RuleOption};
use super::shapes;
use super::table::TABLE;

/// The names that may stand on each level, in the order of [`Level`].
static NAMES: LazyLock<[Vec<&'static str>; 6]> = LazyLock::new(|| {
    [
        Level::File,
        Level::Descriptor,
        Level::RateLimit,
        Level::Metadata,
        Level::Candidate,
        Level::Plan,
    ]
    .map(|level| {
        let options = TABLE.iter().filter(|option| option.stands_on(level));
        options.map(|option| option.name).collect()
    })
});

impl Level {
    /// What errors call it.
    const fn context(self) -> &'static str {
        match self {
            Self::File => "a rules file",
            Self::Descriptor => "a descriptor",
            Self::RateLimit => "`rate_limit`",
            Self::Metadata => "`metadata.sluicegate`",
            Self::Candidate => "`candidate`",
            Self::Plan => "a plan",
        }
    }

    fn names(self) -> &'static [&'static str] {
        let [file, descriptor, rate_limit, metadata, candidate, plan] = &*NAMES;
        match self {
            Self::File => file,
            Self::Descriptor => descriptor,
            Self::RateLimit => rate_limit,
            Self::Metadata => metadata,
            Self::Candidate => candidate,
            Self::Plan => plan,
        }
    }
}

/// The verdict on a field that stands where it has no meaning, if another level has one of this name.
///
/// envoyproxy/ratelimit accepts each of its fields everywhere, and tools print some in vain (`name` beside `domain`), so
/// those are only warned of. A native option can have come from nowhere else: it is an error.
pub(in super::super) fn misplaced(name: &str, context: &'static str) -> Option<(Severity, Problem)> {
    let option = TABLE.iter().find(|option| option.name == name)?;
    let severity = match option.compat {
        Compatibility::Native => Severity::Error,
        _ => Severity::Warning,
    };
    let belongs = option.levels.first().map_or("", |level| level.context());
    Some((
        severity,
        Problem::Misplaced {
            field: option.name,
            context,
            belongs,
        },
    ))
}

impl Reader<'_> {
    /// The fields of a mapping on a level.
    pub(in super::super) fn level<'n>(&mut self, node: &'n Node, level: Level) -> Option<Fields<'n>> {
        self.table_fields(node, level.context(), level.names())
    }

    /// The options among the fields of a level.
    pub(in super::super) fn options(&mut self, fields: &Fields<'_>, level: Level) -> Options {
        let mut options = Options::default();
        for option in TABLE.iter().filter(|option| option.stands_on(level)) {
            self.option(fields, option, &mut options);
        }
        options
    }

    fn option(&mut self, fields: &Fields<'_>, option: &'static RuleOption, into: &mut Options) {
        let name = option.name;
        match &option.kind {
            Kind::Tree => {}
            Kind::Text(slot) => *(slot.get_mut)(into) = self.text(fields, name),
            Kind::Truth(slot) => *(slot.get_mut)(into) = self.truth(fields, name),
            Kind::Number(slot) => *(slot.get_mut)(into) = self.number(fields, name, u32::MAX.into()),
            Kind::LargeNumber(slot) => *(slot.get_mut)(into) = self.number(fields, name, u64::MAX),
            Kind::Window(slot) => {
                if let Some(node) = fields.get(name) {
                    *(slot.get_mut)(into) = shapes::window(self, node);
                }
            }
            Kind::Hold(slot) => {
                self.warn_if_null(fields, name);
                if let Some(node) = fields.get(name) {
                    *(slot.get_mut)(into) = shapes::hold(self, node);
                }
            }
            Kind::Shaped { read, .. } => {
                if let Some(node) = fields.get(name) {
                    read(self, node, into);
                }
            }
        }
    }

    /// The options that stand in a descriptor's `metadata`.
    pub(in super::super) fn options_in_metadata(&mut self, metadata: &Node) -> Field<Options> {
        let Value::Map(entries) = &metadata.value else {
            return Field::Absent;
        };
        let native = |(key, _): &&(Node, Node)| key.text().as_deref() == Some(METADATA_KEY);
        let Some((_, node)) = entries.iter().find(native) else {
            return Field::Absent;
        };
        match self.level(node, Level::Metadata) {
            Some(fields) => Field::at(self.options(&fields, Level::Metadata), node.place),
            None => Field::Broken,
        }
    }
}
