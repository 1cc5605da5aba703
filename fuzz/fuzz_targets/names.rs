#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::names`.
rnacos_fuzz::target!(names);
