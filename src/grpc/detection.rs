//! Finding clients that are gone without a word, or take nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proto::nacos::remote::ClientDetectionRequest;
use tokio::time::{MissedTickBehavior, interval};

use super::connection::Client;
use super::gateway::Gateway;

/// Silence after which a client is asked whether it is there. SDKs say something every five seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// A client that is asked must be heard of within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A client that has taken nothing for so long, although something waits for it, is closed.
const STUCK_MAX: Duration = Duration::from_secs(300);
/// How often everybody is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What is to be done about one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Ask,
    /// It was asked and still has time.
    Wait,
    Close,
}

/// `asked` is how long ago it was asked, if it was and has said nothing since.
fn verdict(silent: Duration, stuck: Duration, asked: Option<Duration>) -> Verdict {
    match asked {
        _ if stuck >= STUCK_MAX => Verdict::Close,
        Some(ago) if ago >= ANSWER_WITHIN => Verdict::Close,
        Some(_) => Verdict::Wait,
        None if silent >= SILENCE => Verdict::Ask,
        None => Verdict::Fine,
    }
}

/// When a client was asked, and when it had been heard last by then; by the age of its line. Two words
/// within one millisecond have the same time, but never one before and one after twenty seconds of silence.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at_ms: u64,
    heard_ms: u64,
}

/// Looks at everybody, for ever.
///
/// # Cancel safety
/// Nothing is lost by dropping it.
pub(super) async fn watch(gateway: Arc<Gateway>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked: HashMap<Arc<str>, Asked> = HashMap::new();
    loop {
        ticks.tick().await;
        let mut still_asked = HashMap::new();
        for client in gateway.registry.clients() {
            let before = asked.get(&client.id).copied();
            if let Some(since) = look_at(&gateway, &client, before) {
                still_asked.insert(client.id.clone(), since);
            }
        }
        asked = still_asked;
    }
}

/// When the client was asked, if it is to answer.
fn look_at(gateway: &Gateway, client: &Client, asked: Option<Asked>) -> Option<Asked> {
    let now = client.line.age_ms();
    let heard_ms = client.heard_ms();
    let ms = Duration::from_millis;
    let asked = asked.filter(|asked| asked.heard_ms == heard_ms);
    let ago = asked.map(|asked| ms(now.saturating_sub(asked.at_ms)));
    let (silent, stuck) = (ms(client.silent_ms()), ms(client.pushes.outbox().stuck_for_ms()));
    match verdict(silent, stuck, ago) {
        Verdict::Fine => None,
        Verdict::Wait => asked,
        Verdict::Ask => {
            gateway.metrics.detections.fetch_add(1, Relaxed);
            // Its answer is a sign of life like any other; one that cannot even be asked has none.
            let _ = client.push_unacknowledged(|id| ClientDetectionRequest {
                request_id: Some(id),
                ..ClientDetectionRequest::default()
            });
            Some(Asked { at_ms: now, heard_ms })
        }
        Verdict::Close => {
            gateway.metrics.detection_closes.fetch_add(1, Relaxed);
            tracing::info!(id = %client.id, ip = %client.setup.client_ip, silent_s = silent.as_secs(), stuck_s = stuck.as_secs(),
                "a client is gone: its connection is closed");
            client.close();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_asked_about_once_and_ends_with_any_word_or_the_connection() {
        let s = Duration::from_secs;
        let none = Duration::ZERO;
        assert_eq!(verdict(s(19), none, None), Verdict::Fine);
        assert_eq!(verdict(s(20), none, None), Verdict::Ask);
        assert_eq!(verdict(s(23), none, Some(s(3))), Verdict::Wait);
        assert_eq!(verdict(s(25), none, Some(s(5))), Verdict::Close);
        assert_eq!(
            verdict(s(1), STUCK_MAX, None),
            Verdict::Close,
            "it talks and takes nothing"
        );
    }
}
