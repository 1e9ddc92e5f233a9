//! `callgate init`: a small working project.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use include_dir::{Dir, DirEntry, include_dir};
use jiff::{ToSpan as _, Zoned};

use super::{
    output::{DIM, GOOD, Printer},
    schemas,
};
use crate::identity::NewKey;

static TEMPLATE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/cli/init");

/// What `init` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder to make; it must be missing or empty.
    folder: PathBuf,
}

pub(super) fn run(printer: &Printer, arguments: &Arguments) -> ExitCode {
    let folder = &arguments.folder;
    let shown = folder.display();
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return printer.fail(&format!("`{shown}` is not empty: nothing was written"));
    }
    let mut random = [0; 32];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return printer.fail("the system gives no random bytes for a key");
    }
    let key = NewKey::new("k1", random);
    let expires = Zoned::now().date().saturating_add(1.year()).to_string();
    let written = write(&TEMPLATE, folder, &|text| {
        text.replace("{{KEY_SHA256}}", key.sha256()).replace("{{KEY_EXPIRES}}", &expires)
    });
    if let Err(error) = written.and_then(|()| schemas::write(&folder.join("schemas"))) {
        return printer.fail(&format!("cannot write to `{shown}`: {error}"));
    }
    if printer.is_json() {
        printer.value(&serde_json::json!({ "folder": folder, "key": key.key(), "expires": expires }));
    } else {
        printer.line(&format!("{GOOD}wrote{GOOD:#} a project to `{shown}`"));
        printer.line(&format!("the key of its client `assistant`, shown this once, until {expires}:"));
        printer.line(&format!("  {}", key.key()));
        printer.line(&format!("{DIM}next:{DIM:#}"));
        printer.line(&format!("  callgate check --config {shown}/callgate.yaml"));
        printer.line(&format!("  callgate serve --config {shown}/callgate.yaml"));
    }
    ExitCode::SUCCESS
}

/// Writes the files of a folder that was compiled in, each passed through `fill`.
pub(super) fn write(template: &Dir<'_>, folder: &Path, fill: &dyn Fn(&str) -> String) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in template.entries() {
        match entry {
            DirEntry::Dir(below) => {
                let name = below.path().file_name().unwrap_or_default();
                write(below, &folder.join(name), fill)?;
            }
            DirEntry::File(file) => {
                let name = file.path().file_name().unwrap_or_default();
                fs::write(folder.join(name), fill(file.contents_utf8().unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{release::Project, rules::Secrets};

    #[test]
    fn a_new_project_loads_without_an_error_or_a_warning() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gate");
        let arguments = Arguments { folder: folder.clone() };
        run(&Printer::alone(true), &arguments);
        let (rules, problems) = Project::read(&folder.join("callgate.yaml")).build(Secrets::Required);
        assert_eq!(problems, []);
        assert!(rules.is_some());
        assert!(folder.join(".gitignore").exists());
    }
}
