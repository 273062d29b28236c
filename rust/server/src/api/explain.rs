//! What stands behind one decision, as the service says it.

use schemars::JsonSchema;
use serde::Serialize;
use uniroute_core::Result;
use uniroute_core::clusters::cluster_map::Phi;
use uniroute_core::pool::names::Names;
use uniroute_core::request::Request;
use uniroute_core::route::choose::Choice;
use uniroute_core::route::explain;
use uniroute_core::route::snapshot::Snapshot;

/// Clusters and exclusions that are listed at most.
const LISTED: usize = 20;

/// The first cost weight, in that direction, at which another model is chosen.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
struct Flip<'s> {
    cost_weight: f64,
    /// That model.
    model: &'s str,
}

impl<'s> Flip<'s> {
    fn of(flip: Option<explain::Flip>, names: &'s Names) -> Option<Self> {
        flip.map(|flip| Self {
            cost_weight: flip.cost_weight,
            model: &names[flip.model as usize],
        })
    }
}

/// A cluster that the prompt belongs to.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields, inline)]
struct Cluster {
    cluster: u32,
    weight: f32,
}

/// A model that may not answer.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields, inline)]
struct Excluded<'s> {
    model: &'s str,
    reasons: Vec<String>,
}

/// What stands behind one decision. Leaving the conversation's model counts as a cost of the others.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Explanation<'s> {
    clusters: Vec<Cluster>,
    /// Share of what is predicted that is blind to the prompt, 0 to 1.
    out_of_distribution: f64,
    /// The model that would answer if the chosen one could not.
    runner_up: Option<&'s str>,
    /// By how much the objective of the runner-up is higher.
    margin: Option<f64>,
    flip_up: Option<Flip<'s>>,
    flip_down: Option<Flip<'s>>,
    /// The cost of the chosen model above which the runner-up is chosen.
    flip_price: Option<f64>,
    excluded: Vec<Excluded<'s>>,
    /// Models that are excluded, also where not all of them are listed.
    excluded_count: usize,
}

impl<'s> Explanation<'s> {
    /// Explains the choice that a request led to.
    pub fn of(
        snapshot: &'s Snapshot,
        phi: &Phi,
        request: &Request<'_>,
        choice: &Choice,
    ) -> Result<Self> {
        let (pool, blend) = (snapshot.pool(), snapshot.blend(phi));
        let names = pool.names();
        let found = explain::explain(pool, snapshot.map(), blend, request, choice, LISTED)?;
        let clusters = found.clusters.into_iter().take(LISTED);
        Ok(Self {
            clusters: clusters
                .map(|(cluster, weight)| Cluster { cluster, weight })
                .collect(),
            out_of_distribution: found.out_of_distribution,
            runner_up: found.runner_up.map(|c| &names[c.model as usize]),
            margin: found.margin,
            flip_up: Flip::of(found.flip_up, names),
            flip_down: Flip::of(found.flip_down, names),
            flip_price: found.flip_price,
            excluded: (found.excluded.into_iter())
                .map(|e| Excluded {
                    model: &names[e.model as usize],
                    reasons: e.reasons,
                })
                .collect(),
            excluded_count: found.excluded_count,
        })
    }
}
