//! Standard input and output: one local process, which stands for one client.

use std::sync::Arc;

use jiff::Timestamp;
use rmcp::ServiceExt as _;

use super::mcp::{Handler, Peer};
use crate::{
    call::Proof,
    gateway::Gateway,
    identity::{IdentityError, authenticate},
};

/// Why a local process is not served.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The client may not be claimed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The connection failed before it began.
    #[error("the client did not begin as the protocol demands: {0}")]
    Handshake(String),
}

/// Serves one client over standard input and output, until it closes them.
///
/// # Errors
/// When the client may not be claimed, or does not speak the protocol.
pub async fn serve_stdio(gateway: Arc<Gateway>, proof: Proof) -> Result<(), StdioError> {
    authenticate(&gateway.rules().clients, &proof, Timestamp::now())?;
    let handler = Handler::new(gateway, Peer::Stdio(proof));
    let service = handler
        .serve(rmcp::transport::io::stdio())
        .await
        .map_err(|error| StdioError::Handshake(error.to_string()))?;
    // However it ends, it ends: the client closed its side, or the process is told to stop.
    let _ = service.waiting().await;
    Ok(())
}
