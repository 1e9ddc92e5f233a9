//! What the strict scanner costs, next to what `serde_json` takes to read the same text: once to
//! skip over it (the floor for any reader), once into a value. Run: `cargo bench --bench strict`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark that cannot go on shall say where")]

use std::{hint::black_box, time::Duration};

use callgate::strict::{Bounds, message, scan};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

criterion_group!(benches, bodies);
criterion_main!(benches);

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("strict");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(50);
    for (name, body, bounds) in [
        ("call_1_kb", call().to_string(), Bounds::REQUEST),
        ("call_1_kb_pretty", format!("{:#}", call()), Bounds::REQUEST),
        ("keys_10_000_in_1_mb", keys("a common start "), WIDE),
        ("keys_10_000_escaped", keys("\\u0061 common start "), WIDE),
        ("floats_of_17_digits", floats(), WIDE),
    ] {
        let bytes = body.as_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut bench = |what: &str, read: &dyn Fn(&[u8])| {
            let id = BenchmarkId::new(what, name);
            group.bench_with_input(id, bytes, |bencher, bytes| bencher.iter(|| read(black_box(bytes))));
        };
        bench("scan", &|bytes| scan(bytes, bounds).unwrap());
        if name.starts_with("call") {
            bench("message", &|bytes| drop(black_box(message(bytes).unwrap())));
        }
        bench("serde_json_ignored", &|bytes| {
            black_box(serde_json::from_slice::<IgnoredAny>(bytes).unwrap());
        });
        bench("serde_json_value", &|bytes| drop(serde_json::from_slice::<Value>(bytes).unwrap()));
    }
    group.finish();
}

const WIDE: Bounds = Bounds { depth_max: 64, nodes_max: 1_000_000 };

/// A tool call of about one kilobyte, as an agent sends it.
fn call() -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": 4711,
        "method": "tools/call",
        "params": {
            "name": "issues.create",
            "arguments": {
                "repository": "acme/warehouse",
                "title": "Orders with more than one parcel are shipped twice",
                "body": "Steps:\n1. Make an order of 40 kg.\n2. Pack it as two parcels.\n3. Look at \"shipments\".\n\n\
                    What happens: each parcel has a shipment of its own, and each of them carries both labels.\n\
                    What should happen: one shipment with two parcels. It began with release 4.7.1, when the \
                    packing rules became configurable; with the old rules all is well. Größe: 120 × 80 cm.",
                "labels": ["bug", "shipping", "regression"],
                "assignees": ["alice", "bob"],
                "priority": 2,
                "estimate_hours": 6.5,
                "confidential": false,
                "milestone": null,
                "links": [{ "kind": "order", "id": 91234567 }, { "kind": "order", "id": 91234568 }]
            },
            "_meta": {
                "progressToken": "b6c1a0f2-4a54-4a2e-9d5c-0f4a4c1f2f10",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            }
        }
    })
}

/// One object with ten thousand keys that start alike.
fn keys(start: &str) -> String {
    let filler = "x".repeat(85 - start.len());
    let members: Vec<_> =
        (0..10_000).map(|index| format!("\"{start}{filler}{:05}\":1", index * 7_919 % 10_000)).collect();
    format!("{{{}}}", members.join(","))
}

/// Numbers that take the slow way.
fn floats() -> String {
    let floats: Vec<_> = (1..5_000).map(|index| format!("{:.16e}", 1.0 / f64::from(index))).collect();
    format!("[{}]", floats.join(","))
}
