//! What a request asks of the model that answers it.
//!
//! A [`Constraints`] is a list of *rules*. Each rule becomes one mask over the models of a snapshot,
//! once, and a model may answer if its bit is set in all of them; why one may not is read from the
//! same masks. The one rule that depends on the prompt, that it fits the context, has one mask for
//! each distinct context length, made when first needed.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use globset::{Glob, GlobMatcher};

use crate::error::{Error, Result};
use crate::fork;
use crate::hull::{Candidate, Hull};
use crate::mask::Mask;
use crate::profiles::Pool;

/// What a request may ask, as the caller wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    /// Names or globs of which a model must match one; `None` allows all.
    pub allow: Option<Vec<String>>,
    /// Names or globs of which a model must match none.
    pub deny: Vec<String>,
    /// Groups of tags or globs; of each group a model must have one.
    pub require_tags: Vec<Vec<String>>,
    /// Tags or globs of which a model must have none.
    pub forbid_tags: Vec<String>,
    /// What the model may cost at most.
    pub max_cost: Option<f64>,
    /// Seconds that the model may typically take at most.
    pub max_latency: Option<f64>,
    /// Whether prompt and answer must fit the model's context.
    pub fit_context: bool,
    /// Tokens to keep free for the answer.
    pub answer_tokens: u64,
}

/// A name or tag, or a glob over them.
#[derive(Clone, Debug)]
enum Pattern {
    Literal(String),
    Glob(GlobMatcher),
}

impl Pattern {
    fn new(argument: &'static str, pattern: &str) -> Result<Self> {
        if pattern.is_empty() {
            let expected = "non-empty names, tags or globs";
            return Err(Error::invalid(argument, "an empty pattern", expected));
        }
        if !pattern.contains(['*', '?', '[', '{', '\\']) {
            return Ok(Self::Literal(pattern.to_owned()));
        }
        let glob = Glob::new(pattern).map_err(|e| {
            let expected = "a glob such as \"openai/*\"; \"[[]\" stands for a bracket";
            Error::invalid(argument, format!("{pattern:?} ({})", e.kind()), expected)
        })?;
        Ok(Self::Glob(glob.compile_matcher()))
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Glob(glob) => glob.is_match(text),
        }
    }
}

/// Which of several things a model was excluded by, with what is needed to tell.
#[derive(Clone, Debug)]
enum Rule {
    Enabled,
    Allow(Vec<Pattern>),
    Deny(Vec<Pattern>),
    Require(Vec<String>, Vec<Pattern>),
    Forbid(Vec<Pattern>),
    MaxCost(f64),
    MaxLatency(f64),
}

impl Rule {
    /// The argument that the rule comes from.
    fn argument(&self) -> &'static str {
        match self {
            Self::Enabled => "disabled",
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
            Self::Require(..) => "require_tags",
            Self::Forbid(_) => "forbid_tags",
            Self::MaxCost(_) => "max_cost",
            Self::MaxLatency(_) => "max_latency",
        }
    }

    /// The models of a pool that the rule lets through.
    fn mask(&self, pool: &Pool) -> Mask {
        match self {
            Self::Enabled => pool.enabled().clone(),
            Self::Allow(patterns) => named(pool, patterns),
            Self::Deny(patterns) => named(pool, patterns).complement(),
            Self::Require(_, patterns) => tagged(pool, patterns),
            Self::Forbid(patterns) => tagged(pool, patterns).complement(),
            // Where costs depend on the prompt, so does who stays below the cap.
            Self::MaxCost(_) if pool.metering().is_some() => Mask::all(pool.len()),
            Self::MaxCost(cap) => Mask::of(pool.len(), |m| pool.costs()[m] <= *cap),
            Self::MaxLatency(cap) => {
                let metadata = pool.directory().models();
                Mask::of(pool.len(), |m| {
                    metadata[m].latency.is_some_and(|l| l <= *cap)
                })
            }
        }
    }

    /// Whether the rule stops a model of that cost, which its mask may not know.
    fn stops(&self, mask: &Mask, model: usize, cost: f64) -> bool {
        match self {
            Self::MaxCost(cap) => cost > *cap,
            _ => !mask.contains(model),
        }
    }

    /// Why the rule stopped a model of that cost, in words.
    fn reason(&self, pool: &Pool, model: usize, cost: f64) -> String {
        let metadata = &pool.directory().models()[model];
        match self {
            Self::Enabled => "disabled".into(),
            Self::Allow(_) => "allow: its name matches none of the allowed".into(),
            Self::Deny(_) => "deny: its name is denied".into(),
            Self::Require(tags, _) => format!("require_tags: has no tag {}", tags.join(" or ")),
            Self::Forbid(patterns) => {
                let has = |tag: &&String| patterns.iter().any(|p| p.matches(tag));
                let found: Vec<_> = metadata.tags.iter().filter(has).cloned().collect();
                format!("forbid_tags: has {}", found.join(", "))
            }
            Self::MaxCost(cap) => format!("max_cost: costs {cost}, above {cap}"),
            Self::MaxLatency(cap) => match metadata.latency {
                Some(latency) => format!("max_latency: takes {latency} s, above {cap} s"),
                None => "max_latency: its latency is not known".into(),
            },
        }
    }
}

fn named(pool: &Pool, patterns: &[Pattern]) -> Mask {
    let mut mask = Mask::none(pool.len());
    for pattern in patterns {
        match pattern {
            Pattern::Literal(name) => {
                if let Some(model) = pool.position(name) {
                    mask.set(model as usize, true);
                }
            }
            Pattern::Glob(_) => {
                mask.or(&Mask::of(pool.len(), |m| pattern.matches(&pool.names()[m])));
            }
        }
    }
    mask
}

fn tagged(pool: &Pool, patterns: &[Pattern]) -> Mask {
    let mut mask = Mask::none(pool.len());
    for (tag, models) in pool.directory().tags() {
        if patterns.iter().any(|p| p.matches(tag)) {
            mask.add(models);
        }
    }
    mask
}

/// What requests ask, ready to be applied to any snapshot. Immutable.
#[derive(Debug)]
pub struct Constraints {
    terms: Terms,
    rules: Vec<Rule>,
    hash: u64,
}

impl Constraints {
    /// Checks the terms and parses their patterns.
    pub fn new(terms: Terms) -> Result<Self> {
        let patterns = |argument, all: &[String]| {
            let parsed = all.iter().map(|p| Pattern::new(argument, p));
            parsed.collect::<Result<Vec<_>>>()
        };
        let mut rules = vec![Rule::Enabled];
        if let Some(allow) = &terms.allow {
            rules.push(Rule::Allow(patterns("allow", allow)?));
        }
        if !terms.deny.is_empty() {
            rules.push(Rule::Deny(patterns("deny", &terms.deny)?));
        }
        for group in &terms.require_tags {
            let parsed = patterns("require_tags", group)?;
            rules.push(Rule::Require(group.clone(), parsed));
        }
        if !terms.forbid_tags.is_empty() {
            rules.push(Rule::Forbid(patterns("forbid_tags", &terms.forbid_tags)?));
        }
        let caps = [
            ("max_cost", terms.max_cost, Rule::MaxCost as fn(f64) -> Rule),
            ("max_latency", terms.max_latency, Rule::MaxLatency),
        ];
        for (argument, cap, rule) in caps {
            match cap {
                Some(cap) if cap >= 0.0 => rules.push(rule(cap)),
                Some(cap) => {
                    let expected = "a number, 0 or more, or None";
                    return Err(Error::invalid(argument, cap.to_string(), expected));
                }
                None => {}
            }
        }
        let mut hasher = DefaultHasher::new();
        format!("{terms:?}").hash(&mut hasher);
        Ok(Self {
            hash: hasher.finish(),
            terms,
            rules,
        })
    }

    /// What the caller wrote.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The same for equal terms.
    pub fn digest(&self) -> u64 {
        self.hash
    }

    /// Which models of a pool they let through. O(models x globs).
    fn compile(self: &Arc<Self>, pool: &Pool) -> Compiled {
        let masks: Vec<Mask> = self.rules.iter().map(|rule| rule.mask(pool)).collect();
        let mut all = Mask::all(pool.len());
        for mask in &masks {
            all.and(mask);
        }
        let mut lengths: Vec<u64> = Vec::new();
        if self.terms.fit_context {
            let known = pool.directory().models().iter();
            lengths.extend(known.filter_map(|metadata| metadata.context_length));
            lengths.sort_unstable();
            lengths.dedup();
        }
        Compiled {
            constraints: Arc::clone(self),
            masks,
            all: Allowed::new(all, pool.clusters()),
            by_length: lengths.into_iter().map(|l| (l, OnceLock::new())).collect(),
            nobody: Allowed::new(Mask::none(pool.len()), pool.clusters()),
        }
    }
}

impl Default for Constraints {
    /// Those that let every model through that is not disabled.
    fn default() -> Self {
        Self {
            terms: Terms::default(),
            rules: vec![Rule::Enabled],
            hash: 0,
        }
    }
}

/// Constraints as one snapshot's models meet them.
#[derive(Debug)]
pub struct Compiled {
    constraints: Arc<Constraints>,
    /// One a rule.
    masks: Vec<Mask>,
    /// All rules together, the context apart.
    all: Allowed,
    /// Each context length there is, ascending, with the models of at least that length; only
    /// where the prompt must fit.
    by_length: Vec<(u64, OnceLock<Allowed>)>,
    nobody: Allowed,
}

impl Compiled {
    /// The models that may answer a prompt of so many tokens.
    ///
    /// Fails if the prompt must fit the context, and its length is not known.
    pub fn allowed(&self, pool: &Pool, tokens: Option<u64>) -> Result<&Allowed> {
        if !self.constraints.terms.fit_context {
            return Ok(&self.all);
        }
        let needed = self.needed(tokens)?;
        let at = self
            .by_length
            .partition_point(|(length, _)| *length < needed);
        let Some((length, mask)) = self.by_length.get(at) else {
            return Ok(&self.nobody);
        };
        Ok(fork::once(mask, || {
            let metadata = pool.directory().models();
            let fits = |m: usize| metadata[m].context_length.is_some_and(|l| l >= *length);
            let mut mask = Mask::of(pool.len(), fits);
            mask.and(&self.all.mask);
            Allowed::new(mask, pool.clusters())
        }))
    }

    /// What a model may cost at most; infinity where there is no cap.
    pub fn max_cost(&self) -> f64 {
        self.constraints.terms.max_cost.unwrap_or(f64::INFINITY)
    }

    /// Every model that may not answer a prompt of so many tokens on which the models have these
    /// costs, with all the reasons.
    pub fn excluded(
        &self,
        pool: &Pool,
        tokens: Option<u64>,
        costs: &[f64],
    ) -> Result<Vec<Exclusion>> {
        let allowed = self.allowed(pool, tokens)?;
        let cap = self.max_cost();
        let excluded = (0..pool.len()).filter(|&m| !allowed.mask.contains(m) || costs[m] > cap);
        excluded
            .map(|m| {
                let rules = self.constraints.rules.iter().zip(&self.masks);
                let mut reasons: Vec<_> = rules
                    .filter(|(rule, mask)| rule.stops(mask, m, costs[m]))
                    .map(|(rule, _)| rule.reason(pool, m, costs[m]))
                    .collect();
                reasons.extend(self.misfit(pool, m, tokens)?);
                let model = m as u32;
                Ok(Exclusion { model, reasons })
            })
            .collect()
    }

    /// Why nobody may answer a prompt on which the models have these costs: how many models each
    /// rule stops.
    pub fn nobody(&self, pool: &Pool, tokens: Option<u64>, costs: &[f64]) -> Error {
        let rules = self.constraints.rules.iter().zip(&self.masks);
        let mut stopped: Vec<(&str, usize)> = rules
            .map(|(rule, mask)| {
                let stopped = (0..pool.len()).filter(|&m| rule.stops(mask, m, costs[m]));
                (rule.argument(), stopped.count())
            })
            .collect();
        let misfits =
            (0..pool.len()).filter(|&m| matches!(self.misfit(pool, m, tokens), Ok(Some(_))));
        stopped.push(("fit_context", misfits.count()));
        stopped.retain(|(_, count)| *count > 0);
        let counts: Vec<_> = stopped
            .iter()
            .map(|(rule, n)| format!("{rule} {n}"))
            .collect();
        Error::NoCandidate {
            models: pool.len(),
            stopped: counts.join(", "),
        }
    }

    /// Tokens of prompt and answer together.
    fn needed(&self, tokens: Option<u64>) -> Result<u64> {
        let tokens = tokens.ok_or_else(|| {
            let expected = "the prompt's length in tokens, which embeddings do not tell";
            Error::invalid("tokens", "not given, though fit_context is set", expected)
        })?;
        Ok(tokens.saturating_add(self.constraints.terms.answer_tokens))
    }

    fn misfit(&self, pool: &Pool, model: usize, tokens: Option<u64>) -> Result<Option<String>> {
        if !self.constraints.terms.fit_context {
            return Ok(None);
        }
        let needed = self.needed(tokens)?;
        Ok(match pool.directory().models()[model].context_length {
            Some(length) if length >= needed => None,
            Some(length) => Some(format!(
                "fit_context: takes {length} tokens, needs {needed}"
            )),
            None => Some("fit_context: its context length is not known".into()),
        })
    }
}

/// The models of a pool that may answer, and how to find the best of them again.
#[derive(Debug)]
pub struct Allowed {
    mask: Mask,
    /// One a cluster.
    hulls: Vec<RareHull>,
}

impl Allowed {
    fn new(mask: Mask, clusters: usize) -> Self {
        Self {
            mask,
            hulls: (0..clusters).map(|_| RareHull::default()).collect(),
        }
    }

    /// The models themselves.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The winner in a cluster at a cost weight; `None` if nobody may answer.
    ///
    /// O(log hull) where the winner among all is allowed, for then it is the winner here too, and
    /// from the third time that it is not; O(models) the first two times.
    pub fn choose(&self, pool: &Pool, cluster: usize, cost_weight: f64) -> Option<Candidate> {
        let among_all = pool.hull(cluster).choose(cost_weight);
        if let Some(winner) = among_all
            && self.mask.contains(winner.model as usize)
        {
            return Some(winner);
        }
        let hull = self.hulls[cluster].get(|| pool.build_hull(cluster, &self.mask));
        hull.and_then(|hull| hull.choose(cost_weight))
            .or_else(|| pool.scan_cluster(cluster, cost_weight, &self.mask))
    }
}

/// A hull that is built when it is asked for a second time: it costs about as much as ten scans,
/// and constraints that come once are better off with one scan.
#[derive(Debug, Default)]
struct RareHull {
    asked: AtomicBool,
    hull: OnceLock<Hull>,
}

impl RareHull {
    fn get(&self, build: impl FnOnce() -> Hull) -> Option<&Hull> {
        if let Some(hull) = self.hull.get() {
            return Some(hull);
        }
        let again = self.asked.swap(true, Ordering::Relaxed);
        again.then(|| fork::once(&self.hull, build))
    }
}

/// A model that may not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// Index in the pool.
    pub model: u32,
    /// Why, each in words that start with the argument that says so.
    pub reasons: Vec<String>,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))
    }
}

/// How many constraints a snapshot keeps compiled.
const KEPT: usize = 64;

/// The constraints compiled for one snapshot. Whoever looks one up never waits.
#[derive(Default)]
pub struct Cache(ArcSwap<Vec<Arc<Compiled>>>);

impl Cache {
    /// `constraints` compiled for `pool`, which must be the one pool that this cache belongs to.
    pub fn get(&self, constraints: &Arc<Constraints>, pool: &Pool) -> Arc<Compiled> {
        let same = |c: &&Arc<Compiled>| {
            Arc::ptr_eq(&c.constraints, constraints)
                || (c.constraints.hash == constraints.hash
                    && c.constraints.terms == constraints.terms)
        };
        if let Some(found) = self.0.load().iter().find(same) {
            return Arc::clone(found);
        }
        let made = Arc::new(constraints.compile(pool));
        self.0.rcu(|kept| {
            // The newest first; the oldest is forgotten.
            let others = kept.iter().filter(|c| !same(c)).take(KEPT - 1);
            std::iter::once(&made)
                .chain(others)
                .cloned()
                .collect::<Vec<_>>()
        });
        made
    }
}
