//! Instruction sets: the only place for `unsafe`.
