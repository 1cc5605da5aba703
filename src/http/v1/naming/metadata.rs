//! Metadata as parameters carry it: a JSON object, or `name=value` pairs separated by commas.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::naming::Metadata;

/// Reads it; nothing and white space are no metadata.
///
/// # Errors
/// It is neither a JSON object of plain values nor pairs.
pub(in crate::http) fn parse(text: Option<&str>) -> Result<Metadata> {
    let text = text.unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(Metadata::default());
    }
    let parsed = match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => of_json(value),
        Err(_) => pairs(text),
    };
    parsed.ok_or_else(|| Error::Invalid(format!("metadata format incorrect:{text}")))
}

/// Metadata as a JSON value has it: nothing is the empty one. What is no text counts as the text it is written as, as
/// in Java: a version 1.10 read as a number would be the version 1.1.
pub(in crate::http) fn of_json(value: &RawValue) -> Option<Metadata> {
    let fields: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(value.get()).ok()?;
    let fields = fields.unwrap_or_default();
    let text = |value: &RawValue| match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'n' => Some(String::new()),
        b'[' | b'{' => None,
        _ => Some(value.get().to_owned()),
    };
    let pairs = fields.into_iter().map(|(name, value)| Some((name, text(value)?)));
    pairs.collect()
}

/// Commas at the end, and `=` at the end of a pair, say nothing: Java's `split` drops them.
fn pairs(text: &str) -> Option<Metadata> {
    let text = text.trim_end_matches(',');
    if text.is_empty() {
        return Some(Metadata::default());
    }
    let pairs = text.split(',').map(|pair| {
        let (name, value) = pair.trim_end_matches('=').split_once('=')?;
        (!name.is_empty() && !value.is_empty() && !value.contains('=')).then_some((name, value))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        let metadata = parse(Some(text)).ok()?;
        let pairs = metadata
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Some(pairs.collect())
    }

    #[test]
    fn both_forms_are_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            read(r#"{"a":"b","n":1,"t":true,"z":null}"#),
            Some(vec![
                pair("a", "b"),
                pair("n", "1"),
                pair("t", "true"),
                pair("z", "")
            ])
        );
        assert_eq!(read("a=b,c=d e"), Some(vec![pair("a", "b"), pair("c", "d e")]));
        for text in ["a=b,", "a=b,,", "a=b=", "a=b==,"] {
            assert_eq!(read(text), Some(vec![pair("a", "b")]), "{text}");
        }
        assert_eq!(read(","), Some(vec![]));
        assert_eq!(read(" "), Some(vec![]));
        assert_eq!(parse(None), Ok(Metadata::default()));
        assert_eq!(read("null"), Some(vec![]));
    }

    #[test]
    fn what_is_no_text_stays_as_it_is_written() {
        let text =
            r#" { "version" : 1.10 , "build":12345678901234567890123,"e":1E5, "t": true, "u":"\u0041\"" } "#;
        let read = read(text).expect("metadata");
        let read: Vec<_> = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                ("build", "12345678901234567890123"),
                ("e", "1E5"),
                ("t", "true"),
                ("u", "A\""),
                ("version", "1.10")
            ]
        );
    }

    #[test]
    fn anything_else_is_told() {
        for wrong in [
            "nonsense",
            "{\"a\":",
            "[]",
            "1",
            "{\"a\":{}}",
            "{\"a\":[1]}",
            "a=b,c",
            "=b",
            "a=",
            "a=b=c",
            "a==",
            ",a=b",
            "a=b,,c=d",
        ] {
            let told = Error::Invalid(format!("metadata format incorrect:{wrong}"));
            assert_eq!(parse(Some(wrong)), Err(told));
        }
    }
}
