//! A secret by reference, wherever it is, made into what it is used as.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::{
    CredentialError,
    live::{HeldSecret, LiveSecrets},
    local::{Local, Make},
    secret::Environment,
    timing::Timing,
    vault::{Vault, VaultSecret, VaultSlot},
};
use crate::{
    egress::Egress,
    manifest::{SecretRef, VaultName, VaultRef},
};

/// Where secrets are read from while a release is built.
pub(super) struct Places<'a> {
    /// Whose secrets they are.
    pub(super) name: &'a str,
    pub(super) base_dir: &'a Path,
    pub(super) environment: Environment<'a>,
    pub(super) vaults: &'a BTreeMap<VaultName, Arc<Vault>>,
    pub(super) live: &'a LiveSecrets,
    pub(super) timing: Timing,
}

/// A secret, made into what it is used as.
#[derive(Debug)]
pub(super) enum Source<T> {
    /// One that is at hand.
    Local(Arc<Local<T>>),
    /// One in a vault.
    Vault(Box<InVault<T>>),
}

/// A field of a vault's secret, and what was made of it last.
pub(super) struct InVault<T> {
    vault: Arc<Vault>,
    slot: Arc<VaultSlot>,
    name: String,
    reference: VaultRef,
    make: Make<T>,
    made: Mutex<Option<(Arc<VaultSecret>, Arc<T>)>>,
}

/// What makes the next use of a secret read it again.
#[derive(Clone, Debug)]
pub(super) enum Doubt<T> {
    Local(Arc<Local<T>>),
    Vault(Arc<VaultSlot>, Arc<VaultSecret>),
    #[cfg(test)]
    Nothing,
}

impl<T: Send + Sync + 'static> Source<T> {
    /// Reads what is at hand. A vault is asked when the secret is first needed.
    pub(super) fn new(
        reference: &SecretRef,
        places: &Places<'_>,
        make: Make<T>,
    ) -> Result<Self, CredentialError> {
        let SecretRef::Vault(reference) = reference else {
            let Places { name, base_dir, environment, live, timing, .. } = *places;
            return Local::read(name, reference, base_dir, environment, live, timing, make).map(Self::Local);
        };
        let missing = || CredentialError::NoVault { vault: reference.vault.clone() };
        let vault = Arc::clone(places.vaults.get(&reference.vault).ok_or_else(missing)?);
        let slot = vault.slot(reference);
        Ok(Self::Vault(Box::new(InVault {
            vault,
            slot,
            name: places.name.to_owned(),
            reference: reference.clone(),
            make,
            made: Mutex::default(),
        })))
    }

    /// What the secret is now.
    pub(super) async fn current(
        &self,
        egress: &Egress,
        deadline: Instant,
    ) -> Result<(Arc<T>, Doubt<T>), CredentialError> {
        match self {
            Self::Local(local) => Ok((local.current().await?, Doubt::Local(Arc::clone(local)))),
            Self::Vault(field) => {
                let secret = field.vault.get(&field.slot, &field.reference.path, egress, deadline).await?;
                let made = field.of(&secret)?;
                Ok((made, Doubt::Vault(Arc::clone(&field.slot), secret)))
            }
        }
    }
}

impl<T> InVault<T> {
    fn of(&self, secret: &Arc<VaultSecret>) -> Result<Arc<T>, CredentialError> {
        let mut last = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, made)) = last.as_ref()
            && Arc::ptr_eq(of, secret)
        {
            return Ok(Arc::clone(made));
        }
        *last = None;
        let value = self.vault.field(secret, &self.reference.field)?;
        let made = Arc::new((self.make)(HeldSecret::new(value, &self.name, self.vault.live()))?);
        *last = Some((Arc::clone(secret), Arc::clone(&made)));
        Ok(made)
    }
}

impl<T: Send + Sync + 'static> Doubt<T> {
    pub(super) fn raise(&self) {
        match self {
            Self::Local(local) => local.doubt(),
            Self::Vault(slot, secret) => slot.reject(secret),
            #[cfg(test)]
            Self::Nothing => {}
        }
    }
}

impl<T> std::fmt::Debug for InVault<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InVault").field("reference", &self.reference).finish_non_exhaustive()
    }
}
