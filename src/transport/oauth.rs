//! The token endpoint and what describes it: plain HTTP, beside the protocol's own endpoint.

use std::{borrow::Cow, collections::HashSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::refusal::{Answer, Told};
use crate::{
    call::{Origin, Proof},
    gateway::Gateway,
    identity::{ClientProof, NewAccessToken, TokenRefusal, TokenRequest},
};

/// What such a body may hold: an assertion, and a list of destinations.
pub(super) const FORM_BYTES_MAX: usize = 256 << 10;
/// The assertion of RFC 7523 §2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The parameters that may come more than once.
const REPEATED: [&str; 3] = ["resource", "callgate_tool", "callgate_destination"];

/// What a request to one of these paths asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// A document that is there for everybody.
    Document,
    /// The public keys.
    Keys,
    /// A user's consent, which is not asked for here.
    Consent,
    /// A token.
    Token,
    /// A token's end.
    Revocation,
}

impl Wish {
    /// What a request asks for, where it is for one of these paths at all.
    pub(super) fn of(path: &str, gateway: &Gateway) -> Option<Self> {
        let metadata = gateway.metadata();
        match path {
            path if metadata.document(path).is_some() => Some(Self::Document),
            _ if !metadata.issues_tokens() => None,
            "/oauth/authorize" => Some(Self::Consent),
            "/oauth/token" => Some(Self::Token),
            "/oauth/revoke" => Some(Self::Revocation),
            "/oauth/jwks" => Some(Self::Keys),
            _ => None,
        }
    }

    /// Whether it comes with a body.
    pub(super) const fn has_body(self) -> bool {
        matches!(self, Self::Token | Self::Revocation)
    }
}

/// Refuses a method that does not fit.
pub(super) fn misfit(wish: Wish, parts: &Parts) -> Option<Answer> {
    // `HEAD` is answered like `GET` (RFC 9110 §9.3.2), and the body is left out on the way.
    let (allowed, fits) = if wish.has_body() {
        ("POST", parts.method == Method::POST)
    } else {
        ("GET, HEAD", matches!(parts.method, Method::GET | Method::HEAD))
    };
    if fits {
        return None;
    }
    let description = format!("this takes {allowed} only");
    let refused = json!({ "error": "invalid_request", "error_description": description });
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, &refused);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Some(answer)
}

/// Answers with a document.
pub(super) async fn document(wish: Wish, parts: &Parts, gateway: &Gateway) -> Answer {
    if wish == Wish::Consent {
        let description = "tokens are had at the token endpoint, without a user";
        let refused = json!({ "error": "unsupported_response_type", "error_description": description });
        return plain(StatusCode::BAD_REQUEST, &refused);
    }
    if wish == Wish::Keys {
        return match gateway.published_keys().await {
            Ok(keys) => shown(&keys.unwrap_or_default()),
            Err(error) => {
                tracing::error!(%error, "the public keys cannot be shown");
                plain(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "temporarily_unavailable" }))
            }
        };
    }
    gateway.metadata().document(parts.uri.path()).map_or_else(|| shown(&Value::Null), shown)
}

fn shown(document: &Value) -> Answer {
    let mut answer = plain(StatusCode::OK, document);
    // Minutes, so that a new key is heard of in time.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    answer
}

/// Answers a request for a token, or for a token's end.
pub(super) async fn answer(
    wish: Wish,
    parts: &Parts,
    body: &Bytes,
    proof: &Proof,
    origin: Origin,
    gateway: &Gateway,
) -> Answer {
    let outcome = match Form::read(&parts.headers, body) {
        Ok(form) if wish == Wish::Token => mint(form, &parts.headers, proof, origin, gateway).await,
        Ok(form) => revoke(form, &parts.headers, proof, origin, gateway).await,
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok(Some(token)) => plain(StatusCode::OK, &described(&token)),
        Ok(None) => plain(StatusCode::OK, &json!({})),
        Err(refused) => refuse(&refused),
    }
}

async fn mint(
    mut form: Form<'_>,
    headers: &HeaderMap,
    proof: &Proof,
    origin: Origin,
    gateway: &Gateway,
) -> Result<Option<NewAccessToken>, Refused> {
    let grant = form.take("grant_type");
    let client = client_proof(&mut form, headers, proof)?;
    match grant.as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(Refused::Grant),
        None => return Err(request("`grant_type` is missing")),
    }
    for name in ["callgate_tool", "callgate_user", "callgate_run", "callgate_destination"] {
        if form.has_empty(name) {
            // An empty variable of a harness would otherwise leave all of them.
            return Err(request(&format!("`{name}` is empty: give it a value, or leave it out")));
        }
    }
    let lifetime = form.take("callgate_run_lifetime").map(|text| {
        // A sign would be read, too.
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|text| text.parse().ok()).map(Duration::from_secs).ok_or(())
    });
    let wanted = TokenRequest {
        proof: client,
        scope: form.take("scope"),
        resources: form.take_all("resource"),
        tools: form.take_all("callgate_tool"),
        user: form.take("callgate_user"),
        destinations: form.take_all("callgate_destination"),
        run: form.take("callgate_run"),
        run_lifetime: lifetime
            .transpose()
            .map_err(|_| request("`callgate_run_lifetime` is a number of seconds"))?,
    };
    Ok(Some(gateway.mint(&wanted, proof, origin).await?))
}

async fn revoke(
    mut form: Form<'_>,
    headers: &HeaderMap,
    proof: &Proof,
    origin: Origin,
    gateway: &Gateway,
) -> Result<Option<NewAccessToken>, Refused> {
    let client = client_proof(&mut form, headers, proof)?;
    let token = form.take("token").ok_or_else(|| request("`token` is missing"))?;
    gateway.take_back(&client, &token.into(), proof, origin).await?;
    Ok(None)
}

/// Exactly one way of saying who asks (RFC 6749 §2.3).
fn client_proof(form: &mut Form<'_>, headers: &HeaderMap, proof: &Proof) -> Result<ClientProof, Refused> {
    let client = form.take("client_id");
    let secret = form.take("client_secret").map(SecretString::from);
    let assertion = form.take("client_assertion").map(SecretString::from);
    let kind = form.take("client_assertion_type");
    let basic = basic(headers)?;
    match (basic, secret, assertion) {
        (Some(_), None, None) | (None, Some(_), None) if kind.is_some() => {
            Err(request("`client_assertion_type` comes with a `client_assertion`, and with nothing else"))
        }
        (Some((name, secret)), None, None) => {
            if client.is_some_and(|client| client != name) {
                return Err(request("`client_id` is not the client of the header"));
            }
            Ok(ClientProof::Secret { client: name, secret })
        }
        (None, Some(secret), None) => {
            let client = client.ok_or_else(|| request("`client_id` is missing"))?;
            Ok(ClientProof::Secret { client, secret })
        }
        (None, None, Some(assertion)) if kind.as_deref() == Some(JWT_BEARER) => {
            Ok(ClientProof::Assertion { client, assertion })
        }
        (None, None, Some(_)) => Err(request("`client_assertion_type` is not that of a JWT")),
        (None, None, None) => match (client, &proof.certificate) {
            (Some(client), Some(_)) => Ok(ClientProof::Certificate { client }),
            _ => Err(Refused::Nobody),
        },
        _ => Err(request("a client proves who it is in one way only")),
    }
}

/// `Authorization: Basic`, whose parts are form-encoded first (RFC 6749 §2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, SecretString)>, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let broken = || Refused::Header;
    let text = value.to_str().ok().filter(|_| more.is_none()).ok_or_else(broken)?;
    let (scheme, encoded) = text.split_once(' ').ok_or_else(broken)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(broken());
    }
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| broken())?;
    let decoded = String::from_utf8(decoded).map_err(|_| broken())?;
    let (name, secret) = decoded.split_once(':').ok_or_else(broken)?;
    let (name, secret) = (form_value(name), form_value(secret));
    Ok(Some((name.ok_or_else(broken)?, secret.ok_or_else(broken)?.into())))
}

/// One value that is form-encoded. `&` and `=` never stand in one as they are: whoever reads them as ends
/// of the value reads another one.
fn form_value(text: &str) -> Option<String> {
    if text.contains(['&', '=']) {
        return None;
    }
    let mut pairs = url::form_urlencoded::parse(text.as_bytes());
    let value = pairs.next().map(|(value, _)| value.into_owned()).unwrap_or_default();
    (!value.contains('\u{fffd}')).then_some(value)
}

/// A form's parameters, of which none came twice that may not.
struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    fn read(headers: &HeaderMap, body: &'a Bytes) -> Result<Self, Refused> {
        let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
        let kind = kinds.next().and_then(|kind| kind.to_str().ok()).filter(|_| kinds.next().is_none());
        let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(request("the body must be `application/x-www-form-urlencoded`"));
        }
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Err(request("the body must not be encoded: leave `Content-Encoding` out"));
        }
        if !kind.is_some_and(is_utf8) {
            return Err(request("the body is read as UTF-8: name that `charset`, or none"));
        }
        if std::str::from_utf8(body).is_err() {
            return Err(request("the body is not UTF-8"));
        }
        let pairs: Vec<_> = url::form_urlencoded::parse(body).collect();
        let mut seen = HashSet::new();
        for (name, value) in &pairs {
            if value.contains('\u{fffd}') || name.contains('\u{fffd}') {
                return Err(request("a parameter is not UTF-8"));
            }
            if !REPEATED.contains(&name.as_ref()) && !seen.insert(name.clone()) {
                return Err(request("a parameter comes more than once"));
            }
        }
        Ok(Self(pairs))
    }

    /// A parameter. One without a value counts as left out (RFC 6749 §3.2).
    fn take(&mut self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone().into_owned()).filter(|value| !value.is_empty())
    }

    fn has_empty(&self, name: &str) -> bool {
        self.0.iter().any(|(known, value)| known == name && value.is_empty())
    }

    fn take_all(&mut self, name: &str) -> Vec<String> {
        let all = self.0.iter().filter(|(known, value)| known == name && !value.is_empty());
        all.map(|(_, value)| value.clone().into_owned()).collect()
    }
}

/// Whether a content type names no charset but UTF-8 (RFC 6749 appendix B).
fn is_utf8(kind: &str) -> bool {
    kind.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

/// Why there is no answer of the kind that was asked for.
enum Refused {
    Nobody,
    /// A client that shows something in the header, in a form that is not read here.
    Header,
    Grant,
    Token(TokenRefusal),
}

impl From<TokenRefusal> for Refused {
    fn from(refusal: TokenRefusal) -> Self {
        Self::Token(refusal)
    }
}

fn request(message: &str) -> Refused {
    Refused::Token(TokenRefusal::Request(message.to_owned()))
}

/// RFC 6749 §5.2.
fn refuse(refused: &Refused) -> Answer {
    let (code, message) = match refused {
        Refused::Nobody => ("invalid_client", "authentication failed".to_owned()),
        Refused::Header => {
            let message = "the `Authorization` header is not `Basic` with a name and a secret";
            ("invalid_client", message.to_owned())
        }
        Refused::Grant => ("unsupported_grant_type", "the grant is `client_credentials`".to_owned()),
        Refused::Token(refusal) => (refusal.code(), refusal.public_message()),
    };
    let status = match code {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    error(status, code, &message)
}

/// A refusal of the front, which speaks the protocol, as it is told to who asks for tokens (RFC 6749 §5.2).
/// What the status says besides, such as when to come back, stays.
pub(super) fn in_its_words(mut answer: Answer) -> Answer {
    let Some(Told(message)) = answer.extensions_mut().remove::<Told>() else { return answer };
    let status = answer.status();
    let code = match status {
        StatusCode::UNAUTHORIZED => "invalid_client",
        StatusCode::TOO_MANY_REQUESTS => "temporarily_unavailable",
        status if status.is_server_error() => "temporarily_unavailable",
        _ => "invalid_request",
    };
    let mut told = error(status, code, &message);
    for name in [header::RETRY_AFTER, header::CONNECTION, header::ALLOW] {
        if let Some(value) = answer.headers_mut().remove(&name) {
            told.headers_mut().insert(name, value);
        }
    }
    told
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    // RFC 6749 §5.2: visible ASCII but for `"` and `\`.
    let fits = |char: char| matches!(char, ' '..='!' | '#'..='[' | ']'..='~');
    let message: String = message.chars().map(|char| if fits(char) { char } else { '?' }).collect();
    let mut answer = plain(status, &json!({ "error": code, "error_description": message }));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"callgate\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// RFC 6749 §5.1.
fn described(token: &NewAccessToken) -> Value {
    use secrecy::ExposeSecret as _;
    let scopes: Vec<&str> = token.scopes.iter().map(crate::manifest::Scope::as_str).collect();
    json!({
        "access_token": token.token.expose_secret(),
        "token_type": "Bearer",
        "expires_in": token.expires_in.as_secs(),
        "scope": scopes.join(" "),
        "callgate_run": token.run.to_string(),
    })
}

/// A document that nobody keeps, unless it says so.
fn plain(status: StatusCode, document: &Value) -> Answer {
    let mut answer = Response::new(Full::from(document.to_string()).boxed());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_is_utf8_or_not_named() {
        let form = "application/x-www-form-urlencoded";
        for fits in
            ["", ";", "; charset=utf-8", ";charset=\"UTF-8\"", "; Charset = utf-8", "; boundary=utf-16"]
        {
            assert!(is_utf8(&format!("{form}{fits}")), "{fits}");
        }
        for other in
            ["; charset=utf-16", ";charset=\"latin1\"", "; charset=", "; charset=utf-8; charset=utf-7"]
        {
            assert!(!is_utf8(&format!("{form}{other}")), "{other}");
        }
    }
}
