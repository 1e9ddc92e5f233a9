//! The JSON-Schema-Test-Suite, 2020-12, required cases: the verdict is the suite's, or the case is on a
//! written list with the reason.

use std::{collections::BTreeSet, fs, path::Path};

use callgate::schema::compile;
use serde_json::{Value, json};

/// What is refused or judged otherwise on purpose: a line for each, `file | group | reason`, and for a
/// single case `file | group | case | reason`.
const EXCEPTIONS: &str = include_str!("schema_suite/exceptions.txt");

/// Cases whose verdict is the suite's.
const PASSED: usize = 1094;

#[test]
fn verdicts_are_those_of_the_json_schema_test_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/suites/json-schema");
    let files = fs::read_dir(&folder)
        .unwrap_or_else(|_| panic!("`{}` is missing: run ./test, which installs it", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    assert_eq!(files.len(), 46, "the suite is not the one that is pinned");
    let (mut passed, mut exceptions) = (0, BTreeSet::new());
    for file in &files {
        let groups: Vec<Value> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        for group in &groups {
            judge(name, group, &mut passed, &mut exceptions);
        }
    }
    let found = exceptions.into_iter().collect::<Vec<_>>().join("\n");
    assert_eq!(found, EXCEPTIONS.trim_end(), "the list of exceptions");
    assert_eq!(passed, PASSED);
}

fn judge(file: &str, group: &Value, passed: &mut usize, exceptions: &mut BTreeSet<String>) {
    // A tool's schema is an object; `true` and `false` stand in one.
    let wrapped = json!({ "allOf": [group["schema"]] });
    let schema = group["schema"].as_object().or(wrapped.as_object()).unwrap();
    let group_name = group["description"].as_str().unwrap();
    let compiled = match compile(schema) {
        Ok(compiled) => compiled,
        Err(bad) => {
            let rules: BTreeSet<_> = bad.into_iter().map(|bad| format!("`{}`", bad.rule)).collect();
            let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
            exceptions.insert(format!("{file} | {group_name} | refused: {rules}"));
            return;
        }
    };
    for case in group["tests"].as_array().unwrap() {
        let mismatch = compiled.first_mismatch(&case["data"]);
        if mismatch.is_none() == case["valid"].as_bool().unwrap() {
            *passed += 1;
        } else {
            let case = case["description"].as_str().unwrap();
            let rule = mismatch.map_or_else(|| "accepted".into(), |it| format!("`{}` is enforced", it.rule));
            exceptions.insert(format!("{file} | {group_name} | {case} | {rule}"));
        }
    }
}
