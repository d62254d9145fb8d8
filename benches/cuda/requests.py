#!/usr/bin/env python3
"""Times requests to a server of easel's on one GPU: one alone, then several at once, and prints a line for each round; then as
many clients that ask anew as soon as they have their answer.

    python3 requests.py --easel target/release/easel [--model dummy:sdxl] [--dtype f16] [--at-once 8] [--rounds 2] [--seconds 120]

A request is a picture of 1024x1024 pixels, 30 Euler steps, guidance 5, and is over when its PNG has come back as base64. Prompts
and seeds differ. The server has drawn one picture, and one round, before anything counts.
"""
import argparse
import concurrent.futures
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SIZE, STEPS, GUIDANCE = "1024x1024", 30, 5.0


def draw(address, seed):
    """The seconds that a picture takes its caller."""
    body = dict(prompt=f"a lighthouse by the sea, number {seed}", size=SIZE, steps=STEPS, guidance_scale=GUIDANCE, seed=seed,
                sampler="euler", response_format="b64_json")
    request = urllib.request.Request(f"{address}/v1/images/generations", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    start = time.perf_counter()
    urllib.request.urlopen(request).read()
    return time.perf_counter() - start


def at_once(address, count, first):
    """The seconds until the last of `count` requests is answered, and those of each."""
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        each = list(pool.map(lambda seed: draw(address, seed), range(first, first + count)))
    return time.perf_counter() - start, each


def unceasing(address, clients, seconds):
    """When each picture was answered, in rising order, and the seconds that each took, of clients that ask for one after the
    other."""
    start = time.perf_counter()

    def client(number):
        answers = []
        while time.perf_counter() - start < seconds:
            taken = draw(address, 100_000 * (number + 1) + len(answers))
            answers.append((time.perf_counter() - start, taken))
        return answers

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return sorted(answer for answers in pool.map(client, range(clients)) for answer in answers)


def report_unceasing(answers, seconds, parts=4):
    """Prints the rate in each part of the time, for the server learns that requests do not cease."""
    for part in range(parts):
        begin, end = seconds * part / parts, seconds * (part + 1) / parts
        within = [taken for at, taken in answers if begin <= at < end]
        print(f"    {begin:.0f} to {end:.0f} s: {len(within) / (end - begin):.3f} pictures a second, answered after "
              f"{statistics.mean(within or [float('nan')]):.3f} s in the mean", flush=True)


def ready(process):
    """The address that the server names, once it draws; what it says is passed on."""
    address = None
    for line in process.stdout:
        sys.stderr.write(line)
        found = re.search(r"http://[\d.]+:\d+", line)
        if found:
            address = found[0]
            break
    while True:
        try:
            urllib.request.urlopen(f"{address}/readyz").read()
            return address
        except OSError:
            time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--easel", default="target/release/easel")
    parser.add_argument("--model", default="dummy:sdxl")
    parser.add_argument("--dtype", default="f16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0, help="how long clients ask without ceasing")
    args = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EASEL_")}
    with tempfile.TemporaryDirectory() as storage:
        command = [args.easel, "serve", "--model", args.model, "--dtype", args.dtype, "--device", args.device, "--port", "0",
                   "--storage", storage]
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            address = ready(process)
            draw(address, 0)
            print(f"from start to the first picture {time.perf_counter() - start:.2f} s", flush=True)
            at_once(address, args.at_once, 1)
            alone = statistics.median(draw(address, 100 + k) for k in range(5))
            print(f"{args.dtype}: one request {alone:.3f} s", flush=True)
            for number in range(args.rounds):
                taken, each = at_once(address, args.at_once, 1000 * (number + 1))
                print(f"{args.dtype}: {args.at_once} at once {taken:.3f} s, {taken / args.at_once:.3f} s each; answered after "
                      f"{statistics.mean(each):.3f} s in the mean", flush=True)
            if args.seconds:
                answers = unceasing(address, args.at_once, args.seconds)
                print(f"{args.dtype}: {args.at_once} clients that do not cease", flush=True)
                report_unceasing(answers, args.seconds)
        finally:
            process.terminate()
            process.communicate()


if __name__ == "__main__":
    main()
