//! TLS: the handshake, and files that change while the listener serves.

mod certificate;
mod files;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::{net::TcpStream, task::spawn_blocking, time::interval};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::visitor::Shown;
use crate::manifest::TlsSpec;
use files::Stamps;

pub use files::TlsError;
pub(super) use files::{Doubt, doubts};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The first byte of a TLS connection: a record of type `handshake` (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// The listener's certificate, and whose certificates it takes.
#[derive(Debug)]
pub(super) struct Tls {
    spec: TlsSpec,
    base: PathBuf,
    config: ArcSwap<ServerConfig>,
    /// The files as they were when they were last read.
    seen: Mutex<Stamps>,
}

/// How a connection begins.
pub(super) enum Greeting {
    /// With a handshake, and perhaps with a certificate.
    Known(Box<TlsStream<TcpStream>>, Option<Shown>),
    /// With plain HTTP.
    Plain(TcpStream),
    /// With a handshake that fails: the reason in one word.
    Refused(&'static str),
    /// Not at all.
    Left,
}

impl Tls {
    /// Reads the files; paths are relative to `base`. As long as somebody holds what is returned, they are
    /// read again whenever they change, and on SIGHUP.
    ///
    /// # Errors
    /// When one cannot be used: which, and what was expected.
    pub(super) fn open(spec: &TlsSpec, base: &Path) -> Result<Arc<Self>, TlsError> {
        let seen = Stamps::of(spec, base); // before they are read, so that no change is missed
        let config = ArcSwap::from_pointee(files::config(spec, base)?);
        let tls = Self { spec: spec.clone(), base: base.to_owned(), config, seen: Mutex::new(seen) };
        let tls = Arc::new(tls);
        tokio::spawn(watch(Arc::downgrade(&tls), Hangups::listen()));
        Ok(tls)
    }

    /// Makes the handshake. How long it may take is the caller's to say.
    pub(super) async fn greet(&self, stream: TcpStream) -> Greeting {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) if first == [HANDSHAKE] => {}
            Ok(1..) if first.iter().all(u8::is_ascii_uppercase) => return Greeting::Plain(stream),
            Ok(1..) => return Greeting::Refused("handshake_failed"),
            Ok(0) | Err(_) => return Greeting::Left,
        }
        let stream = match TlsAcceptor::from(self.config.load_full()).accept(stream).await {
            Ok(stream) => stream,
            Err(error) => return failed(&error),
        };
        let (_, session) = stream.get_ref();
        let Some(shown) = session.peer_certificates().and_then(<[_]>::first) else {
            return Greeting::Known(Box::new(stream), None);
        };
        match certificate::read(shown) {
            Some(dated) => {
                let shown = Shown { certificate: Arc::new(dated.certificate), until: dated.until };
                Greeting::Known(Box::new(stream), Some(shown))
            }
            None => Greeting::Refused("unreadable_certificate"),
        }
    }

    /// Takes new files into use. Open connections go on as they are; files that cannot be used change
    /// nothing, and are complained of once.
    fn look(&self, asked: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamps::of(&self.spec, &self.base);
        if !asked && *seen == now {
            return;
        }
        *seen = now;
        match files::config(&self.spec, &self.base) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!("the TLS files were read again: new connections are judged by them");
            }
            Err(error) => {
                tracing::error!(%error, "the TLS files have changed and cannot be used: those before stay in force");
            }
        }
    }
}

/// Looks at the files until nobody serves by them any more.
async fn watch(tls: Weak<Tls>, mut hangups: Hangups) {
    let mut clock = interval(LOOK_EVERY);
    loop {
        let asked = tokio::select! {
            _ = clock.tick() => false,
            () = hangups.next() => true,
        };
        let Some(tls) = tls.upgrade() else { return };
        let _ = spawn_blocking(move || tls.look(asked)).await;
    }
}

fn failed(error: &io::Error) -> Greeting {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(InvalidCertificate(_)) => Greeting::Refused("certificate_refused"),
        Some(NoCertificatesPresented) => Greeting::Refused("no_certificate"),
        Some(_) => Greeting::Refused("handshake_failed"),
        None => Greeting::Left,
    }
}

/// The signal by which a service is asked to read its files again.
struct Hangups(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

impl Hangups {
    #[cfg(unix)]
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self(signal(SignalKind::hangup()).ok())
    }

    #[cfg(not(unix))]
    const fn listen() -> Self {
        Self()
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
