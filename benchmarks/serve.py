"""Load on `daad-jax serve`, on loopback only: throughput, memory, stops.

``python -m benchmarks.serve part.daad PICTURES`` starts the service and prints Markdown: pictures
per second and latency for several numbers of clients, beside the bare scoring function in turn.
``--what=memory`` sends 20,000 requests and prints the resident memory on the way.
``--what=stops`` ends the service with SIGTERM and SIGKILL under load, counts what became of each
request, and measures how long a restart takes. Clients share the machine with the service.
"""

import asyncio
import collections
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from daad_jax.cli import guarded
from daad_jax.cli.flags import parse_flags
from daad_jax.data.inputs import list_inputs
from daad_jax.errors import ConfigError
from daad_jax.exported import ExportedDetector, load_exported

HOST = "127.0.0.1"
_USED = "process_cpu_seconds_total"


class Service(NamedTuple):
    """A running ``daad-jax serve`` and how long it took to answer."""

    process: subprocess.Popen[str]
    port: int
    seconds: float

    def metric(self, name: str) -> float:
        """The value of a metric."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/metrics") as answer:
            found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0


def start(file: str, *arguments: str, port: int = 0) -> Service:
    """Starts the service and waits until it is ready."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "daad_jax", "serve", file, f"--port={port}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+:(\d+)", process.stdout.readline())
    if found is None:
        raise ConfigError(f"{file}: the service did not start")
    port = int(found[1])
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/readyz").close()
            return Service(process, port, time.perf_counter() - begin)
        time.sleep(0.01)


def stop(service: Service, number: signal.Signals = signal.SIGTERM) -> int:
    """Ends the service. Returns its exit code."""
    service.process.send_signal(number)
    return service.process.wait(60)


class Client:
    """One connection that sends a picture after the other. Use it as a context."""

    def __init__(self, port: int) -> None:
        """Connects when the first request is sent."""
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, body: bytes, path: str = "/v1/predict") -> str:
        """Sends a picture.

        Returns the status of the answer; "refused" if no connection could be made; "lost" if one
        was made, the request was sent, and no whole answer came.
        """
        if self._reader is None or self._reader.at_eof():
            self.close()
            try:
                self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
            except OSError:
                return "refused"
        assert self._reader is not None
        assert self._writer is not None
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            self._writer.write(head.encode() + body)
            answer = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer)
            await self._reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return "lost"
        if b"connection: close" in answer:
            self.close()
        return answer[9:12].decode()

    def close(self) -> None:
        """Closes the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


@contextlib.asynccontextmanager
async def clients(
    count: int, port: int, bodies: Sequence[bytes], note: Callable[[str, float], None]
) -> AsyncIterator[None]:
    """Within the context, `count` clients send picture after picture.

    `note` is called with each outcome and the seconds it took. At the end, every client waits for
    its last answer.
    """
    going = True

    async def work(number: int) -> None:
        client, at = Client(port), number
        while going:
            begin = time.perf_counter()
            outcome = await client.send(bodies[at % len(bodies)])
            note(outcome, time.perf_counter() - begin)
            at += count
            if outcome in ("refused", "503"):
                await asyncio.sleep(0.01)
        client.close()

    tasks = [asyncio.create_task(work(number)) for number in range(count)]
    try:
        yield
    finally:
        going = False
        await asyncio.gather(*tasks)


def measure_load(file: str, bodies: list[bytes], counts: list[int], rounds: int) -> None:
    """Prints throughput and latency for each number of clients, and the bare function's.

    Other work on the machine changes by the second, so the bare function runs before and after each
    load, and a share is that of the mean of both.
    """
    detector = load_exported(file)
    pixels = np.stack([detector.prepare(body) for body in bodies])
    for size in detector.batch_sizes:
        detector.score(pixels[:size])
    service = start(file)
    latencies: dict[int, list[float]] = collections.defaultdict(list)
    rates, shares, costs = (collections.defaultdict[int, list[float]](list) for _ in range(3))
    for _ in range(rounds):
        bare = [_bare(detector, pixels)]
        for count in counts:
            done: list[float] = []
            used, begin = service.metric(_USED), time.perf_counter()
            asyncio.run(_for(4.0, count, service.port, bodies, done))
            seconds = time.perf_counter() - begin
            costs[count].append(1000 * (service.metric(_USED) - used) / len(done))
            bare.append(_bare(detector, pixels))
            rates[count].append(len(done) / seconds)
            shares[count].append(2 * rates[count][-1] / sum(one.rate for one in bare[-2:]))
            latencies[count] += done
        rates[0] += [one.rate for one in bare]
        costs[0] += [one.cost for one in bare]
    stop(service)
    print("\n| clients | images/s | of the bare function | p50 ms | p95 | p99 | processor ms |")
    print("|---|---|---|---|---|---|---|")
    print(f"| bare function | {np.median(rates[0]):.0f} | | | | | {np.median(costs[0]):.2f} |")
    for count in counts:
        points = 1000 * np.percentile(latencies[count], [50, 95, 99])
        low, share, high = np.percentile(shares[count], [25, 50, 75])
        shown = " | ".join(f"{point:.0f}" for point in points)
        print(
            f"| {count} | {np.median(rates[count]):.0f} | {share:.0%} ({low:.0%} to {high:.0%}) "
            f"| {shown} | {np.median(costs[count]):.2f} |",
            flush=True,
        )


class _Bare(NamedTuple):
    rate: float
    cost: float


def _bare(detector: ExportedDetector, pixels: np.ndarray) -> _Bare:
    """Images per second and processor milliseconds per image of the function alone."""
    begin, used, count = time.perf_counter(), time.process_time(), 0
    while (passed := time.perf_counter() - begin) < 2.0:
        detector.score(pixels)
        count += len(pixels)
    return _Bare(count / passed, 1000 * (time.process_time() - used) / count)


async def _for(
    seconds: float, count: int, port: int, bodies: list[bytes], done: list[float]
) -> None:
    def note(outcome: str, took: float) -> None:
        if outcome != "200":
            raise RuntimeError(f"a request ended with {outcome}")
        done.append(took)

    async with clients(count, port, bodies, note):
        await asyncio.sleep(seconds)


def measure_memory(file: str, bodies: list[bytes], requests: int) -> None:
    """Prints the service's resident memory while 16 clients send requests."""
    service, outcomes = start(file), collections.Counter[str]()

    async def run() -> None:
        def note(outcome: str, _: float) -> None:
            outcomes[outcome] += 1

        async with clients(16, service.port, bodies, note):
            for part in range(11):
                while outcomes.total() < part * requests // 10:
                    await asyncio.sleep(0.01)
                rss = await asyncio.to_thread(service.metric, "process_resident_memory_bytes")
                print(f"| {outcomes.total()} | {rss / 2**20:.0f} |", flush=True)

    print("| requests | resident MiB |", "|---|---|", sep="\n")
    asyncio.run(run())
    stop(service)
    print(f"\n{dict(outcomes)}")


def measure_stops(file: str, bodies: list[bytes], times: int) -> None:
    """Ends the service under load and counts what became of the requests."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        outcomes, codes = collections.Counter[str](), set()
        restarts, stops = [], []
        for _ in range(times):
            service = start(file)
            restarts.append(service.seconds)
            code, took = asyncio.run(stopped(service, number, bodies, outcomes))
            codes.add(code)
            stops.append(took)
        for what, values in (("restart", restarts), ("stop", stops)):
            shown = f"median {np.median(values):.1f} s, longest {max(values):.1f} s"
            print(f"{number.name}: {what} {shown}")
        print(f"{number.name}: exit codes {codes}, requests {dict(outcomes)}", flush=True)


async def stopped(
    service: Service, number: signal.Signals, bodies: list[bytes], outcomes: dict[str, int]
) -> tuple[int, float]:
    """Ends the service while 16 clients send, and counts the outcomes.

    Returns the exit code and the seconds that it took.
    """

    def note(outcome: str, _: float) -> None:
        outcomes[outcome] += 1

    async with clients(16, service.port, bodies, note):
        await asyncio.sleep(1 + np.random.random())
        begin = time.perf_counter()
        code = await asyncio.to_thread(stop, service, number)
        return code, time.perf_counter() - begin


def main(argv: Sequence[str]) -> None:
    """Measures what the flags ask for."""
    values = flags.FlagValues()
    values.set_gnu_getopt()
    what = ["load", "memory", "stops"]
    flags.DEFINE_enum("what", "load", what, "What to measure.", flag_values=values)
    flags.DEFINE_list("clients", ["1", "4", "16", "64"], "Clients at once.", flag_values=values)
    flags.DEFINE_integer("rounds", 5, "Rounds of the load.", flag_values=values)
    flags.DEFINE_integer("requests", 20_000, "Requests of the memory.", flag_values=values)
    flags.DEFINE_integer("times", 20, "Stops by each signal.", flag_values=values)
    words = parse_flags(values, argv, positional=True)
    if len(words) < 2:
        raise ConfigError("serve: give an exported file and pictures")
    file, paths = words[0], list_inputs(words[1:], sys.stdin, without=Path(".")).files[:64]
    bodies = [Path(path).read_bytes() for path in paths]
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if values.what == "load":
        measure_load(file, bodies, [int(count) for count in values.clients], values.rounds)
    elif values.what == "memory":
        measure_memory(file, bodies, values.requests)
    else:
        measure_stops(file, bodies, values.times)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv)))
