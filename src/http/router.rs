//! From method and path to the row of the table.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;

use super::routes::{ROUTES, Route, Verb, WHATEVER_METHOD};

/// What a path and method lead to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// A row, with its position in the table; true when the answer goes without its body (HEAD).
    Route(usize, &'static Route, bool),
    /// The path is known, the method is not.
    OtherMethod(&'static Route),
    /// Nothing.
    Nothing,
}

type Methods = [Option<usize>; Verb::COUNT];

static TABLE: LazyLock<HashMap<&'static str, Methods>> = LazyLock::new(|| {
    let mut table: HashMap<&'static str, Methods> = HashMap::with_capacity(ROUTES.len());
    for (position, route) in ROUTES.iter().enumerate() {
        let methods = table.entry(route.path).or_insert([None; Verb::COUNT]);
        let before = methods[route.verb as usize].replace(position);
        assert!(before.is_none(), "two rows for {:?} {}", route.verb, route.path);
    }
    table
});

/// Finds the row.
///
/// A path is taken as it is, with or without the context `/nacos`, and with or without one `/` at its end;
/// there is no other spelling of a route, but that `{key}` at the end of one stands for any one segment. Doubled slashes, dot segments, `;` and percent escapes therefore
/// meet nothing: whoever checks permissions by path and whoever serves can never disagree.
pub(super) fn find(method: &Method, path: &str) -> Found {
    let Some((methods, any)) = look_up(path) else {
        return Found::Nothing;
    };
    let (verb, head) = match *method {
        Method::GET => (Verb::Get, false),
        Method::HEAD => (Verb::Get, true),
        Method::POST => (Verb::Post, false),
        Method::PUT => (Verb::Put, false),
        Method::DELETE => (Verb::Delete, false),
        Method::PATCH => (Verb::Patch, false),
        _ => return Found::OtherMethod(any),
    };
    let row = |verb: Verb| methods[verb as usize].and_then(|at| Some((at, ROUTES.get(at)?)));
    match row(verb).or_else(|| row(Verb::Get).filter(|_| WHATEVER_METHOD.contains(&any.path))) {
        Some((at, route)) => Found::Route(at, route, head),
        None => Found::OtherMethod(any),
    }
}

fn look_up(path: &str) -> Option<(&'static Methods, &'static Route)> {
    let exact = TABLE.get(without_context(path));
    let methods = exact.or_else(|| {
        let path = without_context(path.strip_suffix('/').unwrap_or(path));
        TABLE.get(path).or_else(|| with_key(path))
    })?;
    let any = methods.iter().flatten().next().and_then(|at| ROUTES.get(*at))?;
    Some((methods, any))
}

/// The route whose path ends in a parameter that this one has.
fn with_key(path: &str) -> Option<&'static Methods> {
    let (parent, key) = path.rsplit_once('/')?;
    let pattern = format!("{parent}/{{key}}");
    TABLE.get(pattern.as_str()).filter(|_| !key.is_empty())
}

/// The methods of a path, as the `Allow` header lists them.
pub(super) fn allowed(path: &str) -> String {
    let Some((methods, any)) = look_up(path) else {
        return String::new();
    };
    if WHATEVER_METHOD.contains(&any.path) {
        return "GET, POST, PUT, DELETE, PATCH".to_owned();
    }
    let verbs = methods.iter().flatten().filter_map(|at| ROUTES.get(*at));
    verbs
        .map(|route| route.verb.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The path without `/nacos`.
pub(super) fn without_context(path: &str) -> &str {
    match path.strip_prefix("/nacos") {
        // What people type.
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads_to(method: Method, path: &str) -> Option<&'static str> {
        match find(&method, path) {
            Found::Route(_, route, _) => Some(route.path),
            _ => None,
        }
    }

    #[test]
    fn every_row_is_found_with_and_without_context_and_final_slash() {
        for (position, route) in ROUTES.iter().enumerate() {
            let method = Method::from_bytes(route.verb.as_str().as_bytes()).unwrap();
            for path in [
                route.path.to_owned(),
                format!("/nacos{}", route.path),
                format!("/nacos{}/", route.path),
            ] {
                assert!(
                    matches!(find(&method, &path), Found::Route(at, ..) if at == position),
                    "{method} {path}"
                );
            }
        }
    }

    /// Contract 03 §6.
    #[test]
    fn some_reads_are_served_whatever_the_method() {
        for path in WHATEVER_METHOD {
            for method in [
                Method::GET,
                Method::POST,
                Method::PUT,
                Method::DELETE,
                Method::PATCH,
            ] {
                assert_eq!(leads_to(method, path), Some(*path));
            }
            assert_eq!(leads_to(Method::TRACE, path), None);
        }
    }

    #[test]
    fn the_context_alone_is_the_page() {
        for path in ["/nacos", "/nacos/", "/"] {
            assert_eq!(leads_to(Method::GET, path), Some("/"), "{path}");
        }
    }

    /// Nacos #4701: odd spellings of a path passed the check of another one.
    #[test]
    fn odd_spellings_of_a_path_meet_nothing() {
        assert_eq!(
            leads_to(Method::GET, "/nacos/v1/cs/configs"),
            Some("/v1/cs/configs")
        );
        for odd in [
            "//nacos/v1/cs/configs",
            "/nacos//v1/cs/configs",
            "/nacos/v1/cs/configs//",
            "/nacos/./v1/cs/configs",
            "/nacos/x/../v1/cs/configs",
            "/nacos/v1/cs/configs;x=1",
            "/nacos/v1/cs%2fconfigs",
            "/nacos/v1/cs/%63onfigs",
            "/NACOS/v1/cs/configs",
            "/nacos/v1/CS/configs",
            "/nacos/v1/cs/configs.json",
            "/nacos/nacos/v1/cs/configs",
            "/nacosv1/cs/configs",
            "",
        ] {
            assert_eq!(leads_to(Method::GET, odd), None, "{odd}");
        }
    }

    #[test]
    fn a_key_is_one_segment() {
        let statuses = "/v2/ns/instance/statuses/{key}";
        for path in ["g@@s", "g%40%40s", "{key}", "g@@s/"] {
            let path = format!("/nacos/v2/ns/instance/statuses/{path}");
            assert_eq!(leads_to(Method::GET, &path), Some(statuses), "{path}");
        }
        for path in ["", "/", "/a/b", "//", "/a//"] {
            let path = format!("/v2/ns/instance/statuses{path}");
            assert_eq!(leads_to(Method::GET, &path), None, "{path}");
        }
    }

    #[test]
    fn head_is_served_where_get_is_and_other_methods_are_told() {
        assert!(matches!(
            find(&Method::HEAD, "/v1/cs/configs"),
            Found::Route(_, _, true)
        ));
        assert!(matches!(
            find(&Method::PATCH, "/v1/cs/configs"),
            Found::OtherMethod(_)
        ));
        assert!(matches!(find(&Method::POST, "/health"), Found::OtherMethod(_)));
        assert!(matches!(find(&Method::PATCH, "/nothing"), Found::Nothing));
    }
}
