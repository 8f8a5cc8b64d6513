//! What a limit admits, apart from where it stands.

use std::fmt;
use std::sync::Arc;

use crate::model::{Algorithm, Limit, Window};

/// What is counted, and how answers tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// `None` = unlimited.
    pub limit: Option<Limit>,
    /// As configured, for answers.
    pub requests_per_unit: u32,
    /// As configured, for answers.
    pub window: Window,
    /// Hits count even if they are denied.
    pub count_denied: bool,
    /// What an adaptive hold keeps first.
    pub hold_first: Option<u64>,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = &self.limit else {
            return f.write_str("unlimited");
        };
        write!(
            f,
            "{} per {} by {}",
            self.requests_per_unit,
            self.window,
            limit.algorithm.kind()
        )?;
        match limit.algorithm {
            Algorithm::TokenBucket { burst, .. } => write!(f, ", burst {burst}")?,
            Algorithm::LeakyBucket { max_delay_us, .. } => write!(f, ", delays up to {max_delay_us} us")?,
            Algorithm::SlidingWindow { precision } => write!(f, ", precision {precision}")?,
            _ => {}
        }
        if self.count_denied {
            f.write_str(", denied hits count")?;
        }
        if limit.hold_us > 0 {
            write!(f, ", holds {} us", limit.hold_us)?;
        }
        self.hold_first.map_or(Ok(()), |first| write!(f, ", at first {first}"))
    }
}

/// A plan of a rules file, or a limit that a source gives to single values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitPlan {
    /// Its name, or how the limit is written (`100/hour`).
    pub name: Arc<str>,
    /// What it admits.
    pub amount: Amount,
}
