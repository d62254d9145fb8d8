//! Pictures that callers fetch by their address: kept in a folder or a bucket until their time is up.
//!
//! A file's [`Name`] carries its end and cannot be guessed. Servers may share a store: each writes names of its own,
//! reads any, and sweeps what is past its end, whoever wrote it; two that sweep at once do no harm.

mod bucket;
mod folder;
mod name;

pub use name::Name;

use super::Format;
use crate::error::{Error, ErrorKind, Result};
use folder::Folder;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, PutOptions};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where pictures are kept.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    place: Place,
    lifetime: Duration,
}

/// What differs between a folder and a bucket.
#[derive(Debug, Clone)]
enum Place {
    /// A folder of this machine, or one that several mount; whoever has the store serves the files.
    Folder(Folder),
    /// Names below `prefix` in a bucket; the bucket serves the files to whom it is told to by a signed address.
    Bucket { signer: Arc<dyn Signer>, prefix: Path },
}

impl Store {
    /// Opens the store `place`: a folder, made where there is none, or `s3://`, `gs://` or `az://` with a bucket and
    /// perhaps a path, the credentials coming from the environment. No place is a folder in the user's cache, or else
    /// among the system's temporary files. Pictures live for `lifetime`.
    ///
    /// A process that opens a bucket has a default `CryptoProvider` of rustls installed before.
    ///
    /// # Errors
    /// If the folder cannot be written, the scheme is unknown, or the bucket's settings are incomplete.
    pub fn open(place: Option<&str>, lifetime: Duration) -> Result<Self> {
        match place {
            Some(place) if place.contains("://") => {
                let (objects, signer, prefix) = bucket::open(place)?;
                Ok(Self { objects, place: Place::Bucket { signer, prefix }, lifetime })
            }
            _ => {
                let folder = place.map_or_else(Folder::usual, |place| Folder::open(place.into()))?;
                Ok(Self { objects: folder.objects()?, place: Place::Folder(folder), lifetime })
            }
        }
    }

    /// Keeps a file from `now` on, in Unix seconds, whole or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the store does not take it.
    pub async fn put(&self, file: Vec<u8>, format: Format, now: u64) -> Result<Name> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)
            .map_err(|cause| Error::internal(format!("the system has no random numbers: {cause}")))?;
        let expires = now + self.lifetime.as_secs();
        let name = Name::new(expires, u128::from_le_bytes(secret), format);
        let attributes = match &self.place {
            Place::Folder(_) => Default::default(),
            Place::Bucket { .. } => bucket::attributes(format, self.lifetime),
        };
        let options = PutOptions { attributes, ..PutOptions::default() };
        let put = self.objects.put_opts(&self.path(&name), file.into(), options).await;
        put.map_err(|cause| failed("keep a picture", &cause))?;
        Ok(name)
    }

    /// The address at which the bucket serves a file until its end; none where the store is a folder.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the credentials cannot sign it.
    pub async fn address(&self, name: &Name, now: u64) -> Result<Option<String>> {
        let Place::Bucket { signer, .. } = &self.place else { return Ok(None) };
        let left = Duration::from_secs(name.expires().saturating_sub(now).max(1));
        let signed = signer.signed_url(bucket::GET, &self.path(name), left).await;
        signed.map(|url| Some(url.into())).map_err(|cause| failed("sign an address", &cause))
    }

    /// Opens a file, or a `range` of it; none where there is no such file.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the store cannot be read.
    pub async fn get(&self, name: &Name, range: Option<GetRange>) -> Result<Option<GetResult>> {
        let options = GetOptions { range, ..GetOptions::default() };
        match self.objects.get_opts(&self.path(name), options).await {
            Ok(found) => Ok(Some(found)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(failed("read a picture", &cause)),
        }
    }

    /// Deletes the files whose end is not after `now`, and tells how many. Nothing that has no [`Name`] is touched.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the store cannot be read, or a file cannot be deleted; the others then are.
    pub async fn sweep(&self, now: u64) -> Result<usize> {
        match &self.place {
            Place::Folder(folder) => folder.sweep(now).await,
            Place::Bucket { prefix, .. } => bucket::sweep(&self.objects, prefix, now).await,
        }
    }

    fn path(&self, name: &Name) -> Path {
        match &self.place {
            Place::Folder(_) => Path::from(name.as_str()),
            Place::Bucket { prefix, .. } => prefix.clone().join(name.as_str()),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Folder(folder) => folder.fmt(f),
            Place::Bucket { prefix, .. } => write!(f, "{}/{prefix}", self.objects),
        }
    }
}

/// What the store could not do, and why.
fn failed(what: &str, cause: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Storage, format!("the store cannot {what}: {cause}"))
}
