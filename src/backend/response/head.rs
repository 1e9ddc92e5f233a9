//! What the head of an answer says, and what of it is refused.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::backend::BackendError;

/// How many bytes all header fields may have, each counted with 32 bytes more
/// (RFC 9113 §6.5.2). HTTP/2 is held to it on the way; HTTP/1 ends at about
/// 400 KiB or 100 fields on the way, and is held to it here.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The head of an answer whose body may be read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Head {
    /// What the body is.
    pub(super) content: Content,
    /// How the body is coded.
    pub(super) coding: Coding,
}

/// What a body is, by its head's own word.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// JSON in UTF-8.
    Json,
    /// Something else: only an empty body is accepted.
    Other,
    /// Events, which have no end (`text/event-stream`).
    Events,
}

/// How a body is coded (RFC 9110 §8.4).
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Head {
    /// Refuses what needs no look at the body.
    pub(super) fn judge(status: StatusCode, headers: &HeaderMap) -> Result<Self, BackendError> {
        judge_status(status)?;
        judge_size(headers)?;
        judge_framing(status, headers)?;
        Ok(Self { content: content(headers), coding: coding(headers)? })
    }
}

fn judge_status(status: StatusCode) -> Result<(), BackendError> {
    let code = status.as_u16();
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(BackendError::Redirected { code })
    } else {
        Err(BackendError::Status { code })
    }
}

fn judge_size(headers: &HeaderMap) -> Result<(), BackendError> {
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.as_bytes().len() + 32).sum();
    if bytes > HEADER_BYTES_MAX { Err(BackendError::HeadTooLarge) } else { Ok(()) }
}

/// Refuses a body that two readers could end at different places
/// (RFC 9112 §6.3: both fields together "ought to be handled as an error").
fn judge_framing(status: StatusCode, headers: &HeaderMap) -> Result<(), BackendError> {
    // RFC 9110 §15.3.5: a 204 has no content, and so no length but zero.
    if status == StatusCode::NO_CONTENT
        && headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
    {
        return Err(BackendError::Malformed);
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    match (lengths, sole(headers, &header::TRANSFER_ENCODING)) {
        (0 | 1, Sole::None) => Ok(()),
        (0, Sole::One(encoding)) if encoding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(BackendError::Malformed),
    }
}

/// Accepts one coding of one kind: none was asked for (RFC 9110 §12.5.3).
fn coding(headers: &HeaderMap) -> Result<Coding, BackendError> {
    let Sole::One(value) = sole(headers, &header::CONTENT_ENCODING) else {
        let none = !headers.contains_key(header::CONTENT_ENCODING);
        return if none { Ok(Coding::Identity) } else { Err(BackendError::Encoded) };
    };
    match value.as_bytes().trim_ascii().to_ascii_lowercase().as_slice() {
        b"identity" => Ok(Coding::Identity),
        b"gzip" | b"x-gzip" => Ok(Coding::Gzip), // RFC 9110 §8.4.1.3
        _ => Err(BackendError::Encoded),
    }
}

/// A field that is there once, or not.
enum Sole<'a> {
    None,
    One(&'a HeaderValue),
    Several,
}

fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Sole<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Sole::None,
        (Some(value), None) => Sole::One(value),
        _ => Sole::Several,
    }
}

/// JSON is the one content type `application/json` (RFC 8259 §11) or a type with the
/// suffix `+json` (RFC 6839 §3.1), in UTF-8 (RFC 8259 §8.1).
fn content(headers: &HeaderMap) -> Content {
    match sole(headers, &header::CONTENT_TYPE) {
        Sole::One(value) => value.to_str().map_or(Content::Other, content_of),
        Sole::None | Sole::Several => Content::Other,
    }
}

fn content_of(media_type: &str) -> Content {
    let mut parts = media_type.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return Content::Other };
    let is_json = (kind == "application" && subtype == "json")
        || (is_token(kind) && is_token(subtype) && subtype.strip_suffix("+json").is_some_and(is_token));
    if is_json && parts.all(|parameter| !names_other_charset(parameter)) {
        Content::Json
    } else if essence == "text/event-stream" {
        Content::Events
    } else {
        Content::Other
    }
}

fn names_other_charset(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.trim().eq_ignore_ascii_case("charset")
            && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for media_type in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"; v=1",
            "application/problem+json",
            "application/vnd.api+json",
        ] {
            assert_eq!(content_of(media_type), Content::Json, "{media_type}");
        }
        for media_type in [
            "",
            "json",
            "text/html",
            "text/json",
            "application/jsonp",
            "application/json-seq",
            "application/x-ndjson",
            "application/+json",
            "application/a b+json",
            "application/json; charset=utf-16",
            "application/json; Charset=latin1",
            "text/html, application/json",
        ] {
            assert_eq!(content_of(media_type), Content::Other, "{media_type}");
        }
        for media_type in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
            assert_eq!(content_of(media_type), Content::Events, "{media_type}");
        }
    }

    #[test]
    fn two_content_types_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(content(&headers), Content::Other);
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert_eq!(content(&headers), Content::Json);
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert_eq!(content(&headers), Content::Other);
    }

    #[test]
    fn one_gzip_is_a_coding_and_nothing_else_is() {
        let judge = |values: &[&str]| {
            coding(&headers(
                &values.iter().map(|value| (header::CONTENT_ENCODING, *value)).collect::<Vec<_>>(),
            ))
        };
        for values in [&[][..], &["identity"], &[" Identity "]] {
            assert_eq!(judge(values), Ok(Coding::Identity), "{values:?}");
        }
        for values in [&["gzip"], &["GZIP"], &["x-gzip"]] {
            assert_eq!(judge(values), Ok(Coding::Gzip), "{values:?}");
        }
        for values in [
            &["gzip, gzip"][..],
            &["gzip", "gzip"],
            &["identity", "gzip"],
            &["identity", "identity"],
            &["identity, gzip"],
            &["br"],
            &["deflate"],
            &["zstd"],
            &["compress"],
            &["x-unheard-of"],
            &["gzip;q=1"],
            &[""],
        ] {
            assert_eq!(judge(values), Err(BackendError::Encoded), "{values:?}");
        }
    }

    #[test]
    fn a_body_ends_at_one_place() {
        let (length, encoding) = (header::CONTENT_LENGTH, header::TRANSFER_ENCODING);
        let judge = |fields: &[(&HeaderName, &str)]| {
            judge_framing(
                StatusCode::OK,
                &headers(&fields.iter().map(|(name, value)| ((*name).clone(), *value)).collect::<Vec<_>>()),
            )
        };
        for fields in [&[][..], &[(&length, "2")], &[(&encoding, "chunked")], &[(&encoding, "Chunked")]] {
            assert_eq!(judge(fields), Ok(()), "{fields:?}");
        }
        for fields in [
            &[(&length, "2"), (&encoding, "chunked")][..],
            &[(&length, "2"), (&length, "2")],
            &[(&length, "2"), (&length, "3")],
            &[(&encoding, "chunked"), (&encoding, "chunked")],
            &[(&encoding, "chunked, chunked")],
            &[(&encoding, "gzip, chunked")],
            &[(&encoding, "gzip")],
            &[(&encoding, "identity")],
            &[(&encoding, "xchunked")],
        ] {
            assert_eq!(judge(fields), Err(BackendError::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn header_fields_have_a_limit_together() {
        let of = |bytes: usize| headers(&[(header::SERVER, "a".repeat(bytes).as_str())]);
        let most = HEADER_BYTES_MAX - 32 - "server".len();
        assert_eq!(judge_size(&of(most)), Ok(()));
        assert_eq!(judge_size(&of(most + 1)), Err(BackendError::HeadTooLarge));
    }

    #[test]
    fn only_success_is_success() {
        for code in [200, 201, 204, 299] {
            assert_eq!(judge_status(StatusCode::from_u16(code).unwrap()), Ok(()));
        }
        for code in [300, 302, 304, 308] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(judge_status(status), Err(BackendError::Redirected { code }));
        }
        for code in [101, 400, 404, 500, 599, 999] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(judge_status(status), Err(BackendError::Status { code }));
        }
    }
}
