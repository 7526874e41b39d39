"""What a stop leaves: every request that came is answered."""

import asyncio
import collections
import http.client
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import serve as load
from tests.serve.services import EXPORTED, Detector, answer, picture, running, send, until


def test_a_stop_answers_what_waits_and_what_is_on_its_way():
    detector = Detector()
    with running(detector) as service, ThreadPoolExecutor(9) as pool:
        idle = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        idle.request("POST", "/v1/predict", picture(1))
        assert answer(idle.getresponse())[0] == 200
        detector.gate.clear()
        waiting = [pool.submit(service.predict, picture(value)) for value in range(9)]
        until(lambda: service.service._pictures == 9)
        service.server.should_exit = True
        until(lambda: service.service.draining)
        idle.request("POST", "/v1/predict", picture(2))  # on a connection that is open
        until(lambda: service.service._pictures == 10)
        with pytest.raises(ConnectionError):
            send(service.port, "GET", "/healthz")
        detector.gate.set()
        found = [one.result() for one in waiting] + [answer(idle.getresponse())]
        assert [status for status, *_ in found] == [200] * 10
        assert {headers["connection"] for _, headers, _ in found} == {"close"}
        service.thread.join(20)
        assert not service.thread.is_alive()


def test_connections_that_were_not_yet_taken_are_answered(monkeypatch):
    with running() as service:
        tick = type(service.server).on_tick
        sockets = []

        async def connect_and_stop(self, counter):
            # The loop does not run between these connections and the stop.
            for _ in range(5):
                sockets.append(socket.create_connection(("127.0.0.1", service.port)))
                sockets[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            return True

        monkeypatch.setattr(type(service.server), "on_tick", connect_and_stop)
        service.thread.join(20)
        monkeypatch.setattr(type(service.server), "on_tick", tick)
        assert [one.recv(17) for one in sockets] == [b"HTTP/1.1 200 OK\r\n"] * 5
        for one in sockets:
            one.close()


def test_ready_says_no_while_it_stops():
    with running() as service:
        assert service.send("GET", "/readyz")[::2] == (200, b"ready\n")
        service.service.draining = True
        status, headers, said = service.send("GET", "/readyz")
        assert (status, said["detail"]) == (503, "the service stops")
        assert headers["Retry-After"] == "1"
        assert service.send("GET", "/healthz")[0] == 200


@pytest.fixture
def bodies():
    return [picture(value, size=(24, 24)) for value in range(0, 256, 16)]


@pytest.mark.slow
def test_signals_under_load(bodies, tmp_path):
    """SIGTERM loses no request, SIGKILL leaves a file that starts again, SIGHUP loses none."""
    arguments = (f"--cache_dir={tmp_path}",)
    for number, codes in ((signal.SIGTERM, {0}), (signal.SIGKILL, {-9})):
        for _ in range(3):
            service = load.start(str(EXPORTED), *arguments)
            outcomes = collections.Counter()
            code, seconds = asyncio.run(load.stopped(service, number, bodies, outcomes))
            assert code in codes
            assert outcomes["200"] > 50
            if number == signal.SIGTERM:
                assert set(outcomes) <= {"200", "refused"}
                assert seconds < 10
    assert service.seconds < 60


@pytest.mark.slow
def test_a_changed_file_under_load(bodies, tmp_path):
    file, other = tmp_path / "part.daad", tmp_path / "other.daad"
    shutil.copy(EXPORTED, file)
    service = load.start(str(file), f"--cache_dir={tmp_path}")
    outcomes = collections.Counter()

    async def run():
        loads = 'daad_model_loads_total{{outcome="{}"}}'
        async with load.clients(16, service.port, bodies, lambda one, _: outcomes.update([one])):
            for done in range(1, 4):
                shutil.copy(EXPORTED, other)
                other.replace(file)
                service.process.send_signal(signal.SIGHUP)
                while service.metric(loads.format("loaded")) < done + 1:
                    await asyncio.sleep(0.05)
            file.write_bytes(b"half a file")
            service.process.send_signal(signal.SIGHUP)
            while service.metric(loads.format("failed")) < 1:
                await asyncio.sleep(0.05)

    try:
        asyncio.run(run())
    finally:
        assert load.stop(service) == 0
    assert set(outcomes) == {"200"}
