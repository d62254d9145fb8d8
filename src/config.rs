//! The command line: one struct in groups, every variable of the environment named, values checked once.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// auto or cpu
    #[arg(long, env = "EASEL_DEVICE", default_value = "auto")]
    pub device: String,
    /// auto, f32, bf16 or f16
    #[arg(long, env = "EASEL_DTYPE", default_value = "auto")]
    pub dtype: String,
    /// Threads that compute [default: as many as the process may use]
    #[arg(long, env = "EASEL_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
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
    /// Requests that may wait; one more is answered 429
    #[arg(long, env = "EASEL_MAX_QUEUE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: u32,
    /// How log lines are written
    #[arg(long, env = "EASEL_LOG", value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
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
    /// How much to change that picture, above 0 and up to 1
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
    /// Rows of a call
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub rows: Vec<u16>,
    /// The parts to time
    #[arg(long, value_enum, value_delimiter = ',', default_value = "unet,vae,clip")]
    pub what: Vec<Part>,
    /// Timed runs of each, after one that is not counted
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// What rows cost at the model's own size, as the server measures it when it starts; instead of `--what`
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
}
