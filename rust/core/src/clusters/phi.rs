//! Phi: how much each cluster counts for a prompt.

/// Phi of one prompt: its non-zero entries, clusters ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phi {
    /// Cluster of each entry.
    pub clusters: Vec<u32>,
    /// How much that cluster counts; each head's entries sum to 1.
    pub weights: Vec<f32>,
}

impl Phi {
    /// Writes the entries into a dense row of zeros, [clusters].
    pub fn write(&self, row: &mut [f32]) {
        for (&k, &w) in self.clusters.iter().zip(&self.weights) {
            row[k as usize] = w;
        }
    }

    pub(super) fn clear(&mut self) {
        self.clusters.clear();
        self.weights.clear();
    }

    pub(super) fn push(&mut self, cluster: usize, weight: f32) {
        self.clusters.push(cluster as u32);
        self.weights.push(weight);
    }

    /// Moves a `share` of what the entries from `start` on weigh to `cluster`, which is none before
    /// the last of them.
    pub(super) fn move_to(&mut self, cluster: usize, share: f32, start: usize) {
        let kept = 1.0 - share;
        self.weights[start..].iter_mut().for_each(|w| *w *= kept);
        if self.clusters[start..].last() != Some(&(cluster as u32)) {
            self.push(cluster, 0.0);
        }
        if let Some(weight) = self.weights.last_mut() {
            *weight += share;
        }
    }

    /// The heaviest cluster among the first `clusters`; the lowest index on ties.
    pub(super) fn heaviest(&self, clusters: usize) -> u32 {
        let own = self
            .clusters
            .iter()
            .zip(&self.weights)
            .take_while(|&(&k, _)| (k as usize) < clusters);
        own.fold((0, f32::NEG_INFINITY), |best, (&k, &w)| {
            if w > best.1 { (k, w) } else { best }
        })
        .0
    }
}
