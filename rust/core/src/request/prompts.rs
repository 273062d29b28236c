//! The prompts of a call: to be embedded, or embedded before.

use std::sync::Arc;

use crate::clusters::cluster_map::{ClusterMap, Phi};
use crate::text::lexical::{LexicalEmbedder, Status};

/// One prompt: its text, or the reason why there is none.
pub type Text<'a> = Result<&'a str, Status>;

/// One prompt.
#[derive(Clone, Copy)]
pub enum Prompt<'a> {
    /// To be embedded by the router's own embedder.
    Text(Text<'a>),
    /// An embedding, [dim].
    Embedding(&'a [f32]),
    /// Embedded before, by a snapshot of the same embedder and cluster map: one of these.
    Embedded(&'a Embedded),
}

impl Prompt<'_> {
    /// How many tokens it has, more or less; `None` where its text is not known.
    pub fn tokens(&self) -> Option<u64> {
        match self {
            Self::Text(text) => tokens_of(Some(*text)),
            Self::Embedding(_) => None,
            Self::Embedded(one) => one.places.first()?.tokens,
        }
    }
}

/// The prompts of one call.
#[derive(Clone, Copy)]
pub enum Prompts<'a> {
    /// To be embedded by the router's own embedder.
    Texts(&'a [Text<'a>]),
    /// Embeddings, [prompts, dim] row-major.
    Embeddings(&'a [f32]),
    /// Embedded before, by a snapshot of the same embedder and cluster map.
    Embedded(&'a Embedded),
}

impl Prompts<'_> {
    /// How many tokens one of them has, more or less; `None` where its text is not known.
    pub(crate) fn tokens(&self, at: usize) -> Option<u64> {
        match self {
            Self::Texts(texts) => tokens_of(Some(texts[at])),
            Self::Embeddings(_) => None,
            Self::Embedded(all) => all.places[at].tokens,
        }
    }
}

/// How many tokens a prompt has, more or less; `None` where its text is not known.
pub fn tokens_of(text: Option<Text<'_>>) -> Option<u64> {
    text?.ok().map(estimate_tokens)
}

/// How many tokens a text has, more or less: a quarter of its UTF-8 bytes, rounded up, which is
/// what tokenisers of current LLMs make of English prose.
pub fn estimate_tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

/// What was found of one prompt before its decision.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Whether and why not it could be embedded.
    pub status: Status,
    /// Share of the prompt's feature weight that the embedder knows; 1 for embeddings.
    pub coverage: f32,
    /// How much each cluster counts; empty unless the status is ok.
    pub phi: Phi,
    /// Its length as estimated, where it was a text.
    pub tokens: Option<u64>,
}

/// Prompts with all that their decisions need of an embedder and a cluster map.
pub struct Embedded {
    pub(crate) embedder: Option<Arc<LexicalEmbedder>>,
    pub(crate) map: Arc<ClusterMap>,
    /// [prompts, dim], row-major.
    pub(crate) vectors: Vec<f32>,
    pub(crate) places: Vec<Place>,
}

impl Embedded {
    /// The embeddings, [prompts, dim] row-major.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// Values of one embedding.
    pub fn dim(&self) -> usize {
        self.map.dim()
    }

    /// Length of Phi.
    pub fn clusters(&self) -> usize {
        self.map.clusters()
    }

    /// What was found of each.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Some of them, by row.
    ///
    /// # Panics
    /// Where there is no such row.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let vector = |&row: &usize| &self.vectors[row * self.dim()..][..self.dim()];
        Self {
            embedder: self.embedder.clone(),
            map: Arc::clone(&self.map),
            vectors: rows.iter().flat_map(vector).copied().collect(),
            places: rows.iter().map(|&row| self.places[row].clone()).collect(),
        }
    }
}
