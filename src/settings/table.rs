//! Every setting once: its names, its default, its meaning. `--help`, `--print-settings`, the check for
//! unknown names and the table in docs/operations.md are made from these rows.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name in the environment and in env files.
    pub name: &'static str,
    /// Name of the flag, without the dashes.
    pub flag: &'static str,
    /// What kind of value, as `--help` shows it.
    pub value: &'static str,
    /// Default in words that an operator can read.
    pub default: &'static str,
    /// Unit, meaning, effect.
    pub help: &'static str,
    /// Where it stands in `--help`.
    pub group: &'static str,
    /// Never shown.
    pub secret: bool,
    /// Version that had it first.
    pub since: &'static str,
}

/// A variable r-nacos knows and this server does not take, so that nobody wonders why it does nothing.
#[derive(Clone, Copy, Debug)]
pub struct NotTaken {
    /// Its name.
    pub name: &'static str,
    /// Why not, and what to do instead.
    pub why: &'static str,
    /// The value with which starting anyway would be dangerous: the start is refused.
    pub refused_when_true: bool,
}

const NETWORK: &str = "Network";
const STORAGE: &str = "Storage";
const CLUSTER: &str = "Cluster";
const CONFIG: &str = "Configuration store";
const NAMING: &str = "Service registry";
const OPERATION: &str = "Operation";

const fn row(
    group: &'static str,
    name: &'static str,
    flag: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        flag,
        value,
        default,
        help,
        group,
        secret: false,
        since: "0.1.0",
    }
}

/// Every setting, in the order `--help` shows them.
pub const SETTINGS: &[Setting] = &[
    row(
        NETWORK,
        "RNACOS_HTTP_PORT",
        "http-port",
        "PORT",
        "8848",
        "Port of the HTTP API; 0 takes a free one.",
    ),
    row(
        NETWORK,
        "RNACOS_GRPC_PORT",
        "grpc-port",
        "PORT",
        "HTTP port + 1000",
        "Port of the gRPC API and of the other nodes. SDKs compute it as HTTP port + 1000: change it only together with them.",
    ),
    row(
        NETWORK,
        "RNACOS_SDK_HOST",
        "sdk-host",
        "IP",
        "0.0.0.0",
        "Address both ports listen on. 127.0.0.1 keeps the server to this machine.",
    ),
    row(
        NETWORK,
        "RNACOS_HTTP_WORKERS",
        "http-workers",
        "COUNT",
        "number of cores",
        "Threads that serve requests (HTTP, gRPC and peers share them).",
    ),
    row(
        NETWORK,
        "RNACOS_HTTP_CONNECTIONS_MAX",
        "http-connections-max",
        "COUNT",
        "open-file limit - 1024",
        "HTTP connections at a time. Further ones are answered 503 and closed.",
    ),
    row(
        NETWORK,
        "RNACOS_GRPC_TLS_CERT_FILE",
        "grpc-tls-cert-file",
        "FILE",
        "none: no TLS on the gRPC port",
        "Certificate chain (PEM) with which the gRPC port serves TLS beside clear text; read again when it changes, and on SIGHUP.",
    ),
    row(
        NETWORK,
        "RNACOS_GRPC_TLS_KEY_FILE",
        "grpc-tls-key-file",
        "FILE",
        "none",
        "Key (PEM) of that certificate.",
    ),
    row(
        NETWORK,
        "RNACOS_GRPC_TLS_REQUIRED",
        "grpc-tls-required",
        "BOOL",
        "false",
        "Clients over gRPC have to use TLS: what they ask in clear text is refused. Other nodes use clear text all the same.",
    ),
    row(
        STORAGE,
        "RNACOS_DATA_DIR",
        "data-dir",
        "FOLDER",
        "RNACOS_CONFIG_DB_DIR",
        "Folder of all data of this node. Wins over RNACOS_CONFIG_DB_DIR.",
    ),
    row(
        STORAGE,
        "RNACOS_CONFIG_DB_DIR",
        "config-db-dir",
        "FOLDER",
        "nacos_db",
        "The same under its older name; relative to the working directory.",
    ),
    row(
        STORAGE,
        "RNACOS_DISK_RESERVE",
        "disk-reserve",
        "BYTES",
        "512MiB, a tenth of the volume if it is below 5GiB",
        "Free space below which writes are refused (reads go on), so that the log never meets a full disk. Units KiB, MiB, GiB.",
    ),
    row(
        CLUSTER,
        "RNACOS_RAFT_NODE_ID",
        "raft-node-id",
        "ID",
        "1",
        "Id of this node, unique in its cluster, from 1.",
    ),
    row(
        CLUSTER,
        "RNACOS_RAFT_NODE_ADDR",
        "raft-node-addr",
        "HOST:PORT",
        "127.0.0.1:gRPC port",
        "Where the other nodes reach this one: its gRPC port. A DNS name may stand for the host.",
    ),
    row(
        CLUSTER,
        "RNACOS_RAFT_AUTO_INIT",
        "raft-auto-init",
        "BOOL",
        "true if the node id is 1 and no join address is given, else false",
        "Found a new cluster when the data folder is empty. First start only. Set it to false on the founder once a second node is in.",
    ),
    row(
        CLUSTER,
        "RNACOS_RAFT_JOIN_ADDR",
        "raft-join-addr",
        "HOST:PORT",
        "none",
        "gRPC address of a member of the cluster to join. First start only; later the stored membership rules.",
    ),
    Setting {
        secret: true,
        ..row(
            CLUSTER,
            "RNACOS_CLUSTER_TOKEN",
            "cluster-token",
            "SECRET",
            "none: other nodes are served on loopback only",
            "Secret every node of the cluster proves to the others before anything else is heard. Prefer the environment or a file: a flag is seen in the process list.",
        )
    },
    row(
        CONFIG,
        "RNACOS_CONFIG_MAX_CONTENT",
        "config-max-content",
        "BYTES",
        "10485760",
        "Largest content of one config; larger ones are refused. At most 10 MiB.",
    ),
    row(
        CONFIG,
        "RNACOS_CONFIG_HISTORY_MAX",
        "config-history-max",
        "COUNT",
        "100",
        "History rows kept per config; the oldest go first. Rows older than 30 days go as well.",
    ),
    row(
        CONFIG,
        "RNACOS_CONFIG_DEFAULT_CONSISTENCY",
        "config-default-consistency",
        "local|linearizable",
        "local",
        "What a config read without `consistency=` gets: the state of the node asked (may lag by milliseconds), or one that has seen every write acknowledged before the read began (asks the leader).",
    ),
    row(
        NAMING,
        "RNACOS_NAMING_HEALTH_CHECKS",
        "naming-health-checks",
        "off|tcp|all",
        "off",
        "Checks of persistent instances by the responsible node: none, connections only, or HTTP requests too. Whoever may register can have any machine asked that this one reaches, and learns whether it answers. Off: instances stay as healthy as they were registered or told.",
    ),
    row(
        NAMING,
        "RNACOS_NAMING_HEALTH_CHECK_NETWORKS",
        "naming-health-check-networks",
        "LIST",
        "none",
        "Networks that checks may ask besides, such as `127.0.0.0/8,fe80::/10`. Without it they ask neither this machine nor link-local, multicast or metadata addresses of clouds.",
    ),
    row(
        NAMING,
        "RNACOS_NAMING_HEALTH_CHECK_PORTS",
        "naming-health-check-ports",
        "LIST",
        "1-65535",
        "Ports that checks may ask, such as `80,8000-8999`.",
    ),
    row(
        NAMING,
        "RNACOS_NAMING_KEEP_EMPTY_SERVICES",
        "naming-keep-empty-services",
        "BOOL",
        "false",
        "Keep services that were created, or have settings, when they have had no instance for 60 s. Nacos removes them, with their settings.",
    ),
    row(
        OPERATION,
        "RNACOS_WRITE_TIMEOUT_MS",
        "write-timeout-ms",
        "MILLISECONDS",
        "2500",
        "How long a write, or a linearizable read, waits for a leader and a majority before it is answered with an error. Keep it below the 3 s after which SDKs give up.",
    ),
    row(
        OPERATION,
        "RNACOS_SHUTDOWN_TIMEOUT_SECOND",
        "shutdown-timeout-second",
        "SECONDS",
        "10",
        "How long requests under way may take after SIGTERM before the process ends.",
    ),
    row(
        OPERATION,
        "RNACOS_ENABLE_METRICS",
        "enable-metrics",
        "BOOL",
        "true",
        "Serve /metrics (Prometheus text form).",
    ),
    row(
        OPERATION,
        "RUST_LOG",
        "log",
        "FILTER",
        "info",
        "What is logged: a level, or `level,module=level,...`. Logs go to standard error.",
    ),
    row(
        OPERATION,
        "RNACOS_LOG_FORMAT",
        "log-format",
        "text|json",
        "text",
        "Form of a log line.",
    ),
];

const fn no(name: &'static str, why: &'static str) -> NotTaken {
    NotTaken {
        name,
        why,
        refused_when_true: false,
    }
}

const fn refused(name: &'static str, why: &'static str) -> NotTaken {
    NotTaken {
        name,
        why,
        refused_when_true: true,
    }
}

const NO_CONSOLE: &str = "there is no console yet";
const NO_AUTH: &str =
    "there is no authentication yet: keep the ports behind a firewall, or set RNACOS_SDK_HOST=127.0.0.1";
const BEAT_TIMEOUTS: &str =
    "15 s and 30 s without a beat, as in Nacos; an instance asks for others in its metadata (preserved.*)";
const NO_LDAP: &str = "there is no LDAP login yet";
const NO_OAUTH2: &str = "there is no OAuth2 login yet";

/// The variables of r-nacos that are not taken.
pub const NOT_TAKEN: &[NotTaken] = &[
    no("RNACOS_HTTP_CONSOLE_PORT", NO_CONSOLE),
    no("RNACOS_CONSOLE_HOST", NO_CONSOLE),
    no("RNACOS_CONFIG_DB_FILE", "it did nothing in r-nacos either"),
    no(
        "RNACOS_RUN_IN_DOCKER",
        "the defaults do not depend on where the server runs",
    ),
    no(
        "RNACOS_RAFT_SNAPSHOT_LOG_SIZE",
        "the log is cut by its size in bytes, on its own",
    ),
    no("RNACOS_ENABLE_NO_AUTH_CONSOLE", NO_CONSOLE),
    no("RNACOS_CONSOLE_LOGIN_TIMEOUT", NO_CONSOLE),
    no("RNACOS_CONSOLE_LOGIN_ONE_HOUR_LIMIT", NO_CONSOLE),
    no("RNACOS_CONSOLE_ENABLE_CAPTCHA", NO_CONSOLE),
    refused("RNACOS_ENABLE_OPEN_API_AUTH", NO_AUTH),
    refused("RNACOS_ENABLE_ADMIN_AUTH", NO_AUTH),
    refused("RNACOS_ENABLE_CONSOLE_AUTH", NO_AUTH),
    no("RNACOS_API_LOGIN_TIMEOUT", NO_AUTH),
    no("RNACOS_API_LOGIN_ONE_MINUTE_LIMIT", NO_AUTH),
    no(
        "RNACOS_BACKUP_TOKEN",
        "there is no backup endpoint yet: copy the data folder of a stopped node",
    ),
    no("RNACOS_INIT_ADMIN_USERNAME", NO_AUTH),
    no("RNACOS_INIT_ADMIN_PASSWORD", NO_AUTH),
    no("RNACOS_GMT_OFFSET_HOURS", "logs are in UTC"),
    no(
        "RNACOS_METRICS_ENABLE_LOG",
        "metrics are not logged: scrape /metrics",
    ),
    no(
        "RNACOS_METRICS_COLLECT_INTERVAL_SECOND",
        "metrics are read when /metrics is asked",
    ),
    no(
        "RNACOS_METRICS_LOG_INTERVAL_SECOND",
        "metrics are not logged: scrape /metrics",
    ),
    no("RNACOS_NAMING_HEALTH_TIMEOUT_SECOND", BEAT_TIMEOUTS),
    no("RNACOS_NAMING_INSTANCE_TIMEOUT_SECOND", BEAT_TIMEOUTS),
    no(
        "RNACOS_NAMING_PERPETUAL_INSTANCE_PROBE_INTERVAL_SECOND",
        "the interval follows how fast an instance answers: RNACOS_NAMING_HEALTH_CHECKS",
    ),
    no(
        "RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE",
        "what operators set for instances is always kept in the log",
    ),
    no(
        "RNACOS_GRPC_DETECTION_TIMEOUT_SECOND",
        "silent clients are asked after 20 s and closed 5 s later, as by the Java server",
    ),
    no(
        "RNACOS_ENABLE_GRPC_DETECTION_LOG",
        "closed connections are logged and counted in /metrics",
    ),
    no("RNACOS_MCP_HTTP_TIMEOUT_SECOND", "there is no MCP server here"),
    refused("RNACOS_LDAP_ENABLE", NO_LDAP),
    no("RNACOS_LDAP_URL", NO_LDAP),
    no("RNACOS_LDAP_USER_BASE_DN", NO_LDAP),
    no("RNACOS_LDAP_USER_FILTER", NO_LDAP),
    no("RNACOS_LDAP_USER_DEVELOPER_GROUP", NO_LDAP),
    no("RNACOS_LDAP_USER_ADMIN_GROUP", NO_LDAP),
    no("RNACOS_LDAP_USER_DEFAULT_ROLE", NO_LDAP),
    refused("RNACOS_OAUTH2_ENABLE", NO_OAUTH2),
    no("RNACOS_OAUTH2_CLIENT_ID", NO_OAUTH2),
    no("RNACOS_OAUTH2_CLIENT_SECRET", NO_OAUTH2),
    no("RNACOS_OAUTH2_REDIRECT_URI", NO_OAUTH2),
    no("RNACOS_OAUTH2_SERVER_URL", NO_OAUTH2),
    no("RNACOS_OAUTH2_AUTHORIZATION_URL", NO_OAUTH2),
    no("RNACOS_OAUTH2_TOKEN_URL", NO_OAUTH2),
    no("RNACOS_OAUTH2_USERINFO_URL", NO_OAUTH2),
    no("RNACOS_OAUTH2_SCOPES", NO_OAUTH2),
    no("RNACOS_OAUTH2_USERNAME_CLAIM_NAME", NO_OAUTH2),
    no("RNACOS_OAUTH2_NICKNAME_CLAIM_NAME", NO_OAUTH2),
    no("RNACOS_OAUTH2_USER_DEFAULT_ROLE", NO_OAUTH2),
    no("RNACOS_OAUTH2_BUTTON", NO_OAUTH2),
];

/// The row of a name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The settings as a table in Markdown, for docs/operations.md.
pub fn markdown() -> String {
    let mut text = String::from("| Variable | Flag | Default | Meaning | Since |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        text.push_str(&format!(
            "| `{}` | `--{} {}` | {} | {} | {} |\n",
            setting.name,
            setting.flag,
            setting.value.replace('|', "\\|"),
            setting.default,
            setting.help,
            setting.since
        ));
    }
    text
}

/// The variables of r-nacos that are not taken, as a table in Markdown.
pub fn not_taken_markdown() -> String {
    let mut text = String::from("| Variable of r-nacos | Why it is not taken |\n|---|---|\n");
    for variable in NOT_TAKEN {
        let refusal = if variable.refused_when_true {
            " (`true` refuses the start)"
        } else {
            ""
        };
        text.push_str(&format!("| `{}` | {}{refusal} |\n", variable.name, variable.why));
    }
    text
}
