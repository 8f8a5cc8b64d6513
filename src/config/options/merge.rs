//! The options of a `rate_limit` together with those in its descriptor's `metadata`.

use super::super::error::Place;
use super::super::field::{Field, Placed};
use super::option::{FieldAccess, Kind, Level, Options, RuleOption};
use super::table::TABLE;

impl RuleOption {
    /// Fills the slot from `other` where it is empty. Where both have it, its own stays: `Err` with that one's place.
    fn fill_from(&self, own: &mut Options, other: &Options) -> Result<(), Option<Place>> {
        fn fill<T: Clone>(slot: &FieldAccess<T>, own: &mut Options, other: &Options) -> Result<(), Option<Place>> {
            let (own, other) = ((slot.get_mut)(own), (slot.get)(other));
            match (own.is_there(), other.is_there()) {
                (true, true) => return Err(own.place()),
                (false, true) => *own = other.clone(),
                (_, false) => {}
            }
            Ok(())
        }
        match &self.kind {
            Kind::Tree | Kind::Shaped { .. } => Ok(()),
            Kind::Text(slot) => fill(slot, own, other),
            Kind::Truth(slot) => fill(slot, own, other),
            Kind::Number(slot) => fill(slot, own, other),
            Kind::LargeNumber(slot) => fill(slot, own, other),
            Kind::Window(slot) => fill(slot, own, other),
            Kind::Hold(slot) => fill(slot, own, other),
        }
    }
}

impl Options {
    /// A `rate_limit`'s own options together with those of `metadata`; `twice` hears of each that stands in both.
    pub(in super::super) fn merged(&self, metadata: &Self, mut twice: impl FnMut(&'static str, Option<Place>)) -> Self {
        let mut merged = self.clone();
        let both = |option: &&RuleOption| option.stands_on(Level::RateLimit) && option.stands_on(Level::Metadata);
        for option in TABLE.iter().filter(both) {
            if let Err(place) = option.fill_from(&mut merged, metadata) {
                twice(option.name, place);
            }
        }
        merged
    }

    /// The names in `replaces`.
    pub(in super::super) fn replaced(&self) -> impl Iterator<Item = &Placed<String>> {
        self.replaces.value().into_iter().flatten().filter_map(Field::given)
    }

    /// The options that say how one limit counts and what is told of it, as far as they are given, `false` or not.
    pub(in super::super) fn counting(&self) -> impl Iterator<Item = (&'static RuleOption, Option<Place>)> {
        let options = TABLE.iter().filter(|option| option.is_counting());
        options.filter_map(|option| Some((option, option.written(self)?)))
    }
}
