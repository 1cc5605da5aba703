//! What can go wrong with a use case, independent of the protocol that asked. `api_code` alone turns it
//! into Nacos codes and HTTP statuses.

/// Result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a use case failed. The kinds are few; what a client may do next depends on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A required parameter is not there.
    #[error("parameter {name} is missing")]
    Missing {
        /// Its name on the wire.
        name: &'static str,
        /// Its type in the words of the Java server, which names it in the answer; empty for a field of
        /// a form object, which has another text.
        kind: &'static str,
    },
    /// A parameter of another type than expected.
    #[error("{text:?} is no {kind}")]
    Unreadable {
        /// The type in the words of the Java server.
        kind: &'static str,
        /// What was given.
        text: String,
    },
    /// A parameter breaks the character and length rules that hold for every call (contract 00 §3).
    #[error("{0}")]
    Illegal(String),
    /// A value the use case cannot take.
    #[error("{0}")]
    Invalid(String),
    /// The thing asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// No namespace has this id.
    #[error("namespaceId [ {id} ] not exist")]
    NoNamespace {
        /// The id as it was given.
        id: String,
    },
    /// A namespace has this id already.
    #[error("the namespaceId is existed, namespaceId: {id}")]
    NamespaceTaken {
        /// The id.
        id: String,
    },
    /// An id or name no namespace can have.
    #[error("{0}")]
    NamespaceIllegal(String),
    /// Compare-and-set found another content than the caller expected.
    #[error("Cas publish fail, server md5 may have changed.")]
    CasMismatch,
    /// A gray variant that cannot be published.
    #[error("{text}")]
    Gray {
        /// Code of Nacos (20010 to 20013).
        code: i32,
        /// What is wrong.
        text: String,
    },
    /// Naming says no.
    #[error("{text}")]
    Naming {
        /// Why.
        refusal: NamingRefusal,
        /// What is wrong, in the words of the Java server.
        text: String,
    },
    /// The request is larger than a limit.
    #[error("{0}")]
    TooLarge(String),
    /// Not now, and nothing was done: retrying is safe.
    #[error("{0}")]
    Unavailable(String),
    /// Too much at once, and nothing was done: retrying later is safe.
    #[error("{0}")]
    Overloaded(String),
    /// It is not known whether it was done. A retry may do it twice.
    #[error("{0}")]
    Indeterminate(String),
    /// Our fault.
    #[error("{0}")]
    Internal(String),
}

/// Why naming says no; each has a code of its own in API v2 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamingRefusal {
    /// An instance cannot be changed so.
    Instance,
    /// A selector that nobody knows.
    Selector,
    /// The service is there already.
    ServiceExists,
    /// There is no such service.
    NoService,
    /// The service still has instances.
    ServiceNotEmpty,
    /// The health is found by checks, not told.
    Checked,
    /// An instance cannot have this weight.
    Weight,
    /// The service holds instances of the other kind.
    WrongKind,
    /// A cluster of a service that is not there, and other cases without a code.
    Other,
}

/// An error with its causes, in one line. Many texts name their cause already, for those who print them
/// alone: a cause is added only when it is not there yet.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

impl Error {
    /// True when nothing was done and the same request may simply be sent again.
    pub fn retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Overloaded(_))
    }

    /// A parameter of type `String` that is not there.
    pub fn missing(name: &'static str) -> Error {
        Error::Missing { name, kind: "String" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write /data/log: {source}; check the disk")]
    struct Told {
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the node cannot start")]
    struct Untold(#[source] Told);

    #[test]
    fn a_cause_is_told_once() {
        let told = Told {
            source: std::io::Error::other("no space left"),
        };
        let text = "cannot write /data/log: no space left; check the disk";
        assert_eq!(with_causes(&told), text);
        assert_eq!(
            with_causes(&Untold(told)),
            format!("the node cannot start: {text}")
        );
    }
}
