//! Instruction sets: the only place for `unsafe`.
//!
//! One file an instruction set, each filling the same table of function pointers, [`Kernels`]. The
//! table is chosen once per process by [`isa`]: the best that the CPU offers, or what `UNIROUTE_ISA`
//! names. Every function gives the same answer, bit for bit, in every table; [`portable`] is the
//! definition, and the tests hold the others against it.

mod aligned;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod amx;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512;
#[allow(unsafe_code)]
pub(crate) mod direct;
pub(crate) mod packed;
mod pool;
mod portable;
mod scan;
pub(crate) mod search;
mod sparse;
#[allow(unsafe_code)]
pub mod text;

use std::sync::OnceLock;

use self::direct::{Plain, Scratch};
use self::packed::{Packed, Precision, Row};
use self::search::{Best, Candidate, Pick, Task};
use self::sparse::{Mixture, Strip};
use crate::error::{Error, Result};

pub use self::aligned::Aligned;
pub use self::pool::{PackedPool, Weights};
use self::scan::{Bits, RoughScan};
pub use self::scan::{Costs, Key, Rough, Scan, key, round_down};

/// An instruction set that a table of kernels is written for, in ascending order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, which the compiler vectorises for its baseline target.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AVX-512 as above, with int8 products on AMX tiles; never chosen, only forced, until it has run
    /// on a real processor.
    Amx,
}

impl Isa {
    /// All of them, in ascending order of preference.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// The name that `UNIROUTE_ISA` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }
}

/// Signature of [`weighted_rows`].
pub type WeightedRows = fn(phi_idx: &[u32], phi_val: &[f32], psi: &[f32], out: &mut [f32]);
/// Signature of [`Kernels::quantise`].
pub(crate) type Quantise = fn(packed: &Packed, x: &[f32], words: &mut [i32]) -> Option<Row>;
/// Signature of [`Kernels::scores`].
pub(crate) type ScoresOf = fn(task: &Task<'_>, scores: &mut [f32], best: &mut [Best]);
/// Signature of [`Kernels::pick`].
pub(crate) type PickCandidates = fn(pick: &Pick<'_>, out: &mut Vec<Candidate>);

/// Signature of [`Kernels::compare`].
pub(crate) type Compare =
    fn(plain: &Plain<'_>, scratch: &mut Scratch, lists: &mut [Vec<Candidate>]) -> bool;

/// Signature of [`Kernels::screen`].
pub(crate) type Screen =
    fn(mixture: &Mixture<'_>, strip: &Strip<'_>, out: &mut [f32; sparse::WIDTH]) -> f32;

/// Signature of [`Kernels::rough_least`].
pub(crate) type RoughLeast = fn(rough: &RoughScan<'_>, first: usize, llms: usize) -> f32;

/// Signature of [`Kernels::equal`].
pub(crate) type Equal = fn(scan: &Scan<'_>, first: usize, llms: usize, objective: f64) -> Bits;

/// The functions of one instruction set.
pub struct Kernels {
    /// The instruction set.
    pub isa: Isa,
    /// Squared Euclidean distance in float64, summed in NumPy's order; see
    /// [`portable::squared_distance`].
    pub squared_distance: fn(x: &[f32], c: &[f32]) -> f64,
    /// The same, summed in any order: within [`quick_error`], and faster.
    pub(crate) quick_distance: fn(x: &[f32], c: &[f32]) -> f64,
    /// How centroids are packed for this instruction set.
    pub(crate) precision: Precision,
    /// How profiles are: a pool's objectives lie closer together than distances do.
    pub(crate) pool_precision: Precision,
    /// Rows quantised together: enough to use panels many times while they are in L1.
    pub(crate) block: usize,
    /// Quantises a row of `packed`'s dimension into words; `None` if no bound holds for it.
    pub(crate) quantise: Quantise,
    /// Scores of a task, `[rows, panels * LANES]`, and what they tell of the best.
    pub(crate) scores: ScoresOf,
    /// Appends the vectors whose upper bound reaches the lower bound.
    pub(crate) pick: PickCandidates,
    /// Candidates among vectors that are not packed, see [`direct`].
    pub(crate) compare: Compare,
    /// Squared Euclidean distance in float32, any order of summation: see [`rough_error`].
    pub(crate) rough_distance: fn(x: &[f32], c: &[f32]) -> f32,
    /// Screening values of the LLMs of a strip, see [`sparse`]; returns the least.
    pub(crate) screen: Screen,
    /// See [`weighted_rows`].
    pub weighted_rows: WeightedRows,
    /// Objectives of a run of LLMs from `first`; NaN for those not taking part.
    pub objectives: fn(scan: &Scan<'_>, first: usize, out: &mut [f64]),
    /// The least objective of `llms` LLMs from `first`; infinity if none takes part.
    pub least: fn(scan: &Scan<'_>, first: usize, llms: usize) -> f64,
    /// Which of `llms` LLMs from `first`, a chunk at most, take part and have this objective.
    pub(crate) equal: Equal,
    /// The same as `least` of rough objectives, see [`scan::RoughScan`].
    pub(crate) rough_least: RoughLeast,
}

impl Kernels {
    /// The table of one instruction set; an error if this CPU lacks it.
    pub fn of(isa: Isa) -> Result<&'static Self> {
        if let Some(problem) = refusal(isa) {
            return Err(unsupported(problem));
        }
        Ok(match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => &amx::KERNELS,
            _ => &portable::KERNELS,
        })
    }

    /// The table of [`isa`]; the portable one if `UNIROUTE_ISA` cannot be honoured (which is
    /// reported by [`isa`] itself, before any work is done).
    pub fn active() -> &'static Self {
        static ACTIVE: OnceLock<&'static Kernels> = OnceLock::new();
        ACTIVE.get_or_init(|| isa().and_then(Self::of).unwrap_or(&portable::KERNELS))
    }
}

/// Relative error that [`Kernels::rough_distance`] stays below, unless it over- or underflows.
///
/// A difference is off by `2^-24`, its square by two more such roundings and that of the first; as
/// all terms are positive, summing them in 16 or more lanes adds at most one a term of a lane, and
/// a few for the lanes' own sum. Twice that is allowed.
pub(crate) fn rough_error(dim: usize) -> f32 {
    (dim as f32 / 8.0 + 32.0) / (1 << 24) as f32
}

/// Relative error that [`Kernels::quick_distance`] and [`Kernels::squared_distance`] stay below
/// together.
///
/// A term is off by three roundings of `2^-53`: the difference, twice, and the square. No term goes
/// through more than `dim / 8 + 16` additions of positive numbers. Nothing over- or underflows: terms
/// are squares of differences of float32. Twice the sum of both is allowed.
pub(crate) fn quick_error(dim: usize) -> f64 {
    (dim as f64 / 2.0 + 80.0) / (1u64 << 53) as f64
}

/// Why an instruction set cannot be used here, if it cannot.
fn refusal(isa: Isa) -> Option<String> {
    let available = match isa {
        Isa::Portable => true,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::is_available() && has_bit_manipulation(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::is_available() && has_bit_manipulation(),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => match amx::refusal() {
            Some(problem) => return Some(format!("amx is not available: {problem}")),
            None => has_bit_manipulation(),
        },
        #[cfg(not(target_arch = "x86_64"))]
        _ => false,
    };
    (!available).then(|| format!("{} is not available on this CPU", isa.name()))
}

/// The bit instructions that every CPU with AVX2 has, and that some virtual machines hide.
#[cfg(target_arch = "x86_64")]
fn has_bit_manipulation() -> bool {
    is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// The instruction sets that this CPU offers, in ascending order of preference.
pub fn available() -> Vec<Isa> {
    Isa::ALL
        .into_iter()
        .filter(|&isa| refusal(isa).is_none())
        .collect()
}

/// The instruction set in use: what `UNIROUTE_ISA` names, else the best available but
/// [`Isa::Amx`].
///
/// Decided once per process. [`Error::UnsupportedIsa`] if the variable holds an unknown name, or
/// one that this CPU lacks.
pub fn isa() -> Result<Isa> {
    static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| choose(std::env::var_os("UNIROUTE_ISA").as_deref()))
        .clone()
        .map_err(unsupported)
}

/// The choice itself: `forced` is the value of `UNIROUTE_ISA`, where empty counts as unset.
fn choose(forced: Option<&std::ffi::OsStr>) -> Result<Isa, String> {
    let Some(forced) = forced.filter(|name| !name.is_empty()) else {
        // AMX is not even asked for: that alone would run it.
        let best = (Isa::ALL.into_iter()).rfind(|&isa| isa != Isa::Amx && refusal(isa).is_none());
        return Ok(best.unwrap_or(Isa::Portable));
    };
    let Some(isa) = forced.to_str().and_then(Isa::from_name) else {
        let name = forced.to_string_lossy();
        return Err(format!("unknown instruction set {name:?}"));
    };
    refusal(isa).map_or(Ok(isa), Err)
}

fn unsupported(problem: String) -> Error {
    let names: Vec<_> = available().into_iter().map(Isa::name).collect();
    Error::UnsupportedIsa {
        problem,
        available: names.join(", "),
    }
}

/// The predicted losses of one prompt: `out[m] = sum_i phi_val[i] * psi[phi_idx[i], m]`.
///
/// `psi` is row-major, `psi.len() / out.len()` clusters by `out.len()` LLMs. Each sum starts at
/// 0.0 and takes its terms in the order given, a float32 multiplication and then a float32
/// addition, never fused, so that every instruction set and every batching gives the same bits.
/// `O(phi_idx.len() * out.len())`.
///
/// # Panics
/// If an index reaches outside `psi`, or the two parts of `phi` differ in length.
pub fn weighted_rows(phi_idx: &[u32], phi_val: &[f32], psi: &[f32], out: &mut [f32]) {
    assert_eq!(
        phi_idx.len(),
        phi_val.len(),
        "phi: as many values as indices"
    );
    let rows = psi.len().checked_div(out.len()).unwrap_or(usize::MAX);
    assert!(
        phi_idx.iter().all(|&k| (k as usize) < rows),
        "phi: an index outside psi"
    );
    (Kernels::active().weighted_rows)(phi_idx, phi_val, psi, out);
}

/// The LLM with the least `f64(gamma[m]) + cost_weight * costs[m]`: [`Scan::argmin`] with a cost
/// per LLM. `None` if no LLM takes part. `O(M)`.
///
/// # Panics
/// As [`Scan::new`].
pub fn argmin_cost(
    gamma: &[f32],
    costs: &[f64],
    cost_weight: f64,
    mask: Option<&[u64]>,
) -> Option<u32> {
    Scan::new(gamma, Costs::Given(costs), cost_weight, mask).argmin()
}

#[cfg(test)]
mod tests;
