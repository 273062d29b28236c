//! A snapshot as an artifact, and back.
//!
//! | tensor | dtype, shape | |
//! |---|---|---|
//! | `costs` | float64 [models] | cost per prompt |
//! | `profiles` | float32 [strips, clusters, 256] | Psi in strips of 256 models, zeros behind the last |
//! | `usage.output_tokens` | float32 [clusters, models] | where usage is known |
//! | `usage.input` | float64 [models, 2] | scale and extra; NaN where usage is not known |
//! | `baseline.counts`, `baseline.centres` | float64 [clusters of the first head], float32 [those, dim] | where there is a baseline |
//! | `baseline.moments` | float64 [2, 2] | mean and deviation of distance and coverage |
//! | `head.I.centroids` | float32 [clusters, dim] | of a nearest head |
//! | `head.I.weights`, `head.I.bias` | float32 [clusters, dim], [clusters] | of a softmax head |
//! | `familiarity.landmarks` | float32 [landmarks, dim] | where the map has them |
//! | `embedder.*` | see [`LexicalEmbedder`] | where the router embeds text itself |
//!
//! The manifest holds the models' names, their metadata and which are disabled, the heads' kinds, the
//! distance to a landmark at which a prompt is half out of distribution, the embedder's parameters,
//! and under `extra` whatever the caller added, whose tensors are named `extra.*`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::clusters::centroids::Centroids;
use crate::clusters::cluster_map::{ClusterMap, Familiarity, Head, Softmax, check_clusters};
use crate::drift::{Baseline, Moments};
use crate::error::{Error, Result};
use crate::file::artifact::Artifact;
use crate::file::errors::{at, damaged};
use crate::file::limits::check_values;
use crate::file::read::Unread;
use crate::file::tensor::{Tensor, digest, is_element};
use crate::pool::Pool;
use crate::pool::mask::Mask;
use crate::pool::metadata::Metadata;
use crate::pool::table::STRIP;
use crate::route::snapshot::Snapshot;
use crate::text::lexical::{self, LexicalEmbedder};

/// What a caller keeps beside the snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// Anything that JSON can say.
    pub json: Value,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

const EXTRA: &str = "extra.";
const EMBEDDER: &str = "embedder.";
const OUTPUT_TOKENS: &str = "usage.output_tokens";
const INPUT: &str = "usage.input";
const COUNTS: &str = "baseline.counts";
const CENTRES: &str = "baseline.centres";
const MOMENTS: &str = "baseline.moments";
const LANDMARKS: &str = "familiarity.landmarks";
const PROFILES: &str = "profiles";

/// Values that the JSON of [`Extra`] has at most: one takes up to some 100 bytes.
const MOST_EXTRA_VALUES: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest<'a> {
    #[serde(borrow)]
    models: Vec<Name<'a>>,
    /// By model, those of which something is known.
    metadata: BTreeMap<String, Metadata>,
    /// Names of the disabled models.
    disabled: BTreeSet<String>,
    heads: Vec<Kind>,
    /// Squared distance to the nearest landmark at which a prompt is half out of distribution.
    familiarity: Option<f32>,
    embedder: Option<Value>,
    /// Prompts in a window of the drift monitor, where there is a baseline.
    window: Option<u64>,
    /// Kept as text: it may be anything, and its values are counted before it is parsed.
    #[serde(borrow)]
    extra: &'a RawValue,
}

/// A name, left in the manifest's text unless it is escaped there.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Kind {
    Nearest,
    Softmax { floor: f32, background: bool },
}

/// The snapshot and what goes with it, ready to be written.
pub fn to_artifact(snapshot: &Snapshot, extra: Extra) -> Artifact {
    let pool = snapshot.pool();
    let mut tensors = BTreeMap::new();
    let clusters = pool.profiles().clusters();
    tensors.insert(
        "costs".to_owned(),
        Tensor::new(&[pool.len()], pool.costs().iter().copied()),
    );
    tensors.insert(
        "profiles".to_owned(),
        Tensor::new(
            &[pool.len().div_ceil(STRIP), clusters, STRIP],
            pool.profiles().table(),
        ),
    );
    if let Some(usage) = pool.usage().filter(|_| !pool.is_empty()) {
        let output_tokens = (0..clusters).flat_map(|k| usage.output_tokens().row(k));
        tensors.insert(
            OUTPUT_TOKENS.to_owned(),
            Tensor::new(&[clusters, pool.len()], output_tokens),
        );
        tensors.insert(
            INPUT.to_owned(),
            Tensor::new(&[pool.len(), 2], usage.input().iter().flatten().copied()),
        );
    }
    let window = snapshot.monitor().map(|monitor| {
        let baseline = monitor.baseline();
        let (counts, dim) = (baseline.counts(), baseline.dim());
        let moments = [baseline.distance(), baseline.coverage()];
        let moments = moments.iter().flat_map(|m| [m.mean, m.deviation]);
        let centres = baseline.centres().iter().copied();
        let parts = [
            (COUNTS, Tensor::new(&[counts.len()], counts.iter().copied())),
            (CENTRES, Tensor::new(&[counts.len(), dim], centres)),
            (MOMENTS, Tensor::new(&[2, 2], moments)),
        ];
        tensors.extend(parts.map(|(name, tensor)| (name.to_owned(), tensor)));
        monitor.window()
    });
    let (heads, familiarity) = put_map(snapshot.map(), &mut tensors);
    let embedder = snapshot.embedder().map(|embedder| {
        for (name, tensor) in embedder.tensors() {
            tensors.insert(format!("{EMBEDDER}{name}"), tensor);
        }
        embedder.params()
    });
    for (name, tensor) in extra.tensors {
        tensors.insert(format!("{EXTRA}{name}"), tensor);
    }
    let names: Vec<&str> = pool.names().iter().collect();
    let known: BTreeMap<&str, &Metadata> = names
        .iter()
        .zip(pool.directory().models())
        .filter(|(_, metadata)| ***metadata != Metadata::default())
        .map(|(name, metadata)| (*name, &**metadata))
        .collect();
    let enabled = |m: usize| pool.enabled().contains(m);
    let disabled: BTreeSet<&str> = (names.iter().enumerate())
        .filter(|(m, _)| !enabled(*m))
        .map(|(_, name)| *name)
        .collect();
    let manifest = json!({
        "models": names,
        "metadata": known,
        "disabled": disabled,
        "heads": heads,
        "familiarity": familiarity,
        "embedder": embedder,
        "window": window,
        "extra": extra.json,
    });
    Artifact {
        manifest: manifest.to_string(),
        tensors,
    }
}

/// Puts the tensors of a cluster map, and returns what the manifest says of its heads, and of
/// [`Familiarity`].
fn put_map(map: &ClusterMap, tensors: &mut BTreeMap<String, Tensor>) -> (Vec<Value>, Option<f32>) {
    let dim = map.dim();
    let mut heads = Vec::new();
    for (i, head) in map.heads().iter().enumerate() {
        let mut put = |name: &str, shape: &[usize], values: Vec<f32>| {
            tensors.insert(format!("head.{i}.{name}"), Tensor::new(shape, values));
        };
        match head {
            Head::Nearest(centroids) => {
                put(
                    "centroids",
                    &[centroids.len(), dim],
                    centroids.as_slice().to_vec(),
                );
                heads.push(json!({"kind": "nearest"}));
            }
            Head::Softmax(softmax) => {
                put("weights", &[head.clusters(), dim], softmax.weights());
                put("bias", &[head.clusters()], softmax.bias().to_vec());
                heads.push(json!({
                    "kind": "softmax",
                    "floor": softmax.floor(),
                    "background": softmax.has_background(),
                }));
            }
        }
    }
    let familiarity = map.familiarity().map(|familiarity| {
        let landmarks = familiarity.landmarks();
        let values = landmarks.as_slice().iter().copied();
        let tensor = Tensor::new(&[landmarks.len(), dim], values);
        tensors.insert(LANDMARKS.to_owned(), tensor);
        familiarity.distance()
    });
    (heads, familiarity)
}

/// What distinguishes two routers: for each part a digest of its content, 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The embedder; `None` where embeddings come from outside.
    pub embedder: Option<String>,
    /// The cluster map.
    pub cluster_map: String,
    /// Names, costs, profiles, metadata and usage of the models, and which are disabled.
    pub pool: String,
}

/// The fingerprint of a snapshot: the same wherever the same is served. O(size).
pub fn fingerprint(snapshot: &Snapshot) -> Fingerprint {
    let artifact = to_artifact(snapshot, Extra::default());
    let manifest: Value = serde_json::from_str(&artifact.manifest).unwrap_or_default();
    let of = |fields: &[&str], prefixes: &[&str]| {
        let said = fields.iter().map(|field| manifest[field].to_string());
        let own = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let tensors = artifact.tensors.iter().filter(|(name, _)| own(name));
        digest(&said.collect::<String>(), tensors)
    };
    Fingerprint {
        embedder: (snapshot.embedder()).map(|_| of(&["embedder"], &[EMBEDDER])),
        cluster_map: of(&["heads", "familiarity"], &["head.", "familiarity."]),
        pool: of(
            &["models", "metadata", "disabled"],
            &["costs", "profiles", "usage."],
        ),
    }
}

/// The snapshot that a file holds, checked part by part, and what went with it.
///
/// Nothing is reserved for tensors before the dtype and shape of each were found to be those that the
/// format and the other parts ask for.
pub fn from_artifact(unread: Unread<impl Read + Seek>) -> Result<(Snapshot, Extra)> {
    let name = unread.name().to_owned();
    read_parts(unread).map_err(|error| at(&name, error))
}

fn read_parts(unread: Unread<impl Read + Seek>) -> Result<(Snapshot, Extra)> {
    let text = unread.manifest().to_owned();
    let manifest: Manifest<'_> = serde_json::from_str(&text).map_err(|e| not_understood(&e))?;
    check_layout(&manifest, unread.tensors())?;
    let extra = manifest.extra.get();
    check_values("its extra", extra.as_bytes(), MOST_EXTRA_VALUES)?;
    let mut artifact = unread.read()?;
    let heads = manifest
        .heads
        .iter()
        .enumerate()
        .map(|(i, kind)| match kind {
            Kind::Nearest => {
                let ([_, dim], values) = artifact.take(&format!("head.{i}.centroids"))?;
                Ok(Head::Nearest(Centroids::new(&values, dim)?))
            }
            Kind::Softmax { floor, background } => {
                let ([_, _], weights) = artifact.take(&format!("head.{i}.weights"))?;
                let ([_], bias) = artifact.take(&format!("head.{i}.bias"))?;
                let head = Softmax::new(&weights, &bias, *floor)?;
                Ok(Head::Softmax(if *background {
                    head.with_background()?
                } else {
                    head
                }))
            }
        });
    let mut map = ClusterMap::new(heads.collect::<Result<_>>()?)?;
    if let Some(distance) = manifest.familiarity {
        let ([_, dim], values) = artifact.take(LANDMARKS)?;
        map = map.with_familiarity(Familiarity::new(&values, dim, distance)?)?;
    }
    let embedder = match &manifest.embedder {
        None => None,
        Some(params) => {
            Some(LexicalEmbedder::from_parts(params, split(&mut artifact, EMBEDDER))?.into())
        }
    };
    let ([_], costs): ([usize; 1], Vec<f64>) = artifact.take("costs")?;
    let names: Vec<&str> = manifest.models.iter().map(|name| &*name.0).collect();
    let (_, profiles) = artifact.take_tensor::<f32, 3>(PROFILES)?;
    let profiles = profiles.into_values().unwrap_or_default();
    let pool = Pool::of_strips(map.clusters(), &names, &costs, &profiles)?;
    let mut snapshot = Snapshot::new(embedder, map)?;
    if !names.is_empty() {
        let mut pool = describe(pool, manifest.metadata, &manifest.disabled)?;
        if artifact.tensors.contains_key(OUTPUT_TOKENS) {
            pool = with_usage(&pool, &mut artifact)?;
        }
        snapshot = snapshot.with_pool(pool);
    }
    if let Some(window) = manifest.window {
        let baseline = Some(baseline(&mut artifact)?);
        snapshot = snapshot.with_baseline(baseline, window)?;
    }
    let extra = Extra {
        json: serde_json::from_str(extra).map_err(|e| not_understood(&e))?,
        tensors: split(&mut artifact, EXTRA),
    };
    Ok((snapshot, extra))
}

fn not_understood(error: &serde_json::Error) -> Error {
    damaged(
        format!("its manifest is not understood ({error})"),
        "a router's manifest",
    )
}

/// Fails unless every tensor is one that the format has, with the dtype and shape that the manifest and
/// the tensors of the cluster map ask for. Of the caller's own only the names are known.
fn check_layout(manifest: &Manifest<'_>, tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    let models = manifest.models.len();
    let matrix = |name: &str| match tensors.get(name).map(|info| &info.shape[..]) {
        Some(&[rows, columns]) => Ok([rows, columns]),
        Some(shape) => Err(misshapen(name, shape, "[rows, columns]")),
        None => Err(damaged(
            format!("tensor {name:?} is missing"),
            "a tensor of 2 dimensions",
        )),
    };
    let mut known: BTreeMap<String, (Dtype, Vec<usize>)> = BTreeMap::new();
    let mut expect = |name: &str, dtype, shape: &[usize]| {
        known.insert(name.to_owned(), (dtype, shape.to_vec()));
    };
    let (mut clusters, mut first, mut dim) = (0, None, 0);
    for (i, kind) in manifest.heads.iter().enumerate() {
        let name = match kind {
            Kind::Nearest => format!("head.{i}.centroids"),
            Kind::Softmax { .. } => format!("head.{i}.weights"),
        };
        let [own, columns] = matrix(&name)?;
        if first.is_none() {
            (first, dim) = (Some(own), columns);
        }
        expect(&name, Dtype::F32, &[own, dim]);
        if matches!(kind, Kind::Softmax { .. }) {
            expect(&format!("head.{i}.bias"), Dtype::F32, &[own]);
        }
        clusters += own;
    }
    check_clusters(clusters)?;
    expect("costs", Dtype::F64, &[models]);
    let strips = [models.div_ceil(STRIP), clusters, STRIP];
    expect(PROFILES, Dtype::F32, &strips);
    if models > 0 && tensors.contains_key(OUTPUT_TOKENS) {
        expect(OUTPUT_TOKENS, Dtype::F32, &[clusters, models]);
        expect(INPUT, Dtype::F64, &[models, 2]);
    }
    if manifest.window.is_some() {
        let first = first.unwrap_or(0);
        expect(COUNTS, Dtype::F64, &[first]);
        expect(CENTRES, Dtype::F32, &[first, dim]);
        expect(MOMENTS, Dtype::F64, &[2, 2]);
    }
    if manifest.familiarity.is_some() {
        expect(LANDMARKS, Dtype::F32, &[matrix(LANDMARKS)?[0], dim]);
    }
    if manifest.embedder.is_some() {
        let [rows, _] = matrix("embedder.table")?;
        lexical::check_size(rows, dim)?;
        expect("embedder.tags", Dtype::U16, &[rows]);
        expect("embedder.idf", Dtype::U8, &[rows]);
        expect("embedder.table", Dtype::I8, &[rows, dim]);
        expect("embedder.scales", Dtype::F32, &[dim]);
    }
    for (name, info) in tensors {
        match known.get(name) {
            None if name.starts_with(EXTRA) && is_element(info.dtype) => {}
            None => {
                let problem = format!("unknown tensor {name:?} of {:?}", info.dtype);
                return Err(damaged(problem, "those that the format has"));
            }
            Some((dtype, shape)) if (*dtype, shape) != (info.dtype, &info.shape) => {
                let found = format!("tensor {name:?} is {:?} {:?}", info.dtype, info.shape);
                return Err(damaged(found, format!("{dtype:?} {shape:?}")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn misshapen(name: &str, shape: &[usize], expected: &str) -> Error {
    damaged(format!("tensor {name:?} has shape {shape:?}"), expected)
}

/// The pool with what its file says of the models beside cost and profile.
fn describe(
    pool: Pool,
    mut metadata: BTreeMap<String, Metadata>,
    disabled: &BTreeSet<String>,
) -> Result<Pool> {
    if metadata.is_empty() && disabled.is_empty() {
        return Ok(pool);
    }
    let stray = (metadata.keys().chain(disabled)).find(|name| pool.position(name).is_none());
    if let Some(name) = stray {
        let problem = format!("it describes {name:?}, which is none of its models");
        return Err(damaged(problem, "descriptions of its models"));
    }
    let known = (pool.names().iter())
        .map(|name| metadata.remove(name).unwrap_or_default())
        .collect();
    let enabled = Mask::of(pool.len(), |m| !disabled.contains(&pool.names()[m]));
    pool.with_directory(known, enabled)
}

/// What prompts are compared with.
fn baseline(artifact: &mut Artifact) -> Result<Baseline> {
    let ([_], counts): ([usize; 1], _) = artifact.take(COUNTS)?;
    let ([_, _], centres): ([usize; 2], _) = artifact.take(CENTRES)?;
    let ([_, _], moments): ([usize; 2], Vec<f64>) = artifact.take(MOMENTS)?;
    let [mean, deviation, coverage, spread] = moments[..] else {
        let problem = format!("a baseline of {} moments", moments.len());
        return Err(damaged(problem, "2 of distance and 2 of coverage"));
    };
    let moments = |mean, deviation| Moments { mean, deviation };
    Baseline::new(
        counts,
        centres,
        moments(mean, deviation),
        moments(coverage, spread),
    )
}

/// The pool with what its file says of the tokens that models take.
fn with_usage(pool: &Pool, artifact: &mut Artifact) -> Result<Pool> {
    let ([_, _], output_tokens): ([usize; 2], Vec<f32>) = artifact.take(OUTPUT_TOKENS)?;
    let ([_, _], input): ([usize; 2], Vec<f64>) = artifact.take(INPUT)?;
    pool.with_all_usage(&output_tokens, input.as_chunks().0)
}

/// Takes out the tensors whose names start with `prefix`, without it.
fn split(artifact: &mut Artifact, prefix: &str) -> BTreeMap<String, Tensor> {
    let (own, others) = std::mem::take(&mut artifact.tensors)
        .into_iter()
        .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(prefix));
    artifact.tensors = others;
    own.into_iter()
        .map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor))
        .collect()
}
