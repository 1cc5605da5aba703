#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::scanner`.
rnacos_fuzz::target!(scanner);
