//! Text to embedding.
//!
//! A text's n-grams ([`features`]) find rows of a table ([`Vocabulary`]); the embedding is their
//! weighted sum, scaled to a Euclidean norm of one. The table comes from a truncated SVD of
//! training texts or from ridge regression onto a teacher's vectors; its rows already hold the
//! inverse document frequency, so a weight depends on the feature's count alone: `1 + ln count`,
//! in sixteenths. Rows are int8 with one scale for each column. Sums are thus of integers, exact
//! in any order, and the embedding is the same, bit for bit, on every instruction set and thread
//! count, alone or in a batch.

// What runs for every token is compiled once for each instruction set, inside
// `kernels::text::run`; only inlining it there makes it so.
#![allow(clippy::inline_always)]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::file::artifact::Artifact;
use crate::file::errors::damaged;
use crate::file::tensor::Tensor;
use crate::kernels::text::{COLUMNS, Lexical, Line, Work, prefetch, run};
use crate::kernels::{Isa, Kernels};
use crate::sys::threads::Run;

use super::counter::Counter;
use super::features::MAX_ORDER;
pub use super::status::{Embedded, Status};
pub use super::vocabulary::Vocabulary;

/// Largest number of dimensions.
pub const MAX_DIM: usize = 4096;

/// A step of a column is worth at most this: then the squares of the largest sums stay finite.
const LARGEST_SCALE: f32 = 1e6;

/// Texts of a batch that a thread takes at once; fewer are not worth a second thread.
pub const TEXTS_PER_TASK: usize = 64;

/// Lanes in which the squares of a norm are summed, the same everywhere.
const LANES: usize = 16;

/// Memory that [`LexicalEmbedder::embed`] works in; after a first call with an embedder, further
/// ones with the same allocate nothing.
#[derive(Default)]
pub struct Scratch {
    counter: Counter,
    sums: Vec<[i32; COLUMNS]>,
}

/// Maps texts to vectors by hashed n-grams and a table. Immutable; share it between threads.
#[derive(Clone)]
pub struct LexicalEmbedder {
    order: usize,
    vocabulary: Vocabulary,
    /// Each row on lines of its own, the last one filled up with zeros.
    table: Vec<Line>,
    /// [dim]: what one step of a column is worth.
    scales: Vec<f32>,
    /// What the fit has to say of itself; kept, never read.
    info: Value,
    kernels: &'static Kernels,
}

/// The work of [`LexicalEmbedder::embed`].
struct Embed<'a> {
    embedder: &'a LexicalEmbedder,
    text: &'a str,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Work for Embed<'_> {
    type Output = Embedded;

    #[inline(always)]
    fn run<L: Lexical>(self) -> Embedded {
        self.embedder
            .embed_with::<L>(self.text, self.out, self.scratch)
    }
}

/// What an artifact's manifest says of an embedder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    feature_version: u32,
    ngrams: usize,
    unknown_idf: u8,
    info: Value,
}

impl LexicalEmbedder {
    /// An embedder from `table`, [rows, dim] row-major: what each feature adds to the embedding
    /// when it occurs once, inverse document frequency included. Values are rounded to int8, in
    /// steps of a 127th of the largest in their column.
    /// `info` is kept beside the table: whatever the fit has to say of itself.
    pub fn new(
        vocabulary: Vocabulary,
        order: usize,
        table: &[f32],
        dim: usize,
        info: Value,
    ) -> Result<Self> {
        check_order(order)?;
        check_dim(dim)?;
        if table.len() != vocabulary.rows() * dim {
            return Err(Error::invalid(
                "table",
                format!("{} values", table.len()),
                format!("{} rows of {dim}", vocabulary.rows()),
            ));
        }
        let largest = 127.0 * LARGEST_SCALE;
        let fits = |v: &f32| v.abs() <= largest;
        if let Some(at) = table.iter().position(|v| !fits(v)) {
            return Err(Error::invalid(
                "table",
                format!("{} in row {}, column {}", table[at], at / dim, at % dim),
                format!("finite values, {largest:e} at most"),
            ));
        }
        let mut scales = vec![0f32; dim];
        for row in table.chunks_exact(dim) {
            for (scale, value) in scales.iter_mut().zip(row) {
                *scale = scale.max(value.abs());
            }
        }
        for scale in &mut scales {
            *scale /= 127.0;
        }
        let quantise = |(value, scale): (&f32, &f32)| {
            if *scale > 0.0 {
                (value / scale).round().clamp(-127.0, 127.0) as i8
            } else {
                0
            }
        };
        let table = table
            .chunks_exact(dim)
            .flat_map(|row| row.iter().zip(&scales).map(quantise));
        Ok(Self {
            order,
            vocabulary,
            table: lines(&table.collect::<Vec<_>>(), dim),
            scales,
            info,
            kernels: Kernels::active(),
        })
    }

    /// The same embedder on another instruction set; an error if this CPU lacks it.
    pub fn with_isa(mut self, isa: Isa) -> Result<Self> {
        self.kernels = Kernels::of(isa)?;
        Ok(self)
    }

    /// Dimensions of an embedding.
    pub fn dim(&self) -> usize {
        self.scales.len()
    }

    /// Lines of the table that a row takes.
    fn lines(&self) -> usize {
        self.dim().div_ceil(COLUMNS)
    }

    /// Highest order of the n-grams in use.
    pub fn order(&self) -> usize {
        self.order
    }

    /// What the fit had to say of itself.
    pub fn info(&self) -> &Value {
        &self.info
    }

    /// The same embedder with something else to say of its fit.
    #[must_use]
    pub fn with_info(&self, info: Value) -> Self {
        Self {
            info,
            ..self.clone()
        }
    }

    /// Which features have which rows.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Embeds one text into `out`: a vector of norm one, or zeros where the status is not ok.
    ///
    /// Takes time in proportion to the text, and memory that does not depend on it.
    ///
    /// # Panics
    /// If `out` does not have [`Self::dim`] elements.
    pub fn embed(&self, text: &str, out: &mut [f32], scratch: &mut Scratch) -> Embedded {
        assert_eq!(out.len(), self.dim(), "out");
        run(
            self.kernels,
            Embed {
                embedder: self,
                text,
                out,
                scratch,
            },
        )
    }

    #[inline(always)]
    fn embed_with<L: Lexical>(
        &self,
        text: &str,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Embedded {
        out.fill(0.0);
        let Scratch { counter, sums } = scratch;
        let (seen, rows, weights) =
            counter.count::<L>(text, self.order, &self.vocabulary, |rows| {
                L::prefetch(&self.table, rows, self.lines());
            });
        if seen.known == 0 {
            return Embedded::none(match (seen.unknown, text.is_empty()) {
                (0, true) => Status::Empty,
                (0, false) => Status::Blank,
                _ => Status::Unknown,
            });
        }
        sums.clear();
        sums.resize(self.lines(), [0; COLUMNS]);
        L::add_rows(&self.table, rows, weights, sums);
        for ((out, &sum), scale) in out.iter_mut().zip(sums.as_flattened()).zip(&self.scales) {
            *out = sum as f32 * scale;
        }
        if !normalise(out) {
            return Embedded::none(Status::Unknown);
        }
        let coverage = seen.known as f64 / (seen.known + seen.unknown) as f64;
        Embedded {
            status: Status::Ok,
            coverage: coverage as f32,
        }
    }

    /// Embeds one text as [`Self::embed`] does, or gives the status of what is none.
    pub fn embed_row(
        &self,
        text: Result<&str, Status>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Embedded {
        match text {
            Ok(text) => self.embed(text, out, scratch),
            Err(status) => {
                out.fill(0.0);
                Embedded::none(status)
            }
        }
    }

    /// Embeds many texts, or gives the status of those that are none: `out` is [texts, dim],
    /// `embedded` [texts].
    pub fn embed_batch(
        &self,
        texts: &[Result<&str, Status>],
        out: &mut [f32],
        embedded: &mut [Embedded],
        run: &Run<'_>,
    ) -> Result<()> {
        let dim = self.dim();
        if out.len() != texts.len() * dim || embedded.len() != texts.len() {
            return Err(Error::invalid(
                "out",
                format!("{} values and {} rows", out.len(), embedded.len()),
                format!("{} texts of {dim}", texts.len()),
            ));
        }
        let tasks = texts
            .chunks(TEXTS_PER_TASK)
            .zip(out.chunks_mut(TEXTS_PER_TASK * dim))
            .zip(embedded.chunks_mut(TEXTS_PER_TASK));
        run.for_each(
            tasks,
            Scratch::default,
            |scratch, ((texts, out), embedded)| {
                let outs = out.chunks_exact_mut(dim).zip(embedded);
                for (i, (out, embedded)) in outs.enumerate() {
                    if let Some(Ok(next)) = texts.get(i + 1) {
                        prefetch(next.as_bytes());
                    }
                    *embedded = self.embed_row(texts[i], out, scratch);
                }
                Ok(())
            },
        )
    }

    /// Whether two are the same, part by part. O(size).
    pub fn is_same(&self, other: &Self) -> bool {
        self.params() == other.params() && self.tensors() == other.tensors()
    }

    /// This embedder without the rarest features that it knows: to a text that it was fitted on, what
    /// it would be if it had not been fitted on that text, whose rarest features would be unknown.
    pub fn without_rarest(&self) -> Result<Self> {
        let idf = self.vocabulary.idf();
        let rarest = idf.iter().copied().max().unwrap_or(0);
        let common = |row: usize| idf[row] < rarest;
        let tags: Vec<u16> = (self.vocabulary.tags().enumerate())
            .map(|(row, tag)| if common(row) { tag } else { 0 })
            .collect();
        let kept: Vec<u8> = (0..idf.len())
            .map(|row| if common(row) { idf[row] } else { 0 })
            .collect();
        let vocabulary = Vocabulary::from_parts(&tags, &kept, self.vocabulary.unknown_idf())?;
        Ok(Self {
            vocabulary,
            ..self.clone()
        })
    }

    /// What an artifact's manifest has to say beside [`Self::tensors`].
    pub fn params(&self) -> Value {
        json!({
            "feature_version": super::features::VERSION,
            "ngrams": self.order,
            "unknown_idf": self.vocabulary.unknown_idf(),
            "info": self.info,
        })
    }

    /// `tags` uint16 [rows] and `idf` uint8 [rows], in sixteenths, zero in free rows; `table` int8
    /// [rows, dim]; `scales` float32 [dim].
    pub fn tensors(&self) -> [(&'static str, Tensor); 4] {
        let (rows, dim) = (self.vocabulary.rows(), self.dim());
        let table_rows = self.table.chunks_exact(self.lines());
        let table = table_rows.flat_map(|row| row.iter().flat_map(|line| line.0).take(dim));
        [
            ("tags", Tensor::new(&[rows], self.vocabulary.tags())),
            (
                "idf",
                Tensor::new(&[rows], self.vocabulary.idf().iter().copied()),
            ),
            ("table", Tensor::new(&[rows, dim], table)),
            ("scales", Tensor::new(&[dim], self.scales.iter().copied())),
        ]
    }

    /// The embedder that an artifact holds, from its [`Self::params`] and [`Self::tensors`].
    pub fn from_parts(params: &Value, tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let params = Params::deserialize(params).map_err(|e| {
            damaged(
                format!("its embedder is not understood ({e})"),
                "a lexical embedder's parameters",
            )
        })?;
        if params.feature_version != super::features::VERSION {
            return Err(damaged(
                format!("features of version {}", params.feature_version),
                format!("version {}", super::features::VERSION),
            ));
        }
        let mut artifact = Artifact {
            manifest: String::new(),
            tensors,
        };
        let ([_], tags) = artifact.take::<u16, 1>("tags")?;
        let ([_], idf) = artifact.take::<u8, 1>("idf")?;
        let ([rows, dim], table) = artifact.take::<i8, 2>("table")?;
        let ([columns], scales) = artifact.take::<f32, 1>("scales")?;
        let part = |e: Error| damaged(format!("its embedder's {e}"), "what a lexical embedder has");
        check_order(params.ngrams).map_err(part)?;
        check_dim(dim).map_err(part)?;
        let vocabulary = Vocabulary::from_parts(&tags, &idf, params.unknown_idf).map_err(part)?;
        if (rows, columns) != (vocabulary.rows(), dim) {
            return Err(damaged(
                format!("an embedder's table of {rows} x {dim}, {columns} scales"),
                format!("{} rows and as many scales as columns", vocabulary.rows()),
            ));
        }
        let fits = |scale: &f32| (0.0..=LARGEST_SCALE).contains(scale);
        if !scales.iter().all(fits) || table.contains(&i8::MIN) {
            return Err(damaged(
                "an embedder's scale or table value out of range".to_owned(),
                format!("scales of 0 to {LARGEST_SCALE:e}, values of -127 to 127"),
            ));
        }
        Ok(Self {
            order: params.ngrams,
            vocabulary,
            table: lines(&table, dim),
            scales,
            info: params.info,
            kernels: Kernels::active(),
        })
    }
}

/// A row-major table of `dim` columns with every row on lines of its own.
fn lines(table: &[i8], dim: usize) -> Vec<Line> {
    let line = |columns: &[i8]| {
        let mut line = Line([0; COLUMNS]);
        line.0[..columns.len()].copy_from_slice(columns);
        line
    };
    let rows = table.chunks_exact(dim);
    rows.flat_map(|row| row.chunks(COLUMNS).map(line)).collect()
}

/// Fails unless a table of so many rows and columns is one that an embedder can have.
pub(crate) fn check_size(rows: usize, dim: usize) -> Result<()> {
    super::vocabulary::check_rows(rows)?;
    check_dim(dim)
}

pub(super) fn check_order(order: usize) -> Result<()> {
    if (1..=MAX_ORDER).contains(&order) {
        return Ok(());
    }
    Err(Error::invalid(
        "ngrams",
        order.to_string(),
        format!("1 to {MAX_ORDER}"),
    ))
}

fn check_dim(dim: usize) -> Result<()> {
    if (1..=MAX_DIM).contains(&dim) {
        return Ok(());
    }
    Err(Error::invalid(
        "dim",
        dim.to_string(),
        format!("1 to {MAX_DIM}"),
    ))
}

/// Scales `x` to a norm of one; false if it is zero.
#[inline(always)]
fn normalise(x: &mut [f32]) -> bool {
    let mut lanes = [0f32; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    let squared: f32 = lanes.iter().sum();
    if squared == 0.0 {
        return false;
    }
    let inverse = 1.0 / squared.sqrt();
    for v in x {
        *v *= inverse;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXTS: [&str; 4] = [
        "What is the capital of France?",
        "Solve 12 x + 7 = 31 for x.",
        "フランスの首都はどこですか",
        "Solve for the capital, capital, CAPITAL.",
    ];

    fn embedder(dim: usize) -> LexicalEmbedder {
        let mut counter = crate::text::fit::FeatureCounter::new(2).unwrap();
        for text in TEXTS {
            counter.add(text);
        }
        let vocabulary = counter.vocabulary(1, 1 << 16).unwrap();
        let table: Vec<f32> = (0..vocabulary.rows() * dim)
            .map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0)
            .collect();
        LexicalEmbedder::new(vocabulary, 2, &table, dim, json!({"n": 4})).unwrap()
    }

    fn embed(embedder: &LexicalEmbedder, text: &str) -> (Vec<f32>, Embedded) {
        let mut out = vec![1.0; embedder.dim()];
        let embedded = embedder.embed(text, &mut out, &mut Scratch::default());
        (out, embedded)
    }

    #[test]
    fn embeddings_of_fitted_texts_have_norm_one_and_high_coverage() {
        for dim in [1, 7, 64, 100] {
            let embedder = embedder(dim);
            for text in TEXTS {
                let (out, embedded) = embed(&embedder, text);
                let norm: f32 = out.iter().map(|v| v * v).sum();
                assert!((norm - 1.0).abs() < 1e-5, "{norm}");
                assert_eq!(embedded.status, Status::Ok);
                assert!(embedded.coverage > 0.9, "{}", embedded.coverage);
            }
        }
    }

    #[test]
    fn texts_that_cannot_be_embedded_say_why() {
        let embedder = embedder(8);
        for (text, status) in [
            ("", Status::Empty),
            (" \n\0\u{200d}", Status::Blank),
            ("xylophone", Status::Unknown),
        ] {
            let (out, embedded) = embed(&embedder, text);
            assert_eq!(
                embedded,
                Embedded {
                    status,
                    coverage: 0.0
                },
                "{text:?}"
            );
            assert_eq!(out, [0.0; 8]);
        }
        let (_, half) = embed(&embedder, "capital xylophone");
        assert!(
            half.coverage > 0.05 && half.coverage < 0.5,
            "{}",
            half.coverage
        );
    }

    #[test]
    fn a_batch_equals_single_calls_on_any_number_of_threads() {
        let embedder = embedder(33);
        let texts: Vec<_> = (0..500)
            .map(|i| {
                if i % 50 == 7 {
                    Err(Status::Null)
                } else {
                    Ok(TEXTS[i % 4])
                }
            })
            .collect();
        for threads in [1, 2, 5] {
            let mut out = vec![1.0; texts.len() * 33];
            let mut embedded = vec![Embedded::default(); texts.len()];
            let run = Run {
                threads,
                interrupted: &|| false,
            };
            embedder
                .embed_batch(&texts, &mut out, &mut embedded, &run)
                .unwrap();
            for ((text, row), embedded) in texts.iter().zip(out.chunks(33)).zip(&embedded) {
                match text {
                    Ok(text) => assert_eq!((row.to_vec(), *embedded), embed(&embedder, text)),
                    Err(status) => assert_eq!(*embedded, Embedded::none(*status)),
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for dim in [1, 33, 64, 96, 128, 200] {
            let embedder = embedder(dim);
            for isa in crate::kernels::available() {
                let other = embedder.clone().with_isa(isa).unwrap();
                for text in TEXTS {
                    assert_eq!(embed(&other, text), embed(&embedder, text), "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn parts_make_the_same_embedder() {
        let embedder = embedder(16);
        let parts = || {
            embedder
                .tensors()
                .map(|(name, t)| (name.to_owned(), t))
                .into_iter()
                .collect()
        };
        let copy = LexicalEmbedder::from_parts(&embedder.params(), parts()).unwrap();
        assert_eq!(embed(&copy, TEXTS[3]), embed(&embedder, TEXTS[3]));

        let mut params = embedder.params();
        params["feature_version"] = json!(2);
        assert!(LexicalEmbedder::from_parts(&params, parts()).is_err());
        for name in ["tags", "idf", "table", "scales"] {
            let mut fewer: BTreeMap<_, _> = parts();
            fewer.remove(name);
            assert!(LexicalEmbedder::from_parts(&embedder.params(), fewer).is_err());
        }
    }

    proptest! {
        /// Whatever a file says, either it is refused, or embedding stays within its tables.
        #[test]
        fn parts_of_any_values_are_refused_or_make_an_embedder(
            tags in prop::collection::vec(prop_oneof![Just(0), any::<u16>(), 1u16..5], 4..70),
            odd: bool,
            unknown_idf in any::<u8>(),
            dim in 1usize..140,
            text in ".{0,300}",
        ) {
            // As a rule a number of rows that is allowed.
            let rows = if odd { tags.len() } else { 1 << tags.len().ilog2() };
            let tags = &tags[..rows];
            let idf = tags.iter().map(|tag| tag.to_le_bytes()[0] | u8::from(*tag > 0));
            let table = (0..rows * dim).map(|i| (i * 31 % 255) as i8).map(|v| v.max(-127));
            let parts = [
                ("tags", Tensor::new(&[rows], tags.iter().copied())),
                ("idf", Tensor::new(&[rows], idf)),
                ("table", Tensor::new(&[rows, dim], table)),
                ("scales", Tensor::new(&[dim], vec![0.5f32; dim])),
            ];
            let parts = parts.map(|(name, tensor)| (name.to_owned(), tensor));
            let params = json!({
                "feature_version": crate::text::features::VERSION,
                "ngrams": 3,
                "unknown_idf": unknown_idf,
                "info": null,
            });
            if let Ok(embedder) = LexicalEmbedder::from_parts(&params, parts.into_iter().collect()) {
                let portable = embedder.clone().with_isa(Isa::Portable).unwrap();
                for isa in crate::kernels::available() {
                    let other = embedder.clone().with_isa(isa).unwrap();
                    prop_assert_eq!(embed(&other, &text), embed(&portable, &text), "{:?}", isa);
                }
            }
        }
    }

    #[test]
    fn one_scratch_serves_embedders_of_any_size() {
        let (small, large) = (embedder(4), embedder(64));
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            for embedder in [&small, &large] {
                let mut out = vec![0.0; embedder.dim()];
                embedder.embed(TEXTS[0], &mut out, &mut scratch);
                assert_eq!(out, embed(embedder, TEXTS[0]).0);
            }
        }
    }
}
