//! Why a server was not reached: what the layers below say about it, in words that tell what to do.

use std::{error::Error, io};

use rustls::CertificateError;
use url::Url;

use crate::egress::CONNECT_TIMEOUT;

/// Why nothing of a request was understood at the other end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Unreached {
    /// Nobody listens there.
    Nobody,
    /// Nobody took the connection in time.
    Silent,
    /// Nobody here trusts the authority of its certificate.
    Untrusted,
    /// Its certificate is not good for another reason: which.
    Unproven(String),
    /// What listens there does not speak TLS.
    NotTls,
    /// TLS fails in another way: how.
    Tls(String),
    /// What listens there does not speak HTTP, or only behind TLS.
    NotHttp,
}

impl Unreached {
    /// What an error says of this, if it does.
    pub(super) fn of(error: &reqwest::Error) -> Option<Self> {
        if let Some(error) = cause::<rustls::Error>(error) {
            return Some(Self::of_tls(error));
        }
        if error.is_connect() && error.is_timeout() {
            return Some(Self::Silent);
        }
        if error.is_connect() {
            return Some(Self::Nobody);
        }
        cause::<hyper::Error>(error).filter(|error| error.is_parse()).map(|_| Self::NotHttp)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Tls(other.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as Error;
        Self::Unproven(match error {
            Error::UnknownIssuer => return Self::Untrusted,
            Error::Expired | Error::ExpiredContext { .. } => "its certificate has expired".to_owned(),
            Error::NotValidYet | Error::NotValidYetContext { .. } => {
                "its certificate is not valid yet".to_owned()
            }
            Error::NotValidForName | Error::NotValidForNameContext { .. } => {
                "its certificate is for another name".to_owned()
            }
            Error::Revoked => "its certificate is revoked".to_owned(),
            other => format!("its certificate is refused ({other})"),
        })
    }

    /// What is wrong, and what to do, in a line. `trust` says how an authority comes to be trusted.
    pub(super) fn message(&self, url: &Url, trust: &str) -> String {
        match self {
            Self::Nobody => format!("no server answers at {url}: does `callgate serve` run there?"),
            Self::Silent => format!(
                "{url} did not answer in {} s: it may be busy, or be kept from answering",
                CONNECT_TIMEOUT.as_secs()
            ),
            Self::Untrusted => format!(
                "{url} does not prove who it is: the authority of its certificate is not trusted here; {trust}"
            ),
            Self::Unproven(why) => format!("{url} does not prove who it is: {why}"),
            Self::NotTls => {
                format!("{url} does not speak TLS: is its scheme `http`, or its port another one?")
            }
            Self::Tls(why) => format!("TLS with {url} fails: {why}"),
            Self::NotHttp => {
                format!("{url} does not answer in HTTP: is its scheme `https`, or its port another one?")
            }
        }
    }
}

/// The first error of a type among an error and its causes.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An `io::Error` that is asked for its source passes over the error that it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_says_is_put_into_words() {
        use rustls::{AlertDescription, Error, InvalidMessage};
        let url = Url::parse("https://gate.example.com/mcp").unwrap();
        let said = |error: &Error| Unreached::of_tls(error).message(&url, "trust it");
        for (error, expected) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "does not prove who it is: the authority of its certificate is not trusted here; trust it",
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "does not prove who it is: its certificate has expired",
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                "does not prove who it is: its certificate is for another name",
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "does not speak TLS: is its scheme `http`, or its port another one?",
            ),
        ] {
            assert_eq!(said(&error), format!("{url} {expected}"));
        }
        let alert = said(&Error::AlertReceived(AlertDescription::HandshakeFailure));
        assert!(alert.starts_with("TLS with https://gate.example.com/mcp fails: "), "{alert}");
    }

    #[test]
    fn an_error_is_found_inside_of_others() {
        let tls = || rustls::Error::NoCertificatesPresented;
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls()));
        assert_eq!(cause::<rustls::Error>(&twice), Some(&tls()));
        assert_eq!(cause::<rustls::Error>(&io::Error::other("x")), None);
        assert_eq!(cause::<rustls::Error>(&io::Error::from(io::ErrorKind::NotFound)), None);
    }
}
