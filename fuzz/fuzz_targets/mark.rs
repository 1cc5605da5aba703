#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::mark`.
rnacos_fuzz::target!(mark);
