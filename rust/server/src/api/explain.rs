//! What stands behind one decision: clusters, exclusions, and where the choice flips.

use serde::Serialize;
use uniroute_core::clusters::cluster_map::Phi;
use uniroute_core::request::Request;
use uniroute_core::request::constraints::Compiled;
use uniroute_core::route::ranking::Ranking;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::{Error, Result};

use crate::api::route::finite;

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
struct Choices<'a> {
    snapshot: &'a Snapshot,
    ranking: &'a Ranking,
}

impl<'a> Choices<'a> {
    fn choose(&self, cost_weight: f64) -> Option<u32> {
        self.ranking.at(cost_weight).argmin()
    }

    /// Which model is chosen first as the cost weight moves from `from` to `to`, and where: between
    /// the two the winner changes for good, so halving the floats between them, which are ordered
    /// as their bits are, finds the place to the last bit.
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

    /// A cost weight at which cost alone decides, or nearly: beyond it objectives overflow.
    fn highest(&self) -> f64 {
        let costs = self.ranking.costs().iter().copied();
        f64::MAX / costs.fold(1.0, f64::max) / 4.0
    }
}

/// Explains the choice among the models that a ranking holds. O(M) a look at another cost weight,
/// some 130 of them.
pub fn explain<'a>(
    snapshot: &'a Snapshot,
    ranking: &'a Ranking,
    phi: &Phi,
    compiled: &Compiled,
    request: &Request<'_>,
) -> Result<Explanation<'a>, Error> {
    let pool = snapshot.pool();
    let choices = Choices { snapshot, ranking };
    let weight = request.cost_weight;
    let mut clusters: Vec<_> = (phi.clusters.iter().zip(&phi.weights))
        .map(|(&cluster, &weight)| Cluster { cluster, weight })
        .collect();
    clusters.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    clusters.truncate(LISTED);
    let (excluded, excluded_count) =
        compiled.excluded(pool, request.tokens, ranking.costs(), LISTED)?;
    let scan = ranking.at(weight);
    let mut best = Vec::new();
    scan.top_n(2, &mut best);
    let margin = match best[..] {
        [first, second] => {
            let [first, second] = [first, second].map(|m| finite(scan.objective(m as usize)));
            Some(second - first)
        }
        _ => None,
    };
    Ok(Explanation {
        clusters,
        margin,
        flip_up: choices.flip(weight, choices.highest().max(weight)),
        flip_down: choices.flip(weight, 0.0),
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
