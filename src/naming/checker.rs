//! How the health of persistent instances is found (contract 03 §6, `healthChecker`).

use serde_json::Value;

/// Headers that a check sends at most, and bytes of path and headers together.
const HEADERS_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 2_048;
/// Headers that a check writes itself, and those that would make another message of it.
const OWN_HEADERS: [&str; 7] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "expect",
];

/// Names and values, in order.
type Headers = Vec<(Box<str>, Box<str>)>;

/// How the health of the instances of a cluster is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Checker {
    /// By opening a connection.
    #[default]
    Tcp,
    /// By asking for a page.
    Http(HttpCheck),
    /// Somebody tells it.
    None,
    /// By a query; no such check is made here, so whoever knows tells it.
    Mysql,
}

/// What is asked, and what a healthy instance answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Begins with `/`; printable ASCII without spaces.
    pub path: Box<str>,
    /// Names are tokens, values printable ASCII.
    pub headers: Headers,
    /// Status of the answer of a healthy instance.
    pub expected: u16,
}

/// Why no checker can be made of a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongChecker {
    /// No JSON object.
    #[error("the health checker is no JSON object")]
    Json,
    /// No such type.
    #[error("health checkers have the type TCP, HTTP, MYSQL or NONE, not {0:?}")]
    Type(String),
    /// A path or header that no request can have.
    #[error("the {0} of the health checker is not possible")]
    Part(&'static str),
}

impl Checker {
    /// Reads the JSON of a checker.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Checker, WrongChecker> {
        let value: Value = serde_json::from_str(json).map_err(|_cause| WrongChecker::Json)?;
        let object = value.as_object().ok_or(WrongChecker::Json)?;
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = text("type");
        match kind.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Checker::Tcp),
            "NONE" => Ok(Checker::None),
            "MYSQL" => Ok(Checker::Mysql),
            "HTTP" => {
                let (path, headers) = (text("path").trim(), text("headers"));
                if path.len() + headers.len() > TEXT_BYTES_MAX {
                    return Err(WrongChecker::Part("length"));
                }
                Ok(Checker::Http(HttpCheck {
                    path: http_path(path)?,
                    headers: http_headers(headers)?,
                    expected: http_expected(object.get("expectedResponseCode"))?,
                }))
            }
            _ => Err(WrongChecker::Type(kind.chars().take(32).collect())),
        }
    }
}

fn http_path(path: &str) -> Result<Box<str>, WrongChecker> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
        return Err(WrongChecker::Part("path"));
    }
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Ok(format!("/{path}").into())
    }
}

/// `name:value|name:value`, as Nacos has it.
fn http_headers(headers: &str) -> Result<Headers, WrongChecker> {
    let wrong = WrongChecker::Part("headers");
    let mut read = Vec::new();
    for header in headers.split('|').filter(|header| !header.trim().is_empty()) {
        let (name, value) = header.split_once(':').ok_or_else(|| wrong.clone())?;
        let (name, value) = (name.trim(), value.trim());
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`~".contains(&byte);
        let possible = !name.is_empty()
            && name.bytes().all(token)
            && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
            && !OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str());
        if !possible || read.len() >= HEADERS_MAX {
            return Err(wrong);
        }
        read.push((name.into(), value.into()));
    }
    Ok(read)
}

fn http_expected(code: Option<&Value>) -> Result<u16, WrongChecker> {
    let code = match code {
        None | Some(Value::Null) => return Ok(200),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    code.filter(|code| (100..600).contains(code))
        .ok_or(WrongChecker::Part("expected code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_types_are_read() {
        assert_eq!(Checker::parse("{\"type\":\"TCP\"}"), Ok(Checker::Tcp));
        assert_eq!(Checker::parse("{\"type\":\"none\",\"x\":1}"), Ok(Checker::None));
        let mysql = "{\"type\":\"MYSQL\",\"user\":\"u\",\"pwd\":\"p\",\"cmd\":\"select 1\"}";
        assert_eq!(Checker::parse(mysql), Ok(Checker::Mysql));
        let http = "{\"type\":\"HTTP\",\"path\":\"x?y=1\",\"headers\":\"a:1|B-c: 2 3 |\",\"expectedResponseCode\":204}";
        let expected = HttpCheck {
            path: "/x?y=1".into(),
            headers: vec![("a".into(), "1".into()), ("B-c".into(), "2 3".into())],
            expected: 204,
        };
        assert_eq!(Checker::parse(http), Ok(Checker::Http(expected)));
        let plain = HttpCheck {
            path: "/".into(),
            headers: vec![],
            expected: 200,
        };
        assert_eq!(Checker::parse("{\"type\":\"HTTP\"}"), Ok(Checker::Http(plain)));
    }

    /// Whatever stands in a checker is written to a socket: no text may end the line it stands in, or
    /// begin another request.
    #[test]
    fn nothing_that_would_be_another_request_is_taken() {
        let with = |path: &str, headers: &str| {
            let json = serde_json::json!({"type": "HTTP", "path": path, "headers": headers});
            Checker::parse(&json.to_string())
        };
        for path in ["/a b", "/a\r\nx: y", "/a\nb", "/\u{e9}", "/a#b", "/a\0"] {
            assert_eq!(with(path, ""), Err(WrongChecker::Part("path")), "{path:?}");
        }
        for headers in [
            "a",
            ":1",
            "a b:1",
            "a:1\r\nb:2",
            "a:\u{e9}",
            "Host:x",
            "content-length: 3",
            "Transfer-Encoding:chunked",
        ] {
            assert_eq!(
                with("/", headers),
                Err(WrongChecker::Part("headers")),
                "{headers:?}"
            );
        }
        assert!(with("/", &"a:1|".repeat(HEADERS_MAX)).is_ok());
        assert!(with("/", &"a:1|".repeat(HEADERS_MAX + 1)).is_err());
        assert!(with(&"p".repeat(TEXT_BYTES_MAX + 1), "").is_err());
    }

    #[test]
    fn nonsense_is_told() {
        for json in ["", "nope", "[]", "1"] {
            assert_eq!(Checker::parse(json), Err(WrongChecker::Json), "{json:?}");
        }
        assert_eq!(Checker::parse("{}"), Err(WrongChecker::Type(String::new())));
        let code = "{\"type\":\"HTTP\",\"expectedResponseCode\":99999}";
        assert_eq!(Checker::parse(code), Err(WrongChecker::Part("expected code")));
    }
}
