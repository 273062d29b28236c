//! What `POST /v1/route` and `POST /v1/chat/completions` are asked, read from JSON.
//!
//! Strings without escapes are borrowed from the request's body. Unknown fields are refused, except
//! beside `messages`: a chat body carries fields that are the upstream's business.

use std::borrow::Cow;
use std::fmt;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use uniroute_core::constraints::Terms;
use uniroute_core::router::PerRow;

use crate::chat_text::{Message, chat_text};
use crate::http;
use crate::refusal::Refusal;

/// What a chat body's `model` starts with when it asks to be routed.
pub const ROUTED: &str = "uniroute";

/// Models ranked at most.
pub const MOST_RANKED: usize = 100;

/// Names, tags and globs in the constraints of a request at most, and their bytes together: compiled
/// constraints are kept for a while.
const MOST_PATTERNS: usize = 10_000;
const MOST_PATTERN_BYTES: usize = 256 << 10;

/// Globs among them at most, and bytes in each: a glob takes some 30 us to compile.
const MOST_GLOBS: usize = 32;
const MOST_GLOB_BYTES: usize = 256;

/// A string that is borrowed where the JSON has no escapes in it, also within lists.
#[derive(Clone, Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Either)
    }
}

/// The prompts of a request.
#[derive(Debug)]
pub enum Prompts<'a> {
    /// One text, of `text` or of a chat's messages.
    Text(Cow<'a, str>),
    /// `texts`; null where there is none.
    Texts(Vec<Option<Text<'a>>>),
    /// `embedding`
    Embedding(Vec<f32>),
    /// `embeddings`
    Embeddings(Vec<Vec<f32>>),
}

impl Prompts<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Embedding(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::Embeddings(rows) => rows.len(),
        }
    }
}

/// A value for all prompts, or one for each.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a value of its type, or a list of them")]
pub enum PerPrompt<T> {
    /// The same for all.
    Same(T),
    /// One for each.
    Each(Vec<T>),
}

impl<T> PerPrompt<T> {
    /// The values there are.
    pub fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    /// The value of one prompt.
    pub fn at(&self, prompt: usize) -> &T {
        match self {
            Self::Same(value) => value,
            Self::Each(values) => &values[prompt],
        }
    }

    /// The same as the core takes it.
    pub fn as_rows(&self) -> PerRow<'_, T>
    where
        T: Copy,
    {
        match self {
            Self::Same(value) => PerRow::Same(*value),
            Self::Each(all) => PerRow::Each(all),
        }
    }

    fn is_each(&self) -> bool {
        matches!(self, Self::Each(_))
    }
}

/// Constraints as JSON and TOML say them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
    require_tags: Vec<Group>,
    forbid_tags: Vec<String>,
    max_cost: Option<f64>,
    max_latency: Option<f64>,
    fit_context: bool,
    answer_tokens: u64,
}

/// A tag, or several of which one is enough.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a tag, or a list of tags")]
enum Group {
    One(String),
    Any(Vec<String>),
}

impl Conditions {
    /// Every name, tag and glob.
    fn patterns(&self) -> impl Iterator<Item = &str> {
        let groups = self.require_tags.iter().flat_map(|group| match group {
            Group::One(tag) => std::slice::from_ref(tag),
            Group::Any(tags) => tags,
        });
        let lists = self.allow.iter().flatten().chain(&self.deny);
        lists
            .chain(&self.forbid_tags)
            .chain(groups)
            .map(|pattern| &**pattern)
    }

    /// Fails if they ask for more work than a request may.
    fn check<E: de::Error>(&self) -> Result<(), E> {
        let (mut count, mut bytes, mut globs) = (0, 0, 0);
        for pattern in self.patterns() {
            count += 1;
            bytes += pattern.len();
            if pattern.contains(['*', '?', '[', '{', '\\']) {
                globs += 1;
                if pattern.len() > MOST_GLOB_BYTES {
                    return Err(E::custom(format_args!(
                        "constraints: a glob of {} bytes; expected {MOST_GLOB_BYTES} at most",
                        pattern.len()
                    )));
                }
            }
        }
        // A list of many empty groups is as long.
        count = count.max(self.require_tags.len());
        if count > MOST_PATTERNS || bytes > MOST_PATTERN_BYTES || globs > MOST_GLOBS {
            return Err(E::custom(format_args!(
                "constraints: {count} names and tags of {bytes} bytes, {globs} of them globs; \
                 expected {MOST_PATTERNS} at most, of {MOST_PATTERN_BYTES}, {MOST_GLOBS} of them \
                 globs"
            )));
        }
        Ok(())
    }
}

impl From<Conditions> for Terms {
    fn from(conditions: Conditions) -> Self {
        let groups = conditions.require_tags.into_iter();
        Self {
            allow: conditions.allow,
            deny: conditions.deny,
            require_tags: groups
                .map(|group| match group {
                    Group::One(tag) => vec![tag],
                    Group::Any(tags) => tags,
                })
                .collect(),
            forbid_tags: conditions.forbid_tags,
            max_cost: conditions.max_cost,
            max_latency: conditions.max_latency,
            fit_context: conditions.fit_context,
            answer_tokens: conditions.answer_tokens,
        }
    }
}

/// A request to route.
#[derive(Debug)]
pub struct Question<'a> {
    /// What to route.
    pub prompts: Prompts<'a>,
    /// Whether the prompt came as a chat's messages.
    pub is_chat: bool,
    /// Name of a policy, from `policy` or from a chat's `"model": "uniroute:POLICY"`.
    pub policy: Option<Cow<'a, str>>,
    /// A chat's `model`, where it is not [`ROUTED`]: a model that the caller chose.
    pub chosen: Option<Cow<'a, str>>,
    /// See `Router.route`.
    pub cost_weight: Option<PerPrompt<f64>>,
    /// See `Router.route`.
    pub current_model: Option<PerPrompt<Option<String>>>,
    /// See `Router.route`.
    pub switch_cost: Option<PerPrompt<f64>>,
    /// See `Router.route`.
    pub cached_tokens: Option<PerPrompt<u64>>,
    /// See `Router.route`.
    pub constraints: Option<Conditions>,
    /// See `Router.route`.
    pub tokens: Option<PerPrompt<u64>>,
    /// See `Router.route`.
    pub fallback: Option<Cow<'a, str>>,
    /// How many models to rank.
    pub top: Option<usize>,
    /// Whether to tell the clusters, the exclusions and where the choice flips.
    pub explain: bool,
}

impl<'a> Question<'a> {
    /// A request's body, which has to be UTF-8 also where nobody reads it.
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let message = format!("body: {error}; expected JSON in UTF-8");
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message)
        })?;
        serde_json::from_str(text).map_err(|error| http::why_not::<Self>(body, error))
    }
}

/// The fields, each once at most.
#[derive(Default)]
struct Fields<'a> {
    text: Option<Text<'a>>,
    texts: Option<Vec<Option<Text<'a>>>>,
    messages: Option<Vec<Message<'a>>>,
    embedding: Option<Vec<f32>>,
    embeddings: Option<Vec<Vec<f32>>>,
    model: Option<Text<'a>>,
    policy: Option<Text<'a>>,
    cost_weight: Option<PerPrompt<f64>>,
    current_model: Option<PerPrompt<Option<String>>>,
    switch_cost: Option<PerPrompt<f64>>,
    cached_tokens: Option<PerPrompt<u64>>,
    constraints: Option<Conditions>,
    tokens: Option<PerPrompt<u64>>,
    fallback: Option<Text<'a>>,
    top: Option<usize>,
    explain: Option<bool>,
    unknown: Option<String>,
}

impl<'a> Fields<'a> {
    fn finish<E: de::Error>(self) -> Result<Question<'a>, E> {
        let chat = self.messages.is_some();
        let found = [
            self.text.map(|text| Prompts::Text(text.0)),
            self.texts.map(Prompts::Texts),
            self.messages.map(|m| Prompts::Text(chat_text(m))),
            self.embedding.map(Prompts::Embedding),
            self.embeddings.map(Prompts::Embeddings),
        ];
        let mut found = found.into_iter().flatten();
        let (Some(prompts), None) = (found.next(), found.next()) else {
            return Err(E::custom(
                "expected exactly one of text, texts, messages, embedding and embeddings",
            ));
        };
        if let (false, Some(name)) = (chat, &self.unknown) {
            return Err(E::custom(format_args!("unknown field {name:?}")));
        }
        let many = matches!(prompts, Prompts::Texts(_) | Prompts::Embeddings(_));
        if many && self.explain == Some(true) {
            return Err(E::custom("explain: given with many prompts; expected one"));
        }
        for (name, is_each) in [
            (
                "cost_weight",
                self.cost_weight.as_ref().map(PerPrompt::is_each),
            ),
            (
                "current_model",
                self.current_model.as_ref().map(PerPrompt::is_each),
            ),
            (
                "switch_cost",
                self.switch_cost.as_ref().map(PerPrompt::is_each),
            ),
            (
                "cached_tokens",
                self.cached_tokens.as_ref().map(PerPrompt::is_each),
            ),
            ("tokens", self.tokens.as_ref().map(PerPrompt::is_each)),
        ] {
            if !many && is_each == Some(true) {
                return Err(E::custom(format_args!(
                    "{name}: a list beside one prompt; expected one value"
                )));
            }
        }
        if self.top.is_some_and(|top| top > MOST_RANKED) {
            return Err(E::custom(format_args!("top: expected 0 to {MOST_RANKED}")));
        }
        if let Some(constraints) = &self.constraints {
            constraints.check()?;
        }
        let mut policy = self.policy.map(|policy| policy.0);
        let mut chosen = None;
        match self.model {
            Some(model) if chat => match policy_of(&model.0) {
                Some("") => {}
                Some(_) if policy.is_some() => {
                    return Err(E::custom("policy: given beside \"model\", which names one"));
                }
                Some(name) => policy = Some(Cow::Owned(name.to_owned())),
                None => chosen = Some(model.0),
            },
            Some(_) => return Err(E::custom("model: expected beside messages only")),
            None => {}
        }
        Ok(Question {
            prompts,
            is_chat: chat,
            policy,
            chosen,
            cost_weight: self.cost_weight,
            current_model: self.current_model,
            switch_cost: self.switch_cost,
            cached_tokens: self.cached_tokens,
            constraints: self.constraints,
            tokens: self.tokens,
            fallback: self.fallback.map(|fallback| fallback.0),
            top: self.top,
            explain: self.explain.unwrap_or(false),
        })
    }
}

/// The policy that a chat's `model` names: empty for none, `None` where it is no routed one.
fn policy_of(model: &str) -> Option<&str> {
    match model.strip_prefix(ROUTED)? {
        "" => Some(""),
        rest => rest.strip_prefix(':'),
    }
}

/// Fields of ours, which an upstream would not know.
pub const OWN_FIELDS: [&str; 10] = [
    "policy",
    "cost_weight",
    "current_model",
    "switch_cost",
    "cached_tokens",
    "constraints",
    "tokens",
    "fallback",
    "top",
    "explain",
];

impl<'de> Deserialize<'de> for Question<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Body;
        impl<'de> Visitor<'de> for Body {
            type Value = Question<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Text(name)) = map.next_key()? {
                    let map = &mut map;
                    match &*name {
                        "text" => once(&mut fields.text, "text", map)?,
                        "texts" => once(&mut fields.texts, "texts", map)?,
                        "messages" => once(&mut fields.messages, "messages", map)?,
                        "embedding" => once(&mut fields.embedding, "embedding", map)?,
                        "embeddings" => once(&mut fields.embeddings, "embeddings", map)?,
                        "model" => once(&mut fields.model, "model", map)?,
                        "policy" => optional(&mut fields.policy, "policy", map)?,
                        "cost_weight" => optional(&mut fields.cost_weight, "cost_weight", map)?,
                        "current_model" => {
                            optional(&mut fields.current_model, "current_model", map)?;
                        }
                        "switch_cost" => optional(&mut fields.switch_cost, "switch_cost", map)?,
                        "cached_tokens" => {
                            optional(&mut fields.cached_tokens, "cached_tokens", map)?;
                        }
                        "constraints" => optional(&mut fields.constraints, "constraints", map)?,
                        "tokens" => optional(&mut fields.tokens, "tokens", map)?,
                        "fallback" => optional(&mut fields.fallback, "fallback", map)?,
                        "top" => optional(&mut fields.top, "top", map)?,
                        "explain" => optional(&mut fields.explain, "explain", map)?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            fields.unknown.get_or_insert_with(|| name.into_owned());
                        }
                    }
                }
                fields.finish()
            }
        }
        deserializer.deserialize_map(Body)
    }
}

/// Reads a field that has to have a value, and may come once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(de::Error::duplicate_field(name));
    }
    *slot = Some(map.next_value()?);
    Ok(())
}

/// As [`once`], of a field for which null says as much as leaving it out.
fn optional<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    let mut given: Option<Option<T>> = slot.take().map(Some);
    once(&mut given, name, map)?;
    *slot = given.flatten();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(json: &str) -> Result<Question<'_>, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn strings_without_escapes_are_borrowed() {
        let question = ask(r#"{"texts": ["plain", "with\nescape", null]}"#).unwrap();
        let Prompts::Texts(texts) = question.prompts else {
            panic!("texts were given");
        };
        assert!(matches!(texts[0], Some(Text(Cow::Borrowed("plain")))));
        assert!(matches!(&texts[1], Some(Text(Cow::Owned(t))) if t == "with\nescape"));
        assert!(texts[2].is_none());
    }

    #[test]
    fn a_chat_names_its_policy_or_its_model() {
        let of = |model: &str| {
            let json = format!(
                r#"{{"model": "{model}", "temperature": 0.5,
                    "messages": [{{"role": "user", "content": "hi"}}]}}"#
            );
            let question = ask(&json).unwrap();
            let owned = |name: Option<Cow<'_, str>>| name.map(Cow::into_owned);
            (owned(question.policy), owned(question.chosen))
        };
        assert_eq!(of("uniroute"), (None, None));
        assert_eq!(of("uniroute:cheap"), (Some("cheap".into()), None));
        assert_eq!(of("uniroute-x"), (None, Some("uniroute-x".into())));
        assert_eq!(of("gpt"), (None, Some("gpt".into())));
    }

    #[test]
    fn constraints_may_not_ask_for_much_work() {
        let with = |field: &str, pattern: &str, times: usize| {
            let list = vec![format!("{pattern:?}"); times].join(",");
            ask(&format!(
                r#"{{"text": "a", "constraints": {{"{field}": [{list}]}}}}"#
            ))
            .map(drop)
        };
        for field in ["allow", "deny", "require_tags", "forbid_tags"] {
            assert!(with(field, "name", MOST_PATTERNS).is_ok());
            assert!(with(field, "name", MOST_PATTERNS + 1).is_err());
            assert!(with(field, &"n".repeat(1000), 263).is_err());
            assert!(with(field, "n*", MOST_GLOBS).is_ok());
            assert!(with(field, "n*", MOST_GLOBS + 1).is_err());
            assert!(with(field, &"n*".repeat(129), 1).is_err());
        }
        let groups = vec!["[]"; MOST_PATTERNS + 1].join(",");
        let json = format!(r#"{{"text": "a", "constraints": {{"require_tags": [{groups}]}}}}"#);
        assert!(ask(&json).is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for json in [
            "{}",
            "[]",
            r#"{"text": "a", "texts": ["b"]}"#,
            r#"{"text": null}"#,
            r#"{"text": "a", "text": "b"}"#,
            r#"{"text": "a", "cost_wieght": 1}"#,
            r#"{"text": "a", "cost_weight": [1]}"#,
            r#"{"text": "a", "cost_weight": "1"}"#,
            r#"{"text": "a", "current_model": ["b"], "switch_cost": 1}"#,
            r#"{"text": "a", "current_model": 3, "switch_cost": 1}"#,
            r#"{"text": "a", "current_model": "b", "switch_cost": true}"#,
            r#"{"text": "a", "current_model": "b", "cached_tokens": -1}"#,
            r#"{"text": "a", "current_model": "b", "cached_tokens": 1.5}"#,
            r#"{"text": "a", "model": "uniroute"}"#,
            r#"{"text": "a", "top": 101}"#,
            r#"{"text": "a", "tokens": -1}"#,
            r#"{"texts": ["a"], "explain": true}"#,
            r#"{"text": "a", "constraints": {"max_costs": 1}}"#,
            r#"{"text": "\ud800"}"#,
        ] {
            assert!(ask(json).is_err(), "{json}");
        }
    }
}
