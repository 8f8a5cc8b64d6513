//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng;

use super::super::settings::XdsSettings;

/// Exponential, bounded, and random so that replicas do not come back all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    initial: Duration,
    max: Duration,
    jitter: bool,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(settings: &XdsSettings) -> Self {
        let max = settings.backoff_max.max(settings.backoff_initial);
        Self {
            initial: settings.backoff_initial,
            max,
            jitter: settings.backoff_jitter,
            next: settings.backoff_initial,
        }
    }

    /// The wait before this attempt: with jitter between half and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        if self.jitter {
            wait.mul_f64(rand::rng().random_range(0.5..=1.0))
        } else {
            wait
        }
    }

    pub(super) const fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(jitter: bool) -> XdsSettings {
        XdsSettings {
            backoff_initial: Duration::from_millis(100),
            backoff_max: Duration::from_millis(350),
            backoff_jitter: jitter,
            ..XdsSettings::default()
        }
    }

    #[test]
    fn doubles_up_to_the_bound_and_starts_again_after_a_reset() {
        let mut backoff = Backoff::new(&settings(false));
        let waits: Vec<_> = (0..4).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 100);
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        let mut backoff = Backoff::new(&settings(true));
        for full in [100, 200, 350, 350, 350] {
            let wait = backoff.next().as_millis();
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
    }
}
