#![cfg_attr(fuzzing, no_main)]
//! See `rnacos_fuzz::targets::grpc_payload`.
rnacos_fuzz::target!(grpc_payload);
