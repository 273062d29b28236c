//! What stands behind one decision: clusters, exclusions, and where the choice flips.

use serde::Serialize;
use uniroute_core::cluster_map::Phi;
use uniroute_core::constraints::Compiled;
use uniroute_core::kernels::{Costs, Scan};
use uniroute_core::mask::Mask;
use uniroute_core::router::Snapshot;
use uniroute_core::{Error, Result};

/// Clusters and exclusions that are listed at most.
const LISTED: usize = 20;

/// Where the choice changes as the cost weight moves.
#[derive(Debug, PartialEq, Serialize)]
pub struct Flip<'s> {
    /// The first cost weight, in that direction, at which another model is chosen.
    cost_weight: f64,
    /// That model.
    model: &'s str,
}

#[derive(Serialize)]
struct Cluster {
    cluster: u32,
    weight: f32,
}

#[derive(Serialize)]
struct Excluded<'s> {
    model: &'s str,
    reasons: Vec<String>,
}

/// What stands behind one decision.
#[derive(Serialize)]
pub struct Explanation<'s> {
    clusters: Vec<Cluster>,
    /// By how much the objective of the runner-up is higher.
    margin: Option<f64>,
    flip_up: Option<Flip<'s>>,
    flip_down: Option<Flip<'s>>,
    excluded: Vec<Excluded<'s>>,
    excluded_count: usize,
}

/// One prompt's choice as a function of the cost weight.
pub struct Choices<'a> {
    /// The snapshot that decides.
    pub snapshot: &'a Snapshot,
    /// Predicted loss of every model.
    pub losses: &'a [f32],
    /// The models that may answer.
    pub allowed: &'a Mask,
}

impl<'a> Choices<'a> {
    fn scan(&self, cost_weight: f64) -> Scan<'a> {
        let costs = Costs::Given(self.snapshot.pool().costs());
        let mask = Some(self.allowed.words_from(0));
        Scan::new(self.losses, costs, cost_weight, mask)
    }

    fn choose(&self, cost_weight: f64) -> Option<u32> {
        self.scan(cost_weight).argmin()
    }

    /// The name of the model that is chosen first as the cost weight moves from `from` to `to`, and
    /// where: between the two the winner changes for good, so halving the floats between them,
    /// which are ordered as their bits are, finds the place to the last bit.
    fn flip(&self, from: f64, to: f64) -> Option<Flip<'a>> {
        let chosen = self.choose(from)?;
        if self.choose(to)? == chosen {
            return None;
        }
        let (mut inside, mut outside) = (from.to_bits(), to.to_bits());
        while inside.abs_diff(outside) > 1 {
            let middle = inside.midpoint(outside);
            if self.choose(f64::from_bits(middle)) == Some(chosen) {
                inside = middle;
            } else {
                outside = middle;
            }
        }
        let cost_weight = f64::from_bits(outside);
        let model = self.choose(cost_weight)? as usize;
        Some(Flip {
            cost_weight,
            model: &self.snapshot.pool().names()[model],
        })
    }

    /// A cost weight at which cost alone decides, or nearly: beyond it no objective is finite.
    fn dearest(&self) -> f64 {
        let most = self.snapshot.pool().costs().iter().copied();
        // At least the largest finite number divided by the largest cost.
        f64::MAX / most.fold(1.0, f64::max) / 4.0
    }
}

/// Explains a choice at a cost weight. `O(M)` a look at another cost weight, some 130 of them.
pub fn explain<'a>(
    choices: &Choices<'a>,
    phi: &Phi,
    compiled: &Compiled,
    tokens: Option<u64>,
    cost_weight: f64,
) -> Result<Explanation<'a>, Error> {
    let pool = choices.snapshot.pool();
    let mut clusters: Vec<_> = (phi.clusters.iter().zip(&phi.weights))
        .map(|(&cluster, &weight)| Cluster { cluster, weight })
        .collect();
    clusters.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    clusters.truncate(LISTED);
    let mut excluded = compiled.excluded(pool, tokens)?;
    let excluded_count = excluded.len();
    excluded.truncate(LISTED);
    let scan = choices.scan(cost_weight);
    let mut best = Vec::new();
    scan.top_n(2, &mut best);
    let margin = match best[..] {
        [first, second] => Some(scan.objective(second as usize) - scan.objective(first as usize)),
        _ => None,
    };
    Ok(Explanation {
        clusters,
        margin,
        flip_up: choices.flip(cost_weight, choices.dearest().max(cost_weight)),
        flip_down: choices.flip(cost_weight, 0.0),
        excluded: excluded
            .into_iter()
            .map(|e| Excluded {
                model: &pool.names()[e.model as usize],
                reasons: e.reasons,
            })
            .collect(),
        excluded_count,
    })
}
