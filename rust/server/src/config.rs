//! What an operator sets: a TOML or JSON file, and values that override it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use uniroute_core::budget::{Plan, Terms};
use uniroute_core::{Error, Result};

use crate::api::question::Conditions;

/// Everything that can be set. Durations are in seconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on. The default can be reached from this machine alone.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Hosts that requests may name besides loopback ones: names without a port, `*.NAME`, or `*` for
    /// every host. Where there are none, a service that listens beyond loopback answers to every one.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may send requests, besides the service's own.
    pub allowed_origins: Vec<String>,
    /// Threads that answer; 0 stands for one a core.
    pub workers: usize,
    /// File that holds the bearer token of the routes that change something. Without one these
    /// routes are closed.
    pub admin_token_file: Option<PathBuf>,
    /// File that holds a bearer token without which nothing is routed. Without one routing is open.
    pub client_token_file: Option<PathBuf>,
    /// Longest body of a request.
    pub max_body_bytes: usize,
    /// What long bodies and answers that are under way may take together.
    pub max_body_memory_bytes: usize,
    /// Most prompts of a request.
    pub max_batch: usize,
    /// Most connections at a time; more are told to come back later.
    pub max_connections: usize,
    /// Time for the head of a request to arrive, also the longest pause between two requests.
    pub header_seconds: f64,
    /// Time for the body of a request to arrive.
    pub body_seconds: f64,
    /// Longest pause of a client in reading its answer; it is dropped then. All pauses together may
    /// take as long, and a second more for each KiB read.
    pub write_seconds: f64,
    /// Time to go on serving once the service is told to stop, while `/readyz` says so.
    pub drain_seconds: f64,
    /// Time for requests under way to end, once the service is told to stop.
    pub shutdown_seconds: f64,
    /// How often the artifact is looked at; 0 never reloads it by itself.
    pub watch_seconds: f64,
    /// Cost weight of requests that name none, and no policy.
    pub cost_weight: f64,
    /// What requests may name in place of a cost weight.
    pub policies: BTreeMap<String, PolicyConfig>,
    /// Where chats are passed on to. Without upstreams `/v1/chat/completions` is closed.
    pub upstreams: Option<UpstreamsConfig>,
    /// File that says the same in place of `upstreams`.
    pub upstreams_file: Option<PathBuf>,
    /// What to log: `error`, `warn`, `info`, or `debug`, which has a line a request.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            workers: 0,
            admin_token_file: None,
            client_token_file: None,
            max_body_bytes: 4 << 20,
            max_body_memory_bytes: 256 << 20,
            max_batch: 1024,
            max_connections: 4096,
            header_seconds: 15.0,
            body_seconds: 15.0,
            write_seconds: 15.0,
            drain_seconds: 0.0,
            shutdown_seconds: 10.0,
            watch_seconds: 1.0,
            cost_weight: 0.0,
            policies: BTreeMap::new(),
            upstreams: None,
            upstreams_file: None,
            log: "info".into(),
        }
    }
}

/// A named way to route.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Loss that one unit of cost is worth.
    pub cost_weight: f64,
    /// What the model must meet; a request may ask for more, never for less.
    pub constraints: Conditions,
    /// The model that answers where none meets the constraints.
    pub fallback: Option<String>,
    /// What the policy's prompts may cost together. `cost_weight` is then where its price begins.
    pub budget: Option<BudgetConfig>,
}

/// A budget over a period; see `BudgetPacer`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// For one period, in the unit of the costs.
    pub amount: f64,
    /// Length of a period; the next one begins by itself.
    pub seconds: f64,
    /// Kept back for each prompt to come.
    #[serde(default)]
    pub reserve: f64,
    /// How fast the price moves.
    #[serde(default = "default_gain")]
    pub gain: f64,
    /// What a period costs: the state of a `SpendingPlan`.
    pub plan: Option<Plan>,
    /// With a plan, how much it counts for against what came recently.
    #[serde(default = "default_trust")]
    pub trust: f64,
}

fn default_gain() -> f64 {
    0.03
}

fn default_trust() -> f64 {
    0.8
}

impl BudgetConfig {
    /// The terms of a pacer whose price begins at `cost_weight`.
    pub fn terms(self, cost_weight: f64) -> Terms {
        Terms {
            budget: self.amount,
            cost_weight: Some(cost_weight),
            plan: self.plan,
            requests: None,
            seconds: Some(self.seconds),
            reserve: self.reserve,
            gain: self.gain,
            trust: self.trust,
            renews: true,
        }
    }
}

/// Where chats are passed on to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamsConfig {
    /// For every model that `models` does not name.
    pub default: Option<UpstreamConfig>,
    /// By name in the pool.
    #[serde(default)]
    pub models: BTreeMap<String, UpstreamConfig>,
    /// Models that are tried, the best first, before the request fails.
    #[serde(default = "default_attempts")]
    pub attempts: usize,
    /// Time for an upstream to begin its answer; the next model is tried then.
    #[serde(default = "default_wait")]
    pub timeout_seconds: f64,
    /// Longest pause within an answer.
    #[serde(default = "default_wait")]
    pub stall_seconds: f64,
}

fn default_attempts() -> usize {
    3
}

fn default_wait() -> f64 {
    60.0
}

/// One upstream that speaks `OpenAI`'s protocol.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Base, such as `https://api.openai.com/v1`.
    pub url: String,
    /// The upstream's name of the model; by default that of the pool.
    pub model: Option<String>,
    /// Environment variable that holds the key.
    pub api_key_env: Option<String>,
}

impl Config {
    /// Reads a file (JSON if it is called so, else TOML) and then `overrides`, a JSON object, whose
    /// fields take the place of the file's.
    pub fn read(file: Option<&Path>, overrides: &str) -> Result<Self> {
        let mut all = match file {
            Some(file) => table(file)?,
            None => serde_json::Map::new(),
        };
        let given: serde_json::Map<_, _> = serde_json::from_str(overrides)
            .map_err(|e| Error::invalid("config", e.to_string(), "a JSON object"))?;
        all.extend(given);
        let mut config: Self = parse("config", all)?;
        if let Some(file) = &config.upstreams_file {
            config.upstreams = Some(parse("upstreams_file", table(file)?)?);
        }
        config.check()?;
        Ok(config)
    }

    /// Threads that answer.
    pub fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    fn check(&self) -> Result<()> {
        let positive = [
            ("header_seconds", self.header_seconds),
            ("body_seconds", self.body_seconds),
            ("write_seconds", self.write_seconds),
            ("max_body_bytes", self.max_body_bytes as f64),
            ("max_batch", self.max_batch as f64),
            ("max_body_memory_bytes", self.max_body_memory_bytes as f64),
            ("max_connections", self.max_connections as f64),
        ];
        let waits = self.upstreams.iter().flat_map(|u| {
            let attempts = ("attempts", u.attempts as f64);
            let waits = [("timeout_seconds", u.timeout_seconds), attempts];
            waits
                .into_iter()
                .chain([("stall_seconds", u.stall_seconds)])
        });
        for (name, value) in positive.into_iter().chain(waits) {
            // What a duration can hold, and more than anybody waits.
            if !(value > 0.0 && value < 1e15) {
                let found = value.to_string();
                return Err(Error::invalid(name, found, "a number above 0"));
            }
        }
        let from_zero = [
            ("cost_weight", self.cost_weight),
            ("watch_seconds", self.watch_seconds),
            ("drain_seconds", self.drain_seconds),
            ("shutdown_seconds", self.shutdown_seconds),
        ];
        for (name, value) in from_zero {
            if !(0.0..1e15).contains(&value) {
                let found = value.to_string();
                return Err(Error::invalid(name, found, "a number, 0 or more"));
            }
        }
        if self.workers > 1024 {
            let found = self.workers.to_string();
            return Err(Error::invalid("workers", found, "0 to 1024"));
        }
        // Shares of the memory are counted in KiB, in 32 bits.
        if self.max_body_bytes > self.max_body_memory_bytes || self.max_body_memory_bytes >> 40 > 0
        {
            let found = format!("{} bytes", self.max_body_memory_bytes);
            let expected = "max_body_bytes or more, and less than a tebibyte";
            return Err(Error::invalid("max_body_memory_bytes", found, expected));
        }
        for (name, policy) in &self.policies {
            if !(policy.cost_weight.is_finite() && policy.cost_weight >= 0.0) {
                let found = format!("{} of policy {name:?}", policy.cost_weight);
                return Err(Error::invalid("cost_weight", found, "a number, 0 or more"));
            }
        }
        Ok(())
    }
}

/// Settings of one kind.
fn parse<T: DeserializeOwned>(
    argument: &'static str,
    all: serde_json::Map<String, serde_json::Value>,
) -> Result<T> {
    serde_json::from_value(all.into())
        .map_err(|e| Error::invalid(argument, e.to_string(), "settings of docs/serving.md"))
}

/// The settings of a file, whatever it is written in.
fn table(file: &Path) -> Result<serde_json::Map<String, serde_json::Value>> {
    let path = || file.display().to_string();
    let text = read(file)?;
    let parsed = if file.extension().is_some_and(|end| end == "json") {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    } else {
        toml::from_str(&text).map_err(|e| e.to_string())
    };
    parsed.map_err(|problem| Error::Artifact {
        path: path(),
        problem: format!("cannot be read ({problem})"),
        expected: "settings in TOML, or in JSON where the name ends in .json".into(),
    })
}

/// The text of a file, which is short: else it is not what was meant.
fn read(file: &Path) -> Result<String> {
    const MOST: u64 = 1 << 20;
    let shown = || file.display().to_string();
    let mut text = String::new();
    let opened = std::fs::File::open(file);
    let read = opened.and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
    read.map_err(|source| Error::Io {
        path: shown(),
        source,
    })?;
    if text.len() as u64 > MOST {
        return Err(Error::Artifact {
            path: shown(),
            problem: format!("longer than {MOST} bytes"),
            expected: "a file of settings, or of a token".into(),
        });
    }
    Ok(text)
}

/// The token in a file, without white space around it.
pub fn token(argument: &'static str, file: Option<&Path>) -> Result<Option<Vec<u8>>> {
    const LEAST: usize = 16;
    let Some(file) = file else {
        return Ok(None);
    };
    let text = read(file)?;
    let token = text.trim();
    if token.len() < LEAST || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = format!("the token in {} cannot be used", file.display());
        let expected = format!("{LEAST} or more printable ASCII characters without spaces");
        return Err(Error::invalid(argument, problem, expected));
    }
    Ok(Some(token.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_given_overrides_the_file() {
        let text =
            "port = 1\nhost = '::1'\n[policies.eu.constraints]\nrequire_tags = ['a', ['b', 'c']]\n";
        let (_folder, path) = file("c.toml", text);
        let config = Config::read(Some(&path), r#"{"port": 2}"#).unwrap();
        assert_eq!((config.port, &*config.host), (2, "::1"));
        assert!(config.policies.contains_key("eu"));
        let (_folder, path) = file("c.json", r#"{"workers": 3}"#);
        assert_eq!(Config::read(Some(&path), "{}").unwrap().workers, 3);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for given in [
            r#"{"prot": 1}"#,
            r#"{"port": 99999}"#,
            r#"{"max_batch": 0}"#,
            r#"{"header_seconds": -1}"#,
            r#"{"cost_weight": -1}"#,
            r#"{"policies": {"a": {"cost_weight": -1}}}"#,
            r#"{"policies": {"a": {"cost": 1}}}"#,
            "3",
        ] {
            assert!(Config::read(None, given).is_err(), "{given}");
        }
    }

    #[test]
    fn short_tokens_are_refused() {
        let (_folder, path) = file("token", " 0123456789abcdef\n");
        let found = token("admin_token_file", Some(&path)).unwrap();
        assert_eq!(found.unwrap(), b"0123456789abcdef");
        let (_folder, path) = file("token", "short");
        assert!(token("admin_token_file", Some(&path)).is_err());
    }
}
