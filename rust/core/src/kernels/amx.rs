//! AMX: int8 on tiles, 16,384 multiplications an instruction.
//!
//! A tile is a register of 16 rows of 64 bytes. Sixteen rows of words, 64 coordinates of each, make
//! one tile; sixteen lines of a panel, as they lie in memory, make another; and one instruction adds
//! the products of all sixteen rows with all sixteen vectors to a tile of int32 sums. Two tiles of
//! rows against two of vectors, so that each tile loaded is used twice, take all eight registers.
//!
//! Everything but the sums is [`avx512`]'s: quantising, the way from sums to scores, picking. So
//! are rows that fill no tile, single ones above all. Scores are the same, bit for bit.
//!
//! The algorithm sees the registers through [`Tiles`]. [`Registers`] has one instruction a method;
//! the tests have a model in plain Rust that runs everywhere. The instructions' encodings are held
//! against the manual's, and before this table is offered, [`refusal`] has the tiles multiply
//! matrices whose product is known. `bench/emulated_amx` has an emulated processor run all of it.

#[allow(clippy::wildcard_imports)] // Some ten names, all of them prefixed.
use std::arch::x86_64::*;
use std::arch::{asm, x86_64};
use std::mem::swap;
use std::sync::OnceLock;

use super::packed::{LANES, Line, TILE_STEPS};
use super::search::{Best, Group, Task};
use super::{Isa, Kernels, avx512};

// SAFETY (of the whole table): `Kernels::of` hands it out only where `refusal` finds nothing, hence
// where the CPU has what `avx512` asks for, and AMX, which this process may use. `score` gives the
// registers back before it returns and calls nothing that asks for them.
pub static KERNELS: Kernels = Kernels {
    isa: Isa::Amx,
    block: 2 * PAIR,
    scores: |task, scores, best| unsafe { score::<Registers>(task, scores, best) },
    ..avx512::KERNELS
};

/// Rows of a tile.
const ROWS: usize = 16;
/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;
/// Rows of two tiles.
const PAIR: usize = 2 * ROWS;

/// The eight tile registers, 0 to 7, configured as [`CONFIG`] says until dropped.
///
/// Tile and line numbers are parameters of types, because instructions name registers.
trait Tiles {
    /// Takes the registers.
    ///
    /// # Safety
    /// They must exist, the process must be allowed to use them, and nobody else on this thread may
    /// hold them.
    unsafe fn configure() -> Self;

    /// Sets tile `T` to zero.
    fn zero<const T: usize>(&mut self);

    /// Loads tile `T`, 16 rows of 64 bytes that are `stride` bytes apart.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load<const T: usize>(&mut self, rows: *const u8, stride: usize);

    /// Adds to the int32 sums of tile `C` the products of the rows of tile `A`, signed bytes, with
    /// the columns of tile `B`, unsigned bytes, four to a column and row:
    /// `C[m][n] += sum_k,i A[m][4 k + i] * B[k][4 n + i]`, which wraps around.
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);

    /// Stores tile `T`, as [`Self::load`] loads it.
    ///
    /// # Safety
    /// The rows must be writable.
    unsafe fn store<const T: usize>(&self, rows: *mut u8, stride: usize);
}

/// What is loaded to configure the tiles.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes in a row of each tile; the latter half belongs to tiles that palette 1 has not.
    row_bytes: [u16; 16],
    /// Rows of each tile.
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: first_eight_u16(ROW_BYTES as u16),
    rows: first_eight_u8(ROWS as u8),
};

const fn first_eight_u16(v: u16) -> [u16; 16] {
    [v, v, v, v, v, v, v, v, 0, 0, 0, 0, 0, 0, 0, 0]
}

const fn first_eight_u8(v: u8) -> [u8; 16] {
    [v, v, v, v, v, v, v, v, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The instructions as text: what runs is what the test of encodings looks at.
macro_rules! instruction {
    (configure, $config:literal) => {
        concat!("ldtilecfg [", $config, "]")
    };
    (release) => {
        "tilerelease"
    };
    (zero) => {
        "tilezero tmm{t}"
    };
    (load, $rows:literal, $stride:literal) => {
        concat!("tileloadd tmm{t}, [", $rows, " + ", $stride, "*1]")
    };
    (multiply) => {
        "tdpbsud tmm{c}, tmm{a}, tmm{b}"
    };
    (store, $rows:literal, $stride:literal) => {
        concat!("tilestored [", $rows, " + ", $stride, "*1], tmm{t}")
    };
}

/// The registers themselves.
///
/// They keep their contents from one method to the next because the compiler never uses them: it
/// does so for AMX's intrinsics alone, which this crate has none of. Who has configured them keeps
/// this value on its own thread, whose registers they are, until it drops it.
struct Registers;

impl Tiles for Registers {
    #[inline]
    unsafe fn configure() -> Self {
        // SAFETY: 64 bytes of a valid configuration; the rest is the caller's word.
        unsafe {
            asm!(instruction!(configure, "{config}"), config = in(reg) &raw const CONFIG,
                options(nostack, preserves_flags, readonly));
        }
        Self
    }

    #[inline]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: `self` is the right to use the registers.
        unsafe { asm!(instruction!(zero), t = const T, options(nostack, preserves_flags, nomem)) }
    }

    #[inline]
    unsafe fn load<const T: usize>(&mut self, rows: *const u8, stride: usize) {
        // SAFETY: as above, and what the caller says of the rows.
        unsafe {
            asm!(instruction!(load, "{rows}", "{stride}"), t = const T, rows = in(reg) rows, stride = in(reg) stride,
                options(nostack, preserves_flags, readonly));
        }
    }

    #[inline]
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: as above; A's row has as many bytes as four times B's rows.
        unsafe {
            asm!(instruction!(multiply), c = const C, a = const A, b = const B,
                options(nostack, preserves_flags, nomem));
        }
    }

    #[inline]
    unsafe fn store<const T: usize>(&self, rows: *mut u8, stride: usize) {
        // SAFETY: as above, and what the caller says of the rows.
        unsafe {
            asm!(instruction!(store, "{rows}", "{stride}"), t = const T, rows = in(reg) rows, stride = in(reg) stride,
                options(nostack, preserves_flags));
        }
    }
}

impl Drop for Registers {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: whoever configured the registers had the right to use them.
        unsafe {
            asm!(
                instruction!(release),
                options(nostack, preserves_flags, nomem)
            );
        }
    }
}

/// Int32 sums of 32 rows with 32 vectors.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([[[i32; LANES]; 2]; PAIR]);

impl Sums {
    const ZERO: Self = Self([[[0; LANES]; 2]; PAIR]);
}

/// Sums that `products` makes at a time: up to two tiles of rows, up to two panels.
#[derive(Clone, Copy)]
struct Block {
    row: usize,
    tall: bool,
    panel: usize,
    wide: bool,
}

/// All of `rows` (whole tiles) and `panels`, panels in the outer loop: two of them stay in L1 while
/// the rows pass.
fn blocks(rows: usize, panels: usize) -> impl Iterator<Item = Block> {
    let at = move |panel| (0..rows).step_by(PAIR).map(move |row| (row, panel));
    let blocks = (0..panels).step_by(2).flat_map(at);
    blocks.map(move |(row, panel)| Block {
        row,
        tall: row + PAIR <= rows,
        panel,
        wide: panel + 2 <= panels,
    })
}

/// Scores of a task. While the tiles multiply one block, the vector units turn the sums of the
/// block before it into scores; hence two sets of sums.
///
/// # Safety
/// As [`Tiles::configure`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn score<T: Tiles>(task: &Task<'_>, scores: &mut [f32], best: &mut [Best]) {
    let whole = task.rows.len() / ROWS * ROWS;
    if whole > 0 {
        // SAFETY: the caller's word; they are dropped before anybody else could ask for them.
        let mut tiles = unsafe { T::configure() };
        let mut sums = [Sums::ZERO; 2];
        let [mut now, mut before] = sums.each_mut();
        let mut waiting: Option<Block> = None;
        for block in blocks(whole, task.panels) {
            multiply(&mut tiles, task, block, now);
            if let Some(block) = waiting.replace(block) {
                finish(task, block, before, scores, best);
            }
            swap(&mut now, &mut before);
        }
        if let Some(block) = waiting {
            finish(task, block, before, scores, best);
        }
    }
    if whole < task.rows.len() {
        let rest = Task {
            rows: &task.rows[whole..],
            words: &task.words[whole * task.packed.row_stride..],
            ..*task
        };
        let scores = &mut scores[whole * task.panels * LANES..];
        avx512::score(&rest, scores, &mut best[whole..]);
    }
}

fn multiply<T: Tiles>(tiles: &mut T, task: &Task<'_>, block: Block, sums: &mut Sums) {
    let (stride, steps) = (task.packed.row_stride, task.packed.steps);
    let words = &task.words[block.row * stride..];
    let lines = task.panels_from(block.panel);
    match (block.tall, block.wide) {
        (true, true) => products::<T, true, true>(tiles, words, stride, lines, steps, sums),
        (true, false) => products::<T, true, false>(tiles, words, stride, lines, steps, sums),
        (false, true) => products::<T, false, true>(tiles, words, stride, lines, steps, sums),
        (false, false) => products::<T, false, false>(tiles, words, stride, lines, steps, sums),
    }
}

/// Sums of one or, if `TALL`, two tiles of rows with one or, if `WIDE`, two panels.
///
/// Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 vectors. Where `steps` is no multiple of 16, the
/// last tile of vectors holds lines of what follows the panel; the words that meet them are zero.
#[inline]
fn products<T: Tiles, const TALL: bool, const WIDE: bool>(
    tiles: &mut T,
    words: &[i32],
    stride: usize,
    lines: &[Line],
    steps: usize,
    sums: &mut Sums,
) {
    let rows = if TALL { PAIR } else { ROWS };
    let second_panel = if WIDE { steps } else { 0 };
    let reach = steps.next_multiple_of(TILE_STEPS);
    assert!(reach <= stride && words.len() >= rows * stride);
    assert!(lines.len() >= second_panel + reach);
    let row_bytes = size_of_val(&words[..stride]);

    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for step in (0..steps).step_by(TILE_STEPS) {
        let words = |row: usize| words[row * stride + step..].as_ptr().cast::<u8>();
        let lines = |panel: usize| lines[panel + step..].as_ptr().cast::<u8>();
        // SAFETY: a tile takes `TILE_STEPS` words of 16 rows, or as many lines, from `step` on, a
        // multiple of as many below `steps`: none beyond `reach`, which the assertions above say
        // there are.
        unsafe {
            tiles.load::<4>(words(0), row_bytes);
            tiles.load::<6>(lines(0), size_of::<Line>());
            tiles.multiply::<0, 4, 6>();
            if WIDE {
                tiles.load::<7>(lines(second_panel), size_of::<Line>());
                tiles.multiply::<1, 4, 7>();
            }
            if TALL {
                tiles.load::<5>(words(ROWS), row_bytes);
                tiles.multiply::<2, 5, 6>();
            }
            if TALL && WIDE {
                tiles.multiply::<3, 5, 7>();
            }
        }
    }
    let sums_stride = size_of_val(&sums.0[0]);
    // All pointers are made of one to all sums: a tile's rows go beyond the one that it starts at.
    let quarters = sums.0.as_mut_ptr().cast::<[i32; LANES]>();
    // SAFETY: 16 rows of 64 bytes each, `sums_stride` apart, are a quarter of `sums`, in which two
    // panels' lanes follow each other.
    unsafe {
        tiles.store::<0>(quarters.cast(), sums_stride);
        tiles.store::<1>(quarters.add(1).cast(), sums_stride);
        tiles.store::<2>(quarters.add(2 * ROWS).cast(), sums_stride);
        tiles.store::<3>(quarters.add(2 * ROWS + 1).cast(), sums_stride);
    }
}

/// From a block's sums to scores, and to the greatest lower bounds.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn finish(task: &Task<'_>, block: Block, sums: &Sums, scores: &mut [f32], best: &mut [Best]) {
    if block.wide {
        finish_panels::<2>(task, block, sums, scores, best);
    } else {
        finish_panels::<1>(task, block, sums, scores, best);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn finish_panels<const P: usize>(
    task: &Task<'_>,
    block: Block,
    sums: &Sums,
    scores: &mut [f32],
    best: &mut [Best],
) {
    let group = Group::<P>::of(task, block.panel);
    let rows = if block.tall { PAIR } else { ROWS };
    for (sums, at) in sums.0[..rows].iter().zip(block.row..) {
        let start = _mm512_set1_epi32(task.rows[at].start);
        // SAFETY: 64 bytes, aligned to 64.
        let load = |p: usize| unsafe { _mm512_load_si512(sums[p].as_ptr().cast()) };
        let sums: [__m512i; P] = std::array::from_fn(|p| _mm512_add_epi32(load(p), start));
        let scores = task.scores_at::<P>(scores, at, block.panel);
        avx512::finish(&group, &task.rows[at], &sums, scores, &mut best[at]);
    }
}

/// Why this table cannot be used here, if it cannot. Asked once per process.
pub fn refusal() -> Option<&'static str> {
    static REFUSAL: OnceLock<Option<&'static str>> = OnceLock::new();
    *REFUSAL.get_or_init(|| {
        if !avx512::is_available() || !has_tiles() {
            Some("this CPU has no int8 tiles")
        } else if !has_tile_state() {
            Some("the operating system does not keep tiles")
        } else if !is_permitted() {
            Some("the operating system refuses tiles to this process")
        // SAFETY: the three conditions above.
        } else if !unsafe { multiplies_right::<Registers>() } {
            Some("its tiles give a wrong product")
        } else {
            None
        }
    })
}

/// Whether the CPU has AMX with int8, and tiles of the size that [`CONFIG`] asks for.
fn has_tiles() -> bool {
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const FEATURES: u32 = 7;
    const TILES: u32 = 0x1d;
    // Not unsafe in recent versions of Rust.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 CPU has the instruction.
    let cpuid = |leaf, part| unsafe { x86_64::__cpuid_count(leaf, part) };
    if cpuid(0, 0).eax < TILES {
        return false;
    }
    let features = cpuid(FEATURES, 0).edx;
    let palette = cpuid(TILES, 1);
    features & AMX_TILE != 0
        && features & AMX_INT8 != 0
        && palette.ebx & 0xffff == ROW_BYTES as u32
        && palette.ebx >> 16 >= 8
        && palette.ecx & 0xffff == ROWS as u32
}

/// Whether the operating system saves the tiles' configuration and data.
fn has_tile_state() -> bool {
    const TILE_STATE: u64 = 0b11 << 17;
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: register 0 is there wherever XGETBV is.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: asked only where there is AVX-512, which needs OSXSAVE.
    is_x86_feature_detected!("xsave") && unsafe { saved() } & TILE_STATE == TILE_STATE
}

/// Asks Linux for leave to use tile data, which holds for all threads of the process and for its
/// forked children.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: a request without pointers; where it is not known it fails.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Whether the tiles multiply matrices of all byte values, over more than one step, as integers do.
///
/// # Safety
/// As [`Tiles::configure`].
unsafe fn multiplies_right<T: Tiles>() -> bool {
    const STEPS: usize = TILE_STEPS + 5;
    const STRIDE: usize = 2 * TILE_STEPS;
    let byte = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8;
    let mut words = [0i32; PAIR * STRIDE];
    for (row, words) in words.chunks_exact_mut(STRIDE).enumerate() {
        for (step, word) in words[..STEPS].iter_mut().enumerate() {
            *word = i32::from_le_bytes(std::array::from_fn(|i| byte(997 * row + 4 * step + i)));
        }
    }
    let line = |s: usize| {
        Line(std::array::from_fn(|lane| {
            std::array::from_fn(|i| byte(4099 * s + 4 * lane + i + 7))
        }))
    };
    let lines: [Line; STEPS + STRIDE] = std::array::from_fn(line);
    let mut sums = Sums::ZERO;
    {
        // SAFETY: the caller's word.
        let mut tiles = unsafe { T::configure() };
        products::<T, true, true>(&mut tiles, &words, STRIDE, &lines, STEPS, &mut sums);
    }
    let expected = |row: usize, panel: usize, lane: usize| -> i32 {
        let words = &words[row * STRIDE..][..STEPS];
        let dot = |(word, line): (&i32, &Line)| -> i32 {
            let bytes = word.to_le_bytes().into_iter().zip(line.0[lane]);
            bytes.map(|(a, b)| i32::from(a as i8) * i32::from(b)).sum()
        };
        words.iter().zip(&lines[panel * STEPS..]).map(dot).sum()
    };
    let sums = sums.0.iter().enumerate();
    sums.flat_map(|(row, sums)| sums.iter().enumerate().map(move |(p, s)| (row, p, s)))
        .all(|(row, p, sums)| (0..LANES).all(|lane| sums[lane] == expected(row, p, lane)))
}

#[cfg(test)]
pub mod tests;
