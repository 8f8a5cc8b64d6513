//! The sixth edition of what seeds decide: servers of a cluster that have several slots, which move.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Event, Script, What};

pub fn sixth_edition(script: &mut Script) {
    let mut random = SmallRng::seed_from_u64(script.setup.seed ^ 0x0006_ed17);
    let r = &mut random;
    if !script.setup.cluster || r.random_bool(0.2) {
        return;
    }
    script.setup.slots = r.random_range(2..=4);
    for _ in 0..r.random_range(0..=4) {
        let at_ms = r.random_range(0..script.setup.active_ms);
        let what = What::Moves {
            server: r.random_range(0..script.setup.servers),
            for_ms: r.random_range(1..=800).min(script.setup.active_ms - at_ms),
        };
        script.events.push(Event { at_ms, what });
    }
}
