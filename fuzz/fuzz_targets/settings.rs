#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::settings`.
rnacos_fuzz::target!(settings);
