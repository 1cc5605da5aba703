//! `rnacos cluster …`: looks at, and changes, the membership of a running cluster through the peer door of
//! any of its members, as an operator who holds the cluster token (without one: on the same machine).
//!
//! Exit codes, also listed in docs/operations.md:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; `status`: a leader is known and every member is well |
//! | 1 | not done, and nothing was changed; the sentence says what to do |
//! | 2 | the command line cannot be understood (clap says so) |
//! | 3 | it is not known whether it was done; the same command may be given again |
//! | 4 | `status` only: the cluster answered, and something needs attention |

mod ask;
mod report;
mod steps;

use std::process::ExitCode;

use serde::Serialize;

use self::ask::Operator;
pub use self::report::{MemberView, View};
use crate::cluster::ClusterToken;
use crate::settings::{Cluster, ClusterAsk, ClusterCommand};

/// What a command came to.
#[derive(Debug)]
pub enum Answer {
    /// `status`.
    View(Box<View>),
    /// Done, in one sentence.
    Done(String),
}

/// A command came to nothing, or it is not known to what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was changed.
    #[error("{0}")]
    NotDone(String),
    /// It may have been done; asking again is safe.
    #[error("{0}")]
    Unknown(String),
}

/// Carries the command out, prints what came of it, and gives the exit code.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the answer is what the command is for"
)]
pub fn run(command: &ClusterCommand, settings: &Cluster) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rnacos: {error}");
            return ExitCode::from(NOT_DONE);
        }
    };
    let answer = runtime.block_on(carry_out(command, settings));
    // A name that is still being resolved must not hold the command up.
    runtime.shutdown_background();
    let code = exit_code(&answer);
    match (command.json, answer) {
        (true, answer) => println!("{}", to_json(&answer)),
        (false, Ok(Answer::View(view))) => print!("{view}"),
        (false, Ok(Answer::Done(sentence))) => println!("{sentence}"),
        (false, Err(failure)) => eprintln!("rnacos: {failure}"),
    }
    ExitCode::from(code)
}

/// Carries the command out.
///
/// # Errors
/// See [`Failure`].
pub async fn carry_out(command: &ClusterCommand, settings: &Cluster) -> Result<Answer, Failure> {
    let operator = operator(command, settings);
    match &command.ask {
        ClusterAsk::Status => Ok(Answer::View(Box::new(report::look(&operator).await?))),
        ClusterAsk::Add { id, address } => steps::add(&operator, *id, address).await.map(Answer::Done),
        ClusterAsk::Remove { id } => steps::remove(&operator, *id).await.map(Answer::Done),
        ClusterAsk::Transfer { id } => steps::transfer(&operator, *id).await.map(Answer::Done),
    }
}

fn operator(command: &ClusterCommand, settings: &Cluster) -> Operator {
    let token = match &settings.token {
        Some(token) => ClusterToken::new(token.expose()),
        None => ClusterToken::unset(),
    };
    let doors = match &command.at {
        Some(address) => vec![address.clone()],
        None => [Some(&settings.node_address), settings.join_address.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    };
    Operator::new(token, doors)
}

const NOT_DONE: u8 = 1;
const UNKNOWN: u8 = 3;
const NEEDS_ATTENTION: u8 = 4;

/// The exit code of an answer; see the table at the top.
pub fn exit_code(answer: &Result<Answer, Failure>) -> u8 {
    match answer {
        Ok(Answer::View(view)) if !view.is_well() => NEEDS_ATTENTION,
        Ok(_) => 0,
        Err(Failure::NotDone(_)) => NOT_DONE,
        Err(Failure::Unknown(_)) => UNKNOWN,
    }
}

/// `{"outcome": "done" | "not-done" | "unknown", "message": …}`, or the whole [`View`].
fn to_json(answer: &Result<Answer, Failure>) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        outcome: &'a str,
        message: &'a str,
    }
    let told = |outcome, message| serde_json::to_string(&Told { outcome, message });
    match answer {
        Ok(Answer::View(view)) => serde_json::to_string(view),
        Ok(Answer::Done(sentence)) => told("done", sentence),
        Err(Failure::NotDone(sentence)) => told("not-done", sentence),
        Err(Failure::Unknown(sentence)) => told("unknown", sentence),
    }
    // Nothing in there has a key that is no text.
    .unwrap_or_default()
}

#[cfg(test)]
mod tests;
