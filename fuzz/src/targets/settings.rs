//! `rnacos::settings`: a settings file of any content.
//!
//! * It is read, or every mistake is told in a text; a line that cannot be read is named.
//! * Reading is a function of the text: the same text gives the same settings.
//! * Secrets are not printed by `--print-settings`.

use std::collections::BTreeMap;

use rnacos::settings::{Invocation, Refusal, read};

/// See the module.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let found = read_text(&text);
    let again = read_text(&text);
    match (found, again) {
        (Ok(found), Ok(again)) => {
            assert_eq!(found.printed, again.printed);
            assert_eq!(found.warnings, again.warnings);
            expect_no_secret(&text, &found);
        }
        (Err(found), Err(again)) => {
            let sentence = found.to_string();
            assert!(!sentence.trim().is_empty(), "refused without a word");
            assert_eq!(sentence, again.to_string());
        }
        (found, again) => panic!("one text, two readings: {found:?} and {again:?}"),
    }
}

fn read_text(text: &str) -> Result<Invocation, Refusal> {
    read(["rnacos", "-e", "settings.env"], BTreeMap::new(), |_| {
        Ok(text.to_owned())
    })
}

/// A cluster token that is set plainly, and stands nowhere else in the file, is not in what is printed.
fn expect_no_secret(text: &str, found: &Invocation) {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("RNACOS_CLUSTER_TOKEN="));
    let Some(secret) = lines.next_back() else { return };
    let is_plain = secret.len() >= 16 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain && text.matches(secret).count() == 1 {
        assert!(!found.printed.contains(secret), "a secret is printed");
        assert!(!found.warnings.iter().any(|warning| warning.contains(secret)));
    }
}

/// Files of every form, and with every kind of mistake.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let seeds = [
        ("seed-plain", "RNACOS_HTTP_PORT=8850\nRNACOS_DATA_DIR=/tmp/x\n"),
        (
            "seed-cluster",
            "RNACOS_RAFT_NODE_ID=2\nRNACOS_RAFT_NODE_ADDR=127.0.0.1:9849\n\
             RNACOS_RAFT_JOIN_ADDR=127.0.0.1:9848\nRNACOS_CLUSTER_TOKEN=abcdefghijklmnopqrstuvwxyz012345\n",
        ),
        (
            "seed-both",
            "RNACOS_RAFT_AUTO_INIT=true\nRNACOS_RAFT_JOIN_ADDR=127.0.0.1:9848\n",
        ),
        (
            "seed-quotes",
            "export A = 1\nB=\"x\\\"y\\n\" # c\nC='x\\n$Y'\nD=a # b\n",
        ),
        (
            "seed-malformed",
            "A=1\nnonsense\n=1\nB=\"open\nC='x' y\nD=\"\\q\"\n",
        ),
        (
            "seed-numbers",
            "RNACOS_HTTP_PORT=99999\nRNACOS_RAFT_NODE_ID=-1\nRNACOS_HTTP_WORKERS=\n",
        ),
        ("seed-unknown", "RNACOS_NO_SUCH_THING=1\nRUST_LOG=debug\n"),
        ("seed-bom", "\u{feff}# c\r\nRNACOS_HTTP_PORT=1\r\n"),
        ("seed-empty", ""),
    ];
    seeds
        .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        .into()
}
