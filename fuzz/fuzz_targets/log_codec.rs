#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::log_codec`.
rnacos_fuzz::target!(log_codec);
