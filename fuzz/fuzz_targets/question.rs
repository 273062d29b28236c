#![no_main]

use libfuzzer_sys::fuzz_target;
use uniroute_server::fuzzing;

fuzz_target!(|data: &[u8]| fuzzing::question(data));
