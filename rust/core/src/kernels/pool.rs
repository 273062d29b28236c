//! Who wins among all LLMs for many prompts, each a mixture of clusters: the least
//! `Phi . Psi + cost_weight * cost`, without ever holding prompts x LLMs.

use std::cell::RefCell;
use std::sync::OnceLock;

use super::packed::{LANES, OwnOffsets, Packed, Row, power_for};
use super::search::{Candidate, Search};
use super::sparse::{Mixtures, PriceWeight, Screening, Strips};
use super::{Costs, Isa, Kernels, Scan, isa};
use crate::error::{Error, Result};
use crate::sys::threads::Run;

/// Multiplications worth a task of its own: some tenths of a millisecond.
const TASK_WORK: usize = 1 << 24;

/// Profiles beyond this are not packed: float32 scores might overflow.
const PROFILE_LIMIT: f32 = (1u64 << 40) as f32;

/// Cost weights, in units of the costs' scale, beyond which the same holds.
const WEIGHT_LIMIT: f64 = (1u64 << 40) as f64;

/// Prompts below which it is not worth adding costs to biases beforehand.
const FEW: usize = 16;

/// Cost weights of a batch.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    /// The same for every prompt.
    Same(f64),
    /// One per prompt.
    Each(&'a [f64]),
}

impl Weights<'_> {
    fn at(&self, row: usize) -> f64 {
        match self {
            Self::Same(weight) => *weight,
            Self::Each(weights) => weights[row],
        }
    }
}

/// The profiles and costs of a pool, packed for prompts that belong to several clusters.
///
/// The answer is that of the definition, bit for bit: `gamma` is summed as
/// [`super::weighted_rows`] does, and the choice is that of [`Scan`]. It is found as the nearest
/// centroid is: a low-precision product with a certified bound rules out almost all LLMs, and what
/// is left is computed by the definition. What is packed of a profile is what the choice depends
/// on: `Psi[k, m] = mu[k] + a[m] + e[k, m]`, where `mu` is the same for all LLMs and drops out, `a`
/// is the LLM's mean, which counts in full precision, and `e` is quantised. Where few clusters count,
/// [`super::sparse`] rules LLMs out instead.
///
/// Beside the bound of [`super::packed`], the definition's own rounding counts: float32 sums of `K`
/// products are off by at most `(K + 1) 2^-24 |Phi| |Psi_m|`.
pub struct PackedPool {
    clusters: usize,
    /// Row-major `M x K`: a candidate's profile in one place.
    profiles: Vec<f32>,
    costs: Vec<f64>,
    kernels: &'static Kernels,
    /// LLMs in the order in which they are packed, that of their mean loss: then those that stand
    /// no chance stand together.
    order: Vec<u32>,
    /// `-a`, in that order.
    levels: Vec<f64>,
    greatest_level: f64,
    /// Of the packed prices: `price = -(cost - least) * price_scale`.
    price_scale: f64,
    packed: Option<Packed>,
    /// The same LLMs in the same order, for prompts of few clusters.
    strips: Option<Strips>,
    /// See [`Self::sharpen`].
    evenness: f64,
    rounding: f64,
}

thread_local! {
    /// Scratch memory of single prompts.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    search: Search,
    mixtures: Mixtures,
    screening: Screening,
    price_weights: Vec<PriceWeight>,
    indices: Vec<u32>,
    gamma: Vec<f32>,
    costs: Vec<f64>,
    order: Vec<u32>,
}

impl PackedPool {
    /// Packs profiles `psi`, row-major `K x M`, and `costs`, one per LLM, for the instruction set in
    /// use.
    ///
    /// [`Error::InvalidArgument`] if there is no LLM or no cluster, the shapes do not match, or a
    /// value is not finite; [`Error::UnsupportedIsa`] if `UNIROUTE_ISA` cannot be honoured. `O(K M)`.
    pub fn new(psi: &[f32], costs: &[f64]) -> Result<Self> {
        Self::with_isa(psi, costs, isa()?)
    }

    /// As [`Self::new`], for an instruction set of the caller's choice.
    pub fn with_isa(psi: &[f32], costs: &[f64], isa: Isa) -> Result<Self> {
        Self::with_kernels(psi, costs, Kernels::of(isa)?)
    }

    /// As [`Self::with_isa`], with a table that need not be one of an instruction set.
    pub(super) fn with_kernels(
        psi: &[f32],
        costs: &[f64],
        kernels: &'static Kernels,
    ) -> Result<Self> {
        let m = costs.len();
        if m == 0 || psi.is_empty() || !psi.len().is_multiple_of(m) {
            return Err(Error::invalid(
                "psi",
                format!("{} values for {m} LLMs", psi.len()),
                "one or more rows of one value per LLM, at least one LLM",
            ));
        }
        if let Some(at) = psi.iter().position(|v| !v.is_finite()) {
            let problem = format!("{} for cluster {}, LLM {}", psi[at], at / m, at % m);
            return Err(Error::invalid("psi", problem, "finite values"));
        }
        if let Some(at) = costs.iter().position(|v| !v.is_finite()) {
            let problem = format!("{} for LLM {at}", costs[at]);
            return Err(Error::invalid("costs", problem, "finite values"));
        }
        let clusters = psi.len() / m;
        let mut profiles = vec![0.0; psi.len()];
        for (k, row) in psi.chunks_exact(m).enumerate() {
            for (m, &loss) in row.iter().enumerate() {
                profiles[m * clusters + k] = loss;
            }
        }
        let mut pool = Self {
            clusters,
            profiles,
            costs: costs.to_vec(),
            kernels,
            order: (0..m as u32).collect(),
            levels: Vec::with_capacity(m),
            greatest_level: 0.0,
            price_scale: 1.0,
            packed: None,
            strips: None,
            evenness: 0.0,
            rounding: 0.0,
        };
        if psi.iter().all(|v| v.abs() <= PROFILE_LIMIT) {
            pool.pack(psi);
        }
        Ok(pool)
    }

    fn pack(&mut self, psi: &[f32]) {
        let (m, clusters) = (self.costs.len(), self.clusters);
        let (least, most) = self
            .costs
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &c| {
                (least.min(c), most.max(c))
            });
        let range = most - least;
        self.price_scale = f64::from(power_for(range));
        if range * self.price_scale > 2.0 {
            return; // No power of two of float32 brings such prices near 1.
        }
        let Some(mut packed) = Packed::empty(m, clusters, self.kernels.pool_precision) else {
            return;
        };
        let mean = |row: &[f32]| row.iter().map(|&v| f64::from(v)).sum::<f64>() / m as f64;
        let means: Vec<f64> = psi.chunks_exact(m).map(mean).collect();
        let k = clusters as f64;
        let total = |m: u32| -> f64 { self.profile(m).iter().map(|&v| f64::from(v)).sum() };
        let totals: Vec<f64> = (0..m as u32).map(total).collect();
        self.order
            .sort_by(|&i, &j| totals[i as usize].total_cmp(&totals[j as usize]));
        let mut e = vec![0.0; clusters];
        for (at, &m) in self.order.iter().enumerate() {
            let profile = &self.profiles[m as usize * clusters..][..clusters];
            let mut squares = 0.0;
            for ((e, &loss), mean) in e.iter_mut().zip(profile).zip(&means) {
                squares += f64::from(loss) * f64::from(loss);
                *e = mean - f64::from(loss);
            }
            let level = e.iter().sum::<f64>() / k;
            for e in &mut e {
                *e -= level;
            }
            // The definition's rounding, and that of the subtractions here.
            let rounding = (k + 2.0) * squares.sqrt() * 2f64.powi(-24)
                + (level.abs() * k.sqrt() + squares.sqrt()) * 2f64.powi(-50);
            let residual = packed.put(at, &e, level, rounding);
            if residual.norm > 0.0 {
                self.evenness = self.evenness.max(residual.farthest / residual.norm);
            }
            self.rounding = self.rounding.max(residual.rounding);
            self.levels.push(level);
            self.greatest_level = self.greatest_level.max(level.abs());
        }
        let price = |&m: &u32| -(self.costs[m as usize] - least) * self.price_scale;
        packed.set_prices(self.order.iter().map(price));
        self.strips = Some(Strips::new(
            m,
            clusters,
            least,
            |at, k| self.profile(self.order[at])[k],
            |at| -price(&self.order[at]),
        ));
        self.packed = Some(packed);
    }

    /// Number of LLMs, `M`.
    #[allow(clippy::len_without_is_empty)] // There is always one.
    pub fn len(&self) -> usize {
        self.costs.len()
    }

    /// Number of clusters, `K`.
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// The instruction set that answers.
    pub fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// Finds the `best` first LLMs of every prompt, best first, into `winners` (row-major
    /// `N x best`), and their predicted losses into `losses` if given.
    ///
    /// `phi` is row-major `N x K`, finite and not negative. [`Error::InvalidArgument`] if shapes do
    /// not match, `best` is not from 1 to `M`, or a value is out of range. `O(N K M)`; memory beside
    /// the results does not grow with `N M`. For `best` above 16 nothing is ruled out beforehand.
    pub fn best(
        &self,
        phi: &[f32],
        cost_weights: Weights<'_>,
        best: usize,
        winners: &mut [u32],
        losses: Option<&mut [f32]>,
        run: &Run<'_>,
    ) -> Result<()> {
        let n = phi.len() / self.clusters;
        self.check(phi, cost_weights, best, winners.len())?;
        let sparse = best == 1 && self.is_sparse(phi);
        let rows = self.block(sparse);
        let step = (TASK_WORK / self.profiles.len())
            .max(1)
            .next_multiple_of(rows);
        let losses: Vec<_> = match losses {
            None => (0..n.div_ceil(step)).map(|_| None).collect(),
            Some(losses) if losses.len() == winners.len() => {
                losses.chunks_mut(step * best).map(Some).collect()
            }
            Some(losses) => {
                let found = format!("{} values", losses.len());
                return Err(Error::invalid(
                    "losses",
                    found,
                    format!("{}", winners.len()),
                ));
            }
        };
        let shared = OnceLock::new();
        let shared = || {
            let shared = shared.get_or_init(|| self.shared_offsets(phi, cost_weights));
            shared.as_ref()
        };
        let phi = phi.chunks(step * self.clusters);
        let tasks: Vec<_> = phi
            .zip(winners.chunks_mut(step * best))
            .zip(losses)
            .collect();
        let tasks = tasks.into_iter().enumerate();
        run.for_each(
            tasks,
            Scratch::default,
            |scratch, (t, ((phi, winners), mut losses))| {
                for (block, phi) in phi.chunks(rows * self.clusters).enumerate() {
                    let first = block * rows;
                    let weight = |i: usize| cost_weights.at(t * step + first + i);
                    if sparse {
                        self.find_sparse(scratch, phi, &weight);
                    } else {
                        self.find(scratch, phi, &weight, &shared, best);
                    }
                    for i in 0..phi.len() / self.clusters {
                        self.resolve(scratch, i, weight(i), best);
                        let at = (first + i) * best;
                        winners[at..][..best].copy_from_slice(&scratch.order);
                        if let Some(losses) = &mut losses {
                            for (loss, &m) in losses[at..][..best].iter_mut().zip(&scratch.order) {
                                *loss = self.gamma(scratch.mixtures.of(i), [m])[0];
                            }
                        }
                    }
                }
                Ok(())
            },
        )
    }

    /// The winner for one prompt and its predicted loss; `phi` as in [`Self::best`]. Allocates
    /// nothing once the calling thread has been here.
    pub fn best_one(&self, phi: &[f32], cost_weight: f64) -> Result<(u32, f32)> {
        self.check(phi, Weights::Same(cost_weight), 1, 1)?;
        SCRATCH.with_borrow_mut(|scratch| {
            if self.is_sparse(phi) {
                self.find_sparse(scratch, phi, &|_| cost_weight);
            } else {
                self.find(scratch, phi, &|_| cost_weight, &|| None, 1);
            }
            self.resolve(scratch, 0, cost_weight, 1);
            let m = scratch.order[0];
            Ok((m, self.gamma(scratch.mixtures.of(0), [m])[0]))
        })
    }

    /// How many LLMs the bound leaves to compute by the definition, for each prompt.
    pub fn count_candidates(&self, phi: &[f32], cost_weights: Weights<'_>) -> Result<Vec<u32>> {
        self.check(phi, cost_weights, 1, phi.len() / self.clusters)?;
        let mut scratch = Scratch::default();
        let mut counts = Vec::new();
        let sparse = self.is_sparse(phi);
        let rows = self.block(sparse);
        let shared = self.shared_offsets(phi, cost_weights);
        for (block, phi) in phi.chunks(rows * self.clusters).enumerate() {
            let weight = |i: usize| cost_weights.at(block * rows + i);
            if sparse {
                self.find_sparse(&mut scratch, phi, &weight);
            } else {
                self.find(&mut scratch, phi, &weight, &|| shared.as_ref(), 1);
            }
            let found = &scratch.search;
            counts.extend(
                (0..phi.len() / self.clusters)
                    .map(|i| found.candidates(i).map_or(self.len(), <[Candidate]>::len) as u32),
            );
        }
        Ok(counts)
    }

    fn check(&self, phi: &[f32], weights: Weights<'_>, best: usize, out: usize) -> Result<()> {
        let n = phi.len() / self.clusters;
        if !phi.len().is_multiple_of(self.clusters) {
            let expected = format!("rows of {} values", self.clusters);
            return Err(Error::invalid(
                "phi",
                format!("{} values", phi.len()),
                expected,
            ));
        }
        let fine = |v: &f32| v.is_finite() && *v >= 0.0;
        // All at once first: a search for the culprit stops the compiler from using vectors.
        if !phi.iter().fold(true, |all, v| all & fine(v))
            && let Some(at) = phi.iter().position(|v| !fine(v))
        {
            let problem = format!("{} in row {}", phi[at], at / self.clusters);
            return Err(Error::invalid("phi", problem, "finite values, 0 or more"));
        }
        if best == 0 || best > self.len() {
            return Err(Error::invalid(
                "best",
                best.to_string(),
                format!("1 to {}", self.len()),
            ));
        }
        if out != n * best {
            let expected = format!("{best} for each of {n} rows");
            return Err(Error::invalid("winners", format!("{out} values"), expected));
        }
        let given = match weights {
            Weights::Same(_) => n,
            Weights::Each(weights) => weights.len(),
        };
        if given != n {
            let expected = format!("one per row, {n}");
            return Err(Error::invalid(
                "cost_weights",
                format!("{given} values"),
                expected,
            ));
        }
        match (0..n)
            .map(|i| weights.at(i))
            .find(|w| !(w.is_finite() && *w >= 0.0))
        {
            Some(weight) => Err(Error::invalid(
                "cost_weights",
                weight.to_string(),
                "finite values, 0 or more",
            )),
            None => Ok(()),
        }
    }

    /// Where all prompts have one cost weight: biases that hold the levels and the costs, for
    /// prompts whose Phi sums to what the first one's does (see [`Self::find`] for the others).
    fn shared_offsets(&self, phi: &[f32], weights: Weights<'_>) -> Option<SharedOffsets> {
        let (Weights::Same(cost_weight), Some(packed)) = (weights, &self.packed) else {
            return None;
        };
        let price_weight = cost_weight / self.price_scale;
        if phi.len() < FEW * self.clusters || price_weight > WEIGHT_LIMIT {
            return None;
        }
        let sum = sum(&phi[..self.clusters]);
        let least = self
            .costs
            .iter()
            .fold(f64::INFINITY, |least, &c| least.min(c));
        let biases = self
            .levels
            .iter()
            .zip(&self.order)
            .map(|(level, &m)| sum * level - cost_weight * (self.costs[m as usize] - least));
        Some(SharedOffsets {
            sum,
            own: packed.rebias(biases),
        })
    }

    /// Looks for the candidates of a block of prompts.
    fn find<'s>(
        &self,
        scratch: &mut Scratch,
        phi: &[f32],
        cost_weight: &dyn Fn(usize) -> f64,
        shared: &dyn Fn() -> Option<&'s SharedOffsets>,
        best: usize,
    ) {
        let n = phi.len() / self.clusters;
        let Scratch {
            search, mixtures, ..
        } = scratch;
        mixtures.fill(phi, self.clusters);
        let weights_fit = |i| cost_weight(i) / self.price_scale <= WEIGHT_LIMIT;
        let Some(packed) = self
            .packed
            .as_ref()
            .filter(|_| best <= LANES && best < self.len() && (0..n).all(weights_fit))
        else {
            return search.give_up(n);
        };
        let shared = shared();
        search.quantise(self.kernels, packed, phi, self.clusters);
        let sums = phi.chunks_exact(self.clusters).map(sum);
        for (i, (row, sum)) in search.rows_mut().iter_mut().zip(sums).enumerate() {
            self.sharpen(row, sum);
            if let Some(shared) = shared {
                let off = (sum - shared.sum).abs() * self.greatest_level;
                row.slack += (off as f32).next_up();
            } else {
                row.bias_weight = sum as f32;
                row.price_weight = (cost_weight(i) / self.price_scale) as f32;
            }
        }
        let offsets = shared.map_or(packed.offsets(), |shared| shared.own.offsets());
        search.find(self.kernels, packed, offsets, best, &[]);
    }

    /// As [`Self::find`], by the losses of the clusters that count.
    fn find_sparse(&self, scratch: &mut Scratch, phi: &[f32], cost_weight: &dyn Fn(usize) -> f64) {
        let n = phi.len() / self.clusters;
        let Scratch {
            search,
            mixtures,
            screening,
            price_weights,
            ..
        } = scratch;
        mixtures.fill(phi, self.clusters);
        price_weights.clear();
        price_weights.extend((0..n).map(|i| PriceWeight {
            cost: cost_weight(i),
            price: (cost_weight(i) / self.price_scale) as f32,
        }));
        let fit = |weight: &PriceWeight| f64::from(weight.price) <= WEIGHT_LIMIT;
        match &self.strips {
            Some(strips) if price_weights.iter().all(fit) => {
                let lists = search.lists(n);
                strips.find(self.kernels, mixtures, price_weights, screening, lists);
            }
            _ => search.give_up(n),
        }
    }

    /// Whether adding the losses of the clusters that count takes less time than a product over all.
    /// A product of int8 takes a quarter of an addition of float32, one of int16 a half; what comes
    /// after a product is worth some eight more.
    fn is_sparse(&self, phi: &[f32]) -> bool {
        let entries = phi.iter().filter(|&&v| v > 0.0).count();
        let products = self.clusters / self.kernels.pool_precision.per_word();
        entries < phi.len() / self.clusters * (products + 8)
    }

    /// Prompts looked at together.
    fn block(&self, sparse: bool) -> usize {
        if sparse { 512 } else { self.kernels.block }
    }

    /// A better bound where few clusters count: `|y'.r| <= |y'|_1 max|r|` beside the
    /// `|y'|_2 |r|_2` of [`super::packed`]. As `max|r| <= evenness |r|_2` for all LLMs, it is as if
    /// the row were shorter; except in the rounding, which is moved to the slack.
    fn sharpen(&self, row: &mut Row, sum: f64) {
        // |y'|_1 <= |y|_1 + |r|_1, and |r|_1 <= sqrt(K) |r|_2.
        let sum = sum + (self.clusters as f64).sqrt() * f64::from(row.residual);
        let shorter = (sum * self.evenness * (1.0 + 2f64.powi(-20))) as f32;
        if shorter < row.norm {
            let rounding = f64::from(row.norm) * self.rounding * (1.0 + 2f64.powi(-20));
            row.slack += (rounding as f32).next_up();
            row.norm = shorter.next_up();
        }
    }

    /// The best of a prompt's candidates, by the definition, into `scratch.order`.
    fn resolve(&self, scratch: &mut Scratch, i: usize, weight: f64, best: usize) {
        let Scratch {
            search,
            mixtures,
            indices,
            gamma,
            costs,
            order,
            ..
        } = scratch;
        let mixture = mixtures.of(i);
        indices.clear();
        match search.candidates(i) {
            Some(&[(only, _)]) => {
                order.clear();
                order.push(self.order[only as usize]);
                return;
            }
            Some(candidates) => {
                indices.extend(candidates.iter().map(|&(at, _)| self.order[at as usize]));
                indices.sort_unstable();
            }
            None => indices.extend(0..self.len() as u32),
        }
        costs.clear();
        costs.extend(indices.iter().map(|&m| self.costs[m as usize]));
        gamma.clear();
        let (eights, rest) = indices.as_chunks::<8>();
        gamma.extend(eights.iter().flat_map(|&eight| self.gamma(mixture, eight)));
        let (pairs, rest) = rest.as_chunks::<2>();
        gamma.extend(pairs.iter().flat_map(|&pair| self.gamma(mixture, pair)));
        gamma.extend(rest.iter().map(|&m| self.gamma(mixture, [m])[0]));
        Scan::new(gamma, Costs::Given(costs), weight, None).top_n(best, order);
        for at in order {
            *at = indices[*at as usize];
        }
    }

    fn profile(&self, m: u32) -> &[f32] {
        &self.profiles[m as usize * self.clusters..][..self.clusters]
    }

    /// Predicted losses of some LLMs, as [`super::weighted_rows`] sums them: clusters whose weight is
    /// 0 would add zeros to sums that start at 0. Several LLMs at a time, because one sum waits for
    /// itself.
    fn gamma<const N: usize>(&self, mixture: (&[u32], &[f32]), llms: [u32; N]) -> [f32; N] {
        let profiles = llms.map(|m| self.profile(m));
        let mut sums = [0.0; N];
        for (&k, &phi) in mixture.0.iter().zip(mixture.1) {
            for (sum, profile) in sums.iter_mut().zip(&profiles) {
                *sum += phi * profile[k as usize];
            }
        }
        sums
    }
}

/// See [`PackedPool::shared_offsets`].
struct SharedOffsets {
    sum: f64,
    own: OwnOffsets,
}

fn sum(phi: &[f32]) -> f64 {
    phi.iter().map(|&v| f64::from(v)).sum()
}
