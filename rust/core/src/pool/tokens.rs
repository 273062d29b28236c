//! What an LLM costs on a prompt where it is charged by the token.
//!
//! The cost of a call is
//!
//! ```text
//! input_price * (input_scale * tokens + input_extra) + output_price * output_tokens[cluster]
//! ```
//!
//! where `tokens` is the length of the prompt, prices are per token, and the rest is a [`Usage`]
//! learned from logs: how the LLM counts the prompt, what it is sent beside it, and how long its
//! answers are in each cluster. An LLM is *metered* once its usage and both prices are known; every
//! other one has one cost for all prompts. The length of the prompt and, through its clusters, that
//! of the answer vary from prompt to prompt; prices, scale and extra are constants of the LLM.

use crate::error::{Error, Result};
use crate::kernels::{Costs, Rough, round_down};
use crate::pool::mask::Mask;
use crate::pool::metadata::Metadata;
use crate::pool::table::{STRIP, Table};

/// Prices are those of so many tokens.
const PER: f64 = 1e6;

/// What tokens cost at the price of a million.
pub fn price(per_million: f64, tokens: f64) -> f64 {
    per_million / PER * tokens
}

/// Numbers of tokens in a [`Usage`], and its scale, are at most this: then no cost overflows.
pub const MOST_TOKENS: f64 = 1e15;

/// Tokens that the calls of one LLM take; each number is 0 to [`MOST_TOKENS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Tokens of its answer in each cluster: Phi . `output_tokens` are those of a prompt's answer.
    pub output_tokens: Vec<f32>,
    /// How many tokens it counts for one of the prompt.
    pub input_scale: f64,
    /// Tokens that it is sent beside the prompt.
    pub input_extra: f64,
}

impl Usage {
    fn check(&self, clusters: usize) -> Result<()> {
        if self.output_tokens.len() != clusters
            || !self.output_tokens.iter().all(|&v| is_count(f64::from(v)))
        {
            return Err(Error::invalid(
                "output_tokens",
                format!(
                    "{} values, or one that is no number of tokens",
                    self.output_tokens.len()
                ),
                format!("{clusters} numbers, 0 to {MOST_TOKENS:e}, for each model"),
            ));
        }
        for (argument, value) in [
            ("input_scale", self.input_scale),
            ("input_extra", self.input_extra),
        ] {
            if !is_count(value) {
                let expected = format!("numbers, 0 to {MOST_TOKENS:e}");
                return Err(Error::invalid(argument, value.to_string(), expected));
            }
        }
        Ok(())
    }
}

fn is_count(tokens: f64) -> bool {
    (0.0..=MOST_TOKENS).contains(&tokens)
}

/// Usage of every model of a pool, and what follows for their costs.
#[derive(Clone, Debug)]
pub struct Metering {
    /// [clusters, models]; 0 where the usage is not known.
    output_tokens: Table,
    /// Scale and extra; NaN where the usage is not known.
    input: Vec<[f64; 2]>,
    /// The models that are charged by the token.
    metered: Mask,
    /// What follows for the costs.
    charges: Charges<f64>,
    /// The same, rounded down.
    rough: Charges<f32>,
}

/// What a model charges for a call: a sum that is the same for all, and prices of a token of the
/// prompt, its scale included, and of the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    base: f64,
    input: f64,
    output: f64,
}

impl Rates {
    /// The same for every call.
    pub fn flat(cost: f64) -> Self {
        Self {
            base: cost,
            input: 0.0,
            output: 0.0,
        }
    }

    /// By the token, at prices of a million of the input and of the output.
    pub fn metered([input, output]: [f64; 2], [scale, extra]: [f64; 2]) -> Self {
        Self {
            base: price(input, extra),
            input: price(input, scale),
            output: price(output, 1.0),
        }
    }

    /// What a call on a prompt of so many tokens costs whose answer has so many: exactly what
    /// [`Metering::costs`] comes to.
    pub fn cost(&self, tokens: f64, answer: f64) -> f64 {
        self.input * tokens + self.output * answer + self.base
    }
}

/// What calls cost on prompts of so many `tokens` whose `answers`, [prompts, models], have so many:
/// [prompts, models] for models of these rates.
pub fn call_costs(tokens: &[f64], answers: &[f64], rates: &[Rates]) -> Vec<f64> {
    let rows = tokens.iter().zip(answers.chunks(rates.len().max(1)));
    let costs = rows.flat_map(|(&tokens, answers)| {
        let each = rates.iter().zip(answers);
        each.map(move |(rates, &answer)| rates.cost(tokens, answer))
    });
    costs.collect()
}

/// What every model charges.
#[derive(Clone, Debug, Default)]
struct Charges<T> {
    /// What a call costs whatever its tokens: of a metered model its extra input, of another one
    /// all of its cost.
    base: Vec<T>,
    /// Price of a token of the prompt, its scale included; 0 for a model that is not metered.
    input: Vec<T>,
    /// Price of a token of the answer; 0 for a model that is not metered.
    output: Vec<T>,
}

impl<T> Charges<T> {
    fn push(&mut self, [base, input, output]: [T; 3]) {
        self.base.push(base);
        self.input.push(input);
        self.output.push(output);
    }

    fn remove(&mut self, model: usize) {
        self.base.remove(model);
        self.input.remove(model);
        self.output.remove(model);
    }

    fn set(&mut self, model: usize, [base, input, output]: [T; 3]) {
        self.base[model] = base;
        self.input[model] = input;
        self.output[model] = output;
    }
}

impl Metering {
    /// For models of these costs, of which no usage is known.
    pub(crate) fn new(clusters: usize, costs: &[f64]) -> Self {
        let mut metering = Self {
            output_tokens: Table::new(clusters),
            input: Vec::new(),
            metered: Mask::default(),
            charges: Charges::default(),
            rough: Charges::default(),
        };
        for &cost in costs {
            metering.push(cost);
        }
        metering
    }

    /// From the usage of all models: `output_tokens` [clusters, models] row-major, and scale and
    /// extra of each, NaN where its usage is not known.
    pub(crate) fn of(costs: &[f64], output_tokens: &[f32], input: &[[f64; 2]]) -> Result<Self> {
        let models = costs.len();
        let clusters = output_tokens.len().checked_div(models).unwrap_or(0);
        let fits = output_tokens.len() == clusters * models && input.len() == models;
        let counts = output_tokens.iter().all(|&v| is_count(f64::from(v)));
        let known =
            |&[scale, extra]: &[f64; 2]| scale.is_nan() || is_count(scale) && is_count(extra);
        if !(fits && counts && input.iter().all(known)) {
            let problem = "not one of each for a model, or one that is no number of tokens";
            let expected = format!("numbers, 0 to {MOST_TOKENS:e}");
            return Err(Error::invalid("usage", problem, expected));
        }
        let mut table = Table::new(clusters);
        table.push(output_tokens, models);
        Ok(Self {
            output_tokens: table,
            input: input.to_vec(),
            metered: Mask::none(models),
            charges: Charges {
                base: costs.to_vec(),
                input: vec![0.0; models],
                output: vec![0.0; models],
            },
            rough: Charges {
                base: costs.iter().map(|&cost| round_down(cost)).collect(),
                input: vec![0.0; models],
                output: vec![0.0; models],
            },
        })
    }

    /// The models that are charged by the token.
    pub fn metered(&self) -> &Mask {
        &self.metered
    }

    /// Expected tokens of answers, [clusters, models]; 0 where the usage is not known.
    pub fn output_tokens(&self) -> &Table {
        &self.output_tokens
    }

    /// Usage of one model, if it is known.
    pub fn usage(&self, model: usize) -> Option<Usage> {
        let [input_scale, input_extra] = self.input[model];
        let clusters = 0..self.output_tokens.clusters();
        (!input_scale.is_nan()).then(|| Usage {
            output_tokens: clusters.map(|k| self.output_tokens.get(k, model)).collect(),
            input_scale,
            input_extra,
        })
    }

    /// Input scale and extra of every model; NaN where the usage is not known.
    pub fn input(&self) -> &[[f64; 2]] {
        &self.input
    }

    /// Costs of the models of one strip of the profiles, for a prompt of `tokens` tokens whose
    /// answers are expected to have `tokens_out`.
    pub fn costs<'a>(&'a self, strip: usize, tokens: u64, tokens_out: &'a [f32]) -> Costs<'a> {
        let models = strip * STRIP..strip * STRIP + tokens_out.len();
        Costs::Metered {
            base: &self.charges.base[models.clone()],
            in_prices: &self.charges.input[models.clone()],
            out_prices: &self.charges.output[models.clone()],
            tokens_in: tokens as f64,
            tokens_out,
            rough: Some(Rough {
                base: &self.rough.base[models.clone()],
                in_prices: &self.rough.input[models.clone()],
                out_prices: &self.rough.output[models],
            }),
        }
    }

    /// Appends a model of which no usage is known.
    pub(crate) fn push(&mut self, cost: f64) {
        self.output_tokens
            .push(&vec![0.0; self.output_tokens.clusters()], 1);
        self.input.push([f64::NAN; 2]);
        self.metered.push(false);
        self.charges.push([cost, 0.0, 0.0]);
        self.rough.push([round_down(cost), 0.0, 0.0]);
    }

    /// Takes a model out; later ones move down.
    pub(crate) fn remove(&mut self, model: usize) {
        self.output_tokens.remove(model);
        self.input.remove(model);
        self.metered.remove(model);
        self.charges.remove(model);
        self.rough.remove(model);
    }

    /// Replaces a model's usage. Its charges are not brought up to date: see [`Self::charge`].
    pub(crate) fn set(&mut self, model: usize, usage: &Usage) -> Result<()> {
        usage.check(self.output_tokens.clusters())?;
        self.output_tokens
            .set_column(model, usage.output_tokens.iter().copied());
        self.input[model] = [usage.input_scale, usage.input_extra];
        Ok(())
    }

    /// Works out anew what a model charges.
    pub(crate) fn charge(&mut self, model: usize, cost: f64, metadata: &Metadata) {
        let [scale, extra] = self.input[model];
        let prices = metadata.input_price.zip(metadata.output_price);
        let prices = prices.filter(|_| !scale.is_nan());
        self.metered.set(model, prices.is_some());
        let rates = prices.map_or(Rates::flat(cost), |(input, output)| {
            Rates::metered([input, output], [scale, extra])
        });
        let charges = [rates.base, rates.input, rates.output];
        self.charges.set(model, charges);
        self.rough.set(model, charges.map(round_down));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Scan;

    fn priced(input: f64, output: f64) -> Metadata {
        Metadata {
            input_price: Some(input),
            output_price: Some(output),
            ..Metadata::default()
        }
    }

    fn cost(metering: &Metering, model: usize, cluster: usize, tokens: u64) -> f64 {
        let out: Vec<f32> = metering.output_tokens.row(cluster).collect();
        let gamma = vec![0.0; out.len()];
        Scan::new(&gamma, metering.costs(0, tokens, &out), 1.0, None).cost(model)
    }

    #[test]
    fn a_metered_model_is_charged_by_the_token_and_another_one_its_cost() {
        let mut metering = Metering::new(2, &[0.1, 0.7]);
        let usage = Usage {
            output_tokens: vec![100.0, 300.0],
            input_scale: 1.5,
            input_extra: 40.0,
        };
        metering.set(0, &usage).unwrap();
        metering.charge(0, 0.1, &Metadata::default());
        assert!(
            (cost(&metering, 0, 1, 10) - 0.1).abs() < f64::EPSILON,
            "prices not known"
        );
        metering.charge(0, 0.1, &priced(2.0, 8.0));
        let expected = 2e-6 * (1.5 * 10.0 + 40.0) + 8e-6 * 300.0;
        assert!((cost(&metering, 0, 1, 10) - expected).abs() < 1e-15);
        let rates = Rates::metered([2.0, 8.0], [1.5, 40.0]);
        assert_eq!(
            cost(&metering, 0, 1, 10).to_bits(),
            rates.cost(10.0, 300.0).to_bits()
        );
        assert_eq!(cost(&metering, 1, 1, 10).to_bits(), 0.7f64.to_bits());
        assert_eq!(metering.usage(0), Some(usage));
        assert_eq!(metering.usage(1), None);
        metering.remove(0);
        assert_eq!(cost(&metering, 0, 0, 99).to_bits(), 0.7f64.to_bits());
        assert_eq!(metering.metered().count(), 0);
    }

    #[test]
    fn usage_that_is_no_number_of_tokens_is_refused() {
        let mut metering = Metering::new(1, &[1.0]);
        for (output, scale, extra, argument) in [
            (-1.0, 1.0, 0.0, "output_tokens"),
            (f32::NAN, 1.0, 0.0, "output_tokens"),
            (1.0, f64::INFINITY, 0.0, "input_scale"),
            (1.0, 1.0, -3.0, "input_extra"),
        ] {
            let usage = Usage {
                output_tokens: vec![output],
                input_scale: scale,
                input_extra: extra,
            };
            let message = metering.set(0, &usage).unwrap_err().to_string();
            assert!(message.starts_with(argument), "{message}");
        }
    }
}
