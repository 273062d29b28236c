//! What stands behind one decision, and what would change it.

use crate::clusters::cluster_map::ClusterMap;
use crate::error::Result;
use crate::pool::Pool;
use crate::pool::hull::{Candidate, Hull, by_cost, scan};
use crate::request::constraints::{Compiled, Exclusion};
use crate::request::{Request, Stay};
use crate::route::choose::{self, Blend, Choice, rank, stays};

/// Where the choice changes as the cost weight moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flip {
    /// The first cost weight, in that direction, at which another model is chosen: exact to the last
    /// bit.
    pub cost_weight: f64,
    /// That model.
    pub model: u32,
}

/// What stands behind one decision. Wherever models are compared here, leaving the conversation's
/// model counts as a cost of the others.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The clusters that the prompt belongs to and how much each counts, the heaviest first. The
    /// weights of each head sum to 1.
    pub clusters: Vec<(u32, f32)>,
    /// Those of them for prompts unlike those of the fit, where the predicted loss of a model is its
    /// overall mean.
    pub backgrounds: Vec<u32>,
    /// The share of the prompt's weight that lies there, 0 to 1.
    pub out_of_distribution: f64,
    /// The other models that may answer, best first, whatever it costs to leave the conversation's.
    pub alternatives: Vec<Candidate>,
    /// The one that would answer if the chosen one could not.
    pub runner_up: Option<Candidate>,
    /// By how much the runner-up's objective is higher.
    pub margin: Option<f64>,
    /// Where the choice changes as the cost weight rises; `None` where it never does.
    pub flip_up: Option<Flip>,
    /// The same as it falls.
    pub flip_down: Option<Flip>,
    /// The cost of the chosen model above which the runner-up is chosen; `None` at cost weight 0.
    pub flip_price: Option<f64>,
    /// The first models that may not answer, in index order, each with its reasons.
    pub excluded: Vec<Exclusion>,
    /// How many there are in all.
    pub excluded_count: usize,
}

/// Explains the choice that a request led to; of the models that may not answer, it lists `listed`.
/// The request must be the one that the choice was made for. O(models log models), and a look at some
/// 130 cost weights, each O(log models).
pub fn explain(
    pool: &Pool,
    map: &ClusterMap,
    blend: Blend<'_>,
    request: &Request<'_>,
    choice: &Choice,
    listed: usize,
) -> Result<Explanation> {
    let clusters = clusters(blend);
    let mut backgrounds = map.backgrounds();
    backgrounds.retain(|k| clusters.iter().any(|(cluster, _)| cluster == k));
    let far = |&&(k, _): &&(u32, f32)| backgrounds.contains(&k);
    let total = |weights: &mut dyn Iterator<Item = &(u32, f32)>| -> f64 {
        weights.map(|&(_, weight)| f64::from(weight)).sum()
    };
    let out_of_distribution = total(&mut clusters.iter().filter(far)) / total(&mut clusters.iter());
    let (excluded, excluded_count) = excluded(pool, blend, request, listed)?;
    let mut all = Vec::new();
    let everyone = Request {
        ranked: usize::MAX,
        ..*request
    };
    rank(pool, blend, &everyone, &mut all)?;
    let choices = Choices::new(&all, request.stay);
    let weight = request.cost_weight;
    let of_choice = |c: &&Candidate| c.model == choice.model;
    let alternatives: Vec<Candidate> = all.iter().filter(|c| !of_choice(c)).copied().collect();
    let objective = |c: &Candidate| choices.objective(c, weight);
    let leaves = choices
        .current
        .is_some_and(|(c, _)| c.model != choice.model);
    let runner_up = alternatives.first().map(|first| {
        if leaves {
            choices.unless_left(*first, weight)
        } else {
            *first
        }
    });
    let own = all.iter().find(of_choice);
    let (mut margin, mut flip_price) = (None, None);
    if let (Some(own), Some(runner_up)) = (own, &runner_up) {
        margin = Some(objective(runner_up) - objective(own));
        let rest = Candidate { cost: 0.0, ..*own };
        flip_price = (weight > 0.0).then(|| (objective(runner_up) - objective(&rest)) / weight);
    }
    // A fallback is what there is where nobody may answer: it never changes.
    let flip = |to: f64| own.and_then(|own| choices.flip(own.model, weight, to));
    Ok(Explanation {
        out_of_distribution,
        clusters,
        backgrounds,
        runner_up,
        margin,
        flip_up: flip(choices.highest().max(weight)),
        flip_down: flip(0.0),
        flip_price,
        alternatives,
        excluded,
        excluded_count,
    })
}

/// The first `listed` models that may not answer a request, each with its reasons; and how many there
/// are in all.
pub fn excluded(
    pool: &Pool,
    blend: Blend<'_>,
    request: &Request<'_>,
    listed: usize,
) -> Result<(Vec<Exclusion>, usize)> {
    let costs = choose::costs(pool, blend, request.tokens)?;
    let find = |compiled: &Compiled| compiled.excluded(pool, request.tokens, &costs, listed);
    match request.constraints {
        Some(constraints) => find(constraints),
        None => find(&Compiled::none(pool)),
    }
}

/// The clusters of a prompt, the heaviest first.
fn clusters(blend: Blend<'_>) -> Vec<(u32, f32)> {
    match blend {
        Blend::One(cluster) => vec![(cluster, 1.0)],
        Blend::Mixed { phi, .. } => {
            let all = phi
                .clusters
                .iter()
                .copied()
                .zip(phi.weights.iter().copied());
            let mut all: Vec<_> = all.filter(|&(_, weight)| weight > 0.0).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all
        }
    }
}

/// One prompt's choice as a function of the cost weight.
struct Choices<'a> {
    all: &'a [Candidate],
    hull: Hull,
    /// The conversation's model, if it may answer, and what it costs to leave it.
    current: Option<(Candidate, f64)>,
}

impl<'a> Choices<'a> {
    fn new(all: &'a [Candidate], stay: Option<Stay>) -> Self {
        let mut points = all.to_vec();
        points.sort_unstable_by(by_cost);
        let current = stay.and_then(|stay| {
            let own = all.iter().find(|c| c.model == stay.model)?;
            Some((*own, stay.switch_cost))
        });
        Self {
            all,
            hull: Hull::build(points.into_iter()),
            current,
        }
    }

    /// What a model is chosen by: its objective, and what it costs to leave the current model for it.
    fn objective(&self, candidate: &Candidate, cost_weight: f64) -> f64 {
        let switch = match self.current {
            Some((current, cost)) if current.model != candidate.model => cost_weight * cost,
            _ => 0.0,
        };
        // One that overflows is the largest there is.
        (candidate.objective(cost_weight) + switch).min(f64::MAX)
    }

    /// Who is chosen at a cost weight, as [`choose::choose`] does.
    fn at(&self, cost_weight: f64) -> Option<u32> {
        let winner = (self.hull.choose(cost_weight))
            .or_else(|| scan(self.all.iter().copied(), cost_weight))?;
        Some(self.unless_left(winner, cost_weight).model)
    }

    /// The current model where it is not left for this winner.
    fn unless_left(&self, winner: Candidate, cost_weight: f64) -> Candidate {
        let stays = self.current.filter(|(current, switch_cost)| {
            current.model != winner.model && stays(current, &winner, *switch_cost, cost_weight)
        });
        stays.map_or(winner, |(current, _)| current)
    }

    /// Which model is chosen first as the cost weight moves from `from`, where it is `chosen`, to
    /// `to`, and where: between the two the choice changes for good, so halving the floats between
    /// them, which are ordered as their bits are, finds the place to the last bit.
    fn flip(&self, chosen: u32, from: f64, to: f64) -> Option<Flip> {
        let mut model = self.at(to).filter(|&model| model != chosen)?;
        let (mut inside, mut outside) = (from.to_bits(), to.to_bits());
        while inside.abs_diff(outside) > 1 {
            let middle = inside.midpoint(outside);
            match self.at(f64::from_bits(middle)) {
                Some(other) if other != chosen => (outside, model) = (middle, other),
                _ => inside = middle,
            }
        }
        Some(Flip {
            cost_weight: f64::from_bits(outside),
            model,
        })
    }

    /// A cost weight at which cost alone decides, or nearly: beyond it objectives overflow.
    fn highest(&self) -> f64 {
        let switch = self.current.map_or(0.0, |(_, cost)| cost);
        let most = self.all.iter().map(|c| c.cost + switch).fold(1.0, f64::max);
        f64::MAX / 4.0 / most
    }
}
