//! How the prompts that come in compare with those that the router was fitted on.

use std::sync::Arc;

use crate::drift::{Baseline, Moments, Monitor, Report, Tally, squared_distance};
use crate::error::{Error, Result};
use crate::request::Prompts;
use crate::route::batch::Task;
use crate::route::scratch::Scratch;
use crate::route::snapshot::{Row, Snapshot};
use crate::sys::threads::Run;
use crate::text::lexical::Status;

impl Snapshot {
    /// How the latest complete window of prompts compares with the baseline, or before the first
    /// what there is; and whether it is complete.
    pub fn drift(&self) -> Result<(Report, bool)> {
        let baseline = self.baseline()?;
        let latest = self.monitor.as_deref().map(Monitor::latest);
        let (tally, complete) =
            latest.unwrap_or_else(|| (Tally::new(baseline.counts().len()), false));
        Ok((baseline.compare(&tally), complete))
    }

    /// Compares prompts with the baseline, without counting them.
    pub fn compare(&self, prompts: Prompts<'_>, run: &Run<'_>) -> Result<Report> {
        let baseline = self.baseline()?;
        let mut tally = Tally::new(baseline.counts().len());
        for one in self.places(prompts, baseline.centres(), run)? {
            match one {
                Some(place) => tally.add(place.cluster, place.distance, place.coverage, 0.0),
                None => tally.add_unroutable(),
            }
        }
        Ok(baseline.compare(&tally))
    }

    /// What these prompts are like, as a baseline. With `leave_out`, they are those that the router
    /// was fitted on, and each is looked at as if it had not been: a word that no other prompt has
    /// would be unknown.
    pub fn baseline_of(
        &self,
        prompts: Prompts<'_>,
        leave_out: bool,
        run: &Run<'_>,
    ) -> Result<Baseline> {
        let (clusters, dim) = (self.map.first_clusters(), self.map.dim());
        let mut embeddings = vec![0.0; self.count(prompts)? * dim];
        let rows = self.for_each_task(prompts, (&mut embeddings, dim), run, |task, _| {
            task.out.copy_from_slice(task.embeddings);
            Ok(())
        })?;
        let mut sums = vec![0.0f64; clusters * dim];
        let mut members = vec![0.0f64; clusters];
        let mut scratch = Scratch::default();
        for (_, embedding) in
            (rows.iter().zip(embeddings.chunks(dim))).filter(|(row, _)| row.status == Status::Ok)
        {
            self.map
                .phi(embedding, &mut scratch.phi, &mut scratch.map)?;
            let k = self.map.cluster(&scratch.phi) as usize;
            members[k] += 1.0;
            let sum = &mut sums[k * dim..][..dim];
            sum.iter_mut()
                .zip(embedding)
                .for_each(|(s, &e)| *s += f64::from(e));
        }
        let centres: Vec<f32> = (sums.chunks(dim).zip(&members))
            .flat_map(|(sum, n)| sum.iter().map(move |s| (s / n.max(1.0)) as f32))
            .collect();
        let mut seen = Vec::new();
        if let Some(embedder) = self.embedder.as_ref().filter(|_| leave_out) {
            let witness = Self {
                embedder: Some(Arc::new(embedder.without_rarest()?)),
                ..self.clone()
            };
            seen = witness.places(prompts, &centres, run)?;
        }
        // Of prompts that share nothing, nothing is left.
        if seen.iter().all(Option::is_none) {
            seen = self.places(prompts, &centres, run)?;
        }
        let mut counts = vec![0.0; clusters];
        let (mut distance, mut coverage) = (Vec::new(), Vec::new());
        for place in seen.into_iter().flatten() {
            counts[place.cluster as usize] += 1.0;
            // Its own part in the centre left out, an embedding is that much further away.
            let n = members[place.cluster as usize];
            let own = if leave_out && n > 1.0 {
                n / (n - 1.0)
            } else {
                1.0
            };
            distance.push(place.distance * own * own);
            coverage.push(f64::from(place.coverage));
        }
        if distance.is_empty() {
            let expected = "at least one that can be embedded";
            return Err(Error::invalid("texts", "no prompt", expected));
        }
        let (distance, coverage) = (Moments::of(&distance), Moments::of(&coverage));
        Baseline::new(counts, centres, distance, coverage)
    }

    fn baseline(&self) -> Result<&Baseline> {
        let monitor = self.monitor.as_deref().ok_or_else(|| {
            let expected = "a router that was fitted, or `set_baseline` before";
            Error::invalid(
                "router",
                "has no baseline to compare prompts with",
                expected,
            )
        })?;
        Ok(monitor.baseline())
    }

    /// Where every prompt lies among centres, [clusters, dim]; `None` if it cannot be embedded.
    fn places(
        &self,
        prompts: Prompts<'_>,
        centres: &[f32],
        run: &Run<'_>,
    ) -> Result<Vec<Option<Place>>> {
        let mut places = vec![None; self.count(prompts)?];
        self.for_each_task(prompts, (&mut places, 1), run, |task, scratch| {
            let known = task.known();
            for (i, row, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.phi_of(known(i), embedding, &mut scratch.phi, &mut scratch.map)?;
                let cluster = self.map.cluster(&scratch.phi);
                let centre = &centres[cluster as usize * embedding.len()..][..embedding.len()];
                task.out[i] = Some(Place {
                    cluster,
                    distance: squared_distance(embedding, centre),
                    coverage: row.coverage,
                });
            }
            Ok(())
        })?;
        Ok(places)
    }

    pub(super) fn count_one(&self, row: &Row, embedding: &[f32]) {
        match (self.monitor.as_deref(), row.choice) {
            (Some(monitor), Some(choice)) => {
                monitor.note(choice.cluster, embedding, row.coverage, choice.cost);
            }
            (Some(monitor), None) if row.status != Status::Ok => monitor.note_unroutable(),
            _ => {}
        }
    }

    pub(super) fn count_many<T>(&self, counted: bool, task: &Task<'_, T>) {
        let Some(monitor) = self.monitor.as_deref().filter(|_| counted) else {
            return;
        };
        let mut tally = Tally::new(monitor.baseline().counts().len());
        for (row, embedding) in task.rows.iter().zip(task.embeddings.chunks(self.map.dim())) {
            match row.choice {
                Some(choice) => {
                    let distance = monitor.baseline().distance_to(choice.cluster, embedding);
                    tally.add(choice.cluster, distance, row.coverage, choice.cost);
                }
                None if row.status != Status::Ok => tally.add_unroutable(),
                None => {}
            }
        }
        monitor.note_all(&tally);
    }
}

/// Where a prompt lies among the clusters.
#[derive(Clone, Copy)]
struct Place {
    cluster: u32,
    /// Squared, to the cluster's centre.
    distance: f64,
    coverage: f32,
}
