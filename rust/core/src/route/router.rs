//! The path of a prompt: text -> embedding -> Phi -> model.
//!
//! A [`Router`] holds one immutable [`Snapshot`] behind an atomic pointer. Whoever routes takes the
//! snapshot that is current and never waits; whoever changes the pool builds the next snapshot
//! from it, one writer at a time, and publishes it whole.

use std::any::Any;
use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::clusters::cluster_map::{self, ClusterMap, Phi};
use crate::drift::report::{self, Baseline, Moments, Monitor, Report, Tally, squared_distance};
use crate::error::{Error, Result};
use crate::kernels::text::prefetch;
use crate::pool::changes::{Action, Change, Log};
use crate::pool::table::Pool;
use crate::request::constraints::{Cache, Compiled, Constraints};
use crate::route::choose::{self, choose};
pub use crate::route::choose::{Blend, Choice, Request, Stay};
use crate::route::packed::{Batch, LazySoft, Soft};
use crate::sys::fork;
use crate::sys::threads::Run;
use crate::text::lexical::{self, LexicalEmbedder, Status};

/// Texts that one thread takes at a time: some 0.3 ms of work.
const TEXTS_PER_TASK: usize = 128;

/// Embeddings that one thread takes at a time: enough rows for the blocked kernel.
const EMBEDDINGS_PER_TASK: usize = 512;

/// One prompt: its text, or the reason why there is none.
pub type Text<'a> = Result<&'a str, Status>;

/// The prompts of one call.
#[derive(Clone, Copy)]
pub enum Prompts<'a> {
    /// To be embedded by the router's own embedder.
    Texts(&'a [Text<'a>]),
    /// Embeddings, [prompts, dim] row-major.
    Embeddings(&'a [f32]),
}

/// A value for each prompt of a call.
#[derive(Clone, Copy)]
pub enum PerRow<'a, T> {
    /// The same for every prompt.
    Same(T),
    /// One for each prompt.
    Each(&'a [T]),
}

impl<T: Copy> PerRow<'_, T> {
    fn at(&self, row: usize) -> T {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[row],
        }
    }

    fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    /// Fails unless there is one for each of `rows`.
    fn check(&self, argument: &'static str, rows: usize) -> Result<()> {
        match self {
            Self::Each(values) if values.len() != rows => Err(Error::invalid(
                argument,
                format!("{} values for {rows} prompts", values.len()),
                "one, or one for each prompt",
            )),
            _ => Ok(()),
        }
    }
}

/// What the requests of a batch ask.
#[derive(Clone, Copy)]
pub struct Requests<'a> {
    /// See [`Request::cost_weight`].
    pub cost_weights: PerRow<'a, f64>,
    /// See [`Request::constraints`].
    pub constraints: PerRow<'a, Option<&'a Compiled>>,
    /// See [`Request::tokens`].
    pub tokens: PerRow<'a, Option<u64>>,
    /// See [`Request::fallback`].
    pub fallback: Option<u32>,
    /// See [`Request::stay`].
    pub stay: PerRow<'a, Option<Stay>>,
    /// See [`Request::counted`].
    pub counted: bool,
}

impl<'a> Requests<'a> {
    /// The same cost weight for all, and nothing else asked.
    pub fn at_cost_weight(cost_weight: f64) -> Self {
        Self {
            cost_weights: PerRow::Same(cost_weight),
            constraints: PerRow::Same(None),
            tokens: PerRow::Same(None),
            fallback: None,
            stay: PerRow::Same(None),
            counted: false,
        }
    }

    fn at(&self, row: usize, prompts: Prompts<'_>) -> Request<'a> {
        let tokens = self.tokens.at(row).or_else(|| match prompts {
            Prompts::Texts(texts) => texts[row].ok().map(estimate_tokens),
            Prompts::Embeddings(_) => None,
        });
        Request {
            cost_weight: positive_zero(self.cost_weights.at(row)),
            constraints: self.constraints.at(row),
            tokens,
            fallback: self.fallback,
            stay: self.stay.at(row),
            counted: self.counted,
        }
    }

    /// Fails unless they are those of `rows` prompts, with cost weights that can be used.
    fn check(&self, rows: usize) -> Result<()> {
        self.cost_weights.check("cost_weight", rows)?;
        self.constraints.check("constraints", rows)?;
        self.tokens.check("tokens", rows)?;
        self.stay.check("current_model", rows)?;
        check_numbers("cost_weight", self.cost_weights.values().iter().copied())?;
        let stays = self.stay.values().iter();
        check_numbers(
            "switch_cost",
            stays.map(|stay| stay.map_or(0.0, |s| s.switch_cost)),
        )
    }
}

/// A cost weight as it is used: -0.0 is 0.0.
pub fn positive_zero(cost_weight: f64) -> f64 {
    cost_weight + 0.0
}

/// Fails unless all are finite and 0 or more.
pub fn check_numbers(argument: &'static str, mut all: impl Iterator<Item = f64>) -> Result<()> {
    let mut bad = 0.0;
    match all.position(|v| {
        bad = v;
        !(v.is_finite() && v >= 0.0)
    }) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(
            argument,
            format!("{bad} at index {at}"),
            "finite numbers, 0 or more",
        )),
    }
}

impl<'a> From<Request<'a>> for Requests<'a> {
    fn from(request: Request<'a>) -> Self {
        Self {
            cost_weights: PerRow::Same(request.cost_weight),
            constraints: PerRow::Same(request.constraints),
            tokens: PerRow::Same(request.tokens),
            fallback: request.fallback,
            stay: PerRow::Same(request.stay),
            counted: request.counted,
        }
    }
}

/// How many tokens a text has, more or less: a quarter of its UTF-8 bytes, rounded up, which is
/// what tokenisers of current LLMs make of English prose.
pub fn estimate_tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

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

/// Room for one prompt's intermediate values; grows once, then is reused.
#[derive(Default)]
pub struct Scratch {
    text: lexical::Scratch,
    map: cluster_map::Scratch,
    embeddings: Vec<f32>,
    phi: Phi,
    labels: Vec<u32>,
    batch: Batch,
}

impl Scratch {
    /// Phi of the prompt routed last by [`Snapshot::route`].
    pub fn phi(&self) -> &Phi {
        &self.phi
    }
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// A thread's scratch: taken by a call, and put back for the next one, because its tables are as
/// long as the vocabulary and a small batch would spend more on new ones than on some of its texts.
struct Kept(Scratch);

impl Kept {
    fn take() -> Self {
        Self(SCRATCH.take())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // What a panic left behind may be half counted.
        if !std::thread::panicking() {
            SCRATCH.set(std::mem::take(&mut self.0));
        }
    }
}

/// Everything that routing reads, at one moment.
#[derive(Clone)]
pub struct Snapshot {
    version: u64,
    embedder: Option<Arc<LexicalEmbedder>>,
    map: Arc<ClusterMap>,
    pool: Pool,
    /// Constraints compiled for this pool.
    compiled: Arc<Cache>,
    /// This pool packed for batches of prompts that belong to several clusters.
    soft: Arc<LazySoft>,
    companion: Option<Companion>,
    monitor: Option<Arc<Monitor>>,
}

/// Something of the caller's own that travels with a snapshot.
pub type Companion = Arc<dyn Any + Send + Sync>;

impl Snapshot {
    /// A snapshot without models.
    pub fn new(embedder: Option<Arc<LexicalEmbedder>>, map: ClusterMap) -> Result<Self> {
        if let Some(embedder) = &embedder
            && embedder.dim() != map.dim()
        {
            return Err(Error::invalid(
                "cluster_map",
                format!("embedding dimension {}", map.dim()),
                format!("the embedder's dimension, {}", embedder.dim()),
            ));
        }
        let pool = Pool::new(map.clusters());
        Ok(Self {
            version: 0,
            embedder,
            map: Arc::new(map),
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
            pool,
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
            report::check_window(window)?;
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
    fn counting_anew(self) -> Self {
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
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// The models.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Routes one text.
    pub fn route_text(
        &self,
        text: Text<'_>,
        request: &Request<'_>,
        scratch: &mut Scratch,
    ) -> Result<Row> {
        self.check_routable(&Requests::from(*request), 1)?;
        let request = Request {
            cost_weight: positive_zero(request.cost_weight),
            tokens: request.tokens.or_else(|| text.ok().map(estimate_tokens)),
            ..*request
        };
        let mut embedding = std::mem::take(&mut scratch.embeddings);
        embedding.resize(self.map.dim(), 0.0);
        let mut row = self.embed(text, &mut embedding, &mut scratch.text)?;
        if row.status == Status::Ok {
            row.choice = self.choose(&embedding, &request, scratch)?;
        }
        if request.counted {
            self.count_one(&row, &embedding);
        }
        scratch.embeddings = embedding;
        Ok(row)
    }

    /// Routes one embedding, [dim].
    pub fn route_embedding(
        &self,
        embedding: &[f32],
        request: &Request<'_>,
        scratch: &mut Scratch,
    ) -> Result<Row> {
        self.check_routable(&Requests::from(*request), 1)?;
        if self.count(Prompts::Embeddings(embedding))? != 1 {
            return Err(Error::invalid(
                "embedding",
                format!("{} values", embedding.len()),
                format!("the {} values of one embedding", self.map.dim()),
            ));
        }
        let request = Request {
            cost_weight: positive_zero(request.cost_weight),
            ..*request
        };
        let row = Row {
            status: Status::Ok,
            coverage: 1.0,
            choice: self.choose(embedding, &request, scratch)?,
        };
        if request.counted {
            self.count_one(&row, embedding);
        }
        Ok(row)
    }

    /// Routes many prompts; row by row the same as one at a time.
    pub fn route_batch(
        &self,
        prompts: Prompts<'_>,
        requests: &Requests<'_>,
        run: &Run<'_>,
    ) -> Result<Vec<Row>> {
        let count = self.count(prompts)?;
        self.check_routable(requests, count)?;
        // Packed are costs that are the same for every prompt.
        let packable = self.map.single_nearest().is_none() && self.pool.metering().is_none();
        let soft = packable.then(|| self.soft.get(&self.pool, count)).flatten();
        let nothing: &mut [u8] = &mut [];
        self.for_each_task(prompts, (nothing, 0), run, |task, scratch| {
            let Some(centroids) = self.map.single_nearest() else {
                let request = |i: usize| requests.at(task.first + i, prompts);
                self.choose_each(task.rows, task.embeddings, &request, soft, scratch)?;
                self.count_many(requests.counted, task);
                return Ok(());
            };
            scratch.labels.resize(task.rows.len(), 0);
            let here = Run {
                threads: 1,
                interrupted: &|| false,
            };
            centroids.assign(task.embeddings, &mut scratch.labels, None, &here)?;
            for (i, row, _) in self.ok_rows(task.rows, task.embeddings) {
                let request = requests.at(task.first + i, prompts);
                row.choice = choose(&self.pool, Blend::One(scratch.labels[i]), &request)?;
            }
            self.count_many(requests.counted, task);
            Ok(())
        })
    }

    /// How the latest complete window of prompts compares with the baseline, or before the first
    /// what there is; and whether it is complete.
    pub fn drift(&self) -> Result<(Report, bool)> {
        let baseline = self.baseline()?;
        let latest = self.monitor.as_deref().map(Monitor::latest);
        let (tally, complete) =
            latest.unwrap_or_else(|| (Tally::new(baseline.counts().len()), false));
        Ok((baseline.compare(&tally), complete))
    }

    /// Compares prompts with the baseline, without counting them.
    pub fn compare(&self, prompts: Prompts<'_>, run: &Run<'_>) -> Result<Report> {
        let baseline = self.baseline()?;
        let mut tally = Tally::new(baseline.counts().len());
        for one in self.places(prompts, baseline.centres(), run)? {
            match one {
                Some(place) => tally.add(place.cluster, place.distance, place.coverage, 0.0),
                None => tally.add_unroutable(),
            }
        }
        Ok(baseline.compare(&tally))
    }

    /// What these prompts are like, as a baseline. With `leave_out`, they are those that the router
    /// was fitted on, and each is looked at as if it had not been: a word that no other prompt has
    /// would be unknown.
    pub fn baseline_of(
        &self,
        prompts: Prompts<'_>,
        leave_out: bool,
        run: &Run<'_>,
    ) -> Result<Baseline> {
        let (clusters, dim) = (self.map.first_clusters(), self.map.dim());
        let mut embeddings = vec![0.0; self.count(prompts)? * dim];
        let rows = self.for_each_task(prompts, (&mut embeddings, dim), run, |task, _| {
            task.out.copy_from_slice(task.embeddings);
            Ok(())
        })?;
        let mut sums = vec![0.0f64; clusters * dim];
        let mut members = vec![0.0f64; clusters];
        let mut scratch = Scratch::default();
        for (_, embedding) in
            (rows.iter().zip(embeddings.chunks(dim))).filter(|(row, _)| row.status == Status::Ok)
        {
            self.map
                .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
            let k = self.map.cluster(&scratch.phi) as usize;
            members[k] += 1.0;
            let sum = &mut sums[k * dim..][..dim];
            sum.iter_mut()
                .zip(embedding)
                .for_each(|(s, &e)| *s += f64::from(e));
        }
        let centres: Vec<f32> = (sums.chunks(dim).zip(&members))
            .flat_map(|(sum, n)| sum.iter().map(move |s| (s / n.max(1.0)) as f32))
            .collect();
        let mut seen = Vec::new();
        if let Some(embedder) = self.embedder.as_ref().filter(|_| leave_out) {
            let witness = Self {
                embedder: Some(Arc::new(embedder.without_rarest()?)),
                ..self.clone()
            };
            seen = witness.places(prompts, &centres, run)?;
        }
        // Of prompts that share nothing, nothing is left.
        if seen.iter().all(Option::is_none) {
            seen = self.places(prompts, &centres, run)?;
        }
        let mut counts = vec![0.0; clusters];
        let (mut distance, mut coverage) = (Vec::new(), Vec::new());
        for place in seen.into_iter().flatten() {
            counts[place.cluster as usize] += 1.0;
            // Its own part in the centre left out, an embedding is that much further away.
            let n = members[place.cluster as usize];
            let own = if leave_out && n > 1.0 {
                n / (n - 1.0)
            } else {
                1.0
            };
            distance.push(place.distance * own * own);
            coverage.push(f64::from(place.coverage));
        }
        if distance.is_empty() {
            let expected = "at least one that can be embedded";
            return Err(Error::invalid("texts", "no prompt", expected));
        }
        let (distance, coverage) = (Moments::of(&distance), Moments::of(&coverage));
        Baseline::new(counts, centres, distance, coverage)
    }

    fn baseline(&self) -> Result<&Baseline> {
        let monitor = self.monitor.as_deref().ok_or_else(|| {
            let expected = "a router that was fitted, or `set_baseline` before";
            Error::invalid(
                "router",
                "has no baseline to compare prompts with",
                expected,
            )
        })?;
        Ok(monitor.baseline())
    }

    /// Where every prompt lies among centres, [clusters, dim]; `None` if it cannot be embedded.
    fn places(
        &self,
        prompts: Prompts<'_>,
        centres: &[f32],
        run: &Run<'_>,
    ) -> Result<Vec<Option<Place>>> {
        let mut places = vec![None; self.count(prompts)?];
        self.for_each_task(prompts, (&mut places, 1), run, |task, scratch| {
            for (i, row, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.map
                    .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
                let cluster = self.map.cluster(&scratch.phi);
                let centre = &centres[cluster as usize * embedding.len()..][..embedding.len()];
                task.out[i] = Some(Place {
                    cluster,
                    distance: squared_distance(embedding, centre),
                    coverage: row.coverage,
                });
            }
            Ok(())
        })?;
        Ok(places)
    }

    fn count_one(&self, row: &Row, embedding: &[f32]) {
        match (self.monitor.as_deref(), row.choice) {
            (Some(monitor), Some(choice)) => {
                monitor.note(choice.cluster, embedding, row.coverage, choice.cost);
            }
            (Some(monitor), None) if row.status != Status::Ok => monitor.note_unroutable(),
            _ => {}
        }
    }

    fn count_many<T>(&self, counted: bool, task: &Task<'_, T>) {
        let Some(monitor) = self.monitor.as_deref().filter(|_| counted) else {
            return;
        };
        let mut tally = Tally::new(monitor.baseline().counts().len());
        for (row, embedding) in task.rows.iter().zip(task.embeddings.chunks(self.map.dim())) {
            match row.choice {
                Some(choice) => {
                    let distance = monitor.baseline().distance_to(choice.cluster, embedding);
                    tally.add(choice.cluster, distance, row.coverage, choice.cost);
                }
                None if row.status != Status::Ok => tally.add_unroutable(),
                None => {}
            }
        }
        monitor.note_all(&tally);
    }

    /// gamma: predicted loss of every model on every prompt, into [prompts, models] row-major; NaN
    /// in the rows of prompts whose status is not ok.
    pub fn predict_loss(
        &self,
        prompts: Prompts<'_>,
        losses: &mut [f32],
        run: &Run<'_>,
    ) -> Result<Vec<Row>> {
        let models = self.pool.len();
        if models == 0 {
            return Err(Error::EmptyPool);
        }
        losses.fill(f32::NAN);
        self.for_each_task(prompts, (losses, models), run, |task, scratch| {
            for (i, _, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.map
                    .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
                let own = &mut task.out[i * models..][..models];
                self.gamma(&scratch.phi, own);
            }
            Ok(())
        })
    }

    /// Phi of every prompt, into [prompts, clusters] row-major, dense; 0 in the rows of prompts
    /// whose status is not ok.
    pub fn phi(&self, prompts: Prompts<'_>, out: &mut [f32], run: &Run<'_>) -> Result<Vec<Row>> {
        let clusters = self.map.clusters();
        out.fill(0.0);
        self.for_each_task(prompts, (out, clusters), run, |task, scratch| {
            for (i, _, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.map
                    .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
                let row = &mut task.out[i * clusters..][..clusters];
                for (&k, &w) in scratch.phi.clusters.iter().zip(&scratch.phi.weights) {
                    row[k as usize] = w;
                }
            }
            Ok(())
        })
    }

    /// Predicted loss of every model for one Phi, in index order.
    pub fn gamma(&self, phi: &Phi, out: &mut [f32]) {
        choose::losses(&self.pool, self.blend(phi), out);
    }

    /// What every model costs for one Phi and length of the prompt, in index order.
    pub fn costs(&self, phi: &Phi, tokens: Option<u64>) -> Result<Vec<f64>> {
        choose::costs(&self.pool, self.blend(phi), tokens)
    }

    /// What every model costs on every prompt, into [prompts, models] row-major; NaN in the rows of
    /// prompts whose status is not ok. `tokens` as in [`Request::tokens`].
    pub fn predict_cost(
        &self,
        prompts: Prompts<'_>,
        tokens: PerRow<'_, Option<u64>>,
        costs: &mut [f64],
        run: &Run<'_>,
    ) -> Result<Vec<Row>> {
        let requests = Requests {
            tokens,
            ..Requests::at_cost_weight(0.0)
        };
        self.check_routable(&requests, self.count(prompts)?)?;
        let models = self.pool.len();
        costs.fill(f64::NAN);
        self.for_each_task(prompts, (costs, models), run, |task, scratch| {
            for (i, _, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.map
                    .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
                let tokens = requests.at(task.first + i, prompts).tokens;
                let own = self.costs(&scratch.phi, tokens)?;
                task.out[i * models..][..models].copy_from_slice(&own);
            }
            Ok(())
        })
    }

    /// The winners for prompts that belong to several clusters: those that ask for nothing special
    /// together, where the pool is packed for it.
    fn choose_each<'a>(
        &self,
        rows: &mut [Row],
        embeddings: &[f32],
        request: &dyn Fn(usize) -> Request<'a>,
        soft: Option<&Soft>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let mut together: Vec<(&mut Row, u32)> = Vec::new();
        scratch.batch.clear();
        for (i, row, embedding) in self.ok_rows(rows, embeddings) {
            let request = request(i);
            if soft.is_none() || request.constraints.is_some() || request.stay.is_some() {
                row.choice = self.choose(embedding, &request, scratch)?;
                continue;
            }
            let Scratch {
                phi, map, batch, ..
            } = scratch;
            self.map.phi(embedding, phi, map)?;
            batch.push(phi, self.map.clusters(), request.cost_weight);
            together.push((row, self.map.cluster(phi)));
        }
        let Some(soft) = soft.filter(|_| !together.is_empty()) else {
            return Ok(());
        };
        let winners = scratch.batch.winners(soft)?;
        for ((row, cluster), (model, predicted_loss)) in together.into_iter().zip(winners) {
            row.choice = Some(Choice {
                model,
                cluster,
                predicted_loss,
                cost: self.pool.costs()[model as usize],
                fallback: false,
                stayed: false,
            });
        }
        Ok(())
    }

    /// The winner for one embedding. Leaves Phi in the scratch.
    fn choose(
        &self,
        embedding: &[f32],
        request: &Request<'_>,
        scratch: &mut Scratch,
    ) -> Result<Option<Choice>> {
        self.map
            .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
        choose(&self.pool, self.blend(&scratch.phi), request)
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
    fn embed(
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
    fn count(&self, prompts: Prompts<'_>) -> Result<usize> {
        let dim = self.map.dim();
        let all = match prompts {
            Prompts::Texts(texts) => return Ok(texts.len()),
            Prompts::Embeddings(all) => all,
        };
        // All at once first: a search for the culprit stops the compiler from using vectors.
        if !all.iter().fold(true, |fine, v| fine & v.is_finite())
            && let Some(at) = all.iter().position(|v| !v.is_finite())
        {
            return Err(Error::invalid(
                "embeddings",
                format!("{} in row {}, column {}", all[at], at / dim, at % dim),
                "finite values",
            ));
        }
        if !all.len().is_multiple_of(dim) {
            return Err(Error::invalid(
                "embeddings",
                format!("{} values", all.len()),
                format!("rows of {dim} values"),
            ));
        }
        Ok(all.len() / dim)
    }

    fn check_routable(&self, requests: &Requests<'_>, rows: usize) -> Result<()> {
        requests.check(rows)?;
        if self.pool.is_empty() {
            Err(Error::EmptyPool)
        } else {
            Ok(())
        }
    }

    /// The rows of a block that could be embedded: number in the block, row, embedding.
    fn ok_rows<'t>(
        &self,
        rows: &'t mut [Row],
        embeddings: &'t [f32],
    ) -> impl Iterator<Item = (usize, &'t mut Row, &'t [f32])> {
        let all = rows
            .iter_mut()
            .zip(embeddings.chunks(self.map.dim()))
            .enumerate();
        all.filter(|(_, (row, _))| row.status == Status::Ok)
            .map(|(i, (row, e))| (i, row, e))
    }

    /// Embeds the prompts block by block, on several threads, and hands each block to `work`.
    /// `out` is split alike: so many values for each prompt.
    fn for_each_task<T: Send>(
        &self,
        prompts: Prompts<'_>,
        (mut out, width): (&mut [T], usize),
        run: &Run<'_>,
        work: impl Fn(&mut Task<'_, T>, &mut Scratch) -> Result<()> + Sync,
    ) -> Result<Vec<Row>> {
        let count = self.count(prompts)?;
        if out.len() != count * width {
            let found = format!("room for {} values", out.len());
            return Err(Error::invalid(
                "out",
                found,
                format!("{count} prompts x {width}"),
            ));
        }
        let per_task = match prompts {
            Prompts::Texts(_) => TEXTS_PER_TASK,
            Prompts::Embeddings(_) => EMBEDDINGS_PER_TASK,
        };
        let mut rows = vec![
            Row {
                status: Status::Ok,
                coverage: 1.0,
                choice: None
            };
            count
        ];
        let blocks: Vec<_> = rows
            .chunks_mut(per_task)
            .enumerate()
            .map(|(i, rows)| {
                let (own, rest) = std::mem::take(&mut out).split_at_mut(rows.len() * width);
                out = rest;
                (i * per_task, rows, own)
            })
            .collect();
        let dim = self.map.dim();
        run.for_each(
            blocks.into_iter(),
            Kept::take,
            |Kept(scratch), (first, rows, out)| match prompts {
                Prompts::Embeddings(all) => {
                    let embeddings = &all[first * dim..][..rows.len() * dim];
                    work(
                        &mut Task {
                            first,
                            rows,
                            embeddings,
                            out,
                        },
                        scratch,
                    )
                }
                Prompts::Texts(texts) => {
                    let mut block = std::mem::take(&mut scratch.embeddings);
                    block.resize(rows.len() * dim, 0.0);
                    let texts = &texts[first..][..rows.len()];
                    for (i, (row, out)) in rows.iter_mut().zip(block.chunks_mut(dim)).enumerate() {
                        if let Some(Ok(next)) = texts.get(i + 1) {
                            prefetch(next.as_bytes());
                        }
                        *row = self.embed(texts[i], out, &mut scratch.text)?;
                    }
                    let done = work(
                        &mut Task {
                            first,
                            rows,
                            embeddings: &block,
                            out,
                        },
                        scratch,
                    );
                    scratch.embeddings = block;
                    done
                }
            },
        )?;
        Ok(rows)
    }
}

/// Where a prompt lies among the clusters.
#[derive(Clone, Copy)]
struct Place {
    cluster: u32,
    /// Squared, to the cluster's centre.
    distance: f64,
    coverage: f32,
}

/// A block of prompts, embedded.
struct Task<'a, T> {
    /// Row of the first prompt.
    first: usize,
    rows: &'a mut [Row],
    /// [rows, dim]
    embeddings: &'a [f32],
    /// This block's share of the caller's output.
    out: &'a mut [T],
}

/// Text in, model out, while the pool changes.
pub struct Router {
    current: ArcSwap<Snapshot>,
    /// What has happened; whoever holds the lock is the one writer.
    log: Mutex<Log>,
}

impl Router {
    /// A router that starts from this snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            current: ArcSwap::from_pointee(snapshot.counting_anew()),
            log: Mutex::default(),
        }
    }

    /// The snapshot that is current. Never blocks.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Publishes a snapshot whose pool is made from the current one's; on an error nothing changes.
    /// Writers take turns; readers go on with the snapshot they have. The log notes `action` on
    /// `models`. Returns what was published.
    pub fn change(
        &self,
        action: Action,
        models: &[&str],
        change: impl FnOnce(&Pool) -> Result<Pool>,
    ) -> Result<Arc<Snapshot>> {
        self.publish(action, models, |now| Ok(now.with_pool(change(now.pool())?)))
    }

    /// Publishes another snapshot in place of the current one, as the next version of this router.
    pub fn replace(&self, snapshot: &Snapshot) -> Result<()> {
        let names: Vec<&str> = snapshot.pool.names().iter().collect();
        let next = |now: &Snapshot| {
            Ok(Snapshot {
                version: now.version + 1,
                ..snapshot.clone().counting_anew()
            })
        };
        self.publish(Action::Replace, &names, next).map(drop)
    }

    /// Compares prompts to come with another baseline, in windows of so many; or with none. No
    /// decision changes, so it is no new version.
    pub fn set_baseline(&self, baseline: Option<Baseline>, window: u64) -> Result<()> {
        fork::whole(|| {
            let _writing = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let next = self.snapshot().with_baseline(baseline, window)?;
            self.current.store(Arc::new(next));
            Ok(())
        })
    }

    /// The latest changes, oldest first: those that made versions above `version`.
    pub fn changes(&self, version: u64) -> Vec<Change> {
        fork::whole(|| {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.since(version)
        })
    }

    fn publish(
        &self,
        action: Action,
        models: &[&str],
        next: impl FnOnce(&Snapshot) -> Result<Snapshot>,
    ) -> Result<Arc<Snapshot>> {
        fork::whole(|| {
            // A log poisoned by a panic is whole: entries are pushed at once.
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.current.load_full();
            let next = Arc::new(next(&now)?);
            log.note(next.version, action, models);
            self.current.store(Arc::clone(&next));
            Ok(next)
        })
    }
}
