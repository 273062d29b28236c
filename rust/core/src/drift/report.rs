//! Whether prompts are still like those that the router was fitted on.
//!
//! A [`Baseline`] says what prompts were like: how many in each cluster, how far from its centre,
//! how much of them the embedder knew. A [`Monitor`] counts what comes, in windows, beside it: a few
//! relaxed atomic additions a prompt, in one of several shards so that threads do not wait for each
//! other's cache lines. A [`Report`] compares a window with the baseline.
//!
//! Each statistic has a threshold that a window of prompts like those of the baseline exceeds about
//! once in [`RARELY`] windows, given how many prompts either has; and a floor, below which a change
//! is too small to matter however certain it is.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::error::{Error, Result};

/// A window like the baseline exceeds a threshold about once in so many.
pub const RARELY: f64 = 20_000.0;

/// The quantile of the normal distribution that is exceeded once in [`RARELY`].
const RARE: f64 = 3.89;

/// Prompts in a window, unless the caller says otherwise.
pub const WINDOW: u64 = 500;

/// How much the population stability index must exceed what chance gives, to matter.
const PSI_FLOOR: f64 = 0.1;

/// By how many standard deviations of single prompts a mean must move, to matter. Prompts of the fit
/// are measured as if they were new, but only nearly so: up to 0.25 of this is that.
const SHIFT_FLOOR: f64 = 0.4;

/// Fewest prompts that anything is said of.
const FEWEST: u64 = 50;

/// Prompts of a baseline are at most this many, so that they can be counted one by one.
const MOST_PROMPTS: f64 = 1e15;

/// Coordinates of centres are at most this: squared distances to them stay finite.
const FARTHEST: f32 = 1e18;

/// The longest window.
const LONGEST_WINDOW: u64 = 1 << 40;

/// Windows simulated for a threshold.
const SIMULATED: usize = 400;

/// Windows that are kept.
const KEPT: usize = 32;

const SHARDS: usize = 8;

/// Mean and standard deviation of a number over prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

impl Moments {
    /// Of these values; zeros for none.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        Self {
            mean,
            deviation: square.sqrt(),
        }
    }
}

/// What prompts were like when the router was fitted.
#[derive(Clone, Debug)]
pub struct Baseline {
    dim: usize,
    counts: Vec<f64>,
    centres: Vec<f32>,
    distance: Moments,
    coverage: Moments,
    /// What chance makes of so many prompts, as it was asked last: windows are mostly as long as the
    /// one before, and to simulate 400 of them takes milliseconds.
    latest: Arc<ArcSwapOption<(u64, Chance)>>,
}

impl Baseline {
    /// From the number of prompts in each cluster, the clusters' centres [clusters, dim] row-major,
    /// and squared distance to the centre and coverage over the prompts.
    pub fn new(
        counts: Vec<f64>,
        centres: Vec<f32>,
        distance: Moments,
        coverage: Moments,
    ) -> Result<Self> {
        let moments = [distance, coverage].map(|m| [m.mean, m.deviation]);
        let numbers = counts.iter().chain(moments.as_flattened());
        let fine = numbers.clone().all(|v| v.is_finite() && *v >= 0.0)
            && counts.iter().sum::<f64>() <= MOST_PROMPTS
            && centres.iter().all(|v| v.abs() <= FARTHEST);
        let dim = centres.len().checked_div(counts.len()).unwrap_or(0);
        if !fine || dim == 0 || dim * counts.len() != centres.len() {
            return Err(Error::invalid(
                "baseline",
                "a value that is not finite or too large, or a count below 0, or other shapes",
                "a count and a centre for each cluster, and moments",
            ));
        }
        Ok(Self {
            dim,
            counts,
            centres,
            distance,
            coverage,
            latest: Arc::default(),
        })
    }

    /// Prompts in each cluster.
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Centres, [clusters, dim] row-major.
    pub fn centres(&self) -> &[f32] {
        &self.centres
    }

    /// Dimension of the embeddings.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Squared distance to the centre.
    pub fn distance(&self) -> Moments {
        self.distance
    }

    /// Share of the feature weight that the embedder knows.
    pub fn coverage(&self) -> Moments {
        self.coverage
    }

    /// Squared distance of an embedding to the centre of a cluster.
    pub fn distance_to(&self, cluster: u32, embedding: &[f32]) -> f64 {
        squared_distance(
            embedding,
            &self.centres[cluster as usize * self.dim..][..self.dim],
        )
    }

    fn total(&self) -> f64 {
        self.counts.iter().sum()
    }

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
    /// the counts of the baseline as uncertain as their number leaves them.
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

/// Squared distance of two embeddings: in float32, for a mean over many.
pub fn squared_distance(x: &[f32], centre: &[f32]) -> f64 {
    // Several sums at once, so that the compiler may use vectors.
    let mut sums = [0.0f32; 16];
    let (x, x_rest) = x.as_chunks::<16>();
    let (c, c_rest) = centre.as_chunks::<16>();
    for (x, c) in x.iter().zip(c) {
        for i in 0..16 {
            let difference = x[i] - c[i];
            sums[i] += difference * difference;
        }
    }
    let rest = x_rest.iter().zip(c_rest).map(|(x, c)| (x - c) * (x - c));
    f64::from(sums.iter().sum::<f32>() + rest.sum::<f32>())
}

#[derive(Clone, Copy, Debug)]
struct Chance {
    mean: f64,
    threshold: f64,
}

/// Fails for a window that is too short to tell anything, as a file may hold.
pub(crate) fn check_window(window: u64) -> Result<()> {
    if (FEWEST..=LONGEST_WINDOW).contains(&window) {
        return Ok(());
    }
    let expected = format!("{FEWEST} to {LONGEST_WINDOW}");
    Err(Error::invalid("window", window.to_string(), expected))
}

/// What some prompts were like, added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    clusters: Vec<ClusterTally>,
    distance: f64,
    coverage: f64,
    unroutable: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ClusterTally {
    count: u64,
    cost: f64,
}

impl Tally {
    /// Nothing yet.
    pub fn new(clusters: usize) -> Self {
        Self {
            clusters: vec![ClusterTally::default(); clusters],
            distance: 0.0,
            coverage: 0.0,
            unroutable: 0,
        }
    }

    /// Adds a prompt: its cluster, squared distance, coverage and cost.
    pub fn add(&mut self, cluster: u32, distance: f64, coverage: f32, cost: f64) {
        let own = &mut self.clusters[cluster as usize];
        own.count += 1;
        own.cost += cost;
        self.distance += distance;
        self.coverage += f64::from(coverage);
    }

    /// Adds a prompt that could not be routed.
    pub fn add_unroutable(&mut self) {
        self.unroutable += 1;
    }

    /// Number of prompts that were routed.
    pub fn routed(&self) -> u64 {
        self.clusters.iter().map(|c| c.count).sum()
    }

    /// Number of prompts.
    pub fn prompts(&self) -> u64 {
        self.routed() + self.unroutable
    }

    fn minus(&self, other: &Self) -> Self {
        let clusters = self.clusters.iter().zip(&other.clusters);
        Self {
            clusters: clusters
                .map(|(a, b)| ClusterTally {
                    count: a.count.saturating_sub(b.count),
                    cost: a.cost - b.cost,
                })
                .collect(),
            distance: self.distance - other.distance,
            coverage: self.coverage - other.coverage,
            unroutable: self.unroutable.saturating_sub(other.unroutable),
        }
    }
}

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

/// Counts prompts as they are routed. Never blocks, and holds no lock that a forked child could
/// inherit.
pub struct Monitor {
    baseline: Baseline,
    window: u64,
    shards: Vec<Shard>,
    prompts: AtomicU64,
    /// What had been counted at the end of each of the latest windows, oldest first.
    ends: ArcSwap<VecDeque<Arc<Tally>>>,
}

/// Counters that few threads share. Numbers that are no integers are float64 in their bits.
#[repr(align(128))]
struct Shard {
    /// [clusters, 2]: count, cost.
    clusters: Vec<[AtomicU64; 2]>,
    distance: AtomicU64,
    coverage: AtomicU64,
    unroutable: AtomicU64,
}

fn add(counter: &AtomicU64, value: f64) {
    let mut now = counter.load(Ordering::Relaxed);
    loop {
        let next = (f64::from_bits(now) + value).to_bits();
        match counter.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => now = other,
        }
    }
}

fn read(counter: &AtomicU64) -> f64 {
    f64::from_bits(counter.load(Ordering::Relaxed))
}

/// The shard of this thread: threads take them in turn.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed)));
    OWN.get() % SHARDS
}

impl Monitor {
    /// Counts beside a baseline, in windows of so many prompts.
    pub fn new(baseline: Baseline, window: u64) -> Self {
        let clusters = baseline.counts.len();
        let shard = |_| Shard {
            clusters: (0..clusters).map(|_| Default::default()).collect(),
            distance: AtomicU64::default(),
            coverage: AtomicU64::default(),
            unroutable: AtomicU64::default(),
        };
        let start = VecDeque::from([Arc::new(Tally::new(clusters))]);
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            window: window.max(1),
            prompts: AtomicU64::default(),
            ends: ArcSwap::from_pointee(start),
            baseline,
        }
    }

    /// What prompts are compared with.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Prompts in a window.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Counts one prompt: its cluster, embedding, coverage and cost.
    pub fn note(&self, cluster: u32, embedding: &[f32], coverage: f32, cost: f64) {
        let shard = &self.shards[own_shard()];
        let [count, total] = &shard.clusters[cluster as usize];
        count.fetch_add(1, Ordering::Relaxed);
        add(total, cost);
        add(
            &shard.distance,
            self.baseline.distance_to(cluster, embedding),
        );
        add(&shard.coverage, f64::from(coverage));
        self.advance(1);
    }

    /// Counts one prompt that could not be embedded.
    pub fn note_unroutable(&self) {
        self.shards[own_shard()]
            .unroutable
            .fetch_add(1, Ordering::Relaxed);
        self.advance(1);
    }

    /// Counts many prompts.
    pub fn note_all(&self, tally: &Tally) {
        let shard = &self.shards[own_shard()];
        for ([count, total], own) in shard.clusters.iter().zip(&tally.clusters) {
            if own.count > 0 {
                count.fetch_add(own.count, Ordering::Relaxed);
                add(total, own.cost);
            }
        }
        add(&shard.distance, tally.distance);
        add(&shard.coverage, tally.coverage);
        shard
            .unroutable
            .fetch_add(tally.unroutable, Ordering::Relaxed);
        self.advance(tally.prompts());
    }

    /// Prompts counted so far.
    pub fn prompts(&self) -> u64 {
        self.prompts.load(Ordering::Relaxed)
    }

    /// All that has been counted.
    pub fn total(&self) -> Tally {
        let mut all = Tally::new(self.baseline.counts.len());
        for shard in &self.shards {
            for (own, [count, cost]) in all.clusters.iter_mut().zip(&shard.clusters) {
                own.count += count.load(Ordering::Relaxed);
                own.cost += read(cost);
            }
            all.distance += read(&shard.distance);
            all.coverage += read(&shard.coverage);
            all.unroutable += shard.unroutable.load(Ordering::Relaxed);
        }
        all
    }

    /// The latest window that is complete, or before the first what there is; and whether it is.
    pub fn latest(&self) -> (Tally, bool) {
        let ends = self.ends.load();
        match (ends.iter().rev().nth(1), ends.back()) {
            (Some(start), Some(end)) => (end.minus(start), true),
            _ => (self.total(), false),
        }
    }

    /// The latest windows that are complete, oldest first.
    pub fn windows(&self) -> Vec<Tally> {
        let ends = self.ends.load();
        let pairs = ends.iter().zip(ends.iter().skip(1));
        pairs.map(|(start, end)| end.minus(start)).collect()
    }

    /// Counts prompts, and ends the window if it is full. What other threads are about to add goes
    /// to the next one.
    fn advance(&self, prompts: u64) {
        let before = self.prompts.fetch_add(prompts, Ordering::Relaxed);
        if before / self.window == (before + prompts) / self.window {
            return;
        }
        let end = Arc::new(self.total());
        self.ends.rcu(|ends| {
            let skip = (ends.len() + 1).saturating_sub(KEPT + 1);
            let kept = ends.iter().skip(skip).cloned();
            kept.chain([Arc::clone(&end)]).collect::<VecDeque<_>>()
        });
    }
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
    use super::*;

    const DIM: usize = 3;

    fn baseline(counts: &[f64]) -> Baseline {
        let centres = vec![0.0; counts.len() * DIM];
        let moments = |mean, deviation| Moments { mean, deviation };
        Baseline::new(
            counts.to_vec(),
            centres,
            moments(0.5, 0.2),
            moments(0.9, 0.05),
        )
        .unwrap()
    }

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

    #[test]
    fn windows_end_when_they_are_full_whatever_thread_counts() {
        let monitor = Monitor::new(baseline(&[1.0; 4]), 100);
        assert_eq!(monitor.latest().0.prompts(), 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..1000 {
                        monitor.note(i % 4, &[1.0; DIM], 1.0, 2.0);
                    }
                });
            }
        });
        assert_eq!(monitor.prompts(), 4000);
        let total = monitor.total();
        assert_eq!(total.routed(), 4000);
        assert!((total.distance - 12_000.0).abs() < 1e-6);
        let windows = monitor.windows();
        assert_eq!(windows.len(), KEPT);
        let (latest, complete) = monitor.latest();
        assert!(complete);
        assert_eq!(Some(&latest), windows.last());
        assert!(
            latest
                .clusters
                .iter()
                .all(|c| c.count == 0 || (c.cost / c.count as f64 - 2.0).abs() < 1.0)
        );
    }

    #[test]
    fn a_batch_counts_as_its_prompts_one_by_one() {
        let (one, many) = (
            Monitor::new(baseline(&[1.0; 4]), 100),
            Monitor::new(baseline(&[1.0; 4]), 100),
        );
        let mut tally = Tally::new(4);
        for i in 0..250 {
            one.note(i % 4, &[0.5; DIM], 0.5, 1.0);
            tally.add(i % 4, 0.75, 0.5, 1.0);
        }
        one.note_unroutable();
        tally.add_unroutable();
        many.note_all(&tally);
        assert_eq!(one.total(), many.total());
        assert_eq!((one.windows().len(), many.windows().len()), (2, 1));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let none = Moments::default();
        assert!(Baseline::new(vec![], vec![], none, none).is_err());
        assert!(Baseline::new(vec![1.0; 2], vec![0.0; 3], none, none).is_err());
        assert!(Baseline::new(vec![-1.0], vec![0.0], none, none).is_err());
        assert!(Baseline::new(vec![1.0], vec![f32::NAN], none, none).is_err());
    }
}
