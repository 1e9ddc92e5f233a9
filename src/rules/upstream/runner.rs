//! Programs that run what their arguments name: what exactly would that be?

/// What a command's own digest says of the code that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Code {
    /// The program is the code.
    Program,
    /// The arguments name one version of a package, which registries do not change.
    Package,
    /// A package runner would choose a version by itself.
    Unsettled {
        /// What would have to be written, as the end of a sentence.
        expected: &'static str,
    },
    /// The code is in files that the arguments name.
    Interpreter,
    /// The arguments are the code.
    Shell,
}

const NPM: &str = "`PACKAGE@1.2.3`, an exact version";
const PYTHON: &str = "`PACKAGE==1.2.3`, an exact version";
const IMAGE: &str = "`IMAGE@sha256:…`, an image's digest";

/// Options that stand before a package and take no value.
const FLAGS: [&str; 10] = [
    "-y",
    "--yes",
    "-q",
    "--quiet",
    "-s",
    "--silent",
    "--offline",
    "--prefer-offline",
    "--isolated",
    "--ignore-scripts",
];

/// Says what a command with these arguments runs.
pub(super) fn code(command: &str, args: &[String]) -> Code {
    let name = command.rsplit('/').next().unwrap_or(command);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match (name, args.as_slice()) {
        ("npx" | "pnpx" | "bunx", args)
        | ("pnpm" | "yarn", ["dlx", args @ ..])
        | ("bun", ["x", args @ ..])
        | ("npm", ["exec" | "x", args @ ..]) => settled(packages(args, &["-p", "--package"]), is_npm, NPM),
        ("pnpm" | "yarn" | "npm", _) => Code::Unsettled { expected: NPM },
        ("uvx", args) | ("uv", ["tool", "run", args @ ..]) => {
            settled(packages(args, &["--from", "--with"]), is_python, PYTHON)
        }
        ("pipx", ["run", args @ ..]) => settled(packages(args, &["--spec"]), is_python, PYTHON),
        ("uv" | "pipx", _) => Code::Unsettled { expected: PYTHON },
        ("docker" | "podman" | "nerdctl", ["run", args @ ..]) => {
            let is_settled = args.iter().any(|arg| is_image(arg));
            if is_settled { Code::Package } else { Code::Unsettled { expected: IMAGE } }
        }
        ("docker" | "podman" | "nerdctl", _) => Code::Unsettled { expected: IMAGE },
        ("sh" | "bash" | "dash" | "zsh" | "fish" | "env" | "sudo" | "nohup" | "timeout" | "xargs", _) => {
            Code::Shell
        }
        (name, _) if is_interpreter(name) => Code::Interpreter,
        _ => Code::Program,
    }
}

fn is_interpreter(name: &str) -> bool {
    let bare = name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    matches!(
        bare,
        "python" | "pypy" | "node" | "nodejs" | "deno" | "bun" | "ruby" | "perl" | "php" | "java" | "tsx"
    )
}

fn settled(packages: Option<Vec<&str>>, is_exact: fn(&str) -> bool, expected: &'static str) -> Code {
    match packages {
        Some(packages) if !packages.is_empty() && packages.iter().all(|package| is_exact(package)) => {
            Code::Package
        }
        _ => Code::Unsettled { expected },
    }
}

/// The packages that a runner installs: those that options name, or else the first argument. Nothing where an
/// option stands among them whose meaning is not known.
fn packages<'a>(args: &[&'a str], naming: &[&str]) -> Option<Vec<&'a str>> {
    let (mut named, mut args) = (Vec::new(), args.iter());
    // What `--with` adds comes besides the package itself.
    let mut replaces = false;
    while let Some(arg) = args.next() {
        let (key, value) = arg.split_once('=').map_or((*arg, None), |(key, value)| (key, Some(value)));
        if naming.contains(&key) {
            named.push(match value {
                Some(value) => value,
                None => args.next()?,
            });
            replaces |= key != "--with";
        } else if *arg == "--" {
            // Only the program's own arguments follow, or the package.
        } else if arg.starts_with('-') {
            if !FLAGS.contains(arg) {
                return None;
            }
        } else {
            if !replaces {
                named.push(arg);
            }
            break;
        }
    }
    Some(named)
}

/// `name@1.2.3` or `@scope/name@1.2.3`: no tag, no range, no address.
fn is_npm(package: &str) -> bool {
    let Some((name, version)) = package.rsplit_once('@') else { return false };
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let is_name = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| plain(scope) && plain(name)),
        None => plain(name),
    };
    is_name && is_semver(version)
}

/// Three numbers, and a pre-release or a build (Semantic Versioning 2.0.0 §2, §9, §10).
fn is_semver(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let rest = version.strip_prefix(core).unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && rest.len() != 1
        && rest.bytes().all(is_rest)
}

/// `name==1.2.3` or `name@1.2.3`, with extras or without: no range, no wildcard, no address.
fn is_python(package: &str) -> bool {
    let parted = package.split_once("==").or_else(|| package.split_once('@'));
    let Some((name, version)) = parted else { return false };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'[' | b']' | b',');
    let is_version =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'!' | b'_' | b'-');
    !name.is_empty()
        && name.bytes().all(plain)
        && version.starts_with(|first: char| first.is_ascii_digit())
        && version.bytes().all(is_version)
}

/// `image@sha256:…`.
fn is_image(argument: &str) -> bool {
    let digits =
        argument.split_once("@sha256:").filter(|(name, _)| !name.is_empty() && !name.starts_with('-'));
    digits.is_some_and(|(_, digits)| {
        digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Code {
        let mut words = line.split(' ').map(str::to_owned);
        let command = words.next().unwrap();
        code(&command, &words.collect::<Vec<_>>())
    }

    #[test]
    fn a_package_of_one_version_is_settled() {
        let image = format!("docker run -i --rm img@sha256:{}", "ab".repeat(32));
        for line in [
            "npx -y @modelcontextprotocol/server-filesystem@2026.7.4 ./data",
            "/usr/bin/npx server@1.2.3-rc.1 --flag",
            "npx -p server@1.2.3 server-bin",
            "npx --package=server@1.2.3 -- server-bin",
            "npm exec -y server@1.2.3",
            "pnpm dlx server@1.2.3",
            "bunx server@1.2.3",
            "uvx mcp-server-git==1.0 --repository .",
            "uvx mcp-server-git@1.0.1",
            "uvx --from tools[extra]==2.1.0 tool",
            "uvx --with helper==1.0 tool==2.0",
            "uv tool run x==1.0.0",
            "pipx run --spec x==1.0 y",
            &image,
        ] {
            assert_eq!(of(line), Code::Package, "{line}");
        }
    }

    #[test]
    fn a_runner_that_would_choose_a_version_is_unsettled() {
        for line in [
            "npx server",
            "npx -y @scope/server",
            "npx server@latest",
            "npx server@^1.2.3",
            "npx server@~1.2.3",
            "npx server@1.2",
            "npx server@1.x.3",
            "npx server@1.2.3-",
            "npx server@>=1.0.0",
            "npx github:someone/server",
            "npx https://example.com/server.tgz@1.2.3",
            "npx other@npm:server@1.2.3",
            "npx -p server@1.2.3 -p more bin",
            "npx -p",
            "npx --registry=https://example.com server@1.2.3",
            "npx -c server@1.2.3",
            "npx",
            "npm run server@1.2.3",
            "uvx server",
            "uvx server@latest",
            "uvx server==1.*",
            "uvx server>=1.0",
            "uvx --with helper tool==2.0",
            "uvx --from git+https://example.com/x@1.0 tool",
            "uv run server.py",
            "docker run image:latest",
            "docker run image@sha256:abcd",
            "docker exec x",
        ] {
            assert!(matches!(of(line), Code::Unsettled { .. }), "{line}");
        }
    }

    #[test]
    fn an_interpreter_and_a_shell_are_not_what_runs() {
        for line in
            ["python3 server.py", "/usr/bin/python3.13 -m server", "node dist/index.js", "deno run x.ts"]
        {
            assert_eq!(of(line), Code::Interpreter, "{line}");
        }
        for line in ["sh -c x", "/bin/bash run.sh", "env npx server"] {
            assert_eq!(of(line), Code::Shell, "{line}");
        }
        assert_eq!(of("/opt/server --npx"), Code::Program);
        assert_eq!(of("pythonic-server"), Code::Program);
    }
}
