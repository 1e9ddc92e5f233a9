//! The files that people write, as types; what is wrong with them, and where.
//!
//! Everything here is pure: text in, types and problems out.

mod admin;
mod cases;
mod clients;
mod credential;
mod digest;
mod egress;
mod floors;
mod identity;
mod listener;
mod local;
mod names;
mod offer;
mod path;
mod problem;
mod prompt;
mod record;
mod resource;
mod secret;
mod server;
mod task;
mod tool;
mod units;
mod upstream;
mod uri;
mod yaml;

pub use admin::{AdminKeySpec, AdminKeys, AdminListener, LoopbackAddress, SecretDigest};
pub use cases::{Case, CasesFile, Denial, DenyStage, Expectation};
pub use clients::{
    AttributeKind, AttributeSpec, CertificateSpec, ClientLimits, ClientSpec, ClientsFile, KeySpec, TokenSpec,
};
pub use credential::{
    ClientAuth, ClientCredentialsSpec, CredentialKind, CredentialSpec, OwnAlgorithm, SubjectSpec,
    TokenExchangeSpec, TokenRequestSpec, TokenScopes, WrittenUrl,
};
pub use digest::Digest;
pub use egress::{DnsServer, DnsSpec, EgressSpec, Network, NetworkError};
pub use floors::{Floor, FloorsFile, Unlisted};
pub use identity::{
    ClaimsSpec, IdentitySpec, IssuerSpec, ResourceUrl, ResourceUrlError, RunsSpec, SigningAlgorithm,
    TokensSpec,
};
pub use listener::{ClientCertificates, HttpListener, TlsSpec, WebHost, WebNameError, WebOrigin};
pub(crate) use local::{is_localhost_itself, is_this_machine};
pub use names::{
    AttributeName, ClientName, CredentialName, GroupName, IssuerName, KeyId, Label, NameError, RoleName,
    Scope, ServiceName, ToolName, VaultName,
};
pub use offer::{FileContent, Offer, OwnBackend, OwnContent, UpstreamKind};
pub use path::{PathError, PathTemplate, Segment};
pub use problem::{Place, Problem, Severity, Source, join_pointer};
pub use prompt::{
    McpPromptBackend, PromptArgumentSpec, PromptBackend, PromptManifest, PromptMessageSpec, PromptRole,
    TextBackend,
};
pub use record::{BodiesSpec, LogOrigin, RecordSpec, ToolRecord, WitnessSpec};
pub use resource::{AnswerText, FileBackend, McpResourceBackend, ResourceBackend, ResourceManifest};
pub use secret::{AppRoleSpec, SecretRef, VaultPath, VaultRef, VaultSpec};
pub use server::{BaseUrl, Listen, ServerFile, ServiceSpec, StdioListener};
pub use task::{TaskSupport, TasksSpec};
pub use tool::{
    Ask, BackendSpec, Binding, CredentialChoice, Deliberate, Effects, Example, HttpBackend, HttpMethod,
    McpBackend, Reach, TextRule, TextRules, ToolLimits, ToolManifest, Undo, Yields,
};
pub use units::{Age, ByteSize, Rate, TimeSpan, UnitError};
pub use upstream::{EnvValue, ProgramSpec, RemoteSpec, UpstreamSpec};
pub(crate) use uri::URI_BYTES_MAX;
pub use uri::{ResourceUri, UriError, UriTemplate};
pub use yaml::{Positions, position, read, read_value};
