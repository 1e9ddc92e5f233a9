//! One release in memory: clients, catalog, schemas, policies and output rules, immutable.
//!
//! Everything that does not change from call to call is worked out here, once,
//! and everything that is wrong with the files is found here, all at once.

mod credentials;
mod egress;
mod identity;
mod keywords;
mod lint;
mod offer;
mod shown;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    backend::{CallLimits, Route, Routes},
    catalog::{Catalog, Tool, definition_digest, labels_of},
    credential::{CredentialError, Credentials, Holder, LiveSecrets},
    egress::Allowances,
    identity::Clients,
    manifest::{
        BackendSpec, CasesFile, ClientsFile, EgressSpec, FloorsFile, HttpBackend, McpBackend, Place, Problem,
        ServerFile, ServiceSpec, Severity, Source, TimeSpan, ToolLimits, ToolManifest, ToolName, Unlisted,
        join_pointer, read_value,
    },
    output::{Checked, OutputRule, OutputRules, Shape},
    plan::{HttpPlan, McpPlan, Plan, PlanError, Plans},
    policy::{Inputs, Policies, ToolFacts},
    schema::{BadSchema, CompiledSchema, Schemas, compile},
};

/// The files of a release, read and typed.
#[derive(Debug)]
pub struct Files {
    /// `callgate.yaml`.
    pub server: (Source, ServerFile),
    /// `tools/**/*.yaml`.
    pub tools: Vec<(Source, ToolManifest)>,
    /// `policies/clients.yaml`.
    pub clients: (Source, ClientsFile),
    /// `policies/tools.yaml`.
    pub floors: (Source, FloorsFile),
    /// `policies/*.cedar`.
    pub policies: Vec<Source>,
    /// `policies/*.cases.yaml`.
    pub cases: Vec<(Source, CasesFile)>,
}

/// One immutable release.
#[derive(Debug)]
pub struct Rules {
    /// The digest of all its files.
    pub digest: String,
    /// The name that clients are shown.
    pub name: String,
    /// Who may call.
    pub clients: Clients,
    /// Which tools exist, and for whom.
    pub catalog: Catalog,
    /// The input schemas.
    pub schemas: Schemas,
    /// The policies.
    pub policies: Policies,
    /// How calls become requests.
    pub plans: Plans,
    /// How tools reach their backends.
    pub routes: Routes,
    /// What may leave.
    pub output: OutputRules,
}

/// Whether the secrets of credentials are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Secrets {
    /// Each is read, and one that cannot be is an error.
    Required,
    /// None is read: nothing will be carried out.
    Unread,
}

impl Rules {
    /// Builds a release, or says everything that is wrong with its files.
    ///
    /// `base` is the folder of `callgate.yaml`, which secret files are relative to. Secrets are in `live` for as long as
    /// they are held.
    #[must_use]
    pub fn build(
        files: &Files,
        digest: String,
        base: &Path,
        secrets: Secrets,
        live: &LiveSecrets,
    ) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let (clients, found) = Clients::build(&files.clients.1, &files.clients.0);
        problems.extend(found);
        let compiled = compile_tools(files, &mut problems);
        lint::references(files, &mut problems);
        offer::ambiguous(files, &mut problems);
        egress::check(files, &mut problems);
        upstream::check(files, base, secrets, &mut problems);
        identity::check(files, &mut problems);
        credentials::check(files, &mut problems);
        shown::check(files, &mut problems);
        let policies = build_policies(files, &mut problems);
        let (credentials, found) = read_credentials(files, base, secrets, live);
        problems.extend(found);

        let (mut schemas, mut output) = (Schemas::default(), OutputRules::new(live.clone()));
        let (mut plans, mut routes) = (Plans::default(), HashMap::new());
        let mut tools = Vec::new();
        for Compiled { tool, input, rule, plan, route } in compiled {
            schemas.insert(tool.name().clone(), input);
            output.insert(tool.name().clone(), rule);
            plans.insert(tool.name().clone(), plan, route.allowances.clone());
            routes.insert(tool.name().clone(), route);
            tools.push(tool);
        }
        let (catalog, found) = Catalog::build(tools, &clients, &files.clients.0);
        problems.extend(found);
        lint::unreachable(files, &clients, &catalog, &mut problems);
        lint::undo(files, &mut problems);
        sort(&mut problems);

        let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
        let rules = policies.filter(|_| !failed).map(|policies| Self {
            digest,
            name: files.server.1.name.clone(),
            clients,
            catalog,
            schemas,
            policies,
            plans,
            routes: Routes::new(routes, credentials),
            output,
        });
        (rules, problems)
    }
}

fn sort(problems: &mut [Problem]) {
    problems
        .sort_by(|one, other| (one.severity, &one.source.path).cmp(&(other.severity, &other.source.path)));
}

/// A tool with everything compiled that its manifest states.
struct Compiled {
    tool: Tool,
    input: Arc<CompiledSchema>,
    rule: OutputRule,
    plan: Plan,
    route: Route,
}

fn compile_tools(files: &Files, problems: &mut Vec<Problem>) -> Vec<Compiled> {
    let mut compiled = Vec::new();
    let mut seen: BTreeMap<&ToolName, &Source> = BTreeMap::new();
    for (source, manifest) in &files.tools {
        if let Some(first) = seen.insert(&manifest.tool, source) {
            let message = format!("the {} is already defined in `{}`", manifest.said(), first.path.display());
            let place = Place::Pointer(format!("/{}", manifest.offer.word()));
            problems.push(Problem::error(source, place, message));
            continue;
        }
        let before = problems.len();
        lint::manifest(source, manifest, problems);
        let tool = accept(files, source, manifest, problems);
        let input = compile_schema(source, "/input", &manifest.input, problems);
        let rule = output_rule(source, manifest, &tool, problems);
        let (plan, route) = route(files, source, manifest, problems).unzip();
        let failed = problems.iter().skip(before).any(|problem| problem.severity == Severity::Error);
        if let (Some(input), Some(rule), Some(plan), Some(route), false) = (input, rule, plan, route, failed)
        {
            compiled.push(Compiled { tool, input, rule, plan, route });
        }
    }
    compiled
}

/// Holds a developer's claims against what the security team accepted.
fn accept(files: &Files, source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) -> Tool {
    let (floors_source, floors) = &files.floors;
    let definition = read_value(source).unwrap_or_else(|problem| {
        // `title: .inf` is a text to the manifest and a number to JSON, which has no such number: there
        // is no definition that could be accepted.
        problems.push(*problem);
        Value::Null
    });
    let digest = definition_digest(&definition);
    let word = manifest.offer.word();
    let help = || format!("run `callgate accept {}`", manifest.tool);
    let Some(floor) = floors.of(manifest) else {
        let visible = floors.unlisted == Unlisted::TrustClaims;
        if !visible {
            let problem = Problem::warning(
                source,
                Place::Pointer(format!("/{word}")),
                format!("the {} is hidden from everybody: nobody accepted it", manifest.said()),
            );
            problems.push(problem.help(help()));
        }
        return Tool::new(manifest.clone(), digest, visible);
    };
    let mut weaker = |key: &str, claimed: &str, floor: &str| {
        let message =
            format!("`{}` claims `{key}: {claimed}`, weaker than the accepted `{floor}`", manifest.offered());
        let problem = Problem::error(source, Place::Pointer(format!("/{key}")), message);
        problems.push(problem.help(format!(
            "claim at least `{floor}`, or change the floor in `{}`",
            floors_source.path.display()
        )));
    };
    if let Some(least) = floor.effects.filter(|least| manifest.effects < *least) {
        weaker("effects", manifest.effects.word(), least.word());
    }
    if let Some(least) = floor.reach.filter(|least| manifest.reach < *least) {
        weaker("reach", manifest.reach.word(), least.word());
    }
    if let Some(least) = floor.yields.filter(|least| manifest.yields < *least) {
        weaker("yields", manifest.yields.word(), least.word());
    }
    if floor.digest.as_ref().is_some_and(|accepted| *accepted != digest) {
        let message = format!("the definition of `{}` is not the one that was accepted", manifest.offered());
        let problem = Problem::error(source, Place::Pointer(format!("/{word}")), message);
        problems.push(problem.help(format!("review it, then {}", help())));
    }
    Tool::new(manifest.clone(), digest, true)
}

fn compile_schema(
    source: &Source,
    root: &str,
    schema: &Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<CompiledSchema>> {
    match compile(schema) {
        Ok(compiled) => Some(Arc::new(compiled)),
        Err(bad) => {
            for BadSchema { at, rule, message } in bad {
                let (rule, message) = match no_type(schema, &at, &rule) {
                    Some(said) => ("type".into(), said),
                    None => (rule, message),
                };
                let place = Place::Pointer(format!("{root}{at}"));
                problems.push(Problem::error(source, place, format!("{message} (rule `{rule}`)")));
            }
            None
        }
    }
}

/// What a `type` says that is none: the schema of schemas has no words for it.
fn no_type(schema: &Map<String, Value>, at: &str, rule: &str) -> Option<String> {
    if rule != "anyOf" || !at.ends_with("/type") {
        return None;
    }
    let schema = Value::Object(schema.clone());
    let said = schema.pointer(at)?;
    let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
    Some(format!(
        "`{said}` is not a type: the types are `string`, `integer`, `number`, `boolean`, `object`, `array` and `null`"
    ))
}

fn output_rule(
    source: &Source,
    manifest: &ToolManifest,
    tool: &Tool,
    problems: &mut Vec<Problem>,
) -> Option<OutputRule> {
    let Some(schema) = &manifest.output else { return Some(OutputRule { checked: None }) };
    let compiled = compile_schema(source, "/output", schema, problems)?;
    let published = compile_schema(source, "/output", tool.output_schema()?, problems)?;
    Some(OutputRule { checked: Some(Checked { schema: compiled, published, shape: Shape::new(schema) }) })
}

fn route(
    files: &Files,
    source: &Source,
    manifest: &ToolManifest,
    problems: &mut Vec<Problem>,
) -> Option<(Plan, Route)> {
    let planned = match &manifest.backend {
        BackendSpec::Http(http) => route_to_service(files, source, manifest, http, problems)?,
        BackendSpec::Mcp(mcp) => route_to_upstream(files, manifest, mcp)?,
        BackendSpec::Own(_) => return Some((Plan::Own, own_route(manifest)?)),
    };
    let report = |errors: Vec<PlanError>| {
        let problem =
            |error: PlanError| Problem::error(source, Place::Pointer(error.at()), error.to_string());
        problems.extend(errors.into_iter().map(problem));
    };
    planned.map_err(report).ok()
}

/// What a tool's backend comes to, or everything that is wrong with how it is described.
type Routed = Result<(Plan, Route), Vec<PlanError>>;

fn route_to_service(
    files: &Files,
    source: &Source,
    manifest: &ToolManifest,
    http: &HttpBackend,
    problems: &mut Vec<Problem>,
) -> Option<Routed> {
    let service = files.server.1.services.get(&http.service)?; // a missing one is a problem of its own
    let allowances = Allowances::new(&service.egress).ok()?; // what is wrong is a problem of the service
    Some(HttpPlan::compile(http, &service.url, &manifest.input).map(|plan| {
        credentials::clash(files, source, manifest, &plan, problems);
        let limits = limits(service, manifest.limits);
        (Plan::Http(plan), Route { limits, allowances, credential: manifest.credential.clone() })
    }))
}

fn route_to_upstream(files: &Files, manifest: &ToolManifest, mcp: &McpBackend) -> Option<Routed> {
    let upstream = files.server.1.upstreams.get(&mcp.upstream)?; // a missing one is a problem of its own
    // A program fetches what it likes; the URLs that it is told to fetch are held to public addresses.
    let egress = upstream.http.as_ref().map(|http| http.egress.clone()).unwrap_or_default();
    let allowances = Allowances::new(&egress).ok()?; // what is wrong is a problem of the upstream
    let timeout = manifest.limits.timeout.unwrap_or(upstream.timeout).min(upstream.timeout).duration();
    let limits = CallLimits {
        timeout,
        head_timeout: timeout,
        idle_timeout: timeout,
        response_bytes_max: manifest
            .limits
            .response
            .unwrap_or(upstream.response)
            .min(upstream.response)
            .bytes(),
        response_values_max: upstream.values.get(),
    };
    let route = Route { limits, allowances, credential: manifest.credential.clone() };
    Some(McpPlan::compile(&mcp.tool, &manifest.input).map(|plan| (Plan::Mcp(plan), route)))
}

/// What the project answers is at hand, and as large as its files are.
fn own_route(manifest: &ToolManifest) -> Option<Route> {
    let timeout = manifest.limits.timeout.unwrap_or(TimeSpan::from_millis(1_000)).duration();
    let limits = CallLimits {
        timeout,
        head_timeout: timeout,
        idle_timeout: timeout,
        response_bytes_max: usize::MAX,
        response_values_max: usize::MAX,
    };
    let allowances = Allowances::new(&EgressSpec::default()).ok()?;
    Some(Route { limits, allowances, credential: None })
}

/// A tool can narrow the limits of its service, not widen them.
fn limits(service: &ServiceSpec, tool: ToolLimits) -> CallLimits {
    let timeout = tool.timeout.unwrap_or(service.timeout).min(service.timeout).duration();
    CallLimits {
        timeout,
        head_timeout: service.head_timeout.map_or(timeout, TimeSpan::duration),
        idle_timeout: service.idle_timeout.duration(),
        response_bytes_max: tool.response.unwrap_or(service.response).min(service.response).bytes(),
        response_values_max: service.values.get(),
    }
}

/// Policies are checked against all tools that could be read, so that one mistake is reported once.
fn build_policies(files: &Files, problems: &mut Vec<Problem>) -> Option<Policies> {
    let mut seen = HashSet::new();
    let manifests =
        files.tools.iter().map(|(_, manifest)| manifest).filter(|manifest| seen.insert(&manifest.tool));
    let labelled: Vec<_> = manifests
        .map(|manifest| (manifest, manifest.output.as_ref().map(labels_of).unwrap_or_default()))
        .collect();
    let tools = labelled.iter().map(|(manifest, labels)| ToolFacts {
        name: &manifest.tool,
        effects: manifest.effects,
        reach: manifest.reach,
        service: manifest.backend.service(),
        input: &manifest.input,
        labels,
    });
    let inputs = Inputs {
        tools: tools.collect(),
        clients: &files.clients.1,
        clients_source: &files.clients.0,
        policies: &files.policies,
    };
    let (policies, found) = Policies::build(&inputs);
    problems.extend(found);
    policies
}

fn read_credentials(
    files: &Files,
    base: &Path,
    secrets: Secrets,
    live: &LiveSecrets,
) -> (Credentials, Vec<Problem>) {
    let (source, server) = &files.server;
    if secrets == Secrets::Unread {
        return (Credentials::resolve(&BTreeMap::new(), &BTreeMap::new(), base, live).0, Vec::new());
    }
    let (credentials, errors) = Credentials::resolve(&server.credentials, &server.vaults, base, live);
    let problem = |(holder, error): (Holder, CredentialError)| {
        let pointer = match holder {
            Holder::Credential(name) => format!("{}/as", join_pointer("/credentials", name.as_str())),
            Holder::Vault(name) => join_pointer("/vaults", name.as_str()),
        };
        Problem::error(source, Place::Pointer(pointer), error.to_string())
    };
    let mut problems: Vec<_> = errors.into_iter().map(problem).collect();
    for name in live.too_short().into_iter().collect::<BTreeSet<_>>() {
        problems.extend(credentials::too_short(files, &name));
    }
    (credentials, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    fn typed<T: serde::de::DeserializeOwned>(path: &str, text: &str) -> (Source, T) {
        let source = Source { path: path.into(), text: text.into() };
        let value = read(&source).unwrap();
        (source, value)
    }

    #[test]
    fn a_release_is_refused_for_what_it_would_show_or_could_not_obey() {
        let url = "{ type: string, format: uri, x-egress: true }";
        let tool = format!(
            "tool: a.b\ntitle: ''\ndescription: d\neffects: read\ninput: {{ type: object, additionalProperties: false, required: [a], properties: {{ a: {{ enum: [x], x-non-ascii: on, x-mcp-header: 'a b' }} }} }}\noutput: {{ type: object, properties: {{ u: {url} }} }}\nbackend: {{ http: {{ service: s, method: GET, path: '/{{a}}' }} }}\n"
        );
        let files = Files {
            server: typed(
                "callgate.yaml",
                "name: \"shop\\u202Egate\"\nservices: { s: { url: 'http://127.0.0.1:8787/', egress: { loopback: true } } }\n",
            ),
            tools: vec![typed("a.yaml", &tool)],
            clients: typed("clients.yaml", "clients: { bot: { owner: \"da\\u200Bna\", tools: ['*'] } }\n"),
            floors: typed("tools.yaml", "unlisted: trust-claims\n"),
            policies: vec![Source {
                path: "p.cedar".into(),
                text: "@reason(\"over\\u{202E}limit\") permit (principal, action, resource);".into(),
            }],
            cases: vec![],
        };
        let (rules, problems) =
            Rules::build(&files, String::new(), Path::new(""), Secrets::Unread, &LiveSecrets::default());
        assert!(rules.is_none());
        let said = problems.iter().map(|it| format!("{} {}", it.source.path.display(), it.message));
        insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"), @"
        a.yaml the `title` is empty
        a.yaml `x-non-ascii` is `true` or `false`
        a.yaml `x-mcp-header` is the name of a header: letters, digits and `-`
        a.yaml nobody judges `x-egress` in an output: it is for arguments
        callgate.yaml the service `s` is the gate itself, by `listen.http.address`
        callgate.yaml the text holds 1 bidi control, which no reader sees
        clients.yaml the text holds 1 zero-width character, which no reader sees
        p.cedar `@reason` holds 1 bidi control, which no reader sees
        clients.yaml the client `bot` has no tools
        ");
    }

    #[test]
    fn a_type_that_is_none_is_said_in_plain_words() {
        let source = Source { path: "a.yaml".into(), text: "".into() };
        let said = |kind: Value| {
            let schema = serde_json::json!({ "type": "object", "properties": { "a": { "type": kind } } });
            let mut problems = Vec::new();
            assert!(compile_schema(&source, "/input", schema.as_object().unwrap(), &mut problems).is_none());
            format!("{:?} {}", problems[0].place, problems[0].message)
        };
        insta::assert_snapshot!(said("strin".into()), @r#"Pointer("/input/properties/a/type") `strin` is not a type: the types are `string`, `integer`, `number`, `boolean`, `object`, `array` and `null` (rule `type`)"#);
        insta::assert_snapshot!(said(7.into()), @r#"Pointer("/input/properties/a/type") `7` is not a type: the types are `string`, `integer`, `number`, `boolean`, `object`, `array` and `null` (rule `type`)"#);
    }
}
