//! What `POST /v1/route` and `POST /v1/chat/completions` are asked, read from JSON.
//!
//! Strings without escapes are borrowed from the request's body. Unknown fields are refused, except
//! beside `messages`: a chat body carries fields that are the upstream's business.

use std::borrow::Cow;
use std::fmt;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use uniroute_core::request::constraints::{MOST_GROUPS, Terms, is_glob};
use uniroute_core::text::chat::ChatText;

use crate::api::described::Message;
use crate::api::observe::given;
use crate::http::lists::{self, AtMost, OfPrompts, OneOrList, PerPrompt};
use crate::http::read;
use crate::http::refusal::Refusal;

/// What a chat body's `model` starts with when it asks to be routed.
pub const ROUTED: &str = "uniroute";

/// Models ranked at most.
pub const MOST_RANKED: usize = 100;

/// Names, tags and globs in the constraints of a request at most, and their bytes together: compiled
/// constraints are kept for a while.
const MOST_PATTERNS: usize = 10_000;
const MOST_PATTERN_BYTES: usize = 256 << 10;

/// Globs among them at most: a glob takes some 30 us to compile.
const MOST_GLOBS: usize = 32;

/// Fields of a body at most: a chat's are some forty.
const MOST_FIELDS: usize = 256;

/// A string that is borrowed where the JSON has no escapes in it, also within lists.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

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

/// What the model must meet. With a policy, both its constraints and these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Constraints")]
pub struct Conditions {
    /// Names and globs of the models that may answer.
    allow: Option<Patterns>,
    /// Names and globs of models that may not.
    deny: Patterns,
    /// Each of these tags; of a list, one.
    require_tags: AtMost<MOST_GROUPS, OneOrList<MOST_PATTERNS, String>>,
    /// None of these tags.
    forbid_tags: Patterns,
    /// The highest cost of the prompt.
    max_cost: Option<f64>,
    /// The longest latency, in seconds.
    max_latency: Option<f64>,
    /// Whether prompt and answer have to fit the model's context.
    fit_context: bool,
    /// Tokens that the answer may take.
    answer_tokens: u64,
}

/// Names, tags and globs.
type Patterns = AtMost<MOST_PATTERNS, String>;

impl Conditions {
    /// Every name, tag and glob.
    fn patterns(&self) -> impl Iterator<Item = &String> {
        let lists = self.allow.iter().chain([&self.deny, &self.forbid_tags]);
        let groups = self.require_tags.0.iter().flat_map(OneOrList::values);
        lists.flat_map(|list| &list.0).chain(groups)
    }

    /// How many globs there are.
    pub fn globs(&self) -> usize {
        self.patterns().filter(|pattern| is_glob(pattern)).count()
    }

    /// Fails if they ask for more work than a request may.
    fn check<E: de::Error>(&self) -> Result<(), E> {
        let count = self.patterns().count();
        let bytes: usize = self.patterns().map(String::len).sum();
        let globs = self.globs();
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
        let groups = conditions.require_tags.0.into_iter();
        Self {
            allow: conditions.allow.map(|allow| allow.0),
            deny: conditions.deny.0,
            require_tags: groups.map(OneOrList::into_values).collect(),
            forbid_tags: conditions.forbid_tags.0,
            max_cost: conditions.max_cost,
            max_latency: conditions.max_latency,
            fit_context: conditions.fit_context,
            answer_tokens: conditions.answer_tokens,
        }
    }
}

/// The name of a model, or null.
#[derive(Debug, JsonSchema)]
#[schemars(inline)]
pub struct MaybeName(pub Option<String>);

impl<'de> Deserialize<'de> for MaybeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = MaybeName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a model, or null")
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(MaybeName(Some(name.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(MaybeName(None))
            }
        }
        deserializer.deserialize_any(Either)
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
    pub current_model: Option<PerPrompt<MaybeName>>,
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
    /// A request's body, which has to be UTF-8 also where nobody reads it, and holds `most` prompts
    /// at most.
    pub fn parse(body: &'a [u8], most: usize) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let message = format!("body: {error}; expected JSON in UTF-8");
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message)
        })?;
        lists::within(most, || {
            serde_json::from_str(text).map_err(|error| read::why_not::<Self>(body, error))
        })
    }
}

/// What to route: exactly one of text, texts, messages, embedding and embeddings; and how.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(
    rename = "Question",
    extend("oneOf" = [
        {"required": ["text"]}, {"required": ["texts"]}, {"required": ["messages"]},
        {"required": ["embedding"]}, {"required": ["embeddings"]}
    ])
)]
pub struct Fields<'a> {
    /// A prompt.
    #[serde(borrow, deserialize_with = "given")]
    #[schemars(with = "String")]
    text: Option<Text<'a>>,
    /// Many prompts; null where there is none.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Option<String>>")]
    texts: Option<OfPrompts<Option<Text<'a>>>>,
    /// Those of an `OpenAI` chat-completions body, whose other fields are the upstream's business:
    /// unknown fields are refused elsewhere.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Message>")]
    messages: Option<ChatText<'a>>,
    /// For a router whose embedder is elsewhere.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<f32>")]
    embedding: Option<Vec<f32>>,
    /// The same for many prompts.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "Vec<Vec<f32>>")]
    embeddings: Option<OfPrompts<Vec<f32>>>,
    /// Beside messages: "uniroute" or "uniroute:POLICY"; a chat with another goes to that model.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "String")]
    model: Option<Text<'a>>,
    /// A named cost weight, constraints, fallback and budget of the service's configuration.
    policy: Option<Text<'a>>,
    /// Loss that one unit of cost is worth; 0 asks for quality alone. With many prompts, one for
    /// all or one for each, as the next four.
    #[schemars(extend("minimum" = 0))]
    cost_weight: Option<PerPrompt<f64>>,
    /// The model that the conversation is with: left only where that pays. One that is not in the
    /// pool counts as none.
    current_model: Option<PerPrompt<MaybeName>>,
    /// What it costs to leave `current_model`, in the unit of the costs; beside it exactly one of
    /// this and `cached_tokens`.
    #[schemars(extend("minimum" = 0))]
    switch_cost: Option<PerPrompt<f64>>,
    /// Tokens of the prompt that `current_model` has in its cache: worth what its prices make of
    /// them.
    cached_tokens: Option<PerPrompt<u64>>,
    /// What the model must meet, besides the policy's constraints.
    constraints: Option<Conditions>,
    /// Length of the prompt in tokens; estimated from its text where not given.
    tokens: Option<PerPrompt<u64>>,
    /// The model that answers where none meets the constraints.
    fallback: Option<Text<'a>>,
    /// How many models to rank.
    #[schemars(range(min = 0, max = MOST_RANKED))]
    top: Option<usize>,
    /// Whether to tell the clusters, the exclusions and where the choice flips; for one prompt.
    explain: Option<bool>,
}

impl<'a> Fields<'a> {
    fn finish<E: de::Error>(self, unknown: Option<Text<'_>>) -> Result<Question<'a>, E> {
        let chat = self.messages.is_some();
        let found = [
            self.text.map(|text| Prompts::Text(text.0)),
            self.texts.map(|texts| Prompts::Texts(texts.0)),
            self.messages.map(|chat| Prompts::Text(chat.0)),
            self.embedding.map(Prompts::Embedding),
            self.embeddings.map(|rows| Prompts::Embeddings(rows.0)),
        ];
        let mut found = found.into_iter().flatten();
        let (Some(prompts), None) = (found.next(), found.next()) else {
            return Err(E::custom(
                "expected exactly one of text, texts, messages, embedding and embeddings",
            ));
        };
        if let (false, Some(Text(name))) = (chat, unknown) {
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
        if let Some(top) = self.top.filter(|top| *top > MOST_RANKED) {
            let expected = format_args!("top: {top}; expected 0 to {MOST_RANKED}");
            return Err(E::custom(expected));
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

/// The others that are known.
const PROMPT_FIELDS: [&str; 6] = [
    "text",
    "texts",
    "messages",
    "embedding",
    "embeddings",
    "model",
];

impl<'de> Deserialize<'de> for Question<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Body;
        impl<'de> Visitor<'de> for Body {
            type Value = Question<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut map = Counted {
                    map,
                    count: 0,
                    unknown: None,
                };
                let fields = Fields::deserialize(MapAccessDeserializer::new(&mut map))?;
                fields.finish(map.unknown)
            }
        }
        deserializer.deserialize_map(Body)
    }
}

/// The fields of a body as they come, [`MOST_FIELDS`] at most.
struct Counted<'de, A> {
    map: A,
    count: usize,
    /// The first that is not known: whether that is a mistake is clear only at the end.
    unknown: Option<Text<'de>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Counted<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.map.next_key::<Text<'de>>()? else {
            return Ok(None);
        };
        self.count += 1;
        if self.count > MOST_FIELDS {
            return Err(de::Error::custom(format_args!(
                "more than {MOST_FIELDS} fields; expected {MOST_FIELDS} at most"
            )));
        }
        let key = seed.deserialize((&*name.0).into_deserializer())?;
        if !OWN_FIELDS
            .iter()
            .chain(&PROMPT_FIELDS)
            .any(|own| *own == name.0)
        {
            self.unknown.get_or_insert(name);
        }
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
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
    fn every_field_is_known() {
        let schema = schemars::schema_for!(Fields<'_>);
        let fields = schema.get("properties").unwrap().as_object().unwrap();
        let mut known = [&OWN_FIELDS[..], &PROMPT_FIELDS].concat();
        known.sort_unstable();
        assert_eq!(fields.keys().collect::<Vec<_>>(), known);
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
            let most = if field == "require_tags" {
                MOST_GROUPS
            } else {
                MOST_PATTERNS
            };
            assert!(with(field, "name", most).is_ok());
            assert!(with(field, "name", most + 1).is_err());
            assert!(with(field, &"n".repeat(100_000), 3).is_err());
            assert!(with(field, "n*", MOST_GLOBS).is_ok());
            assert!(with(field, "n*", MOST_GLOBS + 1).is_err());
        }
        let group = |times: usize| {
            let tags = vec![r#""t""#; times].join(",");
            ask(&format!(
                r#"{{"text": "a", "constraints": {{"require_tags": [[{tags}]]}}}}"#
            ))
            .map(drop)
        };
        assert!(group(MOST_PATTERNS).is_ok());
        assert!(group(MOST_PATTERNS + 1).is_err());
    }

    #[test]
    fn what_is_read_ends_with_the_prompts_that_a_request_may_have() {
        let zeros = vec!["0"; 100_000].join(",");
        for body in [
            format!(r#"{{"texts": ["a"], "tokens": [{zeros}]}}"#),
            format!(r#"{{"texts": ["a"], "cost_weight": [{zeros}]}}"#),
            format!(r#"{{"texts": [{}]}}"#, zeros.replace('0', r#""""#)),
            format!(r#"{{"embeddings": [{}]}}"#, zeros.replace('0', "[]")),
        ] {
            let refusal = Question::parse(body.as_bytes(), 1024).unwrap_err();
            assert!(
                refusal.message.contains("expected 1024 at most"),
                "{}",
                refusal.message
            );
            let param = refusal.param.unwrap();
            let key = |field: &&str| param.starts_with(*field);
            assert!(OWN_FIELDS.iter().chain(&PROMPT_FIELDS).any(key), "{param}");
        }
        let fields: Vec<_> = (0..MOST_FIELDS).map(|i| format!(r#""f{i}":0"#)).collect();
        let body = format!(r#"{{"messages": [], {}}}"#, fields.join(","));
        assert!(Question::parse(body.as_bytes(), 1024).is_err());
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
