//! What a run proved: the history's checks, and the rules that make a run void.

use std::time::Duration;

use super::checker::{self, Finding};
use super::history::{Action, Answer, History, Operation};
use super::listeners::Listeners;
use super::nemesis::Nemesis;
use crate::ledger::{Ledger, Said};
use crate::verdict::Report;

/// Fewest successful operations per second of the plan for a run to count.
const SUCCESSES_PER_SECOND: usize = 20;

/// What happened so far, for the rules of a void run. All of them are reached some time on any machine; a
/// slow one is given longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    successes: usize,
    compared: usize,
    acknowledged: usize,
    told: usize,
}

impl Counts {
    pub(super) fn new(history: &History, ledger: &Ledger, listeners: &Listeners) -> Self {
        Self {
            successes: history.successes(),
            compared: history.compared(),
            acknowledged: ledger.count(Said::Done),
            told: listeners.told(),
        }
    }

    /// Whether a run of this length may end.
    pub(super) fn suffice(self, duration: Duration) -> bool {
        let mut report = Report::new("enough");
        self.judge(duration, &mut report);
        report.exit_code() == 0
    }

    /// Void if too little happened.
    pub(super) fn judge(self, duration: Duration, report: &mut Report) {
        let Self {
            successes,
            compared,
            acknowledged,
            told,
        } = self;
        let seconds = usize::try_from(duration.as_secs()).unwrap_or(usize::MAX).max(1);
        let wanted = SUCCESSES_PER_SECOND * seconds;
        report.demand(successes >= wanted, || {
            format!("only {successes} operations succeeded, fewer than {wanted}")
        });
        report.demand(compared > 0, || "no CAS succeeded".to_owned());
        report.demand(acknowledged >= seconds, || {
            format!("only {acknowledged} ledger writes were acknowledged, fewer than {seconds}")
        });
        report.demand(told >= seconds, || {
            format!("listeners were told of {told} changes only, fewer than {seconds}")
        });
    }
}

/// Void if a demanded fault did not happen, or did nothing.
pub(super) fn faults(nemesis: &Nemesis, history: &History, leader_changes: u64, report: &mut Report) {
    report.figure("faults", format!("{:?}", nemesis.done()));
    report.figure("writes refused for want of space", history.refused_for_space());
    for group in nemesis.missing(history) {
        report.void(format!("the demanded fault {group:?} did not happen"));
    }
    report.demand(nemesis.done().is_empty() || leader_changes > 0, || {
        "the leader never changed".to_owned()
    });
}

/// Checks every register.
pub(super) fn history(history: &History, report: &mut Report) {
    let operations = history.operations();
    let findings = checker::check(&operations);
    for (key, finding) in &findings {
        match finding {
            Finding::Linearizable => {}
            Finding::Violation(what) => report.violate(format!("register {key} is not linearizable: {what}")),
            Finding::Undecided => report.void(format!("register {key}: too many unknown outcomes to decide")),
        }
    }
    let count =
        |which: fn(&Operation) -> bool| operations.iter().filter(|operation| which(operation)).count();
    let reads = count(|operation| matches!(operation.answer, Answer::Value(_)));
    let writes = count(|operation| operation.answer == Answer::Applied);
    let compared = count(|o| matches!(o.action, Action::Cas { .. }) && matches!(o.answer, Answer::Applied));
    let unknown = count(|operation| operation.answer == Answer::Unknown);
    report.figure("registers checked", findings.len());
    report.figure(
        "operations",
        format!(
            "{} ({reads} reads, {writes} writes of which {compared} CAS, {unknown} unknown)",
            operations.len()
        ),
    );
}
