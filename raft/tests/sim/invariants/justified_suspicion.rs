//! A node becomes suspect only when its disk was damaged (R44): a legal truncation, a crash between log
//! and mark, a torn write must not make a healthy majority useless.

use raft::NodeId;

use super::super::disk::Disk;
use super::{Checked, Violation};

/// The node was opened; `newly_suspect`: this open raised the suspicion.
pub(crate) fn check(id: NodeId, disk: &Disk, newly_suspect: bool) -> Checked {
    if newly_suspect && !disk.damaged {
        let text = format!(
            "node {id} is suspect and its disk was never harmed: {:?}",
            disk.mark
        );
        return Err(Violation::new("justified_suspicion", text));
    }
    Ok(())
}
