//! Releases: the files of a project, read from disk and built into rules.

mod resource;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::{
    credential::LiveSecrets,
    manifest::{
        BackendSpec, CasesFile, ClientsFile, FloorsFile, OwnContent, Place, Problem, PromptManifest,
        ResourceManifest, ServerFile, Source, ToolManifest, read, read_value,
    },
    rules::{Files, Rules, Secrets},
};

/// A project on disk, read as far as it can be.
#[derive(Debug)]
pub struct Project {
    /// The files, where all of them could be read.
    pub files: Option<Files>,
    /// What is wrong with those that could not.
    pub problems: Vec<Problem>,
    /// The digest of all files: SHA-256 over their paths and digests, in order.
    pub digest: String,
    base: PathBuf,
}

/// A larger file is not one that a person wrote.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Project {
    /// Reads the project whose `callgate.yaml` is at `config`.
    #[must_use]
    pub fn read(config: &Path) -> Self {
        let base = config.parent().map(Path::to_owned).unwrap_or_default();
        let mut reader = Reader { base: base.clone(), problems: Vec::new(), digest: Sha256::new() };
        let files = reader.files(config);
        Self {
            files,
            problems: reader.problems,
            digest: format!("sha256:{}", hex::encode(reader.digest.finalize())),
            base,
        }
    }

    /// Builds the rules, and says everything that is wrong.
    #[must_use]
    pub fn build(&self, secrets: Secrets) -> (Option<Rules>, Vec<Problem>) {
        self.build_with(secrets, &LiveSecrets::default())
    }

    /// The same, with its secrets in a registry that others search too, for as long as they are held.
    #[must_use]
    pub fn build_with(&self, secrets: Secrets, live: &LiveSecrets) -> (Option<Rules>, Vec<Problem>) {
        let mut problems = self.problems.clone();
        let Some(files) = &self.files else { return (None, problems) };
        let (rules, found) = Rules::build(files, self.digest.clone(), &self.base, secrets, live);
        let whole = problems.is_empty();
        problems.extend(found);
        (rules.filter(|_| whole), problems)
    }

    /// The folder of `callgate.yaml`, which the paths in it are relative to.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> Option<PathBuf> {
        Some(self.base.join(&self.files.as_ref()?.server.1.state))
    }
}

struct Reader {
    base: PathBuf,
    problems: Vec<Problem>,
    digest: Sha256,
}

impl Reader {
    /// Reads everything; a file that cannot be read is a problem, and the others are read all the same.
    fn files(&mut self, config: &Path) -> Option<Files> {
        let server: Option<(Source, ServerFile)> = self.typed(config);
        // Without `callgate.yaml` the usual folders are read all the same, to report what is wrong there.
        let folder = |of: fn(&ServerFile) -> &PathBuf, usual: &str| {
            server.as_ref().map_or_else(|| self.base.join(usual), |(_, file)| self.base.join(of(file)))
        };
        let (tools, policies) =
            (folder(|file| &file.tools, "tools"), folder(|file| &file.policies, "policies"));
        if server.is_none() && !tools.is_dir() {
            return None;
        }
        let tools = self
            .list(&tools, &[".yaml", ".yml"], Depth::All)
            .iter()
            .filter_map(|path| self.offer(path))
            .collect();
        let clients = self.typed(&policies.join("clients.yaml"));
        let floors_path = policies.join("tools.yaml");
        let floors = if floors_path.exists() {
            self.typed(&floors_path)
        } else {
            // Without the file nobody accepted anything, so every tool is hidden.
            Some((Source { path: floors_path, text: "".into() }, FloorsFile::default()))
        };
        let cedar =
            self.list(&policies, &[".cedar"], Depth::One).iter().filter_map(|path| self.text(path)).collect();
        let cases: Vec<(Source, CasesFile)> = self
            .list(&policies, &[".cases.yaml"], Depth::One)
            .iter()
            .filter_map(|path| self.typed(path))
            .collect();
        let clients: (Source, ClientsFile) = clients?;
        Some(Files { server: server?, tools, clients, floors: floors?, policies: cedar, cases })
    }

    /// What a file of `tools` offers: its first key says what kind of manifest it is.
    fn offer(&mut self, path: &Path) -> Option<(Source, ToolManifest)> {
        let source = self.text(path)?;
        let keys = read_value(&source).ok();
        let has = |key: &str| keys.as_ref().is_some_and(|keys| keys.get(key).is_some());
        let manifest = if has("tool") {
            read(&source)
        } else if has("resource") {
            read(&source).map(ResourceManifest::into_tool)
        } else if has("prompt") {
            read(&source).map(PromptManifest::into_tool)
        } else {
            read(&source)
        };
        match manifest {
            Ok(mut manifest) => {
                self.read_own(&source, &mut manifest);
                Some((source, manifest))
            }
            Err(problem) => {
                self.problems.push(*problem);
                None
            }
        }
    }

    /// Reads the file that a resource is, which is a part of the release from then on.
    fn read_own(&mut self, source: &Source, manifest: &mut ToolManifest) {
        let BackendSpec::Own(own) = &mut manifest.backend else { return };
        let OwnContent::File { path, read } = &mut own.content else { return };
        match resource::read(&self.base, path) {
            Ok(bytes) => {
                self.digest.update(b"resource");
                self.digest.update([0]);
                self.digest.update(Sha256::digest(&bytes));
                *read = Some(Arc::new(resource::content(bytes)));
            }
            Err(why) => {
                let message = format!("`{}` {why}", path.display());
                let place = Place::Pointer("/backend/file/path".into());
                self.problems.push(Problem::error(source, place, message));
            }
        }
    }

    fn typed<T: DeserializeOwned>(&mut self, path: &Path) -> Option<(Source, T)> {
        let source = self.text(path)?;
        match read(&source) {
            Ok(value) => Some((source, value)),
            Err(problem) => {
                self.problems.push(*problem);
                None
            }
        }
    }

    fn text(&mut self, path: &Path) -> Option<Source> {
        let text = fs::metadata(path).and_then(|metadata| {
            if metadata.len() > FILE_BYTES_MAX {
                return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
            }
            fs::read_to_string(path)
        });
        match text {
            Ok(text) => {
                self.digest
                    .update(path.strip_prefix(&self.base).unwrap_or(path).to_string_lossy().as_bytes());
                self.digest.update([0]);
                self.digest.update(Sha256::digest(text.as_bytes()));
                Some(Source { path: path.to_owned(), text: text.into() })
            }
            Err(error) => {
                self.unreadable(path, &error);
                None
            }
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let source = Source { path: path.to_owned(), text: "".into() };
        let problem = Problem::error(&source, Place::File, format!("cannot be read: {error}"));
        self.problems.push(match error.kind() {
            io::ErrorKind::NotFound => problem.help("`callgate init DIR` writes a small working project"),
            _ => problem,
        });
    }

    /// The files of a folder with one of these endings, in order.
    fn list(&mut self, folder: &Path, endings: &[&str], depth: Depth) -> Vec<PathBuf> {
        let mut found = Vec::new();
        if let Err(error) = walk(folder, endings, depth, &mut found) {
            self.unreadable(folder, &error);
        }
        found.sort();
        found
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Depth {
    One,
    All,
}

fn walk(folder: &Path, endings: &[&str], depth: Depth, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if depth == Depth::All {
                walk(&path, endings, depth, found)?;
            }
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            found.push(path);
        }
    }
    Ok(())
}
