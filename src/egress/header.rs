//! Header fields of outgoing requests: whose they are, and what they may hold.

use http::{HeaderName, HeaderValue};

/// Fields that the gate sets itself, or that change what a request is.
const RESERVED: [&str; 29] = [
    // Framing and the target (RFC 9112 §3.2, §6).
    "host",
    "content-length",
    "transfer-encoding",
    "expect",
    // Hop by hop (RFC 9110 §7.6.1).
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    // What the body is, and which answers are understood (RFC 9110 §8.3, §8.4, §12.5, §14).
    "content-type",
    "content-encoding",
    "accept",
    "accept-charset",
    "accept-encoding",
    "range",
    "if-range",
    // Who asks, and by which way (RFC 7239, RFC 9110 §7.6.3, §10.1.5).
    "forwarded",
    "via",
    "x-real-ip",
    "user-agent",
    // The gate's own: repeated calls and traces (W3C Trace Context §3, W3C Baggage §3).
    "idempotency-key",
    "traceparent",
    "tracestate",
    "baggage",
    // Some servers let these replace the method or the path.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

const RESERVED_PREFIXES: [&str; 2] = ["proxy-", "x-forwarded-"];

/// Whether neither an argument nor a credential may set the field.
///
/// `_` counts as `-`: gateways that hand fields on as CGI variables
/// (RFC 3875 §4.1.18) make one name of both.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A field value of visible ASCII, with spaces only inside.
///
/// Narrower than RFC 9110 §5.5, and than `HeaderValue::from_str`, which lets
/// `é` and tabs pass.
pub(crate) fn field_value(text: &str) -> Option<HeaderValue> {
    let visible = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if text.is_empty() || !visible || text.starts_with(' ') || text.ends_with(' ') {
        return None;
    }
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_visible_ascii_with_spaces_inside() {
        for text in ["x", "a b", "W/\"67ab43\"", "~!@#"] {
            assert_eq!(field_value(text).unwrap(), text);
        }
        for text in ["", " ", " a", "a ", "é", "a\r\nb: c", "a\nb", "a\tb", "a\0b", "\x7f", "\u{a0}"] {
            assert_eq!(field_value(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_underscore_does_not_disguise_a_reserved_field() {
        for name in ["X-Forwarded-For", "x_forwarded_for", "Proxy-Authorization", "HOST", "transfer_encoding"]
        {
            assert!(is_reserved(&name.parse().unwrap()), "{name}");
        }
        for name in ["if-match", "x-tenant", "authorization", "cookie"] {
            assert!(!is_reserved(&name.parse().unwrap()), "{name}");
        }
    }
}
