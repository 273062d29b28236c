//! The pool: what each LLM costs, what loss it is predicted in each cluster, who wins.
//!
//! A [`Pool`] is a value: changing one makes another that shares what did not change, so a
//! snapshot that readers hold stays as it was.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hull::{Candidate, Hull, by_cost, scan};

/// Models per strip of the profile table.
pub const STRIP: usize = 256;

/// Profiles Psi, float32 [clusters, models], in strips of [`STRIP`] models: a strip is small
/// enough to stay in cache while the clusters of one prompt are summed over it, and adding a model
/// copies one strip and not the table.
#[derive(Clone, Debug)]
pub struct Profiles {
    clusters: usize,
    models: usize,
    /// Each [clusters, STRIP]; columns past the last model hold zeros.
    strips: Vec<Arc<[f32]>>,
}

impl Profiles {
    fn new(clusters: usize) -> Self {
        Self {
            clusters,
            models: 0,
            strips: Vec::new(),
        }
    }

    /// Number of clusters.
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// Strips with the number of models in each.
    pub fn strips(&self) -> impl Iterator<Item = (&[f32], usize)> {
        let widths = (0..self.models)
            .step_by(STRIP)
            .map(|at| STRIP.min(self.models - at));
        self.strips.iter().map(|strip| &**strip).zip(widths)
    }

    /// Predicted loss of one model in one cluster.
    pub fn get(&self, cluster: usize, model: usize) -> f32 {
        self.strips[model / STRIP][cluster * STRIP + model % STRIP]
    }

    /// Predicted losses of all models in one cluster, in index order.
    pub fn row(&self, cluster: usize) -> impl Iterator<Item = f32> {
        self.strips()
            .flat_map(move |(strip, width)| strip[cluster * STRIP..][..width].iter().copied())
    }

    /// Appends models: `columns` is [clusters, added], row-major.
    fn push(&mut self, columns: &[f32], added: usize) {
        for j in 0..added {
            let at = (self.models + j) % STRIP;
            if at == 0 {
                self.strips.push(vec![0.0; self.clusters * STRIP].into());
            }
            let Some(strip) = self.strips.last_mut() else {
                return;
            };
            let strip = Arc::make_mut(strip);
            for k in 0..self.clusters {
                strip[k * STRIP + at] = columns[k * added + j];
            }
        }
        self.models += added;
    }

    /// Takes a model out; later ones move down.
    fn remove(&mut self, model: usize) {
        let (first, at) = (model / STRIP, model % STRIP);
        for s in first..self.strips.len() {
            let next = self.strips.get(s + 1).map(Arc::clone);
            let strip = Arc::make_mut(&mut self.strips[s]);
            for k in 0..self.clusters {
                let row = &mut strip[k * STRIP..][..STRIP];
                row.copy_within(
                    if s == first { at + 1.. } else { 1.. },
                    if s == first { at } else { 0 },
                );
                row[STRIP - 1] = next.as_ref().map_or(0.0, |next| next[k * STRIP]);
            }
        }
        self.models -= 1;
        self.strips.truncate(self.models.div_ceil(STRIP));
    }
}

/// LLMs that prompts can be routed to.
#[derive(Clone, Debug)]
pub struct Pool {
    names: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u32>,
    costs: Vec<f64>,
    profiles: Profiles,
    /// Model indices by ascending cost.
    by_cost: Vec<u32>,
    /// One per cluster.
    hulls: Vec<Arc<Hull>>,
}

impl Pool {
    /// A pool without models, for profiles over `clusters` clusters.
    pub fn new(clusters: usize) -> Self {
        Self {
            names: Vec::new(),
            index: HashMap::new(),
            costs: Vec::new(),
            profiles: Profiles::new(clusters),
            by_cost: Vec::new(),
            hulls: (0..clusters).map(|_| Arc::default()).collect(),
        }
    }

    /// Number of models.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no model.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Names in index order.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Costs in index order.
    pub fn costs(&self) -> &[f64] {
        &self.costs
    }

    /// Profiles of all models.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// Hull of one cluster.
    pub fn hull(&self, cluster: usize) -> &Hull {
        &self.hulls[cluster]
    }

    /// Index of a model by name; `argument` names the caller's argument in the error.
    pub fn find(&self, argument: &'static str, name: &str) -> Result<u32> {
        self.index
            .get(name)
            .copied()
            .ok_or_else(|| Error::UnknownModel {
                argument,
                name: name.into(),
            })
    }

    fn candidate(&self, cluster: usize, model: usize) -> Candidate {
        Candidate {
            cost: self.costs[model],
            loss: f64::from(self.profiles.get(cluster, model)),
            model: model as u32,
        }
    }

    /// All models of a cluster in index order.
    fn candidates(&self, cluster: usize) -> impl Iterator<Item = Candidate> {
        let costs = self.costs.iter().copied();
        self.profiles
            .row(cluster)
            .zip(costs)
            .enumerate()
            .map(|(model, (loss, cost))| Candidate {
                cost,
                loss: f64::from(loss),
                model: model as u32,
            })
    }

    /// The winner in `cluster` at `cost_weight`: least predicted loss plus weighted cost, ties to
    /// the lower cost, then to the lower index. O(log hull), O(models) where rounding decides.
    pub fn choose(&self, cluster: usize, cost_weight: f64) -> Result<Candidate> {
        self.hulls[cluster]
            .choose(cost_weight)
            .or_else(|| scan(self.candidates(cluster), cost_weight))
            .ok_or(Error::EmptyPool)
    }

    /// This pool with more models. `columns` is their profiles, [clusters, added], row-major.
    ///
    /// One model is merged into the hulls; many rebuild them. O(clusters x models) at most.
    pub fn with(&self, names: &[&str], costs: &[f64], columns: &[f32]) -> Result<Self> {
        let added = names.len();
        let clusters = self.profiles.clusters;
        if costs.len() != added {
            return Err(Error::invalid(
                "costs",
                format!("{} costs for {added} names", costs.len()),
                "one cost for each name",
            ));
        }
        if columns.len() != clusters * added {
            return Err(Error::invalid(
                "profiles",
                format!("{} values", columns.len()),
                format!("{clusters} clusters x {added} models"),
            ));
        }
        check_costs("costs", costs)?;
        if let Some(at) = columns.iter().position(|v| !v.is_finite()) {
            let (cluster, model) = (at / added, names[at % added]);
            return Err(Error::invalid(
                "profiles",
                format!("{} for model {model:?} in cluster {cluster}", columns[at]),
                "finite predicted losses",
            ));
        }
        let mut pool = self.clone();
        for &name in names {
            check_name(name)?;
            let name: Arc<str> = name.into();
            match pool.index.entry(Arc::clone(&name)) {
                Entry::Occupied(old) => {
                    return Err(Error::DuplicateModel {
                        argument: "names",
                        problem: if (*old.get() as usize) < self.len() {
                            "is in the pool already"
                        } else {
                            "appears twice"
                        },
                        name: name.to_string(),
                    });
                }
                Entry::Vacant(slot) => slot.insert(pool.names.len() as u32),
            };
            pool.names.push(name);
        }
        // Adding zero turns -0.0 into 0.0: costs that are equal must also sort as equal.
        pool.costs.extend(costs.iter().map(|c| c + 0.0));
        pool.profiles.push(columns, added);
        if added == 1 {
            pool.insert_by_cost(self.len() as u32);
            for cluster in 0..clusters {
                pool.merge_into_hull(cluster, self.len());
            }
        } else {
            pool.sort_by_cost();
            for cluster in 0..clusters {
                pool.rebuild_hull(cluster);
            }
        }
        Ok(pool)
    }

    /// This pool without a model; later ones move down by one index.
    pub fn without(&self, name: &str) -> Result<Self> {
        let model = self.find("name", name)?;
        let mut pool = self.clone();
        pool.names.remove(model as usize);
        pool.costs.remove(model as usize);
        pool.index.remove(name);
        pool.index
            .values_mut()
            .for_each(|i| *i -= u32::from(*i > model));
        pool.profiles.remove(model as usize);
        pool.by_cost.retain(|&m| m != model);
        for other in &mut pool.by_cost {
            *other -= u32::from(*other > model);
        }
        for (cluster, hull) in self.hulls.iter().enumerate() {
            if hull.has_vertex(model) {
                pool.rebuild_hull(cluster);
            } else {
                pool.hulls[cluster] = Arc::new(hull.renumbered_without(model));
            }
        }
        Ok(pool)
    }

    /// This pool with another cost for one model.
    pub fn with_cost(&self, name: &str, cost: f64) -> Result<Self> {
        let model = self.find("name", name)?;
        check_costs("cost", &[cost])?;
        let mut pool = self.clone();
        pool.costs[model as usize] = cost + 0.0;
        pool.by_cost.retain(|&m| m != model);
        pool.insert_by_cost(model);
        for cluster in 0..self.hulls.len() {
            if self.hulls[cluster].has_vertex(model) {
                pool.rebuild_hull(cluster);
            } else {
                pool.merge_into_hull(cluster, model as usize);
            }
        }
        Ok(pool)
    }

    /// This pool with another profile, [clusters], for one model.
    pub fn with_profile(&self, name: &str, profile: &[f32]) -> Result<Self> {
        let model = self.find("name", name)? as usize;
        if profile.len() != self.profiles.clusters || !profile.iter().all(|v| v.is_finite()) {
            return Err(Error::invalid(
                "profile",
                format!("{} values, or some not finite", profile.len()),
                format!("{} finite predicted losses", self.profiles.clusters),
            ));
        }
        let mut pool = self.clone();
        let strip = Arc::make_mut(&mut pool.profiles.strips[model / STRIP]);
        for (k, &loss) in profile.iter().enumerate() {
            strip[k * STRIP + model % STRIP] = loss;
        }
        for cluster in 0..self.hulls.len() {
            if self.hulls[cluster].has_vertex(model as u32) {
                pool.rebuild_hull(cluster);
            } else {
                pool.merge_into_hull(cluster, model);
            }
        }
        Ok(pool)
    }

    fn sort_by_cost(&mut self) {
        self.by_cost = (0..self.len() as u32).collect();
        let costs = &self.costs;
        self.by_cost
            .sort_by(|&a, &b| costs[a as usize].total_cmp(&costs[b as usize]));
    }

    /// Puts one model in its place among `by_cost`, where it is not yet.
    fn insert_by_cost(&mut self, model: u32) {
        let key = |m: u32| (self.costs[m as usize], m);
        let at = self
            .by_cost
            .partition_point(|&other| key(other) < key(model));
        self.by_cost.insert(at, model);
    }

    fn rebuild_hull(&mut self, cluster: usize) {
        let mut points: Vec<_> = self
            .by_cost
            .iter()
            .map(|&m| self.candidate(cluster, m as usize))
            .collect();
        // Sorted by cost already: this only orders those of equal cost.
        points.sort_by(by_cost);
        self.hulls[cluster] = Arc::new(Hull::build(points.into_iter()));
    }

    fn merge_into_hull(&mut self, cluster: usize, model: usize) {
        let point = self.candidate(cluster, model);
        self.hulls[cluster] = Arc::new(self.hulls[cluster].with(point));
    }
}

fn check_costs(argument: &'static str, costs: &[f64]) -> Result<()> {
    match costs.iter().position(|c| !(c.is_finite() && *c >= 0.0)) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(
            argument,
            format!("{} at index {at}", costs[at]),
            "finite costs, 0 or more",
        )),
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(
            "names",
            "an empty name",
            "a non-empty string for each model",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTERS: usize = 3;

    fn pool_of(models: &[(f64, [f32; CLUSTERS])]) -> Pool {
        let names: Vec<String> = (0..models.len()).map(|i| format!("m{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let costs: Vec<f64> = models.iter().map(|m| m.0).collect();
        let columns: Vec<f32> = (0..CLUSTERS)
            .flat_map(|k| models.iter().map(move |m| m.1[k]))
            .collect();
        Pool::new(CLUSTERS).with(&names, &costs, &columns).unwrap()
    }

    fn assert_same_choices(a: &Pool, b: &Pool) {
        for cluster in 0..CLUSTERS {
            let switches = a
                .hull(cluster)
                .switches()
                .iter()
                .chain(b.hull(cluster).switches());
            for &w in switches.chain(&[0.0, 0.3, 7.0, 1e18]) {
                let (x, y) = (a.choose(cluster, w).unwrap(), b.choose(cluster, w).unwrap());
                assert_eq!(x, y, "cluster {cluster}, cost weight {w:e}");
            }
        }
    }

    fn model() -> impl Strategy<Value = (f64, [f32; CLUSTERS])> {
        let loss = || (0u8..9).prop_map(|l| f32::from(l) / 8.0);
        ((0u8..7).prop_map(f64::from), [loss(), loss(), loss()])
    }

    proptest! {
        #[test]
        fn every_change_equals_a_pool_made_afresh(
            start in prop::collection::vec(model(), 1..12),
            changes in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), model()), 1..12),
        ) {
            let mut models = start.clone();
            let mut names: Vec<String> = (0..models.len()).map(|i| format!("m{i}")).collect();
            let mut pool = pool_of(&start);
            for (n, (kind, at, (cost, losses))) in changes.into_iter().enumerate() {
                let at = at.index(models.len());
                match kind {
                    0 => {
                        names.push(format!("new{n}"));
                        models.push((cost, losses));
                        pool = pool.with(&[&format!("new{n}")], &[cost], &losses).unwrap();
                    }
                    1 if models.len() > 1 => {
                        models.remove(at);
                        pool = pool.without(&names.remove(at)).unwrap();
                    }
                    2 => {
                        models[at].1 = losses;
                        pool = pool.with_profile(&names[at], &losses).unwrap();
                    }
                    _ => {
                        models[at].0 = cost;
                        pool = pool.with_cost(&names[at], cost).unwrap();
                    }
                }
                assert_same_choices(&pool, &pool_of(&models));
                for (i, name) in names.iter().enumerate() {
                    prop_assert_eq!(pool.find("name", name).unwrap() as usize, i);
                    prop_assert_eq!(&*pool.names()[i], name.as_str());
                }
            }
        }
    }

    #[test]
    fn removal_moves_models_down_across_strips() {
        let n = 2 * STRIP + 10;
        let models: Vec<_> = (0..n)
            .map(|i| (1.0, [i as f32, 0.5 * i as f32, 1.0]))
            .collect();
        let pool = pool_of(&models).without("m3").unwrap();
        assert_eq!(pool.len(), n - 1);
        let row: Vec<f32> = pool.profiles().row(0).collect();
        let expected: Vec<f32> = (0..n).filter(|&i| i != 3).map(|i| i as f32).collect();
        assert_eq!(row, expected);
    }

    #[test]
    fn bad_input_is_refused_and_names_the_argument() {
        let pool = pool_of(&[(1.0, [0.1, 0.2, 0.3])]);
        let message = |r: Result<Pool>| r.unwrap_err().to_string();
        assert!(message(pool.with(&["m0"], &[1.0], &[0.0; 3])).contains("in the pool already"));
        assert!(message(pool.with(&["a", "a"], &[1.0; 2], &[0.0; 6])).contains("appears twice"));
        assert!(message(pool.with(&["a"], &[-1.0], &[0.0; 3])).starts_with("costs: -1"));
        assert!(message(pool.with(&["a"], &[1.0], &[0.0; 2])).starts_with("profiles"));
        assert!(message(pool.with(&["a"], &[1.0], &[0.0, f32::NAN, 0.0])).contains("cluster 1"));
        assert!(message(pool.with(&[""], &[1.0], &[0.0; 3])).contains("empty name"));
        assert!(message(pool.with_cost("m0", f64::NAN)).starts_with("cost: NaN"));
        assert!(message(pool.with_cost("x", 1.0)).contains("\"x\""));
        assert!(matches!(Pool::new(2).choose(1, 0.0), Err(Error::EmptyPool)));
    }
}
