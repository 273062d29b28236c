//! What a request asks of the model that answers it.
//!
//! [`Terms`] are a list of *rules*. Each rule is a mask over the models of a snapshot, and a model may
//! answer if its bit is set in all of them. They are applied once and only what comes of them is
//! kept; why a model may not answer is worked out when somebody asks. The one rule that depends on
//! the prompt, that it fits the context, has one mask for each distinct context length, made when
//! first needed.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::pool::hull::{Candidate, Hull};
use crate::pool::mask::Mask;
use crate::sys::fork;

/// Groups of required tags at most: each is a rule, and a look at every model is as much work as
/// there are rules.
pub const MOST_GROUPS: usize = 64;

/// Bytes of a glob at most, and braces that it may open: they bound what it takes to compile, and how
/// deep it nests.
pub const MOST_GLOB_BYTES: usize = 256;
const MOST_BRACES: usize = 16;

/// Tags that a reason lists at most.
const LISTED: usize = 8;

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

impl Terms {
    /// Every name, tag and glob, with the argument that it came from.
    pub fn patterns(&self) -> impl Iterator<Item = (&'static str, &str)> {
        fn of<'t>(
            argument: &'static str,
            list: &'t [String],
        ) -> impl Iterator<Item = (&'static str, &'t str)> {
            list.iter().map(move |pattern| (argument, &**pattern))
        }
        (of("allow", self.allow.as_deref().unwrap_or_default()))
            .chain(of("deny", &self.deny))
            .chain(
                self.require_tags
                    .iter()
                    .flat_map(move |group| of("require_tags", group)),
            )
            .chain(of("forbid_tags", &self.forbid_tags))
    }

    /// What meets both. Two lists of what is allowed are refused, for one list cannot say what is on
    /// each of two.
    pub fn and(&self, other: &Self) -> Result<Self> {
        if self.allow.is_some() && other.allow.is_some() {
            let expected = "in one of the two; narrow the other with deny";
            return Err(Error::invalid("allow", "in both constraints", expected));
        }
        let least = |a: Option<f64>, b: Option<f64>| match (a, b) {
            // Caps that are none pass, to be refused where the terms are checked.
            (Some(a), Some(b)) if b >= 0.0 => Some(a.min(b)),
            (a, b) => b.or(a),
        };
        Ok(Self {
            allow: other.allow.clone().or_else(|| self.allow.clone()),
            deny: [&*self.deny, &other.deny].concat(),
            require_tags: [&*self.require_tags, &other.require_tags].concat(),
            forbid_tags: [&*self.forbid_tags, &other.forbid_tags].concat(),
            max_cost: least(self.max_cost, other.max_cost),
            max_latency: least(self.max_latency, other.max_latency),
            fit_context: self.fit_context || other.fit_context,
            answer_tokens: self.answer_tokens.max(other.answer_tokens),
        })
    }

    /// The rules that they come to. The prompt's is there where it must fit: `needed` tokens.
    fn rules(&self, needed: Option<u64>) -> Vec<Rule<'_>> {
        fn some(list: &[String]) -> Option<&[String]> {
            (!list.is_empty()).then_some(list)
        }
        let mut rules = vec![Rule::Enabled];
        rules.extend(self.allow.as_deref().map(Rule::Allow));
        rules.extend(some(&self.deny).map(Rule::Deny));
        rules.extend(self.require_tags.iter().map(|group| Rule::Require(group)));
        rules.extend(some(&self.forbid_tags).map(Rule::Forbid));
        rules.extend(self.max_cost.map(Rule::MaxCost));
        rules.extend(self.max_latency.map(Rule::MaxLatency));
        rules.extend(needed.map(Rule::FitContext));
        rules
    }

    fn check(&self) -> Result<()> {
        let groups = self.require_tags.len();
        if groups > MOST_GROUPS {
            let expected =
                format!("{MOST_GROUPS} at most; a group lists tags of which one will do");
            return Err(Error::invalid(
                "require_tags",
                format!("{groups} groups"),
                expected,
            ));
        }
        for (argument, pattern) in self.patterns() {
            check_pattern(argument, pattern)?;
        }
        for (argument, cap) in [
            ("max_cost", self.max_cost),
            ("max_latency", self.max_latency),
        ] {
            if let Some(cap) = cap
                && (cap.is_nan() || cap < 0.0)
            {
                let expected = "a number, 0 or more, or None";
                return Err(Error::invalid(argument, cap.to_string(), expected));
            }
        }
        Ok(())
    }

    /// The same for equal terms.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            &self.allow,
            &self.deny,
            &self.require_tags,
            &self.forbid_tags,
        )
            .hash(&mut hasher);
        // Caps are not NaN; 0 and -0 are equal.
        let bits = |cap: Option<f64>| cap.map(|cap| (cap + 0.0).to_bits());
        (bits(self.max_cost), bits(self.max_latency)).hash(&mut hasher);
        (self.fit_context, self.answer_tokens).hash(&mut hasher);
        hasher.finish()
    }

    /// Bytes that they take in memory.
    fn size(&self) -> usize {
        let groups = self.require_tags.len() * size_of::<Vec<String>>();
        let bytes = self.patterns().map(|(_, p)| p.len() + size_of::<String>());
        size_of::<Self>() + groups + bytes.sum::<usize>()
    }
}

/// Whether a pattern is a glob; any other one stands for itself.
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{', '\\'])
}

/// Fails on a pattern that is empty, or a glob that cannot be used.
fn check_pattern(argument: &'static str, pattern: &str) -> Result<()> {
    if pattern.is_empty() {
        let expected = "non-empty names, tags or globs";
        return Err(Error::invalid(argument, "an empty pattern", expected));
    }
    if !is_glob(pattern) {
        return Ok(());
    }
    let braces = pattern.bytes().filter(|&b| b == b'{').count();
    if pattern.len() > MOST_GLOB_BYTES || braces > MOST_BRACES {
        let problem = format!(
            "a glob of {} bytes that opens {braces} braces",
            pattern.len()
        );
        let expected = format!("{MOST_GLOB_BYTES} bytes and {MOST_BRACES} braces at most");
        return Err(Error::invalid(argument, problem, expected));
    }
    Glob::new(pattern).map(drop).map_err(|e| {
        let expected = "a glob such as \"openai/*\"; \"[[]\" stands for a bracket";
        Error::invalid(argument, format!("{pattern:?} ({})", e.kind()), expected)
    })
}

/// Names or tags, and globs over them, ready to be looked up.
struct Matcher<'t> {
    literals: HashSet<&'t str>,
    /// All of them at once: a name is looked through once, however many there are.
    globs: GlobSet,
}

impl<'t> Matcher<'t> {
    /// Of patterns that were checked.
    fn new(patterns: &'t [String]) -> Self {
        let (globs, literals): (Vec<&str>, Vec<&str>) =
            patterns.iter().map(|p| &**p).partition(|p| is_glob(p));
        let mut set = GlobSetBuilder::new();
        for glob in globs.into_iter().filter_map(|glob| Glob::new(glob).ok()) {
            set.add(glob);
        }
        Self {
            literals: literals.into_iter().collect(),
            // Each was compiled once when it was checked.
            globs: set.build().unwrap_or_default(),
        }
    }

    fn matches(&self, text: &str) -> bool {
        self.literals.contains(text) || self.globs.is_match(text)
    }

    /// The models whose names match. O(literals + models).
    fn named(&self, pool: &Pool) -> Mask {
        let mut mask = if self.globs.is_empty() {
            Mask::none(pool.len())
        } else {
            Mask::of(pool.len(), |m| self.globs.is_match(&pool.names()[m]))
        };
        for model in self.literals.iter().filter_map(|name| pool.position(name)) {
            mask.set(model as usize, true);
        }
        mask
    }

    /// The models that have a tag which matches. O(literals + tags x globs).
    fn tagged(&self, pool: &Pool) -> Mask {
        let (mut mask, directory) = (Mask::none(pool.len()), pool.directory());
        for models in self.literals.iter().filter_map(|tag| directory.tagged(tag)) {
            mask.add(models);
        }
        if !self.globs.is_empty() {
            for (_, models) in directory.tags().filter(|(tag, _)| self.matches(tag)) {
                mask.add(models);
            }
        }
        mask
    }
}

/// One thing that a model must meet.
#[derive(Clone, Copy)]
enum Rule<'t> {
    Enabled,
    Allow(&'t [String]),
    Deny(&'t [String]),
    Require(&'t [String]),
    Forbid(&'t [String]),
    MaxCost(f64),
    MaxLatency(f64),
    FitContext(u64),
}

impl<'t> Rule<'t> {
    /// The argument that the rule comes from.
    fn argument(&self) -> &'static str {
        match self {
            Self::Enabled => "disabled",
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
            Self::Require(_) => "require_tags",
            Self::Forbid(_) => "forbid_tags",
            Self::MaxCost(_) => "max_cost",
            Self::MaxLatency(_) => "max_latency",
            Self::FitContext(_) => "fit_context",
        }
    }

    /// What it looks names or tags up in.
    fn matcher(&self) -> Matcher<'t> {
        Matcher::new(match self {
            Self::Allow(all) | Self::Deny(all) | Self::Require(all) | Self::Forbid(all) => all,
            _ => &[],
        })
    }

    /// The models of a pool that the rule lets through, at these costs. `matcher` is its own.
    fn mask(&self, matcher: &Matcher<'_>, pool: &Pool, costs: &[f64]) -> Mask {
        let metadata = pool.directory().models();
        match self {
            Self::Enabled => pool.enabled().clone(),
            Self::Allow(_) => matcher.named(pool),
            Self::Deny(_) => matcher.named(pool).complement(),
            Self::Require(_) => matcher.tagged(pool),
            Self::Forbid(_) => matcher.tagged(pool).complement(),
            Self::MaxCost(cap) => Mask::of(pool.len(), |m| costs[m] <= *cap),
            Self::MaxLatency(cap) => Mask::of(pool.len(), |m| {
                metadata[m].latency.is_some_and(|l| l <= *cap)
            }),
            Self::FitContext(needed) => Mask::of(pool.len(), |m| {
                metadata[m].context_length.is_some_and(|l| l >= *needed)
            }),
        }
    }

    /// Why the rule stopped a model of that cost, in words. `matcher` is its own.
    fn reason(&self, matcher: &Matcher<'_>, pool: &Pool, model: usize, cost: f64) -> String {
        let metadata = &pool.directory().models()[model];
        match self {
            Self::Enabled => "disabled".into(),
            Self::Allow(_) => "allow: its name matches none of the allowed".into(),
            Self::Deny(_) => "deny: its name is denied".into(),
            Self::Require(tags) => {
                format!("require_tags: has no tag {}", listed(tags.iter(), " or "))
            }
            Self::Forbid(_) => {
                let found = metadata.tags.iter().filter(|tag| matcher.matches(tag));
                format!("forbid_tags: has {}", listed(found, ", "))
            }
            Self::MaxCost(cap) => format!("max_cost: costs {cost}, above {cap}"),
            Self::MaxLatency(cap) => match metadata.latency {
                Some(latency) => format!("max_latency: takes {latency} s, above {cap} s"),
                None => "max_latency: its latency is not known".into(),
            },
            Self::FitContext(needed) => match metadata.context_length {
                Some(length) => format!("fit_context: takes {length} tokens, needs {needed}"),
                None => "fit_context: its context length is not known".into(),
            },
        }
    }
}

/// The first few tags, and how many more there are.
fn listed<'t>(tags: impl Iterator<Item = &'t String>, separator: &str) -> String {
    let all: Vec<&str> = tags.map(|tag| &**tag).collect();
    let shown = all.len().min(LISTED);
    let text = all[..shown].join(separator);
    match all.len() - shown {
        0 => text,
        more => format!("{text}{separator}{more} more"),
    }
}

/// What requests ask, ready to be applied to any snapshot. Immutable.
#[derive(Debug, Default)]
pub struct Constraints {
    terms: Terms,
    hash: u64,
}

impl Constraints {
    /// Checks the terms.
    pub fn new(terms: Terms) -> Result<Self> {
        terms.check()?;
        Ok(Self {
            hash: terms.digest(),
            terms,
        })
    }

    /// What meets both; fails where both list what is allowed, or if it comes to too much.
    pub fn and(&self, other: &Self) -> Result<Self> {
        self.terms.and(&other.terms).and_then(Self::new)
    }

    /// What the caller wrote.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The same for equal terms.
    pub fn digest(&self) -> u64 {
        self.hash
    }

    /// Which models of a pool they let through. O(rules x models + models x globs).
    pub(super) fn compile(self: &Arc<Self>, pool: &Pool, all: &Arc<AtomicUsize>) -> Compiled {
        let mut mask = Mask::all(pool.len());
        for rule in self.terms.rules(None) {
            match rule {
                // Where costs depend on the prompt, so do the models below the cap.
                Rule::MaxCost(_) if pool.metering().is_some() => {}
                rule => mask.and(&rule.mask(&rule.matcher(), pool, pool.costs())),
            }
        }
        let mut lengths: Vec<u64> = Vec::new();
        if self.terms.fit_context {
            let known = pool.directory().models().iter();
            lengths.extend(known.filter_map(|metadata| metadata.context_length));
            lengths.sort_unstable();
            lengths.dedup();
        }
        let held = Arc::new(Held::new(all));
        let by_length: Vec<_> = lengths.into_iter().map(|l| (l, OnceLock::new())).collect();
        held.add(self.terms.size() + size_of_val(&*by_length));
        let none = Mask::none(pool.len());
        Compiled {
            constraints: Arc::clone(self),
            all: Allowed::new(mask, pool.clusters(), &held),
            by_length,
            nobody: Allowed::new(none, pool.clusters(), &held),
            held,
        }
    }
}

/// Memory that something takes, counted into what all of its kind take until it goes.
#[derive(Debug)]
struct Held {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Held {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        Self {
            own: AtomicUsize::new(0),
            all: Arc::clone(all),
        }
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

/// Constraints as one snapshot's models meet them.
#[derive(Debug)]
pub struct Compiled {
    constraints: Arc<Constraints>,
    /// All rules together, the context apart.
    all: Allowed,
    /// Each context length there is, ascending, with the models of at least that length; only
    /// where the prompt must fit.
    by_length: Vec<(u64, OnceLock<Allowed>)>,
    nobody: Allowed,
    held: Arc<Held>,
}

impl Compiled {
    /// Whether it was made of these constraints, or of equal ones.
    pub(super) fn is_of(&self, constraints: &Arc<Constraints>) -> bool {
        Arc::ptr_eq(&self.constraints, constraints)
            || (self.constraints.hash == constraints.hash
                && self.constraints.terms == constraints.terms)
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.held.own.load(Ordering::Relaxed)
    }

    /// What no constraints come to: only disabled models may not answer. O(models).
    pub fn none(pool: &Pool) -> Self {
        Arc::<Constraints>::default().compile(pool, &Arc::default())
    }

    /// The models that may answer a prompt of so many tokens.
    ///
    /// Fails if the prompt must fit the context, and its length is not known.
    pub fn allowed(&self, pool: &Pool, tokens: Option<u64>) -> Result<&Allowed> {
        let Some(needed) = self.needed(tokens)? else {
            return Ok(&self.all);
        };
        let at = self
            .by_length
            .partition_point(|(length, _)| *length < needed);
        let Some((length, mask)) = self.by_length.get(at) else {
            return Ok(&self.nobody);
        };
        Ok(fork::once(mask, || {
            let fits = Rule::FitContext(*length);
            let mut mask = fits.mask(&fits.matcher(), pool, pool.costs());
            mask.and(&self.all.mask);
            Allowed::new(mask, pool.clusters(), &self.held)
        }))
    }

    /// What a model may cost at most; infinity where there is no cap.
    pub fn max_cost(&self) -> f64 {
        self.constraints.terms.max_cost.unwrap_or(f64::INFINITY)
    }

    /// The first `limit` models that may not answer a prompt of so many tokens on which the models
    /// have these costs, each with all of its reasons; and how many there are. O(rules x models +
    /// models x globs), and what is listed.
    pub fn excluded(
        &self,
        pool: &Pool,
        tokens: Option<u64>,
        costs: &[f64],
        limit: usize,
    ) -> Result<(Vec<Exclusion>, usize)> {
        let (allowed, cap) = (self.allowed(pool, tokens)?, self.max_cost());
        let mut stopped = (0..pool.len()).filter(|&m| !allowed.mask.contains(m) || costs[m] > cap);
        let listed = stopped.by_ref().take(limit).map(|m| Exclusion {
            model: m as u32,
            reasons: Vec::new(),
        });
        let mut listed: Vec<Exclusion> = listed.collect();
        let count = listed.len() + stopped.count();
        for rule in self.constraints.terms.rules(self.needed(tokens)?) {
            let matcher = rule.matcher();
            let mask = rule.mask(&matcher, pool, costs);
            for exclusion in &mut listed {
                let model = exclusion.model as usize;
                if !mask.contains(model) {
                    let reason = rule.reason(&matcher, pool, model, costs[model]);
                    exclusion.reasons.push(reason);
                }
            }
        }
        Ok((listed, count))
    }

    /// Why nobody may answer a prompt on which the models have these costs: how many models each
    /// rule stops.
    pub fn nobody(&self, pool: &Pool, tokens: Option<u64>, costs: &[f64]) -> Error {
        let needed = match self.needed(tokens) {
            Ok(needed) => needed,
            Err(error) => return error,
        };
        // What one argument asks counts together, however many rules it comes to.
        let mut through: Vec<(&str, Mask)> = Vec::new();
        for rule in self.constraints.terms.rules(needed) {
            let mask = rule.mask(&rule.matcher(), pool, costs);
            match through.last_mut() {
                Some((argument, all)) if *argument == rule.argument() => all.and(&mask),
                _ => through.push((rule.argument(), mask)),
            }
        }
        let stopped = through
            .iter()
            .map(|(a, mask)| (a, pool.len() - mask.count()));
        let counts = stopped.filter(|(_, count)| *count > 0);
        let counts: Vec<_> = counts.map(|(rule, n)| format!("{rule} {n}")).collect();
        Error::NoCandidate {
            models: pool.len(),
            stopped: counts.join(", "),
        }
    }

    /// Tokens of prompt and answer together, where they must fit.
    fn needed(&self, tokens: Option<u64>) -> Result<Option<u64>> {
        if !self.constraints.terms.fit_context {
            return Ok(None);
        }
        let tokens = tokens.ok_or_else(|| {
            let expected = "the prompt's length in tokens, which embeddings do not tell";
            Error::invalid("tokens", "not given, though fit_context is set", expected)
        })?;
        Ok(Some(
            tokens.saturating_add(self.constraints.terms.answer_tokens),
        ))
    }
}

/// The models of a pool that may answer, and how to find the best of them again.
#[derive(Debug)]
pub struct Allowed {
    mask: Mask,
    /// One a cluster.
    hulls: Vec<RareHull>,
    held: Arc<Held>,
}

impl Allowed {
    fn new(mask: Mask, clusters: usize, held: &Arc<Held>) -> Self {
        let hulls: Vec<_> = (0..clusters).map(|_| RareHull::default()).collect();
        held.add(mask.len() / 8 + size_of_val(&*hulls));
        Self {
            mask,
            hulls,
            held: Arc::clone(held),
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
        let hull = self.hulls[cluster].get(|| {
            let hull = pool.build_hull(cluster, &self.mask);
            self.held.add(hull.size());
            hull
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_meets_both_asks_for_more_and_never_for_less() {
        let one = Terms {
            deny: names(&["a"]),
            require_tags: vec![names(&["eu"])],
            max_cost: Some(1.0),
            answer_tokens: 10,
            ..Terms::default()
        };
        let other = Terms {
            allow: Some(names(&["x"])),
            deny: names(&["b"]),
            require_tags: vec![names(&["p", "q"])],
            max_cost: Some(2.0),
            max_latency: Some(3.0),
            fit_context: true,
            answer_tokens: 5,
            ..Terms::default()
        };
        let both = one.and(&other).unwrap();
        let expected = Terms {
            deny: names(&["a", "b"]),
            require_tags: vec![names(&["eu"]), names(&["p", "q"])],
            max_cost: Some(1.0),
            answer_tokens: 10,
            ..other.clone()
        };
        assert_eq!(both, expected);
        let error = both.and(&other).unwrap_err().to_string();
        assert!(error.starts_with("allow: in both"), "{error}");
        // A cap that is none does not vanish.
        let nan = Terms {
            max_cost: Some(f64::NAN),
            ..Terms::default()
        };
        assert!(one.and(&nan).unwrap().check().is_err());
    }
}
