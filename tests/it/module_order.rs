//! The order of the modules: each uses only those that `src/lib.rs` lists above it.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The code of a file, with comments, strings and characters blanked out.
fn code(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let at = |index: usize| text.get(index).copied().unwrap_or('\0');
    let mut code = String::new();
    let mut index = 0;
    while index < text.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => (index..text.len()).find(|end| at(*end) == '\n').unwrap_or(text.len()),
            ('/', '*') => comment_end(&text, index),
            ('r', '"' | '#') if code.chars().last().is_none_or(|last| !is_word(last) || last == 'b') => {
                raw_string_end(&text, index).unwrap_or(index)
            }
            ('"', _) => quote_end(&text, index),
            // A character, and not a lifetime.
            ('\'', '\\') => quote_end(&text, index),
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            _ => index,
        };
        if end == index {
            code.push(at(index));
            index += 1;
        } else {
            code.push(' ');
            index = end;
        }
    }
    code
}

fn comment_end(text: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut index = start;
    while index + 1 < text.len() {
        match (text[index], text[index + 1]) {
            ('/', '*') => (depth, index) = (depth + 1, index + 2),
            ('*', '/') => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    text.len()
}

fn raw_string_end(text: &[char], start: usize) -> Option<usize> {
    let hashes = text[start + 1..].iter().take_while(|character| **character == '#').count();
    let open = start + 1 + hashes;
    (text.get(open) == Some(&'"')).then_some(())?; // else it is a raw identifier
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let rest = &text[open + 1..];
    let length = rest.windows(close.len()).position(|window| window == close)?;
    Some(open + 1 + length + close.len())
}

fn quote_end(text: &[char], start: usize) -> usize {
    let quote = text[start];
    let mut index = start + 1;
    while index < text.len() && text[index] != quote {
        index += if text[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// The code without its test items, and the names of the modules that only tests have.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut kept = String::new();
    let mut test_modules = Vec::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let end = after.find(['{', ';']).unwrap_or(after.len());
        if let Some(name) = after[..end].split_whitespace().skip_while(|word| *word != "mod").nth(1)
            && after[end..].starts_with(';')
        {
            test_modules.push(name.to_owned());
        }
        let mut depth = 0;
        let length = after[end..].find(|character| {
            depth += match character {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        rest = &after[length.map_or(after.len(), |length| end + length + 1)..];
    }
    kept.push_str(rest);
    (kept, test_modules)
}

/// The modules of the crate that code names: `crate::a`, `crate::{a, b::{C, d}}`, and `super`
/// as often as it takes to leave the module, `depth` folders below `src`.
fn references(code: &str, depth: usize) -> Vec<String> {
    let code: String =
        code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::").replace(":: ", "::");
    let supers = "super::".repeat(depth);
    let mut found = Vec::new();
    for root in ["crate::", supers.as_str()] {
        for (at, _) in code.match_indices(root) {
            let before = &code[..at];
            if before.ends_with(|last: char| is_word(last) || last == ':') && !before.ends_with(" ::") {
                continue;
            }
            found.extend(first_segments(&code[at + root.len()..]));
        }
    }
    found.retain(|name| name != "super");
    found
}

fn first_segments(path: &str) -> Vec<String> {
    let word =
        |text: &str| text.trim().chars().take_while(|character| is_word(*character)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut segments, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in group.char_indices() {
        match character {
            ',' | '}' if depth == 0 => {
                segments.push(word(&group[start..at]));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

/// The modules in the order of `lib.rs`.
fn order(lib: &str) -> Vec<String> {
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    modules.map(str::to_owned).collect()
}

/// What a module refers to and may not: names of later modules, and names that are no modules at all.
fn violations(order: &[String], module: &str, references: &[String]) -> Vec<String> {
    let own = order.iter().position(|other| other == module).expect("a listed module");
    let earlier = |name: &String| order.iter().position(|other| other == name).is_some_and(|at| at <= own);
    references.iter().filter(|name| !earlier(name)).cloned().collect()
}

/// The files of a module that are not only for tests, with their depth below `src`.
fn files(path: PathBuf, depth: usize, into: &mut Vec<(PathBuf, usize, String)>) {
    let (code, test_modules) = without_tests(&code(&fs::read_to_string(&path).unwrap()));
    let folder = path.with_extension("");
    into.push((path, depth, code));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.unwrap().path()) {
        let is_code = entry.extension().is_some_and(|extension| extension == "rs");
        let name = entry.file_stem().unwrap().to_str().unwrap();
        if is_code && !test_modules.iter().any(|module| module == name) {
            files(entry, depth + 1, into);
        }
    }
}

#[test]
fn a_module_uses_only_modules_that_are_listed_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let order = order(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut wrong = Vec::new();
    let mut count = 0;
    for module in &order {
        let mut found = Vec::new();
        files(src.join(module).with_extension("rs"), 1, &mut found);
        for (path, depth, code) in found {
            let references = references(&code, depth);
            count += references.len();
            let violations = violations(&order, module, &references);
            wrong.extend(violations.into_iter().map(|name| format!("{}: `{name}`", path.display())));
        }
    }
    assert!(
        wrong.is_empty(),
        "`{}` is the order of src/lib.rs, and these break it:\n{}",
        order.join(" "),
        wrong.join("\n")
    );
    assert!(order.len() > 15 && count > 100, "the checker finds {} modules, {count} references", order.len());
}

#[test]
fn every_file_below_src_belongs_to_a_listed_module() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let order = order(&fs::read_to_string(src.join("lib.rs")).unwrap());
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(["lib", "main"].contains(&name.as_str()) || order.contains(&name), "{}", path.display());
    }
}

#[test]
fn the_checker_finds_a_planted_violation() {
    let order = order("//! x\npub mod low;\npub mod middle;\npub mod high;\n");
    assert_eq!(order, ["low", "middle", "high"]);
    let wrong = |text: &str, depth| {
        let (code, _) = without_tests(&code(text));
        violations(&order, "middle", &references(&code, depth))
    };
    for planted in [
        "use crate::high::Thing;",
        "use crate::{low::{A, high}, high::B};",
        "use crate::{\n    low,\n    high,\n};",
        "fn f() -> crate :: high::Thing { todo!() }",
        "use super::high::Thing;",
        "use super::{low, high};",
        "const QUOTE: char = '\"'; use crate::high; const OTHER: char = '\"';",
        "fn f<'a>(x: &'a str) { crate::high::f(\"/*\") }",
        "#[cfg(test)] mod tests { fn f() { \"}\"; } } use crate::high;",
        "#[cfg(test)] mod fixture; use crate::high;",
        "const RAW: &str = r#\"a\"b\"#; use crate::high;",
    ] {
        assert_eq!(wrong(planted, 1), ["high"], "{planted}");
    }
    assert_eq!(wrong("use super::super::high;", 2), ["high"]);
    for harmless in [
        "use crate::{low::{A, high}, middle};",
        "// use crate::high;",
        "/* /* */ use crate::high; */",
        "//! ```\n//! use crate::high;\n//! ```",
        "const TEXT: &str = \"crate::high\";",
        "const TEXT: &str = r#\"\"crate::high\"#;",
        "#[cfg(test)]\nmod tests { use crate::high; fn f() {} }",
        "use supercrate::high;",
    ] {
        assert_eq!(wrong(harmless, 1), [""; 0], "{harmless}");
    }
    assert_eq!(wrong("use super::high;", 2), [""; 0], "a sibling, below the same module");
}
