//! Counting prompts as they come, in windows.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use super::baseline::Baseline;
use super::report::FEWEST;
use crate::error::{Error, Result};

/// Prompts in a window, unless the caller says otherwise.
pub const WINDOW: u64 = 500;

/// The longest window.
const LONGEST_WINDOW: u64 = 1 << 40;

/// Windows that are kept.
const KEPT: usize = 32;

const SHARDS: usize = 8;

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
    pub(super) clusters: Vec<ClusterTally>,
    pub(super) distance: f64,
    pub(super) coverage: f64,
    pub(super) unroutable: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ClusterTally {
    pub(super) count: u64,
    pub(super) cost: f64,
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::baseline::Moments;
    use super::*;

    const DIM: usize = 3;

    pub(crate) fn baseline(counts: &[f64]) -> Baseline {
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
}
