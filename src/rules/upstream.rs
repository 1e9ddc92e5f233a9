//! Upstreams: that what they name exists, and is one thing that a person can have reviewed.

mod runner;

use std::{collections::HashMap, path::Path};

use self::runner::{Code, code};
use super::{
    Files, Secrets,
    egress::{check_way, is_own},
};
use crate::{
    credential::read_secret,
    manifest::{
        BackendSpec, Digest, EnvValue, McpBackend, Place, Problem, ProgramSpec, SecretRef, Source,
        UpstreamKind, join_pointer,
    },
    upstream::{file_digest, find_program},
};

/// Every upstream by itself, and the names they share.
pub(super) fn check(files: &Files, base: &Path, secrets: Secrets, problems: &mut Vec<Problem>) {
    let (source, server) = &files.server;
    for (name, spec) in &server.upstreams {
        let pointer = join_pointer("/upstreams", name.as_str());
        let error = |place, message: String| Problem::error(source, place, message);
        if server.services.contains_key(name) {
            let message = format!("`{name}` is the name of a service already");
            problems
                .push(error(Place::Key(pointer.clone()), message).help("policies could not tell them apart"));
        }
        match (&spec.stdio, &spec.http) {
            (Some(program), None) => {
                Check { source, base, pointer: format!("{pointer}/stdio"), problems }
                    .program(program, secrets);
            }
            (None, Some(remote)) => {
                let pointer = format!("{pointer}/http");
                let what = format!("the upstream `{name}`");
                check_way(source, &pointer, &what, ("url", remote.url.url()), &remote.egress, problems);
                if is_own(remote.url.url(), server.listen.http.address) {
                    let message = format!("{what} is the gate itself, by `listen.http.address`");
                    let problem = error(Place::below(&pointer, "url"), message);
                    problems.push(problem.help("a gate that calls itself never ends"));
                }
            }
            (Some(_), Some(_)) => problems.push(error(
                Place::Key(pointer),
                format!("the upstream `{name}` has both `stdio` and `http`: keep the one that is meant"),
            )),
            (None, None) => problems.push(error(
                Place::Key(pointer),
                format!("the upstream `{name}` has neither `stdio` nor `http`"),
            )),
        }
    }
    of_tools(files, problems);
}

/// Two manifests of one tool, and credentials that nobody would be shown.
fn of_tools(files: &Files, problems: &mut Vec<Problem>) {
    let mut seen = HashMap::new();
    for (source, manifest) in &files.tools {
        let BackendSpec::Mcp(mcp) = &manifest.backend else { continue };
        let spec = files.server.1.upstreams.get(&mcp.upstream);
        if manifest.credential.is_some() && spec.is_some_and(|spec| spec.stdio.is_some()) {
            let message =
                format!("the upstream `{}` is a program, which is shown no credential", mcp.upstream);
            let problem = Problem::error(source, Place::Key("/credential".into()), message);
            problems.push(problem.help("give it what it needs in its `env`"));
        }
        if mcp.kind == UpstreamKind::Tool
            && let Some(first) = seen.insert((&mcp.upstream, &mcp.tool), &manifest.tool)
        {
            let message =
                format!("`{first}` is the tool `{}` of `{}` already", mcp.tool.escape_debug(), mcp.upstream);
            problems.push(Problem::warning(source, Place::Pointer("/backend/mcp/tool".into()), message));
        }
    }
}

/// What a manifest says of an upstream's tool.
pub(super) fn tool(source: &Source, mcp: &McpBackend, problems: &mut Vec<Problem>) {
    if !(1..=128).contains(&mcp.tool.chars().count()) {
        let message = "the name of an upstream's tool has 1 to 128 characters";
        problems.push(Problem::error(source, Place::Pointer("/backend/mcp/tool".into()), message));
    }
}

struct Check<'a> {
    source: &'a Source,
    base: &'a Path,
    pointer: String,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn program(&mut self, spec: &ProgramSpec, secrets: Secrets) {
        let dir = self.base.join(&spec.dir);
        if !dir.is_dir() {
            self.error("dir", format!("there is no folder `{}`", spec.dir.display()), None);
        }
        let found = find_program(&spec.command, self.base);
        if found.is_none() {
            let help = if spec.command.contains('/') {
                "a path is relative to `callgate.yaml`, and leads to a file that can be run"
            } else {
                "it is in no folder of `PATH`: write its path, or install it"
            };
            self.error(
                "command",
                format!("there is no program `{}`", spec.command.escape_debug()),
                Some(help),
            );
        }
        self.code(spec, found.as_deref(), &dir);
        if let (Some(expected), Some(found)) = (spec.digest, &found) {
            self.unaltered("digest", found, expected);
        }
        for (path, expected) in &spec.files {
            let key = join_pointer("files", &path.to_string_lossy());
            self.unaltered(&key, &dir.join(path), *expected);
        }
        self.environment(spec, secrets);
    }

    /// What runs is one thing: the program, a version of a package, or files that are pinned.
    fn code(&mut self, spec: &ProgramSpec, found: Option<&Path>, dir: &Path) {
        match code(&spec.command, &spec.args) {
            Code::Package => {}
            Code::Unsettled { expected } => {
                let message = format!("`{}` would choose by itself what to run", spec.command.escape_debug());
                self.error("args", message, Some(&format!("name {expected}")));
            }
            Code::Shell => {
                let message = format!("`{}` runs whatever its arguments say", spec.command.escape_debug());
                self.error("command", message, Some("name the program itself: no shell is needed"));
            }
            kind @ (Code::Program | Code::Interpreter) => {
                if spec.digest.is_none() {
                    let message =
                        format!("nothing says which `{}` was reviewed", spec.command.escape_debug());
                    let digest = found.and_then(|found| file_digest(found).ok());
                    let help = digest.map(|digest| format!("review it, then say `digest: {digest}`"));
                    self.error("command", message, help.as_deref());
                }
                if kind == Code::Interpreter {
                    self.script(spec, dir);
                }
            }
        }
    }

    /// The script that an interpreter is given is pinned: the first of its arguments that is a file.
    fn script(&mut self, spec: &ProgramSpec, dir: &Path) {
        let is_pinned = |path: &str| spec.files.keys().any(|pinned| dir.join(pinned) == dir.join(path));
        let script = spec.args.iter().enumerate().find(|(_, argument)| dir.join(argument).is_file());
        match script {
            Some((_, argument)) if is_pinned(argument) => {}
            Some((at, argument)) => {
                let digest = file_digest(&dir.join(argument)).ok();
                let help = digest
                    .map(|digest| format!("review it, then say `files: {{ \"{argument}\": {digest} }}`"));
                let message = format!("nothing says which `{}` was reviewed", argument.escape_debug());
                self.error(&format!("args/{at}"), message, help.as_deref());
            }
            None if spec.files.is_empty() => {
                let message = format!("`{}` runs code that nothing pins", spec.command.escape_debug());
                self.error("command", message, Some("name the files that are its code under `files`"));
            }
            None => {}
        }
    }

    fn unaltered(&mut self, key: &str, path: &Path, expected: Digest) {
        match file_digest(path) {
            Ok(found) if found == expected => {}
            Ok(found) => {
                let message = format!("`{}` is not the file that was reviewed", path.display());
                self.error(key, message, Some(&format!("it is `{found}` now: review it again")));
            }
            Err(error) => self.error(key, format!("`{}` cannot be read: {error}", path.display()), None),
        }
    }

    fn environment(&mut self, spec: &ProgramSpec, secrets: Secrets) {
        for (variable, value) in &spec.env {
            let key = join_pointer("env", variable);
            if variable.is_empty() || variable.contains(['=', '\0']) {
                self.error(&key, format!("`{}` is no name of a variable", variable.escape_debug()), None);
            }
            match value {
                EnvValue::Plain(text) if text.contains('\0') => {
                    self.error(&key, "a variable cannot hold a NUL character".into(), None);
                }
                EnvValue::Secret(SecretRef::Vault(_)) => {
                    let help = "name it by `env:NAME` or `file:PATH`";
                    self.error(&key, "a program's environment is not read from a vault".into(), Some(help));
                }
                EnvValue::Secret(reference) if secrets == Secrets::Required => {
                    if let Err(error) = read_secret(reference, self.base) {
                        self.error(&key, error.to_string(), None);
                    }
                }
                EnvValue::Plain(_) | EnvValue::Secret(_) => {}
            }
        }
    }

    fn error(&mut self, key: &str, message: String, help: Option<&str>) {
        let place = Place::Pointer(format!("{}/{key}", self.pointer));
        let mut problem = Problem::error(self.source, place, message);
        problem.help = help.map(str::to_owned);
        self.problems.push(problem);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::manifest::{ClientsFile, FloorsFile, read};

    fn problems(base: &Path, server: &str, tools: &[&str]) -> Vec<String> {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let server = source("callgate.yaml", server);
        let tool = |text: &&str| {
            let source = source("a.yaml", text);
            (source.clone(), read(&source).unwrap())
        };
        let files = Files {
            server: (server.clone(), read(&server).unwrap()),
            tools: tools.iter().map(tool).collect(),
            clients: (source("clients.yaml", ""), ClientsFile::default()),
            floors: (source("tools.yaml", ""), FloorsFile::default()),
            policies: vec![],
            cases: vec![],
        };
        let mut problems = Vec::new();
        check(&files, base, Secrets::Required, &mut problems);
        let said = |problem: &Problem| {
            let (Place::Pointer(at) | Place::Key(at)) = &problem.place else { panic!("{problem:?}") };
            let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{at}: {}{help}", problem.message).replace(&base.display().to_string(), "BASE")
        };
        problems.iter().map(said).collect()
    }

    #[test]
    fn everything_that_is_wrong_with_upstreams_is_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("server.py"), "x").unwrap();
        let zeros = "0".repeat(64);
        let server = format!(
            "services: {{ a: {{ url: 'http://127.0.0.1:1/', egress: {{ loopback: true }} }} }}
upstreams:
  a: {{ http: {{ url: 'http://127.0.0.1:8787/mcp', egress: {{ loopback: true }} }} }}
  both: {{ stdio: {{ command: /bin/sh, digest: 'sha256:{zeros}' }}, http: {{ url: 'https://example.com/' }} }}
  far: {{ http: {{ url: 'http://10.0.0.1/' }} }}
  neither: {{ timeout: 1s }}
  none: {{ stdio: {{ command: no-such-program, dir: nowhere, digest: 'sha256:{zeros}' }} }}
  loose: {{ stdio: {{ command: ./npx, args: ['-y', 'server@latest'] }} }}
  script: {{ stdio: {{ command: ./python3, digest: 'sha256:{zeros}', args: ['server.py'] }} }}
  shell: {{ stdio: {{ command: /bin/sh, args: ['-c', 'x'] }} }}
  plain: {{ stdio: {{ command: ./plain, env: {{ A: {{ secret: 'env:CALLGATE_NOT_SET' }}, B: {{ secret: 'vault:v/a/data/b#c' }}, 'C=': d }} }} }}
"
        );
        for name in ["npx", "python3", "plain"] {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            executable(&path);
        }
        insta::assert_snapshot!(problems(folder.path(), &server, &[]).join("\n"), @r#"
        /upstreams/a: `a` is the name of a service already (policies could not tell them apart)
        /upstreams/a/http/url: the upstream `a` is the gate itself, by `listen.http.address` (a gate that calls itself never ends)
        /upstreams/both: the upstream `both` has both `stdio` and `http`: keep the one that is meant
        /upstreams/far/http/url: the upstream `far`: the address is private (10.0.0.0/8, RFC 1918), which the service's egress does not allow (say `egress: { private: ["10.0.0.1/32"] }` for the service, or name the network it is in)
        /upstreams/loose/stdio/args: `./npx` would choose by itself what to run (name `PACKAGE@1.2.3`, an exact version)
        /upstreams/neither: the upstream `neither` has neither `stdio` nor `http`
        /upstreams/none/stdio/dir: there is no folder `nowhere`
        /upstreams/none/stdio/command: there is no program `no-such-program` (it is in no folder of `PATH`: write its path, or install it)
        /upstreams/plain/stdio/command: nothing says which `./plain` was reviewed (review it, then say `digest: sha256:a116c9ed46d6207734a43317d30fd88f52ac8634c37d904bbf4e41d865f90475`)
        /upstreams/plain/stdio/env/A: the environment variable `CALLGATE_NOT_SET` is not set
        /upstreams/plain/stdio/env/B: a program's environment is not read from a vault (name it by `env:NAME` or `file:PATH`)
        /upstreams/plain/stdio/env/C=: `C=` is no name of a variable
        /upstreams/script/stdio/args/0: nothing says which `server.py` was reviewed (review it, then say `files: { "server.py": sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 }`)
        /upstreams/script/stdio/digest: `BASE/python3` is not the file that was reviewed (it is `sha256:c1cc69e61c0f1c7ade8df0f2994e582e7c1f2c57d1ec192a0baf9f96b7739d9d` now: review it again)
        /upstreams/shell/stdio/command: `/bin/sh` runs whatever its arguments say (name the program itself: no shell is needed)
        "#);
    }

    fn executable(path: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_program_that_is_what_was_reviewed_is_let_be_until_a_byte_of_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (program, script) = (folder.path().join("python3"), folder.path().join("server.py"));
        fs::write(&program, "p").unwrap();
        fs::write(&script, "s").unwrap();
        fs::write(folder.path().join("data"), "is no code").unwrap();
        executable(&program);
        let (of_program, of_script) = (Digest::of(b"p"), Digest::of(b"s"));
        let server = format!(
            "upstreams: {{ a: {{ stdio: {{ command: ./python3, digest: '{of_program}', args: ['server.py', 'data'], files: {{ server.py: '{of_script}' }} }} }} }}\n"
        );
        assert_eq!(problems(folder.path(), &server, &[]), [""; 0]);
        fs::write(&script, "S").unwrap();
        fs::write(&program, "P").unwrap();
        let said = problems(folder.path(), &server, &[]);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().all(|line| line.contains("is not the file that was reviewed")), "{said:?}");
    }

    #[test]
    fn a_program_is_shown_no_credential() {
        let tool = format!(
            "tool: a\ndescription: d\ninput: {{ type: object }}\ncredential: key\nbackend: {{ mcp: {{ upstream: u, tool: read, definition: 'sha256:{}' }} }}\n",
            "0".repeat(64)
        );
        let server = "upstreams: { u: { stdio: { command: npx, args: [a@1.2.3] } } }\n";
        let said = problems(tempfile::tempdir().unwrap().path(), server, &[&tool]);
        let expected = "/credential: the upstream `u` is a program, which is shown no credential (give it what it needs in its `env`)";
        assert!(said.iter().any(|line| line == expected), "{said:?}");
    }

    #[test]
    fn two_manifests_of_one_tool_are_pointed_out() {
        let tool = |name: &str| {
            format!(
                "tool: {name}\ndescription: d\ninput: {{ type: object }}\nbackend: {{ mcp: {{ upstream: u, tool: read, definition: 'sha256:{}' }} }}\n",
                "0".repeat(64)
            )
        };
        let (one, two) = (tool("a.one"), tool("a.two"));
        insta::assert_snapshot!(
            problems(Path::new("/nowhere"), "{}\n", &[&one, &two]).join("\n"),
            @"/backend/mcp/tool: `a.one` is the tool `read` of `u` already"
        );
    }
}
