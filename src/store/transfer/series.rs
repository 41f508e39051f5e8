//! Backups by the clock: each in a file that is named for its time, of which the newest stay.
//!
//! Others may have files in the same place, of their own backups even: only names of this series'
//! form are ever removed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::{Place, Report, TransferError, backup};
use crate::ids::Timestamp;

const SUFFIX: &str = ".backup";
/// What the name of one that was broken off goes on with.
const PARTIAL: &str = ".partial";
/// `20261231T235959Z`: sorts by time.
const TIME_CHARS: usize = 16;

/// Writes everything to the new file `NAME-TIME.backup`; then removes all but the newest `keep` of
/// that name.
pub fn backup_in_series(
    from: &Place,
    name: &Path,
    keep: NonZeroUsize,
    now: Timestamp,
) -> Result<(PathBuf, Report), TransferError> {
    let mut file = name.as_os_str().to_owned();
    file.push(format!("-{}{SUFFIX}", time(now)));
    let file = PathBuf::from(file);
    let report = backup(from, &file)?;
    prune(name, keep)?;
    Ok((file, report))
}

fn time(now: Timestamp) -> String {
    let digits = now.to_string().replace(['-', ':'], "");
    digits.chars().take(TIME_CHARS - 1).chain(['Z']).collect()
}

/// Removes what is older than the newest `keep`, whole or broken off.
fn prune(name: &Path, keep: NonZeroUsize) -> Result<(), TransferError> {
    let failed = |path: &Path, error: io::Error| TransferError::File { path: path.into(), error };
    let dir = name.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = name.file_name().map(OsString::from).unwrap_or_default();
    let (mut whole, mut all) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let entry = entry.map_err(|error| failed(dir, error))?;
        let Some((time, rest)) = member(&entry.file_name(), &prefix) else { continue };
        if rest == SUFFIX {
            whole.push(time.clone());
        }
        all.push((time, entry.path()));
    }
    whole.sort_unstable_by(|left, right| right.cmp(left));
    let Some(oldest) = whole.get(keep.get() - 1) else { return Ok(()) };
    for (_, path) in all.iter().filter(|(time, _)| time < oldest) {
        fs::remove_file(path).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

/// The time in the name of a file of this series, and how the name ends.
fn member(file: &OsString, prefix: &OsString) -> Option<(String, String)> {
    let rest = file.to_str()?.strip_prefix(prefix.to_str()?)?.strip_prefix('-')?;
    let (time, rest) = rest.split_at_checked(TIME_CHARS)?;
    let form = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    let ends = rest == SUFFIX || rest.strip_suffix(PARTIAL) == Some(SUFFIX);
    (ends && time.bytes().enumerate().all(form)).then(|| (time.to_owned(), rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn names_sort_by_time() {
        let at = |seconds| time(Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(at(1_798_761_599), "20261231T235959Z");
        assert!(at(1_798_761_599) < at(1_798_761_600));
        assert_eq!(at(0).len(), TIME_CHARS);
    }

    #[test]
    fn the_newest_stay_and_others_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stays = [
            "play-20260103T000000Z.backup",
            "play-20260104T000000Z.backup",
            "play-20260105T000000Z.backup.partial",
            "play-2-20260101T000000Z.backup",
            "play-20260101T000000Z.backup.mine",
            "play-first.backup",
            "play",
        ];
        let goes = [
            "play-20260101T000000Z.backup",
            "play-20260102T000000Z.backup",
            "play-20260102T120000Z.backup.partial",
        ];
        for name in stays.iter().chain(&goes) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let prune = |keep| prune(&dir.path().join("play"), NonZeroUsize::new(keep).unwrap());
        prune(4).unwrap();
        assert!(goes.iter().take(2).all(|name| dir.path().join(name).exists()));
        prune(2).unwrap();
        assert!(stays.iter().all(|name| dir.path().join(name).exists()));
        assert!(goes.iter().all(|name| !dir.path().join(name).exists()));
    }
}
