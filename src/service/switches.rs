//! Switches of naming: what an operator turns while a node runs, under the names of Nacos (`SwitchDomain`).
//!
//! They are turned on all nodes, through the log, or on one node alone (`debug=true`): then a restart forgets it,
//! and so does the next turn of the same entry for all. Most are here so that tools find what they ask for. These
//! have an effect:
//!
//! | entry | effect |
//! |---|---|
//! | `check` | `false`: beats that stay away remove nothing |
//! | `clientBeatInterval` | told to clients of instances that ask for no interval of their own |
//! | `defaultInstanceEphemeral` | the kind of an instance whose registration names none |
//! | `lightBeatEnabled` | `false`: clients send full beats |
//! | `limitedUrlMap` | requests whose target begins so are answered with that status |
//! | `overriddenServerStatus` | what this node says it is; requests are refused as if it were |
//! | `pushEnabled`, `pushVersion` | who is told of changes over UDP |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::Services;
use super::config::unexpected;
use crate::discovery::Discovery;
use crate::error::{Error, Result};
use crate::state::{Command, Event, NAMING_SWITCH_BYTES_MAX, Outcome, Reader};

/// The shortest beat interval that may be asked of clients, ms: all of them would obey.
const BEAT_INTERVAL_MIN_MS: u64 = 1_000;
/// Most prefixes in `limitedUrlMap`; each request is compared with all of them.
const LIMITED_URLS_MAX: usize = 100;

/// All switches, as they are shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Switches {
    masters: Option<Vec<String>>,
    ad_weight_map: BTreeMap<String, i32>,
    default_push_cache_millis: u64,
    /// Asked of clients, ms.
    pub client_beat_interval: u64,
    default_cache_millis: u64,
    distro_threshold: f64,
    /// Instances whose beats stay away turn unhealthy and go.
    pub health_check_enabled: bool,
    auto_change_health_check_enabled: bool,
    distro_enabled: bool,
    enable_standalone: bool,
    /// Changes are told over UDP.
    pub push_enabled: bool,
    check_times: u32,
    http_health_params: HealthParams,
    tcp_health_params: HealthParams,
    mysql_health_params: HealthParams,
    incremental_list: Vec<String>,
    server_status_synchronization_period_millis: u64,
    service_status_synchronization_period_millis: u64,
    #[serde(rename = "disableAddIP")]
    disable_add_ip: bool,
    send_beat_only: bool,
    /// Clients may leave the instance out of their beats.
    pub light_beat_enabled: bool,
    /// Beginnings of request targets, and the status with which they are answered.
    pub limited_url_map: BTreeMap<String, u16>,
    distro_server_expired_millis: u64,
    push_go_version: String,
    push_java_version: String,
    push_python_version: String,
    push_c_version: String,
    #[serde(rename = "pushCSharpVersion")]
    push_c_sharp_version: String,
    enable_authentication: bool,
    /// What this node says it is, whatever it finds itself to be.
    pub overridden_server_status: Option<ServerStatus>,
    /// The kind of an instance whose registration names none.
    pub default_instance_ephemeral: bool,
    health_check_white_list: Vec<String>,
    name: &'static str,
    checksum: Option<String>,
}

/// How a health check adapts its interval; shown, and obeyed by nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct HealthParams {
    max: u32,
    min: u32,
    factor: f64,
}

/// What a node is, in the words of Nacos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerStatus {
    /// Serves.
    Up,
    /// Does not.
    Down,
    /// Not yet.
    Starting,
    /// Not now.
    Paused,
    /// Takes no reads.
    WriteOnly,
    /// Takes no writes.
    ReadOnly,
}

impl ServerStatus {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerStatus::Up => "UP",
            ServerStatus::Down => "DOWN",
            ServerStatus::Starting => "STARTING",
            ServerStatus::Paused => "PAUSED",
            ServerStatus::WriteOnly => "WRITE_ONLY",
            ServerStatus::ReadOnly => "READ_ONLY",
        }
    }

    fn from_name(name: &str) -> Option<ServerStatus> {
        use ServerStatus::{Down, Paused, ReadOnly, Starting, Up, WriteOnly};
        let all = [Up, Down, Starting, Paused, WriteOnly, ReadOnly];
        all.into_iter().find(|status| status.as_str() == name)
    }

    /// True when a request is answered in this status.
    pub fn serves(self, reads: bool) -> bool {
        match self {
            ServerStatus::Up => true,
            ServerStatus::ReadOnly => reads,
            ServerStatus::WriteOnly => !reads,
            ServerStatus::Down | ServerStatus::Starting | ServerStatus::Paused => false,
        }
    }
}

impl Default for Switches {
    fn default() -> Switches {
        let params = |max, min, factor| HealthParams { max, min, factor };
        Switches {
            masters: None,
            ad_weight_map: BTreeMap::new(),
            default_push_cache_millis: 10_000,
            client_beat_interval: 5_000,
            default_cache_millis: 3_000,
            distro_threshold: 0.7,
            health_check_enabled: true,
            auto_change_health_check_enabled: true,
            distro_enabled: true,
            enable_standalone: true,
            push_enabled: true,
            check_times: 3,
            http_health_params: params(5_000, 500, 0.85),
            tcp_health_params: params(5_000, 1_000, 0.75),
            mysql_health_params: params(3_000, 2_000, 0.65),
            incremental_list: Vec::new(),
            server_status_synchronization_period_millis: 2_000,
            service_status_synchronization_period_millis: 5_000,
            disable_add_ip: false,
            send_beat_only: false,
            light_beat_enabled: true,
            limited_url_map: BTreeMap::new(),
            distro_server_expired_millis: 10_000,
            push_go_version: "0.1.0".to_owned(),
            push_java_version: "0.1.0".to_owned(),
            push_python_version: "0.4.3".to_owned(),
            push_c_version: "1.0.12".to_owned(),
            push_c_sharp_version: "0.9.0".to_owned(),
            enable_authentication: false,
            overridden_server_status: None,
            default_instance_ephemeral: true,
            health_check_white_list: Vec::new(),
            name: "00-00---000-NACOS_SWITCH_DOMAIN-000---00-00",
            checksum: None,
        }
    }
}

impl Switches {
    /// The oldest version of an SDK that is told of changes over UDP.
    pub fn push_version(&self, sdk: Sdk) -> &str {
        match sdk {
            Sdk::Java => &self.push_java_version,
            Sdk::Go => &self.push_go_version,
            Sdk::Python => &self.push_python_version,
            Sdk::C => &self.push_c_version,
            Sdk::CSharp => &self.push_c_sharp_version,
        }
    }

    /// Sets one, by the name that the API has for it.
    ///
    /// # Errors
    /// No such entry, or a value it cannot have; nothing is changed.
    pub(super) fn set(&mut self, entry: &str, value: &str) -> Result<()> {
        match entry {
            "distroThreshold" => self.distro_threshold = positive(entry, value)?,
            "clientBeatInterval" => self.client_beat_interval = at_least(entry, value, BEAT_INTERVAL_MIN_MS)?,
            "pushVersion" => self.set_push_version(value)?,
            "pushCacheMillis" => self.default_push_cache_millis = at_least(entry, value, 10_000)?,
            "defaultCacheMillis" => self.default_cache_millis = at_least(entry, value, 1_000)?,
            "masters" => self.masters = Some(value.split(',').map(str::to_owned).collect()),
            "distro" => self.distro_enabled = flag(value),
            "check" => self.health_check_enabled = flag(value),
            "autoChangeHealthCheckEnabled" => self.auto_change_health_check_enabled = flag(value),
            "pushEnabled" => self.push_enabled = flag(value),
            "serviceStatusSynchronizationPeriodMillis" => {
                self.service_status_synchronization_period_millis = at_least(entry, value, 5_000)?;
            }
            "serverStatusSynchronizationPeriodMillis" => {
                self.server_status_synchronization_period_millis = at_least(entry, value, 1_000)?;
            }
            "healthCheckTimes" => self.check_times = number(value)?,
            "disableAddIP" => self.disable_add_ip = flag(value),
            "sendBeatOnly" => self.send_beat_only = flag(value),
            "limitedUrlMap" => self.limited_url_map = limited_urls(value)?,
            "enableStandalone" => self.enable_standalone = flag(value),
            "overriddenServerStatus" => self.overridden_server_status = overridden(value)?,
            "defaultInstanceEphemeral" => self.default_instance_ephemeral = flag(value),
            "distroServerExpiredMillis" => self.distro_server_expired_millis = number(value)?,
            "lightBeatEnabled" => self.light_beat_enabled = flag(value),
            "httpHealthParams" => self.http_health_params = params(value)?,
            "tcpHealthParams" => self.tcp_health_params = params(value)?,
            "mysqlHealthParams" => self.mysql_health_params = params(value)?,
            _ => return Err(Error::Invalid(format!("update entry not found: {entry}"))),
        }
        Ok(())
    }

    fn set_push_version(&mut self, value: &str) -> Result<()> {
        let wrong = || Error::Invalid(format!("illegal push version, type:1.2.3 is wanted: {value}"));
        let (sdk, version) = value.split_once(':').ok_or_else(wrong)?;
        if version_parts(version).is_none() || version.len() > 32 {
            return Err(wrong());
        }
        let place = match sdk {
            "java" => &mut self.push_java_version,
            "go" => &mut self.push_go_version,
            "python" => &mut self.push_python_version,
            "c" => &mut self.push_c_version,
            "csharp" => &mut self.push_c_sharp_version,
            _ => return Err(Error::Invalid(format!("unsupported client type: {sdk}"))),
        };
        version.clone_into(place);
        Ok(())
    }
}

/// The switches of this node as they are, and how they came to be so.
#[derive(Debug)]
pub struct Board {
    shown: ArcSwap<Switches>,
    words: Mutex<Words>,
    /// Obeys some of them.
    discovery: Arc<Discovery>,
    state: Arc<Reader>,
}

/// Values by the names of switches. A name is that of the entry; of those that hold several values (`pushVersion`)
/// with the part that is meant behind a colon.
type Values = BTreeMap<Box<str>, Box<str>>;

#[derive(Debug, Default)]
struct Words {
    /// What the log says.
    everywhere: Values,
    /// What was set on this node alone; counts before the other.
    here: Values,
}

impl Words {
    fn shown(&self) -> Switches {
        let mut switches = Switches::default();
        for (name, value) in self.everywhere.iter().chain(&self.here) {
            let entry = name.split(':').next().unwrap_or_default();
            if let Err(error) = switches.set(entry, value) {
                // Of a newer version.
                tracing::warn!(name = &**name, %error, "a switch of naming means nothing to this version");
            }
        }
        switches
    }
}

impl Board {
    /// The switches as the log has them. Blocks.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open(state: Arc<Reader>, discovery: Arc<Discovery>) -> Result<Arc<Board>> {
        let board = Board {
            shown: ArcSwap::default(),
            words: Mutex::default(),
            discovery,
            state,
        };
        board.reload()?;
        Ok(Arc::new(board))
    }

    /// The switches as they are.
    pub fn shown(&self) -> arc_swap::Guard<Arc<Switches>> {
        self.shown.load()
    }

    /// Obeys what the log says of switches. Called on the applier's thread, in log order.
    pub fn on_change(&self, events: &[Event]) {
        for event in events {
            match event {
                Event::NamingSwitched { name, value, .. } => {
                    let mut words = self.lock();
                    words.here.remove(name);
                    words.everywhere.insert(name.clone(), value.clone());
                    tracing::warn!(
                        name = &**name,
                        value = &**value,
                        "a switch of naming was turned on all nodes"
                    );
                    self.show(&words);
                }
                Event::Reloaded { .. } => {
                    if let Err(error) = self.reload() {
                        tracing::error!(%error, "switches of naming cannot be read: restart this node");
                    }
                }
                _ => {}
            }
        }
    }

    fn reload(&self) -> Result<()> {
        let read = self.state.naming_switches();
        let read = read.map_err(|error| Error::Internal(error.to_string()))?;
        let mut words = self.lock();
        words.everywhere = read.into_iter().collect();
        self.show(&words);
        Ok(())
    }

    fn set_here(&self, name: Box<str>, value: &str) {
        tracing::warn!(name = &*name, value, "a switch of naming was turned on this node");
        let mut words = self.lock();
        words.here.insert(name, value.into());
        self.show(&words);
    }

    /// IMPORTANT: under the lock, so that the newest words are shown last.
    fn show(&self, words: &Words) {
        let switches = words.shown();
        self.discovery.set_expiry(switches.health_check_enabled);
        self.shown.store(Arc::new(switches));
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services {
    /// The switches as they are.
    pub fn switches(&self) -> arc_swap::Guard<Arc<Switches>> {
        self.board.shown()
    }

    /// Turns a switch, on all nodes or on this one alone.
    ///
    /// # Errors
    /// No such entry, or a value it cannot have; on all nodes as any write. Nothing is changed.
    pub async fn set_switch(&self, entry: &str, value: &str, here: bool) -> Result<()> {
        Switches::default().set(entry, value)?;
        if value.len() > NAMING_SWITCH_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "the value of {entry} is longer than {NAMING_SWITCH_BYTES_MAX} bytes"
            )));
        }
        let name = name_of(entry, value);
        if here {
            self.board.set_here(name, value);
            return Ok(());
        }
        let value = value.into();
        match self.propose(Command::NamingSwitchPut { name, value }).await? {
            Outcome::NamingDone => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

/// Under which name a value is kept.
fn name_of(entry: &str, value: &str) -> Box<str> {
    match value.split_once(':') {
        Some((sdk, _)) if entry == "pushVersion" => format!("{entry}:{sdk}").into(),
        _ => entry.into(),
    }
}

/// SDKs of Nacos 1.x that are told of changes over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// `Nacos-Java-Client`, and `Nacos-DNS`, whose versions are compared with the same switch.
    Java,
    /// `Nacos-Go-Client`
    Go,
    /// `Nacos-Python-Client`
    Python,
    /// `Nacos-C-Client`, `vip-client4cpp`
    C,
    /// `Nacos-CSharp-Client`
    CSharp,
}

/// `1.2.3` as numbers; what follows the third does not count.
pub fn version_parts(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-', '_']);
    let mut part = || parts.next()?.parse().ok();
    Some([part()?, part()?, part()?])
}

/// What the Java server takes for true.
pub fn flag(text: &str) -> bool {
    ["true", "on", "yes", "y", "t", "1"]
        .iter()
        .any(|yes| text.trim().eq_ignore_ascii_case(yes))
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T> {
    let parsed = value.trim().parse();
    parsed.map_err(|_| Error::Invalid(format!("For input string: \"{value}\"")))
}

fn positive(entry: &str, value: &str) -> Result<f64> {
    let number: f64 = number(value)?;
    if number > 0.0 && number.is_finite() {
        Ok(number)
    } else {
        let shown = if number.fract() == 0.0 {
            format!("{number:.1}")
        } else {
            number.to_string()
        };
        Err(Error::Invalid(format!(
            "{entry} can not be zero or negative: {shown}"
        )))
    }
}

fn at_least(entry: &str, value: &str, least: u64) -> Result<u64> {
    match number(value)? {
        number if number >= least => Ok(number),
        _ => Err(Error::Invalid(format!(
            "{entry} is too small (<{least}): {value}"
        ))),
    }
}

fn limited_urls(value: &str) -> Result<BTreeMap<String, u16>> {
    let mut urls = BTreeMap::new();
    for pair in value.split(',').filter(|pair| !pair.trim().is_empty()) {
        let parts = pair.rsplit_once(':');
        let parsed = parts.and_then(|(url, status)| Some((url.trim(), status.trim().parse().ok()?)));
        match parsed {
            Some((url, status @ 200..=599)) if !url.is_empty() => urls.insert(url.to_owned(), status),
            _ => return Err(Error::Invalid(format!("illegal limited url: {pair}"))),
        };
        if urls.len() > LIMITED_URLS_MAX {
            return Err(Error::Invalid(format!(
                "more than {LIMITED_URLS_MAX} limited urls"
            )));
        }
    }
    Ok(urls)
}

fn overridden(value: &str) -> Result<Option<ServerStatus>> {
    if value.is_empty() || value.eq_ignore_ascii_case("null") {
        return Ok(None);
    }
    let status = ServerStatus::from_name(value);
    status
        .map(Some)
        .ok_or_else(|| Error::Invalid(format!("no server status: {value}")))
}

fn params(value: &str) -> Result<HealthParams> {
    let params: Option<HealthParams> = serde_json::from_str(value).ok();
    params
        .filter(|params| params.min <= params.max && (0.0..=1.0).contains(&params.factor))
        .ok_or_else(|| Error::Invalid(format!("json param invalid: {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_take_what_they_can_have_and_stay_otherwise() {
        let mut switches = Switches::default();
        for (entry, value) in [
            ("check", "false"),
            ("clientBeatInterval", "7000"),
            ("pushVersion", "go:1.2.3"),
            ("limitedUrlMap", "/nacos/v1/ns/instance/list:503,/x:404"),
            ("overriddenServerStatus", "READ_ONLY"),
            ("httpHealthParams", r#"{"max":1,"min":1,"factor":0.5}"#),
            ("masters", "a,b"),
        ] {
            assert_eq!(switches.set(entry, value), Ok(()), "{entry}");
        }
        assert!(!switches.health_check_enabled);
        assert_eq!(switches.client_beat_interval, 7_000);
        assert_eq!(switches.push_version(Sdk::Go), "1.2.3");
        assert_eq!(
            switches.limited_url_map.get("/nacos/v1/ns/instance/list"),
            Some(&503)
        );
        assert_eq!(switches.overridden_server_status, Some(ServerStatus::ReadOnly));
        let before = switches.clone();
        for (entry, value) in [
            ("distroThreshold", "-1"),
            ("distroThreshold", "NaN"),
            ("clientBeatInterval", "x"),
            ("clientBeatInterval", "0"),
            ("pushVersion", "go"),
            ("pushVersion", "go:x"),
            ("pushVersion", "ruby:1.0.0"),
            ("pushCacheMillis", "9999"),
            ("limitedUrlMap", "/x"),
            ("limitedUrlMap", ":1"),
            ("limitedUrlMap", "/x:99"),
            ("overriddenServerStatus", "GONE"),
            ("httpHealthParams", r#"{"max":1,"min":2,"factor":0.5}"#),
            ("nosuch", "1"),
        ] {
            assert!(switches.set(entry, value).is_err(), "{entry} {value}");
        }
        assert_eq!(switches, before);
        assert_eq!(switches.set("overriddenServerStatus", "NULL"), Ok(()));
        assert_eq!(switches.overridden_server_status, None);
    }

    #[test]
    fn what_was_set_here_counts_before_what_the_log_says() {
        let mut words = Words::default();
        let values = [
            ("check", "false"),
            ("clientBeatInterval", "7000"),
            ("pushVersion", "go:1.2.3"),
            ("pushVersion", "java:2.0.0"),
        ];
        for (entry, value) in values {
            words.everywhere.insert(name_of(entry, value), value.into());
        }
        words.here.insert("clientBeatInterval".into(), "9000".into());
        words.everywhere.insert("ofANewerVersion".into(), "1".into());
        let shown = words.shown();
        assert!(!shown.health_check_enabled);
        assert_eq!(shown.client_beat_interval, 9_000);
        let versions = [Sdk::Go, Sdk::Java, Sdk::C].map(|sdk| shown.push_version(sdk));
        assert_eq!(versions, ["1.2.3", "2.0.0", "1.0.12"]);
    }

    #[test]
    fn texts_of_the_java_server() {
        let told = |entry, value| Switches::default().set(entry, value).unwrap_err().to_string();
        assert_eq!(
            told("distroThreshold", "-1"),
            "distroThreshold can not be zero or negative: -1.0"
        );
        assert_eq!(told("clientBeatInterval", "x"), "For input string: \"x\"");
        assert_eq!(told("nosuch", "1"), "update entry not found: nosuch");
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version_parts("1.0.12"), Some([1, 0, 12]));
        assert_eq!(version_parts("1.4.2-SNAPSHOT"), Some([1, 4, 2]));
        assert_eq!(version_parts("1.4"), None);
        assert_eq!(version_parts(""), None);
    }
}
