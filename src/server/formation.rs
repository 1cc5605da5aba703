//! From whatever lies in the data folder to a formed one: this node founds a cluster, joins one, goes on
//! with a forming that was interrupted, or says why it does not (docs/raft.md, "Forming a cluster").

use std::time::Duration;

use anyhow::{Context, bail};
use raft::{Boot, Configuration, Incarnation, Member, NodeId};
use storage::{ClusterId, Folder, Stage};

use super::peers::Conflict;
use crate::clock;
use crate::cluster::{
    Call, CallReply, ClusterToken, Credentials, DialError, HandshakeError, Identity, Kind, PeerClient,
    Refused, Target, WhyRefused,
};
use crate::error::with_causes;
use crate::settings;

/// How long a founder with a cluster token listens for members that count it as one of theirs. Members
/// dial a lost member at least once a second.
pub(super) const FOUNDER_LISTENS: Duration = Duration::from_secs(5);

/// A joining node asks for this long before it gives up; its peers may be starting too.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// One attempt to join: connection, handshake, and the leader's commit of the change.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(15);

/// Between two lines in the log about why a node has not joined yet.
const WORD_EVERY: Duration = Duration::from_secs(5);

/// Hints at a leader followed without a pause: two nodes that know each other as the leader would otherwise
/// keep a joining node running between them.
const HINTS_MAX: u32 = 3;

/// Pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// What has to be done before the folder can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing.
    Open,
    /// Found a cluster; the cluster id is already decided when a forming goes on.
    Found {
        incarnation: Incarnation,
        cluster_id: ClusterId,
        begun: bool,
    },
    /// Join one.
    Join { incarnation: Incarnation, begun: bool },
}

/// Looks at the folder and the settings and decides. Changes nothing.
///
/// # Errors
/// The folder is not this node's, or the settings do not say what an empty folder is to become.
pub(super) fn plan(folder: &Folder, settings: &settings::Cluster) -> anyhow::Result<Plan> {
    let node_id = NodeId(settings.node_id);
    match folder.stage()? {
        Stage::Formed => Ok(Plan::Open),
        Stage::Begun { node_id: found, .. } if found != node_id => bail!(
            "the data folder was begun by node {found}, this node is {node_id}: set RNACOS_RAFT_NODE_ID={found}, or \
             RNACOS_DATA_DIR to another folder"
        ),
        Stage::Begun {
            incarnation,
            cluster_id: Some(cluster_id),
            ..
        } => Ok(Plan::Found {
            incarnation,
            cluster_id,
            begun: true,
        }),
        Stage::Begun {
            incarnation,
            cluster_id: None,
            ..
        } => Ok(Plan::Join {
            incarnation,
            begun: true,
        }),
        Stage::Empty if settings.auto_init => Ok(Plan::Found {
            incarnation: Incarnation(random_id()),
            cluster_id: ClusterId((u128::from(random_id()) << 64) | u128::from(random_id())),
            begun: false,
        }),
        Stage::Empty if settings.join_address.is_some() => Ok(Plan::Join {
            incarnation: Incarnation(random_id()),
            begun: false,
        }),
        Stage::Empty => bail!(
            "the data folder is empty and node {node_id} is told neither to found a cluster nor to join one: set \
             RNACOS_RAFT_JOIN_ADDR to the gRPC address of a member, or RNACOS_RAFT_AUTO_INIT=true on the one node that \
             founds the cluster"
        ),
    }
}

/// Founds a cluster of this node alone.
///
/// # Errors
/// The disk; nothing is left that the next start could not finish or begin anew.
pub(super) fn found(
    folder: &mut Folder,
    settings: &settings::Cluster,
    incarnation: Incarnation,
    cluster_id: ClusterId,
    begun: bool,
) -> anyhow::Result<()> {
    let id = NodeId(settings.node_id);
    if !begun {
        folder.begin(id, incarnation, Some(cluster_id))?;
    }
    let member = Member {
        id,
        incarnation,
        address: settings.node_address.clone(),
    };
    let configuration = Configuration {
        members: [(id, member)].into(),
        voters: [id].into(),
        ..Configuration::default()
    };
    folder.finish(cluster_id, Some(&configuration))?;
    tracing::info!(cluster = %cluster_id, node = id.0, "founded a cluster of one node");
    if settings.token.is_some() || !super::peers::is_loopback(&settings.node_address) {
        tracing::warn!(
            "once a second node has joined, set RNACOS_RAFT_AUTO_INIT=false (or a join address) on this node: should it \
             lose its disk, it cannot found a second cluster then"
        );
    }
    Ok(())
}

/// What a founder says that another cluster counts as its own.
pub(super) fn conflict_sentence(conflict: &Conflict, node: u64, formed: bool) -> String {
    let Conflict { cluster_id, told_by } = conflict;
    let what = if formed {
        "this folder belongs to another cluster"
    } else {
        "its data is lost"
    };
    format!(
        "node {node} is a member of cluster {cluster_id} (node {told_by} says so), and {what}: remove it there with \
         `rnacos cluster remove {node}`, then start it on an empty folder with RNACOS_RAFT_JOIN_ADDR set to a member and \
         RNACOS_RAFT_AUTO_INIT=false"
    )
}

/// A node on its way into a cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    /// Drawn for this folder.
    pub(super) incarnation: Incarnation,
    /// The folder has it already.
    pub(super) begun: bool,
    /// Highest feature level this server knows.
    pub(super) feature_level: u32,
}

/// Joins a cluster as a learner; the leader promotes it when it has caught up.
///
/// # Errors
/// A refusal that time does not heal, in the words of the one who refused, or nobody who answers within
/// a minute.
pub(super) async fn join(
    folder: &mut Folder,
    settings: &settings::Cluster,
    token: &ClusterToken,
    joining: Joining,
) -> anyhow::Result<()> {
    let Joining {
        incarnation, begun, ..
    } = joining;
    let join_address = settings.join_address.as_deref().with_context(|| {
        "the data folder is that of a node that was about to join a cluster: set RNACOS_RAFT_JOIN_ADDR to the gRPC \
         address of a member, or RNACOS_DATA_DIR to an empty folder"
    })?;
    let id = NodeId(settings.node_id);
    if !begun {
        // Drawn and synced before anyone hears of it: a join that is tried again after a crash is the
        // same join, not another member of the same id.
        folder.begin(id, incarnation, None)?;
    }
    let member = Member {
        id,
        incarnation,
        address: settings.node_address.clone(),
    };
    let cluster_id = ask_to_join(join_address, token, member, joining.feature_level).await?;
    folder.finish(cluster_id, None)?;
    tracing::info!(cluster = %cluster_id, node = id.0, "joined the cluster as a learner");
    Ok(())
}

/// Asks until the leader has made `member` a member, and gives the cluster's id.
async fn ask_to_join(
    join_address: &str,
    token: &ClusterToken,
    member: Member,
    feature_level: u32,
) -> anyhow::Result<ClusterId> {
    let identity = Identity {
        cluster_id: None,
        node_id: member.id,
        incarnation: member.incarnation,
        boot: Boot(0),
        feature_level,
        address: member.address.clone(),
    };
    let credentials = Credentials::new(token.clone(), Kind::Joiner, identity);
    let deadline = clock::now() + JOIN_WITHIN;
    let mut address = join_address.to_owned();
    let mut next_word = clock::now();
    let mut hints = 0;
    loop {
        let obstacle = match attempt(&address, &credentials, &member).await {
            Attempt::Joined(cluster_id) => return Ok(cluster_id),
            Attempt::AskInstead(leader) if leader != address && hints < HINTS_MAX => {
                hints += 1;
                address = leader;
                continue;
            }
            Attempt::AskInstead(_) => "the leader is changing".to_owned(),
            Attempt::Refused(sentence) => {
                bail!("{address} refused to let node {} join: {sentence}", member.id)
            }
            Attempt::NotNow(obstacle) => obstacle,
        };
        if clock::now() >= deadline {
            bail!(
                "node {} could not join through {join_address} within {} s: {obstacle}. Check that a member runs there, \
                 that RNACOS_RAFT_JOIN_ADDR names its gRPC port (HTTP port + 1000) and that no firewall stands between; \
                 then start this node again",
                member.id,
                JOIN_WITHIN.as_secs()
            );
        }
        if clock::now() >= next_word {
            next_word = clock::now() + WORD_EVERY;
            tracing::warn!(
                obstacle,
                "not joined yet, asking on for up to {} s: check that a member runs at {address} and that \
                 RNACOS_RAFT_JOIN_ADDR names its gRPC port (HTTP port + 1000)",
                JOIN_WITHIN.as_secs()
            );
        }
        hints = 0;
        join_address.clone_into(&mut address);
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

enum Attempt {
    Joined(ClusterId),
    AskInstead(String),
    Refused(String),
    NotNow(String),
}

async fn attempt(address: &str, credentials: &Credentials, member: &Member) -> Attempt {
    let mut client = match PeerClient::connect(address, credentials, Target::default(), ATTEMPT_WITHIN).await
    {
        Ok(client) => client,
        Err(error) if is_final(&error) => return Attempt::Refused(error.to_string()),
        Err(error) => return Attempt::NotNow(with_causes(&error)),
    };
    match client.call(&Call::Join(member.clone()), ATTEMPT_WITHIN).await {
        Ok(CallReply::Done(done)) => match done.cluster_id {
            Some(cluster_id) => Attempt::Joined(cluster_id),
            None => Attempt::NotNow("the answer names no cluster".to_owned()),
        },
        Ok(CallReply::Refused(refused)) => match refused.why {
            WhyRefused::NotLeader(Some(leader)) => Attempt::AskInstead(leader.address),
            WhyRefused::NotLeader(None) | WhyRefused::Unavailable => Attempt::NotNow(refused.sentence),
            WhyRefused::Core(_) | WhyRefused::NotAllowed | WhyRefused::UnknownCall => {
                Attempt::Refused(refused.sentence)
            }
        },
        Ok(other) => Attempt::Refused(format!("an unexpected answer: {other:?}")),
        Err(error) => Attempt::NotNow(with_causes(&error)),
    }
}

/// What asking again does not mend.
fn is_final(error: &DialError) -> bool {
    match error {
        DialError::TokenNeeded { .. } => true,
        DialError::Handshake { source, .. } => match source {
            HandshakeError::Refused(Refused::NotFormed { .. }) | HandshakeError::NoDoor => false,
            HandshakeError::Refused(_) | HandshakeError::Unproved => true,
        },
        _ => false,
    }
}

fn random_id() -> u64 {
    use rand::RngExt as _;
    // 0 means "none" in places.
    rand::rng().random_range(1..=u64::MAX)
}
