//! Which key a call asks for: key numbers `0..keys`, drawn from a distribution.

use std::str::FromStr;

use rand::Rng;
use rand::distr::{Distribution as _, Uniform};
use rand_distr::Zipf;

use super::BenchError;

/// How key numbers are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Each key as often as any other.
    Uniform,
    /// The k-th key in proportion to `1 / k^exponent`: few keys take most of the calls, as in real traffic.
    Zipf(f64),
    /// Always the same key.
    Single,
    /// A key that was never asked for before, for as long as the process runs: what a hostile client does.
    Fresh,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, exponent) = text.split_once(':').unwrap_or((text, "1.0"));
        match name {
            "uniform" => Ok(Self::Uniform),
            "single" => Ok(Self::Single),
            "fresh" => Ok(Self::Fresh),
            "zipf" => match exponent.parse::<f64>() {
                Ok(s) if s > 0.0 && s <= 10.0 => Ok(Self::Zipf(s)),
                _ => Err(format!(
                    "zipf takes an exponent above 0 and at most 10, as in zipf:1.0; got {exponent:?}"
                )),
            },
            _ => Err(format!("{text:?} is none of uniform, zipf:<exponent>, single, fresh")),
        }
    }
}

/// Draws key numbers.
#[derive(Debug, Clone)]
pub enum KeySampler {
    /// See [`Distribution::Uniform`].
    Uniform(Uniform<u64>),
    /// See [`Distribution::Zipf`].
    Zipf(Zipf<f64>),
    /// See [`Distribution::Single`].
    Single,
    /// See [`Distribution::Fresh`]: the next number, and the step that keeps samplers apart.
    Fresh {
        /// The next number.
        next: u64,
        /// How many samplers share the numbers.
        step: u64,
    },
}

impl KeySampler {
    /// A sampler over `keys` keys; `index` of `samplers` says which share of fresh keys is this one's.
    ///
    /// # Errors
    /// When there is no key to draw from.
    pub fn new(distribution: Distribution, keys: u64, index: u64, samplers: u64) -> Result<Self, BenchError> {
        let refuse = |why: String| BenchError::Argument(format!("--keys {keys}: {why}"));
        match distribution {
            Distribution::Single => Ok(Self::Single),
            Distribution::Fresh => Ok(Self::Fresh {
                next: index,
                step: samplers.max(1),
            }),
            Distribution::Uniform => Uniform::new(0, keys)
                .map(Self::Uniform)
                .map_err(|e| refuse(e.to_string())),
            #[allow(clippy::cast_precision_loss, reason = "at most 10^8 keys")]
            Distribution::Zipf(exponent) => Zipf::new(keys as f64, exponent)
                .map(Self::Zipf)
                .map_err(|e| refuse(e.to_string())),
        }
    }

    /// The next key number.
    pub fn draw(&mut self, rng: &mut impl Rng) -> u64 {
        match self {
            Self::Single => 0,
            Self::Uniform(range) => range.sample(rng),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "Zipf yields whole numbers from 1 to keys"
            )]
            Self::Zipf(zipf) => (zipf.sample(rng) as u64).saturating_sub(1),
            Self::Fresh { next, step } => {
                let key = *next;
                *next = next.wrapping_add(*step);
                key
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn zipf_prefers_low_numbers_in_the_stated_proportion() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut sampler = KeySampler::new(Distribution::Zipf(1.0), 1000, 0, 1).unwrap();
        let mut counts = [0u32; 1000];
        for _ in 0..100_000 {
            counts[usize::try_from(sampler.draw(&mut rng)).unwrap()] += 1;
        }
        // 1 / H(1000) = 13.4 % for the first key, half of it for the second.
        assert!((12_500..14_500).contains(&counts[0]), "{}", counts[0]);
        assert!((6_200..7_200).contains(&counts[1]), "{}", counts[1]);
    }

    #[test]
    fn fresh_samplers_never_meet() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut a = KeySampler::new(Distribution::Fresh, 1, 0, 2).unwrap();
        let mut b = KeySampler::new(Distribution::Fresh, 1, 1, 2).unwrap();
        let drawn: Vec<_> = (0..3).flat_map(|_| [a.draw(&mut rng), b.draw(&mut rng)]).collect();
        assert_eq!(drawn, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn names_are_read_and_refused() {
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf(1.2)));
        assert_eq!("zipf".parse(), Ok(Distribution::Zipf(1.0)));
        assert!("zipf:-1".parse::<Distribution>().is_err());
        assert!("normal".parse::<Distribution>().is_err());
        assert!(KeySampler::new(Distribution::Uniform, 0, 0, 1).is_err());
    }
}
