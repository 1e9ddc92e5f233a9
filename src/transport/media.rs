//! In which form a request's body may come, and its answer be sent.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{reasons::refuse, refusal::Refusal};

const JSON: &str = "application/json";

/// The media type of a stream of events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// Whether a body is in a form that is read here.
pub(super) fn is_readable(headers: &HeaderMap) -> Result<(), Refusal> {
    if !is_json(headers) {
        let message = "the request's `Content-Type` must be `application/json`";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message);
    }
    // RFC 9112 §6.1: a body that two readers could end at different places.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !is_plain || codings.next().is_some() {
        return refuse(StatusCode::BAD_REQUEST, "framing", "the only transfer coding is `chunked`, once");
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "the request's body must not be encoded";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message);
    }
    Ok(())
}

/// Whether the answer comes in a form that the client reads.
pub(super) fn is_answerable(headers: &HeaderMap) -> Result<(), Refusal> {
    if !accepts(headers, JSON) || !accepts(headers, EVENT_STREAM) {
        let message = "the request's `Accept` must list `application/json` and `text/event-stream`";
        return refuse(StatusCode::NOT_ACCEPTABLE, "accept", message);
    }
    Ok(())
}

/// Exactly one content type, and in UTF-8 if it says in what.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

pub(super) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    place(headers, wanted).is_some()
}

/// Whether a client names a stream of events before JSON. Weights are not compared: no client of the protocol has any.
pub(super) fn prefers_stream(headers: &HeaderMap) -> bool {
    matches!((place(headers, EVENT_STREAM), place(headers, JSON)), (Some(stream), Some(json)) if stream < json)
}

/// Where among the media types that a client takes it names one.
fn place(headers: &HeaderMap, wanted: &str) -> Option<usize> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).position(|range| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        essence.eq_ignore_ascii_case(wanted) && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0"))
    })
}

/// What was checked is what is handed on, so that the protocol cannot read it in another way.
pub(super) fn plain_media_types(headers: &mut HeaderMap) {
    let accepted = if prefers_stream(headers) {
        "text/event-stream, application/json"
    } else {
        "application/json, text/event-stream"
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::ACCEPT, HeaderValue::from_static(accepted));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accepted: &[&'static str]) -> HeaderMap {
        accepted.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_client_that_names_a_stream_first_would_rather_have_one_and_that_is_handed_on() {
        for (accepted, is_preferred) in [
            (&["text/event-stream, application/json"][..], true),
            (&["TEXT/Event-Stream;q=1", "application/json"], true),
            (&["application/json, text/event-stream"], false),
            (&["application/json", "text/event-stream"], false),
            (&["text/event-stream;q=0, application/json, text/event-stream"], false),
            (&["text/event-stream"], false),
            (&[], false),
        ] {
            let mut headers = headers(accepted);
            assert_eq!(prefers_stream(&headers), is_preferred, "{accepted:?}");
            plain_media_types(&mut headers);
            assert_eq!(prefers_stream(&headers), is_preferred, "{accepted:?}");
            assert!(is_answerable(&headers).is_ok() && is_readable(&headers).is_ok());
        }
    }
}
