#!/usr/bin/env python3
"""Times easel and diffusers on one machine's processor, side by side in one run, and prints one table.

    python3 -m venv peer && peer/bin/pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0
    peer/bin/python benches/cpu/compare.py --easel target/release/easel [unet:512 unet:1024 vae:512 vae:1024 clip]

Both sides take SDXL's real sizes with random weights, which cost what trained ones cost; diffusers' tensors lie channels last.
Each side is a process of its own, and they take turns, so that neither warms the caches or the clock for the other. Run it with
nothing else on the machine. Times are medians in seconds; peak is the most memory of the process in MiB. On a machine whose
speed drifts, `--rounds` has the sides take turns so many times, and gives the medians of what the rounds gave.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENS = 77
# What a side tells of its times and memory.
MEASURED = {"median_s", "gflops", "of_peak", "peak_mib"}


def random_model(kind, config, dtype):
    import torch
    with torch.device("meta"):
        model = kind(config) if not isinstance(config, dict) else kind(**config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                weight.uniform_(-1, 1).mul_((3.0 / weight[0].numel()) ** 0.5)
    return model


def unet(configs, side, rows, dtype):
    import torch
    from diffusers import UNet2DConditionModel
    model = random_model(UNet2DConditionModel, plain(configs["unet"]), dtype).to(memory_format=torch.channels_last)
    randn = lambda *shape: torch.randn(*shape, dtype=dtype)
    x = randn(rows, 4, side // 8, side // 8).contiguous(memory_format=torch.channels_last)
    ids = torch.tensor([[side, side, 0, 0, side, side]] * rows, dtype=dtype)
    conditions = dict(encoder_hidden_states=randn(rows, TOKENS, 2048),
                      added_cond_kwargs=dict(text_embeds=randn(rows, 1280), time_ids=ids))
    return lambda: model(x, torch.tensor(500.0), **conditions).sample


def vae(configs, side, rows, dtype):
    import torch
    from diffusers import AutoencoderKL
    config = plain(configs["vae"])
    blocks = len(config["block_out_channels"])
    config.update(down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks)
    model = random_model(AutoencoderKL, config, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(rows, 4, side // 8, side // 8, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: model.decode(x).sample


def clip(configs, side, rows, dtype):
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    models = []
    for name, kind in kinds.items():
        model = random_model(kind, CLIPTextConfig(**plain(configs[name])), dtype)
        for module in model.modules():  # a buffer, which random weights leave empty
            if hasattr(module, "position_ids"):
                module.position_ids = torch.arange(TOKENS).unsqueeze(0)
        models.append(model)
    ids = torch.arange(TOKENS).repeat(rows, 1)
    return lambda: [model(ids, output_hidden_states=True) for model in models]


def plain(config):
    return {name: value for name, value in config.items() if not name.startswith("_")}


def peer(args):
    """One cell of diffusers, as a line of JSON."""
    import torch
    configs = json.loads((ROOT / "models/sdxl.json").read_text())
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    with torch.inference_mode():
        call = globals()[args.peer](configs, args.side, args.rows, dtype)
        call()
        seconds = []
        for _ in range(args.runs):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(dict(median_s=statistics.median(seconds), peak_mib=peak)))


def output(command, threads):
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads), "EASEL_THREADS": str(threads)} if threads else {})
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def medians(lines):
    """One line for those of a side's turns."""
    return {name: statistics.median(line[name] for line in lines) for name in MEASURED & lines[0].keys()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", default=["unet:512", "vae:512", "clip"])
    parser.add_argument("--easel", default=ROOT / "target/release/easel")
    parser.add_argument("--dtypes", default="bf16", help="of easel, and of diffusers after a slash: bf16,f32/bf16")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1, help="turns of each side")
    parser.add_argument("--threads", type=int, help="threads of either side [default: all]")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args)
    print(f"{'what':<10} {'dtypes':>10} {'easel':>9} {'diffusers':>9} {'ratio':>6} {'GFLOP/s':>8} {'of peak':>8} "
          f"{'MiB':>7} {'MiB diffusers':>13}", flush=True)
    for cell in args.cells:
        what, _, side = cell.partition(":")
        for pair in args.dtypes.split(","):
            ours, _, theirs = pair.partition("/")
            own = [args.easel, "bench", "--model", "dummy:sdxl", "--what", what, "--dtype", ours, "--rows", args.rows,
                   "--runs", args.runs, "--json"] + (["--size", f"{side}x{side}"] if side else [])
            diffusers = [sys.executable, __file__, "--peer", what, "--side", side or 0, "--dtype", theirs or ours,
                         "--rows", args.rows, "--runs", args.runs]
            turns = [[output(command, args.threads)[-1] for command in (own, diffusers)] for _ in range(args.rounds)]
            line, other = (medians(lines) for lines in zip(*turns))
            ratio = line["median_s"] / other["median_s"]
            print(f"{cell:<10} {ours + '/' + (theirs or ours):>10} {line['median_s']:9.3f} {other['median_s']:9.3f} {ratio:6.2f} "
                  f"{line['gflops']:8.0f} {line['of_peak']:8.1%} {line['peak_mib']:7.0f} {other['peak_mib']:13.0f}", flush=True)


if __name__ == "__main__":
    main()
