//! Embedding to cluster.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::kernels::direct;
use crate::kernels::packed::Packed;
use crate::kernels::search::{Candidate, Search};
use crate::kernels::{Isa, Kernels, isa, quick_error, rough_error};
use crate::sys::threads::Run;

/// Label of a row that holds NaN or infinity; see [`Centroids::assign_marked`].
pub const UNASSIGNED: u32 = u32::MAX;

/// Multiplications worth a task of its own: some tenths of a millisecond.
const TASK_WORK: usize = 1 << 24;

/// Rows from which packing centroids pays: it takes as long as comparing some 200 rows with them takes
/// longer without.
const PACKING_PAYS: usize = 200;

/// Rows that are compared with centroids as they are at most at a time, so that they stay in L2.
const BLOCK: usize = 72;

thread_local! {
    /// Scratch memory of single queries.
    static SEARCH: RefCell<Search> = RefCell::default();
}

/// A set of centroids, ready to find the nearest one to an embedding.
///
/// The answer is always that of float64 brute force: the least sum of squared differences, each in
/// float64 and summed in NumPy's order (pairwise), lowest index on ties. It is found from low-precision
/// products: see [`crate::kernels`] for how the bound on their error is proved.
///
/// Immutable, so that any number of threads may share it.
pub struct Centroids {
    data: Vec<f32>,
    dim: usize,
    kernels: &'static Kernels,
    /// Absent where no bound would hold: such centroids are searched by brute force.
    packed: Option<Packed>,
}

impl Centroids {
    /// Packs `data`, row-major `K x D`, for the instruction set in use.
    ///
    /// [`Error::InvalidArgument`] if there is no centroid, `dim` is zero or does not divide
    /// `data.len()`, or a value is not finite; [`Error::UnsupportedIsa`] if `UNIROUTE_ISA` cannot be
    /// honoured. `O(K D)`.
    pub fn new(data: &[f32], dim: usize) -> Result<Self> {
        Self::with_isa(data, dim, isa()?)
    }

    /// As [`Self::new`], for an instruction set of the caller's choice.
    pub fn with_isa(data: &[f32], dim: usize, isa: Isa) -> Result<Self> {
        Self::with_kernels(data, dim, Kernels::of(isa)?)
    }

    /// As [`Self::with_isa`], with a table that need not be one of an instruction set.
    pub(crate) fn with_kernels(
        data: &[f32],
        dim: usize,
        kernels: &'static Kernels,
    ) -> Result<Self> {
        Given::new(data, dim, kernels)?;
        if let Some(row) = data.chunks_exact(dim).position(|row| !is_finite(row)) {
            return Err(not_finite("centroids", row));
        }
        Ok(Self {
            data: data.to_vec(),
            dim,
            kernels,
            packed: Packed::centroids(data, dim, kernels.precision),
        })
    }

    /// How many centroids there are, `K`.
    #[allow(clippy::len_without_is_empty)] // There is always one.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Embedding dimension, `D`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The centroids as they were given, row-major `K x D`.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// The instruction set that answers.
    pub fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// Index of the centroid nearest to `x`, and the squared distance to it.
    ///
    /// [`Error::InvalidArgument`] if `x` has another dimension, or holds NaN or infinity. Allocates
    /// nothing once the calling thread has been here. `O(K D)`.
    pub fn nearest(&self, x: &[f32]) -> Result<(u32, f32)> {
        if x.len() != self.dim {
            return Err(self.given().wrong_length(x.len(), 1));
        }
        let (label, distance) = SEARCH.with_borrow_mut(|search| {
            self.find(search, x, &[]);
            self.given().resolve(search.candidates(0), x, true)
        });
        if label == UNASSIGNED {
            return Err(not_finite("x", 0));
        }
        Ok((label, distance))
    }

    /// Labels every row of `x` (row-major `N x D`) with the index of its nearest centroid, and
    /// stores the squared distances if `distances` is given.
    ///
    /// [`Error::InvalidArgument`] if shapes differ, or naming the first row that holds NaN or
    /// infinity; what `labels` and `distances` then hold is not specified. `O(N K D)`.
    pub fn assign(
        &self,
        x: &[f32],
        labels: &mut [u32],
        distances: Option<&mut [f32]>,
        run: &Run<'_>,
    ) -> Result<()> {
        self.assign_marked(x, labels, distances, run)?;
        refuse_unassigned(labels)
    }

    /// As [`Self::assign`], but a row that holds NaN or infinity gets the label [`UNASSIGNED`] and
    /// the distance NaN, and the other rows their answers.
    pub fn assign_marked(
        &self,
        x: &[f32],
        labels: &mut [u32],
        distances: Option<&mut [f32]>,
        run: &Run<'_>,
    ) -> Result<()> {
        let step = self.rows_per_task();
        let block = self.kernels.block;
        self.given().assign(
            x,
            labels,
            distances,
            run,
            (step, block),
            |search, x, ahead| {
                self.find(search, x, ahead);
                true
            },
        )?;
        Ok(())
    }

    /// How many centroids are left to compare in float64, for each row of `x`: 1 at best,
    /// [`Self::len`] for rows that no bound holds for. What tests and tuning look at.
    pub fn count_candidates(&self, x: &[f32]) -> Vec<u32> {
        let mut search = Search::default();
        let mut counts = Vec::with_capacity(x.len() / self.dim);
        for x in x.chunks(self.kernels.block * self.dim) {
            self.find(&mut search, x, &[]);
            counts.extend(
                (0..x.len() / self.dim)
                    .map(|i| search.candidates(i).map_or(self.len(), <[Candidate]>::len) as u32),
            );
        }
        counts
    }

    /// Looks for the candidates of a block of rows, and fetches those `ahead`, the block that comes
    /// next (with several threads sometimes another one's), into L2.
    fn find(&self, search: &mut Search, x: &[f32], ahead: &[f32]) {
        match &self.packed {
            Some(packed) => {
                search.quantise(self.kernels, packed, x, self.dim);
                search.find(self.kernels, packed, packed.offsets(), 1, ahead);
                self.given().refine(search, x);
            }
            None => search.give_up(x.len() / self.dim),
        }
    }

    /// Rows of a task: some tenths of a millisecond of work, in whole blocks.
    fn rows_per_task(&self) -> usize {
        (TASK_WORK / self.data.len())
            .max(1)
            .next_multiple_of(self.kernels.block)
    }

    fn given(&self) -> Given<'_> {
        Given {
            data: &self.data,
            dim: self.dim,
            kernels: self.kernels,
        }
    }
}

/// The error that names the first row marked [`UNASSIGNED`], if there is one.
pub fn refuse_unassigned(labels: &[u32]) -> Result<()> {
    match labels.iter().position(|&label| label == UNASSIGNED) {
        Some(row) => Err(not_finite("x", row)),
        None => Ok(()),
    }
}

/// What [`Centroids::assign_marked`] does for centroids that serve this one call: packs them where
/// there are rows enough, else compares rows with centroids as they are.
///
/// As [`Centroids::new`] and [`Centroids::assign_marked`].
pub fn assign_once(
    x: &[f32],
    centroids: &[f32],
    dim: usize,
    labels: &mut [u32],
    mut distances: Option<&mut [f32]>,
    run: &Run<'_>,
) -> Result<()> {
    let kernels = Kernels::of(isa()?)?;
    let given = Given::new(centroids, dim, kernels)?;
    let n = labels.len();
    if (1..PACKING_PAYS).contains(&n) {
        // Each task reads all centroids, from memory as a rule: no more tasks than threads.
        let worth_it = (TASK_WORK / centroids.len()).max(1);
        let step = n.div_ceil(run.threads).max(worth_it);
        let block = step.div_ceil(step.div_ceil(BLOCK));
        let find = |search: &mut Search, x: &[f32], _: &[f32]| {
            let vectors = centroids;
            let found = search.compare(kernels, &direct::Plain { x, vectors, dim });
            if found {
                given.refine(search, x);
            }
            found
        };
        if given.assign(
            x,
            labels,
            distances.as_deref_mut(),
            run,
            (step, block),
            find,
        )? {
            return Ok(());
        }
    }
    Centroids::new(centroids, dim)?.assign_marked(x, labels, distances, run)
}

/// Centroids as they were given, and how to compare in float64.
#[derive(Clone, Copy)]
struct Given<'a> {
    data: &'a [f32],
    dim: usize,
    kernels: &'static Kernels,
}

impl<'a> Given<'a> {
    /// Refuses what has no centroids, or too many.
    fn new(data: &'a [f32], dim: usize, kernels: &'static Kernels) -> Result<Self> {
        if dim == 0 || !data.len().is_multiple_of(dim) || data.is_empty() {
            return Err(Error::invalid(
                "centroids",
                format!("{} values of dimension {dim}", data.len()),
                "one or more rows of one or more values each",
            ));
        }
        if data.len() / dim >= UNASSIGNED as usize {
            return Err(Error::invalid(
                "centroids",
                format!("{} rows", data.len() / dim),
                format!("fewer than {UNASSIGNED}"),
            ));
        }
        Ok(Self { data, dim, kernels })
    }

    /// See [`Centroids::assign_marked`]: by tasks of some rows, in blocks of some rows of these,
    /// each of which `find` finds candidates for. False, and nothing is assigned, where `find` says
    /// so.
    fn assign(
        &self,
        x: &[f32],
        labels: &mut [u32],
        distances: Option<&mut [f32]>,
        run: &Run<'_>,
        (step, block): (usize, usize),
        find: impl Fn(&mut Search, &[f32], &[f32]) -> bool + Sync,
    ) -> Result<bool> {
        let n = labels.len();
        if x.len() != n * self.dim {
            return Err(self.wrong_length(x.len(), n));
        }
        let distances: Vec<_> = match distances {
            None => (0..n.div_ceil(step)).map(|_| None).collect(),
            Some(distances) if distances.len() == n => {
                distances.chunks_mut(step).map(Some).collect()
            }
            Some(distances) => {
                let found = format!("{} values", distances.len());
                return Err(Error::invalid(
                    "distances",
                    found,
                    format!("one per row, {n}"),
                ));
            }
        };
        let tasks: Vec<_> = labels.chunks_mut(step).zip(distances).enumerate().collect();
        let all_found = AtomicBool::new(true);
        run.for_each(
            tasks.into_iter(),
            Search::default,
            |search, (task, (labels, mut distances))| {
                for (b, labels) in labels.chunks_mut(block).enumerate() {
                    let from = &x[(task * step + b * block) * self.dim..];
                    let (x, after) = from.split_at(labels.len() * self.dim);
                    if !find(search, x, &after[..after.len().min(x.len())]) {
                        all_found.store(false, Ordering::Relaxed);
                        break;
                    }
                    for (i, (label, x)) in
                        labels.iter_mut().zip(x.chunks_exact(self.dim)).enumerate()
                    {
                        let found = self.resolve(search.candidates(i), x, distances.is_some());
                        *label = found.0;
                        if let Some(distances) = &mut distances {
                            distances[b * block + i] = found.1;
                        }
                    }
                }
                Ok(())
            },
        )?;
        Ok(all_found.into_inner())
    }

    /// Rules out more candidates of rows that have several, by distances in float32: one costs a
    /// quarter of one in float64.
    fn refine(&self, search: &mut Search, x: &[f32]) {
        // Two distances within their errors of each other stay; so do all where float32 overflows.
        let reach = 1.0 + 4.0 * rough_error(self.dim);
        for (row, x) in x.chunks_exact(self.dim).enumerate() {
            let rough = |k| (self.kernels.rough_distance)(x, self.centroid(k));
            search.refine(row, rough, |least| {
                if least < 1e37 {
                    least * reach + 1e-30
                } else {
                    f32::INFINITY
                }
            });
        }
    }

    fn centroid(&self, k: u32) -> &[f32] {
        &self.data[k as usize * self.dim..][..self.dim]
    }

    /// The best of a row's candidates, in float64; of all centroids where there is no bound. The
    /// distance is NaN where it is not wanted and not needed.
    fn resolve(
        &self,
        candidates: Option<&[Candidate]>,
        x: &[f32],
        want_distance: bool,
    ) -> (u32, f32) {
        match candidates {
            Some(&[(only, _)]) if !want_distance => (only, f32::NAN),
            Some(&[(only, _)]) => (only, self.distance(x, only)),
            Some(candidates) => self.least(x, candidates.iter().map(|&(k, _)| k)),
            None if is_finite(x) => self.least(x, 0..(self.data.len() / self.dim) as u32),
            None => (UNASSIGNED, f32::NAN),
        }
    }

    /// The float64 distance to one centroid as float32: by the quicker sum wherever the slower one
    /// must round to the same float32.
    fn distance(&self, x: &[f32], k: u32) -> f32 {
        let quick = (self.kernels.quick_distance)(x, self.centroid(k));
        let off = quick * quick_error(self.dim);
        let (low, high) = ((quick - off) as f32, (quick + off) as f32);
        if low == high {
            return low;
        }
        (self.kernels.squared_distance)(x, self.centroid(k)) as f32
    }

    /// The nearest of `indices`, which ascend, by distances in float64.
    fn least(&self, x: &[f32], indices: impl Iterator<Item = u32>) -> (u32, f32) {
        let mut best = (UNASSIGNED, f64::INFINITY);
        for k in indices {
            let distance = (self.kernels.squared_distance)(x, self.centroid(k));
            if distance < best.1 {
                best = (k, distance);
            }
        }
        (best.0, best.1 as f32)
    }

    fn wrong_length(&self, found: usize, n: usize) -> Error {
        Error::invalid(
            "x",
            format!("{found} values"),
            format!("{n} rows of {} values, as the centroids have", self.dim),
        )
    }
}

fn is_finite(row: &[f32]) -> bool {
    row.iter().fold(true, |all, v| all & v.is_finite())
}

fn not_finite(argument: &'static str, row: usize) -> Error {
    Error::invalid(
        argument,
        format!("row {row} holds NaN or infinity"),
        "finite values",
    )
}
