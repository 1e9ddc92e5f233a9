//! `callgate schemas`: the JSON Schemas of the files people write.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use schemars::schema_for;

use super::output::Printer;
use crate::manifest::{
    CasesFile, ClientsFile, FloorsFile, PromptManifest, ResourceManifest, ServerFile, ToolManifest,
};

/// What `schemas` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder to write them to.
    #[arg(default_value = "schemas")]
    folder: PathBuf,
}

/// The schemas by file name.
pub(super) fn all() -> [(&'static str, String); 7] {
    let text = |schema: schemars::Schema| {
        let mut text = serde_json::to_string_pretty(schema.as_value()).unwrap_or_default();
        text.push('\n');
        text
    };
    [
        ("tool.json", text(schema_for!(ToolManifest))),
        ("resource.json", text(schema_for!(ResourceManifest))),
        ("prompt.json", text(schema_for!(PromptManifest))),
        ("clients.json", text(schema_for!(ClientsFile))),
        ("accepted-tools.json", text(schema_for!(FloorsFile))),
        ("cases.json", text(schema_for!(CasesFile))),
        ("callgate.json", text(schema_for!(ServerFile))),
    ]
}

pub(super) fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    all().iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

pub(super) fn run(printer: &Printer, arguments: &Arguments) -> ExitCode {
    match write(&arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.fail(&format!("cannot write to `{}`: {error}", arguments.folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schemas_are_those_of_the_types() {
        for (name, text) in all() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
            let published = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(published, text, "schemas/{name} is stale: run `cargo run -- schemas`");
        }
    }
}
