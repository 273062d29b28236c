//! A table over clusters and models, shared strip by strip between the versions of a pool.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::pool::checks::check_finite;

/// Models per strip of the profile table.
pub const STRIP: usize = 256;

/// Profiles Psi, float32 [clusters, models], in strips of [`STRIP`] models: a strip is small
/// enough to stay in cache while the clusters of one prompt are summed over it, and adding a model
/// copies one strip and not the table.
#[derive(Clone, Debug)]
pub struct Table {
    clusters: usize,
    models: usize,
    strips: Vec<Strip>,
}

/// [clusters, [`STRIP`]] values; columns past the last model hold zeros.
#[derive(Clone, Debug)]
struct Strip {
    /// This strip alone, or all those that were loaded together.
    table: Arc<Vec<f32>>,
    /// Where it begins there.
    start: usize,
}

impl Strip {
    fn new(values: Vec<f32>) -> Self {
        Self {
            table: Arc::new(values),
            start: 0,
        }
    }

    fn values(&self, clusters: usize) -> &[f32] {
        &self.table[self.start..][..clusters * STRIP]
    }

    /// The values to be changed: copied first, unless nobody else has them.
    fn to_mut(&mut self, clusters: usize) -> &mut [f32] {
        let alone = self.table.len() == clusters * STRIP && Arc::get_mut(&mut self.table).is_some();
        if !alone {
            *self = Self::new(self.values(clusters).to_vec());
        }
        Arc::make_mut(&mut self.table).as_mut_slice()
    }
}

impl Table {
    pub(crate) fn new(clusters: usize) -> Self {
        Self {
            clusters,
            models: 0,
            strips: Vec::new(),
        }
    }

    /// See [`Pool::of_strips`].
    pub(super) fn of_strips(
        clusters: usize,
        names: &[&str],
        table: &Arc<Vec<f32>>,
    ) -> Result<Self> {
        let (size, models) = (clusters * STRIP, names.len());
        let expected =
            || format!("strips of {STRIP} models over {clusters} clusters, zeros behind {models}");
        if table.len() != models.div_ceil(STRIP) * size {
            let problem = format!("{} values", table.len());
            return Err(Error::invalid("profiles", problem, expected()));
        }
        let behind = models % STRIP;
        if behind > 0
            && let Some(last) = table.chunks(size).next_back()
            && last
                .chunks(STRIP)
                .any(|row| row[behind..].iter().any(|v| v.to_bits() != 0))
        {
            return Err(Error::invalid("profiles", "values of no model", expected()));
        }
        check_finite(table, names, |at| {
            (at % size / STRIP, at / size * STRIP + at % STRIP)
        })?;
        let strips = (0..table.len()).step_by(size.max(1)).map(|start| Strip {
            table: Arc::clone(table),
            start,
        });
        Ok(Self {
            clusters,
            models,
            strips: strips.collect(),
        })
    }

    /// Number of clusters.
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// All values as [`Pool::of_strips`] takes them, [strips, clusters, STRIP].
    pub fn table(&self) -> impl Iterator<Item = f32> {
        let strips = self.strips.iter();
        strips.flat_map(|strip| strip.values(self.clusters).iter().copied())
    }

    /// Strips with the number of models in each.
    pub fn strips(&self) -> impl Iterator<Item = (&[f32], usize)> {
        let widths = (0..self.models)
            .step_by(STRIP)
            .map(|at| STRIP.min(self.models - at));
        let strips = self.strips.iter();
        strips.map(|strip| strip.values(self.clusters)).zip(widths)
    }

    /// Predicted loss of one model in one cluster.
    pub fn get(&self, cluster: usize, model: usize) -> f32 {
        self.strips[model / STRIP].values(self.clusters)[cluster * STRIP + model % STRIP]
    }

    /// Predicted losses of all models in one cluster, in index order.
    pub fn row(&self, cluster: usize) -> impl Iterator<Item = f32> {
        self.strips()
            .flat_map(move |(strip, width)| strip[cluster * STRIP..][..width].iter().copied())
    }

    /// Appends models: `columns` is [clusters, added], row-major.
    pub(crate) fn push(&mut self, columns: &[f32], added: usize) {
        let mut done = 0;
        while done < added {
            let at = (self.models + done) % STRIP;
            let width = (STRIP - at).min(added - done);
            let column = |k: usize| &columns[k * added + done..][..width];
            match self.strips.last_mut() {
                Some(strip) if at > 0 => {
                    let strip = strip.to_mut(self.clusters);
                    for k in 0..self.clusters {
                        strip[k * STRIP + at..][..width].copy_from_slice(column(k));
                    }
                }
                // A new one, written in one pass.
                _ => {
                    let mut strip = Vec::with_capacity(self.clusters * STRIP);
                    for k in 0..self.clusters {
                        strip.extend_from_slice(column(k));
                        strip.resize((k + 1) * STRIP, 0.0);
                    }
                    self.strips.push(Strip::new(strip));
                }
            }
            done += width;
        }
        self.models += added;
    }

    /// Replaces what is said of one model, [clusters].
    pub(crate) fn set_column(&mut self, model: usize, column: impl Iterator<Item = f32>) {
        let strip = self.strips[model / STRIP].to_mut(self.clusters);
        for (k, value) in column.enumerate() {
            strip[k * STRIP + model % STRIP] = value;
        }
    }

    /// Takes a model out; later ones move down.
    pub(crate) fn remove(&mut self, model: usize) {
        let (first, at) = (model / STRIP, model % STRIP);
        for s in first..self.strips.len() {
            let next = self.strips.get(s + 1).cloned();
            let next = next.as_ref().map(|next| next.values(self.clusters));
            let strip = self.strips[s].to_mut(self.clusters);
            for k in 0..self.clusters {
                let row = &mut strip[k * STRIP..][..STRIP];
                row.copy_within(
                    if s == first { at + 1.. } else { 1.. },
                    if s == first { at } else { 0 },
                );
                row[STRIP - 1] = next.map_or(0.0, |next| next[k * STRIP]);
            }
        }
        self.models -= 1;
        self.strips.truncate(self.models.div_ceil(STRIP));
    }
}
