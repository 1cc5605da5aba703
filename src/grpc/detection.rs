//! Finding clients that are gone without a word, or take nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
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
        let mut gone = Gone::default();
        for client in gateway.registry.clients() {
            let before = asked.get(&client.id).copied();
            if let Some(since) = look_at(&gateway, &client, before, &mut gone) {
                still_asked.insert(client.id.clone(), since);
            }
        }
        asked = still_asked;
        if let Some(who) = gone.line() {
            tracing::info!(
                clients = gone.count,
                "clients are gone, their connections are closed: {who}"
            );
        }
    }
}

/// When the client was asked, if it is to answer.
fn look_at(gateway: &Gateway, client: &Client, asked: Option<Asked>, gone: &mut Gone) -> Option<Asked> {
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
            gone.add(&client.id, &client.setup.client_ip, silent, stuck);
            client.close();
            None
        }
    }
}

/// Clients closed in one look at everybody. When a rack goes dark there are thousands: the log gets one line, with
/// a few of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gone {
    count: usize,
    examples: String,
}

impl Gone {
    fn add(&mut self, id: &str, ip: &str, silent: Duration, stuck: Duration) {
        if self.count < EXAMPLES_MAX {
            let comma = if self.count == 0 { "" } else { ", " };
            let (silent, stuck) = (silent.as_secs(), stuck.as_secs());
            // Writing to a text never fails.
            let _ = write!(
                self.examples,
                "{comma}{id} of {ip:?} (silent {silent} s, stuck {stuck} s)"
            );
        }
        self.count += 1;
    }

    /// What the log says; nothing when nobody is gone.
    fn line(&self) -> Option<String> {
        let others = match self.count.saturating_sub(EXAMPLES_MAX) {
            0 => String::new(),
            others => format!(", and {others} others"),
        };
        (self.count > 0).then(|| format!("{}{others}", self.examples))
    }
}

/// Clients named in one line of the log.
const EXAMPLES_MAX: usize = 3;

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

    #[test]
    fn one_line_tells_of_all_who_are_gone_and_names_a_few() {
        let s = Duration::from_secs;
        let mut gone = Gone::default();
        assert_eq!(gone.line(), None);
        gone.add("1_10.0.0.1_7", "10.0.0.1", s(26), s(0));
        assert_eq!(
            gone.line().as_deref(),
            Some(r#"1_10.0.0.1_7 of "10.0.0.1" (silent 26 s, stuck 0 s)"#)
        );
        for number in 0..9_999 {
            gone.add(&number.to_string(), "forged\nline", s(1), s(300));
        }
        let line = gone.line().expect("somebody is gone");
        assert!(
            line.ends_with(r#"1 of "forged\nline" (silent 1 s, stuck 300 s), and 9997 others"#),
            "{line}"
        );
        assert!(line.len() < 300 && gone.count == 10_000);
    }
}
