#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::cluster_frame`.
rnacos_fuzz::target!(cluster_frame);
