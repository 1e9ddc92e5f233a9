//! Names to addresses: asked once for each connection, and every address judged.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    net::runtime::TokioRuntimeProvider,
};
use reqwest::dns::{Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::{Allowances, EgressRefusal, Listeners, allowance::is_localhost};
use crate::manifest::DnsSpec;

/// How long learning the addresses of a name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one server may take for one question.
const QUERY_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How long a configured server's answer is kept, whatever it says itself.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(30);

/// How many threads wait for the system's resolver at once. It cannot be told to stop.
const SYSTEM_LOOKUPS_MAX: usize = 32;

/// How many addresses of a name a connection is tried to. All are judged.
const ADDRESSES_MAX: usize = 16;

/// Who is asked for addresses.
#[derive(Clone)]
pub(super) enum Resolver {
    /// The system, by `getaddrinfo`.
    System(Arc<Semaphore>),
    /// The servers of `callgate.yaml`, and nobody else.
    Servers(Arc<TokioResolver>),
}

/// The name has no address, or none could be learnt.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the name has no address")]
pub(super) struct Unresolved;

impl Resolver {
    /// The servers that are named, else the system.
    pub(super) fn new(dns: Option<&DnsSpec>) -> Result<Self, String> {
        let Some(dns) = dns else { return Ok(Self::System(Arc::new(Semaphore::new(SYSTEM_LOOKUPS_MAX)))) };
        let servers = dns.servers.iter().map(|server| name_server(server.address())).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        settings(builder.options_mut());
        builder.build().map(|resolver| Self::Servers(Arc::new(resolver))).map_err(|error| error.to_string())
    }

    /// The addresses of a name, in the order in which they are to be tried; one at least.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        // Whoever is asked may know another one, or none (RFC 6761 §6.3).
        if is_localhost(name) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let looked_up = tokio::time::timeout(RESOLVE_TIMEOUT, async {
            match self {
                Self::System(turns) => ask_system(Arc::clone(turns), name.to_owned()).await,
                Self::Servers(resolver) => {
                    // With its last dot, the name is whole: no search domain is tried.
                    let whole = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
                    resolver
                        .lookup_ip(whole)
                        .await
                        .map(|answer| answer.iter().collect())
                        .map_err(|_| Unresolved)
                }
            }
        });
        let addresses: Vec<IpAddr> = looked_up.await.unwrap_or(Err(Unresolved))?;
        if addresses.is_empty() { Err(Unresolved) } else { Ok(addresses) }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System(_) => "System",
            Self::Servers(_) => "Servers",
        })
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn settings(options: &mut ResolverOpts) {
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(ANSWER_AGE_MAX);
    options.negative_max_ttl = Some(ANSWER_AGE_MAX);
}

async fn ask_system(turns: Arc<Semaphore>, name: String) -> Result<Vec<IpAddr>, Unresolved> {
    let turn = turns.acquire_owned().await.map_err(|_| Unresolved)?;
    let asked = tokio::task::spawn_blocking(move || {
        let _turn = turn; // given back when the system answers, not when we stop waiting
        (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
    });
    match asked.await {
        Ok(Ok(addresses)) => Ok(addresses),
        _ => Err(Unresolved),
    }
}

/// The judge, where a connection is about to be made.
///
/// One address that is refused refuses the name: whoever mixes addresses wants
/// one of them tried after the other.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    pub(super) resolver: Resolver,
    pub(super) allowances: Allowances,
    pub(super) listeners: Listeners,
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum ResolveError {
    #[error(transparent)]
    Refused(#[from] EgressRefusal),
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

impl Judge {
    /// Judges one address and port.
    pub(super) fn judge(&self, address: SocketAddr) -> Result<(), EgressRefusal> {
        self.allowances.judge(address.ip())?;
        if self.listeners.is_own(address) { Err(EgressRefusal::OwnListener) } else { Ok(()) }
    }

    /// Resolves a name, and judges every address.
    pub(super) async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let addresses = self.resolver.addresses(name).await?;
        let mut addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        addresses.iter().try_for_each(|address| self.judge(*address))?;
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }
}

/// A judge for the connections of one client, which are all to one port: the
/// client asks it for the name alone.
#[derive(Clone, Debug)]
pub(super) struct PortJudge {
    pub(super) judge: Arc<Judge>,
    pub(super) port: u16,
}

impl Resolve for PortJudge {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { judge, port } = self.clone();
        Box::pin(async move {
            let addresses = judge.resolve(name.as_str(), port).await?;
            let addresses: reqwest::dns::Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}
