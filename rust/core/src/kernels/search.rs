//! Which packed vectors a row's answer can be: the candidates that the bound does not rule out.

use super::Kernels;
use super::aligned::Aligned;
use super::direct::{Plain, Scratch};
use super::packed::{Bound, GROUP, LANES, Line, Packed, Row};

/// Panels scored before candidates are picked, so that their scores stay in L2.
const RUN: usize = 64;

/// The same where runs may be skipped: the fewer, the sooner.
const SHORT_RUN: usize = 4 * GROUP;

/// A block of rows against a run of panels: what a scoring kernel reads.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Owner of the panels.
    pub packed: &'a Packed,
    /// What is added to products.
    pub offsets: Offsets<'a>,
    /// First panel of the run, a multiple of [`GROUP`].
    pub first: usize,
    /// How many panels.
    pub panels: usize,
    /// The rows.
    pub rows: &'a [Row],
    /// Their words, `packed.row_stride` apart.
    pub words: &'a [i32],
    /// What will be quantised next: worth fetching into L2 while there is other work to do.
    pub ahead: &'a [f32],
}

impl Task<'_> {
    /// Lines of a panel, counted from the run's first.
    #[inline]
    pub fn panel(&self, panel: usize) -> &[Line] {
        &self.panels_from(panel)[..self.packed.steps]
    }

    /// Lines of a panel, and all that follow.
    #[inline]
    pub fn panels_from(&self, panel: usize) -> &[Line] {
        &self.packed.lines[(self.first + panel) * self.packed.steps..]
    }

    /// Words of a row.
    #[inline]
    pub fn row_words(&self, row: usize) -> &[i32] {
        &self.words[row * self.packed.row_stride..][..self.packed.steps]
    }

    /// The share of [`Self::ahead`] to be fetched while `rows` rows from `row` meet the group of
    /// panels from `panel`: all of it is fetched once, little by little, in the first run.
    #[inline]
    pub fn ahead_of(&self, row: usize, rows: usize, panel: usize) -> &[f32] {
        if self.first > 0 || self.ahead.is_empty() {
            return &[];
        }
        let groups = self.panels.div_ceil(GROUP);
        let share = self.ahead.len().div_ceil(self.rows.len() * groups);
        let start = share * (panel / GROUP * self.rows.len() + row);
        let end = self.ahead.len().min(start + share * rows);
        &self.ahead[start.min(end)..end]
    }

    /// Whether no row can find its answer here, given scores that each reaches for certain.
    fn is_hopeless(&self, best: &[Best]) -> bool {
        let groups = self.first / GROUP..(self.first + self.panels).div_ceil(GROUP);
        !self.offsets.ceilings.is_empty()
            && (self.rows.iter().zip(best)).all(|(row, best)| {
                (groups.clone()).all(|group| self.offsets.ceiling(group, row) < best.certain)
            })
    }

    /// Where the scores of a row against `P` panels go.
    #[inline]
    pub fn scores_at<'s, const P: usize>(
        &self,
        scores: &'s mut [f32],
        row: usize,
        panel: usize,
    ) -> &'s mut [[f32; LANES]; P] {
        let at = row * self.panels + panel;
        scores.as_chunks_mut::<LANES>().0[at..]
            .first_chunk_mut()
            .expect("P panels")
    }
}

/// What is known of a row's best scores.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Best {
    /// Greatest lower bound in each lane.
    pub lower: [f32; LANES],
    /// A score that the best ones reach for certain, as of the run's start.
    pub certain: f32,
    /// Groups of the run in which a vector may reach it, a bit each.
    pub promising: u64,
}

impl Default for Best {
    fn default() -> Self {
        Self {
            lower: [f32::MIN; LANES],
            certain: f32::MIN,
            promising: 0,
        }
    }
}

impl Best {
    /// The score that `best` vectors reach for certain, from the lanes. Each lane has a vector of its
    /// own that reaches the lane's lower bound, so that the `best`-th greatest of them will do.
    fn update(&mut self, best: usize) {
        if best == 1 {
            // By halves: selections that compilers turn into vectors, without branches.
            let greatest: [f32; 8] = halved(&self.lower);
            let greatest: [f32; 4] = halved(&greatest);
            let greatest: [f32; 2] = halved(&greatest);
            [self.certain] = halved(&greatest);
        } else {
            let mut lower = self.lower;
            lower.sort_unstable_by(|a, b| b.total_cmp(a));
            self.certain = lower[best - 1];
        }
    }
}

/// The greater of the values in either half; none is NaN.
#[inline]
fn halved<const N: usize>(values: &[f32]) -> [f32; N] {
    let (low, high) = values.split_at(N);
    std::array::from_fn(|i| if high[i] > low[i] { high[i] } else { low[i] })
}

/// What turns the sums of `P` panels of one group into scores.
pub struct Group<'a, const P: usize> {
    /// See [`Packed::scales`].
    pub scales: &'a [[f32; LANES]; P],
    /// See [`Packed::biases`].
    pub biases: &'a [[f32; LANES]; P],
    /// See [`Packed::prices`].
    pub prices: Option<&'a [[f32; LANES]; P]>,
    /// The group's bound.
    pub bound: &'a Bound,
    /// The group's bit in [`Best::promising`].
    pub bit: u64,
}

impl<'a, const P: usize> Group<'a, P> {
    /// Of the panels that start at `panel`, counted from the run's first.
    #[inline]
    pub fn of(task: &Task<'a>, panel: usize) -> Self {
        let Offsets {
            biases,
            prices,
            bounds,
            ..
        } = task.offsets;
        let first = task.first + panel;
        let lanes = |values: &'a [f32]| {
            let chunks = values.as_chunks::<LANES>().0.get(first..)?;
            chunks.first_chunk::<P>()
        };
        Self {
            scales: lanes(&task.packed.scales).expect("P panels"),
            biases: lanes(biases).expect("P panels"),
            prices: lanes(prices),
            bound: &bounds[first / GROUP],
            bit: 1 << (panel / GROUP),
        }
    }
}

/// A vector that may be the answer: its index and the upper bound of its score.
pub type Candidate = (u32, f32);

/// What is added to products to make scores, and the bounds that go with it.
#[derive(Clone, Copy)]
pub struct Offsets<'a> {
    /// See [`Packed::biases`].
    pub biases: &'a [f32],
    /// See [`Packed::prices`].
    pub prices: &'a [f32],
    /// See [`Packed::bounds`].
    pub bounds: &'a [Bound],
    /// Greatest bias of each group; with these, runs of groups are skipped that no row can find its
    /// answer in. Pays where vectors are in descending order of bias. Empty: nothing is skipped.
    pub ceilings: &'a [f32],
}

impl Offsets<'_> {
    /// Greatest score that a row may have in a group.
    fn ceiling(&self, group: usize, row: &Row) -> f32 {
        // The group's part of the bound per `|r|` is the greatest length of its vectors.
        let bound = &self.bounds[group];
        self.ceilings[group] + row.length * bound.residual + row.bound(bound)
    }
}

/// Scratch memory of one thread: allocated by the first block, reused by later ones.
#[derive(Default)]
pub struct Search {
    words: Aligned<i32>,
    rows: Vec<Row>,
    scores: Aligned<f32>,
    best: Vec<Best>,
    candidates: Vec<Vec<Candidate>>,
    unbounded: Vec<bool>,
    direct: Scratch,
}

impl Search {
    /// Takes rows, `x`, row-major, [`Kernels::block`] of them as a rule.
    pub fn quantise(&mut self, kernels: &Kernels, packed: &Packed, x: &[f32], dim: usize) {
        let n = x.len() / dim;
        let stride = packed.row_stride;
        self.words.reserve(0, n * stride);
        self.rows.clear();
        self.unbounded.clear();
        for (x, words) in x.chunks_exact(dim).zip(self.words.chunks_exact_mut(stride)) {
            let row = (kernels.quantise)(packed, x, words);
            if row.is_none() {
                // Words of another search, of any size, are still there: their sums might overflow.
                words.fill(0);
            }
            self.unbounded.push(row.is_none());
            self.rows.push(row.unwrap_or_default());
        }
    }

    /// The rows taken, to be given weights and slack.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// Empty lists for the candidates of `n` rows, which another search fills.
    pub fn lists(&mut self, n: usize) -> &mut [Vec<Candidate>] {
        self.unbounded.clear();
        self.unbounded.resize(n, false);
        self.candidates
            .resize_with(n.max(self.candidates.len()), Vec::new);
        let lists = &mut self.candidates[..n];
        lists.iter_mut().for_each(Vec::clear);
        lists
    }

    /// What [`Self::quantise`] does where no bound holds for any of `n` rows.
    pub fn give_up(&mut self, n: usize) {
        self.unbounded.clear();
        self.unbounded.resize(n, true);
    }

    /// Finds the candidates of the rows taken: all vectors that may be among the `best` of a row,
    /// at most [`LANES`] of them. Fetches `ahead` into L2 meanwhile, see [`Task::ahead`].
    pub fn find(
        &mut self,
        kernels: &Kernels,
        packed: &Packed,
        offsets: Offsets<'_>,
        best: usize,
        ahead: &[f32],
    ) {
        let n = self.rows.len();
        self.best.clear();
        self.best.resize(n, Best::default());
        self.candidates
            .resize_with(n.max(self.candidates.len()), Vec::new);
        self.candidates[..n].iter_mut().for_each(Vec::clear);

        let panels = packed.count.div_ceil(LANES);
        let run = if offsets.ceilings.is_empty() {
            RUN
        } else {
            SHORT_RUN
        };
        for first in (0..panels).step_by(run) {
            let task = Task {
                packed,
                offsets,
                first,
                panels: run.min(panels - first),
                rows: &self.rows,
                words: &self.words,
                ahead,
            };
            if task.is_hopeless(&self.best) {
                continue;
            }
            let width = task.panels * LANES;
            self.scores.reserve(0.0, n * width);
            (kernels.scores)(&task, &mut self.scores, &mut self.best);
            for (i, known) in self.best.iter_mut().enumerate() {
                let promising = std::mem::take(&mut known.promising);
                if promising == 0 {
                    continue;
                }
                known.update(best);
                let pick = Pick {
                    promising,
                    scores: &self.scores[i * width..][..width],
                    bounds: &offsets.bounds[first / GROUP..],
                    row: &self.rows[i],
                    lower: known.certain,
                    first: (first * LANES) as u32,
                };
                (kernels.pick)(&pick, &mut self.candidates[i]);
            }
        }
        for candidates in &mut self.candidates[..n] {
            // Lanes past the last vector pass where hardly anything is certain.
            while candidates
                .last()
                .is_some_and(|&(k, _)| k as usize >= packed.count)
            {
                candidates.pop();
            }
        }
        if panels > run {
            // Early runs were picked against the lower bound of their time.
            for (candidates, best) in self.candidates.iter_mut().zip(&self.best) {
                candidates.retain(|&(_, upper)| upper >= best.certain);
            }
        }
    }

    /// As [`Self::quantise`] and [`Self::find`] with vectors that are not packed. False, and
    /// nothing has been found, where these had better be packed, or one of them is not finite.
    pub fn compare(&mut self, kernels: &Kernels, plain: &Plain<'_>) -> bool {
        let n = plain.x.len() / plain.dim;
        self.lists(n);
        let lists = &mut self.candidates[..n];
        let found = (kernels.compare)(plain, &mut self.direct, lists);
        for (unbounded, list) in self.unbounded.iter_mut().zip(lists) {
            *unbounded = list.is_empty();
        }
        found
    }

    /// Has another measure look at row `i`'s candidates: keeps those for which `least(measures)`
    /// is at or above their own, where there are several.
    pub fn refine(&mut self, i: usize, measure: impl Fn(u32) -> f32, least: impl Fn(f32) -> f32) {
        let candidates = &mut self.candidates[i];
        if self.unbounded[i] || candidates.len() < 2 {
            return;
        }
        let mut smallest = f32::INFINITY;
        for (k, measured) in candidates.iter_mut() {
            *measured = measure(*k);
            smallest = smallest.min(*measured);
        }
        let keep = least(smallest);
        candidates.retain(|&(_, measured)| measured <= keep);
    }

    /// Row `i`'s candidates, in ascending order of index; `None` if no bound holds for it, because
    /// it is too long or not finite.
    pub fn candidates(&self, i: usize) -> Option<&[Candidate]> {
        (!self.unbounded[i]).then(|| &*self.candidates[i])
    }
}

/// A row's scores, and what decides which of them make a candidate.
pub struct Pick<'a> {
    /// One per vector of the run.
    pub scores: &'a [f32],
    /// Groups to look into, a bit each.
    pub promising: u64,
    /// One per group of the run.
    pub bounds: &'a [Bound],
    /// The row.
    pub row: &'a Row,
    /// Greatest lower bound so far.
    pub lower: f32,
    /// Index of the run's first vector.
    pub first: u32,
}

impl Pick<'_> {
    /// The promising groups: the first vector of each, counted from the run's first, their scores,
    /// and their bound for this row.
    pub fn groups(&self) -> impl Iterator<Item = (usize, &[f32], f32)> {
        const WIDTH: usize = GROUP * LANES;
        let mut left = self.promising;
        std::iter::from_fn(move || {
            let group = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            let first = group * WIDTH;
            let last = self.scores.len().min(first + WIDTH);
            let bound = self.row.bound(&self.bounds[group]);
            Some((first, &self.scores[first..last], bound))
        })
    }
}
