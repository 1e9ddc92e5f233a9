//! The forms of a secret in a text, escapes aside.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

/// Shorter secrets cannot be told from ordinary text.
pub const SECRET_BYTES_MIN: usize = 8;

/// How many bytes of a form are looked for. No form is shorter.
pub(super) const WINDOW_BYTES: usize = 8;

/// How a secret is written.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Form {
    Raw,
    Hex(Case),
    /// With so many bytes before it, of every three. What other bytes take part in, the padding with them, is left out;
    /// so this is also the form inside of `user:password`.
    Base64(Alphabet, u8),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Case {
    Lower,
    Upper,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Alphabet {
    Standard,
    UrlSafe,
}

impl Form {
    pub(super) const ALL: [Self; 9] = [
        Self::Raw,
        Self::Hex(Case::Lower),
        Self::Hex(Case::Upper),
        Self::Base64(Alphabet::Standard, 0),
        Self::Base64(Alphabet::Standard, 1),
        Self::Base64(Alphabet::Standard, 2),
        Self::Base64(Alphabet::UrlSafe, 0),
        Self::Base64(Alphabet::UrlSafe, 1),
        Self::Base64(Alphabet::UrlSafe, 2),
    ];

    /// The secret in this form.
    pub(super) fn of(self, secret: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Raw => secret.as_bytes().to_vec(),
            Self::Hex(Case::Lower) => hex::encode(secret).into_bytes(),
            Self::Hex(Case::Upper) => hex::encode_upper(secret).into_bytes(),
            Self::Base64(alphabet, before) => {
                let before = usize::from(before);
                let mut bytes = Zeroizing::new(vec![0; before]);
                bytes.extend(secret.bytes());
                let text = Zeroizing::new(match alphabet {
                    Alphabet::Standard => STANDARD_NO_PAD.encode(&*bytes),
                    Alphabet::UrlSafe => URL_SAFE_NO_PAD.encode(&*bytes),
                });
                // Six bits to a character: the whole ones that only the secret decides.
                let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
                text.as_bytes().get(own).unwrap_or_default().to_vec()
            }
        })
    }
}

/// Where in a form its window is: the middle is what secrets have least in common.
pub(super) const fn window_at(form: &[u8]) -> usize {
    form.len().saturating_sub(WINDOW_BYTES) / 2
}
