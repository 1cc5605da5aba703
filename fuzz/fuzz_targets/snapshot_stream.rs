#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::snapshot_stream`.
rnacos_fuzz::target!(snapshot_stream);
