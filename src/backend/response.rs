//! Reading an answer: its head is judged before its body is read.

use ::http::{HeaderMap, StatusCode, header};
use reqwest::Response;
use serde_json::Value;

use super::{Answer, BackendError};

/// Reads an answer of at most `limit` bytes of JSON.
///
/// Whatever is refused is dropped unread, and its connection with it: draining
/// it would mean reading as much as a backend cares to send.
pub(super) async fn read(response: Response, limit: usize) -> Result<Answer, BackendError> {
    let (status, peer) = (response.status(), response.remote_addr());
    judge_status(status)?;
    judge_coding(response.headers())?;
    let is_json = is_json(response.headers());
    let body = collect(response, limit).await?;
    let bytes = body.len();
    let value = match status {
        // RFC 9110 §15.3.5 and §15.3.6: no content.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => Value::Null,
        _ if body.is_empty() => Value::Null,
        _ if !is_json => return Err(BackendError::NotJson),
        _ => serde_json::from_slice(&body).map_err(|_| BackendError::NotJson)?,
    };
    Ok(Answer { status: status.as_u16(), body: value, bytes, peer })
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

/// Refuses every content coding: none was asked for (RFC 9110 §8.4, §12.5.3),
/// and 200 MB fit in 194 KB of gzip.
fn judge_coding(headers: &HeaderMap) -> Result<(), BackendError> {
    let identity = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    if identity { Ok(()) } else { Err(BackendError::Encoded) }
}

/// Whether the one content type is `application/json` (RFC 8259 §11) or has the
/// suffix `+json` (RFC 6839 §3.1), in UTF-8 (RFC 8259 §8.1).
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next().map(|value| value.to_str()), types.next()) {
        (Some(Ok(media_type)), None) => is_json_type(media_type),
        _ => false,
    }
}

fn is_json_type(media_type: &str) -> bool {
    let mut parts = media_type.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let is_json = (kind == "application" && subtype == "json")
        || (is_token(kind) && is_token(subtype) && subtype.strip_suffix("+json").is_some_and(is_token));
    is_json && parts.all(|parameter| !names_other_charset(parameter))
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

/// Reads the body. `Content-Length` can only shorten the refusal, never lift it.
async fn collect(mut response: Response, limit: usize) -> Result<Vec<u8>, BackendError> {
    let stated = response.content_length().unwrap_or(0);
    let stated = usize::try_from(stated).unwrap_or(usize::MAX);
    if stated > limit {
        return Err(BackendError::TooLarge { limit });
    }
    let mut body = Vec::with_capacity(stated);
    while let Some(chunk) = response.chunk().await.map_err(|_| BackendError::Interrupted)? {
        if chunk.len() > limit.saturating_sub(body.len()) {
            return Err(BackendError::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(is_json_type(media_type), "{media_type}");
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
            assert!(!is_json_type(media_type), "{media_type}");
        }
    }

    #[test]
    fn two_content_types_are_none() {
        let mut headers = HeaderMap::new();
        assert!(!is_json(&headers));
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(is_json(&headers));
        headers.append(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(!is_json(&headers));
    }

    #[test]
    fn every_coding_but_identity_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(judge_coding(&headers).is_ok());
        headers.append(header::CONTENT_ENCODING, "Identity".parse().unwrap());
        assert!(judge_coding(&headers).is_ok());
        headers.append(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(judge_coding(&headers), Err(BackendError::Encoded));
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
