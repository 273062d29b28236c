//! The models that may answer one prompt, best first.

use crate::cluster_map::Phi;
use crate::hull::Candidate;
use crate::kernels::{Costs, Scan};
use crate::mask::Mask;
use crate::router::Snapshot;

/// Room for the ranking of one prompt; grows once, then is reused.
#[derive(Default)]
pub struct Ranking {
    losses: Vec<f32>,
    order: Vec<u32>,
}

impl Ranking {
    /// Ranks the `n` best of the models of `allowed` for a prompt's Phi: least predicted loss plus
    /// weighted cost first, ties by lower cost, then by lower index. The first one is the model
    /// that [`Snapshot::route_text`] chooses. `O(K M)`.
    pub fn fill(
        &mut self,
        snapshot: &Snapshot,
        phi: &Phi,
        cost_weight: f64,
        allowed: &Mask,
        n: usize,
    ) {
        let pool = snapshot.pool();
        self.losses.resize(pool.len(), 0.0);
        snapshot.gamma(phi, &mut self.losses);
        let costs = Costs::Given(pool.costs());
        let mask = Some(allowed.words_from(0));
        Scan::new(&self.losses, costs, cost_weight, mask).top_n(n, &mut self.order);
    }

    /// Predicted loss of every model, in index order.
    pub fn losses(&self) -> &[f32] {
        &self.losses
    }

    /// The models that were ranked last, best first. `snapshot` is the one that ranked them.
    pub fn candidates(&self, snapshot: &Snapshot) -> impl ExactSizeIterator<Item = Candidate> {
        self.order.iter().map(|&model| Candidate {
            model,
            loss: f64::from(self.losses[model as usize]),
            cost: snapshot.pool().costs()[model as usize],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::centroids::Centroids;
    use crate::cluster_map::{ClusterMap, Head, Softmax};
    use crate::router::{Request, Scratch};
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
            snapshot.locate_embedding(&prompt, &mut scratch).unwrap();
            let enabled = snapshot.pool().enabled();
            ranking.fill(&snapshot, scratch.phi(), cost_weight, enabled, n);
            let found: Vec<u32> = ranking.candidates(&snapshot).map(|c| c.model).collect();

            let key = |m: &u32| {
                let at = *m as usize;
                (f64::from(ranking.losses()[at]) + cost_weight * costs[at], costs[at], *m)
            };
            let mut expected: Vec<u32> =
                (0..costs.len() as u32).filter(|&m| enabled.contains(m as usize)).collect();
            expected.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap());
            expected.truncate(n);
            prop_assert_eq!(&found, &expected);

            let request = Request { cost_weight, ..Request::default() };
            let routed = snapshot.route_embedding(&prompt, &request, &mut scratch).unwrap();
            prop_assert_eq!(routed.choice.map(|c| c.model), found.first().copied());
        }
    }
}
