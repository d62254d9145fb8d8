//! Compiles our CUDA kernels where the feature `cuda` is on; does nothing elsewhere.
//!
//! Each source becomes one fat binary: machine code for the architectures named here and PTX for later ones.
//! Needs `nvcc` on the PATH or under `CUDA_HOME`.

use std::env::{var, var_os};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sources under `KERNELS`, without their ending.
const SOURCES: [&str; 4] = ["attention", "norm", "pointwise", "product"];

/// Where they lie.
const KERNELS: &str = "src/ops/cuda/kernels";

/// Machine code for A100, for L4 and RTX 40, and for H100 with its own instructions; PTX of the first for all others.
const TARGETS: [&str; 4] = [
    "arch=compute_80,code=sm_80",
    "arch=compute_89,code=sm_89",
    "arch=compute_90a,code=sm_90a",
    "arch=compute_80,code=compute_80",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={KERNELS}");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    if var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(var("OUT_DIR").expect("cargo names the folder"));
    for source in SOURCES {
        compile(
            &Path::new(KERNELS).join(source).with_extension("cu"),
            &out.join(source).with_extension("fatbin"),
        );
    }
}

fn compile(source: &Path, target: &Path) {
    let mut nvcc = Command::new(nvcc());
    nvcc.args(["-std=c++17", "-O3", "-fatbin", "-o"]).arg(target).arg(source);
    for target in TARGETS {
        nvcc.args(["-gencode", target]);
    }
    let status = nvcc.status().unwrap_or_else(|error| panic!("nvcc does not start: {error}; set CUDA_HOME"));
    assert!(status.success(), "nvcc failed on {}", source.display());
}

fn nvcc() -> PathBuf {
    var_os("CUDA_HOME").map_or_else(|| "nvcc".into(), |home| PathBuf::from(home).join("bin/nvcc"))
}
