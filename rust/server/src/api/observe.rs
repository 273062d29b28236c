//! `POST /v1/observe`: outcomes of prompts that were answered, read from JSON.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::http::read::{self, Object};
use crate::http::refusal::Refusal;

/// Where the prompts of some outcomes come from.
#[derive(Debug, PartialEq)]
pub enum Prompts {
    /// Their texts.
    Texts(Vec<String>),
    /// Their clusters, where texts are not kept.
    Clusters(Vec<u32>),
}

/// Outcomes that were observed, column by column.
#[derive(Debug, PartialEq)]
pub struct Observed {
    /// What was answered.
    pub prompts: Prompts,
    /// Name of the model that answered.
    pub models: Vec<String>,
    /// In [0, 1], lower is better.
    pub losses: Vec<f64>,
    /// How many outcomes each counts for.
    pub weights: Vec<f64>,
    /// Further outcomes of the same model after which one counts for half.
    pub half_life: Option<f64>,
}

/// One outcome: either of a text or of a cluster.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// What was answered.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "String")]
    text: Option<String>,
    /// The cluster of the prompt, where texts are not kept.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "u32")]
    cluster: Option<u32>,
    /// The model that answered.
    model: String,
    /// In [0, 1], lower is better.
    #[schemars(range(min = 0, max = 1))]
    loss: f64,
    /// How many outcomes it counts for.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    weight: f64,
}

/// One outcome, either of a text or of a cluster; or a list of them as observations.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["model", "loss"]}, {"required": ["observations"]}]))]
pub struct Observation {
    /// What was answered.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "String")]
    text: Option<String>,
    /// The cluster of the prompt, where texts are not kept.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "u32")]
    cluster: Option<u32>,
    /// The model that answered.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "String")]
    model: Option<String>,
    /// In [0, 1], lower is better.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "f64", range(min = 0, max = 1))]
    loss: Option<f64>,
    /// How many outcomes it counts for.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0))]
    weight: Option<f64>,
    /// Many outcomes, in place of the fields above.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Vec<Outcome>")]
    observations: Option<Vec<Outcome>>,
    /// After so many further outcomes of the same model an outcome counts for half.
    #[schemars(extend("exclusiveMinimum" = 0))]
    half_life: Option<f64>,
}

fn one() -> f64 {
    1.0
}

/// A field that may be left out, but is not null.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

impl Observed {
    /// What a body says.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let Object(body): Object<Observation> = read::read(body)?;
        if let Some(outcomes) = body.observations {
            let beside = [
                ("text", body.text.is_some()),
                ("cluster", body.cluster.is_some()),
                ("model", body.model.is_some()),
                ("loss", body.loss.is_some()),
                ("weight", body.weight.is_some()),
            ];
            if let Some((field, _)) = beside.into_iter().find(|(_, given)| *given) {
                let problem = "given beside observations";
                return Err(Refusal::field(field, problem, "it in each of them"));
            }
            return Self::of(outcomes, body.half_life, |at| {
                format!("observations[{at}].text")
            });
        }
        let missing = |field: &str| {
            let message = format!("body: missing field `{field}`; expected it or observations");
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_argument", message)
        };
        let outcome = Outcome {
            text: body.text,
            cluster: body.cluster,
            model: body.model.ok_or_else(|| missing("model"))?,
            loss: body.loss.ok_or_else(|| missing("loss"))?,
            weight: body.weight.unwrap_or_else(one),
        };
        Self::of(vec![outcome], body.half_life, |_| "text".into())
    }

    /// `place` names the text of an outcome.
    fn of(
        outcomes: Vec<Outcome>,
        half_life: Option<f64>,
        place: impl Fn(usize) -> String,
    ) -> Result<Self, Refusal> {
        let of_clusters = outcomes
            .first()
            .is_some_and(|first| first.cluster.is_some());
        let (mut texts, mut clusters) = (Vec::new(), Vec::new());
        let (mut models, mut losses, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (at, outcome) in outcomes.into_iter().enumerate() {
            match (outcome.text, outcome.cluster) {
                (Some(text), None) if !of_clusters => texts.push(text),
                (None, Some(cluster)) if of_clusters => clusters.push(cluster),
                (text, cluster) => {
                    let problem = match (text, cluster) {
                        (Some(_), Some(_)) => "given beside cluster",
                        (None, None) => "missing, as is cluster",
                        _ => "not what the first outcome has",
                    };
                    let expected = "either a text for each, or a cluster for each";
                    return Err(Refusal::field(&place(at), problem, expected));
                }
            }
            models.push(outcome.model);
            losses.push(outcome.loss);
            weights.push(outcome.weight);
        }
        let prompts = if of_clusters {
            Prompts::Clusters(clusters)
        } else {
            Prompts::Texts(texts)
        };
        Ok(Self {
            prompts,
            models,
            losses,
            weights,
            half_life,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outcome_is_a_list_of_one() {
        let one = br#"{"text": "a", "model": "m", "loss": 0.5, "half_life": 9}"#;
        let many =
            br#"{"half_life": 9, "observations": [{"text": "a", "model": "m", "loss": 0.5}]}"#;
        let one = Observed::parse(one).unwrap();
        assert_eq!(one, Observed::parse(many).unwrap());
        assert_eq!((one.weights, one.half_life), (vec![1.0], Some(9.0)));
        let clusters = br#"{"cluster": 3, "model": "m", "loss": 1, "weight": 2}"#;
        let clusters = Observed::parse(clusters).unwrap();
        assert_eq!(clusters.prompts, Prompts::Clusters(vec![3]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (body, param) in [
            (r#"{"model": "m", "loss": 0}"#, Some("text")),
            (
                r#"{"model": "m", "loss": 0, "text": "a", "cluster": 1}"#,
                Some("text"),
            ),
            (r#"{"model": "m", "loss": 0, "text": null}"#, Some("text")),
            (
                r#"{"model": "m", "loss": 0, "cluster": -1}"#,
                Some("cluster"),
            ),
            (r#"{"loss": 0, "text": "a"}"#, None),
            (
                r#"{"model": "m", "loss": 0, "text": "a", "why": 1}"#,
                Some("why"),
            ),
            (r#"{"observations": [], "model": "m"}"#, Some("model")),
            (r#"{"observations": 3}"#, Some("observations")),
            (
                r#"{"observations": [{"text": "a", "model": "m", "loss": 0},
                    {"cluster": 1, "model": "m", "loss": 0}]}"#,
                Some("observations[1].text"),
            ),
            (
                r#"{"observations": [{"text": "a", "model": "m", "loss": true}]}"#,
                Some("observations[0].loss"),
            ),
            ("[]", None),
            (r#"["a", 1, "m", 0.5, 1, []]"#, None),
        ] {
            let refusal = Observed::parse(body.as_bytes()).unwrap_err();
            assert_eq!(
                refusal.param.as_deref(),
                param,
                "{body:.60}: {}",
                refusal.message
            );
            assert_eq!(refusal.status.as_u16(), 400);
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in [&deep, &format!(r#"{{"observations": {deep}}}"#)] {
            assert_eq!(
                Observed::parse(body.as_bytes())
                    .unwrap_err()
                    .status
                    .as_u16(),
                400
            );
        }
    }
}
