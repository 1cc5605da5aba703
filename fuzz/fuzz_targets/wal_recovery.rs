#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::wal_recovery`.
rnacos_fuzz::target!(wal_recovery);
