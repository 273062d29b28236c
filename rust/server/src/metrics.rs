//! What Prometheus reads.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use uniroute_core::budget::Budget;
use uniroute_core::route::snapshot::{Row, Snapshot};

use crate::api::route::status_name;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Decided {
    model: Arc<str>,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Named {
    policy: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Statistic {
    statistic: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tried {
    model: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reloaded {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

type Level = Gauge<f64, AtomicU64>;

/// Counters of which some are of models, which come and go: those of a model that is gone go with it.
struct OfModels<L> {
    family: Family<L, Counter>,
    known: Mutex<Known<L>>,
}

/// The labels that there are, and how many there may be before somebody looks which can go.
struct Known<L> {
    labels: HashSet<L>,
    most: usize,
}

impl<L: Clone + Hash + Eq> Default for OfModels<L> {
    fn default() -> Self {
        Self {
            family: Family::default(),
            known: Mutex::new(Known {
                labels: HashSet::new(),
                most: Self::SPARE,
            }),
        }
    }
}

impl<L: Clone + Hash + Eq> OfModels<L> {
    /// Labels that are kept until the metrics are read next, whatever becomes of their models.
    const SPARE: usize = 10_000;

    /// Counts one more. Where there is too much, what there was of models that are gone is forgotten.
    fn inc(&self, labels: &L, is_gone: impl Fn(&L) -> bool) {
        if let Some(counter) = self.family.get(labels) {
            counter.inc();
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.labels.len() >= known.most {
            self.forget(&mut known, is_gone);
            known.most = Self::SPARE.max(2 * known.labels.len());
        }
        known.labels.insert(labels.clone());
        self.family.get_or_create(labels).inc();
    }

    /// Forgets what there was of models that are gone.
    fn sweep(&self, is_gone: impl Fn(&L) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget(&mut known, is_gone);
    }

    fn forget(&self, known: &mut Known<L>, is_gone: impl Fn(&L) -> bool) {
        known.labels.retain(|labels| {
            let gone = is_gone(labels);
            if gone {
                self.family.remove(labels);
            }
            !gone
        });
    }
}

/// Whether a model that a series is named after is no longer in the pool.
fn is_gone(snapshot: &Snapshot, model: &str) -> bool {
    !model.is_empty() && snapshot.pool().position(model).is_none()
}

/// Counters that requests move, and gauges that are set when they are read.
pub struct Metrics {
    registry: Registry,
    decisions: OfModels<Decided>,
    requests: Family<Answered, Counter>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    reloads: Family<Reloaded, Counter>,
    upstream: OfModels<Tried>,
    coverage: Histogram,
    version: Gauge<i64, AtomicI64>,
    models: Gauge<i64, AtomicI64>,
    enabled: Gauge<i64, AtomicI64>,
    /// Open connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Connections that were told to come back later.
    pub refused_connections: Counter,
    budget_remaining: Family<Named, Level>,
    budget_spent: Family<Named, Level>,
    budget_price: Family<Named, Level>,
    drift: Family<Statistic, Level>,
    drift_threshold: Family<Statistic, Level>,
    drift_alarm: Family<Statistic, Gauge<i64, AtomicI64>>,
    /// Nobody's name: of prompts that no model answers.
    none: Arc<str>,
}

/// From 2 us to 131 ms.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(2e-6, 2.0, 17))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("uniroute"),
            decisions: OfModels::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(latencies),
            reloads: Family::default(),
            upstream: OfModels::default(),
            coverage: Histogram::new((1..10).map(|tenth| f64::from(tenth) / 10.0)),
            version: Gauge::default(),
            models: Gauge::default(),
            enabled: Gauge::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            budget_remaining: Family::default(),
            budget_spent: Family::default(),
            budget_price: Family::default(),
            drift: Family::default(),
            drift_threshold: Family::default(),
            drift_alarm: Family::default(),
            none: "".into(),
        };
        all.register();
        all
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        let prompts = "Prompts routed, by model and status";
        r.register("decisions", prompts, self.decisions.family.clone());
        let answers = "Requests answered, by route and HTTP status";
        r.register("requests", answers, self.requests.clone());
        r.register_with_unit(
            "decision",
            "Time from the body of a routing request to its answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        let known = "Share of each text's feature weight that the embedder knows";
        r.register("coverage", known, self.coverage.clone());
        let reloads = "Reloads of the artifact";
        r.register("reloads", reloads, self.reloads.clone());
        let upstream = "Chats passed on, by model and outcome";
        r.register("upstream_requests", upstream, self.upstream.family.clone());
        let version = "Version of the snapshot that routes";
        r.register("snapshot_version", version, self.version.clone());
        r.register("models", "Models in the pool", self.models.clone());
        let enabled = "Models that may be chosen";
        r.register("models_enabled", enabled, self.enabled.clone());
        let open = "Open connections";
        r.register("connections", open, self.connections.clone());
        let refused = "Connections refused because too many were open";
        r.register(
            "connections_refused",
            refused,
            self.refused_connections.clone(),
        );
        let left = "What is left of a policy's budget in this period";
        r.register("budget_remaining", left, self.budget_remaining.clone());
        let spent = "What a policy's prompts have cost in this period";
        r.register("budget_spent", spent, self.budget_spent.clone());
        let price = "Cost weight that a policy's budget has led to";
        r.register("budget_cost_weight", price, self.budget_price.clone());
        let drift = "How far the latest window of prompts is from those of the fit";
        r.register("drift_statistic", drift, self.drift.clone());
        let threshold = "Beyond which prompts are unlike those of the fit";
        r.register("drift_threshold", threshold, self.drift_threshold.clone());
        let alarm = "Whether they are: 1, or 0";
        r.register("drift_alarm", alarm, self.drift_alarm.clone());
    }

    /// Counts what became of the prompts of one request.
    pub fn decided(&self, snapshot: &Snapshot, rows: &[Row], since: Instant) {
        for row in rows {
            let chosen = row.choice.map(|c| c.model as usize);
            let model = chosen.map_or_else(
                || Arc::clone(&self.none),
                |model| snapshot.pool().names()[model].into(),
            );
            let decided = Decided {
                model,
                status: status_name(row),
            };
            self.decisions
                .inc(&decided, |old| is_gone(snapshot, &old.model));
            self.coverage.observe(f64::from(row.coverage));
        }
        let kind = if rows.len() == 1 { "one" } else { "many" };
        let elapsed = since.elapsed().as_secs_f64();
        self.seconds.get_or_create(&Kind { kind }).observe(elapsed);
    }

    /// Counts a prompt that no model answers.
    pub fn undecided(&self, snapshot: &Snapshot, status: &'static str) {
        let model = Arc::clone(&self.none);
        let decided = Decided { model, status };
        self.decisions
            .inc(&decided, |old| is_gone(snapshot, &old.model));
    }

    /// Counts one answer.
    pub fn answered(&self, route: &'static str, code: u16) {
        self.requests.get_or_create(&Answered { route, code }).inc();
    }

    /// Counts one reload.
    pub fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&Reloaded { outcome }).inc();
    }

    /// Counts one chat passed on.
    pub fn tried(&self, snapshot: &Snapshot, model: &Arc<str>, outcome: &'static str) {
        let model = Arc::clone(model);
        self.upstream.inc(&Tried { model, outcome }, |old| {
            is_gone(snapshot, &old.model)
        });
    }

    fn set_drift(&self, statistic: &'static str, value: f64, threshold: f64, alarm: bool) {
        let statistic = Statistic { statistic };
        self.drift.get_or_create(&statistic).set(value);
        self.drift_threshold
            .get_or_create(&statistic)
            .set(threshold);
        self.drift_alarm.get_or_create(&statistic).set(alarm.into());
    }

    /// Everything, as text in the format of `OpenMetrics`.
    pub fn text<'b>(
        &self,
        snapshot: &Snapshot,
        budgets: impl Iterator<Item = (&'b str, Budget)>,
    ) -> String {
        self.version.set(snapshot.version() as i64);
        self.models.set(snapshot.pool().len() as i64);
        self.enabled.set(snapshot.pool().enabled().count() as i64);
        for (policy, budget) in budgets {
            let policy = Named {
                policy: policy.to_owned(),
            };
            self.budget_remaining
                .get_or_create(&policy)
                .set(budget.remaining);
            self.budget_spent.get_or_create(&policy).set(budget.spent);
            self.budget_price
                .get_or_create(&policy)
                .set(budget.cost_weight);
        }
        // A pool without a baseline has no drift to tell of.
        if let Ok((report, _)) = snapshot.drift() {
            self.set_drift("psi", report.psi, report.psi_threshold, report.psi_alarm);
            for (name, shift) in [("distance", report.distance), ("coverage", report.coverage)] {
                self.set_drift(name, shift.deviations, shift.threshold, shift.alarm);
            }
        }
        // Those that have not happened yet are 0, for alerts to see.
        for outcome in ["ok", "failed"] {
            drop(self.reloads.get_or_create(&Reloaded { outcome }));
        }
        self.decisions.sweep(|old| is_gone(snapshot, &old.model));
        self.upstream.sweep(|old| is_gone(snapshot, &old.model));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_models_that_are_gone_are_forgotten() {
        let counters = OfModels::<Tried>::default();
        let of = |name: String| Tried {
            model: name.into(),
            outcome: "ok",
        };
        for i in 0..30_000 {
            counters.inc(&of(i.to_string()), |old| &*old.model != "7");
        }
        let count = |counters: &OfModels<Tried>| {
            let known = counters.known.lock().unwrap();
            let there = |labels| counters.family.get(labels).is_some();
            assert!(known.labels.iter().all(there));
            known.labels.len()
        };
        assert!(count(&counters) <= OfModels::<Tried>::SPARE + 1);
        counters.sweep(|old| &*old.model != "7");
        assert_eq!(count(&counters), 1);
        assert!(counters.family.get(&of("8".into())).is_none());
        assert_eq!(counters.family.get(&of("7".into())).unwrap().get(), 1);
    }
}
