//! Values that benches and examples work on.

use uniroute_core::kernels::{Aligned, round_down};

/// Numbers between 0 and 1 that look random and are the same in every run.
pub fn noise(n: usize, salt: u64) -> Vec<f32> {
    let mix = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt.wrapping_mul(0xd129_0d3b));
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32
    };
    (0..n as u64).map(|i| mix(i) / (1 << 24) as f32).collect()
}

/// Prices rounded down, as a rough scan reads them.
pub fn rounded(values: &[f64]) -> Aligned<f32> {
    let rounded: Vec<f32> = values.iter().map(|&v| round_down(v)).collect();
    Aligned::from(&rounded[..])
}

/// The same values in float64.
pub fn wide(values: Vec<f32>) -> Aligned<f64> {
    let wide: Vec<f64> = values.into_iter().map(f64::from).collect();
    Aligned::from(&wide[..])
}
