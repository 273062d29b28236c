//! Embedding to cluster.

use crate::error::{Error, Result};
use crate::kernels::{Isa, Kernels, isa};
use crate::threads::Run;

/// Label of a row that holds NaN or infinity; see [`Centroids::assign_marked`].
pub const UNASSIGNED: u32 = u32::MAX;

/// Least float operations worth a task of its own: some tenths of a millisecond.
const TASK_WORK: usize = 1 << 22;

/// A set of centroids, ready to find the nearest one to an embedding.
///
/// Immutable, so that any number of threads may share it.
pub struct Centroids {
    data: Vec<f32>,
    dim: usize,
    kernels: &'static Kernels,
}

impl Centroids {
    /// Takes `data`, row-major `K x D`, for the instruction set in use.
    ///
    /// [`Error::InvalidArgument`] if there is no centroid, `dim` is zero or does not divide
    /// `data.len()`, or a value is not finite; [`Error::UnsupportedIsa`] if `UNIROUTE_ISA` cannot be
    /// honoured. `O(K D)`.
    pub fn new(data: &[f32], dim: usize) -> Result<Self> {
        Self::with_isa(data, dim, isa()?)
    }

    /// As [`Self::new`], for an instruction set of the caller's choice.
    pub fn with_isa(data: &[f32], dim: usize, isa: Isa) -> Result<Self> {
        let kernels = Kernels::of(isa)?;
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
        if let Some(row) = data.chunks_exact(dim).position(|row| !is_finite(row)) {
            return Err(not_finite("centroids", row));
        }
        Ok(Self {
            data: data.to_vec(),
            dim,
            kernels,
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

    /// Index of the centroid nearest to `x` and the squared distance to it.
    ///
    /// The answer of float64 brute force: the least sum of squared differences, each in float64 and
    /// summed in NumPy's order, lowest index on ties.
    pub fn nearest(&self, x: &[f32]) -> Result<(u32, f32)> {
        if x.len() != self.dim {
            return Err(self.wrong_length(x.len(), 1));
        }
        if !is_finite(x) {
            return Err(not_finite("x", 0));
        }
        let (label, distance) = self.brute_force(x);
        Ok((label, distance as f32))
    }

    /// Labels every row of `x` (row-major `N x D`) with the index of its nearest centroid, as
    /// [`Self::nearest`] does, and stores the squared distances if `distances` is given.
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
        match labels.iter().position(|&label| label == UNASSIGNED) {
            Some(row) => Err(not_finite("x", row)),
            None => Ok(()),
        }
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
        let n = labels.len();
        if x.len() != n * self.dim {
            return Err(self.wrong_length(x.len(), n));
        }
        if let Some(distances) = distances.as_deref()
            && distances.len() != n
        {
            return Err(Error::invalid(
                "distances",
                format!("{} values", distances.len()),
                format!("one per row, {n}"),
            ));
        }
        let rows = (TASK_WORK / self.data.len()).max(1);
        let distances = match distances {
            Some(distances) => distances.chunks_mut(rows).map(Some).collect(),
            None => (0..n.div_ceil(rows)).map(|_| None).collect::<Vec<_>>(),
        };
        let tasks: Vec<_> = x
            .chunks(rows * self.dim)
            .zip(labels.chunks_mut(rows))
            .zip(distances)
            .collect();
        run.for_each(
            tasks.into_iter(),
            || (),
            |(), ((x, labels), distances)| {
                let mut distances = distances;
                for (i, x) in x.chunks_exact(self.dim).enumerate() {
                    let (label, distance) = if is_finite(x) {
                        self.brute_force(x)
                    } else {
                        (UNASSIGNED, f64::NAN)
                    };
                    labels[i] = label;
                    if let Some(distances) = distances.as_deref_mut() {
                        distances[i] = distance as f32;
                    }
                }
                Ok(())
            },
        )
    }

    /// Every distance in float64.
    fn brute_force(&self, x: &[f32]) -> (u32, f64) {
        let mut best = (0, f64::INFINITY);
        for (k, c) in self.data.chunks_exact(self.dim).enumerate() {
            let distance = (self.kernels.squared_distance)(x, c);
            if distance < best.1 {
                best = (k as u32, distance);
            }
        }
        best
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
