//! `/v1/cs/configs/listener`: the long poll, and who listens to what (contract 02 §2 and §4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::super::form::{self, Params};
use super::super::reply::{self, JSON_UTF8, Reply};
use super::super::request::Request;
use super::super::routes::Answer;
use super::{name, no_cache};
use crate::config::Seen;
use crate::error::{Error, Result};
use crate::model::{ConfigKey, NamespaceId};
use crate::service::Services;
use crate::service::config::Name;
use crate::service::listen::{LISTENED_MAX, Listen, Listened};

/// Stands between the words of an entry.
const WORD: char = '\u{2}';
/// Ends an entry.
const LINE: char = '\u{1}';

/// The answer comes so long before the client's timeout.
const EARLY_MS: u64 = 500;
/// A poll is held at least so long, whatever the client says.
const HOLD_MS_MIN: u64 = 10_000;
/// And at most so long. SDKs say 30 s.
const HOLD_MS_MAX: u64 = 120_000;

/// Longest result that also goes into headers, for the short polls of the oldest clients.
const HEADER_RESULT_MAX: usize = 4 << 10;
const PROBE: HeaderName = HeaderName::from_static("probe-modify-response");
const PROBE_NEW: HeaderName = HeaderName::from_static("probe-modify-response-new");

/// POST: answers with the configs that differ from what the client has, or waits until one does.
pub(in super::super) fn poll(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let mut params = request.params()?;
    let text = params.take("Listening-Configs").unwrap_or_default();
    if text.trim().is_empty() {
        return Err(invalid_probe());
    }
    // Recorded: the Java server decodes what is decoded already. No valid name notices.
    let text = form::decode(text.as_bytes()).map_err(|_| invalid_probe())?;
    let Some(entries) = entries(&text)? else {
        // Recorded: a filter before the handler trips over it.
        let path = request.uri.path();
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(Answer::Ready(reply::spring_error(
            status,
            JSON_UTF8,
            "invalid probeModify",
            path,
        )));
    };
    let timeout = request.header("long-pulling-timeout");
    let is_short = timeout.is_none();
    let hold = match timeout {
        Some(timeout) if !no_hangup(request) => Some(hold(timeout)?),
        _ => None,
    };
    let listen = Listen {
        entries,
        ip: request.client_ip(),
        tag: request.header("vipserver-tag").map(str::to_owned),
    };
    let services = Arc::clone(services);
    Ok(Answer::later(async move {
        let changed = services.poll(listen, hold).await?;
        Ok(result(&changed, is_short))
    }))
}

fn invalid_probe() -> Error {
    Error::Invalid("invalid probeModify".to_owned())
}

/// Reads `dataId WORD group WORD md5 [WORD tenant] LINE …`; `None` for an entry of another form. A last
/// entry that is not ended counts.
fn entries(text: &str) -> Result<Option<Vec<Listened>>> {
    let mut entries = Vec::new();
    for line in text.split(LINE).filter(|line| !line.is_empty()) {
        if entries.len() == LISTENED_MAX {
            return Err(invalid_probe());
        }
        let mut words = line.split(WORD);
        let (Some(data_id), Some(group), Some(md5), namespace, None) = (
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
        ) else {
            return Ok(None);
        };
        let name = Name {
            namespace,
            group: Some(group),
            data_id: Some(data_id),
        };
        entries.push(Listened::new(&name, Seen::parse(md5))?);
    }
    // They are kept as long as the poll is held.
    entries.shrink_to_fit();
    Ok(if entries.is_empty() { None } else { Some(entries) })
}

fn no_hangup(request: &Request) -> bool {
    let header = request.header("long-pulling-timeout-no-hangup");
    header.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
}

/// How long a poll with this timeout is held: 29.5 s for the usual 30.
fn hold(timeout_ms: &str) -> Result<Duration> {
    let timeout_ms: i64 = timeout_ms
        .trim()
        .parse()
        .map_err(|_| Error::Invalid(format!("For input string: \"{timeout_ms}\"")))?;
    let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
    let hold_ms = timeout_ms
        .saturating_sub(EARLY_MS)
        .clamp(HOLD_MS_MIN, HOLD_MS_MAX);
    Ok(Duration::from_millis(hold_ms))
}

/// The changed configs in the words of the client. Recorded: an empty answer has no cache headers.
fn result(changed: &[Listened], is_short: bool) -> Reply {
    if changed.is_empty() {
        return reply::reply(StatusCode::OK, Some(JSON_UTF8), "");
    }
    let mut text = String::with_capacity(64 * changed.len());
    for entry in changed {
        encode(entry.key.data_id(), &mut text);
        text.push_str("%02");
        encode(entry.key.group(), &mut text);
        if let Some(namespace) = entry.namespace() {
            text.push_str("%02");
            encode(namespace, &mut text);
        }
        text.push_str("%01");
    }
    let headers = (is_short && text.len() <= HEADER_RESULT_MAX).then(|| probe_headers(changed, &text));
    text.push('\n');
    let mut reply = reply::reply(StatusCode::OK, Some(JSON_UTF8), text);
    no_cache(reply.headers_mut());
    for (name, value) in headers.into_iter().flatten() {
        if let Ok(value) = HeaderValue::try_from(value) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

/// What clients before 2.0.4 read: the names without namespaces, and the result as it is. Both are header
/// values always: valid names are ASCII.
fn probe_headers(changed: &[Listened], result: &str) -> [(HeaderName, String); 2] {
    let names = changed
        .iter()
        .map(|entry| format!("{}:{};", entry.key.data_id(), entry.key.group()));
    [(PROBE, names.collect()), (PROBE_NEW, result.to_owned())]
}

/// As `java.net.URLEncoder`.
fn encode(text: &str, encoded: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => {
                encoded.push(char::from(byte))
            }
            b' ' => encoded.push('+'),
            byte => {
                encoded.push('%');
                encoded.push(char::from(HEX[usize::from(byte >> 4)]));
                encoded.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

/// Listeners as the Java server shows them; the misspelling is on the wire.
#[derive(Debug, Serialize)]
struct ListenersJson {
    #[serde(rename = "collectStatus", skip_serializing_if = "Option::is_none")]
    collect_status: Option<u16>,
    #[serde(rename = "lisentersGroupkeyStatus")]
    listeners: BTreeMap<String, String>,
}

fn listeners(collect_status: Option<u16>, listeners: BTreeMap<String, String>) -> Reply {
    let body = ListenersJson {
        collect_status,
        listeners,
    };
    reply::json(JSON_UTF8, &body)
}

/// GET `/v1/cs/configs/listener`: addresses that listen to a config, and what they have; of all nodes, unless
/// `aggregation=false`.
pub(in super::super) fn of_config(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let key = name(&params).key()?;
    let (services, here) = (Arc::clone(services), is_about_this_node(&params));
    Ok(Answer::later(async move {
        let found = match here {
            true => services.listeners_of(&key),
            false => services.listeners_everywhere(&key).await,
        };
        Ok(listeners(Some(200), addresses(found)))
    }))
}

/// GET `/v1/cs/communication/configWatchers`: those of this node.
pub(in super::super) fn watchers(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let found = services.listeners_of(&name(&request.params()?).key()?);
    Ok(Answer::Ready(listeners(None, addresses(found))))
}

fn addresses(found: BTreeMap<String, Seen>) -> BTreeMap<String, String> {
    found.into_iter().map(|(ip, seen)| (ip, md5_text(seen))).collect()
}

fn is_about_this_node(params: &Params<'_>) -> bool {
    params.get("aggregation") == Some("false")
}

/// GET `/v1/cs/listener`: what an address listens to, on all nodes unless `aggregation=false`. Without a namespace and without
/// `all=true` only what lies in the default namespace.
pub(in super::super) fn of_address(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let params = request.params()?;
    let namespace = NamespaceId::from(params.any(&["tenant", "namespaceId"]));
    let all = namespace.is_default() && params.get("all") == Some("true");
    let ip = address(&params)?.to_owned();
    let (services, here) = (Arc::clone(services), is_about_this_node(&params));
    Ok(Answer::later(async move {
        let found = match here {
            true => services.listened_from(&ip),
            false => services.listened_everywhere(&ip).await,
        };
        let shown = found
            .into_iter()
            .filter(|(key, _)| all || key.namespace() == namespace.as_str());
        Ok(listeners(Some(200), group_keys(shown)))
    }))
}

/// GET `/v1/cs/communication/watcherConfigs`: all that it listens to on this node.
pub(in super::super) fn watched(services: &Arc<Services>, request: &Request) -> Result<Answer> {
    let found = services.listened_from(address(&request.params()?)?);
    Ok(Answer::Ready(listeners(None, group_keys(found.into_iter()))))
}

fn address<'a>(params: &'a Params<'_>) -> Result<&'a str> {
    name(params).check_characters()?;
    params.get("ip").ok_or(Error::missing("ip"))
}

/// `dataId+group[+tenant]`
fn group_keys(found: impl Iterator<Item = (ConfigKey, Seen)>) -> BTreeMap<String, String> {
    found
        .map(|(key, seen)| {
            let mut text = format!("{}+{}", key.data_id(), key.group());
            if !key.namespace().is_empty() {
                text.push('+');
                text.push_str(key.namespace());
            }
            (text, md5_text(seen))
        })
        .collect()
}

fn md5_text(seen: Seen) -> String {
    match seen {
        Seen::Md5(md5) => md5.to_string(),
        Seen::Nothing | Seen::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Md5;

    const MD5: &str = "0123456789abcdef0123456789abcdef";

    fn read(text: &str) -> Vec<Listened> {
        entries(text).expect("valid names").expect("the form")
    }

    #[test]
    fn entries_have_three_or_four_words() {
        let text = format!("a\u{2}g\u{2}{MD5}\u{1}b\u{2}g\u{2}\u{2}dev\u{1}c\u{2}g\u{2}x\u{2}public\u{1}");
        let read = read(&text);
        let parts: Vec<_> = read
            .iter()
            .map(|entry| {
                (
                    entry.key.data_id(),
                    entry.key.namespace(),
                    entry.seen,
                    entry.namespace(),
                )
            })
            .collect();
        let md5 = Seen::Md5(Md5::from_hex(MD5).unwrap());
        assert_eq!(
            parts,
            [
                ("a", "", md5, None),
                ("b", "dev", Seen::Nothing, Some("dev")),
                ("c", "", Seen::Other, Some("public")),
            ]
        );
    }

    #[test]
    fn another_form_is_told_and_never_a_panic() {
        for other in [
            "abc",
            "\u{1}",
            "a\u{2}g",
            "a\u{2}g\u{2}m\u{2}t\u{2}x",
            "a\u{2}g\u{2}m\u{1}b\u{1}",
        ] {
            assert_eq!(entries(other), Ok(None), "{other:?}");
        }
        for blank in ["\u{2}g\u{2}m", "a\u{2}\u{2}m", " \u{2}g\u{2}m"] {
            assert!(entries(blank).is_err(), "{blank:?}");
        }
        for illegal in [
            "a b\u{2}g\u{2}m",
            "a\u{2}g/\u{2}m",
            "a\u{2}g\u{2}m\u{2}t t",
            "名\u{2}g\u{2}m",
        ] {
            assert!(matches!(entries(illegal), Err(Error::Illegal(_))), "{illegal:?}");
        }
        let long = format!("{}\u{2}g\u{2}m", "a".repeat(100_000));
        assert!(matches!(entries(&long), Err(Error::Illegal(_))));
    }

    #[test]
    fn ten_thousand_entries_and_not_one_more() {
        let mut text = "a\u{2}g\u{2}\u{1}".repeat(LISTENED_MAX);
        assert_eq!(read(&text).len(), LISTENED_MAX);
        text.push_str("a\u{2}g\u{2}\u{1}");
        assert_eq!(entries(&text), Err(invalid_probe()));
    }

    /// Property: any mixture of separators and words is read, refused or told, in order and without a panic.
    #[test]
    fn mixtures_of_separators_are_read_or_refused() {
        let pieces = ["\u{1}", "\u{2}", "a", "g", MD5, "%", " ", "public", "\u{0}", "é"];
        for seed in 0..5_000_u64 {
            let mut random = seed;
            let mut text = String::new();
            for _ in 0..seed % 24 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(random >> 33) as usize % pieces.len()]);
            }
            if let Ok(Some(read)) = entries(&text) {
                assert!(
                    read.iter().all(|entry| entry.key.is_storable()),
                    "seed {seed}: {text:?}"
                );
                assert_eq!(
                    read.len(),
                    text.split(LINE).filter(|line| !line.is_empty()).count()
                );
            }
        }
    }

    #[test]
    fn polls_are_held_half_a_second_less_than_the_client_waits() {
        let ms = |text: &str| hold(text).map(|hold| hold.as_millis());
        assert_eq!(ms("30000"), Ok(29_500));
        assert_eq!(ms(" 10000 "), Ok(10_000));
        assert_eq!(ms("-1"), Ok(10_000));
        assert_eq!(ms("9223372036854775807"), Ok(120_000));
        assert_eq!(
            hold("soon"),
            Err(Error::Invalid("For input string: \"soon\"".to_owned()))
        );
    }

    #[test]
    fn answers_repeat_the_spelling_of_the_client() {
        let text = format!("a:b\u{2}g\u{2}{MD5}\u{1}a\u{2}g\u{2}\u{2}\u{1}a\u{2}g\u{2}\u{2}PUBLIC\u{1}");
        let reply = result(&read(&text), true);
        assert_eq!(reply.headers().get(PROBE).unwrap(), "a:b:g;a:g;a:g;");
        let new = "a%3Ab%02g%01a%02g%02%01a%02g%02PUBLIC%01";
        assert_eq!(reply.headers().get(PROBE_NEW).unwrap(), new);
        let mut encoded = String::new();
        encode("a.b-c_d* é", &mut encoded);
        assert_eq!(encoded, "a.b-c_d*+%C3%A9");
    }
}
