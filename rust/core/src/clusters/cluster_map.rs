//! Embedding to Phi: how much each cluster counts for a prompt.
//!
//! A [`ClusterMap`] is one or more *heads* side by side; Phi is the concatenation of what they
//! say. A *nearest* head is K-means as the paper has it: one-hot on the nearest centroid, found
//! exactly. A *softmax* head is the paper's learned map in its linear form: softmax of `W e + b`,
//! without its negligible entries where asked. Several heads make an ensemble, whose mixing weights
//! are folded into the profiles. [`Familiarity`] moves foreign prompts to the last cluster of each
//! head, its *background*.
//!
//! Every sum here runs in one fixed order with multiply then add, so all instruction sets, single
//! prompts and batches give the same bits.

use crate::clusters::centroids::Centroids;
use crate::error::{Error, Result};
use crate::kernels;

/// Clusters that a map has at most, over all heads. Hulls and counters of each take far more room than
/// a centroid of few dimensions does.
pub const MOST_CLUSTERS: usize = 1 << 17;

/// Weights and biases of a softmax head are at most this: then logits of ordinary embeddings stay finite.
const LARGEST_WEIGHT: f32 = 1e30;

/// Phi of one prompt: its non-zero entries, clusters ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phi {
    /// Cluster of each entry.
    pub clusters: Vec<u32>,
    /// How much that cluster counts; each head's entries sum to 1.
    pub weights: Vec<f32>,
}

impl Phi {
    /// Writes the entries into a dense row of zeros, [clusters].
    pub fn write(&self, row: &mut [f32]) {
        for (&k, &w) in self.clusters.iter().zip(&self.weights) {
            row[k as usize] = w;
        }
    }

    fn clear(&mut self) {
        self.clusters.clear();
        self.weights.clear();
    }

    fn push(&mut self, cluster: usize, weight: f32) {
        self.clusters.push(cluster as u32);
        self.weights.push(weight);
    }

    /// Moves a `share` of what the entries from `start` on weigh to `cluster`, which is none before
    /// the last of them.
    fn move_to(&mut self, cluster: usize, share: f32, start: usize) {
        let kept = 1.0 - share;
        self.weights[start..].iter_mut().for_each(|w| *w *= kept);
        if self.clusters[start..].last() != Some(&(cluster as u32)) {
            self.push(cluster, 0.0);
        }
        if let Some(weight) = self.weights.last_mut() {
            *weight += share;
        }
    }

    /// The heaviest cluster among the first `clusters`; the lowest index on ties.
    fn heaviest(&self, clusters: usize) -> u32 {
        let own = self
            .clusters
            .iter()
            .zip(&self.weights)
            .take_while(|&(&k, _)| (k as usize) < clusters);
        own.fold((0, f32::NEG_INFINITY), |best, (&k, &w)| {
            if w > best.1 { (k, w) } else { best }
        })
        .0
    }
}

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
        })
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
            // The largest is 1 here. A NaN is kept, so that the sum tells.
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

/// How near a prompt is to those that the map was fitted on.
///
/// Where `d` is the squared distance to the nearest landmark and `r = d / distance`, a prompt is
/// foreign by `r^8 / (1 + r^8)`: half at `distance`, and hardly at half of it. Shares below 1/64 are
/// none.
pub struct Familiarity {
    landmarks: Centroids,
    distance: f32,
}

/// Foreign shares below this one change nothing; the floor of softmax heads, as a rule.
const NEGLIGIBLE: f32 = 1.0 / 64.0;

/// Distances count for at most so many times the reference: the eighth power stays finite, and what
/// is left of the clusters' weights is below 1/65,000.
const FARTHEST: f32 = 4.0;

impl Familiarity {
    /// From `landmarks`, row-major with `dim` columns, and the squared distance to the nearest at
    /// which a prompt is half foreign, above 0.
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

    /// Squared distance to the nearest landmark at which a prompt is half foreign.
    pub fn distance(&self) -> f32 {
        self.distance
    }

    /// How foreign a prompt is, 0 to 1.
    fn foreign(&self, embedding: &[f32]) -> Result<f32> {
        let ratio = (self.landmarks.nearest(embedding)?.1 / self.distance).min(FARTHEST);
        let squared = ratio * ratio;
        let fourth = squared * squared;
        let eighth = fourth * fourth;
        let share = eighth / (1.0 + eighth);
        Ok(if share < NEGLIGIBLE { 0.0 } else { share })
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

    /// The map that moves foreign prompts to the last cluster of each head. Only softmax heads of two
    /// clusters or more have one to spare.
    pub fn with_familiarity(self, familiarity: Familiarity) -> Result<Self> {
        let dim = familiarity.landmarks.dim();
        if dim != self.dim() {
            return Err(Error::invalid(
                "landmarks",
                format!("dimension {dim}, heads of dimension {}", self.dim()),
                "landmarks of the heads' dimension",
            ));
        }
        let has_background = |head: &Head| matches!(head, Head::Softmax(s) if s.bias.len() > 1);
        if !self.heads.iter().all(has_background) {
            return Err(Error::invalid(
                "landmarks",
                "a head without a cluster for foreign prompts",
                "softmax heads of two clusters or more beside landmarks",
            ));
        }
        Ok(Self {
            familiarity: Some(familiarity),
            ..self
        })
    }

    /// What tells foreign prompts, where the map looks for them.
    pub fn familiarity(&self) -> Option<&Familiarity> {
        self.familiarity.as_ref()
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
        let foreign = match &self.familiarity {
            Some(familiarity) => familiarity.foreign(embedding)?,
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
            if foreign > 0.0 {
                phi.move_to(offset - 1, foreign, start);
            }
        }
        Ok(())
    }

    /// The cluster that a prompt is said to belong to: the heaviest of the first head.
    pub fn cluster(&self, phi: &Phi) -> u32 {
        phi.heaviest(self.first_clusters())
    }

    /// The clusters that prompts unlike those of the fit are moved to, one for each head; none where
    /// the map does not look for such prompts.
    pub fn backgrounds(&self) -> Vec<u32> {
        if self.familiarity.is_none() {
            return Vec::new();
        }
        let mut end = 0;
        let ends = self.heads.iter().map(|head| {
            end += head.clusters() as u32;
            end - 1
        });
        ends.collect()
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

    /// Two heads of which each has its last cluster for foreign prompts; one landmark at the origin.
    fn with_landmark(distance: f32) -> ClusterMap {
        let head = || Softmax::new(&[0.0; 3], &[1.0, 1.0, -9.0], 1.0 / 64.0).unwrap();
        let heads = vec![Head::Softmax(head()), Head::Softmax(head())];
        let familiarity = Familiarity::new(&[0.0], 1, distance).unwrap();
        let map = ClusterMap::new(heads).unwrap();
        map.with_familiarity(familiarity).unwrap()
    }

    #[test]
    fn a_foreign_prompt_goes_to_the_last_cluster_of_each_head() {
        let map = with_landmark(4.0);
        // At the reference distance it is half foreign, in both heads.
        let half = phi_of(&map, &[2.0]);
        assert_eq!(half.clusters, [0, 1, 2, 3, 4, 5]);
        assert_eq!(half.weights, [0.25, 0.25, 0.5, 0.25, 0.25, 0.5]);
        // Near the landmark it is as if there were none.
        assert_eq!(phi_of(&map, &[1.4]).clusters, [0, 1, 3, 4]);
        let far = phi_of(&map, &[1e18]);
        assert!(far.weights[2] > 0.9999 && far.weights[5] > 0.9999);
        assert!((far.weights.iter().sum::<f32>() - 2.0).abs() < 1e-6);
        assert_eq!(map.cluster(&far), 2);
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
