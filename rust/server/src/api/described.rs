//! Types that only the description of the service has: what is read or written by hand, field by
//! field. Tests hold them against what the service answers.

#![expect(dead_code, reason = "nothing is made of them but their schemas")]

use schemars::JsonSchema;

/// A message of a chat; other fields are allowed.
#[derive(JsonSchema)]
pub struct Message {
    /// Prompts are what the user wrote.
    role: String,
    content: Option<Content>,
}

/// A text, or parts of which those with a text count.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A text, or an object.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
enum Part {
    Text(String),
    Object { r#type: String, text: String },
}

/// The decision on one prompt, or one for each of many.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
pub enum Answer {
    One(Box<Decided>),
    Many(Decisions),
}

/// The decision on one prompt.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Decided {
    /// Of the snapshot that decided.
    version: u64,
    cost_weight: f64,
    tokens: Option<u64>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    explanation: Option<crate::api::explain::Explanation<'static>>,
    #[schemars(flatten)]
    decision: Decision,
}

/// Decisions on many prompts.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Decisions {
    /// Of the snapshot that decided.
    version: u64,
    decisions: Vec<Decision>,
}

/// The decision on a prompt.
#[derive(JsonSchema)]
pub struct Decision {
    status: Status,
    model: Option<String>,
    predicted_loss: Option<f32>,
    cost: Option<f64>,
    /// The cluster that weighs most for the prompt.
    cluster: Option<u32>,
    /// Share of the text's feature weight that the embedder knows.
    coverage: f64,
    reason: String,
    /// Whether `current_model` is kept, though another would have won otherwise; left out elsewhere.
    #[schemars(skip_serializing_if = "Not::not")]
    stayed: bool,
    /// The models that may answer, best first; left out where none is ranked.
    #[schemars(skip_serializing_if = "Vec::is_empty")]
    ranked: Vec<Ranked>,
}

/// What became of a prompt.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
enum Status {
    Ok,
    Empty,
    Blank,
    Unknown,
    Invalid,
    Null,
    NoCandidate,
}

/// A model that may answer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Ranked {
    model: String,
    predicted_loss: f32,
    cost: f64,
    /// Predicted loss + cost weight x cost.
    objective: f64,
}

/// Every model.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Models {
    object: String,
    version: u64,
    data: Vec<crate::api::models::Listed<'static>>,
}

/// A model that is gone.
#[derive(JsonSchema)]
#[schemars(inline)]
#[expect(clippy::struct_field_names, reason = "as OpenAI calls it")]
pub struct Deleted {
    id: String,
    object: String,
    deleted: bool,
    version: u64,
}

/// What was learnt.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Learnt {
    /// Which of the outcomes could be used.
    used: Vec<bool>,
    version: u64,
}

/// How the service is.
#[derive(JsonSchema)]
#[schemars(inline)]
pub struct Health {
    status: String,
    #[schemars(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}
