//! Who wins among all LLMs for one prompt, where no hull can answer: constraints, costs of the
//! request's own, predicted losses of the prompt's own.

use std::cmp::Ordering;
use std::ops::Range;

use super::Kernels;

/// What each LLM costs for the prompt at hand. Scans are faster where each array starts a cache
/// line, as [`Aligned`](super::Aligned) ones do.
#[derive(Clone, Copy)]
pub enum Costs<'a> {
    /// One cost per LLM.
    Given(&'a [f64]),
    /// `(in_prices[m] * tokens_in + out_prices[m] * f64(tokens_out[m])) + base[m]`: two float64
    /// multiplications and two additions.
    Metered {
        /// What a call costs whatever its tokens, one per LLM.
        base: &'a [f64],
        /// Price of a token of the prompt, one per LLM.
        in_prices: &'a [f64],
        /// Price of a token of the answer, one per LLM.
        out_prices: &'a [f64],
        /// Tokens of the prompt.
        tokens_in: f64,
        /// Tokens that each LLM's answer is expected to have, in the prompt's cluster.
        tokens_out: &'a [f32],
        /// The prices once more, rounded down, if they are to be looked at first.
        rough: Option<Rough<'a>>,
    },
}

/// Prices of [`Costs::Metered`], each [rounded down](round_down): most LLMs lose by these already, and
/// reading half the bytes takes half the time. Neither prices nor tokens may be negative.
#[derive(Clone, Copy)]
pub struct Rough<'a> {
    /// See [`Costs::Metered`].
    pub base: &'a [f32],
    /// See [`Costs::Metered`].
    pub in_prices: &'a [f32],
    /// See [`Costs::Metered`].
    pub out_prices: &'a [f32],
}

/// The greatest float32 that is not above `value`, a number that is not negative.
pub fn round_down(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value {
        near.next_down()
    } else {
        near
    }
}

/// What a kernel computes rough objectives from: `gamma + cost_weight * cost` in float32, fused or
/// not, where a cost is at most [`f32::MAX`].
///
/// # The bound
///
/// The cost weight is made smaller by a factor `1 - 2^-20`. A rough cost is the true one of prices
/// that are not greater, rounded up to five times with its weight, each time by a factor of at most
/// `1 + 2^-24` and, where it underflows, `2^-149`; so the weighted rough cost is at most the true one,
/// and `cost_weight * 2^-146`. Adding `gamma` rounds once more. What is left of the least rough
/// objective after [`Self::certain`] is therefore at most the least true one, whose own rounding in
/// float64 is covered by the same margins.
///
/// Only [`Scan::rough`] makes one: so every array has one value per LLM of `scan`.
#[derive(Clone, Copy)]
pub(crate) struct RoughScan<'a> {
    scan: Scan<'a>,
    prices: Rough<'a>,
    tokens_in: f32,
    tokens_out: &'a [f32],
    cost_weight: f32,
}

impl<'a> RoughScan<'a> {
    /// What it is a rough look at.
    #[inline]
    pub(super) fn scan(&self) -> &Scan<'a> {
        &self.scan
    }

    /// Predicted losses, prices, and expected tokens, one of each per LLM.
    #[inline]
    pub(super) fn arrays(&self) -> (&'a [f32], Rough<'a>, &'a [f32]) {
        (self.scan.gamma, self.prices, self.tokens_out)
    }

    /// Tokens of the prompt, and the cost weight.
    #[inline]
    pub(super) fn factors(&self) -> (f32, f32) {
        (self.tokens_in, self.cost_weight)
    }

    /// The rough objective of one LLM.
    #[inline]
    pub fn objective(&self, m: usize) -> f32 {
        let Rough {
            base,
            in_prices,
            out_prices,
        } = self.prices;
        let cost = in_prices[m] * self.tokens_in + out_prices[m] * self.tokens_out[m] + base[m];
        self.scan.gamma[m] + self.cost_weight * cost.min(f32::MAX)
    }

    /// What no objective is below where no rough one is below `least`.
    fn certain(&self, least: f32) -> f64 {
        let least = f64::from(least.min(f32::MAX));
        let underflow = (f64::from(self.cost_weight) + 1.0) * 2f64.powi(-140);
        least - least.abs() * 2f64.powi(-22) - underflow
    }
}

/// One prompt's choice among `M` LLMs, by [`key`]. LLMs whose objective is NaN never win.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    gamma: &'a [f32],
    costs: Costs<'a>,
    cost_weight: f64,
    mask: Option<&'a [u64]>,
}

/// LLMs whose objectives are computed at a time: they stay in L1.
const CHUNK: usize = 256;

/// One bit for each LLM of a chunk.
pub(crate) type Bits = [u64; CHUNK / 64];

/// Chunks whose floors are found before any is looked into.
const FLOORS: usize = 64;

/// Objective, cost, index: see [`key`].
pub type Key = (f64, f64, u32);

/// The rule by which models are chosen: the one with the least key wins. Its objective is `loss +
/// cost_weight * cost`, a float64 multiplication and then an addition; ties go to the lower cost,
/// then to the lower index.
#[inline]
pub fn key(loss: f64, cost: f64, model: u32, cost_weight: f64) -> Key {
    (loss + cost_weight * cost, cost, model)
}

impl<'a> Scan<'a> {
    /// A choice by predicted losses `gamma`.
    ///
    /// `mask`, if given, holds one bit per LLM, least significant bit first: only LLMs whose bit is
    /// set take part.
    ///
    /// # Panics
    /// If costs, prices or expected tokens are not as many as `gamma` has values, or `mask` is
    /// shorter.
    pub fn new(
        gamma: &'a [f32],
        costs: Costs<'a>,
        cost_weight: f64,
        mask: Option<&'a [u64]>,
    ) -> Self {
        let m = gamma.len();
        let fits = match costs {
            Costs::Given(costs) => costs.len() == m,
            Costs::Metered {
                base,
                in_prices,
                out_prices,
                tokens_out,
                rough,
                ..
            } => {
                let exact = [base.len(), in_prices.len(), out_prices.len()];
                let lengths = |r: Rough<'_>| [r.base, r.in_prices, r.out_prices].map(<[f32]>::len);
                tokens_out.len() == m && [exact, rough.map_or(exact, lengths)] == [[m; 3]; 2]
            }
        };
        assert!(fits, "costs: one per LLM");
        assert!(
            mask.is_none_or(|mask| mask.len() >= m.div_ceil(64)),
            "mask: one bit per LLM"
        );
        Self {
            gamma,
            costs,
            cost_weight,
            mask,
        }
    }

    /// The winner; `None` if no LLM takes part. `O(M)`.
    pub fn argmin(&self) -> Option<u32> {
        self.argmin_within(f64::INFINITY)
    }

    /// The winner if its objective is at most `limit`, else `None`. `O(M)`.
    pub fn argmin_within(&self, limit: f64) -> Option<u32> {
        self.argmin_by(Kernels::active(), limit)
    }

    /// As [`Self::argmin_within`], by one table.
    pub(super) fn argmin_by(&self, kernels: &Kernels, limit: f64) -> Option<u32> {
        let mut best = None;
        for first in (0..self.len()).step_by(CHUNK * FLOORS) {
            let last = self.len().min(first + CHUNK * FLOORS);
            let chunks = (first..last).step_by(CHUNK);
            let mut floors = [f64::NEG_INFINITY; FLOORS];
            if let Some(rough) = self.rough() {
                for (floor, first) in floors.iter_mut().zip(chunks.clone()) {
                    let llms = CHUNK.min(last - first);
                    *floor = rough.certain((kernels.rough_least)(&rough, first, llms));
                }
            }
            // The most promising first: by what is found there, most others are passed over.
            let floors = &floors[..chunks.len()];
            let lower = |&i: &usize, &j: &usize| floors[i].total_cmp(&floors[j]);
            let promising = (0..floors.len()).min_by(lower).unwrap_or(0);
            let others = (0..floors.len()).filter(|&chunk| chunk != promising);
            for chunk in std::iter::once(promising).chain(others) {
                let reach = best.map_or(limit, |best: Key| best.0);
                if floors[chunk] <= reach {
                    let first = first + chunk * CHUNK;
                    self.look_into(kernels, first..last.min(first + CHUNK), reach, &mut best);
                }
            }
        }
        best.map(|(_, _, m)| m)
    }

    /// Makes the winner of a chunk the best if it is better, and its objective at most `reach`.
    fn look_into(&self, kernels: &Kernels, llms: Range<usize>, reach: f64, best: &mut Option<Key>) {
        let least = (kernels.least)(self, llms.start, llms.len());
        if reach < least {
            return;
        }
        let equal = (kernels.equal)(self, llms.start, llms.len(), least);
        for (first, mut bits) in llms.step_by(64).zip(equal) {
            while bits != 0 {
                let key = self.key(first as u32 + bits.trailing_zeros());
                if best.is_none_or(|best| key < best) {
                    *best = Some(key);
                }
                bits &= bits - 1;
            }
        }
    }

    /// The `n` first LLMs in the order in which they would win, best first, into `out` (which is
    /// cleared); fewer if fewer take part. `O(M + n log(M) n)` for objectives in random order,
    /// `O(M log M)` for many of them.
    pub fn top_n(&self, n: usize, out: &mut Vec<u32>) {
        out.clear();
        if n >= self.len() / 4 {
            let wins =
                |&m: &u32| self.takes_part(m as usize) && !self.objective(m as usize).is_nan();
            out.extend((0..self.len() as u32).filter(wins));
            let keys = |a: &u32, b: &u32| self.key(*a).partial_cmp(&self.key(*b));
            out.sort_unstable_by(|a, b| keys(a, b).unwrap_or(Ordering::Equal));
            out.truncate(n);
            return;
        }
        let mut objectives = [0.0; CHUNK];
        let mut last = f64::INFINITY;
        for first in (0..self.gamma.len()).step_by(CHUNK) {
            let objectives = &mut objectives[..CHUNK.min(self.gamma.len() - first)];
            (Kernels::active().objectives)(self, first, objectives);
            for (i, &objective) in objectives.iter().enumerate() {
                if objective <= last && n > 0 {
                    let m = (first + i) as u32;
                    let at = out.partition_point(|&other| self.key(other) < self.key(m));
                    out.truncate(n - usize::from(at < n));
                    if at < n {
                        out.insert(at, m);
                    }
                    if out.len() == n {
                        last = self.key(out[n - 1]).0;
                    }
                }
            }
        }
    }

    /// What LLM `m` costs.
    #[inline]
    pub fn cost(&self, m: usize) -> f64 {
        match self.costs {
            Costs::Given(costs) => costs[m],
            Costs::Metered {
                base,
                in_prices,
                out_prices,
                tokens_in,
                tokens_out,
                ..
            } => in_prices[m] * tokens_in + out_prices[m] * f64::from(tokens_out[m]) + base[m],
        }
    }

    /// Predicted loss of LLM `m`.
    #[inline]
    pub fn loss(&self, m: usize) -> f64 {
        f64::from(self.gamma[m])
    }

    /// What LLM `m` is chosen by.
    #[inline]
    pub fn objective(&self, m: usize) -> f64 {
        self.key(m as u32).0
    }

    /// Whether LLM `m` takes part.
    #[inline]
    pub fn takes_part(&self, m: usize) -> bool {
        self.mask
            .is_none_or(|mask| mask[m / 64] >> (m % 64) & 1 == 1)
    }

    /// Number of LLMs.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.gamma.len()
    }

    /// That all `llms` LLMs from `first` exist, which kernels count on.
    ///
    /// # Panics
    /// If one of them does not.
    #[inline]
    pub(super) fn check(&self, first: usize, llms: usize) {
        let after = self.len().checked_sub(first);
        let exist = after.is_some_and(|after| llms <= after);
        assert!(exist, "LLMs: {llms} from {first} of {}", self.len());
    }

    fn key(&self, m: u32) -> Key {
        let at = m as usize;
        key(self.loss(at), self.cost(at), m, self.cost_weight)
    }

    /// 64 LLMs from `first` as bits: those that take part, if they exist.
    #[inline]
    pub(super) fn word(&self, first: usize) -> u64 {
        let Some(mask) = self.mask else { return !0 };
        let (at, shift) = (first / 64, first % 64);
        let next = mask.get(at + 1).copied().unwrap_or_default();
        // In two steps, because shifting by 64 is no shift.
        mask[at] >> shift | next << 1 << (63 - shift)
    }

    /// What to look at first, if there is anything.
    fn rough(&self) -> Option<RoughScan<'a>> {
        let Costs::Metered {
            tokens_in,
            tokens_out,
            rough,
            ..
        } = self.costs
        else {
            return None;
        };
        rough.map(|prices| RoughScan {
            scan: *self,
            prices,
            tokens_in: round_down(tokens_in),
            tokens_out,
            cost_weight: round_down(self.cost_weight * (1.0 - 2f64.powi(-20))),
        })
    }

    pub(super) fn parts(&self) -> (&'a [f32], Costs<'a>, f64) {
        (self.gamma, self.costs, self.cost_weight)
    }
}
