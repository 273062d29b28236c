//! A window of prompts beside the baseline.
//!
//! Each statistic has a threshold that a window of prompts like those of the baseline exceeds about
//! once in [`RARELY`] windows, given how many prompts either has; and a floor, below which a change
//! is too small to matter however certain it is.

use std::sync::Arc;

use super::baseline::{Baseline, Moments};
use super::monitor::Tally;

/// A window like the baseline exceeds a threshold about once in so many.
pub const RARELY: f64 = 20_000.0;

/// The quantile of the normal distribution that is exceeded once in [`RARELY`].
const RARE: f64 = 3.89;

/// How much the population stability index must exceed what chance gives, to matter.
const PSI_FLOOR: f64 = 0.1;

/// By how many standard deviations of single prompts a mean must move, to matter. Prompts of the fit
/// are measured as if they were new, but only nearly so: up to 0.25 of this is that.
const SHIFT_FLOOR: f64 = 0.4;

/// Fewest prompts that anything is said of.
pub(super) const FEWEST: u64 = 50;

/// Windows simulated for a threshold.
const SIMULATED: usize = 400;

/// A window beside the baseline.
#[derive(Clone, Debug)]
pub struct Report {
    /// Prompts that were routed.
    pub prompts: u64,
    /// Prompts that could not be embedded.
    pub unroutable: u64,
    /// Population stability index over the clusters: the sum of (share - expected) ln(share /
    /// expected).
    pub psi: f64,
    /// What chance makes of it.
    pub psi_expected: f64,
    /// Above this the mix of prompts has changed.
    pub psi_threshold: f64,
    /// Whether it has.
    pub psi_alarm: bool,
    /// Squared distance to the cluster's centre.
    pub distance: Shift,
    /// Share of the feature weight that the embedder knows.
    pub coverage: Shift,
    /// Mean cost of the decisions.
    pub cost: f64,
    /// Every cluster.
    pub clusters: Vec<Moved>,
}

impl Report {
    /// Whether prompts are unlike those of the baseline.
    pub fn alarm(&self) -> bool {
        self.psi_alarm || self.distance.alarm || self.coverage.alarm
    }

    /// What these prompts would have cost in the mix of the baseline: a cluster without prompts
    /// counts as the others do on average.
    pub fn cost_in_baseline_mix(&self) -> f64 {
        let seen = || self.clusters.iter().filter(|c| c.cost > 0.0);
        let weight: f64 = seen().map(|c| c.expected).sum();
        seen().map(|c| c.expected * c.cost).sum::<f64>() / weight.max(1e-300)
    }
}

/// A mean beside that of the baseline.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    /// Of the window.
    pub mean: f64,
    /// Of the baseline.
    pub expected: f64,
    /// By how many standard deviations of single prompts it has moved.
    pub deviations: f64,
    /// By how many it must, up or down.
    pub threshold: f64,
    /// Whether it has.
    pub alarm: bool,
}

/// One cluster's share of the prompts.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Index of the cluster.
    pub cluster: u32,
    /// Share in the baseline.
    pub expected: f64,
    /// Share in the window.
    pub share: f64,
    /// Its part of the population stability index.
    pub psi: f64,
    /// By how many standard errors the share has moved.
    pub z: f64,
    /// Mean cost of its decisions in the window; 0 without any.
    pub cost: f64,
}

impl Baseline {
    /// Compares prompts with the baseline. O(clusters), times the simulated windows where there are
    /// not as many prompts as the last time.
    pub fn compare(&self, seen: &Tally) -> Report {
        let n = seen.routed();
        let (count, fitted) = (n.max(1) as f64, self.total().max(1.0));
        let smooth = |c: f64, total: f64| (c + 0.5) / (total + 0.5 * self.counts.len() as f64);
        let noise = (1.0 / count + 1.0 / fitted).sqrt();
        let clusters: Vec<Moved> = (self.counts.iter().zip(&seen.clusters).enumerate())
            .map(|(k, (&before, now))| {
                let (expected, share) = (smooth(before, fitted), smooth(now.count as f64, count));
                let z = (share - expected) / ((expected * (1.0 - expected)).sqrt() * noise);
                Moved {
                    cluster: k as u32,
                    expected,
                    share,
                    psi: (share - expected) * (share / expected).ln(),
                    z,
                    cost: now.cost / (now.count.max(1) as f64),
                }
            })
            .collect();
        let psi = clusters.iter().map(|c| c.psi).sum();
        let chance = match self.latest.load().as_deref() {
            Some((known, chance)) if *known == n => *chance,
            _ => {
                let chance = self.chance(n);
                self.latest.store(Some(Arc::new((n, chance))));
                chance
            }
        };
        let shift = |sum: f64, known: Moments| {
            let mean = sum / count;
            let deviation = known.deviation.max(1e-12);
            let moved = (mean - known.mean) / deviation;
            let threshold = (RARE * noise).max(SHIFT_FLOOR);
            Shift {
                mean,
                expected: known.mean,
                deviations: moved,
                threshold,
                alarm: n >= FEWEST && known.deviation > 0.0 && moved.abs() > threshold,
            }
        };
        let psi_threshold = chance.threshold.max(chance.mean + PSI_FLOOR);
        Report {
            prompts: n,
            unroutable: seen.unroutable,
            psi,
            psi_expected: chance.mean,
            psi_threshold,
            psi_alarm: n >= FEWEST && psi > psi_threshold,
            distance: shift(seen.distance, self.distance),
            coverage: shift(seen.coverage, self.coverage),
            cost: seen.clusters.iter().map(|c| c.cost).sum::<f64>() / count,
            clusters,
        }
    }

    /// What chance alone makes of the population stability index of `n` prompts: by simulation, with
    /// the counts of the baseline as uncertain as their number leaves them. (The index is nearly
    /// `(1/n + 1/fitted)` chi-square with `clusters - 1` degrees of freedom, but only of windows with
    /// ten prompts a cluster or so: of 50 to 200 prompts in 60 clusters that mean is 1.1 to 2.6 times
    /// what comes about, and its threshold misses changes that matter.)
    fn chance(&self, n: u64) -> Chance {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ n);
        let (fitted, clusters) = (self.total().max(1.0), self.counts.len() as f64);
        let mut indices = Vec::with_capacity(SIMULATED);
        let (mut before, mut now) = (Vec::new(), Vec::new());
        for _ in 0..SIMULATED {
            before.clear();
            now.clear();
            for &count in &self.counts {
                let share = (count + 0.5) / (fitted + 0.5 * clusters);
                before.push(noise.poisson(share * fitted) + 0.5);
                now.push(noise.poisson(share * n as f64) + 0.5);
            }
            let totals = (before.iter().sum::<f64>(), now.iter().sum::<f64>());
            let terms = before.iter().zip(&now).map(|(b, q)| {
                let (b, q) = (b / totals.0, q / totals.1);
                (q - b) * (q / b).ln()
            });
            indices.push(terms.sum::<f64>());
        }
        let Moments { mean, deviation } = Moments::of(&indices);
        // Sums of squares of near-normal numbers follow a gamma distribution well; its quantile by
        // Wilson and Hilferty.
        let shape = (mean / deviation.max(1e-12)).powi(2);
        let cube = 1.0 - 1.0 / (9.0 * shape) + RARE / (3.0 * shape.sqrt());
        Chance {
            mean,
            threshold: mean * cube.powi(3),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Chance {
    mean: f64,
    threshold: f64,
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A Poisson number: by inversion where the mean is small, rounded normal where it is not.
    fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 30.0 {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * self.uniform()).cos();
            return (mean + mean.sqrt() * normal).round().max(0.0);
        }
        let (mut left, mut count) = (self.uniform(), 0.0);
        let mut chance = (-mean).exp();
        while left > chance && count < 200.0 {
            left -= chance;
            count += 1.0;
            chance *= mean / count;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::super::monitor::tests::baseline;
    use super::*;

    /// Prompts spread over clusters by weight.
    fn window(weights: &[f64], n: usize, seed: u64) -> Tally {
        let mut noise = Noise(seed);
        let total: f64 = weights.iter().sum();
        let mut tally = Tally::new(weights.len());
        for _ in 0..n {
            let mut left = noise.uniform() * total;
            let at = weights.iter().position(|w| {
                left -= w;
                left < 0.0
            });
            let cluster = at.unwrap_or(weights.len() - 1) as u32;
            let normal = (noise.uniform() + noise.uniform() - 1.0) * 6f64.sqrt();
            tally.add(cluster, 0.5 + 0.2 * normal, 0.9, 1.0);
        }
        tally
    }

    #[test]
    fn windows_like_the_baseline_raise_no_alarm_and_others_do() {
        let counts: Vec<f64> = (1..=60).map(f64::from).collect();
        let baseline = baseline(&counts);
        for seed in 0..300 {
            let report = baseline.compare(&window(&counts, 500, seed));
            assert!(!report.alarm(), "seed {seed}: {report:?}");
        }
        let other: Vec<f64> = counts.iter().rev().copied().collect();
        let report = baseline.compare(&window(&other, 500, 1));
        assert!(report.psi_alarm && !report.coverage.alarm);
        let first = report.clusters[0];
        assert!(first.share > first.expected && first.z > 4.0);
    }

    #[test]
    fn a_shift_of_distance_or_coverage_raises_an_alarm() {
        let baseline = baseline(&[100.0; 4]);
        let mut far = Tally::new(4);
        (0..500).for_each(|i| far.add(i % 4, 0.7, 0.9, 1.0));
        let report = baseline.compare(&far);
        assert!(report.distance.alarm && !report.psi_alarm && !report.coverage.alarm);
        assert!((report.distance.deviations - 1.0).abs() < 1e-9);
        let mut foreign = Tally::new(4);
        (0..500).for_each(|i| foreign.add(i % 4, 0.5, 0.8, 1.0));
        assert!(baseline.compare(&foreign).coverage.alarm);
    }

    #[test]
    fn few_prompts_say_nothing() {
        let mut few = Tally::new(4);
        (0..20).for_each(|_| few.add(0, 9.0, 0.0, 1.0));
        let report = baseline(&[100.0; 4]).compare(&few);
        assert!(!report.alarm());
        assert!(!baseline(&[100.0; 4]).compare(&Tally::new(4)).alarm());
    }

    #[test]
    fn cost_in_the_baseline_mix_weighs_clusters_as_they_were() {
        let baseline = baseline(&[75.0, 25.0]);
        let mut seen = Tally::new(2);
        (0..100).for_each(|_| seen.add(0, 0.5, 0.9, 1.0));
        (0..300).for_each(|_| seen.add(1, 0.5, 0.9, 5.0));
        let report = baseline.compare(&seen);
        assert!((report.cost - 4.0).abs() < 1e-12);
        assert!((report.cost_in_baseline_mix() - 2.0).abs() < 0.05);
    }
}
