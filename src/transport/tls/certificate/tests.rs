//! Certificates that nobody has verified: what is read of them is what they say, or nothing.

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, PKCS_ED25519, PublicKeyData,
    SanType, SerialNumber, SignatureAlgorithm, SigningKey,
    string::{BmpString, TeletexString},
};

use super::*;

/// A key that signs nothing: signatures are not looked at here.
struct Mute;

impl PublicKeyData for Mute {
    fn der_bytes(&self) -> &[u8] {
        &[7; 32]
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl SigningKey for Mute {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0; 64])
    }
}

fn der(subject: Vec<(DnType, DnValue)>, names: Vec<SanType>, extensions: Vec<CustomExtension>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(7_u64));
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind, value);
    }
    params.subject_alt_names = names;
    params.custom_extensions = extensions;
    params.self_signed(&Mute).unwrap().der().to_vec()
}

fn subject_of(subject: Vec<(DnType, DnValue)>) -> Option<String> {
    read(&der(subject, vec![], vec![])).map(|dated| dated.certificate.subject)
}

fn utf8(text: &str) -> DnValue {
    DnValue::Utf8String(text.to_owned())
}

#[test]
fn a_subject_is_written_as_rfc_4514_says() {
    let subject = subject_of(vec![
        (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
        (DnType::OrganizationName, utf8("Acme, Inc. + <Söhne>; \"x\\y\"")),
        (DnType::CommonName, utf8(" #bot=1 ")),
    ]);
    assert_eq!(subject.unwrap(), "CN=\\ #bot=1\\ ,O=Acme\\, Inc. \\+ \\<Söhne\\>\\; \\\"x\\\\y\\\",C=DE");
    let subject = subject_of(vec![(DnType::CommonName, utf8("#1"))]);
    assert_eq!(subject.unwrap(), "CN=\\#1");
    let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
    let subject = subject_of(vec![(email, DnValue::Ia5String("a@b".try_into().unwrap()))]);
    assert_eq!(subject.unwrap(), "1.2.840.113549.1.9.1=#1603614062");
    assert_eq!(subject_of(vec![]).unwrap(), "");
}

#[test]
fn a_subject_that_readers_could_take_in_two_ways_is_read_by_nobody() {
    for text in ["bot\0.example", "bot\n", "\u{7f}", "\u{85}", "a\tb"] {
        assert_eq!(subject_of(vec![(DnType::CommonName, utf8(text))]), None, "{text:?}");
    }
    let bmp = DnValue::BmpString(BmpString::try_from("bot").unwrap());
    assert_eq!(subject_of(vec![(DnType::CommonName, bmp)]), None);
    let teletex = DnValue::TeletexString(TeletexString::try_from("bot").unwrap());
    assert_eq!(subject_of(vec![(DnType::CommonName, teletex)]), None);
}

#[test]
fn names_are_taken_as_they_are_and_other_kinds_passed_over() {
    let names = vec![
        SanType::DnsName("Bot.example".try_into().unwrap()),
        SanType::URI("spiffe://x/bot".try_into().unwrap()),
        SanType::Rfc822Name("bot@x".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    let der = der(vec![], names, vec![]);
    let dated = read(&der).unwrap();
    assert_eq!(dated.certificate.names, ["dns:Bot.example", "uri:spiffe://x/bot", "email:bot@x"]);
    assert_eq!(dated.certificate.sha256, <[u8; 32]>::from(Sha256::digest(&der)));
    assert!(dated.from < Timestamp::now() && dated.until > Timestamp::now());
}

/// An extension of alternative names whose content is one name of a kind.
fn alternative(kind: u8, name: &[u8]) -> CustomExtension {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let inner = [&[0x80 | kind, length(name)], name].concat();
    let content = [&[0x30, length(&inner)], &inner[..]].concat();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
}

#[test]
fn a_name_that_readers_could_take_in_two_ways_makes_the_certificate_unreadable() {
    let names = |extensions| read(&der(vec![], vec![], extensions)).map(|dated| dated.certificate.names);
    assert_eq!(names(vec![alternative(2, b"bot.example")]).unwrap(), ["dns:bot.example"]);
    for kind in [1, 2, 6] {
        for name in [&b"bot\0.example"[..], b"b\xc3\xb6t", b"bot\xff", b"bot example", b"bot\n", b""] {
            assert_eq!(names(vec![alternative(kind, name)]), None, "{kind} {name:?}");
        }
    }
    assert_eq!(names(vec![alternative(2, b"a"), alternative(2, b"b")]), None, "two lists of names");
}

#[test]
fn a_damaged_certificate_is_no_certificate_of_another_and_stops_nothing() {
    let names = vec![SanType::DnsName("bot.example".try_into().unwrap())];
    let good = der(vec![(DnType::CommonName, utf8("bot"))], names, vec![]);
    let digest = read(&good).unwrap().certificate.sha256;
    for at in 0..good.len() {
        assert_eq!(read(&good[..at]), None);
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            assert!(read(&flipped).is_none_or(|dated| dated.certificate.sha256 != digest));
        }
    }
    assert_eq!(read(&[&good[..], b"x"].concat()), None);
}
