//! The pool: what each LLM costs, what loss it is predicted in each cluster, who wins.
//!
//! A [`Pool`] is a value: changing one makes another that shares what did not change, so a
//! snapshot that readers hold stays as it was.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::pool::checks::{check_costs, check_finite, check_name};
use crate::pool::hull::{Candidate, Hull, by_cost};
use crate::pool::mask::Mask;
use crate::pool::metadata::{Directory, LARGEST_PRICE, Metadata, is_price};
use crate::pool::names::Names;
use crate::pool::table::Table;
use crate::pool::tokens::{Metering, Usage};
use crate::sys::fork;

/// LLMs that prompts can be routed to.
///
/// What one change leaves alone, two pools share.
#[derive(Clone, Debug)]
pub struct Pool {
    names: Arc<Names>,
    costs: Arc<Vec<f64>>,
    profiles: Table,
    directory: Arc<Directory>,
    /// `None` as long as no usage is known.
    metering: Option<Arc<Metering>>,
    /// The models that may be chosen.
    enabled: Mask,
    /// Model indices by ascending cost, then by index.
    by_cost: Arc<Vec<u32>>,
    /// One per cluster, of the enabled models. Empty until first needed where a pool was made in
    /// one go, so that loading one with many clusters takes no longer than reading it.
    hulls: Vec<Arc<OnceLock<Hull>>>,
}

impl Pool {
    /// A pool without models, for profiles over `clusters` clusters.
    pub fn new(clusters: usize) -> Self {
        Self {
            names: Arc::default(),
            costs: Arc::default(),
            profiles: Table::new(clusters),
            directory: Arc::default(),
            metering: None,
            enabled: Mask::default(),
            by_cost: Arc::default(),
            hulls: (0..clusters).map(|_| Arc::default()).collect(),
        }
    }

    /// Number of clusters.
    pub fn clusters(&self) -> usize {
        self.hulls.len()
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
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Costs in index order.
    pub fn costs(&self) -> &[f64] {
        &self.costs
    }

    /// Profiles of all models.
    pub fn profiles(&self) -> &Table {
        &self.profiles
    }

    /// What else is known of the models.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Costs that depend on the prompt; `None` where no model is charged by the token.
    pub fn metering(&self) -> Option<&Metering> {
        (self.metering.as_deref()).filter(|metering| metering.metered().count() > 0)
    }

    /// What is known of the tokens that models take; `None` where nothing is.
    pub fn usage(&self) -> Option<&Metering> {
        self.metering.as_deref()
    }

    /// The models that may be chosen.
    pub fn enabled(&self) -> &Mask {
        &self.enabled
    }

    /// Hull of one cluster's enabled models.
    pub fn hull(&self, cluster: usize) -> &Hull {
        fork::once(&self.hulls[cluster], || {
            self.build_hull(cluster, &self.enabled)
        })
    }

    /// Index of a model by name.
    pub fn position(&self, name: &str) -> Option<u32> {
        self.names.position(name)
    }

    /// Index of a model by name; `argument` names the caller's argument in the error.
    pub fn find(&self, argument: &'static str, name: &str) -> Result<u32> {
        self.position(name).ok_or_else(|| Error::UnknownModel {
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

    /// This pool with more models. `columns` is their profiles, [clusters, added], row-major.
    ///
    /// One model is merged into the hulls; after many they are built anew when next needed.
    /// O(clusters x added + models).
    pub fn with(&self, names: &[&str], costs: &[f64], columns: &[f32]) -> Result<Self> {
        let added = names.len();
        let clusters = self.clusters();
        if columns.len() != clusters * added {
            return Err(Error::invalid(
                "profiles",
                format!("{} values", columns.len()),
                format!("{clusters} clusters x {added} models"),
            ));
        }
        check_finite(columns, names, |at| (at / added, at % added))?;
        let mut pool = self.clone();
        pool.profiles.push(columns, added);
        pool.join(names, costs)
    }

    /// A pool of these models. `strips` is their profiles in strips of [`STRIP`](crate::pool::table::STRIP) models, each
    /// [clusters, STRIP] row-major, zeros behind the last model; the pool goes on using them where
    /// they lie. O(clusters x models).
    pub fn of_strips(
        clusters: usize,
        names: &[&str],
        costs: &[f64],
        strips: &Arc<Vec<f32>>,
    ) -> Result<Self> {
        let mut pool = Self::new(clusters);
        pool.profiles = Table::of_strips(clusters, names, strips)?;
        pool.join(names, costs)
    }

    /// This pool, which has the profiles of more models already, with the models themselves.
    fn join(mut self, names: &[&str], costs: &[f64]) -> Result<Self> {
        let (before, added) = (self.len(), names.len());
        let pool = &mut self;
        if costs.len() != added {
            return Err(Error::invalid(
                "costs",
                format!("{} costs for {added} names", costs.len()),
                "one cost for each name",
            ));
        }
        check_costs("costs", costs)?;
        let known = Arc::make_mut(&mut pool.names);
        known.reserve(added);
        for &name in names {
            check_name(name)?;
            known.push(name).map_err(|old| Error::DuplicateModel {
                argument: "names",
                problem: if (old as usize) < before {
                    "is in the pool already"
                } else {
                    "appears twice"
                },
                name: name.to_owned(),
            })?;
        }
        // Adding zero turns -0.0 into 0.0: costs that are equal must also sort as equal.
        Arc::make_mut(&mut pool.costs).extend(costs.iter().map(|c| c + 0.0));
        let directory = Arc::make_mut(&mut pool.directory);
        let unknown: Arc<Metadata> = Arc::default();
        for _ in 0..added {
            directory.push(Arc::clone(&unknown));
            pool.enabled.push(true);
        }
        if let Some(metering) = &mut pool.metering {
            let metering = Arc::make_mut(metering);
            for cost in costs {
                metering.push(cost + 0.0);
            }
        }
        if added == 1 {
            pool.place_by_cost(before as u32);
            pool.update_hulls(before as u32, false);
        } else {
            pool.sort_by_cost();
            pool.forget_hulls();
        }
        Ok(self)
    }

    /// This pool without a model; later ones move down by one index.
    pub fn without(&self, name: &str) -> Result<Self> {
        let model = self.find("name", name)?;
        let at = model as usize;
        let mut pool = self.clone();
        Arc::make_mut(&mut pool.names).remove(at);
        Arc::make_mut(&mut pool.costs).remove(at);
        pool.profiles.remove(at);
        Arc::make_mut(&mut pool.directory).remove(at);
        if let Some(metering) = &mut pool.metering {
            Arc::make_mut(metering).remove(at);
        }
        pool.enabled.remove(at);
        let by_cost = Arc::make_mut(&mut pool.by_cost);
        by_cost.retain(|&m| m != model);
        for m in by_cost {
            *m -= u32::from(*m > model);
        }
        pool.map_hulls(|pool, cluster, hull| {
            if hull.has_vertex(model) {
                return Some(pool.build_hull(cluster, &pool.enabled));
            }
            let moved = hull.vertices().iter().any(|v| v.model > model);
            moved.then(|| hull.renumbered_without(model))
        });
        Ok(pool)
    }

    /// This pool with another cost for one model.
    pub fn with_cost(&self, name: &str, cost: f64) -> Result<Self> {
        let model = self.find("name", name)?;
        check_costs("cost", &[cost])?;
        let mut pool = self.clone();
        Arc::make_mut(&mut pool.costs)[model as usize] = cost + 0.0;
        Arc::make_mut(&mut pool.by_cost).retain(|&m| m != model);
        pool.place_by_cost(model);
        pool.charge(model..model + 1);
        pool.update_hulls(model, true);
        Ok(pool)
    }

    /// This pool with other profiles for some models: `columns` is [clusters, changed], row-major.
    ///
    /// One model is merged into the hulls; after many they are built anew when next needed.
    /// O(clusters x changed), and a copy of each strip of models touched.
    pub fn with_profiles(&self, names: &[&str], columns: &[f32]) -> Result<Self> {
        let (clusters, changed) = (self.clusters(), names.len());
        if columns.len() != clusters * changed || !columns.iter().all(|v| v.is_finite()) {
            return Err(Error::invalid(
                "profile",
                format!("{} values, or some not finite", columns.len()),
                format!("{clusters} finite predicted losses for each of {changed} models"),
            ));
        }
        let models = (names.iter())
            .map(|name| self.find("name", name))
            .collect::<Result<Vec<_>>>()?;
        let mut pool = self.clone();
        for (column, &model) in models.iter().enumerate() {
            let own = columns.iter().skip(column).step_by(changed);
            pool.profiles.set_column(model as usize, own.copied());
        }
        match models[..] {
            [model] => pool.update_hulls(model, true),
            _ => pool.forget_hulls(),
        }
        Ok(pool)
    }

    /// This pool with one model enabled, or disabled: listed, but never chosen.
    pub fn with_enabled(&self, name: &str, enabled: bool) -> Result<Self> {
        let model = self.find("name", name)?;
        let mut pool = self.clone();
        if self.enabled.contains(model as usize) != enabled {
            pool.enabled.set(model as usize, enabled);
            pool.update_hulls(model, !enabled);
        }
        Ok(pool)
    }

    /// This pool with other metadata for one model.
    pub fn with_metadata(&self, name: &str, metadata: Metadata) -> Result<Self> {
        let model = self.find("name", name)?;
        metadata.check()?;
        let mut pool = self.clone();
        Arc::make_mut(&mut pool.directory).set(model as usize, Arc::new(metadata));
        pool.charge(model..model + 1);
        Ok(pool)
    }

    /// This pool with other prices for some models: of a million tokens of the prompt, and of the
    /// answer. O(models).
    pub fn with_prices(&self, names: &[&str], input: &[f64], output: &[f64]) -> Result<Self> {
        for (argument, prices) in [("input_prices", input), ("output_prices", output)] {
            if prices.len() != names.len() {
                let problem = format!("{} prices for {} names", prices.len(), names.len());
                return Err(Error::invalid(argument, problem, "one price for each name"));
            }
            if let Some(at) = prices.iter().position(|&price| !is_price(price)) {
                let problem = format!("{} at index {at}", prices[at]);
                let expected = format!("numbers, 0 to {LARGEST_PRICE:e}");
                return Err(Error::invalid(argument, problem, expected));
            }
        }
        let mut pool = self.clone();
        let directory = Arc::make_mut(&mut pool.directory);
        for ((name, &input), &output) in names.iter().zip(input).zip(output) {
            let model = self.find("names", name)? as usize;
            let mut metadata = Metadata::clone(&directory.models()[model]);
            (metadata.input_price, metadata.output_price) = (Some(input), Some(output));
            directory.set(model, Arc::new(metadata));
        }
        pool.charge(0..self.len() as u32);
        Ok(pool)
    }

    /// This pool with another usage for some models. O(clusters x models).
    pub fn with_usage(&self, names: &[&str], usages: &[Usage]) -> Result<Self> {
        if usages.len() != names.len() {
            let problem = format!("usage of {} models for {} names", usages.len(), names.len());
            return Err(Error::invalid("usage", problem, "one for each name"));
        }
        let mut pool = self.clone();
        let unknown = || Arc::new(Metering::new(self.clusters(), &self.costs));
        let metering = Arc::make_mut(pool.metering.get_or_insert_with(unknown));
        for (name, usage) in names.iter().zip(usages) {
            metering.set(self.find("names", name)? as usize, usage)?;
        }
        pool.charge(0..self.len() as u32);
        Ok(pool)
    }

    /// This pool with the usage of all models: `output_tokens` [clusters, models] row-major, and
    /// input scale and extra of each, NaN where its usage is not known. O(clusters x models).
    pub fn with_all_usage(&self, output_tokens: &[f32], input: &[[f64; 2]]) -> Result<Self> {
        let metering = Metering::of(&self.costs, output_tokens, input)?;
        if metering.output_tokens().clusters() != self.clusters() {
            let problem = format!("{} clusters", metering.output_tokens().clusters());
            let expected = format!("the pool's {}", self.clusters());
            return Err(Error::invalid("output_tokens", problem, expected));
        }
        let mut pool = self.clone();
        pool.metering = Some(Arc::new(metering));
        pool.charge(0..self.len() as u32);
        Ok(pool)
    }

    /// Brings what some models charge up to date with their cost, prices and usage.
    fn charge(&mut self, models: std::ops::Range<u32>) {
        if let Some(metering) = &mut self.metering {
            let metering = Arc::make_mut(metering);
            for m in models {
                let m = m as usize;
                metering.charge(m, self.costs[m], &self.directory.models()[m]);
            }
        }
    }

    /// This pool with the metadata of all models, and which of them are enabled.
    pub fn with_directory(&self, metadata: Vec<Metadata>, enabled: Mask) -> Result<Self> {
        if (metadata.len(), enabled.len()) != (self.len(), self.len()) {
            let problem = format!("{} of them, {} switches", metadata.len(), enabled.len());
            let expected = format!("one of each for {} models", self.len());
            return Err(Error::invalid("metadata", problem, expected));
        }
        let mut pool = self.clone();
        let mut directory = Directory::default();
        for one in metadata {
            one.check()?;
            directory.push(Arc::new(one));
        }
        pool.directory = Arc::new(directory);
        pool.charge(0..self.len() as u32);
        pool.enabled = enabled;
        pool.forget_hulls();
        Ok(pool)
    }

    fn sort_by_cost(&mut self) {
        // Costs are 0 or more, so their bits are in the same order: pairs of integers sort fastest.
        let bits = self.costs.iter().map(|cost| cost.to_bits());
        let mut keys: Vec<(u64, u32)> = bits.zip(0..).collect();
        keys.sort_unstable();
        self.by_cost = Arc::new(keys.into_iter().map(|(_, model)| model).collect());
    }

    /// Puts a model that is not among them yet into its place.
    fn place_by_cost(&mut self, model: u32) {
        let costs = &self.costs;
        let own = (costs[model as usize], model);
        let at = self
            .by_cost
            .partition_point(|&m| (costs[m as usize], m) < own);
        Arc::make_mut(&mut self.by_cost).insert(at, model);
    }

    /// Hull of the models of `mask` in one cluster. O(models).
    pub fn build_hull(&self, cluster: usize, mask: &Mask) -> Hull {
        let members = self.by_cost.iter().map(|&m| m as usize);
        let mut points: Vec<_> = members
            .filter(|&m| mask.contains(m))
            .map(|m| self.candidate(cluster, m))
            .collect();
        // Sorted by cost already: this only orders those of equal cost.
        points.sort_by(by_cost);
        Hull::build(points.into_iter())
    }

    /// Brings the hulls up to date after a change to one model, which may be in them (`known`).
    fn update_hulls(&mut self, model: u32, known: bool) {
        self.map_hulls(|pool, cluster, hull| {
            if known && hull.has_vertex(model) {
                return Some(pool.build_hull(cluster, &pool.enabled));
            }
            let point = pool.candidate(cluster, model as usize);
            let joins = pool.enabled.contains(model as usize) && !hull.covers(&point);
            joins.then(|| hull.with(point))
        });
    }

    /// Replaces every hull that another one follows; the others stay shared.
    fn map_hulls(&mut self, next: impl Fn(&Self, usize, &Hull) -> Option<Hull>) {
        let hulls = self.hulls.iter().enumerate().map(|(cluster, hull)| {
            // One that is being built now is that of the old pool: this one builds its own.
            let Some(built) = hull.get() else {
                return Arc::default();
            };
            let made = next(self, cluster, built);
            made.map_or_else(|| Arc::clone(hull), |hull| Arc::new(OnceLock::from(hull)))
        });
        self.hulls = hulls.collect();
    }

    fn forget_hulls(&mut self) {
        self.hulls = self.hulls.iter().map(|_| Arc::default()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::checks::LONGEST_NAME;
    use crate::pool::table::STRIP;
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
            changes in prop::collection::vec((0u8..5, any::<prop::sample::Index>(), model()), 1..12),
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
                        pool = pool.with_profiles(&[&names[at]], &losses).unwrap();
                    }
                    3 if models.len() > 1 => {
                        // Its neighbour takes the same profile.
                        let two = [at, (at + 1) % models.len()];
                        for m in two {
                            models[m].1 = losses;
                        }
                        let columns: Vec<f32> = losses.iter().flat_map(|&l| [l, l]).collect();
                        let both = two.map(|m| names[m].as_str());
                        pool = pool.with_profiles(&both, &columns).unwrap();
                    }
                    _ => {
                        models[at].0 = cost;
                        pool = pool.with_cost(&names[at], cost).unwrap();
                    }
                }
                assert_same_choices(&pool, &pool_of(&models));
                for (i, name) in names.iter().enumerate() {
                    prop_assert_eq!(pool.find("name", name).unwrap() as usize, i);
                    prop_assert_eq!(&pool.names()[i], name.as_str());
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
        assert!(message(pool.with_profiles(&["m0"], &[0.0; 2])).starts_with("profile: 2 values"));
        assert!(message(pool.with_profiles(&["m0"], &[f32::NAN; 3])).starts_with("profile"));
        assert!(message(pool.with_profiles(&["zz"], &[0.0; 3])).contains("zz"));
        assert!(message(pool.with(&["a"], &[1.0], &[0.0, f32::NAN, 0.0])).contains("cluster 1"));
        assert!(message(pool.with(&[""], &[1.0], &[0.0; 3])).contains("empty name"));
        for name in ["uniroute", "uniroute:", "uniroute:cheap"] {
            let refused = message(pool.with(&[name], &[1.0], &[0.0; 3]));
            assert!(refused.contains("asks to be routed"), "{refused}");
        }
        for name in ["uniroute-x", "Uniroute", "a/uniroute", "uniroute/x"] {
            assert!(pool.with(&[name], &[1.0], &[0.0; 3]).is_ok(), "{name}");
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        assert!(message(pool.with(&[&long], &[1.0], &[0.0; 3])).contains("513 bytes"));
        assert!(pool.with(&[&long[1..]], &[1.0], &[0.0; 3]).is_ok());
        for name in [
            "a\n",
            "a\u{200b}",
            "\u{202e}a",
            "a\u{2028}b",
            "\u{3164}",
            "a\u{fe0f}",
        ] {
            let refused = message(pool.with(&[name], &[1.0], &[0.0; 3]));
            assert!(
                refused.contains("control or invisible character"),
                "{refused}"
            );
        }
        assert!(pool.with(&["模型 é/ñ:1.0 😀"], &[1.0], &[0.0; 3]).is_ok());
        assert!(message(pool.with_cost("m0", f64::NAN)).starts_with("cost: NaN"));
        assert!(message(pool.with_cost("x", 1.0)).contains("\"x\""));
        assert!(Pool::new(2).choose(1, 0.0).is_none());
    }
}
