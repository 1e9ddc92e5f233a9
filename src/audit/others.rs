//! The other logs of a state folder: their heads are put on record here, so that a log that goes missing is
//! missed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::record::OtherHead;

/// A checkpoint is a few short lines; a longer file is none.
const CHECKPOINT_BYTES_MAX: u64 = 4_096;
/// Logs whose heads one record holds.
const LOGS_MAX: usize = 64;
/// After so many records of this log's own, all heads are put on record again: a start finds them at its end.
const AGAIN_AFTER_RECORDS: u64 = 16_384;

/// The other logs of a state folder, and what is on record of them.
#[derive(Debug)]
pub(super) struct Others {
    folder: PathBuf,
    own: String,
    recorded: BTreeMap<String, u64>,
    /// How long this log was when all it knows was put on record.
    said: u64,
}

impl Others {
    /// The logs in `folder` other than `own`.
    pub(super) fn new(folder: &Path, own: &str) -> Self {
        Self { folder: folder.to_owned(), own: own.to_owned(), recorded: BTreeMap::new(), said: 0 }
    }

    /// The heads that have something new to say.
    ///
    /// A log that has grown by one record only may have done so to put our head on record: if that were
    /// recorded in turn, idle logs would grow for ever.
    pub(super) fn news(&mut self) -> Vec<OtherHead> {
        let own = read(&self.folder.join(&self.own).join("checkpoint")).map_or(0, |(_, size)| size);
        if own >= self.said.saturating_add(AGAIN_AFTER_RECORDS) {
            self.said = own;
            self.recorded.clear();
        }
        let mut news = Vec::new();
        for log in self.logs() {
            let path = self.folder.join(&log).join("checkpoint");
            let Some((checkpoint, size)) = read(&path) else { continue };
            let is_news = match self.recorded.get(&log) {
                None => size > 0,
                Some(recorded) => size > recorded.saturating_add(1),
            };
            if is_news && news.len() < LOGS_MAX {
                self.recorded.insert(log.clone(), size);
                news.push(OtherHead { checkpoint, log });
            }
        }
        news
    }

    fn logs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut logs: Vec<_> = names.filter(|name| *name != self.own).collect();
        logs.sort();
        logs
    }
}

/// A checkpoint as it was published, and its size.
fn read(path: &Path) -> Option<(String, u64)> {
    if fs::metadata(path).ok()?.len() > CHECKPOINT_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let size = text.lines().nth(1)?.parse().ok()?;
    Some((text, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(folder: &Path, log: &str, size: u64) {
        fs::create_dir_all(folder.join(log)).unwrap();
        fs::write(folder.join(log).join("checkpoint"), format!("o/{log}\n{size}\nhash\n\n— o sig\n"))
            .unwrap();
    }

    fn sizes(others: &mut Others) -> Vec<(String, String)> {
        let size = |head: &OtherHead| head.checkpoint.lines().nth(1).unwrap().to_owned();
        others.news().into_iter().map(|head| (head.log.clone(), size(&head))).collect()
    }

    #[test]
    fn the_heads_of_others_are_news_once_and_ones_own_never() {
        let folder = tempfile::tempdir().unwrap();
        for (log, size) in [("serve-0", 5), ("serve-1", 7), ("stdio-0", 0)] {
            publish(folder.path(), log, size);
        }
        fs::write(folder.path().join("origin"), "x").unwrap();
        let mut others = Others::new(folder.path(), "serve-0");
        assert_eq!(sizes(&mut others), [("serve-1".to_owned(), "7".to_owned())]);
        assert_eq!(sizes(&mut others), []);
        publish(folder.path(), "serve-1", 9);
        publish(folder.path(), "stdio-0", 1);
        let news = [("serve-1".to_owned(), "9".to_owned()), ("stdio-0".to_owned(), "1".to_owned())];
        assert_eq!(sizes(&mut others), news);
    }

    #[test]
    fn a_busy_log_says_again_what_it_knows_of_idle_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut others = Others::new(folder.path(), "serve-0");
        publish(folder.path(), "serve-1", 5);
        let news = [("serve-1".to_owned(), "5".to_owned())];
        assert_eq!(sizes(&mut others), news);
        for (own, is_said) in
            [(16_383, false), (16_384, true), (16_385, false), (40_000, true), (56_383, false)]
        {
            publish(folder.path(), "serve-0", own);
            let expected = if is_said { &news[..] } else { &[] };
            assert_eq!(sizes(&mut others), expected, "{own}");
        }
    }

    #[test]
    fn idle_logs_do_not_grow_by_recording_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut sizes = [3_u64, 4, 5];
        let names = ["a-0", "b-0", "c-0"];
        let mut logs = names.map(|name| Others::new(folder.path(), name));
        for _ in 0..20 {
            for (name, size) in names.iter().zip(sizes) {
                publish(folder.path(), name, size);
            }
            for (log, size) in logs.iter_mut().zip(&mut sizes) {
                *size += u64::from(!log.news().is_empty());
            }
        }
        assert_eq!(sizes, [4, 5, 6]);
    }
}
