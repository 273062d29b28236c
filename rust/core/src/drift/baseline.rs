//! What prompts were like when the router was fitted.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::report::Chance;
use crate::error::{Error, Result};

/// Prompts of a baseline are at most this many, so that they can be counted one by one.
const MOST_PROMPTS: f64 = 1e15;

/// Coordinates of centres are at most this: squared distances to them stay finite.
const FARTHEST: f32 = 1e18;

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
    pub(super) counts: Vec<f64>,
    centres: Vec<f32>,
    pub(super) distance: Moments,
    pub(super) coverage: Moments,
    /// What chance makes of so many prompts, as it was asked last: windows are mostly as long as the
    /// one before, and to simulate 400 of them takes milliseconds.
    pub(super) latest: Arc<ArcSwapOption<(u64, Chance)>>,
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

    pub(super) fn total(&self) -> f64 {
        self.counts.iter().sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let none = Moments::default();
        assert!(Baseline::new(vec![], vec![], none, none).is_err());
        assert!(Baseline::new(vec![1.0; 2], vec![0.0; 3], none, none).is_err());
        assert!(Baseline::new(vec![-1.0], vec![0.0], none, none).is_err());
        assert!(Baseline::new(vec![1.0], vec![f32::NAN], none, none).is_err());
    }
}
