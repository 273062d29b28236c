//! Who wins at a cost weight: the lower convex hull of (cost, loss), searched by its slopes.
//!
//! At cost weight `w` the winner is the model with the least `loss + w * cost`, evaluated in
//! float64; ties go to the lower cost, then to the lower index. In exact arithmetic only vertices
//! of the lower convex hull can win. In float64 a point that lies above the hull by less than the
//! rounding of that expression can tie with a vertex and win by the tie rule. So each hull keeps a
//! lower bound on the *gap*, the least height above the hull of any point that is not a vertex: a
//! query whose rounding stays below the gap is answered by the vertices alone, and the rare other
//! one (an enormous cost weight, mostly) is told to scan all models. Either way the answer is that
//! of a scan, bit for bit.

use crate::error::{Error, Result};
use crate::kernels::{Key, key};

/// One model as a cluster sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Cost per prompt, finite and not negative.
    pub cost: f64,
    /// Predicted loss.
    pub loss: f64,
    /// Index in the pool.
    pub model: u32,
}

impl Candidate {
    /// What the rule minimises.
    pub fn objective(&self, cost_weight: f64) -> f64 {
        self.key(cost_weight).0
    }

    /// By which candidates are compared: the least is chosen.
    pub fn key(&self, cost_weight: f64) -> Key {
        key(self.loss, self.cost, self.model, cost_weight)
    }
}

/// Order in which [`Hull::build`] takes its candidates.
pub fn by_cost(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    (a.cost.total_cmp(&b.cost))
        .then(a.loss.total_cmp(&b.loss))
        .then(a.model.cmp(&b.model))
}

/// Lower convex hull of one cluster's models.
#[derive(Clone, Debug)]
pub struct Hull {
    /// From the least loss (the winner at cost weight 0) to the least cost; losses rise strictly.
    vertices: Vec<Candidate>,
    /// `switches[i]`: cost weight at which vertex `i` hands over to vertex `i + 1`; ascending.
    switches: Vec<f64>,
    /// Lower bound on the height above the hull of every point that is no vertex, yet not
    /// dominated: infinite where there is none.
    gap: f64,
    /// Largest absolute loss among all models of the cluster: the scale of rounding.
    scale: f64,
}

/// Unit roundoff of float64.
const ROUNDOFF: f64 = f64::EPSILON / 2.0;

/// Points closer to the hull than this share of the scale count as vertices: rounding cannot tell
/// them from vertices.
const ON_HULL: f64 = 8.0 * ROUNDOFF;

/// `loss + w * cost` is off by at most `2 * ROUNDOFF * (|loss| + w * cost)`. Two such values, with
/// the same allowance for the rounding in `switches` and `gap`, stay well within this multiple.
const NEAR: f64 = 64.0 * ROUNDOFF;

impl Default for Hull {
    /// The hull of no models.
    fn default() -> Self {
        Self::build(std::iter::empty())
    }
}

impl Hull {
    /// Builds the hull of `candidates`, sorted by [`by_cost`]. O(number of candidates).
    pub fn build(candidates: impl Iterator<Item = Candidate>) -> Self {
        let mut scale = 0.0f64;
        let mut gap = f64::INFINITY;
        let mut frontier: Vec<Candidate> = Vec::new();
        for point in candidates {
            scale = scale.max(point.loss.abs());
            match frontier.last() {
                // Same cost, more loss: it can win by its lower index alone, once rounding
                // swallows the difference.
                Some(best) if best.cost == point.cost => {
                    if point.model < best.model {
                        gap = gap.min(point.loss - best.loss);
                    }
                }
                // Dearer and no better: rounding is monotone, and a tie goes to the lower cost.
                Some(best) if best.loss <= point.loss => {}
                _ => frontier.push(point),
            }
        }
        let mut hull: Vec<Candidate> = Vec::with_capacity(frontier.len());
        for point in frontier {
            while let [.., before, middle] = hull[..] {
                if height(&before, &middle, &point) <= ON_HULL * scale {
                    break;
                }
                hull.pop();
                // Heights only grow as the hull sinks below, so this one is a lower bound.
                gap = gap.min(height(&before, &middle, &point));
            }
            hull.push(point);
        }
        hull.reverse();
        let mut switches: Vec<f64> = Vec::with_capacity(hull.len().saturating_sub(1));
        for pair in hull.windows(2) {
            let slope = (pair[1].loss - pair[0].loss) / (pair[0].cost - pair[1].cost);
            // Ascending but for rounding between points that are all but collinear.
            switches.push(switches.last().map_or(slope, |&last| slope.max(last)));
        }
        Self {
            vertices: hull,
            switches,
            gap,
            scale,
        }
    }

    /// Bytes that it takes in memory.
    pub fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.vertices) + size_of_val(&*self.switches)
    }

    /// This hull with one more model: O(vertices).
    ///
    /// Points that were no vertices stay none, for the hull only sinks; the gap known for them
    /// stays a lower bound.
    #[must_use]
    pub fn with(&self, point: Candidate) -> Self {
        let mut points = self.vertices.clone();
        points.push(point);
        points.sort_unstable_by(by_cost);
        let mut hull = Self::build(points.into_iter());
        hull.gap = hull.gap.min(self.gap);
        hull.scale = hull.scale.max(self.scale);
        hull
    }

    /// Whether the hull stays as it is when `point` joins: some vertex costs less and predicts no
    /// more loss, so that the point never wins. O(log vertices).
    pub fn covers(&self, point: &Candidate) -> bool {
        // Losses rise and costs fall along the vertices: the last of no more loss costs least.
        let at = self.vertices.partition_point(|v| v.loss <= point.loss);
        let cheaper = at > 0 && self.vertices[at - 1].cost < point.cost;
        cheaper && point.loss.abs() <= self.scale
    }

    /// This hull after a model that is no vertex of it has left the pool: later models move down.
    #[must_use]
    pub fn renumbered_without(&self, model: u32) -> Self {
        let mut hull = self.clone();
        for vertex in &mut hull.vertices {
            vertex.model -= u32::from(vertex.model > model);
        }
        hull
    }

    /// Whether `model` is a vertex.
    pub fn has_vertex(&self, model: u32) -> bool {
        self.vertices.iter().any(|v| v.model == model)
    }

    /// Vertices from the least loss to the least cost.
    pub fn vertices(&self) -> &[Candidate] {
        &self.vertices
    }

    /// Cost weights at which each vertex hands over to the next, ascending.
    pub fn switches(&self) -> &[f64] {
        &self.switches
    }

    /// The winner at `cost_weight` (finite, not negative), or `None` where rounding could let a
    /// model win that is no vertex: then all models must be scanned. O(log vertices).
    pub fn choose(&self, cost_weight: f64) -> Option<Candidate> {
        let at = self.switches.partition_point(|&s| s < cost_weight);
        let mut best = *self.vertices.get(at)?;
        let mut least = best.key(cost_weight);
        let near = NEAR * (self.scale + least.0.abs());
        // An objective that overflowed is not finite; neither comparison holds then.
        if !(near < self.gap && least.0.is_finite()) {
            return None;
        }
        // Neighbours may tie, or win by rounding.
        let mut consider = |vertex: &Candidate| {
            let own = vertex.key(cost_weight);
            if own.0 > least.0 + near {
                return false;
            }
            if own < least {
                (best, least) = (*vertex, own);
            }
            true
        };
        let (dearer, cheaper) = (&self.vertices[..at], &self.vertices[at + 1..]);
        let _ = dearer.iter().rev().take_while(|&v| consider(v)).count();
        let _ = cheaper.iter().take_while(|&v| consider(v)).count();
        Some(best)
    }
}

/// How far `middle` lies above the line from `left` to `right`, at its own cost.
fn height(left: &Candidate, middle: &Candidate, right: &Candidate) -> f64 {
    let share = (middle.cost - left.cost) / (right.cost - left.cost);
    middle.loss - (left.loss + share * (right.loss - left.loss))
}

/// The winner by a scan of all candidates: what [`Hull::choose`] equals.
pub fn scan(candidates: impl Iterator<Item = Candidate>, cost_weight: f64) -> Option<Candidate> {
    let mut best: Option<(Candidate, Key)> = None;
    for point in candidates {
        let own = point.key(cost_weight);
        if best.is_none_or(|(_, least)| own < least) {
            best = Some((point, own));
        }
    }
    best.map(|(point, _)| point)
}

/// How many prompts move along their hulls as the cost weight rises: each from its best predicted
/// model to its cheapest, step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// Winner of each row at cost weight 0, [rows].
    pub best: Vec<u32>,
    /// Winner of each row once cost alone decides, [rows].
    pub cheapest: Vec<u32>,
    /// Row of each step, ascending; the steps of a row in the order in which they are taken.
    pub rows: Vec<usize>,
    /// The model that each step leaves.
    pub from: Vec<u32>,
    /// The cheaper one that it goes to.
    pub to: Vec<u32>,
    /// Cost weight at which it is taken, above 0.
    pub cost_weights: Vec<f64>,
}

/// The steps of every row of `losses`, `shape` = [rows, models] row-major, for models of these costs:
/// [models], or [rows, models] where they differ from row to row.
///
/// Fails unless the shapes fit and every value is finite. O(rows x models + models log models);
/// with costs for each row O(rows x models log models).
pub fn steps(losses: &[f64], shape: [usize; 2], costs: &[f64]) -> Result<Steps> {
    let [rows, models] = shape;
    let priced = costs.len() == models || costs.len() == rows * models;
    if models == 0 || !priced || losses.len() != rows * models {
        return Err(Error::invalid(
            "predicted_loss",
            format!("shape {shape:?} with {} costs", costs.len()),
            "[prompts, models] with one cost for each model, or for each prompt and model, at \
             least one model",
        ));
    }
    if let Some(at) = losses.iter().position(|v| !v.is_finite()) {
        let problem = format!(
            "{} in row {}, column {}",
            losses[at],
            at / models,
            at % models
        );
        return Err(Error::invalid("predicted_loss", problem, "finite values"));
    }
    if let Some(at) = costs.iter().position(|v| !v.is_finite()) {
        let problem = format!("{} at index {at}", costs[at]);
        return Err(Error::invalid("costs", problem, "finite values"));
    }
    let mut order: Vec<usize> = (0..models).collect();
    let mut points: Vec<Candidate> = Vec::with_capacity(models);
    let mut all = Steps::default();
    for (i, row) in losses.chunks_exact(models).enumerate() {
        let own = costs.len() > models;
        let costs = &costs[if own { i * models } else { 0 }..][..models];
        if own || i == 0 {
            order.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]));
        }
        points.clear();
        points.extend(order.iter().map(|&m| Candidate {
            cost: costs[m] + 0.0,
            loss: row[m],
            model: m as u32,
        }));
        // In order of cost already: this only orders those of equal cost.
        points.sort_by(by_cost);
        let hull = Hull::build(points.iter().copied());
        let vertices = &hull.vertices;
        all.best.extend(vertices.first().map(|v| v.model));
        all.cheapest.extend(vertices.last().map(|v| v.model));
        for (pair, &cost_weight) in vertices.windows(2).zip(&hull.switches) {
            all.rows.push(i);
            all.from.push(pair[0].model);
            all.to.push(pair[1].model);
            all.cost_weights.push(cost_weight);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(points: &[(f64, f32)]) -> Vec<Candidate> {
        let mut all: Vec<_> = points
            .iter()
            .enumerate()
            .map(|(i, &(cost, loss))| Candidate {
                cost,
                loss: f64::from(loss),
                model: i as u32,
            })
            .collect();
        all.sort_by(by_cost);
        all
    }

    fn check(hull: &Hull, all: &[Candidate], cost_weight: f64) {
        let expected = scan(all.iter().copied(), cost_weight);
        if let Some(chosen) = hull.choose(cost_weight) {
            assert_eq!(Some(chosen), expected, "cost weight {cost_weight:e}");
        }
    }

    /// Values that collide often, so that ties and collinear points are the rule.
    fn points() -> impl Strategy<Value = Vec<(f64, f32)>> {
        let cost = prop_oneof![
            (0u8..6).prop_map(f64::from),
            (0u8..6).prop_map(|c| f64::from(c) * 0.1),
            0.0..100.0f64,
            Just(1e-12),
            Just(1e12)
        ];
        let loss = prop_oneof![
            (0u8..5).prop_map(|l| f32::from(l) / 4.0),
            (0u8..11).prop_map(|l| f32::from(l) / 10.0),
            0.0..1.0f32
        ];
        prop::collection::vec((cost, loss), 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn choose_equals_a_scan(points in points(), weights in prop::collection::vec(0.0..1e3f64, 8)) {
            let all = candidates(&points);
            let hull = Hull::build(all.iter().copied());
            let special = [0.0, 1e-300, 1e-17, 1e-9, 1e9, 1e17, 1e300, f64::MAX];
            for &w in weights.iter().chain(&special).chain(hull.switches()) {
                check(&hull, &all, w);
                check(&hull, &all, w.next_up());
                check(&hull, &all, w.next_down().max(0.0));
            }
        }

        #[test]
        fn adding_one_by_one_chooses_as_a_rebuild_does(points in points(), w in 0.0..100.0f64) {
            let mut grown = Hull::build(std::iter::empty());
            for (i, &(cost, loss)) in points.iter().enumerate() {
                grown = grown.with(Candidate { cost, loss: f64::from(loss), model: i as u32 });
            }
            let all = candidates(&points);
            let switches = grown.switches().to_vec();
            for &w in switches.iter().chain(&[w, 0.0]) {
                check(&grown, &all, w);
            }
        }

        #[test]
        fn a_point_that_the_hull_covers_changes_nothing(points in points(), own in points()) {
            let hull = Hull::build(candidates(&points).into_iter());
            for (i, &(cost, loss)) in own.iter().enumerate() {
                let model = (points.len() + i) as u32;
                let point = Candidate { cost, loss: f64::from(loss), model };
                let next = hull.with(point);
                if hull.covers(&point) {
                    prop_assert_eq!(next.vertices(), hull.vertices());
                    prop_assert_eq!((next.gap, next.scale), (hull.gap, hull.scale));
                } else {
                    let dominated = |v: &Candidate| v.cost < cost && v.loss <= point.loss;
                    let within = point.loss.abs() <= hull.scale;
                    prop_assert!(!(within && hull.vertices().iter().any(dominated)));
                }
            }
        }

        #[test]
        fn ordinary_cost_weights_need_no_scan(
            losses in prop::collection::vec(0.0..1.0f32, 2..60), w in 0.0..1e3f64
        ) {
            let points: Vec<_> =
                losses.iter().enumerate().map(|(i, &l)| ((i as f64).sqrt(), l)).collect();
            let hull = Hull::build(candidates(&points).into_iter());
            prop_assert!(hull.gap < 1e-12 || hull.choose(w).is_some());
        }
    }

    #[test]
    fn steps_lead_from_the_best_predicted_to_the_cheapest() {
        let all = steps(&[0.0, 0.5, 1.0, 0.3, 0.2, 0.2], [2, 3], &[4.0, 1.0, 0.0]).unwrap();
        assert_eq!(
            (&all.best[..], &all.cheapest[..]),
            (&[0, 2][..], &[2, 2][..])
        );
        assert_eq!(all.rows, [0, 0]);
        assert_eq!((&all.from[..], &all.to[..]), (&[0, 1][..], &[1, 2][..]));
        assert_eq!(all.cost_weights, [0.5 / 3.0, 0.5]);
    }

    #[test]
    fn rows_may_have_costs_of_their_own() {
        let losses = [0.0, 0.5, 1.0, 0.3, 0.2, 0.2];
        let costs = [4.0, 1.0, 0.0, 1.0, 2.0, 3.0];
        let both = steps(&losses, [2, 3], &costs).unwrap();
        let mut joined = Steps::default();
        for row in 0..2 {
            let own = steps(&losses[3 * row..][..3], [1, 3], &costs[3 * row..][..3]).unwrap();
            joined.best.extend(own.best);
            joined.cheapest.extend(own.cheapest);
            joined.rows.extend(own.rows.iter().map(|_| row));
            joined.from.extend(own.from);
            joined.to.extend(own.to);
            joined.cost_weights.extend(own.cost_weights);
        }
        assert_eq!(both, joined);
    }

    #[test]
    fn an_empty_hull_chooses_nobody() {
        assert!(Hull::build(std::iter::empty()).choose(0.0).is_none());
    }

    #[test]
    fn ties_go_to_the_lower_cost_then_the_lower_index() {
        let hull = Hull::build(candidates(&[(2.0, 0.5), (1.0, 0.5), (1.0, 0.5)]).into_iter());
        assert_eq!(hull.choose(0.0).unwrap().model, 1);
        let hull = Hull::build(candidates(&[(0.0, 0.75), (1.0, 0.5)]).into_iter());
        assert_eq!(hull.choose(0.25).unwrap().model, 0);
    }
}
