//! The only map from errors to what each API generation calls them: HTTP status, Nacos code, text.
//! Texts and statuses are those recorded from Nacos 2.5.1 where it has an answer for the case.
//!
//! # Definite and unknown
//! A write that was refused before it was logged is 503 (or 4xx): nothing was done, retrying is safe.
//! A write whose outcome is not known is 504, and its text says so. Never the other way round.

use std::borrow::Cow;

use crate::error::{Error, NamingRefusal};

/// Longest text that an error is told with, characters: what a client sent is repeated so far and no further.
/// Names of the greatest length that Nacos allows fit in.
const TEXT_CHARS_MAX: usize = 1_024;
/// Of a value that is repeated twice, or escaped.
const QUOTED_CHARS_MAX: usize = 256;

/// An error as plain text with a status: API v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub text: String,
}

/// An error as `{"code","message","data"}`: API v2 and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodedError {
    /// HTTP status.
    pub status: u16,
    /// Nacos code (contract 00 §6.1).
    pub code: i32,
    /// Its short text.
    pub message: &'static str,
    /// The long one.
    pub data: String,
}

/// HTTP status of an error where no recorded answer says otherwise.
pub fn status(error: &Error) -> u16 {
    match error {
        Error::Missing { .. }
        | Error::Unreadable { .. }
        | Error::Illegal(_)
        | Error::Invalid(_)
        | Error::NamespaceTaken { .. }
        | Error::NamespaceIllegal(_)
        | Error::Gray { .. }
        | Error::Naming { .. } => 400,
        Error::NotFound(_) | Error::NoNamespace { .. } => 404,
        Error::CasMismatch | Error::Internal(_) => 500,
        Error::TooLarge(_) => 413,
        Error::Unavailable(_) | Error::Overloaded(_) => 503,
        Error::Indeterminate(_) => 504,
    }
}

/// The error as v1 tells it.
pub fn v1(error: &Error) -> TextError {
    let text = match error {
        Error::Missing { name, kind } => {
            let kind = if kind.is_empty() { "String" } else { kind };
            let text = format!(
                "Required request parameter '{name}' for method parameter type {kind} is not present"
            );
            return TextError {
                status: 500,
                text: caused(&escape(&text)),
            };
        }
        Error::NoNamespace { .. } => {
            return TextError {
                status: 500,
                text: caused(&escape(&told(error))),
            };
        }
        // The one text without a frame; the check runs before anything else there.
        Error::Illegal(text) => {
            return TextError {
                status: 400,
                text: format!("{}\r\n", cut(text, TEXT_CHARS_MAX)),
            };
        }
        Error::Unreadable { kind, text } => {
            let text = cut(text, QUOTED_CHARS_MAX);
            format!(
                "Failed to convert value of type 'java.lang.String' to required type '{kind}'; nested exception is \
                 java.lang.NumberFormatException: For input string: \"{text}\";caused: For input string: \"{text}\""
            )
        }
        other => told(other),
    };
    TextError {
        status: status(error),
        text: caused(&text),
    }
}

/// The error as the naming half of v1 tells it: without a frame around the text.
pub fn v1_naming(error: &Error) -> TextError {
    let text = match error {
        Error::Missing { name, kind: "" } => format!("Param '{name}' is required."),
        Error::Missing { name, .. } => format!("Parameter '{name}' is missing"),
        // Those that the framework there converts before it calls anything.
        Error::Unreadable { .. } => {
            let told = v1(error);
            return TextError { status: 500, ..told };
        }
        Error::Illegal(_) => return v1(error),
        other => told(other),
    };
    let status = match error {
        Error::Missing { .. } => 400,
        other => status(other),
    };
    TextError { status, text }
}

/// The error as v2 tells it. [`Error::Illegal`] is told as in v1 there.
pub fn v2(error: &Error) -> CodedError {
    let (code, message) = match error {
        Error::Missing { .. } => (10_000, "parameter missing"),
        Error::Unreadable { .. } | Error::Illegal(_) | Error::Invalid(_) => {
            (20_002, "parameter validate error")
        }
        Error::NotFound(_) => (20_004, "resource not found"),
        Error::NoNamespace { .. } => (22_001, "namespace not exist"),
        // Recorded: an id that is taken is told as an illegal one, not as 22002.
        Error::NamespaceTaken { .. } | Error::NamespaceIllegal(_) => (22_000, "illegal namespace"),
        Error::CasMismatch => (20_005, "resource conflict"),
        Error::Gray { code, .. } => (*code, "gray version error"),
        Error::Naming { refusal, .. } => naming_code(*refusal),
        Error::TooLarge(_) => (5_034, "over max size"),
        Error::Unavailable(_) | Error::Overloaded(_) | Error::Indeterminate(_) | Error::Internal(_) => {
            (30_000, "server error")
        }
    };
    let data = match error {
        Error::Missing { name, kind: "" } => format!("required parameter '{name}' is missing"),
        Error::Missing { name, kind } => {
            format!("Required request parameter '{name}' for method parameter type {kind} is not present")
        }
        other => told(other),
    };
    CodedError {
        status: status(error),
        code,
        message,
        data,
    }
}

/// Code and short text of a refusal of naming, as recorded from 3.0.3.
fn naming_code(refusal: NamingRefusal) -> (i32, &'static str) {
    match refusal {
        // Recorded from 2.5.1, too.
        NamingRefusal::Weight => (21_001, "weight error"),
        NamingRefusal::Instance => (21_004, "instance error"),
        NamingRefusal::Selector => (21_006, "selector error"),
        NamingRefusal::ServiceExists => (21_007, "service already exist"),
        NamingRefusal::NoService => (21_008, "service not exist"),
        NamingRefusal::ServiceNotEmpty => (21_009, "service delete failure"),
        // Recorded: not 21011, which is meant for it.
        NamingRefusal::Checked | NamingRefusal::WrongKind | NamingRefusal::Other => (30_000, "server error"),
    }
}

/// An error as gRPC tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcError {
    /// Nacos code (contract 00 §6.2).
    pub code: i32,
    /// True: an `ErrorResponse`, which clients throw and mostly try again. False: an answer of the
    /// request's own type, which they take as it is.
    pub throws: bool,
    /// Its text.
    pub message: String,
}

/// The error as gRPC tells it. What certainly was not done may be tried again and is thrown; what may
/// have been done is an answer, so that no client repeats it on its own.
pub fn grpc(error: &Error) -> GrpcError {
    let (code, throws) = match error {
        Error::Missing { .. }
        | Error::Unreadable { .. }
        | Error::Illegal(_)
        | Error::Invalid(_)
        | Error::NamespaceTaken { .. }
        | Error::NamespaceIllegal(_)
        | Error::Gray { .. }
        | Error::Naming { .. }
        | Error::TooLarge(_) => (400, false),
        Error::NotFound(_) | Error::NoNamespace { .. } => (404, false),
        Error::CasMismatch | Error::Indeterminate(_) => (500, false),
        Error::Overloaded(_) => (503, false),
        Error::Unavailable(_) => (503, true),
        Error::Internal(_) => (500, true),
    };
    let message = match error {
        // The words by which people search for it.
        Error::Illegal(text) | Error::Invalid(text) => {
            format!("Param check invalid:{}", cut(text, TEXT_CHARS_MAX))
        }
        Error::Missing { name, .. } => format!("Param check invalid:Param '{name}' is required."),
        other => told(other),
    };
    GrpcError {
        code,
        throws,
        message,
    }
}

/// The error in its own words, where no API has others.
pub fn told(error: &Error) -> String {
    match cut(&error.to_string(), TEXT_CHARS_MAX) {
        Cow::Borrowed(whole) => whole.to_owned(),
        Cow::Owned(beginning) => beginning,
    }
}

/// What a client sent, to be repeated to it: the beginning of a long text, and how long it is.
pub fn quoted(text: &str) -> Cow<'_, str> {
    cut(text, QUOTED_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let beginning = text.get(..end).unwrap_or_default();
            Cow::Owned(format!("{beginning}... ({} bytes)", text.len()))
        }
    }
}

fn caused(text: &str) -> String {
    format!("caused: {text};")
}

/// As Spring's HtmlUtils, which the Java server applies to some of its texts.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_texts() {
        let missing = v1(&Error::missing("dataId"));
        let text = "caused: Required request parameter &#39;dataId&#39; for method parameter type String is not present;";
        assert_eq!(
            missing,
            TextError {
                status: 500,
                text: text.to_owned()
            }
        );
        let cas = v1(&Error::CasMismatch);
        assert_eq!(
            cas.text,
            "caused: Cas publish fail, server md5 may have changed.;"
        );
        assert_eq!(cas.status, 500);
        let taken = v2(&Error::NamespaceTaken { id: "a".to_owned() });
        assert_eq!(
            (taken.status, taken.code, taken.message),
            (400, 22_000, "illegal namespace")
        );
        assert_eq!(taken.data, "the namespaceId is existed, namespaceId: a");
    }

    #[test]
    fn recorded_refusals_of_naming() {
        let refused = |refusal, text: &str| Error::Naming {
            refusal,
            text: text.to_owned(),
        };
        let exists = refused(
            NamingRefusal::ServiceExists,
            "specified service g@@s already exists!",
        );
        let told = v2(&exists);
        assert_eq!(
            (told.status, told.code, told.message),
            (400, 21_007, "service already exist")
        );
        assert_eq!(told.data, "specified service g@@s already exists!");
        let text = v1_naming(&refused(NamingRefusal::NoService, "service g@@s not found!"));
        assert_eq!(
            (text.status, text.text.as_str()),
            (400, "service g@@s not found!")
        );
    }

    /// Whatever is wrong with a request, its answer is no larger for it.
    #[test]
    fn what_a_client_sent_is_repeated_so_far_and_no_further() {
        let long = "\u{1f980}".repeat(1 << 20);
        for error in [
            Error::Invalid(long.clone()),
            Error::Illegal(long.clone()),
            Error::NotFound(long.clone()),
            Error::NoNamespace { id: long.clone() },
            Error::Unreadable {
                kind: "int",
                text: long.clone(),
            },
        ] {
            for text in [
                v1(&error).text,
                v1_naming(&error).text,
                v2(&error).data,
                grpc(&error).message,
                told(&error),
            ] {
                assert!(text.len() < 6_000, "{} bytes", text.len());
                assert!(
                    text.contains("\u{1f980}... (") || text.contains("bytes"),
                    "{text}"
                );
            }
        }
        assert_eq!(quoted("short"), "short");
        assert_eq!(
            told(&Error::Invalid("a".repeat(TEXT_CHARS_MAX))).len(),
            TEXT_CHARS_MAX
        );
    }

    /// A client that sees 503 sends the same write again: only errors that are certain may have it.
    #[test]
    fn retry_safe_statuses_are_for_definite_errors_only() {
        let text = || "x".to_owned();
        assert_eq!(v1(&Error::Indeterminate(text())).status, 504);
        assert_eq!(v2(&Error::Indeterminate(text())).status, 504);
        for error in [Error::Unavailable(text()), Error::Overloaded(text())] {
            assert!(error.retryable());
            assert_eq!(status(&error), 503);
        }
        assert!(!Error::Indeterminate(text()).retryable());
    }
}
