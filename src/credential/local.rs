//! A secret of an environment variable, or of a file that is read again when it changes.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{sync::Mutex, task};

use super::{
    CredentialError,
    live::{HeldSecret, LiveSecrets},
    secret::{self, Environment},
    timing::Timing,
};
use crate::manifest::SecretRef;

/// Makes of a secret what it is used as.
pub(super) type Make<T> = Box<dyn Fn(HeldSecret) -> Result<T, CredentialError> + Send + Sync>;

/// A secret that is at hand, made into what it is used as.
pub(super) struct Local<T> {
    name: String,
    reference: SecretRef,
    file: Option<PathBuf>,
    make: Make<T>,
    live: LiveSecrets,
    known: ArcSwap<Known<T>>,
    /// Only one looks at the file at a time; the others wait for what it finds.
    turn: Mutex<()>,
    made_at: Instant,
    /// When the file is to be looked at again, in milliseconds from then.
    due_millis: AtomicU64,
    look_every: Duration,
}

/// What is known of the secret: what it was made into, or why not.
struct Known<T> {
    made: Result<Arc<T>, Arc<CredentialError>>,
    stamp: Option<Stamp>,
}

impl<T: Send + Sync + 'static> Local<T> {
    /// Reads the secret, which is held under a name.
    pub(super) fn read(
        name: &str,
        reference: &SecretRef,
        base_dir: &Path,
        environment: Environment<'_>,
        live: &LiveSecrets,
        timing: Timing,
        make: Make<T>,
    ) -> Result<Arc<Self>, CredentialError> {
        let file = match reference {
            SecretRef::File(path) => Some(base_dir.join(path)),
            SecretRef::Env(_) | SecretRef::Vault(_) => None,
        };
        // The stamp comes first: a change after it is seen at the next look.
        let stamp = file.as_deref().and_then(|file| Stamp::of(file).ok());
        let value = secret::read(reference, base_dir, environment)?;
        let made = make(HeldSecret::new(value, name, live))?;
        Ok(Arc::new(Self {
            name: name.to_owned(),
            reference: reference.clone(),
            file,
            make,
            live: live.clone(),
            known: ArcSwap::from_pointee(Known { made: Ok(Arc::new(made)), stamp }),
            turn: Mutex::new(()),
            made_at: Instant::now(),
            due_millis: AtomicU64::new(millis(timing.look_every)),
            look_every: timing.look_every,
        }))
    }

    /// What the secret is now, as far as the last look says, which is a second old at most.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Arc<T>, CredentialError> {
        if self.is_due() {
            let _turn = self.turn.lock().await;
            if self.is_due() {
                let this = Arc::clone(self);
                task::spawn_blocking(move || this.look()).await.map_err(|_| CredentialError::Waited)?;
            }
        }
        self.known.load().made.clone().map_err(CredentialError::Shared)
    }

    /// Has the next call look at the file, whenever the last look was.
    pub(super) fn doubt(&self) {
        self.due_millis.store(0, Ordering::Release);
    }

    fn is_due(&self) -> bool {
        self.file.is_some() && millis(self.made_at.elapsed()) >= self.due_millis.load(Ordering::Acquire)
    }

    /// Reads the file again if it has changed. One that has become bad leaves nothing to use.
    fn look(&self) {
        let Some(file) = &self.file else { return };
        let next = millis(self.made_at.elapsed() + self.look_every);
        let stamp = Stamp::of(file).ok();
        if stamp.is_none() || stamp != self.known.load().stamp {
            let made = secret::read_file_secret(&self.reference, file)
                .map(|value| HeldSecret::new(value, &self.name, &self.live))
                .and_then(|secret| (self.make)(secret));
            self.known.store(Arc::new(Known { made: made.map(Arc::new).map_err(Arc::new), stamp }));
        }
        self.due_millis.store(next, Ordering::Release);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What tells one state of a file from another.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Stamp(Vec<i128>);

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    #[cfg(unix)]
    fn new(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;

        Self(vec![
            metadata.dev().into(),
            metadata.ino().into(),
            metadata.size().into(),
            metadata.mtime().into(),
            metadata.mtime_nsec().into(),
            // Changes with the mode and the owner too.
            metadata.ctime().into(),
            metadata.ctime_nsec().into(),
        ])
    }

    #[cfg(not(unix))]
    fn new(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let nanos = since.and_then(|since| i128::try_from(since.as_nanos()).ok()).unwrap_or_default();
        Self(vec![metadata.len().into(), nanos])
    }
}

impl<T> std::fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").field("reference", &self.reference).finish_non_exhaustive()
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::credential::fixture::TIMING;

    struct Written {
        folder: tempfile::TempDir,
        local: Arc<Local<String>>,
        live: LiveSecrets,
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn written(text: &str) -> Written {
        let (folder, live) = (tempfile::tempdir().unwrap(), LiveSecrets::default());
        write(&folder.path().join("key"), text);
        let make = |secret: HeldSecret| Ok(secret.expose().to_owned());
        let reference = SecretRef::File("key".into());
        let local =
            Local::read("key", &reference, folder.path(), &|_| None, &live, TIMING, Box::new(make)).unwrap();
        Written { folder, local, live }
    }

    impl Written {
        fn path(&self) -> PathBuf {
            self.folder.path().join("key")
        }

        /// What the secret is once the next look is due.
        async fn later(&self) -> Result<String, String> {
            tokio::time::sleep(TIMING.look_every + Duration::from_millis(20)).await;
            self.now().await
        }

        async fn now(&self) -> Result<String, String> {
            self.local.current().await.map(|text| text.to_string()).map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_not_before_a_look_is_due() {
        let written = written("one");
        write(&written.path(), "two");
        assert_eq!(written.now().await.unwrap(), "one");
        assert_eq!(written.later().await.unwrap(), "two");
        // Put in place by a rename, as those do it who do it well; of the same length.
        let next = written.folder.path().join("next");
        write(&next, "owt");
        fs::rename(&next, written.path()).unwrap();
        assert_eq!(written.later().await.unwrap(), "owt");
        write(&written.path(), "three");
        written.local.doubt();
        assert_eq!(written.now().await.unwrap(), "three");
    }

    #[tokio::test]
    async fn a_file_that_has_become_bad_leaves_nothing_to_use_until_it_is_good_again() {
        let written = written("one");
        fs::set_permissions(written.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let refusal = written.later().await.unwrap_err();
        assert!(refusal.contains("open to other users (mode 0644)"), "{refusal}");
        fs::set_permissions(written.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(written.later().await.unwrap(), "one");
        fs::remove_file(written.path()).unwrap();
        assert!(written.later().await.unwrap_err().starts_with("cannot read"));
        write(&written.path(), "");
        assert!(written.later().await.unwrap_err().contains("is empty"));
        fs::remove_file(written.path()).unwrap();
        fs::create_dir(written.path()).unwrap();
        assert!(written.later().await.unwrap_err().contains("not a regular file"));
        fs::remove_dir(written.path()).unwrap();
        write(&written.path(), "two");
        assert_eq!(written.later().await.unwrap(), "two");
    }

    #[tokio::test]
    async fn a_secret_that_is_gone_from_its_file_is_not_held() {
        let live = LiveSecrets::default();
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("key"), "one");
        let reference = SecretRef::File("key".into());
        let local =
            Local::read("key", &reference, folder.path(), &|_| None, &live, TIMING, Box::new(Ok)).unwrap();
        let held = || {
            let mut seen = Vec::new();
            live.for_each(|_, secret| seen.push(secrecy::ExposeSecret::expose_secret(secret).to_owned()));
            seen
        };
        assert_eq!(held(), ["one"]);
        let leased = local.current().await.unwrap();
        write(&folder.path().join("key"), "two");
        tokio::time::sleep(TIMING.look_every * 2).await;
        drop(local.current().await.unwrap());
        assert_eq!(held(), ["one", "two"]); // a call may still carry the first
        drop(leased);
        assert_eq!(held(), ["two"]);
        drop(local);
        assert!(held().is_empty());
    }

    #[tokio::test]
    async fn what_is_only_made_of_a_secret_does_not_keep_it_registered() {
        let written = written("one");
        let mut held = 0;
        written.live.for_each(|_, _| held += 1);
        assert_eq!(held, 0);
    }
}
