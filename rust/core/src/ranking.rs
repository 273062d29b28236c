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
