//! Who calls: a client, perhaps for a user, on some proof.

use std::{collections::BTreeSet, sync::Arc};

use globset::GlobSet;
use jiff::Timestamp;

use super::Client;
use crate::{
    call::User,
    manifest::{KeyId, RoleName, Scope, ToolName},
    runs::{Principal, RunId, Standing, TokenId},
};

/// The one who calls: a client, known by some proof, and what that proof lets it do.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) client: Arc<Client>,
    pub(super) authentication: Authentication,
    pub(super) key: Option<KeyId>,
    pub(super) grant: Option<Arc<Grant>>,
}

/// What an access token grants: never more than its client has.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who issued the token, as it says itself.
    pub issuer: String,
    /// The token's own id, where it has one (RFC 7519 §4.1.7).
    pub id: Option<String>,
    /// Until when the token is taken.
    pub expires: Timestamp,
    /// The user that the client acts for.
    pub user: Option<User>,
    /// The scopes, of which only those count that the client holds.
    pub scopes: BTreeSet<Scope>,
    /// The roles that it brings along, of which only those count that the client may have by token.
    pub roles: BTreeSet<RoleName>,
    /// The tools, where it narrows them.
    pub tools: Option<GlobSet>,
    /// The run that it is bound to.
    pub run: Option<RunId>,
    /// The API key that it was asked for with, where it was.
    pub key: Option<KeyId>,
}

impl Caller {
    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// How it proved who it is.
    #[must_use]
    pub const fn authentication(&self) -> Authentication {
        self.authentication
    }

    /// The API key that it showed, or asked for its token with.
    #[must_use]
    pub fn key(&self) -> Option<&KeyId> {
        self.key.as_ref().or_else(|| self.grant()?.key.as_ref())
    }

    /// What its token grants, where it showed one.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_deref()
    }

    /// The user that the client acts for. Only tokens name one.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.grant.as_ref()?.user.as_ref()
    }

    /// Whether it holds a scope: the client does, and its token too where it shows one.
    #[must_use]
    pub fn holds(&self, scope: &Scope) -> bool {
        self.client.holds(scope) && self.grant.as_ref().is_none_or(|grant| grant.scopes.contains(scope))
    }

    /// Whether its token leaves it a tool that its client's allowlist names.
    #[must_use]
    pub fn is_left(&self, tool: &ToolName) -> bool {
        let narrowed = self.grant.as_ref().and_then(|grant| grant.tools.as_ref());
        narrowed.is_none_or(|tools| tools.is_match(tool.as_str()))
    }

    /// Whose runs its calls belong to.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal { client: self.client.name().clone(), user: self.user().cloned() }
    }

    /// What it stands on, in a run where it names one.
    #[must_use]
    pub fn standing(&self, run: Option<RunId>) -> Standing {
        let grant = self.grant();
        Standing {
            client: self.client.name().clone(),
            key: self.key().cloned(),
            token: grant
                .and_then(|grant| Some(TokenId { issuer: grant.issuer.clone(), id: grant.id.clone()? })),
            run: run.or_else(|| grant?.run),
            expires: grant.map(|grant| grant.expires),
        }
    }

    /// The roles that its token brings along, and that its client may have by token.
    pub fn token_roles(&self) -> impl Iterator<Item = &RoleName> {
        let roles = self.grant.iter().flat_map(|grant| &grant.roles);
        roles.filter(|role| self.client.spec().token_roles.contains(role))
    }
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authentication {
    /// By a local process's word alone.
    Asserted,
    /// By an API key.
    ApiKey,
    /// By an access token.
    Token,
    /// By an access token that is bound to the certificate it came with (RFC 8705 §3).
    BoundToken,
    /// By a TLS client certificate.
    Certificate,
    /// Not at all: the call is only rehearsed.
    Rehearsed,
}

impl Authentication {
    /// The word that stands for it in policies and records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
            Self::ApiKey => "api-key",
            Self::Token => "token",
            Self::BoundToken => "bound-token",
            Self::Certificate => "certificate",
            Self::Rehearsed => "rehearsed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_be_known_is_among_the_words_that_policies_are_told_of() {
        use Authentication as A;
        let told = include_str!("../../docs/policy.md");
        for way in [A::Asserted, A::ApiKey, A::Token, A::BoundToken, A::Certificate, A::Rehearsed] {
            assert!(told.contains(&format!("| `\"{}\"` |", way.word())), "{way:?}");
        }
    }
}
