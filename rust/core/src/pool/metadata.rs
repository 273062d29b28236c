//! What is known of a model beside its cost and its profile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::pool::checks::is_unprintable;
use crate::pool::tokens::price;

/// Prices of a million tokens are at most this: then no cost of a call overflows.
pub const LARGEST_PRICE: f64 = 1e30;

/// Bytes of a tag at most.
pub const LONGEST_TAG: usize = 256;

/// Tags of a model at most.
pub const MOST_TAGS: usize = 1024;

/// What is known of a model; nothing need be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// Free strings, such as `region:eu`, `licence:apache-2.0`, `modality:image` or `tools`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Tokens of prompt and answer together that the model takes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Typical time to answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// Price of a million tokens of the prompt, as all prices 0 to [`LARGEST_PRICE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_price: Option<f64>,
    /// Price of a million tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_price: Option<f64>,
    /// Price of a million tokens of the prompt that the model finds in its cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input_price: Option<f64>,
}

impl Metadata {
    /// Names of the fields.
    pub const FIELDS: [&'static str; 6] = [
        "tags",
        "context_length",
        "latency",
        "input_price",
        "output_price",
        "cached_input_price",
    ];

    /// The field of a name that holds one real number; `None` for other names.
    pub fn number_mut(&mut self, name: &str) -> Option<&mut Option<f64>> {
        match name {
            "latency" => Some(&mut self.latency),
            "input_price" => Some(&mut self.input_price),
            "output_price" => Some(&mut self.output_price),
            "cached_input_price" => Some(&mut self.cached_input_price),
            _ => None,
        }
    }

    /// The same with some fields replaced, as JSON says them: null makes one unknown.
    pub fn with(&self, fields: &Map<String, Value>) -> Result<Self> {
        let invalid = |e: serde_json::Error| {
            Error::invalid("metadata", e.to_string(), Self::FIELDS.join(", "))
        };
        let mut merged = match serde_json::to_value(self).map_err(invalid)? {
            Value::Object(merged) => merged,
            _ => Map::new(),
        };
        for (name, value) in fields {
            // A field that does not exist is not unknown, but an error.
            if value.is_null() && Self::FIELDS.contains(&&**name) {
                merged.remove(name);
            } else {
                merged.insert(name.clone(), value.clone());
            }
        }
        serde_json::from_value(merged.into()).map_err(invalid)
    }

    /// Fails on a tag that is empty or has control or invisible characters, or on a number that is out
    /// of range.
    pub fn check(&self) -> Result<()> {
        if self.tags.contains("") {
            return Err(Error::invalid("tags", "an empty tag", "non-empty strings"));
        }
        if self.tags.len() > MOST_TAGS {
            let expected = format!("at most {MOST_TAGS} for a model");
            return Err(Error::invalid(
                "tags",
                format!("{} tags", self.tags.len()),
                expected,
            ));
        }
        if let Some(tag) = self.tags.iter().find(|tag| tag.len() > LONGEST_TAG) {
            let problem = format!("a tag of {} bytes", tag.len());
            let expected = format!("at most {LONGEST_TAG} each");
            return Err(Error::invalid("tags", problem, expected));
        }
        if let Some(tag) = self.tags.iter().find(|tag| tag.contains(is_unprintable)) {
            let problem = format!("{tag:?} has a control or invisible character");
            return Err(Error::invalid("tags", problem, "tags that can be printed"));
        }
        let prices = [
            ("input_price", self.input_price),
            ("output_price", self.output_price),
            ("cached_input_price", self.cached_input_price),
        ];
        for (argument, price) in prices {
            if let Some(price) = price.filter(|&price| !is_price(price)) {
                let expected = format!("a number, 0 to {LARGEST_PRICE:e}, or None");
                return Err(Error::invalid(argument, price.to_string(), expected));
            }
        }
        match self.latency {
            Some(latency) if !(latency.is_finite() && latency >= 0.0) => {
                let expected = "a finite number, 0 or more, or None";
                Err(Error::invalid("latency", latency.to_string(), expected))
            }
            _ => Ok(()),
        }
    }

    /// What finding so many tokens of the prompt in the model's cache saves. Without a price for
    /// cached tokens they are taken to be free; without an input price a call costs the same whatever
    /// its tokens, and nothing is saved.
    pub fn cache_value(&self, tokens: u64) -> f64 {
        let full = self.input_price.unwrap_or(0.0);
        let saved = full - self.cached_input_price.unwrap_or(0.0);
        price(saved, tokens as f64).max(0.0)
    }
}

/// Whether a number may be the price of a million tokens.
pub(crate) fn is_price(price: f64) -> bool {
    (0.0..=LARGEST_PRICE).contains(&price)
}

/// Metadata of every model of a pool, and which models have each tag.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    models: Vec<Arc<Metadata>>,
    /// By tag, the models that have it, ascending. A mask each would take models x tags bits, which may
    /// be a thousand times what names the tags.
    tagged: BTreeMap<Arc<str>, Vec<u32>>,
}

impl Directory {
    /// Metadata of every model, in index order.
    pub fn models(&self) -> &[Arc<Metadata>] {
        &self.models
    }

    /// Every tag that a model has, with the models that have it, ascending.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &[u32])> {
        self.tagged
            .iter()
            .map(|(tag, members)| (&**tag, &**members))
    }

    /// Number of distinct tags.
    pub fn tag_count(&self) -> usize {
        self.tagged.len()
    }

    /// The models that have a tag, ascending; `None` if none has.
    pub fn tagged(&self, tag: &str) -> Option<&[u32]> {
        self.tagged.get(tag).map(Vec::as_slice)
    }

    /// Appends a model.
    pub fn push(&mut self, metadata: Arc<Metadata>) {
        self.models.push(metadata);
        self.tag(self.models.len() - 1);
    }

    /// Takes a model out; later ones move down.
    pub fn remove(&mut self, model: usize) {
        self.untag(model);
        self.models.remove(model);
        for members in self.tagged.values_mut() {
            let later = members.partition_point(|&m| (m as usize) < model);
            members[later..].iter_mut().for_each(|m| *m -= 1);
        }
    }

    /// Replaces what is known of a model.
    pub fn set(&mut self, model: usize, metadata: Arc<Metadata>) {
        self.untag(model);
        self.models[model] = metadata;
        self.tag(model);
    }

    fn tag(&mut self, model: usize) {
        let own = model as u32;
        for tag in &self.models[model].tags {
            if let Some(members) = self.tagged.get_mut(tag.as_str()) {
                let at = members.partition_point(|&m| m < own);
                members.insert(at, own);
            } else {
                self.tagged.insert(tag.as_str().into(), vec![own]);
            }
        }
    }

    fn untag(&mut self, model: usize) {
        for tag in &self.models[model].tags {
            if let Some(members) = self.tagged.get_mut(tag.as_str()) {
                members.retain(|&m| m as usize != model);
                if members.is_empty() {
                    self.tagged.remove(tag.as_str());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tags: &[&str]) -> Arc<Metadata> {
        let tags = tags.iter().map(ToString::to_string).collect();
        Arc::new(Metadata {
            tags,
            ..Metadata::default()
        })
    }

    fn members(directory: &Directory, tag: &str) -> Vec<usize> {
        let members = directory.tagged(tag).unwrap_or_default();
        members.iter().map(|&m| m as usize).collect()
    }

    #[test]
    fn tags_follow_the_models() {
        let mut directory = Directory::default();
        for tags in [&["eu", "tools"][..], &[], &["eu"], &["us"]] {
            directory.push(tagged(tags));
        }
        assert_eq!(members(&directory, "eu"), [0, 2]);
        directory.remove(1);
        assert_eq!(members(&directory, "eu"), [0, 1]);
        assert_eq!(members(&directory, "us"), [2]);
        directory.set(2, tagged(&["eu"]));
        directory.set(0, tagged(&["tools", "eu"]));
        assert_eq!(members(&directory, "eu"), [0, 1, 2]);
        assert_eq!(directory.tagged("us"), None);
        assert_eq!(
            directory.tags().map(|(tag, _)| tag).collect::<Vec<_>>(),
            ["eu", "tools"]
        );
    }

    #[test]
    fn the_fields_are_those_of_the_struct() {
        let refused = serde_json::from_str::<Metadata>(r#"{"x": 1}"#).unwrap_err();
        let names = Metadata::FIELDS.map(|name| format!("`{name}`")).join(", ");
        assert!(
            refused.to_string().contains(&format!("one of {names}")),
            "{refused}"
        );
        let mut metadata = Metadata::default();
        for name in &Metadata::FIELDS[2..] {
            *metadata.number_mut(name).unwrap() = Some(1.5);
        }
        let json = serde_json::to_value(&metadata).unwrap();
        let known = json.as_object().unwrap();
        assert_eq!(known.len(), 4);
        let unknown: Map<_, _> = known
            .keys()
            .map(|name| (name.clone(), Value::Null))
            .collect();
        assert_eq!(metadata.with(&unknown).unwrap(), Metadata::default());
        assert_eq!(Metadata::default().with(known).unwrap(), metadata);
        let wrong = Map::from_iter([("prise".to_owned(), Value::Null)]);
        assert!(metadata.with(&wrong).is_err());
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        for (field, metadata) in [
            (
                "latency",
                Metadata {
                    latency: Some(-1.0),
                    ..Metadata::default()
                },
            ),
            (
                "input_price",
                Metadata {
                    input_price: Some(f64::NAN),
                    ..Metadata::default()
                },
            ),
            (
                "output_price",
                Metadata {
                    output_price: Some(f64::INFINITY),
                    ..Metadata::default()
                },
            ),
            (
                "tags",
                Metadata {
                    tags: [String::new()].into(),
                    ..Metadata::default()
                },
            ),
            (
                "tags",
                Metadata {
                    tags: ["a".repeat(LONGEST_TAG + 1)].into(),
                    ..Metadata::default()
                },
            ),
            (
                "tags",
                Metadata {
                    tags: (0..=MOST_TAGS).map(|i| i.to_string()).collect(),
                    ..Metadata::default()
                },
            ),
            (
                "tags",
                Metadata {
                    tags: ["a\nb".to_owned()].into(),
                    ..Metadata::default()
                },
            ),
        ] {
            assert!(metadata.check().unwrap_err().to_string().starts_with(field));
        }
    }
}
