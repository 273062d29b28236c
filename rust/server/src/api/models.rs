//! `/v1/models`: what is in the pool, and changing it.

use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uniroute_core::pool::Pool;
use uniroute_core::pool::changes::Action;
use uniroute_core::pool::metadata::Metadata;
use uniroute_core::route::snapshot::Snapshot;

use crate::api::observe::given;
use crate::api::service::Service;
use crate::backend::{Newcomer, Outcomes};
use crate::http::read::{self, Body};
use crate::http::refusal::Refusal;

type Answer = Result<Response<Body>, Refusal>;

/// A model as `OpenAI` lists them, and what routing knows of it.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Model")]
pub struct Listed<'a> {
    id: &'a str,
    object: &'static str,
    owned_by: &'static str,
    cost: f64,
    enabled: bool,
    metadata: &'a Metadata,
    /// Expected losses, one a cluster; where one model is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    version: u64,
    data: Vec<Listed<'a>>,
}

/// What PUT takes: cost, and either profile, or texts and losses.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Put {
    cost: f64,
    /// Expected losses, one a cluster.
    profile: Option<Vec<f32>>,
    /// Prompts that the model was run on.
    texts: Option<Vec<String>>,
    /// Its losses on them, in [0, 1], lower is better; null where it was not run.
    losses: Option<Vec<Option<f64>>>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default = "yes")]
    enabled: bool,
}

/// What PATCH takes: what is to change.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "f64")]
    cost: Option<f64>,
    /// Expected losses, one a cluster.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Vec<f32>")]
    profile: Option<Vec<f32>>,
    /// Whether it may be chosen.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "bool")]
    enabled: Option<bool>,
    /// Fields that change; null makes one unknown.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Metadata")]
    metadata: Option<Map<String, Value>>,
}

fn yes() -> bool {
    true
}

/// A model's name from a path.
pub fn decode(name: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(name).decode_utf8();
    let decoded = decoded.map_err(|_| Refusal::field("name", "not UTF-8", "a model's name"))?;
    if decoded.is_empty() {
        return Err(Refusal::field("name", "empty", "a model's name"));
    }
    Ok(decoded.into_owned())
}

/// Every model.
pub fn list(snapshot: &Snapshot) -> Response<Body> {
    let models = (0..snapshot.pool().len()).map(|model| describe(snapshot.pool(), model));
    let list = List {
        object: "list",
        version: snapshot.version(),
        data: models.collect(),
    };
    to_json(StatusCode::OK, &list)
}

/// One model, with its profile.
pub fn show(snapshot: &Snapshot, name: &str) -> Answer {
    answer(StatusCode::OK, snapshot, name)
}

/// What a body of PUT says.
pub fn parse(body: &[u8]) -> Result<Put, Refusal> {
    let put: Put = read::read(body)?;
    put.metadata.check()?;
    Ok(put)
}

/// Adds a model, or replaces what is known of one.
pub fn put(service: &Service, name: &str, body: &[u8]) -> Answer {
    let put = parse(body)?;
    let known = service.router.snapshot().pool().position(name).is_some();
    let (action, status) = if known {
        (Action::Profile, StatusCode::OK)
    } else {
        (Action::Add, StatusCode::CREATED)
    };
    let profile = match (put.profile, put.texts, put.losses) {
        (Some(profile), None, None) => Some(profile),
        (None, Some(texts), Some(losses)) => {
            if texts.len() != losses.len() {
                let problem = format!("{} for {} texts", losses.len(), texts.len());
                return Err(Refusal::field("losses", &problem, "one for each text"));
            }
            let outcomes = Outcomes { texts, losses };
            if known {
                Some(service.backend.profile(&outcomes)?)
            } else {
                let newcomer = Newcomer {
                    name,
                    cost: put.cost,
                    outcomes: &outcomes,
                    metadata: &put.metadata,
                    enabled: put.enabled,
                };
                service.backend.add(&newcomer)?;
                None
            }
        }
        _ => {
            let expected = "either profile, or texts and losses";
            let problem = "not what a profile is made from";
            return Err(Refusal::field("profile", problem, expected));
        }
    };
    let describe = |pool: &Pool| {
        pool.with_metadata(name, put.metadata.clone())?
            .with_enabled(name, put.enabled)
    };
    let published = match profile {
        Some(profile) => service.backend.replacing(name, &mut || {
            service.router.change(action, &[name], |pool| {
                describe(&match pool.position(name) {
                    Some(_) => pool
                        .with_profiles(&[name], &profile)?
                        .with_cost(name, put.cost)?,
                    None => pool.with(&[name], &[put.cost], &profile)?,
                })
            })
        })?,
        // Added already.
        None => service.router.snapshot(),
    };
    tracing::info!(model = name, action = action.name(), "pool changed");
    if published.pool().position(name).is_none() {
        let message = format!("name: {name:?} was added, and removed by another request since");
        return Err(Refusal::new(StatusCode::CONFLICT, "conflict", message));
    }
    answer(status, &published, name)
}

/// Changes some of what is known of a model.
pub fn patch(service: &Service, name: &str, body: &[u8]) -> Answer {
    let patch: Patch = read::read(body)?;
    let action = match &patch {
        Patch { cost: Some(_), .. } => Action::Cost,
        Patch {
            profile: Some(_), ..
        } => Action::Profile,
        Patch {
            enabled: Some(true),
            ..
        } => Action::Enable,
        Patch {
            enabled: Some(false),
            ..
        } => Action::Disable,
        Patch {
            metadata: Some(_), ..
        } => Action::Metadata,
        Patch { .. } => {
            let expected = "one or more of cost, profile, enabled and metadata";
            return Err(Refusal::field("body", "nothing to change", expected));
        }
    };
    let apply = |pool: &Pool| {
        let model = pool.find("name", name)? as usize;
        let mut next = pool.clone();
        if let Some(cost) = patch.cost {
            next = next.with_cost(name, cost)?;
        }
        if let Some(profile) = &patch.profile {
            next = next.with_profiles(&[name], profile)?;
        }
        if let Some(enabled) = patch.enabled {
            next = next.with_enabled(name, enabled)?;
        }
        if let Some(fields) = &patch.metadata {
            let known = &pool.directory().models()[model];
            next = next.with_metadata(name, known.with(fields)?)?;
        }
        Ok(next)
    };
    let mut change = || service.router.change(action, &[name], apply);
    let published = if patch.profile.is_some() {
        service.backend.replacing(name, &mut change)?
    } else {
        change()?
    };
    tracing::info!(model = name, action = action.name(), "pool changed");
    answer(StatusCode::OK, &published, name)
}

/// Takes a model out of the pool.
pub fn delete(service: &Service, name: &str) -> Answer {
    let remove = |pool: &Pool| pool.without(name);
    let published = service.backend.replacing(name, &mut || {
        service.router.change(Action::Remove, &[name], remove)
    })?;
    tracing::info!(model = name, action = "remove", "pool changed");
    let version = published.version();
    let body =
        serde_json::json!({"id": name, "object": "model", "deleted": true, "version": version});
    Ok(read::json(StatusCode::OK, body.to_string()))
}

fn describe(pool: &Pool, model: usize) -> Listed<'_> {
    Listed {
        id: &pool.names()[model],
        object: "model",
        owned_by: "uniroute",
        cost: pool.costs()[model],
        enabled: pool.enabled().contains(model),
        metadata: &pool.directory().models()[model],
        profile: None,
        version: None,
    }
}

/// One model as an answer.
fn answer(status: StatusCode, snapshot: &Snapshot, name: &str) -> Answer {
    let pool = snapshot.pool();
    let model = pool.find("name", name)? as usize;
    let losses = (0..pool.clusters()).map(|cluster| pool.profiles().get(cluster, model));
    let listed = Listed {
        profile: Some(losses.collect()),
        version: Some(snapshot.version()),
        ..describe(pool, model)
    };
    Ok(to_json(status, &listed))
}

fn to_json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Only a map with keys that are no strings could fail.
    read::json(status, serde_json::to_vec(value).unwrap_or_default())
}
