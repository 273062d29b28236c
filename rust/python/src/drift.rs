//! `DriftReport`: how prompts compare with those that the router was fitted on.

use pyo3::prelude::*;
use uniroute_core::drift as core;

/// How prompts compare with those that the router was fitted on.
///
/// Made by `Router.drift`.
#[pyclass(frozen, get_all, module = "uniroute_fast")]
pub struct DriftReport {
    /// Whether they are unlike them: a statistic is beyond its threshold.
    alarm: bool,
    /// Which: "psi", "distance", "coverage".
    reasons: Vec<&'static str>,
    /// Prompts that were routed.
    prompts: u64,
    /// Prompts that could not be embedded.
    unroutable: u64,
    /// Whether it is of a complete window.
    complete: bool,
    /// Population stability index over the clusters.
    psi: f64,
    /// What chance alone makes of it, for so many prompts over so many clusters.
    psi_expected: f64,
    /// Above this the mix of prompts has changed.
    psi_threshold: f64,
    /// Squared distance to the cluster's centre.
    distance: DriftShift,
    /// Share of the feature weight that the embedder knows.
    coverage: DriftShift,
    /// Mean cost of the decisions; 0 where prompts were only compared.
    cost: f64,
    /// What the decisions would have cost on average in the mix of the baseline.
    cost_in_baseline_mix: f64,
    /// Every cluster, the greatest part of `psi` first.
    clusters: Vec<DriftCluster>,
}

impl DriftReport {
    pub fn new(report: &core::Report, complete: bool) -> Self {
        let mut clusters: Vec<DriftCluster> = report.clusters.iter().map(Into::into).collect();
        clusters.sort_by(|a, b| b.psi.total_cmp(&a.psi).then(a.cluster.cmp(&b.cluster)));
        let alarms = [
            ("psi", report.psi_alarm),
            ("distance", report.distance.alarm),
            ("coverage", report.coverage.alarm),
        ];
        let reasons = alarms.iter().filter(|(_, alarm)| *alarm);
        Self {
            alarm: report.alarm(),
            reasons: reasons.map(|(name, _)| *name).collect(),
            prompts: report.prompts,
            unroutable: report.unroutable,
            complete,
            psi: report.psi,
            psi_expected: report.psi_expected,
            psi_threshold: report.psi_threshold,
            distance: (&report.distance).into(),
            coverage: (&report.coverage).into(),
            cost: report.cost,
            cost_in_baseline_mix: report.cost_in_baseline_mix(),
            clusters,
        }
    }
}

#[pymethods]
impl DriftReport {
    fn __repr__(&self) -> String {
        format!(
            "DriftReport(alarm={}, prompts={}, psi={:.3} of {:.3}, distance={:+.2} of {:.2}, \
             coverage={:+.2} of {:.2})",
            if self.alarm { "True" } else { "False" },
            self.prompts,
            self.psi,
            self.psi_threshold,
            self.distance.deviations,
            self.distance.threshold,
            self.coverage.deviations,
            self.coverage.threshold,
        )
    }
}

/// A mean over prompts beside that of the baseline.
#[pyclass(frozen, get_all, from_py_object, module = "uniroute_fast")]
#[derive(Clone, Copy)]
pub struct DriftShift {
    /// Mean now.
    mean: f64,
    /// Mean in the baseline.
    expected: f64,
    /// By how many standard deviations of single prompts it has moved.
    deviations: f64,
    /// By how many it must, up or down, for an alarm.
    threshold: f64,
    /// Whether it has.
    alarm: bool,
}

impl From<&core::Shift> for DriftShift {
    fn from(shift: &core::Shift) -> Self {
        Self {
            mean: shift.mean,
            expected: shift.expected,
            deviations: shift.deviations,
            threshold: shift.threshold,
            alarm: shift.alarm,
        }
    }
}

#[pymethods]
impl DriftShift {
    fn __repr__(&self) -> String {
        format!(
            "DriftShift(mean={:.4}, expected={:.4}, deviations={:+.2} of {:.2})",
            self.mean, self.expected, self.deviations, self.threshold
        )
    }
}

/// One cluster's share of the prompts, then and now.
#[pyclass(frozen, get_all, from_py_object, module = "uniroute_fast")]
#[derive(Clone, Copy)]
pub struct DriftCluster {
    /// Index of the cluster, as in `Decision.cluster`.
    cluster: u32,
    /// Its share in the baseline.
    expected: f64,
    /// Its share now.
    share: f64,
    /// Its part of the population stability index.
    psi: f64,
    /// By how many standard errors the share has moved.
    z: f64,
    /// Mean cost of its decisions; 0 without any.
    cost: f64,
}

impl From<&core::Moved> for DriftCluster {
    fn from(moved: &core::Moved) -> Self {
        Self {
            cluster: moved.cluster,
            expected: moved.expected,
            share: moved.share,
            psi: moved.psi,
            z: moved.z,
            cost: moved.cost,
        }
    }
}

#[pymethods]
impl DriftCluster {
    fn __repr__(&self) -> String {
        format!(
            "DriftCluster(cluster={}, expected={:.4}, share={:.4}, psi={:.4}, z={:+.1})",
            self.cluster, self.expected, self.share, self.psi, self.z
        )
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<DriftReport>()?;
    m.add_class::<DriftShift>()?;
    m.add_class::<DriftCluster>()
}
