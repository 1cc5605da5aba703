//! Every metric this server shows, once: name, kind, what it counts. docs/operations.md is made from it.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// The word of the text form.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name; the unit is the last word.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it counts, in one sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident = $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family { name: $name, kind: Kind::$kind, help: $help };
        )*
        /// All of them, in the order in which they are shown.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD = Gauge "rnacos_build_info" "Always 1; the label tells the version.";
    UPTIME = Gauge "rnacos_uptime_seconds" "Time since the process started to serve.";
    HTTP_REQUESTS = Counter "rnacos_http_requests_total" "Answered HTTP requests by route and class of status.";
    HTTP_DURATION = Histogram "rnacos_http_request_duration_seconds" "Time from the parsed head to the ready answer, by route.";
    HTTP_IN_FLIGHT = Gauge "rnacos_http_requests_in_flight" "HTTP requests being served.";
    HTTP_CONNECTIONS = Gauge "rnacos_http_connections" "Open HTTP connections.";
    HTTP_CONNECTIONS_REFUSED = Counter "rnacos_http_connections_refused_total" "HTTP connections refused because there were too many.";
    HTTP_ACCEPT_ERRORS = Counter "rnacos_http_accept_errors_total" "Failed accepts, for example for want of file descriptors.";
    HTTP_PANICS = Counter "rnacos_http_panics_total" "Handlers that panicked; their requests were answered 500.";
    GRPC_REQUESTS = Counter "rnacos_grpc_requests_total" "Answered unary gRPC requests by type and result.";
    GRPC_DURATION = Histogram "rnacos_grpc_request_duration_seconds" "Time from the whole request to the ready answer, by type.";
    GRPC_IN_FLIGHT = Gauge "rnacos_grpc_requests_in_flight" "Unary gRPC requests being served.";
    GRPC_CONNECTIONS = Gauge "rnacos_grpc_connections" "Open connections of the gRPC port: registered clients, peers, and those that are neither (yet).";
    GRPC_ACCEPTED = Counter "rnacos_grpc_connections_accepted_total" "Connections accepted on the gRPC port.";
    GRPC_CONNECTIONS_REFUSED = Counter "rnacos_grpc_connections_refused_total" "Connections of the gRPC port closed at once, by reason.";
    GRPC_ACCEPT_ERRORS = Counter "rnacos_grpc_accept_errors_total" "Failed accepts on the gRPC port, for example for want of file descriptors.";
    GRPC_OVERRUN = Counter "rnacos_grpc_requests_refused_total" "gRPC requests refused because of a limit of work or memory.";
    GRPC_MALFORMED = Counter "rnacos_grpc_malformed_total" "gRPC requests and stream messages that could not be read.";
    GRPC_SETUPS = Counter "rnacos_grpc_setups_total" "Connection setups of clients, by result.";
    GRPC_PANICS = Counter "rnacos_grpc_panics_total" "Handlers that panicked; their requests were answered 500.";
    GRPC_PUSHES = Counter "rnacos_grpc_pushes_total" "Messages pushed to clients, repetitions included.";
    GRPC_PUSH_RESULTS = Counter "rnacos_grpc_push_results_total" "Pushes that wait for an acknowledgement, by what became of them.";
    GRPC_PUSH_RETRIES = Counter "rnacos_grpc_push_retries_total" "Pushes repeated after a failure, or because the client did not look at what it was told of.";
    GRPC_PUSHES_GIVEN_UP = Counter "rnacos_grpc_pushes_given_up_total" "Pushes given up after the last try; the connection is closed.";
    GRPC_DETECTIONS = Counter "rnacos_grpc_detections_total" "Silent clients that were asked whether they are still there.";
    GRPC_DETECTION_CLOSES = Counter "rnacos_grpc_detection_closes_total" "Client connections closed because nothing came back, or nothing was taken.";
    GRPC_RESETS = Counter "rnacos_grpc_resets_total" "Clients asked to move to another node.";
    RAFT_TERM = Gauge "rnacos_raft_term" "Current term.";
    RAFT_ROLE = Gauge "rnacos_raft_role" "1 for the role this node has, 0 for the others.";
    RAFT_LEADER = Gauge "rnacos_raft_leader" "Node id of the leader, 0 when none is known.";
    RAFT_LAST = Gauge "rnacos_raft_last_index" "Last index of the log.";
    RAFT_DURABLE = Gauge "rnacos_raft_durable_index" "Last index that is on this node's disk.";
    RAFT_COMMITTED = Gauge "rnacos_raft_committed_index" "Last committed index this node knows of.";
    RAFT_APPLIED = Gauge "rnacos_raft_applied_index" "Last index in this node's state.";
    RAFT_BASE = Gauge "rnacos_raft_base_index" "Index before the first entry of the log.";
    RAFT_UNCOMMITTED = Gauge "rnacos_raft_uncommitted_bytes" "Bytes this leader has appended and not committed.";
    RAFT_MEMBERS = Gauge "rnacos_raft_members" "Members by kind.";
    RAFT_SUSPECT = Gauge "rnacos_raft_suspect" "1 while this node may have lost part of its log and counts for nothing.";
    RAFT_ELECTIONS = Counter "rnacos_raft_elections_total" "Elections this node has started.";
    RAFT_ELECTIONS_WON = Counter "rnacos_raft_elections_won_total" "Elections this node has won.";
    RAFT_LEADERLESS = Counter "rnacos_raft_leaderless_seconds_total" "Time during which this node knew no leader.";
    RAFT_LEADER_CHANGES = Counter "rnacos_raft_leader_changes_total" "Changes of leader this node has seen.";
    RAFT_SNAPSHOTS = Counter "rnacos_raft_snapshots_installed_total" "Snapshots this node has installed.";
    RAFT_SNAPSHOTS_MADE = Counter "rnacos_raft_snapshots_made_total" "Snapshots this node has made for members that are far behind.";
    RAFT_SNAPSHOTS_REFUSED = Counter "rnacos_raft_snapshots_refused_total" "Received snapshots this node has refused because they were damaged; they are fetched again.";
    RAFT_PEER_MATCHED = Gauge "rnacos_raft_peer_matched_index" "Last index known to be on a peer's disk (leader only).";
    RAFT_PEER_INFLIGHT = Gauge "rnacos_raft_peer_inflight" "Appends on their way to a peer (leader only).";
    RAFT_PEER_ACTIVE = Gauge "rnacos_raft_peer_active" "1 if the peer answered within the last election timeout (leader only).";
    RAFT_PEER_SNAPSHOT = Gauge "rnacos_raft_peer_takes_snapshot" "1 while a peer is sent a snapshot (leader only).";
    PEER_CONNECTED = Gauge "rnacos_peer_connected" "1 while a connection to a peer carries the lane: control (heartbeats, votes, acks), log, bulk (snapshots; on demand).";
    PEER_QUEUE = Gauge "rnacos_peer_queue_bytes" "Bytes that wait to be sent to a peer, by lane.";
    PEER_SENT_MESSAGES = Counter "rnacos_peer_sent_messages_total" "Messages given to connections to a peer, by lane.";
    PEER_SENT_BYTES = Counter "rnacos_peer_sent_bytes_total" "Bytes of those messages.";
    PEER_DROPPED = Counter "rnacos_peer_dropped_messages_total" "Messages to a peer dropped for want of a connection or of room; raft sends again.";
    PEER_CONNECTS = Counter "rnacos_peer_connects_total" "Connections made to a peer, by lane.";
    PEER_FAILED_DIALS = Counter "rnacos_peer_failed_dials_total" "Attempts to connect to a peer that failed.";
    PEER_UNKNOWN = Counter "rnacos_peer_unknown_messages_total" "Messages dropped because nobody knew the way to their receiver.";
    QUEUE_LENGTH = Gauge "rnacos_queue_length" "What waits in a queue of the core: peer_messages (batches), requests, completions, log (writes), apply (ranges), load (reads of the log).";
    INBOX_BYTES = Gauge "rnacos_peer_messages_waiting_bytes" "Bytes of received peer messages that wait for the core.";
    INBOX_DROPPED = Counter "rnacos_peer_messages_dropped_total" "Received peer messages dropped because too many waited; raft sends again.";
    FEATURE_LEVEL = Gauge "rnacos_feature_level" "Feature level of the replicated state: rises once every member's version knows the next one.";
    FEATURE_LEVEL_KNOWN = Gauge "rnacos_feature_level_known" "Highest feature level this version of the server knows.";
    PENDING_OPERATIONS = Gauge "rnacos_pending_operations" "Writes of this node's clients that wait for their apply.";
    PENDING_BYTES = Gauge "rnacos_pending_bytes" "Bytes of those writes.";
    DISK_SPACE = Gauge "rnacos_disk_space" "Room on the data volume: 0 ample, 1 low (writes refused), 2 critical.";
    LOG_FAILED = Gauge "rnacos_log_failed" "1 once a write or sync of the log has failed: the node is read-only and stops.";
    LOG_SYNCS = Counter "rnacos_log_syncs_total" "Syncs of the log.";
    LOG_SYNC_DURATION = Histogram "rnacos_log_sync_duration_seconds" "Time of one write and sync of the log.";
    LOG_BATCH = Histogram "rnacos_log_batch_entries" "Entries made durable by one sync.";
    LOG_ENTRIES = Counter "rnacos_log_entries_total" "Entries made durable.";
    LOG_BYTES = Counter "rnacos_log_bytes_total" "Bytes of those entries.";
    LOG_MARKS = Counter "rnacos_log_mark_writes_total" "Writes of the mark file.";
    DISK_FREE = Gauge "rnacos_disk_free_bytes" "Free bytes on the data volume, as last seen by the log writer.";
    CONFIGS = Gauge "rnacos_configs" "Configs in this node's state.";
    CONFIG_VARIANTS = Gauge "rnacos_config_variant_keys" "Configs that have beta, tag or other variants.";
    NAMESPACES = Gauge "rnacos_namespaces" "Namespaces made by users.";
    NAMING_READY = Gauge "rnacos_naming_ready" "1 while readers of the registry are answered; 0 while it is loaded, or waits for clients after a restart.";
    NAMING_SERVICES = Gauge "rnacos_naming_services" "Services that lists show: with an instance, or made by an operator.";
    NAMING_INSTANCES = Gauge "rnacos_naming_instances" "Instances of all services, unhealthy and disabled ones among them.";
    NAMING_OWN_RECORDS = Gauge "rnacos_naming_own_records" "Records of instances that this node wrote, those of deregistrations among them.";
    NAMING_COPIES = Gauge "rnacos_naming_copies" "Records of other nodes that this node holds.";
    NAMING_ANSWER_BYTES = Gauge "rnacos_naming_answer_bytes" "Bytes of rendered service lists that are kept for the next reader.";
    NAMING_UDP = Gauge "rnacos_naming_udp_subscriptions" "Subscriptions of clients that are told of changes over UDP.";
    NAMING_FORWARDED = Gauge "rnacos_naming_forwarded_in_flight" "HTTP writes on their way to the node that is responsible for their service.";
    DISTRO_PEERS = Gauge "rnacos_distro_peers" "Nodes whose registries this one is connected to.";
    DISTRO_BEHIND = Gauge "rnacos_distro_unconfirmed" "Changes of this node that the slowest of them has not confirmed.";
    DISTRO_ABSENT = Gauge "rnacos_distro_absent_origins" "Nodes that nobody hears and whose records are still kept.";
    PUSH_WAITING = Gauge "rnacos_config_listeners_waiting" "Clients that wait for changes: long polls, and gRPC connections that have listened or are expected to.";
    PUSH_KEYS = Gauge "rnacos_config_listened_keys" "Configs that somebody listens to on this node.";
    PUSH_WATCHES = Gauge "rnacos_config_watches" "Pairs of a waiting client and a config it listens to.";
    PUSH_NOTIFICATIONS = Counter "rnacos_config_notifications_total" "Configs named as changed in answers to listeners.";
    PUSH_REFUSED = Counter "rnacos_config_listeners_refused_total" "Listeners refused because too many configs were being listened to.";
    PUSH_DELAY = Histogram "rnacos_config_notification_delay_seconds" "Time from the apply of a change on this node to the answer that names it, for listeners that were waiting.";
    NAMING_CLIENTS = Gauge "rnacos_naming_clients" "Clients that have registered or subscribed over gRPC on this node.";
    NAMING_SUBSCRIBED = Gauge "rnacos_naming_subscribed_services" "Services that somebody subscribes to on this node.";
    NAMING_SUBSCRIPTIONS = Gauge "rnacos_naming_subscriptions" "Pairs of a client and a service it subscribes to.";
    NAMING_PUSHES = Counter "rnacos_naming_pushes_total" "Pushes of services to subscribers, by what became of them; one that failed is tried again.";
    NAMING_SUBSCRIBERS_REFUSED = Counter "rnacos_naming_subscriptions_refused_total" "Subscriptions refused because there were too many.";
    NAMING_PUSH_DELAY = Histogram "rnacos_naming_push_delay_seconds" "Time from a change of a service on this node to the push that tells it.";
    NAMING_PUSH_COST = Histogram "rnacos_naming_push_cost_seconds" "Time from a push of a service to its acknowledgement.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" "User and system CPU time.";
    PROCESS_RSS = Gauge "process_resident_memory_bytes" "Resident memory.";
    PROCESS_VSIZE = Gauge "process_virtual_memory_bytes" "Virtual memory.";
    PROCESS_FDS = Gauge "process_open_fds" "Open file descriptors.";
    PROCESS_FDS_MAX = Gauge "process_max_fds" "Limit of open file descriptors.";
    PROCESS_THREADS = Gauge "process_threads" "Threads.";
    LOG_LINES_DROPPED = Counter "rnacos_log_lines_dropped_total" "Lines of the text log dropped because its sink was too slow.";
}

/// The families as a table in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| Metric | Kind | Meaning |\n|---|---|---|\n");
    for family in FAMILIES {
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            family.name,
            family.kind.as_str(),
            family.help
        ));
    }
    text
}
