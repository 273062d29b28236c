//! AMX where there is none: a model of the tile registers runs the algorithm, and the instructions'
//! bytes are compared with the manual's. Where there is AMX, the registers run it too.

use std::cell::Cell;

use proptest::prelude::*;

use super::super::packed::{Packed, Precision};
use super::super::search::Task;
use super::super::{PackedPool, Weights, portable};
use super::*;
use crate::clusters::centroids::Centroids;
use crate::sys::threads::Run;

/// The registers as Intel's manual describes them (palette 1), in plain Rust. It stops where the
/// CPU would raise an exception.
struct Model {
    row_bytes: [usize; 8],
    rows: [usize; 8],
    tiles: [[[u8; ROW_BYTES]; ROWS]; 8],
}

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

impl Tiles for Model {
    unsafe fn configure() -> Self {
        assert!(!HELD.replace(true), "configured twice");
        assert_eq!(size_of::<Config>(), 64);
        // SAFETY: plain bytes, without padding.
        let config: [u8; 64] = unsafe { std::mem::transmute(CONFIG) };
        assert_eq!(config[0], 1, "palette");
        assert_eq!(config[1..16], [0; 15], "start row, reserved bytes");
        assert_eq!(
            config[32..48],
            [0; 16],
            "row bytes of tiles that are not there"
        );
        assert_eq!(config[56..64], [0; 8], "rows of tiles that are not there");
        let row_bytes =
            |t: usize| usize::from(u16::from_le_bytes([config[16 + 2 * t], config[17 + 2 * t]]));
        let model = Self {
            row_bytes: std::array::from_fn(row_bytes),
            rows: std::array::from_fn(|t| usize::from(config[48 + t])),
            tiles: [[[0; ROW_BYTES]; ROWS]; 8],
        };
        assert!(model.row_bytes.iter().all(|&bytes| bytes <= ROW_BYTES));
        assert!(model.rows.iter().all(|&rows| rows <= ROWS));
        model
    }

    fn zero<const T: usize>(&mut self) {
        self.tiles[T] = [[0; ROW_BYTES]; ROWS];
    }

    unsafe fn load<const T: usize>(&mut self, rows: *const u8, stride: usize) {
        self.zero::<T>();
        for row in 0..self.rows[T] {
            for byte in 0..self.row_bytes[T] {
                // SAFETY: the caller's word.
                self.tiles[T][row][byte] = unsafe { rows.add(row * stride + byte).read() };
            }
        }
    }

    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        assert!(C != A && A != B && B != C, "three different tiles");
        assert_eq!(self.row_bytes[C], self.row_bytes[B]);
        assert_eq!(self.rows[C], self.rows[A]);
        assert_eq!(self.row_bytes[A], 4 * self.rows[B]);
        let (a, b) = (self.tiles[A], self.tiles[B]);
        for row in 0..self.rows[C] {
            for column in 0..self.row_bytes[C] / 4 {
                let mut sum = i32::from_le_bytes(*word(&self.tiles[C][row], column));
                for k in 0..self.rows[B] {
                    for (&a, &b) in word(&a[row], k).iter().zip(word(&b[k], column)) {
                        sum = sum.wrapping_add(i32::from(a as i8) * i32::from(b));
                    }
                }
                self.tiles[C][row][4 * column..][..4].copy_from_slice(&sum.to_le_bytes());
            }
            self.tiles[C][row][self.row_bytes[C]..].fill(0);
        }
        self.tiles[C][self.rows[C]..].fill([0; ROW_BYTES]);
    }

    unsafe fn store<const T: usize>(&self, rows: *mut u8, stride: usize) {
        for row in 0..self.rows[T] {
            for byte in 0..self.row_bytes[T] {
                // SAFETY: the caller's word.
                unsafe {
                    rows.add(row * stride + byte)
                        .write(self.tiles[T][row][byte]);
                };
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

/// Four bytes of a row of a tile.
fn word(row: &[u8; ROW_BYTES], at: usize) -> &[u8; 4] {
    &row.as_chunks().0[at]
}

/// A model that takes the rows for unsigned and the vectors for signed.
struct Swapped(Model);

impl Tiles for Swapped {
    unsafe fn configure() -> Self {
        // SAFETY: the model has no conditions.
        Self(unsafe { Model::configure() })
    }
    fn zero<const T: usize>(&mut self) {
        self.0.zero::<T>();
    }
    unsafe fn load<const T: usize>(&mut self, rows: *const u8, stride: usize) {
        // SAFETY: the caller's word.
        unsafe { self.0.load::<T>(rows, stride) }
        for byte in self.0.tiles[T].as_flattened_mut() {
            *byte = byte.wrapping_add(128);
        }
    }
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.0.multiply::<C, A, B>();
    }
    unsafe fn store<const T: usize>(&self, rows: *mut u8, stride: usize) {
        // SAFETY: the caller's word.
        unsafe { self.0.store::<T>(rows, stride) }
    }
}

// SAFETY: handed out by `model` alone, where `Kernels::of` would hand out the table of `avx512`.
static MODEL: Kernels = Kernels {
    scores: |task, scores, lower| unsafe { score::<Model>(task, scores, lower) },
    ..KERNELS
};

/// The table with the model in the place of the registers, where the rest of it can run.
pub fn model() -> Option<&'static Kernels> {
    let available = super::super::refusal(Isa::Avx512).is_none();
    if !available {
        eprintln!("not tested: AMX's algorithm, because this CPU has no AVX-512 with VNNI");
    }
    available.then_some(&MODEL)
}

/// The model's table, and that of the registers where this process may use them.
fn tables() -> impl Iterator<Item = &'static Kernels> {
    let registers = refusal().is_none().then_some(&KERNELS);
    model().into_iter().chain(registers)
}

/// The bytes of an instruction, which is jumped over.
macro_rules! encoding {
    (($($instruction:tt)*), $($operand:tt)*) => {{
        let (start, end): (*const u8, *const u8);
        // SAFETY: the instruction does not run, and its bytes may be read, as all code.
        unsafe {
            asm!(
                "lea {start}, [rip + 2f]",
                "lea {end}, [rip + 3f]",
                "jmp 3f",
                "2:",
                instruction!($($instruction)*),
                "3:",
                start = out(reg) start,
                end = out(reg) end,
                $($operand)*
            );
            std::slice::from_raw_parts(start, end.offset_from(start) as usize).to_vec()
        }
    }};
}

/// Intel SDM volume 2, VEX.128 and map 0F38 (so `C4 E2`) each:
/// LDTILECFG `NP.W0 49 !(11):000:bbb`, TILERELEASE `NP.W0 49 C0`, TILEZERO `F2.W0 49 11:rrr:000`,
/// TILELOADD `F2.W0 4B !(11):rrr:100`, TILESTORED `F3.W0 4B !(11):rrr:100`,
/// TDPBSUD `F3.W0 5E 11:rrr:bbb`, where ModRM.reg is the sums, ModRM.r/m the signed operand and
/// VEX.vvvv the unsigned one.
#[test]
#[cfg_attr(miri, ignore = "Miri has no assembler")]
fn instructions_have_the_manuals_encodings() {
    assert_eq!(
        encoding!((configure, "rdi"),),
        [0xc4, 0xe2, 0x78, 0x49, 0x07]
    );
    assert_eq!(encoding!((release),), [0xc4, 0xe2, 0x78, 0x49, 0xc0]);
    assert_eq!(
        encoding!((zero), t = const 0),
        [0xc4, 0xe2, 0x7b, 0x49, 0xc0]
    );
    assert_eq!(
        encoding!((zero), t = const 3),
        [0xc4, 0xe2, 0x7b, 0x49, 0xd8]
    );
    // SIB: scale 1, index rdx, base rsi.
    assert_eq!(
        encoding!((load, "rsi", "rdx"), t = const 5),
        [0xc4, 0xe2, 0x7b, 0x4b, 0b00_101_100, 0b00_010_110]
    );
    assert_eq!(
        encoding!((store, "rsi", "rdx"), t = const 2),
        [0xc4, 0xe2, 0x7a, 0x4b, 0b00_010_100, 0b00_010_110]
    );
    for (found, sums, signed, unsigned) in [
        (
            encoding!((multiply), c = const 0, a = const 4, b = const 6),
            0,
            4,
            6,
        ),
        (
            encoding!((multiply), c = const 1, a = const 4, b = const 7),
            1,
            4,
            7,
        ),
        (
            encoding!((multiply), c = const 2, a = const 5, b = const 6),
            2,
            5,
            6,
        ),
        (
            encoding!((multiply), c = const 3, a = const 5, b = const 7),
            3,
            5,
            7u8,
        ),
    ] {
        let vex = (!unsigned & 0xf) << 3 | 0b10;
        assert_eq!(
            found,
            [0xc4, 0xe2, vex, 0x5e, 0b11 << 6 | sums << 3 | signed]
        );
    }
}

#[test]
fn detection_tells_a_right_product_from_a_wrong_one() {
    // SAFETY: models have no conditions.
    unsafe {
        assert!(multiplies_right::<Model>());
        assert!(!multiplies_right::<Swapped>());
    }
}

#[test]
fn tiles_are_given_back() {
    // SAFETY: as above.
    drop(unsafe { Model::configure() });
    assert!(!HELD.get());
}

/// Numbers that look random, and are the same in every run.
fn noise(n: usize, salt: usize) -> Vec<f32> {
    let mix = |i: usize| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (salt << 17));
    (0..n)
        .map(|i| ((mix(i) >> 40) as f32) / (1 << 23) as f32 - 1.0)
        .collect()
}

/// Labels of rows of a shape and kind of their own.
fn labels(kernels: &'static Kernels, salt: usize) -> Vec<u32> {
    let (n, count, dim) = (100, 40 + salt, 60 + 7 * salt);
    let centroids = Centroids::with_kernels(&noise(count * dim, salt), dim, kernels).unwrap();
    let mut labels = vec![0; n];
    let run = Run {
        threads: 1,
        ..Run::default()
    };
    let x = noise(n * dim, salt + 1);
    centroids.assign(&x, &mut labels, None, &run).unwrap();
    labels
}

/// More threads than cores, so that one is stopped between its instructions and another gets the
/// registers: each finds its own as it left them.
#[test]
fn threads_keep_their_tiles() {
    let threads = 2 * std::thread::available_parallelism()
        .map_or(4, usize::from)
        .max(4);
    for kernels in tables() {
        let check = |salt| {
            let expected = labels(&portable::KERNELS, salt);
            for _ in 0..20 {
                assert_eq!(labels(kernels, salt), expected);
            }
        };
        std::thread::scope(|scope| {
            for salt in 0..threads {
                scope.spawn(move || check(salt));
            }
        });
    }
}

/// The leave to use tiles, once given, is a forked child's too.
#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_uses_tiles() {
    if let Some(problem) = refusal() {
        eprintln!("not tested: tiles of a forked child, because {problem}");
        return;
    }
    let expected = labels(&portable::KERNELS, 1);
    // SAFETY: the child starts no thread, and leaves without running what the parent set up.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let right = std::panic::catch_unwind(|| labels(&KERNELS, 1) == expected);
        // SAFETY: always allowed.
        unsafe { libc::_exit(i32::from(!right.unwrap_or(false))) };
    }
    assert!(child > 0, "cannot fork");
    let mut status = -1;
    // SAFETY: a child of this process and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child's labels are wrong, or it died");
    assert_eq!(labels(&KERNELS, 1), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Sums, hence scores, are those of VNNI to the last bit: the same numbers by another way.
    #[test]
    fn scores_are_those_of_avx512(
        dim in 1usize..260,
        count in 1usize..150,
        n in 1usize..100,
        first in 0usize..2,
        salt in 0usize..1000,
    ) {
        if !avx512::is_available() {
            return Ok(()); // `model` has said so.
        }
        let packed = Packed::centroids(&noise(count * dim, salt), dim, Precision::Int8).unwrap();
        let x = noise(n * dim, salt + 1);
        let mut words = vec![-1; n * packed.row_stride];
        let rows: Vec<_> = x
            .chunks_exact(dim)
            .zip(words.chunks_exact_mut(packed.row_stride))
            .map(|(x, words)| (avx512::KERNELS.quantise)(&packed, x, words).unwrap())
            .collect();
        let panels = count.div_ceil(LANES);
        let first = if panels > 4 { 4 * first } else { 0 };
        let task = Task {
            packed: &packed,
            offsets: packed.offsets(),
            first,
            panels: panels - first,
            rows: &rows,
            words: &words,
            ahead: &[],
        };
        let run = |kernels: &Kernels| {
            let mut scores = vec![f32::NAN; n * task.panels * LANES];
            let mut best = vec![Best::default(); n];
            (kernels.scores)(&task, &mut scores, &mut best);
            (scores, best.iter().map(|best| (best.lower, best.promising)).collect::<Vec<_>>())
        };
        for kernels in tables() {
            prop_assert_eq!(run(kernels), run(&avx512::KERNELS));
        }
    }

    /// Labels and distances are those of float64 brute force; so are single rows'.
    #[test]
    fn assignments_are_those_of_float64(
        dim in 1usize..150,
        count in 1usize..120,
        n in 0usize..150,
        kind in 0usize..4,
        salt in 0usize..1000,
    ) {
        let (mut data, mut x) = (noise(count * dim, salt), noise(n * dim, salt + 1));
        match kind {
            // Ties: few values, centroids that are the same.
            0 => data.iter_mut().chain(&mut x).for_each(|v| *v = v.round()),
            // Rows close to their centroids, and far from the origin.
            1 => {
                for (i, x) in x.iter_mut().enumerate() {
                    *x = data[i % data.len()] + 0.01 * *x + 1e4;
                }
                for v in &mut data {
                    *v += 1e4;
                }
            }
            // Norms of all sizes.
            2 => {
                for (i, v) in data.iter_mut().chain(&mut x).enumerate() {
                    *v *= 10f32.powi((i / dim) as i32 % 37 - 18);
                }
            }
            _ => {}
        }
        for kernels in tables() {
            let centroids = Centroids::with_kernels(&data, dim, kernels).unwrap();
            let (mut labels, mut distances) = (vec![0; n], vec![0.0; n]);
            centroids.assign(&x, &mut labels, Some(&mut distances), &Run::default()).unwrap();
            for (i, x) in x.chunks_exact(dim).enumerate() {
                let all = data.chunks_exact(dim).map(|c| portable::squared_distance(x, c));
                let best = all.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
                let best = (best.0 as u32, best.1 as f32);
                prop_assert_eq!((labels[i], distances[i]), best);
                if i < 3 {
                    prop_assert_eq!(centroids.nearest(x).unwrap(), best);
                }
            }
        }
    }

    /// Winners of mixtures are those of the portable table, which follows the definition.
    #[test]
    fn winners_are_those_of_portable(
        clusters in 1usize..80,
        llms in 1usize..300,
        n in 1usize..120,
        weight in prop_oneof![Just(0.0), 0.0f64..2.0],
        salt in 0usize..1000,
    ) {
        let psi = noise(clusters * llms, salt);
        let costs: Vec<f64> = noise(llms, salt + 1).into_iter().map(|v| f64::from(v.abs())).collect();
        let phi: Vec<f32> = noise(n * clusters, salt + 2).into_iter().map(|v| v.max(0.0)).collect();
        let best = 3.min(llms);
        let run = |kernels| {
            let pool = PackedPool::with_kernels(&psi, &costs, kernels).unwrap();
            let (mut winners, mut losses) = (vec![0; n * best], vec![0.0; n * best]);
            let weights = Weights::Same(weight);
            pool.best(&phi, weights, best, &mut winners, Some(&mut losses), &Run::default()).unwrap();
            (winners, losses)
        };
        for kernels in tables() {
            prop_assert_eq!(run(kernels), run(&portable::KERNELS));
        }
    }
}
