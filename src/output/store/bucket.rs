//! A bucket as a store: S3 and what speaks its language, Google Cloud Storage, Azure.

use super::{Name, failed};
use crate::error::{Error, Result};
use crate::output::Format;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{Attribute, Attributes, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// What a signed address allows.
pub(super) const GET: Method = Method::GET;

/// A bucket, who signs its addresses, and the path below which names lie.
type Opened = (Arc<dyn ObjectStore>, Arc<dyn Signer>, Path);

/// Opens the bucket of an address.
pub(super) fn open(address: &str) -> Result<Opened> {
    let (scheme, rest) = address.split_once("://").unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let prefix = Path::from_url_path(path).map_err(|cause| refused(address, &cause.to_string()))?;
    let opened = match scheme {
        "s3" => AmazonS3Builder::from_env().with_url(address).with_retry(retries()).build().map(both),
        "gs" => {
            GoogleCloudStorageBuilder::from_env().with_url(address).with_retry(retries()).build().map(both)
        }
        "az" => MicrosoftAzureBuilder::from_env().with_url(address).with_retry(retries()).build().map(both),
        _ => return Err(refused(address, "it must be a folder, or begin with s3://, gs:// or az://")),
    };
    let (objects, signer) = opened.map_err(|cause| refused(address, &cause.to_string()))?;
    Ok((objects, signer, prefix))
}

/// One bucket in its two roles.
fn both(bucket: impl ObjectStore + Signer) -> (Arc<dyn ObjectStore>, Arc<dyn Signer>) {
    let bucket = Arc::new(bucket);
    (Arc::clone(&bucket) as Arc<dyn ObjectStore>, bucket)
}

/// A caller waits meanwhile: a bucket that does not answer in half a minute is not there.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}

fn refused(address: &str, why: &str) -> Error {
    Error::config(format!("storage '{address}' cannot be used: {why}"))
}

/// What the bucket says of a file to those who fetch it.
pub(super) fn attributes(format: Format, lifetime: Duration) -> Attributes {
    let fresh = format!("public, max-age={}, immutable", lifetime.as_secs());
    Attributes::from_iter([
        (Attribute::ContentType, format.mime().to_owned()),
        (Attribute::CacheControl, fresh),
        (Attribute::ContentDisposition, "inline".to_owned()),
    ])
}

/// See [`super::Store::sweep`].
pub(super) async fn sweep(objects: &Arc<dyn ObjectStore>, prefix: &Path, now: u64) -> Result<usize> {
    let below = prefix.clone();
    let past = move |path: &Path| {
        let mut parts = path.prefix_match(&below).into_iter().flatten();
        let name = parts.next().and_then(|part| Name::parse(part.as_ref()));
        name.is_some_and(|name| name.expires() <= now) && parts.next().is_none()
    };
    let all = objects.list(Some(prefix)).map_ok(|file| file.location);
    let mut deleted =
        objects.delete_stream(all.try_filter(move |path| std::future::ready(past(path))).boxed());
    let mut swept = Ok(0);
    while let Some(deletion) = deleted.next().await {
        match deletion {
            Ok(_) => swept = swept.map(|count| count + 1),
            // Another server was faster.
            Err(object_store::Error::NotFound { .. }) => {}
            Err(cause) => swept = Err(failed("be swept", &cause)),
        }
    }
    swept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_no_bucket_is_refused_by_name() {
        for address in ["ftp://host/path", "file:///tmp", "http://host", "s3://", "://", "gs:///path"] {
            let refused = open(address).map(|_| ()).unwrap_err();
            assert!(refused.message().contains(address), "{refused}");
        }
    }
}
