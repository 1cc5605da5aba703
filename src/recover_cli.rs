//! `rnacos recover …`: the data folder of a stopped node, for an operator who must decide what may be lost.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::settings::Recover;

/// Says what the folder holds and what is wrong with it; then, for the other two, asks and does it.
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub fn run(recover: Recover, dir: &Path) -> ExitCode {
    match storage::recover::inspect(dir) {
        Ok(inspection) => println!("{inspection}"),
        Err(error) => return refuse(&error),
    }
    let (loss, yes) = match recover {
        Recover::Inspect => return ExitCode::SUCCESS,
        Recover::AcceptLoss { yes } => (ACCEPT_LOSS, yes),
        Recover::ForceSingle { yes } => (FORCE_SINGLE, yes),
    };
    println!("\n{loss}");
    if !yes && !confirmed() {
        println!("nothing was changed");
        return ExitCode::FAILURE;
    }
    let done = match recover {
        Recover::ForceSingle { .. } => storage::recover::force_single(dir, new_cluster_id()),
        _ => storage::recover::accept_loss(dir),
    };
    match done {
        Ok(recovery) => {
            println!("{recovery}\ndone: start the node again");
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

const ACCEPT_LOSS: &str = "The node will go on with what is readable. Writes that it had acknowledged and that no other member has \
are lost for good.";

const FORCE_SINGLE: &str = "This node will become the only member of a cluster of its own, with the data it has. Writes that only the \
other members have are lost for good; those members must be wiped before they join again.";

fn new_cluster_id() -> storage::ClusterId {
    use rand::RngExt as _;
    storage::ClusterId(rand::rng().random_range(1..=u128::MAX))
}

#[expect(clippy::print_stderr, reason = "a command tells its user")]
fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rnacos: {error}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "a question to the user")]
fn confirmed() -> bool {
    print!("Type yes to do it: ");
    if std::io::stdout().flush().is_err() {
        return false;
    }
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
