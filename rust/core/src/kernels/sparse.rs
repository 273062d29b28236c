//! Which LLMs a prompt's answer can be where few clusters count: their losses are added in float32,
//! without the others'.
//!
//! # The bound
//!
//! The *screening* value of an LLM is `s = sum_k phi_k psi_k + w (c - c_min)`, in float32 and with
//! fused roundings. Its objective by the definition is `o = f64(gamma) + w c`. Take `n` terms, and
//! `G = sum_k phi_k max_m |psi_km|`. Summing is off by at most `(n + 6) 2^-24 (G + w (c - c_min))`,
//! price and weight rounded included; so is the definition's own float32 sum; and its float64 part
//! by `2^-51 (G + w |c|)`. So `s` and `o - w c_min` differ by no more than
//!
//! ```text
//! D = 2 (n + 7) 2^-24 (G + w (c - c_min)) + 2^-51 w |c_min|
//! ```
//!
//! Let `b` be the LLM with the least `s`. The winner has `o <= o_b`, hence `s <= s_b + D + D_b`, and
//! neither of the two can have a `w (c - c_min)` above `|s_b| + 2 G` and what `D` allows. So
//!
//! ```text
//! s <= s_b + 5 (n + 7) 2^-24 (|s_b| + 3 G) + 2^-49 w |c_min|
//! ```
//!
//! holds for the winner; LLMs for which it does are the candidates.

use super::Kernels;
use super::aligned::Aligned;
use super::search::Candidate;

/// LLMs of a strip: its losses stay in L1 while the prompts of a block pass.
pub const WIDTH: usize = 128;

/// The clusters that count for each of several prompts.
#[derive(Default)]
pub struct Mixtures {
    clusters: Vec<u32>,
    weights: Vec<f32>,
    /// Where each prompt's end.
    ends: Vec<usize>,
}

impl Mixtures {
    /// Takes the entries above 0 of `phi`, row-major, `width` a prompt.
    pub fn fill(&mut self, phi: &[f32], width: usize) {
        self.clusters.resize(phi.len(), 0);
        self.weights.resize(phi.len(), 0.0);
        self.ends.clear();
        let mut end = 0;
        for phi in phi.chunks_exact(width) {
            for (cluster, &weight) in phi.iter().enumerate() {
                // Written always and kept if above 0: a branch here would be a coin toss.
                self.clusters[end] = cluster as u32;
                self.weights[end] = weight;
                end += usize::from(weight > 0.0);
            }
            self.ends.push(end);
        }
    }

    /// Clusters and weights of a prompt.
    pub fn of(&self, prompt: usize) -> (&[u32], &[f32]) {
        let first = if prompt == 0 {
            0
        } else {
            self.ends[prompt - 1]
        };
        let entries = first..self.ends[prompt];
        (&self.clusters[entries.clone()], &self.weights[entries])
    }
}

/// One prompt: the clusters that count for it, ascending, and what an LLM's price counts.
#[derive(Clone, Copy)]
pub struct Mixture<'a> {
    /// Clusters.
    pub clusters: &'a [u32],
    /// How much each counts, above 0.
    pub weights: &'a [f32],
    /// What the price counts.
    pub price_weight: f32,
}

/// What a prompt's costs count.
#[derive(Clone, Copy)]
pub struct PriceWeight {
    /// For costs.
    pub cost: f64,
    /// For prices.
    pub price: f32,
}

/// A strip as a kernel reads it.
#[derive(Clone, Copy)]
pub struct Strip<'a> {
    /// Losses, a row per cluster.
    pub losses: &'a [[f32; WIDTH]],
    /// Prices.
    pub prices: &'a [f32; WIDTH],
}

/// Profiles and prices in strips.
pub struct Strips {
    count: usize,
    clusters: usize,
    /// Strip after strip, each `[clusters, WIDTH]`; [`f32::MAX`] past the last LLM.
    losses: Aligned<f32>,
    prices: Aligned<f32>,
    /// Greatest magnitude of a loss.
    greatest: f64,
    /// Least cost: what price 0 stands for.
    least_cost: f64,
}

/// What is known of a prompt's answer so far.
#[derive(Clone, Copy)]
struct Known {
    least: f32,
    /// Least value that rules an LLM out.
    reach: f32,
}

/// Screening values of a strip.
#[repr(C, align(64))]
struct Values([f32; WIDTH]);

/// Scratch memory.
#[derive(Default)]
pub struct Screening {
    known: Vec<Known>,
}

impl Strips {
    /// Of `count` LLMs, whose losses in each cluster and prices are asked for one by one.
    pub fn new(
        count: usize,
        clusters: usize,
        least_cost: f64,
        loss: impl Fn(usize, usize) -> f32,
        price: impl Fn(usize) -> f64,
    ) -> Self {
        let strips = count.div_ceil(WIDTH);
        let mut losses = Aligned::new(f32::MAX, strips * clusters * WIDTH);
        let mut greatest = 0.0f32;
        for (row, losses) in losses.chunks_exact_mut(WIDTH).enumerate() {
            let (first, cluster) = (row / clusters * WIDTH, row % clusters);
            for (llm, out) in (first..count).zip(losses) {
                *out = loss(llm, cluster);
                greatest = greatest.max(out.abs());
            }
        }
        let mut prices = Aligned::new(0.0, strips * WIDTH);
        for (llm, out) in prices[..count].iter_mut().enumerate() {
            *out = price(llm) as f32;
        }
        Self {
            count,
            clusters,
            losses,
            prices,
            greatest: f64::from(greatest),
            least_cost,
        }
    }

    /// Finds the candidates of each prompt, in ascending order of index, into the empty lists given.
    pub fn find(
        &self,
        kernels: &Kernels,
        mixtures: &Mixtures,
        weights: &[PriceWeight],
        screening: &mut Screening,
        candidates: &mut [Vec<Candidate>],
    ) {
        let unknown = Known {
            least: f32::INFINITY,
            reach: f32::INFINITY,
        };
        screening.known.clear();
        screening.known.resize(weights.len(), unknown);
        let losses = self.losses.as_chunks::<WIDTH>().0;
        let prices = self.prices.as_chunks::<WIDTH>().0;
        let strips = losses.chunks_exact(self.clusters).zip(prices);
        let Values(values) = &mut Values([0.0; WIDTH]);
        for (s, (losses, prices)) in strips.enumerate() {
            let strip = Strip { losses, prices };
            let rows = weights
                .iter()
                .zip(&mut screening.known)
                .zip(&mut *candidates);
            for (i, ((weight, known), candidates)) in rows.enumerate() {
                let (clusters, phi) = mixtures.of(i);
                let mixture = Mixture {
                    clusters,
                    weights: phi,
                    price_weight: weight.price,
                };
                let least = (kernels.screen)(&mixture, &strip, values);
                if least > known.reach {
                    continue;
                }
                if least < known.least {
                    let reach = self.reach(least, phi, weight.cost);
                    *known = Known { least, reach };
                }
                let llms = (s * WIDTH..self.count).zip(&*values);
                let reaching = llms.filter(|&(_, &value)| value <= known.reach);
                candidates.extend(reaching.map(|(llm, &value)| (llm as u32, value)));
            }
        }
        for (candidates, known) in candidates.iter_mut().zip(&screening.known) {
            candidates.retain(|&(_, value)| value <= known.reach);
        }
    }

    /// See the module's documentation.
    fn reach(&self, least: f32, phi: &[f32], cost_weight: f64) -> f32 {
        let terms = phi.len() as f64;
        let sum: f64 = phi.iter().map(|&v| f64::from(v)).sum();
        let least = f64::from(least);
        let magnitude = least.abs() + 3.0 * sum * self.greatest;
        let reach = least
            + 5.0 * (terms + 7.0) * 2f64.powi(-24) * magnitude
            + 2f64.powi(-49) * cost_weight * self.least_cost.abs();
        (reach as f32).next_up()
    }
}
