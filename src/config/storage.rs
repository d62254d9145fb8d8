//! Settings of the pictures that callers fetch.

use super::PublicUrl;
use clap::Args;

/// Where pictures are kept that callers fetch by their address, how long, and what that address begins with.
#[derive(Debug, Clone, Args)]
pub struct StorageArgs {
    /// Where pictures are kept that callers fetch: a folder, s3://, gs:// or az:// [default: in the user's cache]
    #[arg(long, env = "EASEL_STORAGE", value_name = "FOLDER|URL")]
    pub storage: Option<String>,
    /// How callers reach the server, as https://HOST/PATH [default: the host that each request names]
    #[arg(long, env = "EASEL_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,
    /// Seconds that such a picture is kept; a bucket signs addresses for a week at most
    #[arg(long, env = "EASEL_URL_LIFETIME", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub url_lifetime: u32,
}
