//! One field of a rules file or resource: absent, unusable or given, with its place.

use super::error::Place;

/// A field that may be absent, or that was given in a way that has been reported already.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Field<T> {
    /// The field is not there.
    #[default]
    Absent,
    /// The field is there and unusable; its error is recorded, so nothing that follows from it is reported again.
    Broken,
    /// The field is there. Boxed, because most fields of most descriptors are absent.
    Given(Box<Placed<T>>),
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its place; `None` if it comes from no text.
    pub place: Option<Place>,
}

impl<T> Field<T> {
    /// A field with its place.
    pub fn at(value: T, place: Option<Place>) -> Self {
        Self::Given(Box::new(Placed { value, place }))
    }

    /// What was given.
    pub fn given(&self) -> Option<&Placed<T>> {
        match self {
            Self::Given(placed) => Some(placed),
            Self::Absent | Self::Broken => None,
        }
    }

    /// The value that was given.
    pub fn value(&self) -> Option<&T> {
        self.given().map(|placed| &placed.value)
    }

    /// Whether the field is there, usable or not.
    pub const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Where it stands.
    pub fn place(&self) -> Option<Place> {
        self.given().and_then(|placed| placed.place)
    }
}

impl Field<bool> {
    /// Whether it is given as true.
    pub fn is_true(&self) -> bool {
        self.value() == Some(&true)
    }
}

/// A value without a place.
impl<T> From<T> for Field<T> {
    fn from(value: T) -> Self {
        Self::at(value, None)
    }
}
