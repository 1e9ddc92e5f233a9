//! Each rule refused, each neighbour accepted; then the scanner against a second, naive one.

use super::*;

fn verdict(text: impl AsRef<[u8]>) -> Result<(), (Rule, usize)> {
    scan(text.as_ref(), Bounds::REQUEST).map_err(|fault| (fault.rule, fault.offset))
}

#[track_caller]
fn refuses(rule: Rule, texts: &[&str]) {
    for text in texts {
        assert_eq!(verdict(text).map_err(|(rule, _)| rule), Err(rule), "{text}");
    }
}

#[track_caller]
fn accepts(texts: &[&str]) {
    for text in texts {
        assert_eq!(verdict(text), Ok(()), "{text}");
        serde_json::from_str::<serde_json::Value>(text).unwrap();
    }
}

#[test]
fn a_fault_names_its_rule_and_its_byte() {
    let fault = scan(br#"{"a":1,"b":2,"a":3}"#, Bounds::REQUEST).unwrap_err();
    assert_eq!(fault.to_string(), "duplicate key at byte 13");
    assert_eq!(fault.rule.word(), "duplicate_key");
    assert_eq!(verdict("[1,]"), Err((Rule::Syntax, 3)));
    assert_eq!(verdict(r#"["ab\ud800"]"#), Err((Rule::Surrogate, 4)));
    assert_eq!(verdict("[1, 1e999]"), Err((Rule::Number, 4)));
    assert_eq!(verdict(b"[\"\xFF\"]"), Err((Rule::Utf8, 2)));
}

#[test]
fn what_rfc_8259_calls_malformed_is_refused() {
    refuses(
        Rule::Syntax,
        &["", " ", "[", "]", "{", "}", "[1", "[1,", "[,1]", "[1,]", "[1 2]", "[1,,2]", "[1}"],
    );
    refuses(
        Rule::Syntax,
        &["{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}", "{1:1}", "{\"a\" 1}", "{\"a\":1]"],
    );
    refuses(
        Rule::Syntax,
        &["1 2", "{}{}", "[]x", "null,", "nul", "nulll", "True", "tru", "NaN", "Infinity", "'a'"],
    );
    refuses(
        Rule::Syntax,
        &["\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12G4\"", "\"\\u+123\"", "\"a\nb\""],
    );
    refuses(
        Rule::Syntax,
        &["\"\t\"", "\"\0\"", "\0", "[1]\0", "\u{c}1", "\u{a0}1", "[1/**/]", "// a\n1", "\u{2028}"],
    );
    refuses(
        Rule::Syntax,
        &["-", "+1", "01", "-01", "1.", ".1", "1.e1", "1e", "1e+", "0x1", "1_0", "- 1", "1a", "00"],
    );
    accepts(&[
        "0",
        " 1 ",
        "\t\r\n[ ]\n",
        "{ }",
        "\"\"",
        "true",
        "false",
        "null",
        "[1 , 2]",
        "{ \"a\" : [ { } ] }",
    ]);
    accepts(&[
        r#""\"\\\/\b\f\n\r\t\u0000\uABCD\uabcd""#,
        "\"\u{7f}\u{80}\u{2028}\u{10FFFF}\u{feff}\"",
        "-0",
        "-1",
    ]);
}

#[test]
fn every_place_in_a_string_is_looked_at() {
    for length in 0..40 {
        for at in 0..length {
            let mut text = vec![b'a'; length];
            text[at] = 0x1F;
            let quoted = [b"\"", &*text, b"\""].concat();
            assert_eq!(verdict(&quoted), Err((Rule::Syntax, at + 1)), "{length} {at}");
            text[at] = b'"';
            let quoted = [b"\"", &*text, b"\""].concat();
            assert_eq!(verdict(&quoted), Err((Rule::Syntax, at + 2)), "{length} {at}");
            text[at] = 0x20;
            let quoted = [b"\"", &*text, b"\""].concat();
            assert_eq!(verdict(&quoted), Ok(()), "{length} {at}");
        }
    }
}

#[test]
fn encoding_faults_come_first() {
    refuses(Rule::Bom, &["\u{feff}", "\u{feff}{}", "\u{feff}]"]);
    refuses(Rule::Syntax, &["{}\u{feff}"]);
    for bytes in [
        &b"\xFF"[..],
        b"\"\xC0\x80\"",
        b"\"\xED\xA0\x80\"",
        b"\"\xF4\x90\x80\x80\"",
        b"\"\xE2\x82\"",
        b"]\xFF",
    ] {
        assert_eq!(verdict(bytes).map_err(|(rule, _)| rule), Err(Rule::Utf8), "{bytes:?}");
    }
}

#[test]
fn a_surrogate_needs_its_other_half() {
    refuses(
        Rule::Surrogate,
        &[r#""\ud800""#, r#""\uDBFF a""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800\n""#],
    );
    refuses(
        Rule::Surrogate,
        &[r#"{"\udfff":1}"#, r#""\ud83d\u0041""#, r#""\udc00\ud800""#, r#""\ud800\uZZZZ""#],
    );
    accepts(&[r#""\ud83d\ude00""#, r#""\uDBFF\uDFFF""#, r#""\ud7ff\ue000""#]);
}

#[test]
fn depth_has_a_bound() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(verdict(nested(64)), Ok(()));
    assert_eq!(verdict(nested(65)), Err((Rule::Depth, 64)));
    let objects = |depth| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert_eq!(verdict(objects(64)), Ok(()));
    assert_eq!(verdict(objects(65)), Err((Rule::Depth, 64 * 5)));
    assert_eq!(verdict("[".repeat(1_000_000)), Err((Rule::Depth, 64)));
    let deep = Bounds { depth_max: usize::MAX, nodes_max: usize::MAX };
    assert_eq!(scan(nested(1_000_000).as_bytes(), deep), Ok(()));
}

#[test]
fn every_value_is_a_node_and_keys_are_none() {
    let nodes = |nodes_max| Bounds { depth_max: 9, nodes_max };
    let text = br#"{"a":[1,true,false,null,"s",{},[]],"b":-0.5}"#;
    assert_eq!(scan(text, nodes(10)), Ok(()));
    assert_eq!(scan(text, nodes(9)), Err(Rule::Nodes.at(39)));
    assert_eq!(scan(b"1", nodes(0)), Err(Rule::Nodes.at(0)));
    let list = |values: usize| format!("[{}1]", "1,".repeat(values - 1));
    assert_eq!(verdict(list(9_999)), Ok(()));
    assert_eq!(verdict(list(10_000)), Err((Rule::Nodes, 19_999)));
}

#[test]
fn equal_keys_are_refused_at_any_depth_and_however_written() {
    refuses(Rule::DuplicateKey, &[r#"{"a":1,"a":1}"#, r#"{"":1,"":1}"#, r#"[[{"b":{"a":1,"c":{},"a":1}}]]"#]);
    refuses(Rule::DuplicateKey, &[r#"{"a":1,"\u0061":1}"#, r#"{"\u0061":1,"a":1}"#, r#"{"\/":1,"/":1}"#]);
    refuses(
        Rule::DuplicateKey,
        &[r#"{"\ud83d\ude00":1,"😀":1}"#, r#"{"\n":1,"\u000a":1}"#, r#"{"\u00e9":1,"é":1}"#],
    );
    refuses(Rule::DuplicateKey, &[r#"{"a":{"a":1},"b":{"a":1},"a":1}"#, r#"{"abcdefghi":1,"abcdefghi":1}"#]);
    accepts(&[
        r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#,
        r#"{"a":1,"A":1,"a ":1,"":1}"#,
        "{\"\u{e9}\":1,\"e\u{301}\":1}",
    ]);
    accepts(&[
        r#"{"a":1,"a\u0000":1}"#,
        r#"{"\\u0061":1,"a":1}"#,
        r#"{"abcdefghi":1,"abcdefghj":1,"abcdefgh":1}"#,
    ]);
}

#[test]
fn equal_keys_are_found_among_many_wherever_they_are() {
    for count in [2, 3, 15, 16, 17, 18, 40, 200] {
        for twin in 1..count {
            for original in [0, twin / 2, twin - 1] {
                for escape in [false, true] {
                    let member = |index: usize| match (index == twin, escape) {
                        (false, _) => format!("\"key number {index}\":{index}"),
                        (true, false) => format!("\"key number {original}\":0"),
                        (true, true) => format!("\"\\u006bey number {original}\":0"),
                    };
                    let members: Vec<_> = (0..count).map(member).collect();
                    let offset = 1 + members[..twin].iter().map(|member| member.len() + 1).sum::<usize>();
                    let text = format!("{{{}}}", members.join(","));
                    assert_eq!(verdict(&text), Err((Rule::DuplicateKey, offset)), "{text}");
                }
            }
        }
    }
}

#[test]
fn ten_thousand_keys_with_a_common_start_are_no_attack() {
    for key in [
        "\"common start of a long key that is about one hundred bytes long so as to fill a megabyte ",
        "\"\\u0061",
    ] {
        let padding = if key.len() < 10 { "\\u0062".repeat(14) } else { String::new() };
        let members: Vec<_> = (0..9_999).map(|index| format!("{key}{padding}{index}\":0")).collect();
        let mut text = format!("{{{}}}", members.join(","));
        assert_eq!(verdict(&text), Ok(()));
        text.insert_str(1, &format!("{},", members[5_000]));
        assert_eq!(verdict(&text).map_err(|(rule, _)| rule), Err(Rule::Nodes));
    }
}

#[test]
fn integers_fit_64_bits() {
    accepts(&["9223372036854775807", "-9223372036854775808", "18446744073709551615", "999999999999999999"]);
    refuses(
        Rule::Number,
        &["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"],
    );
    refuses(Rule::Number, &["-18446744073709551615", "100000000000000000000"]);
}

#[test]
fn other_numbers_round_trip() {
    accepts(&[
        "0.1",
        "1.0",
        "1e2",
        "1E+2",
        "0.10000000000000001",
        "-0.0",
        "0e999999999999999999999",
        "0.000",
    ]);
    accepts(&["1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "4.9406564584124654e-324"]);
    accepts(&[
        "9007199254740992.0",
        "100000000000000000000.0",
        "1e-307",
        "123456789012345e-320",
        "0.5000000000",
    ]);
    accepts(&[
        "0.1000000000000000055511151231257827",
        "3.141592653589793",
        "1e22",
        "1e23",
        "-1.50e-10",
        "0.30",
    ]);
    refuses(Rule::Number, &["3.141592653589793238", "0.1e-99999", "1e400", "-1e309", "9007199254740993.0"]);
    refuses(Rule::Number, &["1e-400", "3e-324", "2e-324", "0.100000000000000000", "1.7976931348623159e308"]);
    refuses(
        Rule::Number,
        &["4.95e-324", "1e99999999999999999999", "1e-99999999999999999999", "0.30000000000000001"],
    );
    let long = |zeros: usize, last: &str| format!("0.5{}{last}", "0".repeat(zeros));
    accepts(&[&long(2_000, ""), &long(100_000, "")]);
    refuses(Rule::Number, &[&long(2_000, "1"), &long(765, "1"), &long(766, "1"), &long(767, "1")]);
}

#[test]
fn what_is_accepted_reads_as_the_nearest_float() {
    // Without `float_roundtrip`, `serde_json` is off by one bit for some of these.
    let mut state = 0x5EED_u64;
    let mut accepted = 0;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from_bits(state ^ (state >> 29));
        if !value.is_finite() {
            continue;
        }
        for text in [format!("{value:e}"), format!("{value:.14e}"), format!("{value:.16e}")] {
            if scan(text.as_bytes(), Bounds::REQUEST).is_ok() {
                accepted += 1;
                let read: f64 = serde_json::from_str(&text).unwrap();
                assert_eq!(read.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
            }
        }
    }
    assert!(accepted > 50_000, "{accepted}");
}
