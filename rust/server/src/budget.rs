//! A budget spread over the prompts of a period as they come: Python's `BudgetPacer`, period after
//! period.
//!
//! The cost weight is the budget's dual price. After each prompt it rises if the prompt cost more
//! than what is left allows for each prompt to come, and falls if it cost less (online mirror
//! descent; Balseiro, Lu and Mirrokni, "The Best of Many Worlds", 2023). What is left is a hard cap.

use std::sync::{Mutex, MutexGuard, PoisonError};

use uniroute_core::{Error, Result};

use crate::config::BudgetConfig;

/// The price stays within this factor of where it began, so that it can always come back.
const REACH: f64 = 1e3;

/// Largest change of the logarithm of the price after one prompt.
const STEP: f64 = 0.5;

/// A budget and what has become of it. Times are in seconds, from any beginning.
pub struct Pacer {
    terms: BudgetConfig,
    first: f64,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    log_price: f64,
    spent: f64,
    count: u64,
    started: f64,
    latest: f64,
    interval: Option<f64>,
}

/// What a pacer shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// The price of the moment.
    pub cost_weight: f64,
    /// What the prompts of this period have cost.
    pub spent: f64,
    /// What is left of this period's budget, 0 or more.
    pub remaining: f64,
}

impl Pacer {
    /// A pacer whose price begins at `first`.
    pub fn new(terms: BudgetConfig, first: f64, now: f64) -> Result<Self> {
        let checks = [
            ("amount", terms.amount, f64::INFINITY),
            ("seconds", terms.seconds, f64::INFINITY),
            ("gain", terms.gain, 1.0),
            ("cost_weight", first, f64::INFINITY),
        ];
        for (name, value, top) in checks {
            if !(value > 0.0 && value <= top && value.is_finite()) {
                let expected = "a number above 0, of gain at most 1, where there is a budget";
                return Err(Error::invalid(name, value.to_string(), expected));
            }
        }
        if !(terms.reserve.is_finite() && terms.reserve >= 0.0) {
            let found = terms.reserve.to_string();
            return Err(Error::invalid("reserve", found, "a number, 0 or more"));
        }
        let state = Mutex::new(State {
            log_price: 0.0,
            spent: 0.0,
            count: 0,
            started: now,
            latest: now,
            interval: None,
        });
        Ok(Self {
            terms,
            first,
            state,
        })
    }

    /// What it shows at a time.
    pub fn show(&self, now: f64) -> Budget {
        let state = self.at(now);
        Budget {
            cost_weight: self.first * state.log_price.exp(),
            spent: state.spent,
            remaining: self.remaining(&state),
        }
    }

    /// Books the cost of a prompt unless it exceeds what the prompt may cost.
    pub fn book(&self, cost: f64, now: f64) -> bool {
        let mut state = self.at(now);
        if cost > self.payable(&state) {
            return false;
        }
        self.note(&mut state, cost, now);
        true
    }

    /// The most that the prompt at hand may cost.
    pub fn most(&self, now: f64) -> f64 {
        self.payable(&self.at(now))
    }

    /// Corrects what was booked, once it is known that another model answered.
    pub fn settle(&self, expected: f64, actual: f64, now: f64) {
        let mut state = self.at(now);
        state.spent = (state.spent + actual - expected).max(0.0);
    }

    /// The state, in the period that `now` belongs to.
    fn at(&self, now: f64) -> MutexGuard<'_, State> {
        // Every change is a plain store: a state that a panic left behind is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let periods = ((now - state.started) / self.terms.seconds).floor();
        if periods >= 1.0 {
            state.spent = 0.0;
            state.count = 0;
            state.started += periods * self.terms.seconds;
            state.latest = state.latest.max(state.started);
        }
        state
    }

    fn remaining(&self, state: &State) -> f64 {
        (self.terms.amount - state.spent).max(0.0)
    }

    fn payable(&self, state: &State) -> f64 {
        let left = self.remaining(state);
        let reserve = self.terms.reserve;
        // The reserve of the prompt at hand is there to be spent.
        let kept = reserve * (self.to_come(state) - 1.0).max(0.0);
        (left - kept).max(left.min(reserve))
    }

    fn note(&self, state: &mut State, cost: f64, now: f64) {
        // The latest hundred or so prompts tell the rate.
        let since = (now - state.latest).max(0.0);
        state.latest = now;
        let before = state.interval.unwrap_or(since);
        let share = (1.0 / (state.count + 1) as f64).max(0.01);
        state.interval = Some(before + share * (since - before));
        let share = self.remaining(state) / self.to_come(state).max(1.0);
        state.spent += cost;
        state.count += 1;
        // With nothing left every cost is too much.
        let excess = if share > 0.0 {
            cost / share - 1.0
        } else {
            f64::INFINITY
        };
        let step = (self.terms.gain * excess).clamp(-STEP, STEP);
        let limit = REACH.ln();
        state.log_price = (state.log_price + step).clamp(-limit, limit);
    }

    /// How many prompts are expected in this period, the one at hand included.
    fn to_come(&self, state: &State) -> f64 {
        let left = (self.terms.seconds - (state.latest - state.started)).max(0.0);
        // Before the first interval nothing is known of the rate: as if this prompt were the last.
        match state.interval {
            Some(interval) if interval > 0.0 => left / interval,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer(amount: f64) -> Pacer {
        let terms = BudgetConfig {
            amount,
            seconds: 100.0,
            reserve: 1.0,
            gain: 0.03,
        };
        Pacer::new(terms, 0.1, 0.0).unwrap()
    }

    /// Ten prompts a second, each to a model of cost 5 while the price is low, else to one of 1.
    fn run(pacer: &Pacer, from: f64) {
        for i in 0..1000 {
            let now = from + 0.1 * f64::from(i);
            let dear = pacer.show(now).cost_weight < 0.1;
            if !(dear && pacer.book(5.0, now)) {
                assert!(pacer.book(1.0, now), "prompt {i}");
            }
        }
    }

    #[test]
    fn a_period_spends_its_budget_and_not_more() {
        let pacer = pacer(2000.0);
        run(&pacer, 0.0);
        let spent = pacer.show(99.95).spent;
        assert!((1900.0..=2000.0).contains(&spent), "{spent}");
        // The next period begins with a full purse and the price of the moment.
        run(&pacer, 100.0);
        let spent = pacer.show(199.95).spent;
        assert!((1900.0..=2000.0).contains(&spent), "{spent}");
    }

    #[test]
    fn nothing_is_booked_that_cannot_be_paid() {
        let pacer = pacer(3.0);
        assert!(!pacer.book(3.5, 0.0));
        assert!(pacer.book(3.0, 0.0));
        assert!(!pacer.book(0.5, 1.0));
        pacer.settle(3.0, 1.0, 1.0);
        assert_eq!(pacer.show(1.0).remaining, 2.0);
    }
}
