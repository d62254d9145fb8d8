//! The command line: one struct in groups, every variable of the environment named, values checked once.

mod access;
mod public_url;
mod storage;
mod uploads;

pub use access::{AccessArgs, ModelAliases, Origins, Secret};
pub use public_url::PublicUrl;
pub use storage::StorageArgs;
pub use uploads::{FetchHost, UploadArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// An image server: OpenAI's Images API over a resident SDXL model.
#[derive(Debug, Parser)]
#[command(name = "easel", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `serve` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the Images API over HTTP (what plain `easel` does)
    Serve(ServeArgs),
    /// Draw pictures into files, without a server
    Generate(Box<GenerateArgs>),
    /// Time the parts of a model
    Bench(BenchArgs),
    /// List the models that easel knows by name
    Models {
        /// What to do with them.
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Print the OpenAPI document of the server
    Openapi,
}

/// What can be done with models.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ModelsCommand {
    /// List known models, their licences and settings
    List,
}

/// Which model to hold, and how.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// `sketch` (bundled), a diffusers folder, or `dummy:sdxl` (random weights, for benchmarks)
    #[arg(long, env = "EASEL_MODEL", default_value = "sketch")]
    pub model: String,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, env = "EASEL_DEVICE", default_value = "auto")]
    pub device: String,
    /// auto, f32, bf16 or f16
    #[arg(long, env = "EASEL_DTYPE", default_value = "auto")]
    pub dtype: String,
    /// Sizes that the model draws itself, others being resampled from the nearest of these: auto (what suits the
    /// model), any, or SMALLER..LARGER (sides of the squares that bound the area)
    #[arg(long, env = "EASEL_SIZES", value_name = "auto|any|A..B", default_value = "auto")]
    pub sizes: String,
    /// What becomes of the text encoders once prompts are encoded: auto (on a processor large ones are let go, and read anew
    /// for each new prompt), keep or release
    #[arg(long, env = "EASEL_TEXT_ENCODERS", value_enum, default_value_t = TextEncodersArg::Auto)]
    pub text_encoders: TextEncodersArg,
    /// Threads that compute [default: as many as the process may use]
    #[arg(long, env = "EASEL_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

/// What becomes of the text encoders once prompts are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextEncodersArg {
    /// What suits the device and their size.
    Auto,
    /// They stay in memory.
    Keep,
    /// They are read for each new prompt, and let go.
    Release,
}

/// Settings of `easel serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The address to listen on
    #[arg(long, env = "EASEL_HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// The port to listen on
    #[arg(long, env = "EASEL_PORT", default_value_t = 8080)]
    pub port: u16,
    /// Pictures that may be in the server at once, waiting or being drawn; one more is answered 429
    #[arg(long, env = "EASEL_MAX_QUEUE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: u32,
    /// The most rows of a UNet call: auto (what pays off, as measured when the model is warmed up) or a number
    #[arg(long, env = "EASEL_MAX_ROWS", value_name = "auto|N", default_value = "auto")]
    pub max_rows: MaxRows,
    /// Seconds that a request may take, its wait included; none sets no limit
    #[arg(long, env = "EASEL_TIMEOUT", value_name = "SECONDS|none", default_value = "600")]
    pub timeout: Timeout,
    /// Seconds that requests may go on after the first SIGTERM or SIGINT; a second one ends the program at once
    #[arg(long, env = "EASEL_GRACE", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(..=3600))]
    pub grace: u16,
    /// Who may call.
    #[command(flatten)]
    pub access: AccessArgs,
    /// Where pictures are kept.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Callers' pictures.
    #[command(flatten)]
    pub uploads: UploadArgs,
    /// How log lines are written
    #[arg(long, env = "EASEL_LOG", value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
}

/// The most rows of a UNet call; `None` leaves it to the measured cost curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxRows(pub Option<u32>);

impl FromStr for MaxRows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rows @ 1..=256) => Ok(Self(Some(rows))),
            _ if text == "auto" => Ok(Self(None)),
            _ => Err("must be auto or a whole number from 1 to 256".into()),
        }
    }
}

/// How long a request may take; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(seconds @ 1..=86_400) => Ok(Self(Some(Duration::from_secs(seconds)))),
            _ if text == "none" => Ok(Self(None)),
            _ => Err("must be none or a whole number of seconds from 1 to 86400".into()),
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

/// Settings of `easel generate`. Values are text here: the request's own types check them.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// What to draw
    pub prompt: String,
    /// What to steer away from
    #[arg(long, value_name = "PROMPT")]
    pub negative: Option<String>,
    /// WIDTHxHEIGHT in pixels [default: the model's own]
    #[arg(long, value_name = "WxH")]
    pub size: Option<String>,
    /// Sampler steps [default: the model's]
    #[arg(long, value_name = "N")]
    pub steps: Option<String>,
    /// euler, euler_ancestral, heun, dpm_2, dpmpp_2m, ... [default: the model's]
    #[arg(long, value_name = "NAME")]
    pub sampler: Option<String>,
    /// normal, karras, exponential, sgm_uniform, leading, ... [default: the model's]
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// How closely to follow the prompt; 1 is not at all [default: the model's]
    #[arg(long, value_name = "G")]
    pub guidance: Option<String>,
    /// How far to scale the guided prediction back, 0 to 1
    #[arg(long, value_name = "R")]
    pub guidance_rescale: Option<String>,
    /// The first picture's seed; each further one has the next [default: random]
    #[arg(long, value_name = "S")]
    pub seed: Option<String>,
    /// How many pictures
    #[arg(short, value_name = "N")]
    pub n: Option<String>,
    /// Layers of the text encoders to leave out
    #[arg(long, value_name = "K")]
    pub clip_skip: Option<String>,
    /// A picture to start from
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// How much to change that picture, from 0.001 to 1
    #[arg(long, value_name = "X")]
    pub strength: Option<String>,
    /// The part of the picture to draw anew: white, or transparent
    #[arg(long, value_name = "FILE")]
    pub mask: Option<PathBuf>,
    /// Where to write: .png, .jpg or .webp; several are numbered [default: the seed's name]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Settings of `easel bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// WIDTHxHEIGHT in pixels [default: the model's own]
    #[arg(long, value_name = "WxH")]
    pub size: Option<String>,
    /// Rows of a call, or pictures
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub rows: Vec<u16>,
    /// The parts to time
    #[arg(long, value_enum, value_delimiter = ',', default_value = "unet,vae,clip")]
    pub what: Vec<Part>,
    /// Sampler steps of whole pictures [default: the model's]
    #[arg(long, value_name = "N")]
    pub steps: Option<u16>,
    /// Guidance of whole pictures; 1 is none [default: the model's]
    #[arg(long, value_name = "G")]
    pub guidance: Option<f64>,
    /// Timed runs of each, after one that is not counted
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// What rows cost at `--size`, or else the model's own, as the server measures it when it starts; instead of `--what`
    #[arg(long)]
    pub curve: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// A part of a model that can be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// One UNet evaluation.
    Unet,
    /// One VAE decode.
    Vae,
    /// Both text encoders, 77 tokens.
    Clip,
    /// Whole pictures drawn together, from prompt to pixels.
    Picture,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(arguments: &[&str]) -> Result<ServeArgs, String> {
        let all = [&["easel", "serve"], arguments].concat();
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Some(Command::Serve(args)) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_word_stands_for_no_bound() {
        let args = served(&[]).unwrap();
        assert_eq!((args.max_rows, args.timeout), (MaxRows(None), Timeout(Some(Duration::from_secs(600)))));
        let args = served(&["--max-rows", "8", "--timeout", "none", "--grace", "0"]).unwrap();
        assert_eq!((args.max_rows, args.timeout, args.grace), (MaxRows(Some(8)), Timeout(None), 0));
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_the_bound() {
        for (name, value, bound) in [
            ("--max-rows", "0", "from 1 to 256"),
            ("--max-rows", "all", "auto"),
            ("--timeout", "0", "none"),
            ("--timeout", "1.5", "whole number of seconds"),
            ("--grace", "3601", "3600"),
            ("--max-queue", "0", "1"),
            ("--url-lifetime", "604801", "604800"),
            ("--public-url", "example.org", "https://HOST"),
        ] {
            let refused = served(&[name, value]).unwrap_err();
            assert!(refused.contains(bound) && refused.contains(value), "{refused}");
        }
    }
}
