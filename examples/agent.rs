//! A minimal agent: connects to a gate over Streamable HTTP, lists its tools, and calls one.
//!
//! `CG_TOKEN=cg_… cargo run --example agent -- [URL] [TOOL JSON-ARGUMENTS]`

use std::{error::Error, io::Write as _};

use rmcp::{
    ServiceExt as _,
    model::{CallToolRequestParams, ClientConfig, ProtocolVersion},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8787/mcp".into());
    let key = std::env::var("CG_TOKEN").map_err(|_| "set CG_TOKEN to the client's key")?;

    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(key);
    let mut identity = ClientConfig::default();
    identity.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
    let client = identity.serve(StreamableHttpClientTransport::from_config(config)).await?;

    let mut out = std::io::stdout();
    for tool in client.list_all_tools().await? {
        writeln!(out, "{}: {}", tool.name, tool.description.unwrap_or_default())?;
    }
    if let Some(tool) = arguments.next() {
        let given = serde_json::from_str(&arguments.next().unwrap_or_else(|| "{}".into()))?;
        let result = client.call_tool(CallToolRequestParams::new(tool).with_arguments(given)).await?;
        for text in result.content.iter().filter_map(|part| part.as_text()) {
            writeln!(out, "{}", text.text)?;
        }
    }
    client.cancel().await?;
    Ok(())
}
