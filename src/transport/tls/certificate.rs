//! A client's certificate, as clients are known by it.
//!
//! The listener has verified its chain. What is read here decides whose it is, so a certificate that two
//! readers could read differently is read by nobody.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use x509_parser::{
    asn1_rs::{Any, Class, Tag, ToDer as _},
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer as _,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::call::Certificate;

/// A certificate, and until when it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::transport) struct Dated {
    pub(in crate::transport) certificate: Certificate,
    pub(in crate::transport) from: Timestamp,
    pub(in crate::transport) until: Timestamp,
}

/// Reads a certificate's DER form. `None` says that it cannot be read in one way only.
pub(in crate::transport) fn read(der: &[u8]) -> Option<Dated> {
    let (rest, parsed) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let validity = parsed.validity();
    Some(Dated {
        certificate: Certificate {
            sha256: Sha256::digest(der).into(),
            subject: subject(parsed.subject())?,
            names: names(&parsed)?,
        },
        from: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        until: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

/// The alternative names, as they are. Kinds that no client is known by are passed over.
fn names(parsed: &X509Certificate<'_>) -> Option<Vec<String>> {
    let Some(extension) = parsed.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let mut names = Vec::new();
    for name in &extension.value.general_names {
        let (kind, text) = match name {
            GeneralName::DNSName(text) => ("dns", text),
            GeneralName::URI(text) => ("uri", text),
            GeneralName::RFC822Name(text) => ("email", text),
            GeneralName::Invalid(..) => return None,
            _ => continue,
        };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        names.push(format!("{kind}:{text}"));
    }
    Some(names)
}

/// A distinguished name in the form of RFC 4514 §2: the last part first, types by the short names of its
/// §3 and by number otherwise, the values of those in hexadecimal.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let attributes: Option<Vec<String>> = part.iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let number = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    match short_name(&number) {
        Some(name) => Some(format!("{name}={}", escaped(text(value)?))),
        None => Some(format!("{number}=#{}", hex::encode(value.to_der_vec().ok()?))),
    }
}

/// RFC 4514 §3.
fn short_name(number: &str) -> Option<&'static str> {
    Some(match number {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

/// A text of one of the kinds that are read the same everywhere, without control characters.
fn text<'a>(value: &Any<'a>) -> Option<&'a str> {
    if value.class() != Class::Universal || value.header.constructed() {
        return None;
    }
    let text = std::str::from_utf8(value.data).ok()?;
    let fits = match value.tag() {
        Tag::Utf8String => true,
        Tag::Ia5String => text.is_ascii(),
        Tag::PrintableString => text.bytes().all(is_printable),
        _ => false,
    };
    (fits && !text.contains(char::is_control)).then_some(text)
}

/// X.680 §41.4; and what many authorities put there besides, which every reader takes for itself.
const fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b' ' | b'\'' | b'(' | b')' | b'+' | b',' | b'-' | b'.' | b'/' | b':' | b'=' | b'?')
        || matches!(byte, b'*' | b'@' | b'&' | b'_')
}

/// RFC 4514 §2.4.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, letter) in text.chars().enumerate() {
        let is_special = matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\');
        if is_special || (letter == ' ' && (at == 0 || at == last)) || (letter == '#' && at == 0) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests;
