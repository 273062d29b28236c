//! Who answers a prompt whose clusters are known.

use crate::clusters::cluster_map::Phi;
use crate::error::{Error, Result};
use crate::kernels::{self, Scan};
use crate::pool::Pool;
use crate::pool::hull::Candidate;
use crate::pool::table::STRIP;
use crate::request::Request;

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

/// The winner among the models that may answer: the least predicted loss plus weighted cost, ties
/// to the lower cost, then to the lower index. `None` where no model may answer.
///
/// O(log hull) where one cluster decides at constant costs, and constraints let the winner through;
/// O(models) otherwise.
pub fn choose(pool: &Pool, blend: Blend<'_>, request: &Request<'_>) -> Result<Option<Choice>> {
    let Some(winner) = winner(pool, blend, request)? else {
        return fall_back(pool, blend, request);
    };
    let mut choice = Choice {
        model: winner.model,
        cluster: blend.cluster(),
        // The loss came from a float32 and goes back to the same one.
        predicted_loss: winner.loss as f32,
        cost: winner.cost,
        fallback: false,
        stayed: false,
    };
    if let Some(stay) = request.stay
        && stay.model != winner.model
        && let Some(current) = candidate(pool, blend, request, stay.model)?
        && may_answer(pool, request, &current)?
    {
        let weight = request.cost_weight;
        if current.objective(weight) <= winner.objective(weight) + weight * stay.switch_cost {
            choice.model = current.model;
            choice.predicted_loss = current.loss as f32;
            choice.cost = current.cost;
            choice.stayed = true;
        }
    }
    Ok(Some(choice))
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

fn winner(pool: &Pool, blend: Blend<'_>, request: &Request<'_>) -> Result<Option<Candidate>> {
    let weight = request.cost_weight;
    if let Some(metering) = pool.metering() {
        let tokens = known(request.tokens)?;
        let (mask, cap) = match request.constraints {
            None => (pool.enabled(), f64::INFINITY),
            Some(c) => (c.allowed(pool, request.tokens)?.mask(), c.max_cost()),
        };
        let fill = |strip: &[f32], out: &mut [f32]| blend.fill(strip, out);
        return Ok(pool.scan_metered(metering, tokens, cap, weight, mask, fill));
    }
    let allowed = request.constraints.map(|c| c.allowed(pool, request.tokens));
    Ok(match (blend, allowed.transpose()?) {
        (Blend::One(cluster), None) => pool.choose(cluster as usize, weight),
        (Blend::One(cluster), Some(allowed)) => allowed.choose(pool, cluster as usize, weight),
        (Blend::Mixed { .. }, allowed) => {
            let mask = allowed.map_or(pool.enabled(), |allowed| allowed.mask());
            pool.scan(weight, mask, |strip, losses| blend.fill(strip, losses))
        }
    })
}

/// The caller's fallback, if there is one and it is not disabled.
fn fall_back(pool: &Pool, blend: Blend<'_>, request: &Request<'_>) -> Result<Option<Choice>> {
    let Some(model) = request.fallback else {
        return Ok(None);
    };
    let enabled = pool.enabled().contains(model as usize);
    let candidate = candidate(pool, blend, request, model)?.filter(|_| enabled);
    Ok(candidate.map(|candidate| Choice {
        model,
        cluster: blend.cluster(),
        predicted_loss: candidate.loss as f32,
        cost: candidate.cost,
        fallback: true,
        stayed: false,
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
