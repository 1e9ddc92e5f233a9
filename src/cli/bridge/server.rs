//! The server at the other end: where it is, how it is reached, and who asks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::{Request, Response};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use url::Url;

use super::failure::Failure;
use crate::{
    cli::{
        remote::typed_endpoint,
        typed_key::{refuse_admin_key, refuse_key_as_file, refuse_key_as_variable},
        unreached::Unreached,
    },
    credential::{LiveSecret, LiveSecrets, read_secret},
    egress::{Allowances, Egress, SendError, Way},
    manifest::{EgressSpec, SecretRef},
};

/// How long the head of an answer may take. A call can wait for people.
const ANSWER_MAX: Duration = Duration::from_secs(15 * 60);
/// The networks of companies and homes. Over TLS, where the server proves who it is, it may be there.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// A server, and the key that it is shown.
pub(super) struct Server {
    url: Url,
    way: Way,
    authorization: HeaderValue,
    /// Where the key is from, as it was typed.
    key_place: String,
    /// While this is held, no line of ours shows the key.
    _key: LiveSecret,
}

/// Where the key is.
pub(super) enum KeyPlace {
    Variable(String),
    File(PathBuf),
}

impl Server {
    /// The server at a URL that was typed.
    ///
    /// # Errors
    /// When it is no such URL, the key cannot be read, or it would go there unencrypted.
    pub(super) fn new(
        url: &str,
        key: KeyPlace,
        authority: Option<&Path>,
        secrets: &LiveSecrets,
    ) -> Result<Self, String> {
        let url = typed_endpoint("--connect", url)?;
        let (key, key_place) = read_key(key)?;
        let shown = SecretString::from(format!("Bearer {}", key.expose_secret()));
        let mut authorization = HeaderValue::from_str(shown.expose_secret())
            .map_err(|_| "the API key holds characters that no key has")?;
        authorization.set_sensitive(true);
        let held = secrets.insert("the API key", &key);
        let way = way(&url, authority)?;
        Ok(Self { url, way, authorization, key_place, _key: held })
    }

    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// Where the key is from.
    pub(super) fn key_place(&self) -> &str {
        &self.key_place
    }

    /// Sends a message, and waits for the head of the answer.
    pub(super) async fn post(&self, body: Bytes, headers: HeaderMap) -> Result<Response, Failure> {
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = headers;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let both = HeaderValue::from_static("application/json, text/event-stream");
        request.headers_mut().insert(header::ACCEPT, both);
        *request.body_mut() = Some(body.into());
        self.send(request).await
    }

    /// Asks for the stream of what the server says by itself.
    pub(super) async fn get(&self, headers: HeaderMap) -> Result<Response, Failure> {
        let mut request = Request::new(Method::GET, self.url.clone());
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        self.send(request).await
    }

    /// Ends a session.
    pub(super) async fn delete(&self, headers: HeaderMap) -> Result<Response, Failure> {
        let mut request = Request::new(Method::DELETE, self.url.clone());
        *request.headers_mut() = headers;
        self.send(request).await
    }

    async fn send(&self, mut request: Request) -> Result<Response, Failure> {
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        let sent = timeout(ANSWER_MAX, self.way.send(request)).await.map_err(|_| Failure::Slow)?;
        sent.map_err(|error| match error {
            SendError::Http(error) => Unreached::of(&error).map_or(Failure::BrokeOff, Failure::Unreached),
            SendError::Refused { refusal, .. } => Failure::Forbidden(refusal.to_string()),
        })
    }
}

fn read_key(place: KeyPlace) -> Result<(SecretString, String), String> {
    match &place {
        KeyPlace::Variable(name) => refuse_key_as_variable("--key-env", name)?,
        KeyPlace::File(path) => refuse_key_as_file("--key-file", path)?,
    }
    let (reference, shown) = match place {
        KeyPlace::Variable(name) if std::env::var_os(&name).is_none() => {
            return Err(format!("no API key: set `{name}`, or pass `--key-file`"));
        }
        KeyPlace::Variable(name) => (SecretRef::Env(name.clone()), name),
        KeyPlace::File(path) => {
            let shown = path.display().to_string();
            (SecretRef::File(path), shown)
        }
    };
    let key = read_secret(&reference, Path::new(".")).map_err(|error| format!("the API key: {error}"))?;
    refuse_admin_key(&key)?;
    Ok((key, shown))
}

fn way(url: &Url, authority: Option<&Path>) -> Result<Way, String> {
    let egress = match authority {
        Some(path) => Egress::trusting_also(certificates(path)?),
        None => Egress::new(None),
    };
    let private = if url.scheme() == "https" { PRIVATE.as_slice() } else { &[] };
    let private = private.iter().filter_map(|network| network.parse().ok()).collect();
    let spec = EgressSpec { private, loopback: true, ..EgressSpec::default() };
    let allowances = Allowances::new(&spec).map_err(|_| "private networks cannot be allowed".to_owned())?;
    Ok(egress.map_err(|error| error.to_string())?.way(&allowances))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let pem = fs::read(path).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| format!("`{shown}` holds no certificate in PEM"))
}
