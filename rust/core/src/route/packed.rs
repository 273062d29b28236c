//! Who wins for many prompts at once that each belong to several clusters.
//!
//! One such prompt is answered by adding up the losses of all models. Many are answered by a pool
//! packed for the purpose, which rules almost all models out beforehand and gives the same winners,
//! bit for bit: see [`PackedPool`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clusters::cluster_map::Phi;
use crate::error::Result;
use crate::kernels::{PackedPool, Weights};
use crate::pool::Pool;
use crate::sys::fork;
use crate::sys::threads::Run;

/// Prompts, of one batch or of several, and models, from which packing the pool saves more time than
/// it takes: as much as some hundred to a thousand prompts take without it. With fewer models it saves
/// hardly any.
const MANY_PROMPTS: usize = 2048;
const MANY_MODELS: usize = 256;

/// The enabled models of a pool, packed.
pub struct Soft {
    packed: PackedPool,
    /// What the pool calls them.
    models: Vec<u32>,
}

impl Soft {
    /// `None` where there is nothing to pack.
    fn new(pool: &Pool) -> Option<Self> {
        let models: Vec<u32> = (0..pool.len() as u32)
            .filter(|&m| pool.enabled().contains(m as usize))
            .collect();
        let enabled = |m: usize| pool.enabled().contains(m);
        let mut psi = Vec::with_capacity(pool.clusters() * models.len());
        for k in 0..pool.clusters() {
            let losses = pool.profiles().row(k).enumerate();
            psi.extend(losses.filter(|&(m, _)| enabled(m)).map(|(_, loss)| loss));
        }
        let costs: Vec<f64> = models.iter().map(|&m| pool.costs()[m as usize]).collect();
        // What a pool holds was checked when it came in: no model at all is what can go wrong.
        let packed = PackedPool::new(&psi, &costs).ok()?;
        Some(Self { packed, models })
    }
}

/// A pool packed once so many prompts have come in batches that it is worth while.
#[derive(Default)]
pub struct LazySoft {
    packed: OnceLock<Option<Soft>>,
    /// Prompts that came before.
    prompts: AtomicUsize,
}

impl LazySoft {
    /// `pool` packed, which must be the one pool that this belongs to, for a batch of `prompts`.
    ///
    /// The call with which there are enough of them packs the pool; others do not wait for it.
    pub fn get(&self, pool: &Pool, prompts: usize) -> Option<&Soft> {
        if let Some(packed) = self.packed.get() {
            return packed.as_ref();
        }
        if pool.len() < MANY_MODELS {
            return None;
        }
        let before = self.prompts.fetch_add(prompts, Ordering::Relaxed);
        let enough = before < MANY_PROMPTS && before.saturating_add(prompts) >= MANY_PROMPTS;
        if enough {
            fork::once(&self.packed, || Soft::new(pool)).as_ref()
        } else {
            None
        }
    }
}

/// Prompts gathered to be answered together; grows once, then is reused.
#[derive(Default)]
pub struct Batch {
    /// [prompts, clusters], dense.
    phi: Vec<f32>,
    cost_weights: Vec<f64>,
    winners: Vec<u32>,
    losses: Vec<f32>,
}

impl Batch {
    /// Forgets all prompts.
    pub fn clear(&mut self) {
        self.phi.clear();
        self.cost_weights.clear();
    }

    /// Adds a prompt; `clusters` is the length of a dense Phi.
    pub fn push(&mut self, phi: &Phi, clusters: usize, cost_weight: f64) {
        let start = self.phi.len();
        self.phi.resize(start + clusters, 0.0);
        let row = &mut self.phi[start..];
        for (&k, &weight) in phi.clusters.iter().zip(&phi.weights) {
            row[k as usize] = weight;
        }
        self.cost_weights.push(cost_weight);
    }

    /// The winner of each prompt in the order in which they were added, and its predicted loss, on
    /// the calling thread.
    pub fn winners(&mut self, soft: &Soft) -> Result<impl Iterator<Item = (u32, f32)>> {
        let n = self.cost_weights.len();
        self.winners.resize(n, 0);
        self.losses.resize(n, 0.0);
        let weights = match &self.cost_weights[..] {
            [first, others @ ..] if others.iter().all(|w| w == first) => Weights::Same(*first),
            all => Weights::Each(all),
        };
        let here = Run {
            threads: 1,
            interrupted: &|| false,
        };
        let losses = Some(&mut self.losses[..]);
        let winners = &mut self.winners;
        (soft.packed).best(&self.phi, weights, 1, winners, losses, &here)?;
        let winners = winners.iter().map(|&at| soft.models[at as usize]);
        Ok(winners.zip(self.losses.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(models: usize) -> Pool {
        let names: Vec<String> = (0..models).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (costs, losses) = (vec![1.0; models], vec![0.5; 2 * models]);
        Pool::new(2).with(&names, &costs, &losses).unwrap()
    }

    #[test]
    fn a_pool_is_packed_by_the_batch_with_which_there_are_enough_prompts() {
        let (pool, lazy) = (pool(MANY_MODELS), LazySoft::default());
        for _ in 1..MANY_PROMPTS / 64 {
            assert!(lazy.get(&pool, 64).is_none());
        }
        assert!(lazy.get(&pool, 64).is_some());
        assert!(lazy.get(&pool, 1).is_some());
        assert!(LazySoft::default().get(&pool, MANY_PROMPTS).is_some());
    }

    #[test]
    fn a_small_pool_is_never_packed() {
        let lazy = LazySoft::default();
        assert!(lazy.get(&pool(MANY_MODELS - 1), 1 << 20).is_none());
    }
}
