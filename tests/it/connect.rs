//! `callgate connect`: what each application is told, and what becomes of its file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    bare::project,
    process::{PROGRAM, Printed, callgate, configure, print},
};

const URL: &str = "https://gate.example.com/mcp";

fn connect(folder: &Path, arguments: &[&str]) -> Printed {
    callgate(folder, [&["connect"], arguments].concat())
}

/// The program as it finds itself: without the links on the way to it.
fn program() -> PathBuf {
    Path::new(PROGRAM).canonicalize().unwrap()
}

fn printed(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&connect(folder, arguments).good()).unwrap()
}

#[test]
fn each_application_is_told_in_its_own_words_and_never_the_key() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let bearer = |reference: &str| json!({ "Authorization": format!("Bearer {reference}") });
    assert_eq!(
        printed(at, &["claude-code", "--url", URL]),
        json!({ "mcpServers": { "callgate": { "type": "http", "url": URL, "headers": bearer("${CG_TOKEN}") } } })
    );
    assert_eq!(
        printed(at, &["cursor", "--url", URL, "--name", "cg", "--key-env", "MY_KEY"]),
        json!({ "mcpServers": { "cg": { "url": URL, "headers": bearer("${env:MY_KEY}") } } })
    );
    assert_eq!(
        printed(at, &["vscode", "--url", URL]),
        json!({
            "servers": { "callgate": { "type": "http", "url": URL, "headers": bearer("${input:cg-token}") } },
            "inputs": [{
                "type": "promptString", "id": "cg-token", "description": "Callgate key", "password": true
            }]
        })
    );
    let codex = connect(at, &["codex", "--url", URL]).good();
    assert_eq!(
        codex,
        format!("[mcp_servers.callgate]\nurl = \"{URL}\"\nbearer_token_env_var = \"CG_TOKEN\"\n")
    );
    assert_eq!(
        printed(at, &["claude-desktop", "--url", URL]),
        json!({ "mcpServers": { "callgate": {
            "command": program(), "args": ["stdio", "--connect", URL, "--key-env", "CG_TOKEN"]
        } } })
    );
    let key_file = at.canonicalize().unwrap().join("key");
    assert_eq!(
        printed(at, &["claude-desktop", "--url", URL, "--key-file", "key"])["mcpServers"]["callgate"]["args"],
        json!(["stdio", "--connect", URL, "--key-file", key_file])
    );
}

#[test]
fn without_a_url_the_projects_own_is_named() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("callgate.yaml");
    let somewhere = ([127, 0, 0, 1], 1).into();
    project().write(folder.path(), somewhere, somewhere);
    let set = |listener: Value, identity: Value| {
        configure(folder.path(), "listen", json!({ "http": listener }));
        configure(folder.path(), "identity", identity);
        connect(folder.path(), &["claude-code"])
    };
    let url = |listener: Value, identity: Value| {
        let printed: Value = serde_json::from_str(&set(listener, identity).good()).unwrap();
        printed["mcpServers"]["callgate"]["url"].clone()
    };
    assert_eq!(url(json!({}), json!({})), "http://127.0.0.1:8787/mcp");
    assert_eq!(url(json!({ "address": "0.0.0.0:9000" }), json!({})), "http://127.0.0.1:9000/mcp");
    assert_eq!(url(json!({ "address": "10.1.2.3:9000" }), json!({ "resource": URL })), URL);
    assert!(set(json!({ "address": "10.1.2.3:9000" }), json!({})).refusal().contains("pass `--url`"));
    assert!(set(json!({ "address": "127.0.0.1:0" }), json!({})).refusal().contains("pass `--url`"));
    let own = printed(folder.path(), &["vscode", "--stdio", "--client", "bot"]);
    let config = config.canonicalize().unwrap();
    assert_eq!(
        own,
        json!({ "servers": { "callgate": {
            "type": "stdio", "command": program(), "args": ["stdio", "--client", "bot", "--config", config]
        } } })
    );
}

#[test]
fn a_key_is_not_taken_for_the_name_of_a_variable_and_goes_nowhere_unencrypted() {
    let folder = TempDir::new().unwrap();
    for key in ["cg_demo-support_abc", "cg_bot_abcdefgh", "1A", "A B", ""] {
        let refusal = connect(folder.path(), &["codex", "--url", URL, "--key-env", key]).refusal();
        assert!(refusal.contains("never the key"), "{refusal}");
        assert!(key.len() < 4 || !refusal.contains(key), "{refusal}");
    }
    let plain = ["codex", "--url", "http://gate.example.com/mcp"];
    assert!(connect(folder.path(), &plain).refusal().contains("unencrypted"));
}

#[test]
fn writing_keeps_everything_else_and_the_file_as_it_was_and_happens_once() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    for (application, file, before) in [
        (
            "claude-code",
            ".mcp.json",
            "{\n\t\"mcpServers\": {\n\t\t\"other\": { \"command\": \"x\",  \"env\": {\"S\": \"hush\"} }\n\t}\n}\n",
        ),
        ("claude-desktop", "claude_desktop_config.json", "{\"globalShortcut\": \"\"}"),
        ("vscode", ".vscode/mcp.json", "{\n  // mine\n  \"servers\": {},\n}\n"),
        ("cursor", ".cursor/mcp.json", "{ /* mine */ }"),
        ("codex", "config.toml", "model = \"m\" # mine\n[mcp_servers.other]\ncommand = 'x'\n"),
    ] {
        let path = at.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, before).unwrap();
        mode(&path, Some(0o640));
        let write = |more: &[&str]| {
            connect(at, &[&[application, "--url", URL, "--dir", ".", "--write"], more].concat())
        };
        let alone = connect(at, &[application, "--url", URL]).good();
        let said = write(&[]).good();
        // What was put there and nothing else, in the words of the file.
        let rest = said.strip_prefix(&alone).unwrap_or_else(|| panic!("{said}"));
        assert!(rest.starts_with("written to `./"), "{rest}");
        for theirs in ["mine", "hush", "globalShortcut", "model"] {
            assert!(!said.contains(theirs), "{theirs}: {said}");
        }
        let after = fs::read_to_string(&path).unwrap();
        for kept in ["mine", "hush", "globalShortcut", "command = 'x'", "\"command\": \"x\",  \"env\""] {
            assert_eq!(after.contains(kept), before.contains(kept), "{kept}: {after}");
        }
        assert!(after.contains(URL), "{after}");
        assert_eq!(mode(&path, None), 0o640);
        let backups = backups(&path);
        let [backup] = backups.as_slice() else { panic!("{backups:?}") };
        assert_eq!(fs::read_to_string(backup).unwrap(), before);
        assert_eq!(mode(backup, None), 0o640);
        assert!(write(&[]).good().starts_with("nothing to do"));
        assert_eq!(self::backups(&path).len(), 1);
        // Another server of that name.
        let other = |more: &[&str]| write(&[&["--key-env", "OTHER"], more].concat());
        let refusal = connect(at, &[application, "--url", "https://g.example/mcp", "--dir", ".", "--write"]);
        assert!(refusal.refusal().contains("pass `--replace`"));
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
        if application != "vscode" {
            let said = other(&["--replace"]).good();
            assert!(said.contains(", in place of another server of this name\n"), "{said}");
            assert!(!said.contains("CG_TOKEN") && !said.contains("hush"), "{said}");
            assert!(fs::read_to_string(&path).unwrap().contains("OTHER"));
        }
    }
}

#[test]
fn nothing_of_what_was_in_a_file_is_shown_however_it_is_laid_out() {
    let other = r#""o":{"command":"x","env":{"S":"hush"}}"#;
    for before in [
        format!(r#"{{"mcpServers":{{{other}}}}}"#),
        format!("{{\"mcpServers\":{{{other}}},\n\"s\":\"hush\"}}"),
        format!("{{\"mcpServers\": {{\n{other},\n\"callgate\":{{\"command\":\"hush\"}}}}}}"),
        r#"{"mcpServers":{"callgate":{"command":"hush","env":{"S":"cg_k1_hush"}}}}"#.to_owned(),
    ] {
        for json in [&[][..], &["--json"]] {
            let folder = TempDir::new().unwrap();
            fs::write(folder.path().join(".mcp.json"), &before).unwrap();
            let write = ["claude-code", "--url", URL, "--write", "--replace"];
            let said = connect(folder.path(), &[json, &write].concat());
            assert!(said.stdout.contains(URL), "{said:?}");
            assert!(!said.stdout.contains("hush") && !said.stderr.contains("hush"), "{said:?}");
            let after = fs::read_to_string(folder.path().join(".mcp.json")).unwrap();
            assert_eq!(after.contains("\"o\""), before.contains("\"o\""), "{after}");
        }
    }
}

#[test]
fn a_client_that_stdio_would_refuse_is_put_into_no_file() {
    let folder = TempDir::new().unwrap();
    let somewhere = ([127, 0, 0, 1], 1).into();
    let closed = project().client("closed", json!({ "tools": ["get"] }));
    closed.write(folder.path(), somewhere, somewhere);
    let refused = |more: &[&str]| connect(folder.path(), &[&["codex", "--stdio"], more].concat()).refusal();
    assert_eq!(
        refused(&["--client", "nobody"]),
        "error: unknown client `nobody`; clients with `stdio: true`: `bot`\n"
    );
    assert_eq!(
        refused(&["--client", "closed", "--write", "--dir", "."]),
        "error: client `closed` may not be claimed by a local process: it lacks `stdio: true`; clients with \
         `stdio: true`: `bot`\n"
    );
    assert!(!folder.path().join("config.toml").exists());
    fs::write(folder.path().join("callgate.yaml"), "listen: [").unwrap();
    assert!(refused(&["--client", "bot"]).contains("does not load; run `callgate check`"));
}

#[test]
fn what_is_wrong_with_a_url_is_said_of_its_option_and_without_it() {
    let folder = TempDir::new().unwrap();
    for (url, expected) in [
        ("gate-hush", "takes a URL such as `https://gate.example.com/mcp`: "),
        ("https://u:hush@gate.example.com/mcp", "takes a URL with no user and no password in it"),
        ("https://gate.example.com/mcp?key=hush", "takes a URL without a query or a fragment"),
        ("ftp://gate.example.com/hush", "takes an `http` or `https` URL, not `ftp`"),
    ] {
        for (command, option) in [
            (["connect", "codex", "--url", url], "--url"),
            (["stdio", "--key-env=PATH", "--connect", url], "--connect"),
            (["runs", "list", "--admin-url", url], "--admin-url"),
            (["token", "bot", "--url", url], "--url"),
        ] {
            let said = callgate(folder.path(), command).refusal();
            assert!(said.starts_with(&format!("error: `{option}` {expected}")), "{said}");
            assert!(!said.contains("hush") && !said.contains("service"), "{said}");
        }
    }
}

#[test]
fn a_key_that_is_typed_where_something_else_belongs_is_not_repeated() {
    let folder = TempDir::new().unwrap();
    for key in ["cg_k1_hush-0123456789", "cgadmin_a-1_hush0123456789", &format!("cg_k1_hush{:064x}", 7)] {
        for command in [
            &["connect", "codex", "--url", URL, "--key-env", key][..],
            &["connect", "codex", "--url", URL, "--key-file", key],
            &["stdio", "--connect", URL, "--key-env", key],
            &["stdio", "--connect", URL, "--key-file", key],
            &["token", "bot", "--url", URL, "--key-file", key],
            &["runs", "list", "--admin-url", "http://127.0.0.1:1", "--admin-key-file", key],
            &["keys", "revoke", key, "--admin-url", "http://127.0.0.1:1"],
            &["keys", "rotate", key, "--admin-url", "http://127.0.0.1:1"],
            &["revoke", "key", key, "--admin-url", "http://127.0.0.1:1"],
            &["revoke", "client", key, "--admin-url", "http://127.0.0.1:1"],
            &["revoke", "run", key, "--admin-url", "http://127.0.0.1:1"],
            &["revoke", "token", key, "--issuer", "i", "--admin-url", "http://127.0.0.1:1"],
            &["revoke", "token", "x", "--issuer", key, "--admin-url", "http://127.0.0.1:1"],
            &["revoke", "client", "bot", "--reason", &format!("lost {key}!"), "--admin-url", URL],
            &["runs", "end", key, "--admin-url", "http://127.0.0.1:1"],
            &["keys", "new", key, "--admin-url", "http://127.0.0.1:1"],
            &["keys", "new", "--admin", key],
            &["token", key, "--url", URL],
            &["token", "bot", key],
            &["stdio", "--client", key],
            &["connect", "codex", "--stdio", "--client", key],
            &["connect", "codex", "--url", URL, "--name", key],
            &["connect", "codex", "--url", &format!("{URL}/{key}")],
        ] {
            let said = callgate(folder.path(), command);
            assert_ne!(said.code, 0, "{said:?}");
            assert!(!said.stdout.contains("hush") && !said.stderr.contains("hush"), "{command:?} {said:?}");
            assert!(said.stderr.contains("never"), "{command:?} {said:?}");
        }
    }
}

#[test]
fn a_file_that_does_not_parse_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    for (application, file, broken, place) in [
        ("claude-code", ".mcp.json", "{\n  \"a\": \"hush\" \"b\"\n}", "line 2, column "),
        ("vscode", ".vscode/mcp.json", "{\n  \"a\": \"hush\" \"b\"\n}", "line 2, column "),
        ("codex", "config.toml", "a = 1\nb = \"hush\" c\n", "line 2, column "),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, broken).unwrap();
        let said = connect(folder.path(), &[application, "--url", URL, "--dir", ".", "--write"]).refusal();
        assert!(
            said.contains("is left as it is") && said.contains(place) && !said.contains("hush"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), broken);
        assert!(backups(&path).is_empty());
    }
}

#[test]
fn a_file_that_is_not_there_is_made_where_the_application_looks_and_a_link_stays_one() {
    let folder = TempDir::new().unwrap();
    let home = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["--json", "connect", "--url", URL, "--write"]).args(arguments);
        command.current_dir(folder.path()).env("HOME", folder.path());
        print(command.env_remove("XDG_CONFIG_HOME").env_remove("CODEX_HOME")).json()
    };
    let made = home(&["codex"]);
    assert_eq!((&made["changed"], &made["backup"]), (&json!(true), &Value::Null), "{made}");
    assert!(folder.path().join(".codex/config.toml").is_file());
    home(&["claude-desktop"]);
    let desktop = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
    assert!(folder.path().join(desktop).join("Claude/claude_desktop_config.json").is_file());
    home(&["cursor"]);
    assert!(folder.path().join(".cursor/mcp.json").is_file());
    #[cfg(unix)]
    {
        let (real, link) = (folder.path().join("real.json"), folder.path().join("link.json"));
        fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        home(&["claude-code", "--file", "link.json"]);
        assert!(link.is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains(URL));
    }
}

fn backups(path: &Path) -> Vec<PathBuf> {
    let name = format!("{}.bak-", path.file_name().unwrap().to_str().unwrap());
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|entry| entry.file_name().unwrap().to_str().unwrap().starts_with(&name)).collect()
}

/// The mode of a file, or another one for it.
#[cfg(unix)]
fn mode(path: &Path, set: Option<u32>) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(mode) = set {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
