#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::command`.
rnacos_fuzz::target!(command);
