//! A request as handlers see it: read in full, its parameters merged.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Uri};

use super::form::{self, Params};
use crate::error::{Error, Result};

/// A request whose body has been read.
#[derive(Debug)]
pub(super) struct Request {
    /// Its method.
    pub method: Method,
    /// Its target; of an over-long request line only what stands before the `?`.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The query of an over-long request line, which no [`Uri`] can hold.
    pub long_query: Option<Bytes>,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

impl Request {
    /// The parameters of query and form body, merged.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn params(&self) -> Result<Params<'_>> {
        let query = match &self.long_query {
            Some(query) => query.as_ref(),
            None => self.uri.query().unwrap_or_default().as_bytes(),
        };
        let body = if self.is_form() { self.body.as_ref() } else { &[] };
        Params::parse(query, body).map_err(|broken| Error::Invalid(broken.to_string()))
    }

    /// What stands behind the last `/` of the path, decoded: the parameter of a route that has one there.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn last_segment(&self) -> Result<String> {
        let path = self.uri.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let last = path.rsplit('/').next().unwrap_or_default();
        // A plus is one here: only in forms it stands for a blank.
        let decoded = form::decode(last.replace('+', "%2B").as_bytes()).map(std::borrow::Cow::into_owned);
        decoded.map_err(|broken| Error::Invalid(broken.to_string()))
    }

    /// Form bodies say so; a body without any content type is taken for one.
    fn is_form(&self) -> bool {
        const FORM: &[u8] = b"application/x-www-form-urlencoded";
        match self.headers.get(CONTENT_TYPE) {
            None => true,
            Some(kind) => kind
                .as_bytes()
                .get(..FORM.len())
                .is_some_and(|kind| kind.eq_ignore_ascii_case(FORM)),
        }
    }

    /// The value of a header, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The client's address as Nacos takes it: first of `X-Forwarded-For`, else `X-Real-IP`, else the
    /// other end of the connection. Decides which beta variant is served and what history shows; it is
    /// the client's own word, so it is never a reason to trust.
    pub(super) fn client_ip(&self) -> String {
        let forwarded = self
            .header("x-forwarded-for")
            .and_then(|list| list.split(',').next());
        let told = forwarded.or_else(|| self.header("x-real-ip")).map(str::trim);
        match told.filter(|ip| !ip.is_empty() && ip.len() <= 128) {
            Some(ip) => ip.to_owned(),
            None => match self.peer.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => ip.to_canonical().to_string(),
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn request(
        method: Method,
        uri: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Request {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header value"));
        }
        Request {
            method,
            uri: uri.parse().expect("a uri"),
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
            long_query: None,
            peer: SocketAddr::from(([10, 0, 0, 9], 1234)),
        }
    }

    #[test]
    fn a_body_counts_only_as_a_form() {
        let form = [("content-type", "Application/X-WWW-form-urlencoded; charset=UTF-8")];
        assert_eq!(
            request(Method::POST, "/", &form, "a=1")
                .params()
                .unwrap()
                .get("a"),
            Some("1")
        );
        assert_eq!(
            request(Method::POST, "/", &[], "a=1").params().unwrap().get("a"),
            Some("1")
        );
        let json = [("content-type", "application/json")];
        assert_eq!(
            request(Method::POST, "/?b=2", &json, "a=1")
                .params()
                .unwrap()
                .get("a"),
            None
        );
    }

    #[test]
    fn the_last_segment_of_a_path_is_a_text() {
        let last = |uri: &str| request(Method::GET, uri, &[], "").last_segment();
        assert_eq!(last("/a/g%40%40s?x=1"), Ok("g@@s".to_owned()));
        assert_eq!(last("/a/b+c/"), Ok("b+c".to_owned()));
        assert!(last("/a/%f").is_err());
        assert!(last("/a/%ff").is_err());
    }

    #[test]
    fn client_ip_prefers_what_proxies_say() {
        let ip = |headers: &[(&'static str, &str)]| request(Method::GET, "/", headers, "").client_ip();
        assert_eq!(ip(&[]), "10.0.0.9");
        assert_eq!(ip(&[("x-real-ip", "10.1.1.1")]), "10.1.1.1");
        assert_eq!(
            ip(&[
                ("x-forwarded-for", "10.2.2.2, 10.3.3.3"),
                ("x-real-ip", "10.1.1.1")
            ]),
            "10.2.2.2"
        );
        assert_eq!(ip(&[("x-forwarded-for", "")]), "10.0.0.9");
    }
}
