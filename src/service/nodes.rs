//! What nodes ask each other for operators: who is connected there, who listens to a config or watches a service,
//! how busy it is.
//!
//! Most of what operators ask is the same on every node. What is not (connections, and what hangs on them) is
//! gathered by the node that was asked: it puts one question to every other member, all at once, each on a
//! connection of its own through the peer door ([`Call::Ask`]). A member that does not answer within
//! `WITHIN` is left out, and where the API has a word for that, it is said.
//!
//! Questions and answers are JSON of the types in here. Fields that a reader does not know are not looked at, and
//! a question that it does not know is refused, so that versions may differ.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::Member;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Services;
use super::clients::Metered;
use super::naming_subscribers::Watchers;
use crate::cluster::{ANSWER_BYTES_MAX, Call, CallReply, Credentials, PeerClient, Target};
use crate::model::{ConfigKey, NamespaceId, ServiceKey};

/// A member has so long to take the connection, and as long again to answer. A client has less to answer a
/// question that is handed on to it (`grpc`).
const WITHIN: Duration = Duration::from_secs(4);

/// A question to one node, about what it alone knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// How busy is it? Answered by a [`Load`].
    Load {},
    /// Who watches a service there? Answered by [`Watchers`].
    Subscribers {
        /// Text of the namespace's id.
        namespace: String,
        /// Its group.
        group: String,
        /// Its name.
        service: String,
        /// Of so many, the first by address, more than their number is told.
        first: usize,
    },
    /// Who listens to a config there? Answered by a map of addresses to MD5s.
    Listeners {
        /// Text of the namespace's id.
        namespace: String,
        /// Its group.
        group: String,
        /// Its name.
        data_id: String,
    },
    /// What do clients with an address listen to there? Answered by a list.
    Listened {
        /// The address.
        ip: String,
    },
    /// What do the clients with an address say of themselves? Answered by a map.
    ClientMetrics(Metered),
    /// Keep so many clients, send the others away. Answered by how many are on their way.
    KeepClients {
        /// So many stay.
        keep: usize,
        /// `ip:port` where the others are sent; they choose if it is absent.
        to: Option<String>,
    },
}

/// How busy a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// `host:port` of its HTTP port, as clients reach it.
    pub address: String,
    /// SDKs that are registered over gRPC.
    pub clients: usize,
    /// Load of its machine, of the last minute.
    pub load: f64,
    /// The same as a share of the processors, 0 to 1.
    pub cpu: f64,
}

/// A member, as the node that was asked sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: u64,
    /// `host:port` of its HTTP port; of one that does not answer, what it would be by the usual distance of the
    /// ports.
    pub address: String,
    /// What it says; `None`: it does not answer.
    pub load: Option<Load>,
}

#[cfg(test)]
impl Node {
    /// One that has so many clients, or does not answer.
    pub(crate) fn with_clients(id: u64, clients: Option<usize>) -> Node {
        Node {
            id,
            address: format!("10.0.0.{id}:8848"),
            load: clients.map(|clients| Load {
                clients,
                ..Load::default()
            }),
        }
    }
}

/// From the HTTP port to the one that peers use, unless an operator says otherwise.
const PORT_DISTANCE: u16 = 1_000;

impl Services {
    /// Answers another node; `None` for a question that this version does not know.
    pub async fn answer_node(self: Arc<Self>, question: Bytes) -> Option<Bytes> {
        let question = serde_json::from_slice(&question).ok()?;
        let answer = match question {
            Question::Load {} => written(&self.load()),
            Question::Subscribers {
                namespace,
                group,
                service,
                first,
            } => {
                let service = ServiceKey::new(&NamespaceId::new(&namespace), &group, &service);
                written(&self.watchers(&service, first))
            }
            Question::Listeners {
                namespace,
                group,
                data_id,
            } => {
                let key = ConfigKey::new(&NamespaceId::new(&namespace), &group, &data_id);
                written(&self.told_listeners(&key))
            }
            Question::Listened { ip } => written(&self.told_listened(&ip)),
            Question::ClientMetrics(asked) => written(&self.client_metrics_here(&asked).await),
            Question::KeepClients { keep, to } => written(&self.move_clients(keep, to.as_deref()).ok()?),
        };
        answer.filter(|answer| answer.len() < ANSWER_BYTES_MAX)
    }

    /// Puts a question to every other member, and gives what each answered, in the order of their ids; `None` for
    /// one that did not.
    pub(super) async fn ask_others<T>(&self, question: &Question) -> Vec<(Member, Option<T>)>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.ask_those(question, |_| true).await
    }

    async fn ask_one<T>(&self, node: u64, question: &Question) -> Option<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let mut answers = self.ask_those(question, |member| member.id.0 == node).await;
        answers.pop().and_then(|(_, answer)| answer)
    }

    async fn ask_those<T>(
        &self,
        question: &Question,
        are_asked: impl Fn(&Member) -> bool,
    ) -> Vec<(Member, Option<T>)>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Some(question) = written(question) else {
            return Vec::new();
        };
        let status = self.consensus.status();
        let members = status.raft.configuration.members.values();
        let others = members.filter(|member| member.id != status.identity.id && are_asked(member));
        let asked: Vec<_> = others
            .map(|member| {
                let (credentials, question) = (self.credentials.clone(), question.clone());
                let to = member.clone();
                let answer = async move { ask(credentials, &to, question).await };
                (member.clone(), self.stopping.spawn(answer))
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (member, answer) in asked {
            let answer = answer.await.ok().flatten();
            let read = answer.and_then(|answer| serde_json::from_slice(&answer).ok());
            if read.is_none() {
                tracing::info!(
                    node = member.id.0,
                    address = member.address,
                    "a member did not answer a question"
                );
            }
            answers.push((member, read));
        }
        answers
    }

    /// Every member, by id, and how busy it is.
    pub async fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<_> = self
            .ask_others(&Question::Load {})
            .await
            .into_iter()
            .map(|(member, load): (_, Option<Load>)| Node {
                id: member.id.0,
                address: match &load {
                    Some(load) => load.address.clone(),
                    None => usual_address(&member.address),
                },
                load,
            })
            .collect();
        nodes.push(Node {
            id: self.consensus.status().identity.id.0,
            address: self.address(),
            load: Some(self.load()),
        });
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    /// `host:port` of the HTTP port of the member that has a client, given by its `ip:port`: on all nodes that hear
    /// the same members the same one. Its address in the eyes of clients is asked for; of a member that does not
    /// answer it is guessed.
    pub async fn responsible_server(&self, client: &str) -> String {
        let here = self.consensus.status().identity.id.0;
        let id = self.discovery().responsible_for_client(client);
        if id == here {
            return self.address();
        }
        let asked = self
            .ask_those::<Load>(&Question::Load {}, |member| member.id.0 == id)
            .await;
        match asked.into_iter().next() {
            Some((_, Some(load))) => load.address,
            Some((member, None)) => usual_address(&member.address),
            // A member that the log does not know any more.
            None => self.address(),
        }
    }

    /// Sends clients from nodes that have more than the average by this share of it to those that have fewer, one of
    /// these for each of those. What is sent away arrives within seconds, and may be looked at then ([`Services::nodes`]).
    /// False: a node could not be asked.
    pub async fn balance_clients(&self, factor: f64) -> bool {
        let nodes = self.nodes().await;
        let mut done = nodes.iter().all(|node| node.load.is_some());
        let moves = moves(&nodes, factor);
        let here = self.consensus.status().identity.id.0;
        for Move { from, to, keep } in moves {
            // Clients take an address, and no name.
            let to = crate::service::clients::is_address(&to).then_some(to);
            if from == here {
                done &= self.move_clients(keep, to.as_deref()).is_ok();
                continue;
            }
            let question = Question::KeepClients { keep, to };
            let asked = self.ask_one::<usize>(from, &question).await;
            done &= asked.is_some();
        }
        done
    }

    fn load(&self) -> Load {
        let machine = crate::metrics::process::machine();
        Load {
            address: self.address(),
            clients: self.connected_count(),
            load: machine.load,
            cpu: machine.load_share,
        }
    }

    /// What the clients with an address, on all nodes, say of themselves.
    pub async fn client_metrics(&self, asked: Metered) -> BTreeMap<String, Value> {
        let question = Question::ClientMetrics(asked.clone());
        let (here, others) = tokio::join!(
            self.client_metrics_here(&asked),
            self.ask_others::<BTreeMap<String, Value>>(&question),
        );
        let others = others.into_iter().filter_map(|(_, answer)| answer);
        let mut all: BTreeMap<_, _> = others.flatten().collect();
        all.extend(here);
        all
    }

    /// Who watches a service on all nodes: how many, and the `first` of them by address.
    pub async fn watchers_everywhere(&self, service: &ServiceKey, first: usize) -> Watchers {
        let question = Question::Subscribers {
            namespace: service.namespace().to_owned(),
            group: service.group().to_owned(),
            service: service.name().to_owned(),
            first,
        };
        let mut all = self.watchers(service, first);
        for (_, others) in self.ask_others::<Watchers>(&question).await {
            let others = others.unwrap_or_default();
            all.count += others.count;
            all.first.extend(others.first);
        }
        all.first.sort();
        all.first.truncate(first);
        all
    }
}

/// Clients are to go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    /// Id of the node that has too many.
    from: u64,
    /// Address of one that has few.
    to: String,
    /// So many it keeps.
    keep: usize,
}

/// Which clients are to go where, as the Java server finds it: the fullest node sends all that it has above the
/// bound to the emptiest, the next fullest to the next emptiest.
fn moves(nodes: &[Node], factor: f64) -> Vec<Move> {
    let mut loads: Vec<_> = nodes
        .iter()
        .filter_map(|node| Some((node.load.as_ref()?.clients, node)))
        .collect();
    loads.sort_by_key(|(clients, node)| (*clients, node.id));
    let total: usize = loads.iter().map(|(clients, _)| clients).sum();
    let average = total.checked_div(loads.len()).unwrap_or_default() as f64;
    let (most, least) = (
        (average * (1.0 + factor)) as usize,
        (average * (1.0 - factor)) as usize,
    );
    let full = loads.iter().rev().filter(|(clients, _)| *clients > most);
    let empty = loads.iter().filter(|(clients, _)| *clients < least);
    full.zip(empty)
        .map(|((_, full), (_, empty))| Move {
            from: full.id,
            to: empty.address.clone(),
            keep: most,
        })
        .collect()
}

/// `None` never: all of these types can be written.
fn written(value: &impl Serialize) -> Option<Bytes> {
    serde_json::to_vec(value).ok().map(Bytes::from)
}

async fn ask(credentials: Credentials, member: &Member, question: Bytes) -> Option<Bytes> {
    let target = Target {
        cluster_id: credentials.identity.cluster_id,
        node_id: Some(member.id),
        incarnation: Some(member.incarnation),
    };
    let connected = PeerClient::connect(&member.address, &credentials, target, WITHIN).await;
    match connected.ok()?.call(&Call::Ask(question), WITHIN).await.ok()? {
        CallReply::Told(answer) => Some(answer),
        // Of an older version, mostly.
        _ => None,
    }
}

fn usual_address(peer: &str) -> String {
    let parts = peer
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) => format!("{host}:{}", port.saturating_sub(PORT_DISTANCE)),
        None => peer.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_the_wire_and_newer_ones_are_told_apart() {
        for question in [
            Question::Load {},
            Question::Subscribers {
                namespace: String::new(),
                group: "g".to_owned(),
                service: "s".to_owned(),
                first: 7,
            },
            Question::Listeners {
                namespace: "dev".to_owned(),
                group: "g".to_owned(),
                data_id: "d".to_owned(),
            },
            Question::Listened {
                ip: "10.0.0.1".to_owned(),
            },
            Question::KeepClients {
                keep: 1,
                to: Some("10.0.0.1:8848".to_owned()),
            },
        ] {
            let bytes = written(&question).expect("JSON");
            assert_eq!(serde_json::from_slice::<Question>(&bytes).ok(), Some(question));
        }
        assert!(serde_json::from_slice::<Question>(br#"{"future":{}}"#).is_err());
        let more = br#"{"address":"a:1","clients":2,"newer":true}"#;
        let load: Load = serde_json::from_slice(more).expect("what is known of it");
        assert_eq!((load.address.as_str(), load.clients), ("a:1", 2));
    }

    #[test]
    fn clients_go_from_the_fullest_to_the_emptiest() {
        let found = |counts: &[Option<usize>], factor| {
            let nodes: Vec<_> = (1..)
                .zip(counts)
                .map(|(id, clients)| Node::with_clients(id, *clients))
                .collect();
            let moves = moves(&nodes, factor);
            moves
                .into_iter()
                .map(|Move { from, to, keep }| (from, to, keep))
                .collect::<Vec<_>>()
        };
        let to = |id| format!("10.0.0.{id}:8848");
        assert_eq!(
            found(&[Some(100), Some(20), Some(0)], 0.1),
            [(1, to(3), 44)],
            "40 each, and nobody above 44"
        );
        assert_eq!(
            found(&[Some(10), Some(90), Some(0), Some(100)], 0.1),
            [(4, to(3), 55), (2, to(1), 55)]
        );
        assert_eq!(found(&[Some(41), Some(39), Some(40)], 0.1), []);
        assert_eq!(found(&[Some(100), None], 0.1), []);
        assert_eq!(found(&[], 0.1), []);
    }

    #[test]
    fn who_does_not_answer_is_shown_where_it_usually_is() {
        assert_eq!(usual_address("10.0.0.1:9848"), "10.0.0.1:8848");
        assert_eq!(usual_address("[::1]:9848"), "[::1]:8848");
        assert_eq!(usual_address("nonsense"), "nonsense");
    }
}
