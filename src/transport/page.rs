//! Lists in pages. A cursor stands for a place in one caller's view of one release, and for nothing else.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// How many entries a page has.
const ENTRIES_MAX: usize = 200;

/// A part of a list.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Page {
    pub(super) range: Range<usize>,
    /// The cursor of the next one.
    pub(super) next: Option<String>,
}

/// The page of a list that a cursor stands for, or none if it stands for no page of this list.
pub(super) fn of<'a>(
    release: &str,
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
    cursor: Option<&str>,
) -> Option<Page> {
    page(release, names, cursor, ENTRIES_MAX)
}

/// A cursor holds no secret: whoever makes one up for their own view gets what they could have had anyway. It is
/// bound to the view so that a list that changes half-way begins anew, and skips nothing.
fn page<'a>(
    release: &str,
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
    cursor: Option<&str>,
    entries_max: usize,
) -> Option<Page> {
    let count = names.len();
    if count <= entries_max && cursor.is_none() {
        return Some(Page { range: 0..count, next: None }); // no digest where there is one page only
    }
    let view = view(release, names);
    let start = match cursor {
        None => 0,
        Some(cursor) => {
            let (of, start) = cursor.split_once('.')?;
            let start: usize = start.parse().ok()?;
            let is_ours = of == view && cursor == format!("{view}.{start}");
            (is_ours && start > 0 && start < count && start.is_multiple_of(entries_max)).then_some(start)?
        }
    };
    let end = start.saturating_add(entries_max).min(count);
    Some(Page { range: start..end, next: (end < count).then(|| format!("{view}.{end}")) })
}

fn view<'a>(release: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    digest.update(release);
    for name in names {
        digest.update([0]);
        digest.update(name);
    }
    let digest: [u8; 32] = digest.finalize().into();
    hex::encode(digest.first_chunk::<16>().unwrap_or(&[0; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn pages(names: &[&'static str], release: &str, cursor: Option<&str>) -> Option<Page> {
        page(release, names.iter().copied(), cursor, 2)
    }

    #[test]
    fn pages_cover_a_list_without_a_gap() {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let Page { range, next } = pages(&NAMES, "r", cursor.as_deref()).unwrap();
            all.extend(range);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert_eq!(pages(&NAMES[..2], "r", None), Some(Page { range: 0..2, next: None }));
        assert_eq!(pages(&[], "r", None), Some(Page { range: 0..0, next: None }));
    }

    #[test]
    fn a_cursor_is_of_one_view_and_one_release() {
        let cursor = pages(&NAMES, "r", None).unwrap().next.unwrap();
        assert!(pages(&NAMES, "r", Some(&cursor)).is_some());
        assert_eq!(pages(&NAMES, "later", Some(&cursor)), None);
        assert_eq!(pages(&NAMES[1..], "r", Some(&cursor)), None);
        let (view, _) = cursor.split_once('.').unwrap();
        for wrong in ["", "0", ".2", "x.2", &format!("{view}."), &format!("{view}.+2"), &format!("{view}.1")]
        {
            assert_eq!(pages(&NAMES, "r", Some(wrong)), None, "{wrong}");
        }
        for start in ["0", "02", "6", "99999999999999999999"] {
            assert_eq!(pages(&NAMES, "r", Some(&format!("{view}.{start}"))), None, "{start}");
        }
    }
}
