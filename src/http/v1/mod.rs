//! API v1: text answers and bare JSON.

pub(super) mod client_metrics;
pub(super) mod config;
pub(super) mod history;
pub(super) mod listener;
pub(super) mod namespace;
pub(super) mod naming;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderValue, PRAGMA};
use serde::Serialize;

use super::form::Params;
use super::reply::{self, JSON_UTF8, Reply};
use super::request::Request;
use crate::error::{Error, Result};
use crate::model::{Page, PageRequest};
use crate::service::Caller;
use crate::service::config::Name;

/// Largest page of a list; larger ones are cut to it (contract 00 §3).
const PAGE_SIZE_MAX: usize = 500;

/// Nothing between us and the client may keep the answer.
pub(super) fn no_cache(headers: &mut HeaderMap) {
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(EXPIRES, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache,no-store"));
}

/// The name of a config, in the words of v1.
fn name<'a>(params: &'a Params<'_>) -> Name<'a> {
    Name {
        namespace: params.any(&["tenant", "namespaceId"]),
        group: params.any(&["group", "groupName"]),
        data_id: params.get("dataId"),
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        user: String::new(),
        ip: request.client_ip(),
    }
}

/// `true`, as v1 below `/v1/cs` says it.
fn yes() -> Reply {
    reply::reply(http::StatusCode::OK, Some(JSON_UTF8), "true")
}

/// `pageNo` and `pageSize`. Missing ones are an error unless there is a default.
fn page(params: &Params<'_>, default: Option<PageRequest>) -> Result<PageRequest> {
    let kind = if default.is_some() {
        "java.lang.Integer"
    } else {
        "int"
    };
    let number = |name: &'static str, default: Option<usize>| match params.get(name) {
        None | Some("") => default.ok_or(Error::Missing { name, kind: "int" }),
        Some(text) => whole_number(text, kind),
    };
    let (page, size) = (
        number("pageNo", default.map(|page| page.number))?,
        number("pageSize", default.map(|page| page.size))?,
    );
    let request = PageRequest::new(page, size.min(PAGE_SIZE_MAX));
    request.ok_or_else(|| {
        // The Java server names what it was looking for.
        let text = |name: &str| params.get(name).unwrap_or_default();
        Error::Invalid(format!(
            "serialize page error, dataId={}, group={};caused: pageNo and pageSize must be greater than zero",
            text("dataId"),
            text("group")
        ))
    })
}

/// A number from 0. A negative one counts as 0: both are refused alike by whoever asks for more.
fn whole_number(text: &str, kind: &'static str) -> Result<usize> {
    let unreadable = || Error::Unreadable {
        kind,
        text: text.to_owned(),
    };
    let number: i32 = text.trim().parse().map_err(|_| unreadable())?;
    Ok(usize::try_from(number).unwrap_or(0))
}

/// A page as v1 and v2 show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PageJson<T> {
    total_count: usize,
    page_number: usize,
    pages_available: usize,
    page_items: Vec<T>,
}

impl<T> From<Page<T>> for PageJson<T> {
    fn from(page: Page<T>) -> PageJson<T> {
        PageJson {
            total_count: page.total,
            page_number: page.number,
            pages_available: page.available,
            page_items: page.items,
        }
    }
}

/// Empty texts that the Java server shows as null.
fn or_null(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// `2026-11-22T10:10:48.589+00:00`
pub(super) fn iso_time(ms: i64) -> String {
    let (days, ms_of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Howard Hinnant's civil_from_days: days since 1970 to year, month, day.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, ms) = (ms_of_day / 1_000, ms_of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_the_java_server_writes_them() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(iso_time(1_795_342_248_589), "2026-11-22T10:10:48.589+00:00");
        assert_eq!(iso_time(951_782_399_999), "2000-02-28T23:59:59.999+00:00");
        assert_eq!(iso_time(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(iso_time(-1), "1969-12-31T23:59:59.999+00:00");
    }

    #[test]
    fn pages_are_read_as_the_java_server_reads_them() {
        let read = |query: &str, default| page(&Params::parse(query.as_bytes(), b"").unwrap(), default);
        let wanted = |number, size| Ok(PageRequest { number, size });
        assert_eq!(read("pageNo=2&pageSize=10", None), wanted(2, 10));
        assert_eq!(read("pageNo=1&pageSize=9999", None), wanted(1, PAGE_SIZE_MAX));
        assert_eq!(
            read("pageSize=10", None),
            Err(Error::Missing {
                name: "pageNo",
                kind: "int"
            })
        );
        assert_eq!(read("", PageRequest::new(1, 100)), wanted(1, 100));
        assert!(matches!(
            read("pageNo=x&pageSize=10", None),
            Err(Error::Unreadable { .. })
        ));
        for zero in [
            "pageNo=0&pageSize=10",
            "pageNo=1&pageSize=0",
            "pageNo=-1&pageSize=10",
        ] {
            assert!(matches!(read(zero, None), Err(Error::Invalid(_))), "{zero}");
        }
    }
}
