//! Everything that routing reads, at one moment, and the path of one prompt through it:
//! text -> embedding -> Phi -> model.

use std::any::Any;
use std::sync::Arc;

use crate::clusters::cluster_map::{ClusterMap, Phi};
use crate::drift::{Baseline, Monitor, check_window};
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::request::cache::Cache;
use crate::request::constraints::{Compiled, Constraints};
use crate::request::{Place, Prompt, Prompts, Request, Text, positive_zero};
use crate::route::choose::{self, Blend, Choice, choose};
use crate::route::packed::LazySoft;
use crate::route::scratch::Scratch;
use crate::text::lexical::{self, LexicalEmbedder, Status};

/// What became of one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Whether and why not it could be routed.
    pub status: Status,
    /// Share of the prompt's feature weight that the embedder knows; 1 for embeddings.
    pub coverage: f32,
    /// The choice; `None` unless the status is [`Status::Ok`], and where no model may answer.
    pub choice: Option<Choice>,
}

impl Default for Row {
    /// An embedding before it is routed.
    fn default() -> Self {
        Self {
            status: Status::Ok,
            coverage: 1.0,
            choice: None,
        }
    }
}

/// Everything that routing reads, at one moment.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) version: u64,
    pub(super) embedder: Option<Arc<LexicalEmbedder>>,
    pub(super) map: Arc<ClusterMap>,
    pub(super) pool: Arc<Pool>,
    /// Constraints compiled for this pool.
    pub(super) compiled: Arc<Cache>,
    /// This pool packed for batches of prompts that belong to several clusters.
    pub(super) soft: Arc<LazySoft>,
    pub(super) companion: Option<Companion>,
    pub(super) monitor: Option<Arc<Monitor>>,
}

/// Something of the caller's own that travels with a snapshot.
pub type Companion = Arc<dyn Any + Send + Sync>;

impl Snapshot {
    /// A snapshot without models.
    pub fn new(
        embedder: Option<Arc<LexicalEmbedder>>,
        map: impl Into<Arc<ClusterMap>>,
    ) -> Result<Self> {
        let map = map.into();
        if let Some(embedder) = &embedder
            && embedder.dim() != map.dim()
        {
            return Err(Error::invalid(
                "cluster_map",
                format!("embedding dimension {}", map.dim()),
                format!("the embedder's dimension, {}", embedder.dim()),
            ));
        }
        let pool = Arc::new(Pool::new(map.clusters()));
        Ok(Self {
            version: 0,
            embedder,
            map,
            pool,
            compiled: Arc::default(),
            soft: Arc::default(),
            companion: None,
            monitor: None,
        })
    }

    /// The same with another pool: the next version.
    #[must_use]
    pub fn with_pool(&self, pool: Pool) -> Self {
        Self {
            version: self.version + 1,
            embedder: self.embedder.clone(),
            map: Arc::clone(&self.map),
            pool: Arc::new(pool),
            compiled: Arc::default(),
            soft: Arc::default(),
            companion: self.companion.clone(),
            monitor: self.monitor.clone(),
        }
    }

    /// The same with something of the caller's own, which later versions keep.
    #[must_use]
    pub fn with_companion(self, companion: Companion) -> Self {
        Self {
            companion: Some(companion),
            ..self
        }
    }

    /// The same, but it compares prompts with another baseline, in windows of so many; or with none.
    /// Counts start anew.
    pub fn with_baseline(&self, baseline: Option<Baseline>, window: u64) -> Result<Self> {
        if let Some(baseline) = &baseline {
            check_window(window)?;
            let found = [baseline.counts().len(), baseline.dim()];
            let own = [self.map.first_clusters(), self.map.dim()];
            if found != own {
                let problem = format!("shape {found:?}");
                return Err(Error::invalid("baseline", problem, format!("{own:?}")));
            }
        }
        Ok(Self {
            monitor: baseline.map(|baseline| Arc::new(Monitor::new(baseline, window))),
            ..self.clone()
        })
    }

    /// The same with counters of its own.
    pub(super) fn counting_anew(self) -> Self {
        let fresh = |monitor: &Arc<Monitor>| {
            Arc::new(Monitor::new(monitor.baseline().clone(), monitor.window()))
        };
        Self {
            monitor: self.monitor.as_ref().map(fresh),
            ..self
        }
    }

    /// Counts the prompts that are routed, if there is a baseline to compare them with. All versions
    /// since the baseline was set share it.
    pub fn monitor(&self) -> Option<&Arc<Monitor>> {
        self.monitor.as_ref()
    }

    /// What [`Self::with_companion`] was given.
    pub fn companion(&self) -> Option<&Companion> {
        self.companion.as_ref()
    }

    /// Constraints as this snapshot's models meet them: compiled at first, then remembered.
    pub fn compile(&self, constraints: &Arc<Constraints>) -> Arc<Compiled> {
        self.compiled.get(constraints, &self.pool)
    }

    /// Counts the changes since the router was made or loaded.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The embedder, unless embeddings come from outside.
    pub fn embedder(&self) -> Option<&Arc<LexicalEmbedder>> {
        self.embedder.as_ref()
    }

    /// The cluster map.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The models.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Routes one prompt. Leaves its Phi, and the models that it ranks, in the scratch.
    pub fn route(
        &self,
        prompt: Prompt<'_>,
        request: &Request<'_>,
        scratch: &mut Scratch,
    ) -> Result<Row> {
        request.check()?;
        self.check_not_empty()?;
        scratch.ranked.clear();
        let request = Request {
            cost_weight: positive_zero(request.cost_weight),
            tokens: request.tokens.or_else(|| prompt.tokens()),
            ..*request
        };
        match prompt {
            Prompt::Text(text) => {
                let mut embedding = std::mem::take(&mut scratch.embeddings);
                embedding.resize(self.map.dim(), 0.0);
                let row = self.embed(text, &mut embedding, &mut scratch.text)?;
                let row = self.route_vector(row, &embedding, None, &request, scratch);
                scratch.embeddings = embedding;
                row
            }
            Prompt::Embedding(embedding) => {
                if self.count(Prompts::Embeddings(embedding))? != 1 {
                    return Err(Error::invalid(
                        "embedding",
                        format!("{} values", embedding.len()),
                        format!("the {} values of one embedding", self.map.dim()),
                    ));
                }
                self.route_vector(Row::default(), embedding, None, &request, scratch)
            }
            Prompt::Embedded(prompts) => {
                let [place] = prompts.places() else {
                    let found = format!("{} prompts", prompts.places().len());
                    let expected = "one; `route_batch` takes many";
                    return Err(Error::invalid("text", found, expected));
                };
                let row = Row {
                    status: place.status,
                    coverage: place.coverage,
                    choice: None,
                };
                self.route_vector(row, prompts.vectors(), Some(place), &request, scratch)
            }
        }
    }

    /// The row of an embedding, with the choice where there was something to embed.
    fn route_vector(
        &self,
        mut row: Row,
        embedding: &[f32],
        known: Option<&Place>,
        request: &Request<'_>,
        scratch: &mut Scratch,
    ) -> Result<Row> {
        if row.status == Status::Ok {
            let Scratch {
                phi, map, ranked, ..
            } = scratch;
            self.phi_of(known, embedding, phi, map)?;
            row.choice = choose(&self.pool, self.blend(phi), request, ranked)?;
        }
        if request.counted {
            self.count_one(&row, embedding);
        }
        Ok(row)
    }

    /// Predicted loss of every model for one Phi, in index order.
    pub fn gamma(&self, phi: &Phi, out: &mut [f32]) {
        choose::losses(&self.pool, self.blend(phi), out);
    }

    /// What every model costs for one Phi and length of the prompt, in index order.
    pub fn costs(&self, phi: &Phi, tokens: Option<u64>) -> Result<Vec<f64>> {
        choose::costs(&self.pool, self.blend(phi), tokens)
    }

    /// A prompt's clusters, by its Phi.
    pub fn blend<'p>(&self, phi: &'p Phi) -> Blend<'p> {
        let cluster = self.map.cluster(phi);
        if self.map.single_nearest().is_some() {
            Blend::One(cluster)
        } else {
            Blend::Mixed { phi, cluster }
        }
    }

    /// Embeds one text into `out`, [dim]; zeros unless the status is ok.
    pub(super) fn embed(
        &self,
        text: Text<'_>,
        out: &mut [f32],
        scratch: &mut lexical::Scratch,
    ) -> Result<Row> {
        let embedder = self.embedder.as_ref().ok_or_else(|| {
            let expected = "embeddings: this router has no embedder of its own";
            Error::invalid("texts", "texts were given", expected)
        })?;
        let (status, coverage) = match text {
            Ok(text) => {
                let embedded = embedder.embed(text, out, scratch);
                (embedded.status, embedded.coverage)
            }
            Err(status) => (status, 0.0),
        };
        if status != Status::Ok {
            out.fill(0.0);
        }
        Ok(Row {
            status,
            coverage,
            choice: None,
        })
    }

    /// Number of prompts; fails on embeddings of another dimension or with values not finite.
    pub(super) fn count(&self, prompts: Prompts<'_>) -> Result<usize> {
        match prompts {
            Prompts::Texts(texts) => Ok(texts.len()),
            Prompts::Embeddings(all) => self.map.rows(all),
            Prompts::Embedded(all) => Ok(all.places().len()),
        }
    }

    pub(super) fn check_not_empty(&self) -> Result<()> {
        if self.pool.is_empty() {
            return Err(Error::EmptyPool);
        }
        Ok(())
    }
}
