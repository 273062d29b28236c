//! Prompts that are embedded once: made by one snapshot, and routed by those of the same embedder.

use std::sync::Arc;

use crate::clusters::cluster_map::{self, Phi};
use crate::error::Result;
use crate::request::{Embedded, PerPrompt, Place, Prompts, Requests};
use crate::route::snapshot::{Row, Snapshot};
use crate::sys::threads::Run;
use crate::text::lexical::Status;

impl Snapshot {
    /// The prompts with all that this embedder and this cluster map say of them. `tokens` as in
    /// [`crate::request::Request::tokens`]. O(texts + N K D).
    pub fn embed_all(
        &self,
        prompts: Prompts<'_>,
        tokens: PerPrompt<Option<u64>>,
        run: &Run<'_>,
    ) -> Result<Embedded> {
        let requests = Requests {
            tokens,
            ..Requests::at_cost_weight(0.0)
        };
        let dim = self.map.dim();
        let mut vectors = vec![0.0; self.count(prompts)? * dim];
        let rows = self.for_each_task(prompts, (&mut vectors, dim), run, |task, _| {
            task.out.copy_from_slice(task.embeddings);
            Ok(())
        })?;
        let phis = self.map.place_all(&vectors, run)?;
        let place = |(i, (row, phi)): (usize, (&Row, Phi))| Place {
            status: row.status,
            coverage: row.coverage,
            // Zeros lie somewhere too.
            phi: if row.status == Status::Ok {
                phi
            } else {
                Phi::default()
            },
            tokens: requests.at(i, prompts.tokens(i)).tokens,
        };
        let places = rows.iter().zip(phis).enumerate().map(place).collect();
        Ok(Embedded {
            embedder: self.embedder.clone(),
            map: Arc::clone(&self.map),
            vectors,
            places,
        })
    }

    /// Whether prompts were embedded by this snapshot's embedder, as far as it is one of ours.
    pub fn embeds_as(&self, prompts: &Embedded) -> bool {
        match (&self.embedder, &prompts.embedder) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other) || own.is_same(other),
            (own, other) => own.is_none() && other.is_none() && self.map.dim() == prompts.dim(),
        }
    }

    /// Whether prompts were placed by this snapshot's cluster map.
    pub fn places_as(&self, prompts: &Embedded) -> bool {
        Arc::ptr_eq(&self.map, &prompts.map)
    }

    /// Prompts of the same embedder, placed by this snapshot's cluster map. O(N K D).
    pub fn place_anew(&self, prompts: &Embedded, run: &Run<'_>) -> Result<Embedded> {
        let mut anew = Embedded {
            embedder: self.embedder.clone(),
            map: Arc::clone(&self.map),
            vectors: prompts.vectors.clone(),
            places: prompts.places.clone(),
        };
        let phis = self.map.place_all(&prompts.vectors, run)?;
        for (place, phi) in anew.places.iter_mut().zip(phis) {
            if place.status == Status::Ok {
                place.phi = phi;
            }
        }
        Ok(anew)
    }

    /// Phi of one prompt: what is known of it, or worked out.
    #[inline]
    pub(super) fn phi_of(
        &self,
        known: Option<&Place>,
        embedding: &[f32],
        phi: &mut Phi,
        scratch: &mut cluster_map::Scratch,
    ) -> Result<()> {
        let Some(place) = known else {
            return self.map.phi(embedding, phi, scratch);
        };
        phi.clusters.clone_from(&place.phi.clusters);
        phi.weights.clone_from(&place.phi.weights);
        Ok(())
    }
}
