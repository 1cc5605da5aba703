//! Black-box proofs: real servers are started, broken, and asked whether they kept what they promised.
//!
//! A harness knows nothing of the server but its binary, its environment variables, HTTP v1 (and `rnacos cluster`). Every
//! scenario ends in a [`verdict::Report`]: *passed*, *violated*, or *void* when the demanded fault did
//! not happen or too little succeeded. Void counts as failed: a run that proves nothing must not look
//! like one that does.
//!
//! The pieces, from the bottom: [`node`] (one server process), [`cluster`] (several), [`api`] (a client
//! that says of each request whether it happened, did not, or may have), [`ledger`] (acknowledged writes
//! and where they must be found), [`load`] (CPU load beside the servers), [`disk`] (a disk whose power
//! can be cut), [`strace`] (what a server really asked of the kernel). One module per scenario above.

pub mod announcement;
pub mod api;
pub mod chaos;
pub mod cluster;
pub mod disk;
pub mod disk_probe;
pub mod errors;
pub mod first_starts;
pub mod hostile;
pub mod kill_all;
pub mod leader_kill;
pub mod ledger;
pub mod load;
pub mod naming;
pub mod node;
pub mod pause_leader;
pub mod power_cut;
pub mod scale;
pub mod seeded;
pub mod strace;
pub mod syncs;
pub mod verdict;
