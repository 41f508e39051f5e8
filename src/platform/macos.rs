//! Where macOS keeps a user's data.

use std::ffi::OsString;
use std::path::PathBuf;

pub(super) fn data_home(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    Some(PathBuf::from(var("HOME")?).join("Library/Application Support"))
}
