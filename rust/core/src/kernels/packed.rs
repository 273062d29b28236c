//! Vectors quantised once, in the layout that every instruction set multiplies from, with a
//! certified bound on what quantisation loses.
//!
//! # Layout
//!
//! A *panel* holds [`LANES`] vectors. It is a sequence of *lines* of 64 bytes; line `s` has one
//! 32-bit *word* per vector, the quantised coordinates `4s..4s+4` (bytes) or `2s..2s+2` (int16).
//! A quantised row is a sequence of such words, so one step of a product is: broadcast a word of
//! the row, multiply it with a line, add to 16 int32 sums. In lines of bytes these hold
//! `q + offset`, because unsigned bytes are multiplied by signed ones; the sums start at
//! `-offset * sum(row)`.
//!
//! # Scores and their bound
//!
//! All of it happens in coordinates that are shifted by the mean `mu` of the centroids (float32)
//! and scaled by a power of two `S` that brings the longest shifted centroid near length 1:
//! `y = S (x - mu)`, `e_k = S (c_k - mu)`. Distances keep their order, data far from the origin
//! lose nothing, and neither 1e-18 nor 1e18 leaves float32's range. The nearest centroid has the
//! greatest score `s_k = y.e_k - |e_k|^2 / 2`, as `|y - e_k|^2 = |y|^2 - 2 s_k`.
//!
//! With `y = y' + r`, `e_k = e'_k + r_k` (primes: what the integers stand for),
//! `y.e_k - y'.e'_k = y'.r_k + r.e_k`, so by Cauchy-Schwarz the score computed from integers,
//! `t_k = sx sc_k I_k - h_k`, errs by no more than
//!
//! ```text
//! |y'| |r_k| + |r| |e_k|                  quantisation
//! + 2^-21 (|y'| |e'_k| + h_k)             float32 arithmetic, see below
//! + 2^-45 (|y|^2 + max_j |e_j|^2)         rounding of the float64 answer itself
//! + 2^-80                                 underflow
//! ```
//!
//! * *Arithmetic.* `I_k` is exact in int32 (dimension and range are limited so that it fits); its
//!   conversion to float32, the products with `sc_k` and `sx`, the subtraction of `h_k` (itself
//!   rounded), and the later subtraction and addition of the bound round once each, by at most
//!   `2^-24` of a magnitude that is at most `|y'||e'_k| + h_k` plus the bound: under
//!   `2^-24 (6 |y'||e'_k| + 4 h_k + 2 bound)`. The last part is covered by inflating the bound by
//!   `2^-20`.
//! * *Residuals.* `r` is measured, not estimated: the norm of `y - y'` summed in float32, relative
//!   error under `2^-12` for the dimensions allowed, covered by a factor `1 + 2^-10`; the rounding
//!   of `y` itself (`x S` is exact, one rounding in subtracting `mu S`) and of `sx q` adds at most
//!   `2^-22 |y|`. `r_k` is measured in float64.
//! * *The answer's own rounding.* Float64 brute force returns distances within a factor
//!   `1 +- 2^-47` of the true ones (at most 40 roundings of `2^-53` on the way of a term). So its
//!   winner `w` may have a true score below that of the true winner `j` by up to
//!   `2^-47 |y - e_j|^2 <= 2^-46 (|y|^2 + |e_j|^2)`; the term above, on both sides, covers it.
//! * *Underflow.* In these coordinates what underflows is below `2^-126` a term, even where the
//!   process flushes subnormals to zero: below `2^-54` in the norm of a row, which is added there,
//!   and below `2^-80` in a score.
//!
//! Rows with a coordinate beyond `2^40` in these coordinates (so that `sx` stays harmless), and
//! dimensions above [`MAX_DIM`], are answered by brute force.
//!
//! A centroid whose upper bound `t_k + b_k` is below the greatest lower bound `t_j - b_j` cannot be
//! brute force's answer; the others, the *candidates*, are compared in float64. One bound serves a
//! *group* of [`GROUP`] panels, from the greatest norms in it.

use super::aligned::Aligned;
use super::search::Offsets;

/// Vectors in a panel.
pub const LANES: usize = 16;
/// Panels that are scored together and share a bound.
pub const GROUP: usize = 4;
/// Lines that a tile of AMX takes at a time.
pub const TILE_STEPS: usize = 16;
/// Largest dimension for which int32 sums cannot overflow and float32 norms are accurate enough.
pub const MAX_DIM: usize = 1 << 16;

/// Added to a float64 of moderate size, it leaves the nearest integer (ties to even) in the lowest
/// bits of the sum; subtracted again, that integer. (Without SSE4.1 the compiler calls a function to
/// round.)
const ROUND: f64 = 1.5 * (1u64 << 52) as f64;

/// One step of a panel: a word of each vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [[u8; 4]; LANES]);

/// How coordinates are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// -63 to 63, four to a word; stored as `q + 64` in lines. Four products, of at most 127 and 63,
    /// add up to what an int16 holds.
    Int7,
    /// -127 to 127, four to a word; stored as `q + 128` in lines.
    Int8,
    /// At most 32,767 and few enough that sums fit in int32; two to a word.
    Int16,
}

impl Precision {
    /// Coordinates in a word.
    pub fn per_word(self) -> usize {
        match self {
            Self::Int7 | Self::Int8 => 4,
            Self::Int16 => 2,
        }
    }

    /// Steps that a kernel takes together.
    pub fn steps_at_once(self) -> usize {
        match self {
            Self::Int7 => 2,
            Self::Int8 | Self::Int16 => 1,
        }
    }

    /// What is added to quantised coordinates in lines.
    pub fn offset(self) -> i16 {
        match self {
            Self::Int7 => 64,
            Self::Int8 => 128,
            Self::Int16 => 0,
        }
    }

    /// Greatest quantised magnitude for vectors of dimension `dim`.
    pub fn limit(self, dim: usize) -> f32 {
        match self {
            Self::Int7 => 63.0,
            Self::Int8 => 127.0,
            // dim * limit^2 < 2^31, with room to spare for the square root's rounding.
            Self::Int16 => (2_147_000_000.0 / dim as f64).sqrt().floor().min(32_767.0) as f32,
        }
    }
}

/// What bounds the error of the scores of one group; see the module's documentation.
#[derive(Clone, Copy, Default)]
pub struct Bound {
    /// Times `|y'|`: residual norms and float32 rounding.
    pub norm: f32,
    /// Times `|r|`: norms of the vectors.
    pub residual: f32,
    /// Times the weight of the biases: their rounding.
    pub bias: f32,
    /// Times the weight of the prices: their rounding.
    pub price: f32,
}

/// How far a vector is from what its integers stand for.
#[derive(Clone, Copy)]
pub struct Residual {
    /// At least the Euclidean length of the difference.
    pub norm: f64,
    /// Its greatest coordinate.
    pub farthest: f64,
    /// What else `|y|` is multiplied by in the bound: rounding.
    pub rounding: f64,
}

/// Vectors quantised and packed.
pub struct Packed {
    /// How.
    pub precision: Precision,
    /// Number of vectors.
    pub count: usize,
    /// Words in a vector, lines in a panel: a multiple of [`Precision::steps_at_once`].
    pub steps: usize,
    /// Words from one quantised row to the next: the steps, and room for whole registers.
    pub row_stride: usize,
    /// Greatest quantised magnitude.
    pub limit: f32,
    /// Panel after panel; vectors past the last are zero. After the last panel, room for a tile
    /// that starts in it to be read whole.
    pub lines: Vec<Line>,
    /// What one unit of a quantised vector stands for, one per lane.
    pub scales: Aligned<f32>,
    /// Added to the scaled product, one per lane; hugely negative past the last vector, so that
    /// what is not there never raises a lower bound.
    pub biases: Aligned<f32>,
    /// Added too, times the row's price weight, one per lane; hugely negative past the last vector;
    /// empty where there are none.
    pub prices: Aligned<f32>,
    /// One per group.
    pub bounds: Vec<Bound>,
    /// `S`.
    pub shift_scale: f32,
    /// `mu S`, zero-padded to a multiple of 64.
    pub centre: Aligned<f32>,
    /// Part of every row's slack: `2^-45 max_k |e_k|^2`, and more than what underflows.
    pub slack: f32,
}

/// A row quantised: its words are kept by the caller.
#[derive(Clone, Copy, Default)]
pub struct Row {
    /// What one unit stands for, `sx`.
    pub scale: f32,
    /// At what the int32 sums start.
    pub start: i32,
    /// At least `|y'|`.
    pub norm: f32,
    /// At least `|r|`.
    pub residual: f32,
    /// At least `|y|`.
    pub length: f32,
    /// The part of the bound that is the same for every vector.
    pub slack: f32,
    /// What the biases are multiplied by (where there are prices; else they count once).
    pub bias_weight: f32,
    /// What the prices are multiplied by.
    pub price_weight: f32,
}

impl Row {
    /// From what a kernel measures: the sum of the quantised coordinates and that of their squares,
    /// and the sum of the squares of `y - y'`.
    pub fn new(packed: &Packed, scale: f32, sum: i32, squares: f32, residuals: f32) -> Self {
        const MEASURED: f32 = 1.0 + 1.0 / 1024.0;
        let underflow = 2f32.powi(-54);
        let norm = scale * squares.sqrt() * MEASURED + underflow;
        let residual = residuals.sqrt() * MEASURED + underflow + norm * 2f32.powi(-21);
        let length = norm + residual;
        Self {
            scale,
            start: -i32::from(packed.precision.offset()) * sum,
            norm,
            residual,
            length,
            slack: length * length * 2f32.powi(-45) + packed.slack,
            bias_weight: 1.0,
            price_weight: 0.0,
        }
    }

    /// How far the scores of a group may be from the truth.
    #[inline]
    pub fn bound(&self, group: &Bound) -> f32 {
        self.norm * group.norm
            + self.residual * group.residual
            + self.bias_weight * group.bias
            + self.price_weight * group.price
            + self.slack
    }
}

/// The power of two that brings `length` to between 1 and 2, or as near as float32 allows.
pub fn power_for(length: f64) -> f32 {
    let exponent = if length > 0.0 {
        length.log2().floor() as i32
    } else {
        0
    };
    2f32.powi((-exponent).clamp(-126, 126))
}

impl Packed {
    /// Packs centroids, `data`, row-major `K x D`, finite; `None` above [`MAX_DIM`].
    pub fn centroids(data: &[f32], dim: usize, precision: Precision) -> Option<Self> {
        let mean = mean_row(data, dim);
        let shifted = |row: &[f32], scale: f64, out: &mut [f64]| {
            for ((out, &c), &mu) in out.iter_mut().zip(row).zip(&mean) {
                *out = (f64::from(c) - f64::from(mu)) * scale;
            }
        };
        let mut e = vec![0.0f64; dim];
        let longest = data.chunks_exact(dim).fold(0.0f64, |longest, row| {
            shifted(row, 1.0, &mut e);
            longest.max(squared_norm(&e))
        });
        let power = power_for(longest.sqrt());
        let scale = f64::from(power);

        let mut packed = Self::empty(data.len() / dim, dim, precision)?;
        packed.shift_scale = power;
        for (out, &mu) in packed.centre.iter_mut().zip(&mean) {
            *out = mu * power;
        }
        packed.slack += round_up(longest * scale * scale * 2f64.powi(-45));
        for (k, row) in data.chunks_exact(dim).enumerate() {
            shifted(row, scale, &mut e);
            packed.put(k, &e, -0.5 * squared_norm(&e), 0.0);
        }
        Some(packed)
    }

    /// Room for `count` vectors; `None` above [`MAX_DIM`].
    pub fn empty(count: usize, dim: usize, precision: Precision) -> Option<Self> {
        if dim > MAX_DIM {
            return None;
        }
        let panels = count.div_ceil(LANES);
        let steps =
            (dim.div_ceil(precision.per_word())).next_multiple_of(precision.steps_at_once());
        let padded = dim.next_multiple_of(4 * LANES);
        Some(Self {
            precision,
            count,
            steps,
            row_stride: padded / precision.per_word(),
            limit: precision.limit(dim),
            lines: vec![Line([[0; 4]; LANES]); panels * steps + TILE_STEPS - 1],
            scales: Aligned::new(0.0, panels * LANES),
            biases: Aligned::new(f32::MIN, panels * LANES),
            prices: Aligned::default(),
            bounds: vec![Bound::default(); panels.div_ceil(GROUP)],
            shift_scale: 1.0,
            centre: Aligned::new(0.0, padded),
            slack: 2f32.powi(-80),
        })
    }

    /// For a row whose greatest magnitude is `greatest`: what one quantised unit stands for, and the
    /// inverse. Zeros where a unit would underflow (the row is all residual then); `None` where no
    /// bound holds, also for NaN.
    #[inline]
    pub fn unit(&self, greatest: f32) -> Option<(f32, f32)> {
        const LIMIT: f32 = (1u64 << 40) as f32;
        const FLOOR: f32 = 1.0 / LIMIT / LIMIT;
        if greatest < FLOOR {
            Some((0.0, 0.0))
        } else if greatest <= LIMIT {
            Some((greatest / self.limit, self.limit / greatest))
        } else {
            None
        }
    }

    /// Quantises vector `k` into its lane and widens its group's bound, where the product with a
    /// row `y` may err by another `extra |y|`. Returns how far it is from what its integers stand
    /// for.
    pub fn put(&mut self, k: usize, e: &[f64], bias: f64, extra: f64) -> Residual {
        let greatest = greatest_magnitude(e);
        let mut unit = (greatest / f64::from(self.limit)) as f32;
        if unit < f32::MIN_POSITIVE {
            unit = 0.0; // All residual: one unit would underflow.
        }
        let inverse = if unit > 0.0 {
            1.0 / f64::from(unit)
        } else {
            0.0
        };
        let limit = f64::from(self.limit);
        let (per_word, offset) = (self.precision.per_word(), self.precision.offset());
        let (panel, lane) = (k / LANES, k % LANES);
        let lines = &mut self.lines[panel * self.steps..][..self.steps];
        let (mut squares, mut residuals, mut farthest) = ([0.0f64; 4], [0.0f64; 4], [0.0f64; 4]);
        for (line, values) in lines.iter_mut().zip(e.chunks(per_word)) {
            let word = &mut line.0[lane];
            for (i, &value) in values.iter().enumerate() {
                let rounded = (value * inverse).clamp(-limit, limit) + ROUND;
                let residual = value - (rounded - ROUND) * f64::from(unit);
                squares[i] += value * value;
                residuals[i] += residual * residual;
                farthest[i] = greater(farthest[i], residual.abs());
                let q = rounded.to_bits() as i16;
                match self.precision {
                    Precision::Int7 | Precision::Int8 => word[i] = (q + offset) as u8,
                    Precision::Int16 => word[2 * i..][..2].copy_from_slice(&q.to_ne_bytes()),
                }
            }
        }
        self.scales[k] = unit;
        self.biases[k] = bias as f32;

        let [squares, residuals] = [squares, residuals].map(|sums| sums.iter().sum::<f64>());
        let farthest = farthest.into_iter().fold(0.0, greater);
        let norm = squares.sqrt() * (1.0 + 2f64.powi(-40));
        let residual = residuals.sqrt() * (1.0 + 2f64.powi(-40)) + norm * 2f64.powi(-50);
        let bound = &mut self.bounds[panel / GROUP];
        let rounding = (norm + residual) * ARITHMETIC + extra;
        widen(&mut bound.norm, residual + rounding);
        widen(&mut bound.residual, norm + extra);
        widen(&mut bound.bias, bias.abs() * ARITHMETIC);
        Residual {
            norm: residual,
            farthest,
            rounding,
        }
    }

    /// The packed vectors' own offsets.
    pub fn offsets(&self) -> Offsets<'_> {
        Offsets {
            biases: &self.biases,
            prices: &self.prices,
            bounds: &self.bounds,
            ceilings: &[],
        }
    }

    /// Offsets by biases of the caller's own, one per vector.
    pub fn rebias(&self, biases: impl Iterator<Item = f64>) -> OwnOffsets {
        let mut own = OwnOffsets {
            biases: Aligned::new(f32::MIN, self.biases.len()),
            bounds: self.bounds.clone(),
            ceilings: vec![f32::MIN; self.bounds.len()],
        };
        for bound in &mut own.bounds {
            (bound.bias, bound.price) = (0.0, 0.0);
        }
        for (k, bias) in biases.enumerate() {
            let group = k / LANES / GROUP;
            own.biases[k] = bias as f32;
            own.ceilings[group] = own.ceilings[group].max(own.biases[k]);
            widen(&mut own.bounds[group].bias, bias.abs() * ARITHMETIC);
        }
        own
    }

    /// Sets the prices, one per vector.
    pub fn set_prices(&mut self, prices: impl ExactSizeIterator<Item = f64>) {
        self.prices = Aligned::new(f32::MIN, self.scales.len());
        for bound in &mut self.bounds {
            bound.price = 0.0;
        }
        for (k, price) in prices.enumerate() {
            self.prices[k] = price as f32;
            let bound = &mut self.bounds[k / LANES / GROUP];
            widen(&mut bound.price, price.abs() * ARITHMETIC);
        }
    }
}

/// Float32 arithmetic on a score, relative to the magnitudes that go into it.
const ARITHMETIC: f64 = 1.0 / (1 << 21) as f64;

/// Raises `bound` to `value`, with room for the rounding of sums that it goes into.
fn widen(bound: &mut f32, value: f64) {
    *bound = bound.max(round_up(value * (1.0 + 2f64.powi(-20))));
}

/// See [`Packed::rebias`].
pub struct OwnOffsets {
    biases: Aligned<f32>,
    bounds: Vec<Bound>,
    ceilings: Vec<f32>,
}

impl OwnOffsets {
    /// To search with.
    pub fn offsets(&self) -> Offsets<'_> {
        Offsets {
            biases: &self.biases,
            prices: &[],
            bounds: &self.bounds,
            ceilings: &self.ceilings,
        }
    }
}

/// The vectors' mean, summed in float64.
fn mean_row(data: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; dim];
    for row in data.chunks_exact(dim) {
        for (sum, &v) in sum.iter_mut().zip(row) {
            *sum += f64::from(v);
        }
    }
    let n = (data.len() / dim) as f64;
    sum.into_iter().map(|sum| (sum / n) as f32).collect()
}

/// Folds in eight lanes that start at 0, so that no step waits for the one before.
fn in_lanes(e: &[f64], step: impl Fn(f64, f64) -> f64) -> [f64; 8] {
    let (chunks, rest) = e.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for values in chunks.iter().map(<[f64; 8]>::as_slice).chain([rest]) {
        for (lane, &v) in lanes.iter_mut().zip(values) {
            *lane = step(*lane, v);
        }
    }
    lanes
}

fn squared_norm(e: &[f64]) -> f64 {
    in_lanes(e, |sum, v| sum + v * v).iter().sum()
}

fn greatest_magnitude(e: &[f64]) -> f64 {
    in_lanes(e, |greatest, v| greater(greatest, v.abs()))
        .into_iter()
        .fold(0.0, greater)
}

/// The greater of two, none of which is NaN: what is packed was checked to be finite.
fn greater(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

/// The float32 at or above a positive float64.
fn round_up(value: f64) -> f32 {
    (value as f32).next_up()
}
