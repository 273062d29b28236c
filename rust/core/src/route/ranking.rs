//! The models that may answer one prompt, best first.

use crate::clusters::cluster_map::Phi;
use crate::error::Result;
use crate::kernels::{Costs, Scan};
use crate::pool::hull::Candidate;
use crate::pool::mask::Mask;
use crate::request::Request;
use crate::request::constraints::Compiled;
use crate::route::snapshot::Snapshot;

/// A prompt as every model sees it, and the best models for it. Grows once, then is reused.
#[derive(Default)]
pub struct Ranking {
    losses: Vec<f32>,
    costs: Vec<f64>,
    allowed: Mask,
    order: Vec<u32>,
}

impl Ranking {
    /// Ranks the `n` best of the models that may answer: least predicted loss plus weighted cost
    /// first, ties by lower cost, then by lower index. The first one is the model that
    /// [`Snapshot::route_text`] chooses; it leaves the prompt's `phi` in its scratch. O(K M).
    pub fn fill(
        &mut self,
        snapshot: &Snapshot,
        phi: &Phi,
        request: &Request<'_>,
        n: usize,
    ) -> Result<()> {
        let pool = snapshot.pool();
        self.losses.resize(pool.len(), 0.0);
        snapshot.gamma(phi, &mut self.losses);
        self.costs = snapshot.costs(phi, request.tokens)?;
        let allowed = match request.constraints {
            None => pool.enabled(),
            Some(constraints) => constraints.allowed(pool, request.tokens)?.mask(),
        };
        allowed.clone_into(&mut self.allowed);
        // Where costs depend on the prompt, the mask does not know who stays below the cap.
        let cap = request
            .constraints
            .map_or(f64::INFINITY, Compiled::max_cost);
        for (model, _) in (self.costs.iter().enumerate()).filter(|(_, cost)| **cost > cap) {
            self.allowed.set(model, false);
        }
        let mut order = std::mem::take(&mut self.order);
        self.at(request.cost_weight).top_n(n, &mut order);
        self.order = order;
        Ok(())
    }

    /// The choice at any cost weight.
    pub fn at(&self, cost_weight: f64) -> Scan<'_> {
        let costs = Costs::Given(&self.costs);
        let mask = Some(self.allowed.words_from(0));
        Scan::new(&self.losses, costs, cost_weight, mask)
    }

    /// What every model costs, in index order.
    pub fn costs(&self) -> &[f64] {
        &self.costs
    }

    /// The models that were ranked, best first.
    pub fn candidates(&self) -> impl ExactSizeIterator<Item = Candidate> {
        self.order.iter().map(|&model| Candidate {
            model,
            loss: f64::from(self.losses[model as usize]),
            cost: self.costs[model as usize],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::centroids::Centroids;
    use crate::clusters::cluster_map::{ClusterMap, Head, Softmax};
    use crate::route::scratch::Scratch;
    use proptest::prelude::*;

    const DIM: usize = 4;

    /// Values of which many are equal, so that ties are common.
    fn values(n: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec((0u8..8).prop_map(|v| f32::from(v) / 8.0), n)
    }

    proptest! {
        #[test]
        fn the_ranking_is_the_order_of_the_rule(
            soft: bool,
            centroids in values(3 * DIM),
            prompt in values(DIM),
            (profiles, costs) in (1usize..400).prop_flat_map(|m| (values(3 * m), values(m))),
            cost_weight in prop::sample::select(vec![0.0, 0.3, 5.0]),
            n in 1usize..12,
            disabled in any::<prop::sample::Index>(),
        ) {
            let head = if soft {
                Head::Softmax(Softmax::new(&centroids, &[0.0; 3], 0.0).unwrap())
            } else {
                Head::Nearest(Centroids::new(&centroids, DIM).unwrap())
            };
            let empty = Snapshot::new(None, ClusterMap::new(vec![head]).unwrap()).unwrap();
            let names: Vec<String> = (0..costs.len()).map(|i| i.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let costs: Vec<f64> = costs.into_iter().map(f64::from).collect();
            let pool = empty.pool().with(&names, &costs, &profiles).unwrap();
            let pool = pool.with_enabled(names[disabled.index(names.len())], false).unwrap();
            let snapshot = empty.with_pool(pool);
            let (mut scratch, mut ranking) = (Scratch::default(), Ranking::default());
            let request = Request { cost_weight, ..Request::default() };
            let routed = snapshot.route_embedding(&prompt, &request, &mut scratch).unwrap();
            ranking.fill(&snapshot, scratch.phi(), &request, n).unwrap();
            let found: Vec<u32> = ranking.candidates().map(|c| c.model).collect();

            let mut gamma = vec![0.0; costs.len()];
            snapshot.gamma(scratch.phi(), &mut gamma);
            let enabled = snapshot.pool().enabled();
            let key = |m: &u32| {
                let at = *m as usize;
                (f64::from(gamma[at]) + cost_weight * costs[at], costs[at], *m)
            };
            let mut expected: Vec<u32> =
                (0..costs.len() as u32).filter(|&m| enabled.contains(m as usize)).collect();
            expected.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap());
            expected.truncate(n);
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(routed.choice.map(|c| c.model), found.first().copied());
        }
    }
}
