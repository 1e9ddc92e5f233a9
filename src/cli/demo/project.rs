//! The demo's project: the shipped tools and policies, towards the demo's own API.

use std::{
    fs, io,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use include_dir::{Dir, include_dir};

use crate::{
    cli::{init, schemas},
    identity::NewKey,
};

static TOOLS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/tools");
static POLICIES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/policies");
const SERVER: &str = include_str!("../../../callgate.yaml");

/// The digest of the shipped key of `support-bot`, which the demo replaces by one of its own.
const SHIPPED_DIGEST: &str = "850a4156941fb3d3be4dcea5ddec76cfa5de7cb33e19deb0dead3f652e689db3";

/// Where the demo's project is.
pub(super) struct Demo {
    pub(super) config: PathBuf,
    pub(super) state: PathBuf,
    /// The key of the client `support-bot`.
    pub(super) key: String,
}

/// Writes the project: a fresh key for the client, and a token that only the API and the gate know.
pub(super) fn write(folder: &Path, orders: SocketAddr, token: &str) -> io::Result<Demo> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let key = NewKey::new("demo-support", random);
    init::write(&TOOLS, &folder.join("tools"), &str::to_owned)?;
    init::write(&POLICIES, &folder.join("policies"), &|text| text.replace(SHIPPED_DIGEST, key.sha256()))?;
    schemas::write(&folder.join("schemas"))?;
    let server = SERVER
        .replace("http://127.0.0.1:9000/", &format!("http://{orders}/"))
        .replace("env:ORDERS_TOKEN", "file:orders.token");
    fs::write(folder.join("callgate.yaml"), server)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(folder.join("orders.token"))?.write_all(token.as_bytes())?;
    Ok(Demo { config: folder.join("callgate.yaml"), state: folder.join("state"), key: key.key().to_owned() })
}
