//! A budget spread over a stream of prompts as they come.
//!
//! The cost weight is the budget's dual price. With a [`Plan`] of the period it is, at every moment,
//! the one at which the prompts still to come are expected to cost what is left; the forecast is
//! solved again for every 500th part of them (Jasin and Kumar, "A Re-Solving Heuristic with Bounded
//! Revenue Loss", 2012). Without, it rises after each prompt that cost more than what is left allows
//! for each prompt to come, and falls after one that cost less (online mirror descent; Balseiro, Lu
//! and Mirrokni, "The Best of Many Worlds", 2023). What is left is a hard cap.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys::fork;

/// The price stays within this factor of where it began, so that it can always come back.
const REACH: f64 = 1e3;

/// Largest change of the logarithm of the price after one prompt.
const STEP: f64 = 0.5;

/// A plan is solved again when so small a part of the prompts to come has come.
const RESOLUTIONS: f64 = 500.0;

/// How many prompts "recently" reaches back, more or less.
const LATE: f64 = 200.0;

/// What the prompts of a whole period cost, cluster by cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Share of the prompts that belong to each cluster, [clusters].
    pub shares: Vec<f64>,
    /// Ascending, above 0.
    pub cost_weights: Vec<f64>,
    /// Mean cost of a cluster's prompts at each cost weight, falling: [clusters][cost weights].
    pub costs: Vec<Vec<f64>>,
}

impl Plan {
    fn check(&self) -> Result<()> {
        let all = [&self.shares, &self.cost_weights];
        let finite = (all.into_iter().chain(&self.costs))
            .flatten()
            .all(|value| value.is_finite());
        let widths = self.costs.iter().map(Vec::len);
        let fits = self.costs.len() == self.shares.len()
            && widths.into_iter().all(|n| n == self.cost_weights.len())
            && !(self.shares.is_empty() || self.cost_weights.is_empty());
        if finite && fits {
            return Ok(());
        }
        let problem = format!("not numbers of {} clusters", self.shares.len());
        let expected = "shares [K], cost_weights [G] and costs [K, G], all finite";
        Err(Error::invalid("plan", problem, expected))
    }

    /// The cost weight at which prompts of a mix, [clusters], cost so much on average; between two
    /// known cost weights by interpolation. O(clusters x cost weights).
    pub fn price(&self, mix: &[f64], mean_cost: f64) -> Result<f64> {
        self.check()?;
        if mix.len() != self.shares.len() {
            let problem = format!("{} values", mix.len());
            let expected = format!("one for each of {} clusters", self.shares.len());
            return Err(Error::invalid("mix", problem, expected));
        }
        Ok(self.price_of(mix, mean_cost))
    }

    /// The same of a plan that is checked.
    fn price_of(&self, mix: &[f64], mean_cost: f64) -> f64 {
        let at_weight = |g: usize| -> f64 {
            let costs = self.costs.iter().map(|costs| costs[g]);
            costs.zip(mix).map(|(cost, share)| share * cost).sum()
        };
        let weights = &self.cost_weights;
        let curve: Vec<f64> = (0..weights.len()).map(at_weight).collect();
        match curve.partition_point(|&cost| cost > mean_cost) {
            0 => weights[0],
            at if at == curve.len() => weights[at - 1],
            at => {
                let (above, below) = (curve[at - 1], curve[at]);
                let share = (above - mean_cost) / (above - below);
                weights[at - 1].powf(1.0 - share) * weights[at].powf(share)
            }
        }
    }
}

/// What a budget is for, and how it is kept to.
#[derive(Clone, Debug)]
pub struct Terms {
    /// For the whole period, in the unit of the costs; above 0.
    pub budget: f64,
    /// Where the price begins, above 0; `None` where a plan and `requests` tell.
    pub cost_weight: Option<f64>,
    /// What a period like this one costs.
    pub plan: Option<Plan>,
    /// Length of the period in prompts; this, or `seconds`.
    pub requests: Option<f64>,
    /// Length of the period in time; the prompts to come are then expected at their latest rate.
    pub seconds: Option<f64>,
    /// Kept back for each prompt to come, 0 or more.
    pub reserve: f64,
    /// Without a plan, how fast the price moves, in (0, 1].
    pub gain: f64,
    /// With a plan, how much it counts for against what came recently, in [0, 1].
    pub trust: f64,
    /// Whether the next period begins by itself, after so many `seconds`.
    pub renews: bool,
}

/// A budget and what has become of it. Times are in seconds, from any beginning.
pub struct Pacer {
    renews: bool,
    state: Mutex<State>,
}

/// What a pacer shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// For the whole period.
    pub budget: f64,
    /// The price of the moment: the cost weight to route at.
    pub cost_weight: f64,
    /// What the prompts of this period have cost.
    pub spent: f64,
    /// What is left of this period's budget, 0 or more.
    pub remaining: f64,
    /// The most that the prompt at hand may cost.
    pub most: f64,
    /// Number of prompts of this period.
    pub count: u64,
}

/// All that a pacer knows, as it is saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    budget: f64,
    /// Where the price began, or what the plan last made it.
    first: f64,
    #[serde(deserialize_with = "Option::deserialize")]
    requests: Option<f64>,
    #[serde(deserialize_with = "Option::deserialize")]
    seconds: Option<f64>,
    reserve: f64,
    gain: f64,
    trust: f64,
    log_price: f64,
    spent: f64,
    count: u64,
    started: f64,
    latest: f64,
    /// Time between two prompts, on average over the latest hundred or so.
    #[serde(deserialize_with = "Option::deserialize")]
    interval: Option<f64>,
    /// The plan is solved again after so many prompts.
    next_solution: u64,
    #[serde(deserialize_with = "Option::deserialize")]
    plan: Option<Plan>,
    /// With a plan, how many prompts of each cluster this period has seen.
    #[serde(deserialize_with = "Option::deserialize")]
    seen: Option<Vec<f64>>,
    /// With a plan, the mix of the latest prompts.
    #[serde(deserialize_with = "Option::deserialize")]
    late: Option<Vec<f64>>,
}

impl Pacer {
    /// A pacer whose first period begins at `now`.
    ///
    /// Fails on a number out of range, on not exactly one length, or with nowhere to begin.
    pub fn new(terms: Terms, now: f64) -> Result<Self> {
        let begins = terms.plan.is_some() && terms.requests.is_some();
        if terms.cost_weight.is_none() && !begins {
            let expected = "where to begin, or a plan and requests";
            return Err(Error::invalid("cost_weight", "missing", expected));
        }
        let mut state = State {
            budget: terms.budget,
            first: terms.cost_weight.unwrap_or(1.0),
            requests: terms.requests,
            seconds: terms.seconds,
            reserve: terms.reserve,
            gain: terms.gain,
            trust: terms.trust,
            log_price: 0.0,
            spent: 0.0,
            count: 0,
            started: now,
            latest: now,
            interval: None,
            next_solution: 0,
            seen: (terms.plan.as_ref()).map(|plan| vec![0.0; plan.shares.len()]),
            late: terms.plan.as_ref().map(|plan| plan.shares.clone()),
            plan: terms.plan,
        };
        state.check()?;
        if terms.cost_weight.is_none() {
            state.solve();
        }
        Ok(Self {
            renews: terms.renews,
            state: Mutex::new(state),
        })
    }

    /// A pacer that goes on where another one was: from its [`Self::to_json`].
    pub fn from_json(json: &str) -> Result<Self> {
        let mut read = serde_json::Deserializer::from_str(json);
        let state: State = serde_path_to_error::deserialize(&mut read).map_err(|error| {
            let problem = match error.path().to_string() {
                path if path == "." => error.inner().to_string(),
                path => format!("{path}: {}", error.inner()),
            };
            Error::invalid("state", problem, "what `state` returned")
        })?;
        state.check()?;
        Ok(Self {
            renews: false,
            state: Mutex::new(state),
        })
    }

    /// All that it knows, in JSON.
    pub fn to_json(&self) -> String {
        // Numbers and lists of numbers: nothing that could fail.
        self.with(f64::NAN, |state| serde_json::to_string(state))
            .unwrap_or_default()
    }

    /// What it shows at a time.
    pub fn show(&self, now: f64) -> Budget {
        self.with(now, |state| Budget {
            budget: state.budget,
            cost_weight: state.first * state.log_price.exp(),
            spent: state.spent,
            remaining: state.remaining(),
            most: state.payable(),
            count: state.count,
        })
    }

    /// Books the cost of a prompt unless it exceeds what the prompt may cost. With a plan, the
    /// cluster tells what kind of prompt it was.
    pub fn book(&self, cost: f64, cluster: Option<u32>, now: f64) -> bool {
        self.with(now, |state| {
            let fits = cost <= state.payable();
            if fits {
                state.note(cost, cluster, now);
            }
            fits
        })
    }

    /// Books the cost of a prompt, which may exceed what is left.
    pub fn spend(&self, cost: f64, cluster: Option<u32>, now: f64) -> Result<()> {
        check("cost", cost, FROM_ZERO)?;
        self.with(now, |state| state.note(cost, cluster, now));
        Ok(())
    }

    /// Corrects what was booked, once it is known what the prompt really cost.
    pub fn settle(&self, expected: f64, actual: f64, now: f64) -> Result<()> {
        check("expected", expected, FROM_ZERO)?;
        check("actual", actual, FROM_ZERO)?;
        self.with(now, |state| {
            state.spent = (state.spent + actual - expected).max(0.0);
        });
        Ok(())
    }

    /// Begins the next period at the price of the moment, with another budget if one is given.
    pub fn renew(&self, budget: Option<f64>, now: f64) -> Result<()> {
        if let Some(budget) = budget {
            check("budget", budget, ABOVE_ZERO)?;
        }
        self.with(now, |state| {
            state.budget = budget.unwrap_or(state.budget);
            (state.started, state.latest) = (now, now);
            state.begin();
        });
        Ok(())
    }

    /// Does something with the state, in the period that `now` belongs to.
    fn with<T>(&self, now: f64, work: impl FnOnce(&mut State) -> T) -> T {
        fork::whole(|| {
            // Every change is a plain store: a state that a panic left behind is whole.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if self.renews {
                state.roll(now);
            }
            work(&mut state)
        })
    }
}

impl State {
    fn check(&self) -> Result<()> {
        let lengths = [("requests", self.requests), ("seconds", self.seconds)];
        if self.requests.is_some() == self.seconds.is_some() {
            let found = self
                .requests
                .map_or("neither was given", |_| "both were given");
            return Err(Error::invalid(
                "requests, seconds",
                found,
                "exactly one of them",
            ));
        }
        for (name, length) in lengths {
            check(name, length.unwrap_or(1.0), ABOVE_ZERO)?;
        }
        check("budget", self.budget, ABOVE_ZERO)?;
        check("cost_weight", self.first, ABOVE_ZERO)?;
        check("reserve", self.reserve, FROM_ZERO)?;
        check(
            "gain",
            self.gain,
            (|v| v > 0.0 && v <= 1.0, "a number above 0 to 1"),
        )?;
        check(
            "trust",
            self.trust,
            (|v| (0.0..=1.0).contains(&v), "a number from 0 to 1"),
        )?;
        check("state: spent", self.spent, FROM_ZERO)?;
        check("state: interval", self.interval.unwrap_or(0.0), FROM_ZERO)?;
        if let Some(plan) = &self.plan {
            plan.check()?;
        }
        let clusters = self.plan.as_ref().map(|plan| plan.shares.len());
        for (name, mix) in [("state: seen", &self.seen), ("state: late", &self.late)] {
            if mix.as_ref().map(Vec::len) != clusters {
                return Err(Error::invalid(
                    name,
                    "not of the plan",
                    "one number a cluster",
                ));
            }
        }
        Ok(())
    }

    /// Begins the period that `now` belongs to, if it is a later one.
    fn roll(&mut self, now: f64) {
        let seconds = self.seconds.unwrap_or(f64::INFINITY);
        let periods = ((now - self.started) / seconds).floor();
        if periods >= 1.0 {
            self.started += periods * seconds;
            self.latest = self.latest.max(self.started);
            self.begin();
        }
    }

    /// Begins a period whose times are set already.
    fn begin(&mut self) {
        (self.spent, self.count) = (0.0, 0);
        if let Some(seen) = &mut self.seen {
            seen.fill(0.0);
            self.solve();
        }
    }

    fn remaining(&self) -> f64 {
        (self.budget - self.spent).max(0.0)
    }

    fn payable(&self) -> f64 {
        let left = self.remaining();
        if self.reserve == 0.0 {
            return left;
        }
        // The reserve of the prompt at hand is there to be spent.
        let kept = self.reserve * (self.to_come() - 1.0).max(0.0);
        (left - kept).max(left.min(self.reserve))
    }

    /// How many prompts are expected in this period, the one at hand included.
    fn to_come(&self) -> f64 {
        if let Some(requests) = self.requests {
            return requests - self.count as f64;
        }
        let left = self.seconds.unwrap_or(0.0) - (self.latest - self.started);
        // Before the first interval nothing is known of the rate: as if this prompt were the last.
        match self.interval {
            Some(interval) if interval > 0.0 => left.max(0.0) / interval,
            _ => 1.0,
        }
    }

    fn note(&mut self, cost: f64, cluster: Option<u32>, now: f64) {
        self.keep_time(now);
        let share = self.remaining() / self.to_come().max(1.0);
        self.spent += cost;
        self.count += 1;
        if self.plan.is_some() {
            self.see(cluster);
            if self.count >= self.next_solution {
                self.solve();
            }
            return;
        }
        // With nothing left every cost is too much.
        let excess = if share > 0.0 {
            cost / share - 1.0
        } else {
            f64::INFINITY
        };
        let step = (self.gain * excess).clamp(-STEP, STEP);
        let limit = REACH.ln();
        self.log_price = (self.log_price + step).clamp(-limit, limit);
    }

    /// Notes when a prompt came.
    fn keep_time(&mut self, now: f64) {
        if self.seconds.is_none() {
            return;
        }
        let since = (now - self.latest).max(0.0);
        self.latest = now;
        let before = self.interval.unwrap_or(since);
        let share = (1.0 / (self.count + 1) as f64).max(0.01);
        self.interval = Some(before + share * (since - before));
    }

    /// Counts a prompt against the plan; one of no known cluster is taken to be like the plan.
    fn see(&mut self, cluster: Option<u32>) {
        let (Some(plan), Some(seen), Some(late)) = (&self.plan, &mut self.seen, &mut self.late)
        else {
            return;
        };
        match cluster.map(|cluster| cluster as usize) {
            None => seen
                .iter_mut()
                .zip(&plan.shares)
                .for_each(|(n, share)| *n += share),
            Some(cluster) if cluster < seen.len() => {
                seen[cluster] += 1.0;
                for share in late.iter_mut() {
                    *share *= 1.0 - 1.0 / LATE;
                }
                late[cluster] += 1.0 / LATE;
            }
            Some(_) => {}
        }
    }

    /// Sets the price by the plan: what it has and the period has not yet seen is taken to be still
    /// to come, for the better part; for the rest, what came recently goes on. O(clusters x cost
    /// weights).
    fn solve(&mut self) {
        let (Some(plan), Some(seen), Some(late)) = (&self.plan, &self.seen, &self.late) else {
            return;
        };
        if self.seconds.is_some() && !self.interval.is_some_and(|interval| interval > 0.0) {
            return; // Nothing is known of the rate yet.
        }
        let to_come = self.to_come().max(1.0);
        let all = seen.iter().sum::<f64>() + to_come;
        let shares = plan.shares.iter();
        let unseen: Vec<f64> = (shares.zip(seen))
            .map(|(share, seen)| (share * all - seen).max(0.0))
            .collect();
        let total: f64 = unseen.iter().sum();
        let mix = (0..unseen.len()).map(|k| {
            let planned = if total > 0.0 {
                unseen[k] / total
            } else {
                plan.shares[k]
            };
            self.trust * planned + (1.0 - self.trust) * late[k]
        });
        let mix: Vec<f64> = mix.collect();
        self.first = plan.price_of(&mix, self.remaining() / to_come);
        self.next_solution = (self.count + 1).saturating_add((to_come / RESOLUTIONS) as u64);
    }
}

/// What a finite number has to be, and the words for it.
type Range = (fn(f64) -> bool, &'static str);

const ABOVE_ZERO: Range = (|v| v > 0.0, "a finite number above 0");
const FROM_ZERO: Range = (|v| v >= 0.0, "a finite number, 0 or more");

fn check(argument: &'static str, value: f64, (inside, expected): Range) -> Result<()> {
    if value.is_finite() && inside(value) {
        return Ok(());
    }
    Err(Error::invalid(argument, value.to_string(), expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(budget: f64) -> Terms {
        Terms {
            budget,
            cost_weight: Some(0.1),
            plan: None,
            requests: None,
            seconds: Some(100.0),
            reserve: 1.0,
            gain: 0.03,
            trust: 0.8,
            renews: true,
        }
    }

    /// Ten prompts a second, each to a model of cost 5 while the price is low, else to one of 1.
    fn run(pacer: &Pacer, from: f64) {
        for i in 0..1000 {
            let now = from + 0.1 * f64::from(i);
            let cheap_price = pacer.show(now).cost_weight < 0.1;
            if !(cheap_price && pacer.book(5.0, Some(0), now)) {
                assert!(pacer.book(1.0, Some(0), now), "prompt {i}");
            }
        }
    }

    #[test]
    fn a_period_spends_its_budget_and_not_more() {
        let plan = Plan {
            shares: vec![1.0],
            cost_weights: vec![0.05, 0.2],
            costs: vec![vec![5.0, 1.0]],
        };
        for plan in [None, Some(plan)] {
            let terms = Terms {
                plan,
                ..terms(2000.0)
            };
            let pacer = Pacer::new(terms, 0.0).unwrap();
            // The next period begins with a full purse and the price of the moment.
            for from in [0.0, 100.0] {
                run(&pacer, from);
                let spent = pacer.show(from + 99.95).spent;
                assert!((1900.0..=2000.0).contains(&spent), "{spent}");
            }
        }
    }

    #[test]
    fn nothing_is_booked_that_cannot_be_paid() {
        let pacer = Pacer::new(terms(3.0), 0.0).unwrap();
        assert!(!pacer.book(3.5, None, 0.0));
        assert!(pacer.book(3.0, None, 0.0));
        assert!(!pacer.book(0.5, None, 1.0));
        pacer.settle(3.0, 1.0, 1.0).unwrap();
        assert_eq!(pacer.show(1.0).remaining.to_bits(), 2.0f64.to_bits());
    }

    #[test]
    fn what_was_saved_goes_on_and_what_was_not_is_refused() {
        let pacer = Pacer::new(terms(10.0), 0.0).unwrap();
        pacer.spend(2.0, None, 1.0).unwrap();
        let json = pacer.to_json();
        assert_eq!(Pacer::from_json(&json).unwrap().to_json(), json);
        for (from, to, message) in [
            ("\"spent\":2.0", "\"spent\":-2.0", "state: spent: -2"),
            (
                "\"spent\":2.0",
                "\"spent\":null",
                "state: spent: invalid type",
            ),
            ("\"count\":1,", "", "state: missing field"),
            (
                "\"requests\":null",
                "\"requests\":5",
                "requests, seconds: both",
            ),
        ] {
            let changed = json.replace(from, to);
            let error = Pacer::from_json(&changed).err().unwrap().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
