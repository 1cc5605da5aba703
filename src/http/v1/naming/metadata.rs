//! Metadata as parameters carry it: a JSON object, or `name=value` pairs separated by commas.

use serde_json::Value;

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
    let parsed = match serde_json::from_str(text) {
        Ok(value) => of_json(&value),
        Err(_) => pairs(text),
    };
    parsed.ok_or_else(|| Error::Invalid(format!("metadata format incorrect:{text}")))
}

/// Metadata as a JSON value has it: what is no text is written as one, nothing is the empty one.
pub(in crate::http) fn of_json(value: &Value) -> Option<Metadata> {
    let fields = match value {
        Value::Null => return Some(Metadata::default()),
        Value::Object(fields) => fields,
        _ => return None,
    };
    let text = |value: &Value| match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    };
    let pairs = fields
        .iter()
        .map(|(name, value)| Some((name.as_str(), text(value)?)));
    pairs.collect()
}

fn pairs(text: &str) -> Option<Metadata> {
    let pairs = text.split(',').map(|pair| {
        let (name, value) = pair.split_once('=')?;
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
        assert_eq!(read(" "), Some(vec![]));
        assert_eq!(parse(None), Ok(Metadata::default()));
        assert_eq!(read("null"), Some(vec![]));
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
        ] {
            let told = Error::Invalid(format!("metadata format incorrect:{wrong}"));
            assert_eq!(parse(Some(wrong)), Err(told));
        }
    }
}
