//! Prints the instruction sets that `UNIROUTE_ISA` may name on this CPU, one a line, and says why the
//! others may not.

use uniroute_core::kernels::{Isa, Kernels};

fn main() {
    for isa in Isa::ALL {
        match Kernels::of(isa) {
            Ok(kernels) => println!("{}", kernels.isa.name()),
            Err(error) => eprintln!("{error}"),
        }
    }
}
