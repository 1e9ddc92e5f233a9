//! Standard error, with a note in place of each secret that this process holds.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::credential::LiveSecrets;

/// Makes writers for log lines. A line comes in one piece, and leaves in one.
pub(super) struct Scrubbed(LiveSecrets);

pub(super) struct Line<'a>(&'a LiveSecrets);

impl Scrubbed {
    pub(super) const fn new(secrets: LiveSecrets) -> Self {
        Self(secrets)
    }
}

impl<'a> MakeWriter<'a> for Scrubbed {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let scrubbed = self.0.scrub(line);
        io::stderr().lock().write_all(scrubbed.as_deref().unwrap_or(line))?;
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
