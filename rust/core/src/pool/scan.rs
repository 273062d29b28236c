//! Who wins where every model is looked at: prompts of several clusters, constraints, costs that
//! depend on the prompt.

use crate::kernels::{Costs, Scan};
use crate::pool::hull::{Candidate, scan};
use crate::pool::mask::Mask;
use crate::pool::pool::Pool;
use crate::pool::table::STRIP;
use crate::pool::tokens::Metering;

/// Which models are looked at, and by what they are compared.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// How much a unit of cost weighs against a unit of loss.
    pub cost_weight: f64,
    /// The models that may answer.
    pub mask: &'a Mask,
    /// `None` where costs are the same for every prompt.
    pub metered: Option<Metered<'a>>,
}

/// Costs of one prompt, where models are charged by the token.
#[derive(Clone, Copy)]
pub struct Metered<'a> {
    /// What each model charges.
    pub metering: &'a Metering,
    /// Length of the prompt in tokens.
    pub tokens: u64,
    /// Models that cost more take no part.
    pub cap: f64,
}

impl Pool {
    /// The winner in `cluster` at `cost_weight`; see [`crate::kernels::key`] for the rule.
    /// O(log hull), O(models) where rounding decides. `None` if no model is enabled.
    pub fn choose(&self, cluster: usize, cost_weight: f64) -> Option<Candidate> {
        self.hull(cluster)
            .choose(cost_weight)
            .or_else(|| self.scan_cluster(cluster, cost_weight, self.enabled()))
    }

    /// The winner in `cluster` among the models of `mask`. O(models).
    pub fn scan_cluster(&self, cluster: usize, cost_weight: f64, mask: &Mask) -> Option<Candidate> {
        let scope = Scope {
            cost_weight,
            mask,
            metered: None,
        };
        self.scan(&scope, |strip, losses| {
            losses.copy_from_slice(&strip[cluster * STRIP..][..losses.len()]);
        })
    }

    /// The winner by the losses, and the tokens of answers, that `fill` writes for a strip of a table
    /// over clusters. O(models).
    pub fn scan(
        &self,
        scope: &Scope<'_>,
        fill: impl FnMut(&[f32], &mut [f32]),
    ) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        self.for_each_strip(scope, fill, |first, here| {
            // Most strips are passed over by their least objective.
            let limit = best.map_or(f64::INFINITY, |best| best.objective(scope.cost_weight));
            let winner = here
                .argmin_within(limit)
                .map(|at| candidate(here, first, at));
            best = scan(best.into_iter().chain(winner), scope.cost_weight);
        });
        best
    }

    /// The `n` best by the rule, best first, into `ranked`. O(models) for a few of them, O(models log
    /// models) for all.
    pub fn rank(
        &self,
        scope: &Scope<'_>,
        n: usize,
        ranked: &mut Vec<Candidate>,
        fill: impl FnMut(&[f32], &mut [f32]),
    ) {
        ranked.clear();
        let mut order = Vec::new();
        self.for_each_strip(scope, fill, |first, here| {
            here.top_n(n, &mut order);
            ranked.extend(order.iter().map(|&at| candidate(here, first, at)));
            if ranked.len() > n {
                best_first(ranked, scope.cost_weight);
                ranked.truncate(n);
            }
        });
        best_first(ranked, scope.cost_weight);
    }

    /// Hands every strip of models to `look`, with the index of its first model.
    fn for_each_strip(
        &self,
        scope: &Scope<'_>,
        mut fill: impl FnMut(&[f32], &mut [f32]),
        mut look: impl FnMut(u32, &Scan<'_>),
    ) {
        let (mut losses, mut tokens_out) = ([0.0; STRIP], [0.0; STRIP]);
        let mut usage = (scope.metered).map(|all| all.metering.output_tokens().strips());
        for (s, (psi, width)) in self.profiles().strips().enumerate() {
            let (first, losses) = (s * STRIP, &mut losses[..width]);
            fill(psi, losses);
            let bits = scope.mask.words_from(first);
            let mut payable = [0; STRIP / 64];
            let usage = usage.as_mut().and_then(Iterator::next);
            let here = if let (Some(metered), Some((usage, _))) = (&scope.metered, usage) {
                let tokens_out = &mut tokens_out[..width];
                fill(usage, tokens_out);
                let costs = metered.metering.costs(s, metered.tokens, tokens_out);
                let all = Scan::new(losses, costs, scope.cost_weight, Some(bits));
                if metered.cap < f64::INFINITY {
                    let pays = |&m: &usize| all.takes_part(m) && all.cost(m) <= metered.cap;
                    for m in (0..width).filter(pays) {
                        payable[m / 64] |= 1 << (m % 64);
                    }
                    Scan::new(losses, costs, scope.cost_weight, Some(&payable))
                } else {
                    all
                }
            } else {
                let costs = Costs::Given(&self.costs()[first..][..width]);
                Scan::new(losses, costs, scope.cost_weight, Some(bits))
            };
            look(first as u32, &here);
        }
    }
}

fn candidate(strip: &Scan<'_>, first: u32, at: u32) -> Candidate {
    Candidate {
        cost: strip.cost(at as usize),
        loss: strip.loss(at as usize),
        model: first + at,
    }
}

/// Sorts candidates by the rule.
fn best_first(candidates: &mut [Candidate], cost_weight: f64) {
    candidates.sort_unstable_by(|a, b| {
        let keys = (a.key(cost_weight), b.key(cost_weight));
        // Costs and losses are finite, so that no objective is NaN.
        keys.0
            .partial_cmp(&keys.1)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
}
