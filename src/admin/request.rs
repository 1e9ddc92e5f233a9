//! What a request has to be before it is looked at: from no browser, to this machine, and of plain JSON.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, Method, Request, StatusCode, Uri, header, request::Parts};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    arguments::{Asked, parse},
    error::ApiError,
};
use crate::{manifest::WebHost, transport::read_whole};

/// How large a body may be.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(5);

/// Refuses what a browser may have sent, and what was meant for another host.
///
/// A page can make a browser send requests to this machine, under a name of its own that resolves to
/// loopback. It cannot make one without `Origin` whose body is JSON, nor read the answer of another.
pub(super) fn check(parts: &Parts) -> Result<(), ApiError> {
    if parts.headers.contains_key(header::ORIGIN) || parts.headers.contains_key("sec-fetch-site") {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "browser", "browsers are not served"));
    }
    if !is_local(&parts.uri, &parts.headers) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "host", "the request is for another host"));
    }
    if parts.uri.query().is_some() {
        return Err(ApiError::bad("query", "no query is taken"));
    }
    Ok(())
}

/// Whether exactly one host is named, which is loopback by name or by address.
fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), uri.authority()) else { return false };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<WebHost>().ok()) else { return false };
    let name = host.name().trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The key that is shown, as a bearer token.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (shown.next(), shown.next()) else { return None };
    let (scheme, key) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

/// Reads a body that can be read in one way only.
pub(super) async fn body<T: Asked>(request: Request<Incoming>) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let kind =
        parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "the body has to be `application/json`";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
    }
    let too_slow =
        |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time");
    let read = timeout(BODY_MAX, read_whole(body, BODY_BYTES_MAX)).await.map_err(too_slow)?;
    let too_large =
        |_| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too large, or broke off");
    parse(&read.map_err(too_large)?)
}

/// The method and the path of a request.
pub(super) fn route(parts: &Parts) -> (Method, String) {
    (parts.method.clone(), parts.uri.path().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(target: &str, headers: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0).map_err(|refusal| refusal.code)
    }

    #[test]
    fn only_what_is_for_this_machine_and_from_no_browser_is_taken() {
        for host in ["localhost", "LOCALHOST:8788", "127.0.0.1:1", "127.9.9.9", "[::1]:8788"] {
            assert_eq!(checked("/v1/runs", &[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["", "evil.example.com", "localhost.evil.com", "10.0.0.1", "0.0.0.0", "a@localhost", "[::]"]
        {
            assert_eq!(checked("/v1/runs", &[("host", host)]), Err("host"), "{host}");
        }
        assert_eq!(checked("/v1/runs", &[]), Err("host"));
        assert_eq!(checked("/v1/runs", &[("host", "localhost"), ("host", "localhost")]), Err("host"));
        assert_eq!(checked("http://localhost/v1/runs", &[("host", "localhost")]), Err("host"));
        for origin in ["http://localhost", "null", ""] {
            assert_eq!(checked("/v1/runs", &[("host", "localhost"), ("origin", origin)]), Err("browser"));
        }
        let fetched = [("host", "localhost"), ("sec-fetch-site", "same-origin")];
        assert_eq!(checked("/v1/runs", &fetched), Err("browser"));
        assert_eq!(checked("/v1/runs?key=x", &[("host", "localhost")]), Err("query"));
    }

    #[test]
    fn one_bearer_key_is_read() {
        let shown = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(shown(&["Bearer k"]).unwrap(), "k");
        assert_eq!(shown(&["bearer k"]).unwrap(), "k");
        for other in [&[][..], &["Basic k"], &["k"], &["Bearer"], &["Bearer k", "Bearer k"]] {
            assert_eq!(shown(other), None, "{other:?}");
        }
    }
}
