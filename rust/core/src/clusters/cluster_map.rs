//! Embedding to Phi: how much each cluster counts for a prompt.
//!
//! A [`ClusterMap`] is one or more *heads* side by side; Phi is the concatenation of what they
//! say. A *nearest* head is K-means as the paper has it: one-hot on the nearest centroid, found
//! exactly. A *softmax* head is the paper's learned map in its linear form: softmax of `W e + b`,
//! without its negligible entries where asked. Several heads make an ensemble, whose mixing weights
//! are folded into the profiles. The last cluster of a softmax head may be its *background*, where an
//! LLM's profile is its overall mean; [`Familiarity`] moves prompts that are out of distribution there.
//!
//! Every sum here runs in one fixed order with multiply then add, so all instruction sets, single
//! prompts and batches give the same bits.

use crate::clusters::centroids::Centroids;
pub use crate::clusters::phi::Phi;
use crate::error::{Error, Result};
use crate::kernels;
use crate::sys::threads::Run;

/// Clusters that a map has at most, over all heads. Hulls and counters of each take far more room than
/// a centroid of few dimensions does.
pub const MOST_CLUSTERS: usize = 1 << 17;

/// Embeddings that one thread takes at a time: enough rows to be worth a second thread.
const ROWS_PER_TASK: usize = 128;

/// Weights and biases of a softmax head are at most this: then logits of ordinary embeddings stay finite.
const LARGEST_WEIGHT: f32 = 1e30;

/// One part of a cluster map.
pub enum Head {
    /// One-hot on the nearest centroid.
    Nearest(Centroids),
    /// Softmax of a linear map.
    Softmax(Softmax),
}

impl Head {
    /// Number of clusters of this head.
    pub fn clusters(&self) -> usize {
        match self {
            Self::Nearest(centroids) => centroids.len(),
            Self::Softmax(softmax) => softmax.bias.len(),
        }
    }

    fn dim(&self) -> usize {
        match self {
            Self::Nearest(centroids) => centroids.dim(),
            Self::Softmax(softmax) => softmax.dim(),
        }
    }
}

/// Softmax of a linear map of the embedding.
#[derive(Debug)]
pub struct Softmax {
    /// [dim, clusters], row-major: transposed, so that one embedding entry meets all clusters.
    weights: Vec<f32>,
    bias: Vec<f32>,
    floor: f32,
    background: bool,
}

impl Softmax {
    /// From `weights` [clusters, dim] row-major, `bias` [clusters], and a `floor` from 0 to 1:
    /// entries below that share of the largest are left out, the others scaled to sum to 1.
    pub fn new(weights: &[f32], bias: &[f32], floor: f32) -> Result<Self> {
        let clusters = bias.len();
        if clusters == 0 || weights.is_empty() || !weights.len().is_multiple_of(clusters) {
            return Err(Error::invalid(
                "weights",
                format!("{} weights for {clusters} clusters", weights.len()),
                "clusters x dim weights, at least one of each",
            ));
        }
        if !(0.0..=1.0).contains(&floor) {
            return Err(Error::invalid("floor", floor.to_string(), "0 to 1"));
        }
        let check = |argument, values: &[f32]| {
            let fits = |v: &f32| v.abs() <= LARGEST_WEIGHT;
            match values.iter().position(|v| !fits(v)) {
                Some(at) => Err(Error::invalid(
                    argument,
                    format!("{} at {at}", values[at]),
                    format!("finite values, {LARGEST_WEIGHT:e} at most"),
                )),
                None => Ok(()),
            }
        };
        check("weights", weights)?;
        check("bias", bias)?;
        let dim = weights.len() / clusters;
        let transposed = (0..dim).flat_map(|d| (0..clusters).map(move |k| weights[k * dim + d]));
        Ok(Self {
            weights: transposed.collect(),
            bias: bias.to_vec(),
            floor,
            background: false,
        })
    }

    /// The same head, whose last cluster is its background; it has others beside it.
    pub fn with_background(self) -> Result<Self> {
        if self.bias.len() < 2 {
            return Err(Error::invalid(
                "heads",
                "a background that is the only cluster of its head",
                "softmax heads of two clusters or more",
            ));
        }
        Ok(Self {
            background: true,
            ..self
        })
    }

    /// Whether the last cluster is a background.
    pub fn has_background(&self) -> bool {
        self.background
    }

    /// Dimension of the embedding.
    pub fn dim(&self) -> usize {
        self.weights.len() / self.bias.len()
    }

    /// Weights as given, [clusters, dim] row-major.
    pub fn weights(&self) -> Vec<f32> {
        let clusters = self.bias.len();
        let at = |k: usize| (0..self.dim()).map(move |d| self.weights[d * clusters + k]);
        (0..clusters).flat_map(at).collect()
    }

    /// Bias of each cluster.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Share of the largest entry below which entries are left out.
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// Appends this head's entries, numbered from `offset`.
    fn append(
        &self,
        embedding: &[f32],
        offset: usize,
        phi: &mut Phi,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { every_dim, values } = scratch;
        if every_dim.len() != embedding.len() {
            *every_dim = (0..embedding.len() as u32).collect();
        }
        values.clear();
        values.resize(self.bias.len(), 0.0);
        kernels::weighted_rows(every_dim, embedding, &self.weights, values);
        for (value, bias) in values.iter_mut().zip(&self.bias) {
            *value += bias;
        }
        let largest = values.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        for value in values.iter_mut() {
            *value = exp(*value - largest);
        }
        let start = phi.weights.len();
        let mut sum = 0.0;
        for (k, &value) in values.iter().enumerate() {
            // The largest is 1 here. A NaN is kept, so that the sum shows it.
            if value > 0.0 && value >= self.floor || value.is_nan() {
                sum += value;
                phi.push(offset + k, value);
            }
        }
        if !(sum.is_finite() && sum > 0.0) {
            let problem = "logits that overflow float32";
            return Err(Error::invalid(
                "embeddings",
                problem,
                "values of ordinary size",
            ));
        }
        phi.weights[start..].iter_mut().for_each(|w| *w /= sum);
        Ok(())
    }
}

/// How near a prompt is to those that the map was fitted on: see [`share_out_of_distribution`].
pub struct Familiarity {
    landmarks: Centroids,
    distance: f32,
}

/// Shares below this one change nothing; the floor of softmax heads, as a rule.
const NEGLIGIBLE: f32 = 1.0 / 64.0;

/// Distances count for at most this many times the reference: the eighth power stays finite, and what
/// is left of the clusters' weights is below 1/65,000.
const FARTHEST: f32 = 4.0;

/// How far a prompt is out of distribution, 0 to 1, from its squared distance to the nearest landmark.
///
/// With `r = squared / distance` it is `r^8 / (1 + r^8)`: half at `distance`, and hardly anything at
/// half of it. Shares below 1/64 are 0.
pub fn share_out_of_distribution(squared: f32, distance: f32) -> f32 {
    let ratio = (squared / distance).min(FARTHEST);
    let second = ratio * ratio;
    let fourth = second * second;
    let eighth = fourth * fourth;
    let share = eighth / (1.0 + eighth);
    if share < NEGLIGIBLE { 0.0 } else { share }
}

impl Familiarity {
    /// From `landmarks`, row-major with `dim` columns, and the squared distance to the nearest at
    /// which a prompt is half out of distribution, above 0.
    pub fn new(landmarks: &[f32], dim: usize, distance: f32) -> Result<Self> {
        let landmarks = Centroids::new(landmarks, dim).map_err(|e| e.about("landmarks"))?;
        if !(distance.is_finite() && distance > 0.0) {
            let problem = distance.to_string();
            return Err(Error::invalid("distance", problem, "above 0 and finite"));
        }
        Ok(Self {
            landmarks,
            distance,
        })
    }

    /// What prompts are near to.
    pub fn landmarks(&self) -> &Centroids {
        &self.landmarks
    }

    /// Squared distance to the nearest landmark at which a prompt is half out of distribution.
    pub fn distance(&self) -> f32 {
        self.distance
    }

    /// How far a prompt is out of distribution, 0 to 1.
    fn share(&self, embedding: &[f32]) -> Result<f32> {
        let (_, squared) = self.landmarks.nearest(embedding)?;
        Ok(share_out_of_distribution(squared, self.distance))
    }
}

/// Room for the sums of one prompt; grows once, then is reused.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    every_dim: Vec<u32>,
    values: Vec<f32>,
}

/// Phi: embedding [dim] -> weights over all clusters of all heads.
pub struct ClusterMap {
    heads: Vec<Head>,
    familiarity: Option<Familiarity>,
}

impl ClusterMap {
    /// From its heads, all of the same embedding dimension.
    pub fn new(heads: Vec<Head>) -> Result<Self> {
        let Some(first) = heads.first() else {
            return Err(Error::invalid("heads", "no head", "at least one"));
        };
        if let Some(other) = heads.iter().find(|h| h.dim() != first.dim()) {
            return Err(Error::invalid(
                "heads",
                format!("embedding dimensions {} and {}", first.dim(), other.dim()),
                "heads of one embedding dimension",
            ));
        }
        check_clusters(heads.iter().map(Head::clusters).sum())?;
        Ok(Self {
            heads,
            familiarity: None,
        })
    }

    /// The map that moves prompts out of distribution to the last cluster of each head, which becomes
    /// its background. Only softmax heads of two clusters or more have one to spare.
    pub fn with_familiarity(self, familiarity: Familiarity) -> Result<Self> {
        let dim = familiarity.landmarks.dim();
        if dim != self.dim() {
            return Err(Error::invalid(
                "landmarks",
                format!("dimension {dim}, heads of dimension {}", self.dim()),
                "landmarks of the heads' dimension",
            ));
        }
        let heads = self.heads.into_iter().map(|head| match head {
            Head::Softmax(softmax) if softmax.bias.len() > 1 => {
                softmax.with_background().map(Head::Softmax)
            }
            _ => Err(Error::invalid(
                "landmarks",
                "a head without a cluster to spare for prompts out of distribution",
                "softmax heads of two clusters or more beside landmarks",
            )),
        });
        Ok(Self {
            heads: heads.collect::<Result<_>>()?,
            familiarity: Some(familiarity),
        })
    }

    /// What prompts out of distribution are found by, where the map looks for them.
    pub fn familiarity(&self) -> Option<&Familiarity> {
        self.familiarity.as_ref()
    }

    /// The heads' backgrounds, those that have one, ascending.
    pub fn backgrounds(&self) -> Vec<u32> {
        let mut end = 0;
        let own = self.heads.iter().filter_map(|head| {
            end += head.clusters() as u32;
            matches!(head, Head::Softmax(s) if s.background).then(|| end - 1)
        });
        own.collect()
    }

    /// Its heads.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Dimension of the embedding.
    pub fn dim(&self) -> usize {
        self.heads[0].dim()
    }

    /// Number of clusters over all heads: length of Phi.
    pub fn clusters(&self) -> usize {
        self.heads.iter().map(Head::clusters).sum()
    }

    /// The centroids, where the map is nothing but a nearest head: then one cluster decides alone.
    pub fn single_nearest(&self) -> Option<&Centroids> {
        match &self.heads[..] {
            [Head::Nearest(centroids)] => Some(centroids),
            _ => None,
        }
    }

    /// Writes Phi of one embedding, [`Self::dim`] finite values. No allocation once warm.
    pub fn phi(&self, embedding: &[f32], phi: &mut Phi, scratch: &mut Scratch) -> Result<()> {
        phi.clear();
        let outside = match &self.familiarity {
            Some(familiarity) => familiarity.share(embedding)?,
            None => 0.0,
        };
        let mut offset = 0;
        for head in &self.heads {
            let start = phi.weights.len();
            match head {
                Head::Nearest(centroids) => {
                    phi.push(offset + centroids.nearest(embedding)?.0 as usize, 1.0);
                }
                Head::Softmax(softmax) => softmax.append(embedding, offset, phi, scratch)?,
            }
            offset += head.clusters();
            if outside > 0.0 {
                phi.move_to(offset - 1, outside, start);
            }
        }
        Ok(())
    }

    /// Number of embeddings in [rows, dim]; fails for another dimension, or values that are not finite.
    pub fn rows(&self, embeddings: &[f32]) -> Result<usize> {
        let dim = self.dim();
        // All at once first: a search for the culprit stops the compiler from using vectors.
        if !embeddings.iter().fold(true, |fine, v| fine & v.is_finite())
            && let Some(at) = embeddings.iter().position(|v| !v.is_finite())
        {
            return Err(Error::invalid(
                "embeddings",
                format!(
                    "{} in row {}, column {}",
                    embeddings[at],
                    at / dim,
                    at % dim
                ),
                "finite values",
            ));
        }
        if !embeddings.len().is_multiple_of(dim) {
            return Err(Error::invalid(
                "embeddings",
                format!("{} values", embeddings.len()),
                format!("rows of {dim} values"),
            ));
        }
        Ok(embeddings.len() / dim)
    }

    /// Phi of many embeddings, [rows, dim] row-major, into `out`, [rows, clusters]; on several threads.
    pub fn phi_of_all(&self, embeddings: &[f32], out: &mut [f32], run: &Run<'_>) -> Result<()> {
        let clusters = self.clusters();
        out.fill(0.0);
        self.for_all(embeddings, (out, clusters), run, Phi::write)
    }

    /// Phi of each of many embeddings, [rows, dim] row-major; on several threads.
    pub fn place_all(&self, embeddings: &[f32], run: &Run<'_>) -> Result<Vec<Phi>> {
        let mut all = vec![Phi::default(); self.rows(embeddings)?];
        self.for_all(embeddings, (&mut all, 1), run, |phi, own| {
            own[0].clone_from(phi);
        })?;
        Ok(all)
    }

    /// Hands Phi of each embedding to `put`, with its share of `out`, [rows, width].
    fn for_all<T: Send>(
        &self,
        embeddings: &[f32],
        (out, width): (&mut [T], usize),
        run: &Run<'_>,
        put: impl Fn(&Phi, &mut [T]) + Sync,
    ) -> Result<()> {
        let (dim, rows) = (self.dim(), self.rows(embeddings)?);
        if out.len() != rows * width {
            let found = format!("room for {} values", out.len());
            return Err(Error::invalid(
                "out",
                found,
                format!("{rows} prompts x {width}"),
            ));
        }
        let tasks = embeddings
            .chunks(ROWS_PER_TASK * dim)
            .zip(out.chunks_mut(ROWS_PER_TASK * width));
        let init = || (Phi::default(), Scratch::default());
        run.for_each(tasks, init, |(phi, scratch), (x, out)| {
            for (x, own) in x.chunks_exact(dim).zip(out.chunks_exact_mut(width)) {
                self.phi(x, phi, scratch)?;
                put(phi, own);
            }
            Ok(())
        })
    }

    /// The cluster that a prompt is said to belong to: the heaviest of the first head.
    pub fn cluster(&self, phi: &Phi) -> u32 {
        phi.heaviest(self.first_clusters())
    }

    /// Number of clusters of the first head: those that prompts are said to belong to.
    pub fn first_clusters(&self) -> usize {
        self.heads[0].clusters()
    }
}

/// Fails for more clusters than a map can have.
pub(crate) fn check_clusters(clusters: usize) -> Result<()> {
    if clusters <= MOST_CLUSTERS {
        return Ok(());
    }
    Err(Error::invalid(
        "heads",
        format!("{clusters} clusters"),
        format!("at most {MOST_CLUSTERS}"),
    ))
}

/// e^x for x <= 0, to about 1e-7 relative; 0 below the least normal result.
///
/// Plain arithmetic in a fixed order, because the system's `expf` differs between systems, and a
/// decision must not.
fn exp(x: f32) -> f32 {
    // 2^n * e^r with |r| <= ln(2)/2; ln(2) split in two so that r keeps its digits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const ROUNDER: f32 = 12_582_912.0;
    if x < -87.0 {
        return 0.0;
    }
    // Adding and taking away 3 * 2^22 rounds to an integer; `round` is a call on plain x86-64.
    let n = (x * std::f32::consts::LOG2_E + ROUNDER) - ROUNDER;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Taylor coefficients: the error at |r| = 0.35 is below 1e-8.
    let series = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let poly = series.iter().fold(0.0, |sum, c| sum * r + c);
    poly * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phi_of(map: &ClusterMap, embedding: &[f32]) -> Phi {
        let mut phi = Phi::default();
        map.phi(embedding, &mut phi, &mut Scratch::default())
            .unwrap();
        phi
    }

    #[test]
    fn exp_agrees_with_float64() {
        for i in 0..=8700 {
            let x = -(i as f32) / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn softmax_is_that_of_the_definition_and_sums_to_one() {
        let weights: Vec<f32> = (0..15).map(|i| ((i * 7) % 5) as f32 - 2.0).collect();
        let softmax = Softmax::new(&weights, &[0.1, 0.2, 0.3, -0.4, 0.5], 0.0).unwrap();
        assert_eq!(softmax.weights(), weights);
        let map = ClusterMap::new(vec![Head::Softmax(softmax)]).unwrap();
        let embedding = [0.3f32, -0.2, 0.9];
        let logit = |k: usize| {
            let dot: f64 = (0..3)
                .map(|d| f64::from(weights[k * 3 + d] * embedding[d]))
                .sum();
            dot + [0.1, 0.2, 0.3, -0.4, 0.5][k]
        };
        let sum: f64 = (0..5).map(|k| logit(k).exp()).sum();
        let phi = phi_of(&map, &embedding);
        assert_eq!(phi.clusters, [0, 1, 2, 3, 4]);
        for k in 0..5 {
            assert!((f64::from(phi.weights[k]) - logit(k).exp() / sum).abs() < 1e-6);
        }
    }

    #[test]
    fn entries_below_the_floor_are_left_out() {
        let softmax = Softmax::new(&[0.0; 4], &[1.0, 3.0, 2.5, -4.0], 0.1).unwrap();
        let map = ClusterMap::new(vec![Head::Softmax(softmax)]).unwrap();
        let phi = phi_of(&map, &[1.0]);
        assert_eq!(phi.clusters, [0, 1, 2]);
        assert!((phi.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(map.cluster(&phi), 1);
    }

    #[test]
    fn heads_stand_side_by_side() {
        let nearest = Centroids::new(&[0.0, 0.0, 1.0, 1.0], 2).unwrap();
        let softmax = Softmax::new(&[0.0; 4], &[0.0, 50.0], 0.01).unwrap();
        let map = ClusterMap::new(vec![Head::Nearest(nearest), Head::Softmax(softmax)]).unwrap();
        let phi = phi_of(&map, &[0.9, 0.8]);
        assert_eq!(
            (phi.clusters.clone(), phi.weights.clone()),
            (vec![1, 3], vec![1.0, 1.0])
        );
        assert_eq!(map.cluster(&phi), 1);
        assert_eq!(map.clusters(), 4);
    }

    /// Two heads of which each has its last cluster for prompts out of distribution; one landmark at the origin.
    fn with_landmark(distance: f32) -> ClusterMap {
        let head = || Softmax::new(&[0.0; 3], &[1.0, 1.0, -9.0], 1.0 / 64.0).unwrap();
        let heads = vec![Head::Softmax(head()), Head::Softmax(head())];
        let familiarity = Familiarity::new(&[0.0], 1, distance).unwrap();
        let map = ClusterMap::new(heads).unwrap();
        map.with_familiarity(familiarity).unwrap()
    }

    #[test]
    fn a_prompt_out_of_distribution_goes_to_the_background_of_each_head() {
        let map = with_landmark(4.0);
        // At the reference distance it is half there, in both heads.
        let half = phi_of(&map, &[2.0]);
        assert_eq!(half.clusters, [0, 1, 2, 3, 4, 5]);
        assert_eq!(half.weights, [0.25, 0.25, 0.5, 0.25, 0.25, 0.5]);
        // Near the landmark it is as if there were none.
        assert_eq!(phi_of(&map, &[1.4]).clusters, [0, 1, 3, 4]);
        let far = phi_of(&map, &[1e18]);
        assert!(far.weights[2] > 0.9999 && far.weights[5] > 0.9999);
        assert!((far.weights.iter().sum::<f32>() - 2.0).abs() < 1e-6);
        assert_eq!(map.cluster(&far), 2);
        assert_eq!(map.backgrounds(), [2, 5]);
    }

    #[test]
    fn many_at_once_are_as_one_by_one() {
        let map = with_landmark(4.0);
        let x: Vec<f32> = (0..300_u16).map(|i| f32::from(i) / 50.0).collect();
        for threads in [1, 3] {
            let run = Run {
                threads,
                interrupted: &|| false,
            };
            let mut all = vec![9.0; x.len() * map.clusters()];
            map.phi_of_all(&x, &mut all, &run).unwrap();
            for (x, row) in x.iter().zip(all.chunks(map.clusters())) {
                let mut own = vec![0.0; map.clusters()];
                phi_of(&map, &[*x]).write(&mut own);
                assert_eq!(row, own);
            }
        }
        let run = Run::default();
        let refused = |x: &[f32], room| map.phi_of_all(x, &mut vec![0.0; room], &run).is_err();
        assert!(refused(&x, 6) && refused(&[f32::NAN], 6) && !refused(&[1.0], 6));
    }

    #[test]
    fn a_background_needs_other_clusters_beside_it() {
        let head = |clusters: usize| Softmax::new(&vec![0.0; clusters], &vec![0.0; clusters], 0.0);
        assert!(head(1).unwrap().with_background().is_err());
        let (plain, own) = (
            head(2).unwrap(),
            head(3).unwrap().with_background().unwrap(),
        );
        let map = ClusterMap::new(vec![Head::Softmax(plain), Head::Softmax(own)]).unwrap();
        assert_eq!(map.backgrounds(), [4]);
    }

    #[test]
    fn a_last_cluster_that_counts_already_counts_for_more() {
        let softmax = Softmax::new(&[0.0; 2], &[0.0, 0.0], 0.0).unwrap();
        let map = ClusterMap::new(vec![Head::Softmax(softmax)])
            .and_then(|map| map.with_familiarity(Familiarity::new(&[0.0], 1, 1.0)?))
            .unwrap();
        assert_eq!(phi_of(&map, &[1.0]).weights, [0.25, 0.75]);
    }

    #[test]
    fn landmarks_that_do_not_fit_are_refused() {
        for distance in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(Familiarity::new(&[0.0, 1.0], 2, distance).is_err());
        }
        let unusable = Familiarity::new(&[0.0, f32::NAN], 2, 1.0).err().unwrap();
        assert!(unusable.to_string().starts_with("landmarks: "));
        let familiarity = || Familiarity::new(&[0.0, 1.0], 2, 1.0).unwrap();
        let refused = |head| {
            let map = ClusterMap::new(vec![head]).unwrap();
            map.with_familiarity(familiarity()).is_err()
        };
        let nearest = Centroids::new(&[0.0, 1.0], 2).unwrap();
        assert!(refused(Head::Nearest(nearest)));
        let softmax = |dim, clusters| {
            let weights = vec![0.0; dim * clusters];
            Head::Softmax(Softmax::new(&weights, &vec![0.0; clusters], 0.0).unwrap())
        };
        assert!(refused(softmax(2, 1)));
        assert!(refused(softmax(3, 2)));
        assert!(!refused(softmax(2, 2)));
    }

    #[test]
    fn logits_that_overflow_are_an_error() {
        let softmax = Softmax::new(&[1e30, 1.0, -1e30, 1.0], &[0.0; 2], 0.0).unwrap();
        let map = ClusterMap::new(vec![Head::Softmax(softmax)]).unwrap();
        let mut phi = Phi::default();
        assert!(
            map.phi(&[1e10, 0.0], &mut phi, &mut Scratch::default())
                .is_err()
        );
    }

    #[test]
    fn bad_heads_are_refused() {
        assert!(ClusterMap::new(vec![]).is_err());
        assert!(Softmax::new(&[], &[], 0.0).is_err());
        assert!(Softmax::new(&[1.0; 3], &[0.0; 2], 0.0).is_err());
        assert!(Softmax::new(&[f32::NAN; 2], &[0.0; 2], 0.0).is_err());
        assert!(Softmax::new(&[f32::MAX; 2], &[0.0; 2], 0.0).is_err());
        assert!(Softmax::new(&[0.0; 2], &[0.0; 2], 1.5).is_err());
        let one = Softmax::new(&[0.0; 2], &[0.0; 2], 0.0).unwrap();
        let two = Softmax::new(&[0.0; 4], &[0.0; 2], 0.0).unwrap();
        assert!(ClusterMap::new(vec![Head::Softmax(one), Head::Softmax(two)]).is_err());
    }
}
