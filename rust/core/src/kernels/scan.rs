//! Who wins among all LLMs for one prompt, where no hull can answer: constraints, costs of the
//! request's own, predicted losses of the prompt's own.

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
    },
}

/// One prompt's choice among `M` LLMs: the objective is `f64(gamma[m]) + cost_weight * cost(m)`, a
/// float64 multiplication and then an addition, and the LLM with the least wins. Ties go to the
/// lower cost, then to the lower index. LLMs whose objective is NaN never win.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    gamma: &'a [f32],
    costs: Costs<'a>,
    cost_weight: f64,
    mask: Option<&'a [u64]>,
}

/// LLMs whose objectives are computed at a time: they stay in L1.
const CHUNK: usize = 256;

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
                ..
            } => {
                [
                    base.len(),
                    in_prices.len(),
                    out_prices.len(),
                    tokens_out.len(),
                ] == [m; 4]
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
        self.argmin_by(Kernels::active())
    }

    /// As [`Self::argmin`], by one table. Most chunks are passed over: only one whose least
    /// objective reaches the best so far is looked into.
    pub(super) fn argmin_by(&self, kernels: &Kernels) -> Option<u32> {
        let mut objectives = [0.0; CHUNK];
        let mut best: Option<(f64, f64, u32)> = None;
        for first in (0..self.len()).step_by(CHUNK) {
            let llms = CHUNK.min(self.len() - first);
            let least = (kernels.least)(self, first, llms);
            if best.is_some_and(|best| best.0 < least) {
                continue;
            }
            let objectives = &mut objectives[..llms];
            (kernels.objectives)(self, first, objectives);
            for (i, _) in objectives.iter().enumerate().filter(|&(_, &o)| o == least) {
                let key = self.key((first + i) as u32);
                if best.is_none_or(|best| key < best) {
                    best = Some(key);
                }
            }
        }
        best.map(|(_, _, m)| m)
    }

    /// The `n` first LLMs in the order in which they would win, best first, into `out` (which is
    /// cleared); fewer if fewer take part. `O(M + n log(M) n)` for objectives in random order.
    pub fn top_n(&self, n: usize, out: &mut Vec<u32>) {
        out.clear();
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
            } => in_prices[m] * tokens_in + out_prices[m] * f64::from(tokens_out[m]) + base[m],
        }
    }

    /// What LLM `m` is chosen by.
    #[inline]
    pub fn objective(&self, m: usize) -> f64 {
        f64::from(self.gamma[m]) + self.cost_weight * self.cost(m)
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

    /// Order of winning.
    fn key(&self, m: u32) -> (f64, f64, u32) {
        (self.objective(m as usize), self.cost(m as usize), m)
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

    pub(super) fn parts(&self) -> (&'a [f32], Costs<'a>, f64) {
        (self.gamma, self.costs, self.cost_weight)
    }
}
