from __future__ import annotations

import threading
import time

from factory.io.http.rate import Rate


def test_without_a_limit_nothing_waits() -> None:
    began = time.monotonic()
    Rate(None).take(10**12)
    assert time.monotonic() - began < 1
    assert Rate(None).block(1000) == 1000


def test_all_threads_share_the_limit() -> None:
    rate = Rate(100_000)
    began = time.monotonic()
    workers = [threading.Thread(target=rate.take, args=(10_000,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert time.monotonic() - began >= 0.39


def test_a_pause_does_not_save_up_capacity() -> None:
    rate = Rate(100_000)
    rate.take(1)
    time.sleep(0.2)
    began = time.monotonic()
    rate.take(10_000)
    rate.take(10_000)
    assert time.monotonic() - began >= 0.19


def test_a_slow_rate_is_read_in_small_blocks() -> None:
    assert Rate(1_000_000).block(1 << 20) == 250_000
    assert Rate(10).block(1 << 20) == 16 * 1024
    assert Rate(1e9).block(1 << 20) == 1 << 20
