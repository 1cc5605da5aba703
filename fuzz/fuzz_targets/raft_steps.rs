#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::raft_steps`.
rnacos_fuzz::target!(raft_steps);
