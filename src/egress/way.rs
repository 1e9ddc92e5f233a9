//! One way out: what a service's egress allows, and the connections made under it.

use std::{
    collections::HashMap,
    error::Error as _,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use reqwest::{Client, Request, Response};
use url::{Host, Position, Url};

use super::{
    ClientIdentity, EgressRefusal,
    client::ClientMaker,
    resolver::{Judge, PortJudge, ResolveError},
};

/// A way out under one set of allowances. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Way(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    maker: ClientMaker,
    judge: Arc<Judge>,
    identity: Option<ClientIdentity>,
    /// One client for each origin, by `scheme://host:port`: a client's resolver learns no port, and the
    /// connections of one origin can be dropped without those of another.
    clients: RwLock<HashMap<Box<str>, Client>>,
}

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The request may not go there.
    Refused {
        /// Why.
        refusal: EgressRefusal,
        /// Whether the request was sent before that was seen.
        sent: bool,
    },
    /// The client failed. The error may hold the URL, and so a secret: it is to
    /// be classified, never shown.
    Http(reqwest::Error),
}

impl Way {
    pub(super) fn new(maker: ClientMaker, judge: Judge, identity: Option<ClientIdentity>) -> Self {
        Self(Arc::new(Inner { maker, judge: Arc::new(judge), identity, clients: RwLock::default() }))
    }

    /// Sends one request, once, and waits for the head of its answer.
    ///
    /// # Errors
    /// When the request may not go where it would, or no answer came.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, SendError> {
        let unsent = |refusal| SendError::Refused { refusal, sent: false };
        let port = request.url().port_or_known_default().ok_or_else(|| unsent(EgressRefusal::NotAUrl))?;
        // The resolver is never asked about literal addresses.
        if let Some(address) = literal(request.url()) {
            self.0.judge.judge(SocketAddr::new(address, port)).map_err(unsent)?;
        }
        let client = self.client(request.url(), port).map_err(SendError::Http)?;
        let response = client.execute(request).await.map_err(|error| match refusal_in(&error) {
            Some(refusal) => unsent(refusal),
            None => SendError::Http(error),
        })?;
        match response.remote_addr().map(|peer| self.0.judge.judge(peer)) {
            Some(Ok(())) => Ok(response),
            Some(Err(_)) | None => Err(SendError::Refused { refusal: EgressRefusal::Peer, sent: true }),
        }
    }

    /// Judges a URL that an argument holds, which the service is going to call: by
    /// the same rules as the service itself.
    ///
    /// What the service's own resolver says at another time is beyond the gate.
    ///
    /// # Errors
    /// When the text is not plainly an `http` or `https` URL without a user, or its
    /// host has an address that may not be called, or none.
    pub async fn judge_url(&self, text: &str) -> Result<(), EgressRefusal> {
        let url = parse(text)?;
        let port = url.port_or_known_default().ok_or(EgressRefusal::NotAUrl)?;
        match url.host() {
            Some(Host::Ipv4(address)) => self.0.judge.judge((address, port).into()),
            Some(Host::Ipv6(address)) => self.0.judge.judge((address, port).into()),
            Some(Host::Domain(name)) => match self.0.judge.resolve(name, port).await {
                Ok(_) => Ok(()),
                Err(ResolveError::Refused(refusal)) => Err(refusal),
                Err(ResolveError::Unresolved(_)) => Err(EgressRefusal::Unresolved),
            },
            None => Err(EgressRefusal::NotAUrl),
        }
    }

    /// Drops the connections to the URL's origin that no call is using: none is used again.
    pub(crate) fn forget(&self, url: &Url) {
        self.0.clients.write().unwrap_or_else(PoisonError::into_inner).remove(origin(url));
    }

    fn client(&self, url: &Url, port: u16) -> Result<Client, reqwest::Error> {
        let origin = origin(url);
        let clients = self.0.clients.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(origin) {
            return Ok(client.clone());
        }
        drop(clients);
        let resolver = PortJudge { judge: Arc::clone(&self.0.judge), port };
        let client = self.0.maker.client(resolver, self.0.identity.as_ref())?;
        let mut clients = self.0.clients.write().unwrap_or_else(PoisonError::into_inner);
        Ok(clients.entry(origin.into()).or_insert(client).clone())
    }
}

/// `scheme://host:port`. A service's URL has no user.
fn origin(url: &Url) -> &str {
    &url[..Position::AfterPort]
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// The judge's refusal, where that is what made a connection fail.
fn refusal_in(error: &reqwest::Error) -> Option<EgressRefusal> {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.into_iter().find_map(|cause| match cause.downcast_ref::<ResolveError>() {
        Some(ResolveError::Refused(refusal)) => Some(refusal.clone()),
        Some(ResolveError::Unresolved(_)) | None => None,
    })
}

/// Reads a URL that every reader reads in the same way: parsers part over
/// control characters, spaces, `\`, missing slashes, and `@` in the authority.
fn parse(text: &str) -> Result<Url, EgressRefusal> {
    if text.chars().any(|char| char.is_control() || char.is_whitespace() || char == '\\') {
        return Err(EgressRefusal::NotAUrl);
    }
    let url = Url::parse(text).map_err(|_| EgressRefusal::NotAUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(EgressRefusal::Scheme);
    }
    let rest = text.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
    let rest = rest.ok_or(EgressRefusal::NotAUrl)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(EgressRefusal::NotAUrl);
    }
    if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
        return Err(EgressRefusal::Userinfo);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_readers_could_take_for_different_ones_is_none() {
        for text in [
            "",
            "x",
            "http:",
            "http://",
            "http:///h",
            "http:h",
            "http:/h",
            "http:\\\\h",
            "//h",
            "http://h\\@g",
            "http://h\t",
            " http://h",
            "http://h\n/",
            "http://a b/",
            "http://[::1",
            "http://h:99999/",
            "http://\u{3000}h",
            "http://h/\u{a0}",
            "http://:80/",
            "http:?://h/",
            "http:h/://g",
        ] {
            assert_eq!(parse(text), Err(EgressRefusal::NotAUrl), "{text:?}");
        }
        for text in ["http://u@h/", "https://u:p@h/", "http://@h/", "http://:@h/", "http://a%40b@h/"] {
            assert_eq!(parse(text), Err(EgressRefusal::Userinfo), "{text:?}");
        }
        for text in ["ftp://h/", "file:///etc/passwd", "gopher://h/", "javascript://h/", "data:,x", "ws://h/"]
        {
            assert_eq!(parse(text), Err(EgressRefusal::Scheme), "{text:?}");
        }
        for text in ["http://h", "HTTPS://H:8443/a?b=c#d", "http://h/a@b", "http://bücher.example/"] {
            assert!(parse(text).is_ok(), "{text:?}");
        }
    }
}
