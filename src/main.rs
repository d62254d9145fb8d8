//! The program: `easel serve | generate | bench | models | openapi`.

mod cli;

use clap::Parser;
use easel::config::{Cli, Command, ModelArgs, ModelsCommand, TextEncodersArg};
use easel::ops::{Allocator, keep_freed};
use easel::pipeline::{LoadOptions, TextEncoders, open_device, parse_dtype};
use std::process::ExitCode;

/// Steps free and take the same buffers again and again; this allocator keeps their pages, for as long as [`keep_freed`] says.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    keep_freed();
    let Cli { command, serve } = Cli::parse();
    let result = match command {
        None => cli::serve::run(&serve),
        Some(Command::Serve(args)) => cli::serve::run(&args),
        Some(Command::Generate(args)) => cli::generate::run(&args),
        Some(Command::Bench(args)) => cli::bench::run(&args),
        Some(Command::Models { command: ModelsCommand::List }) => cli::models::list(),
        Some(Command::Openapi) => cli::openapi::print(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the number of computing threads and says where the model is to go.
fn prepare(args: &ModelArgs) -> anyhow::Result<LoadOptions> {
    let threads = match args.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let device = open_device(&args.device)?;
    Ok(LoadOptions {
        model: args.model.clone(),
        dtype: parse_dtype(&args.dtype, &device)?,
        device,
        sizes: (args.sizes != "auto").then(|| args.sizes.parse()).transpose()?,
        text_encoders: match args.text_encoders {
            TextEncodersArg::Auto => TextEncoders::Auto,
            TextEncodersArg::Keep => TextEncoders::Keep,
            TextEncodersArg::Release => TextEncoders::Release,
        },
    })
}
