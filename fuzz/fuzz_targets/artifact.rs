#![no_main]

use libfuzzer_sys::fuzz_target;
use uniroute_core::fuzzing;

fuzz_target!(|data: &[u8]| fuzzing::artifact(data));
