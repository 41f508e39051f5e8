//! Where Linux and its kin keep a user's data: the XDG Base Directory Specification.

use std::ffi::OsString;
use std::path::PathBuf;

pub(super) fn data_home(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The specification has relative paths passed over.
    let named = var("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(PathBuf::from(var("HOME")?).join(".local/share")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_home_with(vars: &[(&str, &str)]) -> Option<PathBuf> {
        data_home(|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn xdg_data_home_comes_before_home() {
        let home = ("HOME", "/home/me");
        let of_home = Some(PathBuf::from("/home/me/.local/share"));
        assert_eq!(data_home_with(&[home, ("XDG_DATA_HOME", "/d")]), Some("/d".into()));
        assert_eq!(data_home_with(&[home, ("XDG_DATA_HOME", "relative")]), of_home);
        assert_eq!(data_home_with(&[home]), of_home);
        assert_eq!(data_home_with(&[]), None);
    }
}
