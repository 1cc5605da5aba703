//! `rnacos::model`, `rnacos::config`: the names and texts that clients send, as far as they are checked
//! outside the private adapters of `http`.
//!
//! * A name that passes the checks is made of the characters that Nacos allows, within its length, storable
//!   under a key of its own, and never a path: no separator, no control character.
//! * Keys, md5s and namespaces come back from their text; gray rules that pass the check select by the
//!   documented comparison and nothing else.

use rnacos::config::{Client, GrayRule, RuleKind};
use rnacos::model::validate::{self, Attributes};
use rnacos::model::{ConfigKey, ConfigType, Md5, NamespaceId};

use crate::input::Input;

/// See the module.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let texts: Vec<String> = (0..4).map(|_| input.text()).collect();
    let rest = String::from_utf8_lossy(input.rest()).into_owned();
    names(&texts[0], &texts[1], &texts[2]);
    others(&texts, &rest);
    gray(&texts[0], &texts[1], &texts[2]);
    md5(data, &rest);
}

fn names(namespace: &str, group: &str, data_id: &str) {
    let passes = validate::namespace_id(namespace).is_ok()
        && validate::group(group).is_ok()
        && validate::data_id(data_id).is_ok()
        && validate::key(data_id, group).is_ok();
    let id = NamespaceId::new(namespace);
    assert_eq!(NamespaceId::new(id.as_str()), id);
    assert_eq!(NamespaceId::new(id.as_public_str()), id);
    let key = ConfigKey::new(&id, group, data_id);
    if key.is_storable() {
        assert_eq!(ConfigKey::from_bytes(key.as_bytes()).as_ref(), Some(&key));
        assert_eq!(
            (key.namespace_id(), key.group(), key.data_id()),
            (id, group, data_id)
        );
    }
    if !passes {
        return;
    }
    assert!(
        key.is_storable(),
        "{key:?} passes the checks and cannot be stored"
    );
    assert!(key.as_bytes().len() <= rnacos::state::KEY_BYTES_MAX);
    for (name, max) in [(namespace, 64), (group, 128), (data_id, 256)] {
        assert!(name.chars().count() <= max, "{name:?} is too long");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        assert!(name.chars().all(allowed), "{name:?} holds what no name may hold");
    }
}

fn others(texts: &[String], rest: &str) {
    if validate::tag(&texts[0]).is_ok() {
        assert!(texts[0].trim().is_empty() || texts[0].chars().count() <= validate::TAG_MAX);
    }
    if validate::content(rest).is_ok() {
        assert!(!rest.trim().is_empty());
    }
    let attributes = Attributes {
        config_tags: &texts[0],
        description: &texts[1],
        purpose: &texts[2],
        effect: &texts[3],
        kind: &texts[0],
        schema: rest,
        app_name: &texts[1],
    };
    if validate::attributes(&attributes).is_ok() {
        let tags = texts[0].split(',').filter(|_| !texts[0].is_empty());
        assert!(tags.count() <= validate::CONFIG_TAGS_MAX);
        assert!(texts[1].chars().count() <= validate::DESCRIPTION_MAX);
        assert!(texts[2].chars().count() <= validate::USE_MAX);
    }
    let kind = ConfigType::from_name(&texts[3]);
    assert_eq!(ConfigType::from_name(kind.as_str()), kind);
}

fn gray(kind: &str, expression: &str, client: &str) {
    let rule = match kind.len() % 3 {
        0 => GrayRule::beta(expression),
        1 => GrayRule::tag(expression),
        _ => GrayRule {
            kind: RuleKind::from_name(kind),
            ..GrayRule::beta(expression)
        },
    };
    assert_eq!(RuleKind::from_name(rule.kind.as_str()), rule.kind);
    let by_ip = rule.matches(&Client {
        ip: client,
        tag: None,
    });
    let by_tag = rule.matches(&Client {
        ip: "",
        tag: Some(client),
    });
    match rule.kind {
        RuleKind::Beta => {
            assert_eq!(by_ip, expression.split(',').any(|ip| ip.trim() == client));
        }
        RuleKind::Tag => {
            assert!(!by_ip, "a client without a tag sees a tag variant");
            assert_eq!(by_tag, expression.trim() == client);
        }
        RuleKind::Other(_) => {
            assert!(!by_ip && !by_tag, "an unknown kind of rule matches");
            assert!(rule.check().is_err());
        }
    }
}

fn md5(data: &[u8], text: &str) {
    let md5 = Md5::of(data);
    assert_eq!(Md5::from_hex(md5.hex().as_str()), Some(md5));
    assert_eq!(Md5::from_bytes(md5.as_bytes()), Some(md5));
    if let Some(read) = Md5::from_hex(text) {
        assert!(text.eq_ignore_ascii_case(read.hex().as_str()));
    }
}

/// Names that are allowed, at their limits, and that try to be something else.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let texts = |texts: &[&str], rest: &str| {
        let mut out = Vec::new();
        for text in texts {
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
        out.extend(rest.as_bytes());
        out
    };
    let long = "d".repeat(255);
    let seeds = [
        (
            "seed-plain",
            texts(&["dev", "DEFAULT_GROUP", "app.yaml", "yaml"], "a: 1"),
        ),
        ("seed-public", texts(&["public", "g", "d", "text"], " ")),
        (
            "seed-long",
            texts(&[&long[..64], &long[..128], &long, "x"], &long),
        ),
        (
            "seed-path",
            texts(&["..", "../..", "/etc/passwd", "json"], "%2e%2e"),
        ),
        ("seed-wide", texts(&["名", "组", "\u{1f600}", "\0"], "内容")),
        (
            "seed-beta",
            texts(&["abc", "10.0.0.1, 10.0.0.2", "10.0.0.2", ""], ""),
        ),
        ("seed-tag", texts(&["tag1", " t1 ", "t1", ""], "")),
        ("seed-other", texts(&["regex", ".*", "x", "toml"], "")),
        (
            "seed-md5",
            texts(&["", "", "", ""], "D41D8CD98F00B204E9800998ECF8427E"),
        ),
        ("seed-empty", Vec::new()),
    ];
    seeds.map(|(name, data)| (name.to_owned(), data)).into()
}
