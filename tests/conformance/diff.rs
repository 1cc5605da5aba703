//! Comparing an answer with a recorded one: the rules of `tests/oracle/replay.py`, in the same order.

use std::collections::BTreeMap;

use serde_json::Value;

use super::replay::{Answer, Body, Case};

/// How much of an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rigour {
    /// Everything that is deterministic.
    Strict,
    /// What a client would notice.
    Lenient,
}

/// A recorded answer.
#[derive(Debug)]
pub(crate) struct Recorded<'a>(pub &'a Value);

impl Recorded<'_> {
    fn status(&self) -> u64 {
        self.0["status"].as_u64().unwrap_or(0)
    }

    fn strings(&self, name: &str) -> Vec<String> {
        strings(&self.0[name])
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0["headers"][name].as_str()
    }
}

/// The strings of an array; empty for anything else.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Texts only a Java server can produce: their words are not compared.
fn is_javas(text: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "java.",
        "org.springframework",
        "com.alibaba",
        "Cannot invoke",
        "JSON parse error",
        "BindingResult",
        "required type",
        "Parameter conditions",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// What differs; empty when the answer agrees.
pub(crate) fn diff(case: &Case, recorded: &Recorded<'_>, answer: &Answer, rigour: Rigour) -> Vec<String> {
    let lenient = rigour == Rigour::Lenient;
    let (wanted, got) = (recorded.status(), u64::from(answer.status));
    if lenient && wanted >= 400 && got >= 400 && (wanted == got || ![404, 405, 501].contains(&got)) {
        return Vec::new();
    }
    if wanted != got {
        return vec![format!("status {got} instead of {wanted}")];
    }
    let level = case.0["level"].as_str().unwrap_or("value");
    if level == "status" {
        return Vec::new();
    }
    let mut differences = Vec::new();
    let kind = recorded.0["kind"].as_str().unwrap_or_default();
    let media = recorded.0["ctype"].as_str().unwrap_or_default();
    if !lenient && kind != "empty" && media != answer.media {
        differences.push(format!("content type {:?} instead of {media:?}", answer.media));
    }
    if level == "ctype" {
        return differences;
    }
    if kind != answer.body.kind() {
        if !(wanted >= 400 && lenient) {
            differences.push(format!("a {} body instead of {kind}", answer.body.kind()));
        }
        return differences;
    }
    match &answer.body {
        Body::Json(json) => differences.extend(diff_json(case, recorded, json, level, rigour)),
        Body::Text(text) if level == "value" => differences.extend(diff_text(case, recorded, text, lenient)),
        Body::Text(_) | Body::Empty => {}
    }
    differences.extend(diff_headers(case, recorded, answer, lenient));
    if let Some([least, most]) = case.0["timing"]["ms"].as_array().map(Vec::as_slice)
        && !(least.as_u64() <= Some(answer.ms) && Some(answer.ms) <= most.as_u64())
    {
        differences.push(format!(
            "answered after {} ms, wanted {least} to {most}",
            answer.ms
        ));
    }
    differences
}

fn diff_text(case: &Case, recorded: &Recorded<'_>, text: &str, lenient: bool) -> Option<String> {
    if recorded.strings("unstable").iter().any(|path| path == "text") {
        return None;
    }
    let wanted = recorded.0["body"].as_str().unwrap_or_default();
    let trim = case.0["trim"].as_bool().unwrap_or(true);
    let end = |text: &'_ str| {
        if trim {
            text.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            text.to_owned()
        }
    };
    let is_error = recorded.status() >= 400;
    let same = end(wanted) == end(text) || is_error && (lenient || is_javas(wanted));
    (!same).then(|| format!("text {text:?} instead of {wanted:?}"))
}

fn diff_headers(case: &Case, recorded: &Recorded<'_>, answer: &Answer, lenient: bool) -> Vec<String> {
    let unstable = recorded.strings("unstable_headers");
    let mut differences = Vec::new();
    for name in strings(&case.0["hdrs"]).iter().map(|name| name.to_lowercase()) {
        if lenient && name != "content-md5" {
            continue;
        }
        let (wanted, got) = (
            recorded.header(&name),
            answer.headers.get(&name).map(String::as_str),
        );
        // Dates of a recording are never ours, whether or not two recordings happened to agree.
        let masked = unstable.contains(&name) || name == "last-modified";
        let same = if masked {
            wanted.is_some() == got.is_some()
        } else {
            wanted == got
        };
        if !same {
            differences.push(format!("header {name}: {got:?} instead of {wanted:?}"));
        }
    }
    differences
}

type Flat = BTreeMap<String, (&'static str, Value)>;

fn diff_json(case: &Case, recorded: &Recorded<'_>, json: &Value, level: &str, rigour: Rigour) -> Vec<String> {
    let lenient = rigour == Rigour::Lenient;
    let is_error = recorded.status() >= 400;
    let mut mask = strings(&case.0["mask"]);
    let (mut wanted, mut got) = (view(case, &recorded.0["body"]), view(case, json));
    if case.0["unordered"].as_bool() == Some(true) {
        (wanted, got) = (ordered(&wanted, &mask, ""), ordered(&got, &mask, ""));
    }
    mask.extend(recorded.strings("unstable"));
    let (wanted, got) = (flat(&wanted), flat(&got));
    let mut differences = Vec::new();
    for (path, (kind, value)) in &wanted {
        let masked = is_masked(path, &mask);
        let Some((got_kind, got_value)) = got.get(path) else {
            let forgiven = masked || lenient && *kind == "null" || is_told_elsewhere(path, &wanted, &got);
            if !forgiven {
                differences.push(format!("{path} is missing"));
            }
            continue;
        };
        let numbers = [*kind, *got_kind]
            .iter()
            .all(|kind| ["int", "float"].contains(kind));
        if kind != got_kind {
            let as_good = if masked {
                numbers || *kind == "null" || *got_kind == "null"
            } else {
                let null_text = ["null", "string"].contains(kind) && ["null", "string"].contains(got_kind);
                lenient && (numbers && value.as_f64() == got_value.as_f64() || is_error && null_text)
            };
            if !as_good {
                differences.push(format!("{path} is {got_kind} instead of {kind}"));
            }
            continue;
        }
        if masked || level == "shape" || value == got_value {
            continue;
        }
        let forgiven = is_error && (lenient && *kind == "string" || value.as_str().is_some_and(is_javas));
        if !forgiven {
            differences.push(format!("{path} is {got_value} instead of {value}"));
        }
    }
    if !lenient {
        for path in got.keys().filter(|path| !wanted.contains_key(*path)) {
            let parent = parent(path);
            if !is_masked(path, &mask) && wanted.get(parent).is_some_and(|(kind, _)| *kind == "object") {
                differences.push(format!("{path} is extra"));
            }
        }
    }
    differences
}

/// The length of an array, or a missing parent, tells it already.
fn is_told_elsewhere(path: &str, wanted: &Flat, got: &Flat) -> bool {
    let in_array = wanted.get(parent(path)).is_some_and(|(kind, _)| *kind == "array");
    let below_missing = wanted.keys().any(|other| {
        other != "."
            && !got.contains_key(other)
            && path
                .strip_prefix(other.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
    });
    in_array || below_missing
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        None | Some(("", _)) => ".",
        Some((parent, _)) => parent,
    }
}

/// Leaves and containers by path.
fn flat(value: &Value) -> Flat {
    fn add(value: &Value, path: &str, out: &mut Flat) {
        let here = if path.is_empty() {
            ".".to_owned()
        } else {
            path.to_owned()
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "float",
            Value::Number(_) => "int",
            Value::String(_) => "string",
            Value::Array(items) => {
                out.insert(here, ("array", items.len().into()));
                for (position, item) in items.iter().enumerate() {
                    add(item, &format!("{path}/{position}"), out);
                }
                return;
            }
            Value::Object(fields) => {
                out.insert(here, ("object", Value::Null));
                for (name, field) in fields {
                    add(field, &format!("{path}/{name}"), out);
                }
                return;
            }
        };
        out.insert(here, (kind, value.clone()));
    }
    let mut out = Flat::new();
    add(value, "", &mut out);
    out
}

/// With `pick` only the elements of one list that hold a text count.
fn view(case: &Case, body: &Value) -> Value {
    let mut body = body.clone();
    if let [key, text] = strings(&case.0["pick"]).as_slice()
        && let Some(items) = body.get_mut(key.as_str()).and_then(Value::as_array_mut)
    {
        items.retain(|item| item.to_string().contains(text.as_str()));
    }
    body
}

/// Arrays in an order of their own; masked values do not take part.
fn ordered(value: &Value, mask: &[String], path: &str) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), ordered(field, mask, &format!("{path}/{name}"))))
            .collect(),
        Value::Array(items) => {
            let path = format!("{path}/0");
            let mut items: Vec<Value> = items.iter().map(|item| ordered(item, mask, &path)).collect();
            items.sort_by_key(|item| blanked(item, mask, &path).to_string());
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn blanked(value: &Value, mask: &[String], path: &str) -> Value {
    if is_masked(path, mask) {
        return Value::Null;
    }
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), blanked(field, mask, &format!("{path}/{name}"))))
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| blanked(item, mask, &format!("{path}/0")))
            .collect(),
        other => other.clone(),
    }
}

/// `*` is one level, `**` any number of them; a mask covers what is below it.
fn is_masked(path: &str, masks: &[String]) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    masks
        .iter()
        .any(|mask| covers(&mask.split('/').collect::<Vec<_>>(), &path))
}

fn covers(mask: &[&str], path: &[&str]) -> bool {
    match (mask, path) {
        ([], _) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skip| covers(rest, &path[skip..])),
        ([first, mask @ ..], [step, path @ ..]) => (*first == "*" || first == step) && covers(mask, path),
        (_, []) => false,
    }
}

#[test]
fn masks_cover_what_is_below_them() {
    let masked = |path: &str, mask: &str| is_masked(path, &[mask.to_owned()]);
    assert!(masked("/a/b", "/a/b"));
    assert!(masked("/a/b/c", "/a/b"));
    assert!(masked("/a/3/id", "/a/*/id"));
    assert!(masked("/a/b/c/id", "/**/id"));
    assert!(!masked("/a/b", "/a/bc"));
    assert!(!masked("/a", "/a/b"));
}
