//! Keys and tokens that were given where something else belongs. What is given there is repeated in messages, kept
//! in the state and put on record, so it is refused without a word of it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// What keys of clients begin with.
const CLIENT: &str = "cg_";
/// What keys of people who run the server begin with.
const ADMIN: &str = "cgadmin_";
/// What a token begins with, mostly: `{"` in base64url.
const TOKEN: &str = "eyJ";
/// How long a client key's secret is at least, to tell it from a name that begins in the same way.
const SECRET_BYTES_MIN: usize = 12;
/// How long the first part of a token is at least.
const HEADER_BYTES_MIN: usize = 10;

/// What whoever gave one is told.
pub(crate) const REFUSED: &str = "a key or a token stands where something else belongs: a key is named by its id, such as `k1` of `cg_k1_…`, \
     a token by its `jti`: never type the key or the token itself";

/// Whether a key or a token stands somewhere in a text.
pub(crate) fn holds_secret(text: &str) -> bool {
    rests(text, ADMIN).any(is_rest_of_admin_key)
        || rests(text, CLIENT).any(is_rest_of_client_key)
        || rests(text, TOKEN).any(is_rest_of_token)
}

/// Whether a text by itself is a token, whole or in part, and not the name of one: an object in base64url comes
/// first, or it begins as they mostly do. Ids that have dots in them are no tokens.
pub(crate) fn is_like_a_token(text: &str) -> bool {
    let first = text.split('.').next().unwrap_or_default();
    let is_object = |bytes: &[u8]| bytes.trim_ascii_start().starts_with(b"{");
    text.starts_with(TOKEN)
        || (text.contains('.') && URL_SAFE_NO_PAD.decode(first).is_ok_and(|bytes| is_object(&bytes)))
}

/// What follows each place at which a key or a token could begin, as far as it could reach.
fn rests<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let rest = text.get(at + start.len()..)?;
        let end = rest.find(|character: char| !is_plain(character)).unwrap_or(rest.len());
        rest.get(..end)
    })
}

const fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

fn is_rest_of_admin_key(rest: &str) -> bool {
    rest.split_once('_').is_some_and(|(id, secret)| !id.is_empty() && !secret.is_empty())
}

fn is_rest_of_client_key(rest: &str) -> bool {
    rest.split_once('_').is_some_and(|(id, secret)| {
        let has_digit = secret.bytes().any(|byte| byte.is_ascii_digit());
        !id.is_empty() && secret.len() >= SECRET_BYTES_MIN && has_digit
    })
}

fn is_rest_of_token(rest: &str) -> bool {
    rest.split_once('.')
        .is_some_and(|(header, more)| TOKEN.len() + header.len() >= HEADER_BYTES_MIN && !more.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJ4In0.c2ln";

    #[test]
    fn a_key_or_a_token_is_found_wherever_it_stands() {
        for secret in ["cg_k1_0123456789abcdef", "cg_k1_hush-0123456789", "cgadmin_a-1_x", TOKEN] {
            for around in ["{}", "it was {}, gone", "https://gate.example.com/{}", "({})", "x{}\n"] {
                let text = around.replace("{}", secret);
                assert!(holds_secret(&text), "{text}");
            }
        }
    }

    #[test]
    fn what_names_a_key_or_a_client_holds_none() {
        for name in [
            "k1",
            "cg_bot",
            "cg_support_bot",
            "cg_support_automation",
            "key `k1` of `cg_k1_…` was lost",
            "cgadmin_",
            "cgadmin_kim",
            "eyJ",
            "0f3c5a1b2c3d4e5f0f3c5a1b2c3d4e5f",
            "AT.0mP4JKAZX1iACIT4vbEDF7.oar1",
        ] {
            assert!(!holds_secret(name), "{name}");
        }
    }

    #[test]
    fn a_token_is_told_from_its_id() {
        for token in [TOKEN, "eyJ", "ewogImEiOiAxfQ.e30.", "eyJhbGciOiJkaXIifQ..a.b.c", "eyAiYSI6IDF9.e30.x"]
        {
            assert!(is_like_a_token(token), "{token}");
        }
        for id in ["AT.0mP4JKAZX1iACIT4vbEDF7.oar1", "t-1", "urn:uuid:5d0f", "a.b.c", "0f3c"] {
            assert!(!is_like_a_token(id), "{id}");
        }
    }
}
