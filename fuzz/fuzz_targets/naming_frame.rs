#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::naming_frame`.
rnacos_fuzz::target!(naming_frame);
