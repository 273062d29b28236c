//! Every table against the definitions: the portable one, and float64.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::packed::{GROUP, LANES, Packed};
use super::search::{Best, Task};
use super::*;
use crate::sys::threads::Run;

/// Those of this CPU, and AMX on the model of its registers where the rest of it can run.
fn tables() -> impl Iterator<Item = &'static Kernels> {
    let own = available().into_iter().map(|isa| Kernels::of(isa).unwrap());
    #[cfg(target_arch = "x86_64")]
    let own = own.chain(amx::tests::model());
    own
}

/// Finite values over all of float32's range, often equal ones.
fn values(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        -2.0f32..2.0,
        (-3i8..4).prop_map(f32::from),
        prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO,
    ];
    prop::collection::vec(value, length)
}

#[test]
fn the_environment_forces_an_instruction_set() {
    let best = available().into_iter().rfind(|&isa| isa != Isa::Amx);
    assert_eq!(choose(None).ok(), best);
    assert_eq!(choose(Some("".as_ref())).ok(), best);
    assert_eq!(choose(Some("portable".as_ref())).ok(), Some(Isa::Portable));
    assert!(choose(Some("sse9".as_ref())).unwrap_err().contains("sse9"));
    for isa in Isa::ALL {
        let chosen = choose(Some(isa.name().as_ref()));
        assert_eq!(chosen.is_ok(), available().contains(&isa));
        assert_eq!(Kernels::of(isa).is_ok(), available().contains(&isa));
    }
}

#[test]
fn ties_go_to_the_lower_cost_then_the_lower_index() {
    let gamma = [0.5, 0.25, 0.25, 0.25, 0.75];
    let costs = [1.0, 3.0, 2.0, 2.0, 0.0];
    assert_eq!(argmin_cost(&gamma, &costs, 0.0, None), Some(2));
    assert_eq!(argmin_cost(&gamma, &costs, 1.0, None), Some(4));
    assert_eq!(argmin_cost(&gamma, &costs, 0.0, Some(&[0b11010])), Some(3));
    assert_eq!(argmin_cost(&gamma, &costs, 0.0, Some(&[0])), None);
    assert_eq!(
        argmin_cost(&[f32::NAN, 1.0], &[0.0, 0.0], 0.0, None),
        Some(1)
    );
}

#[test]
fn weighted_rows_add_in_the_order_given() {
    let psi = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 1e8, 1e8, 1e8];
    let mut out = [0.0; 3];
    weighted_rows(&[0, 1], &[0.5, 0.25], &psi, &mut out);
    assert_eq!(out, [3.0, 6.0, 9.0]);
    // 1e8 absorbs a single 1.0 of float32, but not six of them at once.
    weighted_rows(&[2, 0, 0, 0, 0, 0, 0], &[1.0; 7], &psi, &mut out);
    assert_eq!(out[0], 1e8);
    weighted_rows(&[0, 0, 0, 0, 0, 0, 2], &[1.0; 7], &psi, &mut out);
    assert_eq!(out[0], 1e8 + 8.0);
}

#[test]
fn distances_of_every_length_are_those_of_numpy_order() {
    let wave = |i: usize| ((i * 7919) % 1009) as f32 * 0.37 - 180.0;
    let x: Vec<f32> = (0..2100).map(wave).collect();
    let c: Vec<f32> = (0..2100).map(|i| wave(i * 31 + 5)).collect();
    for n in 0..x.len() {
        let expected = portable::squared_distance(&x[..n], &c[..n]);
        for kernels in tables() {
            let found = (kernels.squared_distance)(&x[..n], &c[..n]);
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{:?}, length {n}",
                kernels.isa
            );
        }
    }
    // Up to 7 terms, NumPy adds in order.
    let seven: f64 = x
        .iter()
        .zip(&c)
        .take(7)
        .map(|(&x, &c)| f64::from(x) - f64::from(c))
        .fold(0.0, |sum, d| sum + d * d);
    assert_eq!(
        portable::squared_distance(&x[..7], &c[..7]).to_bits(),
        seven.to_bits()
    );
}

/// What `ask` panics with.
fn refusal_of(ask: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(ask)).expect_err("a panic");
    *panic.downcast::<String>().expect("a message with numbers")
}

/// The kernels read without looking at lengths, so that a run of LLMs is looked at first: also one
/// whose end has no number.
#[test]
fn llms_that_do_not_exist_are_refused() {
    let scan = Scan::new(&[0.5; 8], Costs::Given(&[1.0; 8]), 1.0, None);
    for kernels in tables() {
        for (first, llms) in [(usize::MAX - 3, 8), (usize::MAX, 1), (1, 8), (9, 0), (0, 9)] {
            let expected = format!("LLMs: {llms} from {first} of 8");
            let least = refusal_of(|| _ = (kernels.least)(&scan, first, llms));
            let equal = refusal_of(|| _ = (kernels.equal)(&scan, first, llms, 1.5));
            let mut out = vec![0.0; llms];
            let objectives = refusal_of(|| (kernels.objectives)(&scan, first, &mut out));
            assert_eq!(
                [least, equal, objectives],
                [(); 3].map(|()| expected.clone())
            );
        }
        assert_eq!((kernels.least)(&scan, 8, 0), f64::INFINITY);
    }
}

/// The kernel for bytes takes two steps at a time.
#[cfg(target_arch = "x86_64")]
#[test]
fn an_odd_number_of_steps_is_refused() {
    let Ok(kernels) = Kernels::of(Isa::Avx2) else {
        eprintln!("not tested: steps of AVX2, because this CPU has none");
        return;
    };
    let mut packed = Packed::empty(LANES, 8, Precision::Int7).unwrap();
    packed.steps = 1;
    let task = Task {
        packed: &packed,
        offsets: packed.offsets(),
        first: 0,
        panels: 1,
        rows: &[Row::default()],
        words: &[0; 16],
        ahead: &[],
    };
    let (mut scores, mut best) = ([0.0; LANES], [Best::default()]);
    let said = refusal_of(|| (kernels.scores)(&task, &mut scores, &mut best));
    assert_eq!(said, "steps: 1");
}

/// A row without a bound has no words of its own. Those that searches of other dimensions left in its
/// place would add up to more than one row's can.
#[test]
fn words_of_other_searches_do_not_overflow() {
    for kernels in tables() {
        for (dim, greatest) in [2048, 1024, 512, 256, 128]
            .map(|dim| (dim, 1.0))
            .into_iter()
            .chain([(2048, f32::MAX)])
        {
            let mut centroids = vec![1.0; dim];
            centroids.resize(2 * dim, -1.0);
            let centroids =
                crate::clusters::centroids::Centroids::with_kernels(&centroids, dim, kernels)
                    .unwrap();
            assert_eq!(centroids.nearest(&vec![greatest; dim]).unwrap().0, 0);
        }
    }
}

proptest! {
    /// Of vectors that are not packed, too: the least float64 distance is among the candidates.
    #[test]
    fn candidates_among_vectors_as_they_are_hold_the_nearest(
        (dim, x, vectors) in (1usize..70, 1usize..9, 1usize..120).prop_flat_map(|(dim, n, k)| {
            (Just(dim), values(n * dim), values(k * dim))
        }),
    ) {
        for kernels in tables() {
            let mut search = search::Search::default();
            let plain = Plain { x: &x, vectors: &vectors, dim };
            if !search.compare(kernels, &plain) {
                continue; // Values beyond the bound.
            }
            for (i, x) in x.chunks_exact(dim).enumerate() {
                let Some(candidates) = search.candidates(i) else {
                    continue;
                };
                let mut nearest = (f64::INFINITY, 0);
                for (k, vector) in vectors.chunks_exact(dim).enumerate() {
                    let distance = portable::squared_distance(x, vector);
                    if distance < nearest.0 {
                        nearest = (distance, k as u32);
                    }
                }
                prop_assert!(candidates.iter().any(|&(k, _)| k == nearest.1), "{:?}", kernels.isa);
                prop_assert!(candidates.is_sorted_by_key(|&(k, _)| k));
            }
        }
    }
}

/// Every integer at its greatest, in the signs that add up and in those that cancel.
#[test]
fn products_of_the_greatest_integers_do_not_overflow() {
    for dim in [1, 7, 8, 384, 2048] {
        let patterns: [fn(usize) -> f32; 4] = [
            |_| 1.0,
            |_| -1.0,
            |i| if i % 2 == 0 { 1.0 } else { -1.0 },
            |i| if i % 2 == 0 { -1.0 } else { 1.0 },
        ];
        let rows: Vec<f32> = (patterns.iter())
            .flat_map(|pattern| (0..dim).map(pattern))
            .collect();
        for kernels in tables() {
            let centroids =
                crate::clusters::centroids::Centroids::with_kernels(&rows, dim, kernels).unwrap();
            let mut found = [0; 4];
            centroids
                .assign(&rows, &mut found, None, &Run::default())
                .unwrap();
            let expected = if dim == 1 { [0, 1, 0, 1] } else { [0, 1, 2, 3] };
            assert_eq!(found, expected, "{:?}, dim {dim}", kernels.isa);
            let counts = centroids.count_candidates(&rows);
            assert_eq!(
                counts,
                [if dim == 1 { 2 } else { 1 }; 4],
                "{:?}",
                kernels.isa
            );
        }
    }
}

#[test]
fn winners_of_costs_beyond_float32_are_those_of_the_definition() {
    let (clusters, llms) = (16, 40);
    let psi: Vec<f32> = (0..clusters * llms)
        .map(|i| (i * 37 % 101) as f32 / 101.0)
        .collect();
    let mut phi = vec![0.0; clusters * clusters];
    for k in 0..clusters {
        phi[k * clusters + k] = 1.0;
    }
    for (low, high) in [(0.0, 1e30), (0.0, 1e77), (0.0, 1e80), (-1e308, 1e308)] {
        let costs: Vec<f64> = (0..llms)
            .map(|m| if m % 3 == 0 { high } else { low })
            .collect();
        for weight in [0.0, 1e-200, 1.0] {
            let winner = |losses: &[f32]| {
                let value = |m: usize| f64::from(losses[m]) + weight * costs[m];
                let key = |m: usize| (value(m), costs[m], m);
                (0..llms)
                    .min_by(|&a, &b| key(a).partial_cmp(&key(b)).unwrap())
                    .unwrap() as u32
            };
            let expected: Vec<u32> = psi.chunks_exact(llms).map(winner).collect();
            for kernels in tables() {
                let pool = PackedPool::with_kernels(&psi, &costs, kernels).unwrap();
                let mut winners = vec![0; clusters];
                let given = Weights::Same(weight);
                pool.best(&phi, given, 1, &mut winners, None, &Run::default())
                    .unwrap();
                assert_eq!(winners, expected, "{high:e}, {weight:e}, {:?}", kernels.isa);
            }
        }
    }
}

proptest! {
    #[test]
    fn weighted_rows_agree_bit_for_bit(
        m in 1usize..400,
        phi in prop::collection::vec((0u32..5, 0.0f32..1.0), 0..40),
        seed in values(64),
    ) {
        let psi: Vec<f32> = (0..5 * m).map(|i| seed[i * 13 % 64] * (1.0 + i as f32 * 1e-3)).collect();
        let (phi_idx, phi_val): (Vec<u32>, Vec<f32>) = phi.into_iter().unzip();
        let mut expected = vec![f32::NAN; m];
        (portable::KERNELS.weighted_rows)(&phi_idx, &phi_val, &psi, &mut expected);
        for kernels in tables() {
            let mut found = vec![f32::NAN; m];
            (kernels.weighted_rows)(&phi_idx, &phi_val, &psi, &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                // NaN (of infinities that meet) has no agreed bits.
                prop_assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()));
            }
        }
    }

    #[test]
    fn scans_agree_with_sorting(
        rows in prop::collection::vec(
            (prop_oneof![Just(f32::NAN), Just(f32::INFINITY), (-2i8..3).prop_map(f32::from)],
             0u8..3, 0u8..3, 0u8..4, prop::bool::weighted(0.8), 0u8..3),
            0..1300,
        ),
        cost_weight in prop_oneof![Just(0.0), Just(1.0), Just(f64::MAX), 0.0..2.0],
        tokens_in in 0u8..3,
        masked: bool,
        metered: bool,
        roughly: bool,
        scale in prop_oneof![Just(1.0), Just(1e-45), Just(1e38), Just(1e300), 0.0..1.0],
        limit in prop_oneof![Just(f64::INFINITY), -2.0..2.0],
        n in 0usize..12,
    ) {
        let gamma: Vec<f32> = rows.iter().map(|r| r.0).collect();
        let a: Vec<f64> = rows.iter().map(|r| f64::from(r.1) * scale).collect();
        let b: Vec<f64> = rows.iter().map(|r| f64::from(r.2) * scale).collect();
        let base: Vec<f64> = rows.iter().map(|r| f64::from(r.5) / 8.0 * scale).collect();
        let rounded = [&base, &a, &b].map(|v| v.iter().map(|&v| round_down(v)).collect::<Vec<_>>());
        let tokens_out: Vec<f32> = rows.iter().map(|r| f32::from(r.3)).collect();
        let mut mask = vec![0u64; rows.len().div_ceil(64)];
        for (m, row) in rows.iter().enumerate() {
            mask[m / 64] |= u64::from(row.4) << (m % 64);
        }
        let costs = if metered {
            Costs::Metered {
                base: &base,
                in_prices: &a,
                out_prices: &b,
                tokens_in: f64::from(tokens_in),
                tokens_out: &tokens_out,
                rough: roughly.then_some(Rough {
                    base: &rounded[0],
                    in_prices: &rounded[1],
                    out_prices: &rounded[2],
                }),
            }
        } else {
            Costs::Given(&a)
        };
        let scan = Scan::new(&gamma, costs, cost_weight, masked.then_some(&mask));

        let cost = |m: usize| if metered {
            a[m] * f64::from(tokens_in) + b[m] * f64::from(tokens_out[m]) + base[m]
        } else {
            a[m]
        };
        let objective = |m: usize| f64::from(gamma[m]) + cost_weight * cost(m);
        let mut order: Vec<u32> = (0..rows.len() as u32)
            .filter(|&m| (!masked || rows[m as usize].4) && !objective(m as usize).is_nan())
            .collect();
        order.sort_by(|&i, &j| {
            let key = |m: u32| (objective(m as usize), cost(m as usize), m);
            key(i).partial_cmp(&key(j)).unwrap()
        });

        for kernels in tables() {
            let first = order.first().copied();
            prop_assert_eq!(scan.argmin_by(kernels, f64::INFINITY), first, "{:?}", kernels.isa);
            let within = first.filter(|&m| objective(m as usize) <= limit);
            prop_assert_eq!(scan.argmin_by(kernels, limit), within, "{:?}", kernels.isa);
            let mut objectives = vec![0.0; rows.len()];
            (kernels.objectives)(&scan, 0, &mut objectives);
            let least = (kernels.least)(&scan, 0, rows.len());
            prop_assert_eq!(least, objectives.iter().copied().fold(f64::INFINITY, f64::min));
            for (m, &found) in objectives.iter().enumerate() {
                let expected = if scan.takes_part(m) { objective(m) } else { f64::NAN };
                prop_assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()));
            }
        }
        let mut top = vec![7];
        scan.top_n(n, &mut top);
        order.truncate(n);
        prop_assert_eq!(top, order);
    }

    /// The certificate itself: the true score lies within the bound of the computed one.
    #[test]
    fn true_scores_lie_within_the_bound(
        dim in 1usize..150,
        count in 1usize..90,
        n in 1usize..8,
        seed in values(97),
        power in -60i32..60,
        offset in prop_oneof![Just(0.0f32), -1e6f32..1e6],
    ) {
        let magnitude = 2f32.powi(power);
        let take = |i: usize| {
            let value = seed[i * 31 % 97] * (1.0 + (i % 1013) as f32 * 1e-3) * magnitude + offset;
            if value.is_finite() { value } else { 0.0 }
        };
        let data: Vec<f32> = (0..count * dim).map(take).collect();
        let x: Vec<f32> = (0..n * dim).map(|i| take(i * 3 + 1)).collect();
        let precisions = |kernels: &Kernels| [kernels.precision, kernels.pool_precision];
        for (kernels, precision) in tables().flat_map(|k| precisions(k).map(|p| (k, p))) {
            let packed = Packed::centroids(&data, dim, precision).unwrap();
            let scale = f64::from(packed.shift_scale);
            let shifted = |row: &[f32]| -> Vec<f64> {
                let mu = packed.centre.iter().map(|&mu| f64::from(mu));
                row.iter().zip(mu).map(|(&v, mu)| f64::from(v) * scale - mu).collect()
            };
            let mut words = vec![0; packed.row_stride];
            for x in x.chunks_exact(dim) {
                let Some(row) = (kernels.quantise)(&packed, x, &mut words) else { continue };
                let task = Task {
                    packed: &packed,
                    offsets: packed.offsets(),
                    first: 0,
                    panels: count.div_ceil(LANES),
                    rows: &[row],
                    words: &words,
                    ahead: &[],
                };
                let mut scores = vec![f32::NAN; task.panels * LANES];
                let mut best = [Best::default()];
                (kernels.scores)(&task, &mut scores, &mut best);
                let y = shifted(x);
                let mut greatest = f64::NEG_INFINITY;
                for (k, c) in data.chunks_exact(dim).enumerate() {
                    let e = shifted(c);
                    let score: f64 = y.iter().zip(&e).map(|(y, e)| y * e - 0.5 * e * e).sum();
                    let bound = f64::from(row.bound(&packed.bounds[k / LANES / GROUP]));
                    prop_assert!(
                        (f64::from(scores[k]) - score).abs() <= bound,
                        "{:?}, vector {}: {} for {}, bound {}", kernels.isa, k, scores[k], score, bound,
                    );
                    greatest = greatest.max(score);
                }
                for lower in best[0].lower {
                    prop_assert!(f64::from(lower) <= greatest);
                }
            }
        }
    }

    /// The tiles of the first run fetch the rows ahead once, in order, and those of later runs none.
    #[test]
    fn rows_ahead_are_fetched_once(
        panels in 1usize..65,
        n in 1usize..60,
        ahead in 0usize..3000,
        tall in 1usize..8,
    ) {
        let packed = Packed::empty(panels * LANES, 8, Precision::Int8).unwrap();
        let rows = vec![Row::default(); n];
        let ahead: Vec<f32> = (0..ahead).map(|i| i as f32).collect();
        let mut task = Task {
            packed: &packed,
            offsets: packed.offsets(),
            first: 0,
            panels,
            rows: &rows,
            words: &[],
            ahead: &ahead,
        };
        let fetched = |task: &Task<'_>| -> Vec<f32> {
            (0..panels)
                .step_by(GROUP)
                .flat_map(|panel| (0..n).step_by(tall).map(move |row| (panel, row)))
                .flat_map(|(panel, row)| task.ahead_of(row, tall.min(n - row), panel).to_vec())
                .collect()
        };
        prop_assert_eq!(fetched(&task), ahead.clone());
        task.first = 4 * GROUP;
        prop_assert!(fetched(&task).is_empty());
    }

    /// Winners of mixtures, of few clusters and of all, are those of the definition; ties included.
    #[test]
    fn winners_are_those_of_the_definition(
        clusters in 1usize..90,
        llms in 1usize..400,
        n in 1usize..60,
        cut in prop_oneof![Just(0.0f32), Just(0.3), Just(0.95)],
        round: bool,
        offset in prop_oneof![Just(0.0f32), Just(-1e5)],
        least_cost in prop_oneof![Just(0.0), Just(1e6)],
        weights in prop::collection::vec(prop_oneof![Just(0.0), Just(1e14), 0.0..2.0], 60),
        same: bool,
        seed in prop::collection::vec(0.0f32..1.0, 211),
    ) {
        let take = |i: usize| (seed[i * 31 % 211] + seed[i * 17 % 199] * (i % 1013) as f32 * 1e-3) % 1.0;
        let rounded = |v: f32| if round { (v * 4.0).round() / 4.0 } else { v };
        let psi: Vec<f32> = (0..clusters * llms).map(|i| rounded(take(i)) + offset).collect();
        let costs: Vec<f64> =
            (0..llms).map(|m| least_cost + f64::from(rounded(take(7 * m + 3)))).collect();
        let phi: Vec<f32> = (0..n * clusters)
            .map(|i| Some(take(3 * i + 1)).filter(|&v| v >= cut).unwrap_or(0.0))
            .collect();
        let weight = |i: usize| if same { weights[0] } else { weights[i] };
        let expected: Vec<(u32, f32)> = phi
            .chunks_exact(clusters)
            .enumerate()
            .map(|(i, phi)| {
                let mut gamma = vec![0.0f32; llms];
                for (phi, psi) in phi.iter().zip(psi.chunks_exact(llms)) {
                    for (gamma, psi) in gamma.iter_mut().zip(psi) {
                        *gamma += phi * psi;
                    }
                }
                let key = |m: usize| (f64::from(gamma[m]) + weight(i) * costs[m], costs[m], m);
                let winner = (0..llms).min_by(|&a, &b| key(a).partial_cmp(&key(b)).unwrap());
                let winner = winner.unwrap();
                (winner as u32, gamma[winner])
            })
            .collect();
        for kernels in tables() {
            let pool = PackedPool::with_kernels(&psi, &costs, kernels).unwrap();
            let (mut winners, mut losses) = (vec![0; n], vec![0.0; n]);
            let given = if same { Weights::Same(weights[0]) } else { Weights::Each(&weights[..n]) };
            pool.best(&phi, given, 1, &mut winners, Some(&mut losses), &Run::default()).unwrap();
            let found: Vec<_> = winners.into_iter().zip(losses).collect();
            prop_assert_eq!(&found, &expected, "{:?}", kernels.isa);
            let one = pool.best_one(&phi[..clusters], weight(0)).unwrap();
            prop_assert_eq!(one, expected[0], "{:?}", kernels.isa);
        }
    }
}
