//! Many prompts at once, block by block on several threads.

use crate::error::{Error, Result};
use crate::kernels::text::prefetch;
use crate::request::{PerPrompt, Place, Prompts, Request, Requests, Text};
use crate::route::choose::{Blend, Choice, choose};
use crate::route::packed::Soft;
use crate::route::scratch::{Kept, Scratch};
use crate::route::snapshot::{Row, Snapshot};
use crate::sys::threads::Run;
use crate::text::lexical::{self, Status};

/// Texts that one thread takes at a time: some 0.3 ms of work.
const TEXTS_PER_TASK: usize = 128;

/// Embeddings that one thread takes at a time: enough rows for the blocked kernel.
const EMBEDDINGS_PER_TASK: usize = 512;

impl Snapshot {
    /// Routes many prompts; row by row the same as one at a time.
    pub fn route_batch(
        &self,
        prompts: Prompts<'_>,
        requests: &Requests,
        run: &Run<'_>,
    ) -> Result<Vec<Row>> {
        let count = self.count(prompts)?;
        requests.check(count)?;
        self.check_not_empty()?;
        // Packed are costs that are the same for every prompt.
        let packable = self.map.single_nearest().is_none() && self.pool.metering().is_none();
        let soft = packable.then(|| self.soft.get(&self.pool, count)).flatten();
        let nothing: &mut [u8] = &mut [];
        self.for_each_task(prompts, (nothing, 0), run, |task, scratch| {
            let Some(centroids) = self.map.single_nearest() else {
                let first = task.first;
                let request = |i: usize| requests.at(first + i, prompts.tokens(first + i));
                self.choose_each(task, &request, soft, scratch)?;
                self.count_many(requests.counted, task);
                return Ok(());
            };
            scratch.labels.resize(task.rows.len(), 0);
            if let Some(places) = task.places {
                for (label, place) in scratch.labels.iter_mut().zip(places) {
                    *label = self.map.cluster(&place.phi);
                }
            } else {
                let here = Run {
                    threads: 1,
                    interrupted: &|| false,
                };
                centroids.assign(task.embeddings, &mut scratch.labels, None, &here)?;
            }
            for (i, row, _) in self.ok_rows(task.rows, task.embeddings) {
                let request = requests.at(task.first + i, prompts.tokens(task.first + i));
                let blend = Blend::One(scratch.labels[i]);
                row.choice = choose(&self.pool, blend, &request, &mut scratch.ranked)?;
            }
            self.count_many(requests.counted, task);
            Ok(())
        })
    }

    /// gamma: predicted loss of every model on every prompt, into [prompts, models] row-major; NaN
    /// in the rows of prompts whose status is not ok.
    pub fn predict_loss(
        &self,
        prompts: Prompts<'_>,
        losses: &mut [f32],
        run: &Run<'_>,
    ) -> Result<Vec<Row>> {
        self.check_not_empty()?;
        let models = self.pool.len();
        losses.fill(f32::NAN);
        self.for_each_task(prompts, (losses, models), run, |task, scratch| {
            let known = task.known();
            for (i, _, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.phi_of(known(i), embedding, &mut scratch.phi, &mut scratch.map)?;
                let own = &mut task.out[i * models..][..models];
                self.gamma(&scratch.phi, own);
            }
            Ok(())
        })
    }

    /// Phi of every prompt, into [prompts, clusters] row-major, dense; 0 in the rows of prompts
    /// whose status is not ok.
    pub fn phi(&self, prompts: Prompts<'_>, out: &mut [f32], run: &Run<'_>) -> Result<Vec<Row>> {
        let clusters = self.map.clusters();
        out.fill(0.0);
        self.for_each_task(prompts, (out, clusters), run, |task, scratch| {
            let known = task.known();
            for (i, _, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.phi_of(known(i), embedding, &mut scratch.phi, &mut scratch.map)?;
                let row = &mut task.out[i * clusters..][..clusters];
                scratch.phi.write(row);
            }
            Ok(())
        })
    }

    /// What every model costs on every prompt, into [prompts, models] row-major; NaN in the rows of
    /// prompts whose status is not ok. `tokens` as in [`Request::tokens`].
    pub fn predict_cost(
        &self,
        prompts: Prompts<'_>,
        tokens: PerPrompt<Option<u64>>,
        costs: &mut [f64],
        run: &Run<'_>,
    ) -> Result<Vec<Row>> {
        let requests = Requests {
            tokens,
            ..Requests::at_cost_weight(0.0)
        };
        requests.check(self.count(prompts)?)?;
        self.check_not_empty()?;
        let models = self.pool.len();
        costs.fill(f64::NAN);
        self.for_each_task(prompts, (costs, models), run, |task, scratch| {
            let known = task.known();
            for (i, _, embedding) in self.ok_rows(task.rows, task.embeddings) {
                self.phi_of(known(i), embedding, &mut scratch.phi, &mut scratch.map)?;
                let tokens = requests
                    .at(task.first + i, prompts.tokens(task.first + i))
                    .tokens;
                let own = self.costs(&scratch.phi, tokens)?;
                task.out[i * models..][..models].copy_from_slice(&own);
            }
            Ok(())
        })
    }

    /// The winners for prompts that belong to several clusters: those that ask for nothing special
    /// together, where the pool is packed for it.
    fn choose_each<'a, T>(
        &self,
        task: &mut Task<'_, T>,
        request: &dyn Fn(usize) -> Request<'a>,
        soft: Option<&Soft>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let mut together: Vec<(&mut Row, u32)> = Vec::new();
        scratch.batch.clear();
        let known = task.known();
        for (i, row, embedding) in self.ok_rows(task.rows, task.embeddings) {
            let request = request(i);
            let Scratch {
                phi,
                map,
                batch,
                ranked,
                ..
            } = scratch;
            self.phi_of(known(i), embedding, phi, map)?;
            if soft.is_none() || request.constraints.is_some() || request.stay.is_some() {
                row.choice = choose(&self.pool, self.blend(phi), &request, ranked)?;
                continue;
            }
            batch.push(phi, self.map.clusters(), request.cost_weight);
            together.push((row, self.map.cluster(phi)));
        }
        let Some(soft) = soft.filter(|_| !together.is_empty()) else {
            return Ok(());
        };
        let winners = scratch.batch.winners(soft)?;
        for ((row, cluster), (model, predicted_loss)) in together.into_iter().zip(winners) {
            row.choice = Some(Choice {
                model,
                cluster,
                predicted_loss,
                cost: self.pool.costs()[model as usize],
                fallback: false,
                stayed: false,
            });
        }
        Ok(())
    }

    /// The rows of a block that could be embedded: number in the block, row, embedding.
    pub(super) fn ok_rows<'t>(
        &self,
        rows: &'t mut [Row],
        embeddings: &'t [f32],
    ) -> impl Iterator<Item = (usize, &'t mut Row, &'t [f32])> {
        let all = rows
            .iter_mut()
            .zip(embeddings.chunks(self.map.dim()))
            .enumerate();
        all.filter(|(_, (row, _))| row.status == Status::Ok)
            .map(|(i, (row, e))| (i, row, e))
    }

    /// Embeds the prompts block by block, on several threads, and hands each block to `work`.
    /// `out` is split alike: so many values for each prompt.
    pub(super) fn for_each_task<T: Send>(
        &self,
        prompts: Prompts<'_>,
        (mut out, width): (&mut [T], usize),
        run: &Run<'_>,
        work: impl Fn(&mut Task<'_, T>, &mut Scratch) -> Result<()> + Sync,
    ) -> Result<Vec<Row>> {
        let count = self.count(prompts)?;
        if out.len() != count * width {
            let found = format!("room for {} values", out.len());
            return Err(Error::invalid(
                "out",
                found,
                format!("{count} prompts x {width}"),
            ));
        }
        let per_task = match prompts {
            Prompts::Texts(_) => TEXTS_PER_TASK,
            Prompts::Embeddings(_) | Prompts::Embedded(_) => EMBEDDINGS_PER_TASK,
        };
        let mut rows = vec![Row::default(); count];
        let blocks: Vec<_> = rows
            .chunks_mut(per_task)
            .enumerate()
            .map(|(i, rows)| {
                let (own, rest) = std::mem::take(&mut out).split_at_mut(rows.len() * width);
                out = rest;
                (i * per_task, rows, own)
            })
            .collect();
        let dim = self.map.dim();
        run.for_each(
            blocks.into_iter(),
            Kept::take,
            |Kept(scratch), (first, rows, out)| {
                let mut block = Vec::new();
                let (embeddings, places) = match prompts {
                    Prompts::Embeddings(all) => (&all[first * dim..][..rows.len() * dim], None),
                    Prompts::Embedded(all) => {
                        let places = &all.places[first..][..rows.len()];
                        for (row, place) in rows.iter_mut().zip(places) {
                            (row.status, row.coverage) = (place.status, place.coverage);
                        }
                        let vectors = &all.vectors[first * dim..][..rows.len() * dim];
                        (vectors, Some(places))
                    }
                    Prompts::Texts(texts) => {
                        block = std::mem::take(&mut scratch.embeddings);
                        self.embed_block(&texts[first..], rows, &mut block, &mut scratch.text)?;
                        (&block[..], None)
                    }
                };
                let mut task = Task {
                    first,
                    rows,
                    embeddings,
                    places,
                    out,
                };
                let done = work(&mut task, scratch);
                if let Prompts::Texts(_) = prompts {
                    scratch.embeddings = block;
                }
                done
            },
        )?;
        Ok(rows)
    }

    /// Embeds the first of the texts, one for each row, into `block`, [rows, dim].
    fn embed_block(
        &self,
        texts: &[Text<'_>],
        rows: &mut [Row],
        block: &mut Vec<f32>,
        scratch: &mut lexical::Scratch,
    ) -> Result<()> {
        let dim = self.map.dim();
        block.resize(rows.len() * dim, 0.0);
        let texts = &texts[..rows.len()];
        for (i, (row, out)) in rows.iter_mut().zip(block.chunks_mut(dim)).enumerate() {
            if let Some(Ok(next)) = texts.get(i + 1) {
                prefetch(next.as_bytes());
            }
            *row = self.embed(texts[i], out, scratch)?;
        }
        Ok(())
    }
}

/// A block of prompts, embedded.
pub(super) struct Task<'a, T> {
    /// Row of the first prompt.
    pub(super) first: usize,
    pub(super) rows: &'a mut [Row],
    /// [rows, dim]
    pub(super) embeddings: &'a [f32],
    /// What was found before of each of them.
    pub(super) places: Option<&'a [Place]>,
    /// This block's share of the caller's output.
    pub(super) out: &'a mut [T],
}

impl<'a, T> Task<'a, T> {
    /// What was found before of a row of the block.
    pub(super) fn known(&self) -> impl Fn(usize) -> Option<&'a Place> + use<'a, T> {
        let places = self.places;
        move |row| places.map(|all| &all[row])
    }
}
