#!/usr/bin/env python3
"""Open-loop load: requests arrive as they do from many strangers, whether or not the server keeps up.

    tests/load/open_loop.py --server http://127.0.0.1:8080 --pid $(pidof easel) --seconds 600 --load 1.2

First measures the capacity (a closed loop of --closed callers for --measure seconds), then sends requests at
`load` times that rate, at times of a Poisson process with a fixed seed, until the time or --most requests are over, and
waits for all answers. Fails (exit status 1) if a request was lost (neither 200 nor 429), if the server's /metrics do
not add up exactly with what was counted here, or if its memory grew by more than --growth MiB over the second half.

Python 3.11, standard library only.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter

ROUTE = "/v1/images/generations"
SAMPLERS = ["euler", "euler_ancestral", "dpmpp_2m", "heun", "ddim", "uni_pc"]
PROMPTS = ["red apple", "cat face", "pizza on a blue background", "green tree", "yellow star", "sailing boat"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--pid", type=int, help="the server's process, to read its memory from /proc")
    parser.add_argument("--seconds", type=float, default=60, help="how long requests arrive")
    parser.add_argument("--most", type=int, default=100_000, help="the most requests")
    parser.add_argument("--load", type=float, default=1.2, help="arrivals as a multiple of the capacity")
    parser.add_argument("--rate", type=float, help="requests a second, instead of measuring the capacity")
    parser.add_argument("--measure", type=float, default=20, help="how long the capacity is measured")
    parser.add_argument("--closed", type=int, default=16, help="callers at once while it is measured")
    parser.add_argument("--size", default="64x64,96x64", help="sizes to choose from")
    parser.add_argument("--steps", default="1,2,4,8,12", help="step counts to choose from")
    parser.add_argument("--keys", type=int, default=5, help="how many API keys the callers share")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=300, help="past it, an answer counts as lost")
    parser.add_argument("--growth", type=float, default=64, help="MiB that memory may grow over the second half")
    return parser.parse_args()


class Client:
    """Sends requests of a fixed random mix and counts their answers."""

    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.address = urllib.parse.urlsplit(options.server)
        self.statuses = Counter()
        self.pictures = 0
        self.latencies = []
        self.waits = []
        self.retry_after = []
        self.losses = []

    def body(self):
        choose, options = self.random.choice, self.options
        return {
            "prompt": choose(PROMPTS),
            "size": choose(options.size.split(",")),
            "steps": int(choose(options.steps.split(","))),
            "sampler": choose(SAMPLERS),
            "guidance_scale": choose([1, 1, 5]),
            "seed": self.random.randrange(1 << 32),
            "n": choose([1, 1, 1, 2]),
        }

    async def ask(self, body, key):
        """One request on a connection of its own. Counts its status, or the word for what befell it."""
        began = time.monotonic()
        try:
            status, headers, answer = await asyncio.wait_for(self.exchange(body, key), self.options.timeout)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as failure:
            self.statuses["lost"] += 1
            self.losses.append(repr(failure))
            return "lost"
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(time.monotonic() - began)
            self.waits.append(int(headers["easel-queue-ms"]) / 1000)
            pictures = len(json.loads(answer)["data"])
            self.pictures += pictures
            if pictures != body["n"]:
                self.losses.append(f"{pictures} pictures came of {body['n']}")
        elif status == 429:
            self.retry_after.append(int(headers["retry-after"]))
        else:
            self.losses.append(f"{status}: {answer[:200]!r}")
        return status

    async def exchange(self, body, key):
        payload = json.dumps(body).encode()
        head = (
            f"POST {ROUTE} HTTP/1.1\r\nhost: {self.address.netloc}\r\nconnection: close\r\n"
            f"authorization: Bearer load-{key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(payload)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port or 80)
        try:
            writer.write(head.encode() + payload)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            return int(lines[0].split(" ")[1]), headers, await reader.readexactly(int(headers["content-length"]))
        finally:
            writer.close()

    async def closed(self):
        """The capacity in requests a second: as many as are answered when some callers always wait."""
        until, before = time.monotonic() + self.options.measure, self.statuses[200]
        began = time.monotonic()

        async def caller(key):
            while time.monotonic() < until:
                await self.ask(self.body(), key)

        await asyncio.gather(*(caller(key) for key in range(self.options.closed)))
        return (self.statuses[200] - before) / (time.monotonic() - began)

    async def open(self, rate, watch):
        """Sends requests at `rate` and waits for all their answers."""
        began, due, asked = time.monotonic(), 0.0, set()
        sent = 0
        while sent < self.options.most:
            due += self.random.expovariate(rate)
            if due > self.options.seconds:
                break
            body, key = self.body(), self.random.randrange(self.options.keys)
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            task = asyncio.create_task(self.ask(body, key))
            asked.add(task)
            task.add_done_callback(asked.discard)
            sent += 1
            watch(time.monotonic() - began)
        print(f"  {sent} requests sent in {time.monotonic() - began:.1f} s; waiting for {len(asked)} answers")
        await asyncio.gather(*asked)
        return sent


def samples(options):
    """The series of /metrics with their values."""
    with urllib.request.urlopen(options.server + "/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}


def memory(pid):
    """MiB that a process holds."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))


class Memory:
    """The process' memory once a second while requests arrive."""

    def __init__(self, options):
        self.pid, self.seconds, self.readings = options.pid, options.seconds, []

    def __call__(self, at):
        if self.pid and (not self.readings or at - self.readings[-1][0] >= 1):
            self.readings.append((at, memory(self.pid)))

    def growth(self):
        """MiB between the highest reading of the second quarter and that of the last one."""
        quarter = lambda k: max((mib for at, mib in self.readings if int(4 * at / self.seconds) == k), default=None)
        early, late = quarter(1), quarter(3)
        return None if early is None or late is None else late - early


def settled(options):
    """The metrics when nothing is inside any more."""
    for _ in range(100):
        now = samples(options)
        if now["easel_queue_depth"] == 0 and now["easel_running_jobs"] == 0:
            return now
        time.sleep(0.2)
    return now


def compare(client, before, after):
    """Each sum of the server's beside this client's; true if all agree."""
    moved = lambda series: after.get(series, 0.0) - before.get(series, 0.0)
    total = lambda name, match="": sum(
        moved(series) for series in after.keys() | before.keys() if series.split("{")[0] == name and match in series
    )
    answered = client.statuses[200] + client.statuses[429]
    rows = [
        (f"requests answered {status}", moved(f'easel_requests_total{{route="{ROUTE}",status="{status}"}}'), count)
        for status, count in sorted(client.statuses.items(), key=str)
        if status != "lost"
    ]
    rows += [
        ("requests in all", total("easel_requests_total", ROUTE), sum(client.statuses.values())),
        ("refused: queue_full", moved('easel_rejected_total{reason="queue_full"}'), client.statuses[429]),
        ("refused in all", total("easel_rejected_total"), sum(client.statuses.values()) - client.statuses[200]),
        ("pictures drawn", moved("easel_images_total"), client.pictures),
        ("jobs begun", moved("easel_queue_wait_seconds_count"), client.pictures),
        ("answers encoded", moved('easel_stage_seconds_count{stage="output"}'), client.statuses[200]),
        ("pictures decoded", moved('easel_stage_seconds_count{stage="decode"}'), client.pictures),
        ("jobs cancelled", moved("easel_cancelled_total"), 0),
        ("UNet calls timed", total("easel_step_seconds_count"), moved("easel_batch_rows_count")),
        ("left inside", after["easel_queue_depth"] + after["easel_running_jobs"], 0),
        ("lost", client.statuses["lost"], 0),
        ("neither 200 nor 429", sum(client.statuses.values()) - answered, 0),
    ]
    for name, server, here in rows:
        print(f"  {'ok ' if server == here else 'BAD'} {name:28} server {server:10.0f}   here {here:10.0f}")
    calls = moved("easel_batch_rows_count")
    print(f"  rows a UNet call: {moved('easel_batch_rows_sum') / max(calls, 1):.2f} over {calls:.0f} calls")
    return all(server == here for _, server, here in rows)


def quantiles(name, values):
    values = sorted(values)
    if values:
        at = lambda q: values[min(len(values) - 1, int(q * len(values)))]
        print(f"  {name:12} p50 {at(0.5):8.2f}  p90 {at(0.9):8.2f}  p99 {at(0.99):8.2f}  most {values[-1]:8.2f} s")


async def main():
    options = arguments()
    client, before = Client(options), settled(options)
    rate = options.rate
    if rate is None:
        capacity = await client.closed()
        rate = options.load * capacity
        print(f"capacity {capacity:.2f} requests/s; arrivals at {rate:.2f}/s for {options.seconds:.0f} s")
    client.latencies, client.waits = [], []
    watch, began, drawn = Memory(options), time.monotonic(), client.pictures
    await client.open(rate, watch)
    print(f"  {(client.pictures - drawn) / (time.monotonic() - began):.2f} pictures/s while under load")
    print("answers: " + ", ".join(f"{status}: {count}" for status, count in sorted(client.statuses.items(), key=str)))
    quantiles("latency", client.latencies)
    quantiles("queue wait", client.waits)
    quantiles("retry-after", client.retry_after)
    for loss in client.losses[:10]:
        print(f"  lost: {loss}")
    good = compare(client, before, settled(options)) and not client.losses
    growth = watch.growth()
    if growth is not None:
        first, last = watch.readings[0][1], watch.readings[-1][1]
        print(f"memory: {first:.0f} MiB at first, {last:.0f} at last; {growth:+.0f} from the second to the last quarter")
        good = good and growth <= options.growth
    print("PASSED" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
