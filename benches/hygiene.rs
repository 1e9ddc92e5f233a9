//! How long a look at a text takes, beside `std::str::from_utf8` of the same bytes as the floor.

use std::hint::black_box;

use callgate::hygiene::{clean, inspect};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BYTES: usize = 64 * 1024;

fn benches(criterion: &mut Criterion) {
    let texts = [
        ("ascii", "The quick brown fox jumps over the lazy dog; 100 %, isn't it?\n"),
        ("json", r#"{"id": 12, "name": "order", "lines": [{"sku": "a-1", "count": 3}]}"#),
        ("german", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. "),
        ("arabic", "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت "),
        ("chinese", "我能吞下玻璃而不伤身体。"),
        ("persian", "می\u{200C}خواهم کتاب\u{200C}ها را ببرم "),
        ("emoji", "done ✔\u{FE0F} by 👩\u{200D}💻 and 👨🏽\u{200D}🚀 today "),
        ("terminal", "\u{1B}[1;31mred\u{1B}[0m and plain text beside it\n"),
    ];
    for (name, text) in texts {
        let text = text.repeat(BYTES / text.len());
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("floor", |bencher| {
            bencher.iter(|| std::str::from_utf8(black_box(text.as_bytes())).map(str::len))
        });
        group.bench_function("inspect", |bencher| bencher.iter(|| inspect(black_box(&text))));
        group.bench_function("clean", |bencher| bencher.iter(|| clean(black_box(&text)).0.len()));
    }
}

criterion_group!(hygiene, benches);
criterion_main!(hygiene);
