//! Who answers a prompt whose clusters are known.

use crate::clusters::cluster_map::Phi;
use crate::error::{Error, Result};
use crate::kernels::{self, Scan};
use crate::pool::Pool;
use crate::pool::hull::Candidate;
use crate::pool::scan::{Metered, Scope};
use crate::pool::table::STRIP;
use crate::request::Request;
use crate::request::constraints::Compiled;

/// Which model, and what was known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Index in the snapshot's pool.
    pub model: u32,
    /// Cluster that weighs most for the prompt.
    pub cluster: u32,
    /// gamma: predicted loss of the model on the prompt.
    pub predicted_loss: f32,
    /// Cost of the model on the prompt.
    pub cost: f64,
    /// Whether it is the caller's fallback, because no model met the constraints.
    pub fallback: bool,
    /// Whether it is the conversation's model, though another one would have won without the cost
    /// of a switch.
    pub stayed: bool,
}

impl Choice {
    fn of(candidate: &Candidate, blend: Blend<'_>) -> Self {
        Self {
            model: candidate.model,
            cluster: blend.cluster(),
            // The loss came from a float32 and goes back to the same one.
            predicted_loss: candidate.loss as f32,
            cost: candidate.cost,
            fallback: false,
            stayed: false,
        }
    }
}

/// The clusters of one prompt.
#[derive(Clone, Copy)]
pub enum Blend<'a> {
    /// One alone.
    One(u32),
    /// Several.
    Mixed {
        /// How much each counts.
        phi: &'a Phi,
        /// The one that counts most.
        cluster: u32,
    },
}

impl Blend<'_> {
    /// The cluster that counts most.
    pub fn cluster(&self) -> u32 {
        match *self {
            Self::One(cluster) | Self::Mixed { cluster, .. } => cluster,
        }
    }

    /// What a strip of a table over clusters says of this prompt, for as many models as `out` has
    /// room for.
    fn fill(&self, strip: &[f32], out: &mut [f32]) {
        match self {
            Self::One(cluster) => {
                out.copy_from_slice(&strip[*cluster as usize * STRIP..][..out.len()]);
            }
            Self::Mixed { phi, .. } if out.len() == STRIP => {
                kernels::weighted_rows(&phi.clusters, &phi.weights, strip, out);
            }
            Self::Mixed { phi, .. } => {
                let mut all = [0.0; STRIP];
                kernels::weighted_rows(&phi.clusters, &phi.weights, strip, &mut all);
                out.copy_from_slice(&all[..out.len()]);
            }
        }
    }
}

/// The winner among the models that may answer, by the rule of [`crate::kernels::key`], unless it
/// does not pay to leave the conversation's model. `None` where no model may answer. `ranked` gets as
/// many of the best as the request asks for, and the winner at least.
///
/// O(log hull) where one cluster decides at constant costs, no more than the winner is asked for, and
/// constraints let it through; O(models) otherwise.
pub fn choose(
    pool: &Pool,
    blend: Blend<'_>,
    request: &Request<'_>,
    ranked: &mut Vec<Candidate>,
) -> Result<Option<Choice>> {
    if request.ranked > 1 {
        rank(pool, blend, request, ranked)?;
    } else {
        ranked.clear();
        ranked.extend(winner(pool, blend, request)?);
    }
    let Some(winner) = ranked.first() else {
        return fall_back(pool, blend, request);
    };
    if let Some(stay) = request.stay
        && stay.model != winner.model
        && let Some(current) = candidate(pool, blend, request, stay.model)?
        && may_answer(pool, request, &current)?
        && stays(&current, winner, stay.switch_cost, request.cost_weight)
    {
        let choice = Choice::of(&current, blend);
        return Ok(Some(Choice {
            stayed: true,
            ..choice
        }));
    }
    Ok(Some(Choice::of(winner, blend)))
}

/// Whether a conversation stays with its current model, because the winner is not better by more than
/// the switch costs.
pub fn stays(current: &Candidate, winner: &Candidate, switch_cost: f64, cost_weight: f64) -> bool {
    current.objective(cost_weight) <= winner.objective(cost_weight) + cost_weight * switch_cost
}

/// The best of the models that may answer, best first: as many as the request asks for.
pub fn rank(
    pool: &Pool,
    blend: Blend<'_>,
    request: &Request<'_>,
    ranked: &mut Vec<Candidate>,
) -> Result<()> {
    let fill = |strip: &[f32], out: &mut [f32]| blend.fill(strip, out);
    pool.rank(&scope(pool, request)?, request.ranked, ranked, fill);
    Ok(())
}

/// Predicted loss of every model, in index order.
pub fn losses(pool: &Pool, blend: Blend<'_>, out: &mut [f32]) {
    for ((strip, _), out) in pool.profiles().strips().zip(out.chunks_mut(STRIP)) {
        blend.fill(strip, out);
    }
}

/// What every model costs on a prompt of so many tokens, in index order.
///
/// Fails if models are charged by the token and the length of the prompt is not known.
pub fn costs(pool: &Pool, blend: Blend<'_>, tokens: Option<u64>) -> Result<Vec<f64>> {
    let Some(metering) = pool.metering() else {
        return Ok(pool.costs().to_vec());
    };
    let tokens = known(tokens)?;
    let mut all = Vec::with_capacity(pool.len());
    let mut tokens_out = [0.0; STRIP];
    for (s, (strip, width)) in metering.output_tokens().strips().enumerate() {
        let tokens_out = &mut tokens_out[..width];
        blend.fill(strip, tokens_out);
        let nothing = [0.0; STRIP];
        let scan = Scan::new(
            &nothing[..width],
            metering.costs(s, tokens, tokens_out),
            0.0,
            None,
        );
        all.extend((0..width).map(|m| scan.cost(m)));
    }
    Ok(all)
}

/// Why nobody may answer a request.
pub fn nobody(pool: &Pool, blend: Blend<'_>, request: &Request<'_>) -> Error {
    let costs = match costs(pool, blend, request.tokens) {
        Ok(costs) => costs,
        Err(error) => return error,
    };
    let find = |compiled: &Compiled| compiled.nobody(pool, request.tokens, &costs);
    (request.constraints).map_or_else(|| find(&Compiled::none(pool)), find)
}

/// Which models may answer a request, and what they cost.
fn scope<'a>(pool: &'a Pool, request: &Request<'a>) -> Result<Scope<'a>> {
    let metered = pool.metering().map(|metering| {
        Ok::<_, Error>(Metered {
            metering,
            tokens: known(request.tokens)?,
            cap: (request.constraints).map_or(f64::INFINITY, Compiled::max_cost),
        })
    });
    Ok(Scope {
        cost_weight: request.cost_weight,
        metered: metered.transpose()?,
        mask: match request.constraints {
            None => pool.enabled(),
            Some(constraints) => constraints.allowed(pool, request.tokens)?.mask(),
        },
    })
}

fn winner(pool: &Pool, blend: Blend<'_>, request: &Request<'_>) -> Result<Option<Candidate>> {
    let weight = request.cost_weight;
    match (blend, request.constraints) {
        (Blend::One(cluster), None) if pool.metering().is_none() => {
            Ok(pool.choose(cluster as usize, weight))
        }
        (Blend::One(cluster), Some(constraints)) if pool.metering().is_none() => {
            let allowed = constraints.allowed(pool, request.tokens)?;
            Ok(allowed.choose(pool, cluster as usize, weight))
        }
        _ => {
            let fill = |strip: &[f32], out: &mut [f32]| blend.fill(strip, out);
            Ok(pool.scan(&scope(pool, request)?, fill))
        }
    }
}

/// The caller's fallback, if there is one and it is not disabled.
fn fall_back(pool: &Pool, blend: Blend<'_>, request: &Request<'_>) -> Result<Option<Choice>> {
    let Some(model) = request.fallback else {
        return Ok(None);
    };
    let enabled = pool.enabled().contains(model as usize);
    let candidate = candidate(pool, blend, request, model)?.filter(|_| enabled);
    Ok(candidate.map(|candidate| Choice {
        fallback: true,
        ..Choice::of(&candidate, blend)
    }))
}

/// One model as the prompt sees it; `None` if there is no such model. O(clusters of the prompt).
fn candidate(
    pool: &Pool,
    blend: Blend<'_>,
    request: &Request<'_>,
    model: u32,
) -> Result<Option<Candidate>> {
    let (s, at) = (model as usize / STRIP, model as usize % STRIP);
    let Some((psi, width)) = pool.profiles().strips().nth(s).filter(|(_, w)| at < *w) else {
        return Ok(None);
    };
    let mut losses = [0.0; STRIP];
    let losses = &mut losses[..width];
    blend.fill(psi, losses);
    let cost = match pool.metering() {
        None => pool.costs()[model as usize],
        Some(metering) => {
            let mut tokens_out = [0.0; STRIP];
            let tokens_out = &mut tokens_out[..width];
            for (usage, _) in metering.output_tokens().strips().skip(s).take(1) {
                blend.fill(usage, tokens_out);
            }
            let costs = metering.costs(s, known(request.tokens)?, tokens_out);
            Scan::new(losses, costs, 0.0, None).cost(at)
        }
    };
    Ok(Some(Candidate {
        cost,
        loss: f64::from(losses[at]),
        model,
    }))
}

/// Whether a model is enabled and meets the constraints.
fn may_answer(pool: &Pool, request: &Request<'_>, candidate: &Candidate) -> Result<bool> {
    let model = candidate.model as usize;
    Ok(match request.constraints {
        None => pool.enabled().contains(model),
        Some(c) => {
            let allowed = c.allowed(pool, request.tokens)?;
            allowed.mask().contains(model) && candidate.cost <= c.max_cost()
        }
    })
}

/// The length of a prompt, where costs depend on it.
fn known(tokens: Option<u64>) -> Result<u64> {
    tokens.ok_or_else(|| {
        let expected = "the prompt's length in tokens, which embeddings do not tell";
        Error::invalid(
            "tokens",
            "not given, though models are charged by the token",
            expected,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::centroids::Centroids;
    use crate::clusters::cluster_map::{ClusterMap, Head, Softmax};
    use crate::request::Prompt;
    use crate::route::scratch::Scratch;
    use crate::route::snapshot::Snapshot;
    use proptest::prelude::*;

    const DIM: usize = 4;

    /// Values of which many are equal, so that ties are common.
    fn values(n: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec((0u8..8).prop_map(|v| f32::from(v) / 8.0), n)
    }

    proptest! {
        #[test]
        fn the_ranking_is_the_order_of_the_rule(
            soft: bool,
            centroids in values(3 * DIM),
            prompt in values(DIM),
            (profiles, costs) in (1usize..400).prop_flat_map(|m| (values(3 * m), values(m))),
            cost_weight in prop::sample::select(vec![0.0, 0.3, 5.0]),
            n in prop::sample::select(vec![1, 2, 5, 255, 256, 257, usize::MAX]),
            disabled in any::<prop::sample::Index>(),
        ) {
            let head = if soft {
                Head::Softmax(Softmax::new(&centroids, &[0.0; 3], 0.0).unwrap())
            } else {
                Head::Nearest(Centroids::new(&centroids, DIM).unwrap())
            };
            let empty = Snapshot::new(None, ClusterMap::new(vec![head]).unwrap()).unwrap();
            let names: Vec<String> = (0..costs.len()).map(|i| i.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let costs: Vec<f64> = costs.into_iter().map(f64::from).collect();
            let pool = empty.pool().with(&names, &costs, &profiles).unwrap();
            let pool = pool.with_enabled(names[disabled.index(names.len())], false).unwrap();
            let snapshot = empty.with_pool(pool);
            let mut scratch = Scratch::default();
            let request = Request { cost_weight, ranked: n, ..Request::default() };
            let routed = snapshot.route(Prompt::Embedding(&prompt), &request, &mut scratch).unwrap();
            let found: Vec<u32> = scratch.ranked().iter().map(|c| c.model).collect();

            let mut gamma = vec![0.0; costs.len()];
            snapshot.gamma(scratch.phi(), &mut gamma);
            let enabled = snapshot.pool().enabled();
            let key = |m: &u32| {
                let at = *m as usize;
                (f64::from(gamma[at]) + cost_weight * costs[at], costs[at], *m)
            };
            let mut expected: Vec<u32> =
                (0..costs.len() as u32).filter(|&m| enabled.contains(m as usize)).collect();
            expected.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap());
            expected.truncate(n);
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(routed.choice.map(|c| c.model), found.first().copied());
        }
    }
}
