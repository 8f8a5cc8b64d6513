//! Makes a failing script shorter: events are left out as long as it still fails.

use crate::script::Script;
use crate::world::run;

/// Runs at most, however long the script.
const MAX_RUNS: usize = 1500;

fn fails(script: &Script) -> bool {
    run(script, false).violation.is_some()
}

/// A script that fails with as few events as could be found: parts of it are left out, from halves down to single events.
pub fn shrink(script: &Script) -> Script {
    let mut best = script.clone();
    let (mut size, mut runs) = (best.events.len().div_ceil(2), 0);
    while size > 0 && runs < MAX_RUNS {
        let mut from = 0;
        let mut shorter = false;
        while from < best.events.len() && runs < MAX_RUNS {
            let mut tried = best.clone();
            tried.events.drain(from..(from + size).min(tried.events.len()));
            runs += 1;
            if fails(&tried) {
                best = tried;
                shorter = true;
            } else {
                from += size;
            }
        }
        if size > 1 {
            size /= 2;
        } else if !shorter {
            break;
        }
    }
    best
}
