//! `/openapi.json`: what can be asked and answered, made from the types of bodies and answers.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::api::described::{Answer, Deleted, Health, Learnt, Models};
use crate::api::models::{Listed, Patch, Put};
use crate::api::observe::Observation;
use crate::api::question::Fields;
use crate::http::refusal::Envelope;

/// The document, in JSON.
pub static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());

const JSON: &str = "application/json";

/// Refusals of every route, and of those that take a body.
const COMMON: [u16; 6] = [400, 403, 405, 421, 500, 503];
const WITH_BODY: [u16; 3] = [408, 413, 415];

/// What a status of a refusal means.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be understood, or a field has a value that cannot be used",
        401 => "The bearer token is missing or wrong",
        403 => "A page of another site sent the request; or the service has no admin token",
        404 => "No such model or route",
        405 => "Another method is expected",
        408 => "The body did not arrive in time",
        409 => "Another request has changed the model meanwhile",
        413 => "The body is too long",
        415 => "The body is not application/json",
        421 => "The request names a host that is not the service's",
        422 => "No model may answer, or the prompt cannot be embedded",
        429 => "The budget is spent, or no upstream takes more requests",
        501 => "The service runs without Python, which this needs",
        502 => "No upstream answered",
        503 => "Not ready, too busy, or the pool is empty",
        504 => "No upstream answered in time",
        _ => "The service failed",
    }
}

/// One method of one path.
struct Operation {
    path: &'static str,
    method: &'static str,
    described: Value,
}

impl Operation {
    fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        let described = json!({"operationId": id, "summary": summary, "responses": {}});
        let operation = Self {
            path,
            method,
            described,
        };
        operation.refuses(&COMMON)
    }

    /// What it answers, by media type.
    fn answers(mut self, status: u16, meaning: &str, content: &Value) -> Self {
        let response = json!({"description": meaning, "content": content});
        self.described["responses"][status.to_string()] = response;
        self
    }

    /// Statuses of refusals.
    fn refuses(self, statuses: &[u16]) -> Self {
        let content = json!({JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}});
        let refuse =
            |operation: Self, &status: &u16| operation.answers(status, meaning(status), &content);
        statuses.iter().fold(self, refuse)
    }

    fn takes(mut self, body: &Value) -> Self {
        let content = json!({JSON: {"schema": body}});
        self.described["requestBody"] = json!({"required": true, "content": content});
        self.refuses(&WITH_BODY)
    }

    /// For those who have the client token, where the service has one.
    fn for_clients(mut self) -> Self {
        self.described["security"] = json!([{}, {"client": []}]);
        self.refuses(&[401])
    }

    /// For those who have the admin token.
    fn for_admins(mut self) -> Self {
        self.described["security"] = json!([{"admin": []}]);
        self.refuses(&[401])
    }
}

/// Makes a comment of the code a description for everybody; a field that may be left out, but not be
/// null, has no default.
fn plain(schema: &mut Schema) {
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text
            .replace('\n', " ")
            .replace("[`", "")
            .replace("`]", "")
            .replace('`', "");
    }
}

/// Schemas of bodies, where fields may be left out, and of answers, where they are always there.
struct Schemas {
    bodies: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into())
            .with_transform(RecursiveTransform(plain));
        Self {
            bodies: settings.clone().into_generator(),
            answers: settings.for_serialize().into_generator(),
        }
    }

    fn body<T: JsonSchema>(&mut self) -> Value {
        self.bodies.subschema_for::<T>().to_value()
    }

    /// The content of an answer.
    fn answer<T: JsonSchema>(&mut self) -> Value {
        json!({JSON: {"schema": self.answers.subschema_for::<T>()}})
    }

    /// All that have a name.
    fn named(mut self) -> Map<String, Value> {
        let mut named = self.answers.take_definitions(true);
        named.extend(self.bodies.take_definitions(true));
        named
    }
}

/// Routes that decide.
fn deciding(all: &mut Schemas) -> [Operation; 2] {
    let question = all.body::<Fields<'_>>();
    let chat = json!({"allOf": [question, {"required": ["messages"]}]});
    let streamed = json!({JSON: {}, "text/event-stream": {}});
    let mut chats = Operation::new(
        "post",
        "/v1/chat/completions",
        "chat",
        "Route a chat and pass it on to an upstream; streams where the chat asks for it",
    );
    chats.described["responses"]["4XX"] =
        json!({"description": "A refusal, ours or the upstream's", "content": {JSON: {}}});
    [
        Operation::new(
            "post",
            "/v1/route",
            "route",
            "Choose the LLM that answers a prompt, or one for each of many",
        )
        .for_clients()
        .takes(&question)
        .answers(200, "Decided", &all.answer::<Answer>())
        .refuses(&[422, 429]),
        chats
            .for_clients()
            .takes(&chat)
            .answers(
                200,
                "The upstream's answer; x-uniroute-model and x-uniroute-version say who answered",
                &streamed,
            )
            .refuses(&[404, 422, 429, 502, 504]),
    ]
}

/// Routes that change what is decided.
fn changing(all: &mut Schemas) -> [Operation; 4] {
    let model = all.answer::<Listed<'_>>();
    let one = "/v1/models/{name}";
    let add = "Add a model, or replace what is known of one";
    let change = "Change some of what is known of a model";
    [
        Operation::new("put", one, "putModel", add)
            .for_admins()
            .takes(&all.body::<Put>())
            .answers(200, "Replaced", &model)
            .answers(201, "Added", &model)
            .refuses(&[404, 409, 501]),
        Operation::new("patch", one, "patchModel", change)
            .for_admins()
            .takes(&all.body::<Patch>())
            .answers(200, "Changed", &model)
            .refuses(&[404]),
        Operation::new("delete", one, "deleteModel", "Take a model out of the pool")
            .for_admins()
            .answers(200, "Gone", &all.answer::<Deleted>())
            .refuses(&[404]),
        Operation::new("post", "/v1/observe", "observe", "Learn from outcomes")
            .for_admins()
            .takes(&all.body::<Observation>())
            .answers(200, "Learnt", &all.answer::<Learnt>())
            .refuses(&[404, 501]),
    ]
}

/// Routes that only show something.
fn showing(all: &mut Schemas) -> [Operation; 7] {
    let text = |kind: &str| json!({kind: {"schema": {"type": "string"}}});
    let show = |path, id, summary, content| {
        Operation::new("get", path, id, summary).answers(200, summary, &content)
    };
    let health = all.answer::<Health>();
    let metrics = text("application/openmetrics-text");
    let document = json!({JSON: {"schema": {"type": "object"}}});
    let model = all.answer::<Listed<'_>>();
    [
        show(
            "/v1/models",
            "listModels",
            "Every model",
            all.answer::<Models>(),
        ),
        show(
            "/v1/models/{name}",
            "getModel",
            "One model, with its profile",
            model,
        )
        .refuses(&[404]),
        show("/healthz", "health", "Whether it is alive", health.clone()),
        show("/readyz", "ready", "Whether it can route", health),
        show("/metrics", "metrics", "Metrics for Prometheus", metrics),
        show("/openapi.json", "openapi", "This document", document),
        show(
            "/",
            "page",
            "A page to try it in a browser",
            text("text/html"),
        ),
    ]
}

fn document() -> Value {
    let mut all = Schemas::new();
    let mut paths = json!({});
    let operations = deciding(&mut all).into_iter().chain(changing(&mut all));
    for operation in operations.chain(showing(&mut all)) {
        paths[operation.path][operation.method] = operation.described;
    }
    paths["/v1/models/{name}"]["parameters"] = json!([{
        "name": "name",
        "in": "path",
        "required": true,
        "description": "Percent-encoded; may hold slashes",
        "schema": {"type": "string", "minLength": 1},
    }]);
    // What all refusals refer to.
    all.answer::<Envelope<'_>>();
    let token = |meaning: &str| json!({"type": "http", "scheme": "bearer", "description": meaning});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "uniroute",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Decides which LLM answers a prompt: the one with the least predicted \
                            loss + cost weight x cost.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": all.named(),
            "securitySchemes": {
                "admin": token("The admin token"),
                "client": token("The client token, where the service has one"),
            },
        },
    })
}
