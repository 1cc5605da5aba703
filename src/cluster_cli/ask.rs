//! Asking a member, and following the hints to the one that leads.

use std::time::Duration;

use raft::{Member, NodeId};
use tokio::time::sleep;

use super::Failure;
use crate::clock;
use crate::cluster::{
    Call, CallError, CallRefused, CallReply, ClusterToken, Credentials, Identity, Kind, PeerClient,
    StatusReport, Target, WhyRefused,
};
use crate::error::with_causes;

/// Resolving, connecting and shaking hands with one node. A node that is there answers within
/// milliseconds; this is for slow names and far machines.
const DIAL_WITHIN: Duration = Duration::from_secs(2);

/// One look at a node.
const LOOK_WITHIN: Duration = Duration::from_secs(3);

/// One attempt at a change; the node asked works on it for up to 10 s.
const CHANGE_WITHIN: Duration = Duration::from_secs(12);

/// How long a leader is looked for, and a change asked for again, before the command gives up. Long enough
/// for several elections.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// An operator: the token, and where to begin.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    credentials: Credentials,
    /// Addresses of members, as the settings or the command line name them; the first one first.
    doors: Vec<String>,
}

/// What a leader made of a change.
#[derive(Debug)]
pub(super) enum Led {
    /// Done.
    Done,
    /// Refused for good; `maybe_done`: an earlier attempt of this command was not answered, so what is
    /// refused now may be so because that one was carried out.
    Refused { refused: CallRefused, maybe_done: bool },
}

impl Operator {
    pub(super) fn new(token: ClusterToken, doors: Vec<String>) -> Operator {
        let credentials = Credentials::new(token, Kind::Operator, Identity::operator());
        Operator { credentials, doors }
    }

    /// Asks whoever answers at `address`.
    async fn call(
        &self,
        address: &str,
        target: Target,
        call: &Call,
        within: Duration,
    ) -> Result<CallReply, CallError> {
        let mut client = PeerClient::connect(address, &self.credentials, target, DIAL_WITHIN).await?;
        client.call(call, within).await
    }

    /// Where the node at `address` stands.
    pub(super) async fn status(&self, address: &str, target: Target) -> Result<StatusReport, String> {
        match self.call(address, target, &Call::Status, LOOK_WITHIN).await {
            Ok(CallReply::Status(report)) => Ok(*report),
            Ok(CallReply::Refused(refused)) => Err(refused.sentence),
            Ok(_) => Err("it gave an answer that does not fit: compare the versions".to_owned()),
            Err(error) => Err(with_causes(&error)),
        }
    }

    /// Where the first of the doors that answers stands.
    pub(super) async fn first_status(&self) -> Result<StatusReport, Failure> {
        let mut obstacles = Vec::new();
        for address in &self.doors {
            match self.status(address, Target::default()).await {
                Ok(report) => return Ok(report),
                Err(obstacle) => obstacles.push(obstacle),
            }
        }
        Err(Failure::NotDone(format!(
            "no member answers: {}. Name a running member with --at HOST:PORT, its gRPC port (HTTP port + 1000)",
            obstacles.join("; ")
        )))
    }

    /// Has the leader carry out `call`, whoever that is by now. Every call may be made again, so it is,
    /// until it is answered or [`PATIENCE`] is over.
    pub(super) async fn lead(&self, call: &Call) -> Result<Led, Failure> {
        let deadline = clock::now() + PATIENCE;
        let mut search = Search::new(&self.doors);
        let mut maybe_done = false;
        loop {
            let address = search.next().await;
            match self.call(&address, Target::default(), call, CHANGE_WITHIN).await {
                Ok(CallReply::Done(_)) => return Ok(Led::Done),
                Ok(CallReply::Refused(refused)) => match &refused.why {
                    WhyRefused::NotLeader(Some(leader)) => search.sent_on_to(leader),
                    WhyRefused::NotLeader(None) => search.obstacle(refused.sentence),
                    WhyRefused::Unavailable => {
                        // "Not known to be made" is among these.
                        maybe_done = true;
                        search.obstacle(refused.sentence);
                    }
                    WhyRefused::Core(_) | WhyRefused::NotAllowed | WhyRefused::UnknownCall => {
                        return Ok(Led::Refused { refused, maybe_done });
                    }
                },
                Ok(_) => search.obstacle(format!("{address} gave an answer that does not fit")),
                Err(error) => {
                    maybe_done |= matches!(error, CallError::Unanswered { .. });
                    search.obstacle(with_causes(&error));
                }
            }
            if clock::now() >= deadline {
                return Err(search.give_up(maybe_done));
            }
            if search.hint.is_none() && !search.has_met {
                self.learn_members(&mut search).await;
            }
        }
    }

    /// The leader's own report, once there is one that `is_it`.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        is_it: impl Fn(&StatusReport) -> bool,
    ) -> Result<StatusReport, Failure> {
        let deadline = clock::now() + PATIENCE;
        let mut search = Search::new(&self.doors);
        loop {
            let address = search.next().await;
            match self.status(&address, Target::default()).await {
                Ok(report) => {
                    search.know(&report);
                    match leader_of(&report) {
                        Some(leader) if leader.id != report.identity.node_id => search.sent_on_to(leader),
                        Some(_) if is_it(&report) => return Ok(report),
                        Some(_) => search.stay(address).await,
                        None => search.obstacle("no leader is known".to_owned()),
                    }
                }
                Err(obstacle) => search.obstacle(obstacle),
            }
            if clock::now() >= deadline {
                return Err(Failure::Unknown(format!(
                    "{what} within {} s ({}): look with `rnacos cluster status` and give the command again",
                    PATIENCE.as_secs(),
                    search.last_obstacle
                )));
            }
        }
    }

    /// When the one that was asked dies, others can say who leads.
    async fn learn_members(&self, search: &mut Search) {
        for address in search.known.clone() {
            if let Ok(report) = self.status(&address, Target::default()).await {
                search.know(&report);
                return;
            }
        }
    }
}

/// Whom to ask next: whoever is said to lead, otherwise every known member in turn.
struct Search {
    /// Never empty: there is always a door.
    known: Vec<String>,
    /// How many of `known` were asked in turn.
    turn: usize,
    /// Ask this one next, at once.
    hint: Option<String>,
    /// Hints followed in a row; two nodes that name each other must not make a busy loop.
    hops: usize,
    last_obstacle: String,
    /// The members are known, not only the doors.
    has_met: bool,
}

const HOPS_MAX: usize = 3;

impl Search {
    fn new(doors: &[String]) -> Search {
        Search {
            known: doors.to_vec(),
            turn: 0,
            hint: None,
            hops: 0,
            last_obstacle: "nobody was asked".to_owned(),
            has_met: false,
        }
    }

    /// The next address; after a pause, unless it is the first one or somebody's hint.
    async fn next(&mut self) -> String {
        if let Some(hint) = self.hint.take()
            && self.hops < HOPS_MAX
        {
            self.hops += 1;
            return hint;
        }
        self.hops = 0;
        if self.turn > 0 {
            sleep(PAUSE).await;
        }
        let place = self.turn % self.known.len().max(1);
        self.turn += 1;
        self.known.get(place).cloned().unwrap_or_default()
    }

    fn sent_on_to(&mut self, leader: &Member) {
        self.last_obstacle = format!("node {} at {} is said to lead", leader.id, leader.address);
        self.hint = Some(leader.address.clone());
    }

    fn know(&mut self, report: &StatusReport) {
        self.has_met = true;
        for member in report.status.configuration.members.values() {
            if !self.known.contains(&member.address) {
                self.known.push(member.address.clone());
            }
        }
    }

    /// The same one again, after a pause.
    async fn stay(&mut self, address: String) {
        self.last_obstacle = "it is under way".to_owned();
        sleep(PAUSE).await;
        self.hint = Some(address);
        self.hops = 0;
    }

    fn obstacle(&mut self, obstacle: String) {
        self.last_obstacle = obstacle;
    }

    fn give_up(self, maybe_done: bool) -> Failure {
        let obstacle = self.last_obstacle;
        let within = PATIENCE.as_secs();
        if maybe_done {
            return Failure::Unknown(format!(
                "it is not known whether it was done: no leader said so within {within} s ({obstacle}). Look with \
                 `rnacos cluster status`; the same command may be given again"
            ));
        }
        Failure::NotDone(format!(
            "no leader was found within {within} s, asking {} ({obstacle}): nothing was changed. Start enough members \
             for a majority, or name a running one with --at HOST:PORT, its gRPC port (HTTP port + 1000)",
            self.known.join(", ")
        ))
    }
}

/// The leader, as the node that reports knows it.
pub(super) fn leader_of(report: &StatusReport) -> Option<&Member> {
    let leader = report.status.leader?;
    report.status.configuration.members.get(&leader)
}

/// Exactly this member of this cluster.
pub(super) fn exactly(report: &StatusReport, id: NodeId) -> Target {
    let member = report.status.configuration.members.get(&id);
    Target {
        cluster_id: report.identity.cluster_id,
        node_id: Some(id),
        incarnation: member.map(|member| member.incarnation),
    }
}
