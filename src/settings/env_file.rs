//! Files of KEY=VALUE lines (`-e FILE`, `.env`).
//!
//! Blank lines and lines that begin with `#` mean nothing; `export ` before a name is ignored. A value may
//! stand in double quotes (`\n`, `\t`, `\"`, `\\` are understood) or in single ones (taken as it is). An
//! unquoted value ends at ` #`. Nothing is substituted: a `$` is a `$`.

use std::collections::BTreeMap;

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Malformed {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// Reads the text of a file. A name that stands there twice has its last value. Every malformed line is
/// reported, not only the first.
///
/// # Errors
/// Each line that is not one of the forms above.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, Vec<Malformed>> {
    let mut values = BTreeMap::new();
    let mut mistakes = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        match parse_line(line) {
            Ok(Some((name, value))) => {
                values.insert(name, value);
            }
            Ok(None) => {}
            Err(problem) => mistakes.push(Malformed {
                line: number + 1,
                problem,
            }),
        }
    }
    if mistakes.is_empty() {
        Ok(values)
    } else {
        Err(mistakes)
    }
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line
        .split_once('=')
        .ok_or_else(|| "KEY=VALUE is expected".to_owned())?;
    let name = name.trim_end();
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
    if name.is_empty() || !name.chars().all(legal) {
        return Err(format!("{name:?} is no name: letters, digits and _ are expected"));
    }
    Ok(Some((name.to_owned(), parse_value(value.trim_start())?)))
}

fn parse_value(text: &str) -> Result<String, String> {
    if let Some(quoted) = text.strip_prefix('"') {
        return double_quoted(quoted);
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted
            .split_once('\'')
            .ok_or_else(|| "the closing ' is missing".to_owned())?;
        return only_comment(rest).map(|()| value.to_owned());
    }
    let end = text
        .match_indices('#')
        .find(|(at, _)| *at == 0 || text[..*at].ends_with([' ', '\t']))
        .map_or(text.len(), |(at, _)| at);
    Ok(text[..end].trim_end().to_owned())
}

fn double_quoted(text: &str) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return only_comment(chars.as_str()).map(|()| value),
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\' | '$' | '\'')) => value.push(c),
                Some(other) => return Err(format!("\\{other} is not understood in double quotes")),
                None => break,
            },
            _ => value.push(c),
        }
    }
    Err("the closing \" is missing".to_owned())
}

fn only_comment(rest: &str) -> Result<(), String> {
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(())
    } else {
        Err(format!("unexpected {rest:?} after the closing quote"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<String, String> {
        parse_line(line).map(|pair| pair.expect("a pair").1)
    }

    #[test]
    fn values_in_every_form() {
        assert_eq!(one("A=1").unwrap(), "1");
        assert_eq!(one("export A = 1 ").unwrap(), "1");
        assert_eq!(one("A=").unwrap(), "");
        assert_eq!(one("A=a#b").unwrap(), "a#b");
        assert_eq!(one("A=a # b").unwrap(), "a");
        assert_eq!(one("A=# b").unwrap(), "");
        assert_eq!(one("A=\"a # b\" # c").unwrap(), "a # b");
        assert_eq!(one(r#"A="x\"y\\z\n""#).unwrap(), "x\"y\\z\n");
        assert_eq!(one(r"A='x\n$Y'").unwrap(), r"x\n$Y");
        assert_eq!(one("A=b=c").unwrap(), "b=c");
        assert_eq!(one("A=路径").unwrap(), "路径");
    }

    #[test]
    fn crlf_bom_comments_and_the_last_value() {
        let values = parse("\u{feff}# c\r\nA=1\r\n\r\n  # d\r\nA=2\r\nB=\"x\"\r\n").unwrap();
        assert_eq!(values.get("A").map(String::as_str), Some("2"));
        assert_eq!(values.get("B").map(String::as_str), Some("x"));
        assert_eq!(values.len(), 2);
    }

    #[test]
    fn every_malformed_line_is_reported() {
        let mistakes = parse("A=1\nnonsense\n=1\nB=\"open\nC='x' y\nD=\"\\q\"\n").unwrap_err();
        assert_eq!(
            mistakes.iter().map(|mistake| mistake.line).collect::<Vec<_>>(),
            [2, 3, 4, 5, 6]
        );
    }
}
