//! Named ways to route, and what a request asks once its policy is taken into account.

use std::collections::BTreeMap;
use std::sync::Arc;

use uniroute_core::Error;
use uniroute_core::budget::Pacer;
use uniroute_core::request::constraints::{Compiled, Constraints, Terms, is_glob};
use uniroute_core::request::{self, Leaving, Requests, Stay};
use uniroute_core::route::snapshot::Snapshot;

use crate::api::question::Question;
use crate::config::{Config, PolicyConfig};
use crate::http::lists::PerPrompt;
use crate::http::refusal::Refusal;

/// A named way to route.
pub struct Policy {
    cost_weight: f64,
    terms: Terms,
    /// The terms, ready to use; `None` if they ask nothing.
    constraints: Option<Arc<Constraints>>,
    fallback: Option<String>,
    /// What the policy's prompts may cost together.
    pub pacer: Option<Pacer>,
}

impl Policy {
    fn new(config: PolicyConfig, now: f64) -> Result<Self, Error> {
        let terms = Terms::from(config.constraints);
        let constraints = if terms == Terms::default() {
            None
        } else {
            Some(Arc::new(Constraints::new(terms.clone())?))
        };
        let pacer = config
            .budget
            .map(|budget| Pacer::new(budget.terms(config.cost_weight), now));
        Ok(Self {
            cost_weight: config.cost_weight,
            terms,
            constraints,
            fallback: config.fallback,
            pacer: pacer.transpose()?,
        })
    }
}

/// All policies.
pub struct Policies {
    named: BTreeMap<String, Policy>,
    unnamed: Policy,
}

impl Policies {
    /// Those of a configuration.
    pub fn new(config: &Config, now: f64) -> Result<Self, Error> {
        let named = config.policies.iter();
        let unnamed = PolicyConfig {
            cost_weight: config.cost_weight,
            ..PolicyConfig::default()
        };
        Ok(Self {
            named: named
                .map(|(name, policy)| Ok((name.clone(), Policy::new(policy.clone(), now)?)))
                .collect::<Result<_, Error>>()?,
            unnamed: Policy::new(unnamed, now)?,
        })
    }

    /// Those that have a name.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Policy)> {
        self.named.iter().map(|(name, policy)| (&**name, policy))
    }

    fn find(&self, name: Option<&str>) -> Result<&Policy, Refusal> {
        let Some(name) = name else {
            return Ok(&self.unnamed);
        };
        self.named.get(name).ok_or_else(|| {
            let known: Vec<_> = self.named.keys().map(|name| format!("{name:?}")).collect();
            let expected = if known.is_empty() {
                "none: the service has no policies".to_owned()
            } else {
                format!("one of {}", known.join(", "))
            };
            Refusal::field("policy", &format!("no policy named {name:?}"), &expected)
        })
    }

    /// How many globs the policy of a question has.
    pub fn globs(&self, question: &Question<'_>) -> usize {
        let policy = self.find(question.policy.as_deref());
        policy.map_or(0, |policy| {
            let patterns = policy.terms.patterns();
            patterns.filter(|(_, pattern)| is_glob(pattern)).count()
        })
    }

    /// Whether the policy of a question has a budget, for which prompts are decided one by one.
    pub fn paces(&self, question: &Question<'_>) -> bool {
        let policy = self.find(question.policy.as_deref());
        policy.is_ok_and(|policy| policy.pacer.is_some())
    }

    /// What a question asks of a snapshot.
    pub fn resolve(
        &self,
        question: &Question<'_>,
        snapshot: &Snapshot,
    ) -> Result<Asked<'_>, Refusal> {
        let policy = self.find(question.policy.as_deref())?;
        if policy.pacer.is_some() && question.cost_weight.is_some() {
            let problem = "given beside a policy whose budget sets it";
            return Err(Refusal::field("cost_weight", problem, "one of the two"));
        }
        let constraints = match &question.constraints {
            None => policy.constraints.clone(),
            Some(own) => {
                let both = policy.terms.and(&own.clone().into());
                let both = both.map_err(|error| error.about("constraints.allow"))?;
                Some(Arc::new(Constraints::new(both)?))
            }
        };
        let prompts = question.prompts.len();
        check_numbers("cost_weight", question.cost_weight.as_ref(), prompts)?;
        if let Some(tokens) = &question.tokens {
            check_length("tokens", tokens, prompts)?;
        }
        let fallback = question.fallback.as_deref().or(policy.fallback.as_deref());
        let cost_weights = match &question.cost_weight {
            None => request::PerPrompt::Same(policy.cost_weight),
            Some(own) => own.map(|&weight| weight),
        };
        let tokens = (question.tokens.as_ref()).map(|own| own.map(|&tokens| Some(tokens)));
        Ok(Asked {
            requests: Requests {
                cost_weights,
                constraints: request::PerPrompt::Same(
                    constraints.as_ref().map(|c| snapshot.compile(c)),
                ),
                tokens: tokens.unwrap_or(request::PerPrompt::Same(None)),
                fallback: fallback
                    .map(|name| snapshot.pool().find("fallback", name))
                    .transpose()?,
                stay: stays(question, snapshot)?,
                counted: true,
            },
            constraints,
            pacer: policy.pacer.as_ref(),
        })
    }
}

/// What a question asks of one snapshot.
pub struct Asked<'p> {
    /// For the snapshot.
    pub requests: Requests,
    /// What the models must meet.
    pub constraints: Option<Arc<Constraints>>,
    /// The budget that sets the cost weight and books what is chosen.
    pub pacer: Option<&'p Pacer>,
}

/// The models that the conversations of a question are with.
fn stays(
    question: &Question<'_>,
    snapshot: &Snapshot,
) -> Result<request::PerPrompt<Option<Stay>>, Refusal> {
    let (costs, cached) = (&question.switch_cost, &question.cached_tokens);
    let prompts = question.prompts.len();
    check_numbers("switch_cost", costs.as_ref(), prompts)?;
    if let Some(cached) = cached {
        check_length("cached_tokens", cached, prompts)?;
    }
    let leaving = |prompt: usize| {
        let cost = costs.as_ref().map(|all| *all.at(prompt));
        Leaving::of(cost, cached.as_ref().map(|all| *all.at(prompt)))
    };
    let Some(names) = &question.current_model else {
        // Nothing to leave, but the two are still not to come together.
        Leaving::of(costs.as_ref().map(|_| 0.0), cached.as_ref().map(|_| 0))?;
        return Ok(request::PerPrompt::Same(None));
    };
    check_length("current_model", names, prompts)?;
    if costs.is_none() && cached.is_none() {
        return Err(Leaving::missing().into());
    }
    let stay = |prompt: usize| {
        Stay::with(
            snapshot.pool(),
            names.at(prompt).0.as_deref(),
            leaving(prompt)?,
        )
    };
    // One for each even where all are the same: looking up a name is little beside a decision.
    let each = (0..prompts).map(stay).collect::<Result<Vec<_>, Error>>()?;
    Ok(request::PerPrompt::Each(each))
}

/// Fails unless there is one value, or one for each prompt.
fn check_length<T>(param: &str, values: &PerPrompt<T>, prompts: usize) -> Result<(), Refusal> {
    match values {
        PerPrompt::Each(all) if all.len() != prompts => {
            let problem = format!("{} of them for {prompts} prompts", all.len());
            Err(Refusal::field(param, &problem, "one, or one for each"))
        }
        _ => Ok(()),
    }
}

/// The same, of numbers that have to be finite and 0 or more.
fn check_numbers(
    param: &str,
    values: Option<&PerPrompt<f64>>,
    prompts: usize,
) -> Result<(), Refusal> {
    let Some(values) = values else {
        return Ok(());
    };
    check_length(param, values, prompts)?;
    let mut all = values.values().iter();
    match all.find(|value| !(value.is_finite() && **value >= 0.0)) {
        Some(bad) => Err(Refusal::field(
            param,
            &bad.to_string(),
            "numbers, 0 or more",
        )),
        None => Ok(()),
    }
}

impl Asked<'_> {
    /// The constraints, with nothing dearer than `most`.
    pub fn capped(&self, most: f64, snapshot: &Snapshot) -> Result<Arc<Compiled>, Error> {
        let cap = Constraints::new(Terms {
            max_cost: Some(most),
            ..Terms::default()
        })?;
        let capped = match &self.constraints {
            None => cap,
            Some(constraints) => constraints.and(&cap)?,
        };
        Ok(snapshot.compile(&Arc::new(capped)))
    }
}
