//! A folder as a store.

use super::{Name, failed};
use crate::error::{Error, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder that can be written.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The folder `path`, made where there is none.
    pub fn open(path: PathBuf) -> Result<Self> {
        match prepare(&path) {
            Ok(()) => Ok(Self(path)),
            Err(cause) => Err(Error::config(format!(
                "the storage folder {} cannot be written: {cause}",
                path.display()
            ))),
        }
    }

    /// The folder that is used where none is named: in the user's cache, so that addresses outlive a restart, or among
    /// temporary files where that cannot be written.
    pub fn usual() -> Result<Self> {
        let temporary = std::env::temp_dir().join("easel").join("images");
        match cache() {
            Some(cache) => Self::open(cache.join("easel").join("images")).or_else(|_| Self::open(temporary)),
            None => Self::open(temporary),
        }
    }

    /// The folder as `object_store` sees it, which writes a file beside its place and then renames it.
    pub fn objects(&self) -> Result<Arc<dyn ObjectStore>> {
        let objects = LocalFileSystem::new_with_prefix(&self.0);
        Ok(Arc::new(objects.map_err(|cause| Error::config(format!("the storage folder: {cause}")))?))
    }

    /// See [`super::Store::sweep`].
    pub async fn sweep(&self, now: u64) -> Result<usize> {
        let folder = self.0.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&folder, now)).await;
        let swept = swept.map_err(|cause| Error::internal(format!("the sweep broke off: {cause}")))?;
        swept.map_err(|cause| failed("be swept", &cause))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// The user's cache, as the XDG base directory specification has it.
fn cache() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    given.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
}

/// Makes the folder, open to its owner alone since names are secrets, and tries to write into it.
fn prepare(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    let trial = path.join(format!(".easel-{}", std::process::id()));
    fs::write(&trial, b"easel")?;
    fs::remove_file(&trial)
}

/// Deletes what is past its end, also the halves of files that a process left which ended while it wrote.
fn sweep(folder: &Path, now: u64) -> io::Result<usize> {
    let mut swept = Ok(0);
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        if file.to_str().and_then(named).is_none_or(|name| name.expires() > now) {
            continue;
        }
        match fs::remove_file(folder.join(&file)) {
            Ok(()) => swept = swept.map(|count| count + 1),
            // Another server was faster.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => swept = Err(cause),
        }
    }
    swept
}

/// The name of a file, or of the file that a half one, `NAME#NUMBER`, was to become.
fn named(file: &str) -> Option<Name> {
    match file.split_once('#') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => Name::parse(name),
        Some(_) => None,
        None => Name::parse(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_refused_at_once_with_its_name() {
        let file = std::env::temp_dir().join(format!("easel-folder-{}", std::process::id()));
        fs::write(&file, b"in the way").unwrap();
        for folder in [file.clone(), file.join("below")] {
            let refused = Folder::open(folder.clone()).unwrap_err();
            assert!(refused.message().contains(&folder.display().to_string()), "{refused}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_new_folder_is_its_owners_alone_and_holds_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let outer = std::env::temp_dir().join(format!("easel-owner-{}", std::process::id()));
        let folder = outer.join("images");
        Folder::open(folder.clone()).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(&outer).unwrap();
    }
}
