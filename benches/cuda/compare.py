#!/usr/bin/env python3
"""Times easel and diffusers on one GPU, in one run, and prints one table.

    python3 compare.py [--easel target/release/easel] [--rows 1,2,4,8] [--parts unet,vae,picture] [--compile CELLS]

Needs torch with CUDA and diffusers 0.42. Both sides take SDXL's real sizes with random weights, which cost what trained
ones cost. diffusers runs channels last, its VAE in bf16 as easel's, and for the cells under --compile also as
torch.compile makes it: --mode says how (max-autotune; reduce-overhead takes some two and a half minutes), --blocks compiles
the UNet's repeated transformer blocks alone and leaves its convolutions, its norms and the VAE as they are. A whole network
takes max-autotune more than eight minutes for
each shape on an idle GPU, even with TORCHINDUCTOR_MAX_AUTOTUNE_CONV_BACKENDS=ATEN, which leaves out Triton's convolutions;
TORCHINDUCTOR_MAX_AUTOTUNE_GEMM_BACKENDS=ATEN leaves out its products too. All is compiled before anything is timed, and
with --hold FILE nothing is timed before that file is there.

unet     one evaluation: a row is one latent in the call
vae      one decode
picture  from prompt to pixels: 1024x1024, 30 Euler steps, guidance 5, and 512x512, 1 step, no guidance; a row is a picture
Times are medians in milliseconds. TFLOP/s count what `easel bench` counts, over the measured peak: a product of two
8192x8192 matrices of random numbers, and a copy of 4 GiB counted read and written.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {"1024x1024": dict(steps=30, guidance=5.0), "512x512": dict(steps=1, guidance=1.0)}


def milliseconds(call, runs):
    import torch
    call()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def peaks():
    import torch
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = milliseconds(lambda: a @ b, 20)
    source, target = (torch.empty(4 << 30, device="cuda", dtype=torch.uint8) for _ in range(2))
    copy = milliseconds(lambda: target.copy_(source), 10)
    return 2 * 8192**3 / product / 1e9, 2 * (4 << 30) / copy / 1e9


def easel(args, size, parts, rows, dtype):
    """Lines of `easel bench`."""
    case = CASES[size]
    command = [args.easel, "bench", "--model", "dummy:sdxl", "--device", "cuda", "--dtype", dtype, "--size", size,
               "--rows", ",".join(map(str, rows)), "--what", ",".join(parts), "--runs", str(args.runs), "--json",
               "--steps", str(case["steps"]), "--guidance", str(case["guidance"])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Peer:
    """diffusers' pipeline with random weights, but for the text encoders, whose prompts are drawn at random too."""

    def __init__(self, dtype, compiling=None, blocks=False):
        import torch
        from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
        configs = json.loads((ROOT / "models/sdxl.json").read_text())
        self.torch = torch
        self.dtype = getattr(torch, {"f16": "float16", "bf16": "bfloat16"}[dtype])
        self.unet = self.random(UNet2DConditionModel, configs["unet"], self.dtype)
        # diffusers keeps SDXL's own VAE in f32, because it overflows in f16; bf16 is what the same weights allow.
        levels = len(configs["vae"]["block_out_channels"])
        vae = dict(configs["vae"], down_block_types=["DownEncoderBlock2D"] * levels,
                   up_block_types=["UpDecoderBlock2D"] * levels)
        self.vae = self.random(AutoencoderKL, vae, torch.bfloat16)
        self.scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                                steps_offset=1, timestep_spacing="leading")
        self.run_unet = self.unet
        self.decode = self.vae.decode
        if compiling:
            options = dict(mode=compiling, fullgraph=True, dynamic=False)
            if blocks:
                self.unet.compile_repeated_blocks(**options)
            else:
                self.run_unet = torch.compile(self.unet, **options)
                self.decode = torch.compile(self.vae.decode, **options)

    def random(self, kind, config, dtype):
        torch = self.torch
        with torch.device("meta"):
            model = kind(**{name: value for name, value in config.items() if not name.startswith("_")})
        model = model.to(dtype).to_empty(device="cuda").eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 1:
                    weight.fill_(1.0 if name.endswith("weight") else 0.0)
                else:
                    weight.uniform_(-1, 1).mul_((3.0 / weight[0].numel()) ** 0.5)
        return model.to(memory_format=torch.channels_last)

    def conditions(self, rows, side):
        torch = self.torch
        text = torch.randn(rows, 77, 2048, device="cuda", dtype=self.dtype)
        added = dict(text_embeds=torch.randn(rows, 1280, device="cuda", dtype=self.dtype),
                     time_ids=torch.tensor([[side, side, 0, 0, side, side]] * rows, device="cuda", dtype=self.dtype))
        return dict(encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)

    def latents(self, rows, side):
        torch = self.torch
        noise = torch.randn(rows, 4, side // 8, side // 8, device="cuda", dtype=self.dtype)
        return noise.contiguous(memory_format=torch.channels_last)

    def predict(self, x, step, conditions):
        # What is compiled is compiled anew for other strides, and may keep its result where the next call writes.
        self.torch.compiler.cudagraph_mark_step_begin()
        x = x.contiguous(memory_format=self.torch.channels_last)
        return self.run_unet(x, step, **conditions)[0].clone()

    def decoded(self, x):
        self.torch.compiler.cudagraph_mark_step_begin()
        x = x.to(self.torch.bfloat16).contiguous(memory_format=self.torch.channels_last)
        return self.decode(x, return_dict=False)[0].clone()

    def time_unet(self, rows, side, runs):
        x, conditions = self.latents(rows, side), self.conditions(rows, side)
        step = self.torch.tensor(500.0, device="cuda")
        return milliseconds(lambda: self.predict(x, step, conditions), runs)

    def time_vae(self, rows, side, runs):
        x = self.latents(rows, side)
        return milliseconds(lambda: self.decoded(x), runs)

    def time_picture(self, rows, side, runs):
        """The loop of StableDiffusionXLPipeline, without its text encoders, its checks and its conversion to PIL."""
        case = CASES[f"{side}x{side}"]
        guided = case["guidance"] > 1
        conditions = self.conditions(2 * rows if guided else rows, side)
        if guided:
            # What SDXL's pipeline takes for an absent negative prompt.
            conditions["encoder_hidden_states"][:rows] = 0
            conditions["added_cond_kwargs"]["text_embeds"][:rows] = 0

        def draw():
            self.scheduler.set_timesteps(case["steps"], device="cuda")
            x = self.latents(rows, side) * self.scheduler.init_noise_sigma
            for step in self.scheduler.timesteps:
                seen = self.scheduler.scale_model_input(self.torch.cat([x, x]) if guided else x, step)
                noise = self.predict(seen, step, conditions)
                if guided:
                    negative, positive = noise.chunk(2)
                    noise = negative + case["guidance"] * (positive - negative)
                x = self.scheduler.step(noise, step, x, return_dict=False)[0]
            x = x / 0.13025
            # One at a time, as easel decodes: both sides are bound by arithmetic there.
            pictures = [self.decoded(x[k:k + 1]) for k in range(rows)]
            return [((p / 2 + 0.5).clamp(0, 1) * 255).round().to(self.torch.uint8).cpu() for p in pictures]

        return milliseconds(draw, max(2, runs // 4))


def compiled_peer(args, cells):
    """A peer that has drawn every one of `cells`, so that all is compiled; none if there are no cells."""
    if not cells:
        return None
    import torch
    peer = Peer(args.dtypes.split(",")[0], args.mode, args.blocks)
    for size, part, count in cells:
        start = time.perf_counter()
        getattr(peer, f"time_{part}")(count, int(size.split("x")[0]), 1)
        print(f"# {size} {part} {count} compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    torch.compiler.set_stance("fail_on_recompile")
    return peer


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--easel", help="the binary; without it diffusers alone is timed")
    parser.add_argument("--rows", default="1,2,4,8")
    parser.add_argument("--parts", default="unet,vae,picture")
    parser.add_argument("--sizes", default="1024x1024,512x512")
    parser.add_argument("--dtypes", default="f16,bf16")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--compile", default="", metavar="CELLS",
                        help="what is also timed compiled, for instance 1024x1024:unet:2,1024x1024:picture:1")
    parser.add_argument("--mode", default="max-autotune", help="torch.compile's mode")
    parser.add_argument("--blocks", action="store_true", help="compile the repeated blocks of the UNet alone")
    parser.add_argument("--no-eager", action="store_true", help="leave out diffusers as it is without torch.compile")
    parser.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN time its algorithms for diffusers")
    parser.add_argument("--hold", type=pathlib.Path, metavar="FILE", help="wait for this file before timing")
    return parser.parse_args()


def main():
    args = arguments()
    import torch
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    parts, sizes = args.parts.split(","), args.sizes.split(",")
    rows = [int(count) for count in args.rows.split(",")]
    cells = [(size, part, int(count)) for size, part, count in
             (cell.split(":") for cell in args.compile.split(",") if cell)]
    lines, work = {}, {}

    def put(key, column, value):
        lines.setdefault(key, {})[column] = value
        print("#", *key, f"{column}: {value:.2f}", file=sys.stderr, flush=True)

    def time_peer(peer, name, wanted):
        for size, part, count in wanted:
            try:
                put((size, part, count), name, getattr(peer, f"time_{part}")(count, int(size.split("x")[0]), args.runs))
            except Exception as error:  # the table is worth more than one of its cells
                print(f"# {size} {part} {count} {name}: {error}", file=sys.stderr, flush=True)

    with torch.inference_mode():
        compiled = compiled_peer(args, cells)
        while args.hold and not args.hold.exists():
            time.sleep(0.2)
        product, copy = peaks()
        for dtype in args.dtypes.split(","):
            for size in sizes if args.easel else []:
                for line in easel(args, size, parts, rows, dtype):
                    key = (size, line["what"], line["rows"])
                    put(key, f"easel {dtype}", 1e3 * line["median_s"])
                    work[key] = line["gflops"] * line["best_s"] / 1e3
        if compiled:
            time_peer(compiled, f"diffusers {args.dtypes.split(',')[0]} compiled", cells)
            torch.compiler.set_stance("default")
        for dtype in [] if args.no_eager else args.dtypes.split(","):
            peer = Peer(dtype)
            time_peer(peer, f"diffusers {dtype}", [(s, p, count) for s in sizes for p in parts for count in rows])
            del peer
            torch.cuda.empty_cache()

    columns = list(dict.fromkeys(column for line in lines.values() for column in line))
    print(f"\n{torch.cuda.get_device_name()}; measured peak {product:.0f} TFLOP/s bf16, {copy:.1f} TB/s; times in ms")
    if compiled:
        print(f"compiled: mode {args.mode}, {'repeated blocks of the UNet' if args.blocks else 'UNet and VAE whole'}")
    widths = [max(12, len(column)) for column in columns]
    titles = " ".join(f"{column:>{width}}" for column, width in zip(columns, widths))
    print(f"{'size':>9} {'part':>8} {'rows':>4} {titles} {'of peak':>8}")
    for (size, part, count), line in lines.items():
        shown = " ".join(f"{line[c]:{w}.2f}" if c in line else f"{'-':>{w}}" for c, w in zip(columns, widths))
        ours = min((line[c] for c in line if c.startswith("easel")), default=0)
        share = work.get((size, part, count), 0) / ours * 1e3 / product if ours else 0
        print(f"{size:>9} {part:>8} {count:>4} {shown} {share:8.1%}")


if __name__ == "__main__":
    main()
