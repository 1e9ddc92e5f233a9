//! The published files beside the segments: tiles and entry bundles, held against the records.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    report::{Damage, Rule},
    tree::{Hash, leaf_hash},
    walk::{TILE_WIDTH, Tile},
};

/// The path of a tile in a log's folder (C2SP tlog-tiles): `level` is a number or `entries`.
pub fn tile_path(level: &str, index: u64, width: usize) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width == TILE_WIDTH {
        format!("tile/{level}/{path}")
    } else {
        format!("tile/{level}/{path}.p/{width}")
    }
}

/// Compares every file of a tile, and of its entry bundle, with what the records say.
///
/// `published` is the size that the checkpoint names: what it needs must exist.
pub fn check(
    log: &str,
    folder: &Path,
    published: u64,
    tile: &Tile,
    damage: &mut Vec<Damage>,
) -> io::Result<()> {
    let at_level = published.checked_shr(8 * tile.level).unwrap_or(0);
    let needed = at_level.saturating_sub(tile.index * TILE_WIDTH as u64).min(TILE_WIDTH as u64) as usize;
    let covered = 8 * tile.level;
    let mut report = |file: PathBuf, offset: u64, entry: Option<usize>, rule: Rule| {
        let first = tile.index * TILE_WIDTH as u64 + entry.unwrap_or(0) as u64;
        let index = first.checked_shl(covered).unwrap_or(0);
        let until = Some(if entry.is_some() { (first + 1) << covered } else { index + needed as u64 });
        damage.push(Damage { log: log.to_owned(), file, offset, index, until, rule });
    };
    let mut kinds: Vec<(String, Compare, Rule, Rule)> =
        vec![(tile.level.to_string(), compare_tile, Rule::Tile, Rule::TileMissing)];
    if tile.level == 0 {
        kinds.push(("entries".to_owned(), compare_bundle, Rule::Bundle, Rule::BundleMissing));
    }
    for (level, compare, differs, missing) in kinds {
        let files = files(folder, &level, tile.index)?;
        for (width, file) in &files {
            let Some(bytes) = read(file)? else { continue };
            if let Err((offset, entry)) = compare(&bytes, *width, &tile.hashes) {
                report(file.clone(), offset as u64, Some(entry.min(tile.hashes.len())), differs.clone());
            }
        }
        if files.iter().all(|(width, _)| *width < needed) && needed > 0 {
            report(folder.join(tile_path(&level, tile.index, needed)), 0, None, missing);
        }
    }
    Ok(())
}

/// Compares a file's bytes with the hashes; says the offset and the entry where they differ.
type Compare = fn(&[u8], usize, &[Hash]) -> Result<(), (usize, usize)>;

fn compare_tile(bytes: &[u8], width: usize, hashes: &[Hash]) -> Result<(), (usize, usize)> {
    let (found, rest) = bytes.as_chunks::<32>();
    let differs = found.iter().zip(hashes).position(|(found, hash)| found != hash);
    if let Some(entry) = differs {
        return Err((entry * 32, entry));
    }
    let whole = found.len() == width && rest.is_empty();
    if whole { Ok(()) } else { Err((found.len().min(width) * 32, found.len().min(width))) }
}

fn compare_bundle(mut bytes: &[u8], width: usize, hashes: &[Hash]) -> Result<(), (usize, usize)> {
    let total = bytes.len();
    for entry in 0..width {
        let at = (total - bytes.len(), entry);
        let (length, rest) = bytes.split_first_chunk().ok_or(at)?;
        let (record, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(at)?;
        if hashes.get(entry).is_some_and(|hash| *hash != leaf_hash(record)) {
            return Err(at);
        }
        bytes = rest;
    }
    if bytes.is_empty() { Ok(()) } else { Err((total - bytes.len(), width)) }
}

/// The files that exist of a tile, whole and partial, with their widths.
fn files(folder: &Path, level: &str, index: u64) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut files = Vec::new();
    let whole = folder.join(tile_path(level, index, TILE_WIDTH));
    let mut partials = whole.clone().into_os_string();
    partials.push(".p");
    match fs::read_dir(PathBuf::from(partials)) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                let width = entry.file_name().to_str().and_then(|name| name.parse().ok());
                files.extend(
                    width.filter(|width| (1..TILE_WIDTH).contains(width)).map(|width| (width, entry.path())),
                );
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    files.sort();
    if whole.try_exists()? {
        files.push((TILE_WIDTH, whole));
    }
    Ok(files)
}

/// No file that is published is larger: a bundle of 256 records, each with its length.
const FILE_BYTES_MAX: u64 = TILE_WIDTH as u64 * (2 + 65_535);

/// A file's bytes; `None` where it has gone, as partial tiles of a log that grows do. A link, a pipe, a
/// device and a file that is too large hold nothing that could be right, and are not read: whoever verifies
/// need not trust whoever made the folder.
pub fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(file) {
        Ok(about) if !about.is_file() || about.len() > FILE_BYTES_MAX => Ok(Some(Vec::new())),
        Ok(_) => match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => bytes.map(Some),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The leaf hashes `from..to` as the tiles on disk have them; `None` where one is not there.
pub fn leaves(folder: &Path, from: u64, to: u64) -> Option<Vec<Hash>> {
    let width = TILE_WIDTH as u64;
    let mut leaves = Vec::new();
    for index in from / width..to.div_ceil(width) {
        let (_, file) = files(folder, "0", index).ok()?.pop()?;
        let bytes = read(&file).ok()??;
        let (hashes, _) = bytes.as_chunks::<32>();
        let start = from.saturating_sub(index * width) as usize;
        let end = (to - index * width).min(width) as usize;
        leaves.extend(hashes.get(start..end)?);
    }
    Some(leaves)
}
