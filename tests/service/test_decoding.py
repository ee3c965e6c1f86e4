"""Decoding in child processes: what comes back, what a hostile photo costs, and what is left behind."""

from __future__ import annotations

import ctypes
import gc
import io
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import service.decoder
import service.decoder_process
import service.decoding
from data.catalog import Box
from data.images import MAX_BYTES, ImageError, encode_jpeg, read_pixels, read_view
from service.decoding import Decoders, DecodersError
from service.lanes import OverloadedError
from tests.service.hostile import even_png, photos, uploads

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).parents[2]
CLOTHING = ROOT.parent / "shared" / "datasets" / "clothing-small" / "validation"
SOUND = photos()[0]
# It takes a process a second or so, and a megabyte of what is sent.
SLOW = even_png(5000, 5000, 16, 6)
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(2) as pool:
        yield pool


def children() -> set[int]:
    """The processes that this one has started, those that ended and were not waited for too."""
    folder = Path("/proc/self/task")
    return {int(pid) for file in folder.glob("*/children") for pid in file.read_text().split()}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def resident_mb(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def settled_mb() -> float:
    """The memory of this process once what is free has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_mb()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Returns when it has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not come true."
        time.sleep(0.005)


def state(pid: int) -> str:
    """R where it runs, S where it waits, T where it was stopped, Z where it has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or state(pid) == "Z"


# What comes back


@pytest.mark.parametrize("box", [None, Box(0.1, 0.2, 0.5, 0.6), Box(0, 0, 1, 1)])
@pytest.mark.parametrize("content", photos(), ids=["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [1, 224])
def test_the_pixels_are_those_of_the_intake(decoders, content, size, box):
    pixels = decoders.pixels(content, size, box)
    assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
    assert np.array_equal(pixels, read_pixels(content, size, box=box))
    # torch warns of arrays that cannot be written to.
    assert pixels.flags.writeable


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="needs ../shared/datasets/clothing-small")
def test_real_photos(decoders):
    files = sorted(CLOTHING.glob("*/*.jpg"))[::10]
    assert len(files) > 30
    for file in files:
        content = file.read_bytes()
        assert np.array_equal(decoders.pixels(content, 224), read_pixels(content, 224))


@pytest.mark.parametrize("box", [None, Box(0.5, 0, 0.5, 0.5)])
def test_a_jpeg_is_that_of_the_intake(decoders, box):
    jpeg = decoders.jpeg(photos()[1], 160, box)
    assert jpeg == encode_jpeg(photos()[1], 160, box=box)
    assert max(Image.open(io.BytesIO(jpeg)).size) == 160
    assert decoders.jpeg(SOUND, 1).startswith(b"\xff\xd8")


def test_a_jpeg_of_noise_fits(decoders):
    # Nothing takes more bytes a pixel.
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 2, (512, 512, 3), np.uint8) * 255
    Image.fromarray(noise.astype(np.uint8)).save(file, "PNG")
    for size in (8, 64, 512):
        assert decoders.jpeg(file.getvalue(), size) == encode_jpeg(file.getvalue(), size)


@pytest.mark.parametrize("content", photos(), ids=["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_view_is_that_of_the_intake(decoders, content, size):
    view = decoders.view(content, size)
    assert view.dtype == np.uint8
    assert np.array_equal(view, read_view(content, size))
    assert view.flags.writeable


def test_a_view_is_upright(decoders):
    exif = Image.Exif()
    # A quarter turn: 40 x 30 as it is stored, 30 x 40 as it is seen.
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG", exif=exif)
    assert decoders.view(file.getvalue(), 40).shape == (40, 30, 3)
    assert decoders.view(file.getvalue(), 20).shape == (20, 15, 3)


@pytest.mark.parametrize("content", [b"", b"no photo", bytes(MAX_BYTES + 1), SOUND[:5000], even_png(5000, 5001, 1, 0)])
def test_a_refusal_is_the_intakes_own(decoders, content):
    with pytest.raises(ImageError) as wanted:
        read_pixels(content, 8)
    for ask in (decoders.pixels, decoders.jpeg, decoders.view):
        with pytest.raises(ImageError) as refused:
            ask(content, 8)
        assert str(refused.value) == str(wanted.value)
        assert refused.value.source is None


def test_a_size_below_one(decoders):
    for ask in (decoders.pixels, decoders.view):
        with pytest.raises(ValueError, match="decoded to one pixel or more; got 0"):
            ask(SOUND, 0)


@pytest.mark.parametrize("options", [{"count": 0}, {"seconds": 0}, {"memory_mb": 0}, {"photos": 0}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match="at least; got"):
        Decoders(**{"count": 1, **options})


def test_eight_threads_get_their_own_photos_back(decoders):
    def ask(number: int) -> bool:
        file = io.BytesIO()
        Image.new("RGB", (40 + number, 30), (number, 2 * number, 255 - number)).save(file, "PNG")
        pixels = decoders.pixels(file.getvalue(), 16 + number % 7)
        return np.array_equal(pixels, read_pixels(file.getvalue(), 16 + number % 7))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(120)))


# The corpus


def timed(decoders: Decoders, content: bytes) -> tuple[Pixels | ImageError, float]:
    """The pixels or the refusal, and the seconds it took."""
    start = time.monotonic()
    try:
        answer: Pixels | ImageError = decoders.pixels(content, 224)
    except ImageError as error:
        answer = error
    return answer, time.monotonic() - start


@linux
def test_hostile_uploads(caplog):
    """Each has an answer within two seconds, the sound ones the right one, and nothing is left of them."""
    with Decoders(2) as decoders:
        decoders.wait_ready()
        before = set(decoders.process_ids)
        # Made before: the encoders that make them keep memory of their own.
        corpus = list(uploads())
        memory = settled_mb()
        names = set()
        for name, content, _, is_sound in corpus:
            answer, seconds = timed(decoders, content)
            if isinstance(answer, ImageError):
                assert not is_sound, f"{name}: {answer}"
                # The bound; a sound photo of 25 megapixels may take what any photo may.
                assert seconds < 2 or min(timed(decoders, content)[1] for _ in range(3)) < 2, name
                # What is shown of a photo is its first bytes, and one of them is a path.
                assert "/" not in str(answer).partition("it starts with")[0], name
                assert answer.source is None
            else:
                assert is_sound is not False, name
                assert answer.shape == (224, 224, 3)
            assert name not in names
            names.add(name)
            del content
        assert len(names) >= 200
        assert decoders.pixels(SOUND, 224).shape == (224, 224, 3)
        assert settled_mb() - memory < 40
        deaths = [record for record in caplog.records if record.name == "service.decoding"]
        assert len(deaths) == decoders.deaths
        assert len(set(decoders.process_ids) - before) == decoders.restarts == decoders.deaths == 0


@linux
def test_a_view_of_a_hostile_upload_is_refused_as_its_pixels_are():
    with Decoders(2) as decoders:
        decoders.wait_ready()
        refused = 0
        for name, content, _, _ in list(uploads())[::7]:
            pixels = timed(decoders, content)[0]
            if isinstance(pixels, ImageError):
                with pytest.raises(ImageError, match=re.escape(str(pixels))):
                    decoders.view(content, 224)
                refused += 1
            else:
                assert 1 <= max(decoders.view(content, 224).shape[:2]) <= 224, name
        assert refused > 10
        assert decoders.deaths == 0


# What becomes of a process


@pytest.fixture
def single() -> Iterator[Decoders]:
    with Decoders(1, seconds=30) as pool:
        pool.wait_ready()
        yield pool


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "service.decoding" and r.levelno == logging.WARNING]


@linux
def test_a_process_that_is_killed_while_it_is_idle_costs_no_photo(single, caplog):
    (pid,) = single.process_ids
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))
    assert np.array_equal(single.pixels(SOUND, 64), read_pixels(SOUND, 64))
    assert (single.deaths, single.restarts) == (1, 1)
    assert single.process_ids != [pid]
    assert warnings_of(caplog) == [f"Decoding process {pid} was ended by Killed (9) while it was idle, after 0 photos."]


@linux
def test_a_process_that_is_killed_while_it_decodes_costs_that_photo(single, caplog):
    single.pixels(SOUND, 64)
    (pid,) = single.process_ids
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(single.pixels, SLOW, 64)
        until(lambda: state(pid) == "R")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ImageError, match=r"Decoding the photo failed; it is damaged\. Save it anew\."):
            asked.result()
    assert np.array_equal(single.pixels(SOUND, 64), read_pixels(SOUND, 64))
    assert (single.deaths, single.restarts) == (1, 1)
    (sentence,) = warnings_of(caplog)
    assert f"process {pid} was ended by Killed (9) with a photo of {len(SLOW)} bytes, sha256 " in sentence
    assert sentence.endswith(", after 1 photos.")


@linux
@pytest.mark.parametrize("content", [SOUND, bytes(10 * 2**20)], ids=["small", "more than the socket holds"])
def test_a_process_that_hangs_is_killed(content, caplog):
    with Decoders(1, seconds=1) as decoders:
        decoders.wait_ready()
        (pid,) = decoders.process_ids
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ImageError, match=r"could not be decoded within 1 s\. Save it anew, or scale it down\."):
            decoders.pixels(content, 64)
        assert is_gone(pid)
        decoders.wait_ready()
        assert decoders.pixels(SOUND, 64).shape == (64, 64, 3)
        assert (decoders.deaths, decoders.restarts) == (1, 1)
        assert "took too long with a photo" in warnings_of(caplog)[0]


@pytest.mark.parametrize("rest", ["time.sleep(99)", "[pipe.send(b'x') and time.sleep(0.2) for _ in range(99)]"])
def test_a_process_that_hangs_in_the_middle_of_an_answer_is_killed(monkeypatch, rest):
    code = _child(f"pipe.sendall(ANSWER.pack(DONE, 64 * 64 * 3) + b'x' * 99); {rest}")
    monkeypatch.setattr(service.decoder_process, "_CODE", code)
    with Decoders(1, seconds=1) as decoders:
        decoders.wait_ready()
        with pytest.raises(ImageError, match="could not be decoded within 1 s"):
            decoders.pixels(SOUND, 64)


def _child(answer: str) -> str:
    """The code of a child that starts as it should, and then does as it likes."""
    return (
        "import sys, socket, time, os\n"
        "sys.path.append(sys.argv.pop(1))\n"
        "from service.decoder import ANSWER, DONE, REFUSED, BROKEN, QUESTION, receive\n"
        "pipe = socket.socket(fileno=int(sys.argv[1]))\n"
        "pipe.sendall(ANSWER.pack(DONE, 0))\n"
        "receive(pipe, bytearray(QUESTION.size))\n"
        f"{answer}\n"
    )


@pytest.mark.parametrize(
    "answer",
    [
        "pipe.sendall(ANSWER.pack(DONE, 5) + b'short'); time.sleep(9)",
        "pipe.sendall(ANSWER.pack(DONE, 2**60)); time.sleep(9)",
        "pipe.sendall(ANSWER.pack(REFUSED, 2**40)); time.sleep(9)",
        "pipe.sendall(ANSWER.pack(DONE, 64 * 64 * 3) + b'x'); os._exit(0)",
        "pipe.close(); time.sleep(9)",
        "os.kill(os.getpid(), 11)",
        "os._exit(3)",
    ],
)
def test_a_process_that_does_not_keep_to_the_protocol_is_replaced(monkeypatch, answer):
    code = service.decoder_process._CODE
    monkeypatch.setattr(service.decoder_process, "_CODE", _child(answer))
    with Decoders(1) as decoders:
        decoders.wait_ready()
        monkeypatch.setattr(service.decoder_process, "_CODE", code)
        with pytest.raises(ImageError, match="Decoding the photo failed"):
            decoders.pixels(SOUND, 64)
        assert np.array_equal(decoders.pixels(SOUND, 64), read_pixels(SOUND, 64))
        assert (decoders.deaths, decoders.restarts) == (1, 1)


@pytest.mark.parametrize(
    "shape",
    # Of 64 x 64 x 3 bytes: too many columns for them, too few, none, a side longer than asked, no room for a shape.
    [(64, 65), (64, 63), (0, 64), (64, 0), (32, 128), (0, 0), None],
)
def test_a_view_whose_shape_does_not_fit_its_pixels_costs_the_process(monkeypatch, shape):
    body = b"x" * 7 if shape is None else service.decoder.SHAPE.pack(*shape) + bytes(64 * 64 * 3)
    code = service.decoder_process._CODE
    answer = f"pipe.sendall(ANSWER.pack(DONE, {len(body)}) + {body!r}); time.sleep(9)"
    monkeypatch.setattr(service.decoder_process, "_CODE", _child(answer))
    with Decoders(1) as decoders:
        decoders.wait_ready()
        monkeypatch.setattr(service.decoder_process, "_CODE", code)
        with pytest.raises(ImageError, match="Decoding the photo failed"):
            decoders.view(SOUND, 64)
        assert np.array_equal(decoders.view(SOUND, 64), read_view(SOUND, 64))
        assert (decoders.deaths, decoders.restarts) == (1, 1)


def test_what_the_intake_does_not_foresee_costs_a_process(monkeypatch, caplog):
    monkeypatch.setattr(
        service.decoder_process,
        "_CODE",
        "import sys; sys.path.append(sys.argv.pop(1)); from service import decoder\n"
        "def fail(content, size, *, box): raise ZeroDivisionError('a hole\\n' * 1000)\n"
        "decoder._rehearse, decoder.encode_jpeg = lambda: None, fail; decoder.main()",
    )
    with Decoders(1) as decoders:
        decoders.wait_ready()
        with pytest.raises(ImageError, match=r"^Decoding the photo failed; it is damaged\. Save it anew\.$"):
            decoders.jpeg(SOUND, 64)
        assert decoders.deaths == 1
    (sentence,) = warnings_of(caplog)
    assert r"failed ('ZeroDivisionError: a hole\na hole\n" in sentence
    assert f" with a photo of {len(SOUND)} bytes" in sentence
    # Whatever an error says, a line of the log stays one, and a short one.
    assert "\n" not in sentence
    assert len(sentence) < 1500


@linux
def test_a_photo_that_takes_too_much_memory(caplog):
    # 25 megapixels of RGBA are 100 MB, twice; what a process needs for itself is about 120 MB.
    with Decoders(1, memory_mb=230) as decoders:
        decoders.wait_ready()
        assert decoders.pixels(SOUND, 64).shape == (64, 64, 3)
        (pid,) = decoders.process_ids
        with pytest.raises(ImageError, match=r"takes more than 230 MB of memory\. Scale it down\."):
            decoders.pixels(SLOW, 64)
        decoders.wait_ready()
        assert decoders.pixels(SOUND, 64).shape == (64, 64, 3)
        assert decoders.process_ids != [pid]
        assert (decoders.deaths, decoders.restarts) == (1, 1)
    assert "ran out of memory with a photo" in warnings_of(caplog)[0]


@linux
def test_the_limits_of_a_process():
    with Decoders(1) as decoders:
        decoders.pixels(SOUND, 64)
        (pid,) = decoders.process_ids
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        of = {line[:26].strip(): line[26:].split()[:2] for line in limits}
        assert of["Max address space"] == [str(1024 * 2**20)] * 2
        assert of["Max file size"] == ["0", "0"]
        assert of["Max core file size"] == ["0", "0"]
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1"
        ignored = int(status["SigIgn"], 16)
        assert ignored >> (signal.SIGINT - 1) & 1
        assert ignored >> (signal.SIGTERM - 1) & 1
        # Nothing of what this process has open but /dev/null, the log and the socket.
        files = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda file: int(file.name))
        assert [file.name for file in files][:3] == ["0", "1", "2"]
        assert len(files) == 4
        assert os.readlink(files[3]).startswith("socket:")  # noqa: PTH115
        # What was used by then, the five seconds of a photo, and one more.
        assert 6 < int(of["Max cpu time"][0]) < 12


@linux
def test_the_processor_time_is_allowed_anew_for_each_photo():
    with Decoders(1, seconds=30) as decoders:
        decoders.pixels(SOUND, 64)
        (pid,) = decoders.process_ids

        def limit() -> int:
            return int(Path(f"/proc/{pid}/limits").read_text().split("Max cpu time")[1].split()[0])

        first = limit()
        assert 31 <= first <= 33
        until(lambda: decoders.pixels(SLOW, 64) is not None and limit() > first, 60)
        assert decoders.deaths == 0


@linux
def test_a_process_knows_no_setting_of_the_service(monkeypatch):
    monkeypatch.setenv("MODISTE_SECRET", "hush")
    with Decoders(1) as decoders:
        decoders.wait_ready()
        (pid,) = decoders.process_ids
        names = {entry.partition(b"=")[0] for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
        assert b"MODISTE_SECRET" not in names
        assert b"OPENBLAS_NUM_THREADS" in names


@linux
def test_a_process_takes_no_module_from_the_folder_it_is_started_in(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with Decoders(1) as decoders:
        decoders.wait_ready()


def test_a_process_imports_little():
    code = "import sys, service.decoder; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"numpy", "PIL", "data", "service"} <= packages
    assert not packages & {"torch", "scipy", "fastapi", "pydantic", "lancedb", "pyarrow", "faiss", "indexer", "asyncio"}


@linux
def test_a_process_ends_with_its_parent():
    code = (
        "import os; from service.decoding import Decoders; d = Decoders(2); d.wait_ready();"
        "print(*d.process_ids, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    until(lambda: all(is_gone(pid) for pid in pids))


@linux
def test_whoever_stops_the_service_as_a_group_leaves_requests_under_way(single):
    (pid,) = single.process_ids
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(single.pixels, SLOW, 64)
        until(lambda: state(pid) == "R")
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert asked.result().shape == (64, 64, 3)
    assert single.process_ids == [pid]


# Replacement


@linux
def test_old_processes_are_replaced_and_nothing_is_left_of_them():
    before, files = children(), open_files()
    with Decoders(2, photos=3) as decoders:
        decoders.wait_ready()
        first = set(decoders.process_ids)
        seen = set(first)
        deadline = time.monotonic() + 60
        with ThreadPoolExecutor(4) as threads:
            while decoders.restarts < 6:
                assert time.monotonic() < deadline
                for pixels in threads.map(lambda _: decoders.pixels(SOUND, 64), range(20)):
                    assert np.array_equal(pixels, read_pixels(SOUND, 64))
                seen |= set(decoders.process_ids)
        assert not first & set(decoders.process_ids)
        assert decoders.deaths == 0
        # The two that serve, and at most one that is about to take over from each.
        assert len(children() - before) <= 4
        assert children() - before == set(decoders.process_ids)
    assert (children(), open_files()) == (before, files)


@linux
def test_a_successor_is_there_before_the_old_process_goes():
    with Decoders(1, photos=2) as decoders:
        decoders.wait_ready()
        (old,) = decoders.process_ids
        for _ in range(2):
            decoders.pixels(SOUND, 64)
        # It has done its share; its successor is starting, and it serves on.
        assert old in decoders.process_ids
        assert len(decoders.process_ids) == 2
        assert decoders.restarts == 0
        (new,) = set(decoders.process_ids) - {old}
        until(lambda: decoders.pixels(SOUND, 64) is not None and decoders.restarts == 1)
        assert new in decoders.process_ids
        assert old not in decoders.process_ids
        assert decoders.deaths == 0


@linux
def test_a_successor_takes_over_from_a_process_that_dies():
    with Decoders(1, photos=1) as decoders:
        decoders.wait_ready()
        (old,) = decoders.process_ids
        decoders.pixels(SOUND, 64)
        (new,) = set(decoders.process_ids) - {old}
        os.kill(old, signal.SIGKILL)
        until(lambda: is_gone(old))
        decoders.wait_ready()
        assert decoders.process_ids == [new]
        assert (decoders.deaths, decoders.restarts) == (1, 1)
        assert np.array_equal(decoders.pixels(SOUND, 64), read_pixels(SOUND, 64))


@linux
def test_memory_is_back_after_a_replacement():
    with Decoders(1, photos=4) as decoders:
        decoders.wait_ready()
        (old,) = decoders.process_ids
        fresh = resident_mb(old)
        decoders.pixels(SLOW, 64)
        until(lambda: decoders.pixels(SOUND, 64) is not None and decoders.restarts >= 1)
        assert old not in decoders.process_ids
        assert max(resident_mb(pid) for pid in decoders.process_ids) < fresh + 20


@linux
@pytest.mark.parametrize("is_waiting", [True, False])
def test_processes_that_never_start_are_told_of_and_given_up(monkeypatch, caplog, is_waiting):
    monkeypatch.setattr(service.decoder_process, "_CODE", "raise SystemExit(7)")
    before, files = children(), open_files()
    with Decoders(2) as decoders:
        ask = decoders.wait_ready if is_waiting else lambda: decoders.pixels(SOUND, 64)
        with pytest.raises(
            DecodersError, match=r"of 1024 MB each, do not start; the last of 3 in a row ended with code 7 while"
        ):
            ask()
        starts = decoders.restarts
        for _ in range(20):
            with pytest.raises(RuntimeError, match="do not start"):
                decoders.pixels(SOUND, 64)
        # No more than the three, and the one that was started beside them.
        assert decoders.restarts == starts
        assert 3 <= len(warnings_of(caplog)) == decoders.deaths <= 4
        # After a while it is tried again, once.
        monkeypatch.setattr(service.decoding, "_RETRY_S", 1000.0)
        decoders._retry_at = 0.0
        with pytest.raises(DecodersError, match="do not start"):
            decoders.pixels(SOUND, 64)
        assert decoders.restarts == starts + 1
        # And where that goes well, all is well.
        monkeypatch.undo()
        decoders._retry_at = 0.0
        decoders.wait_ready()
        assert decoders.pixels(SOUND, 64).shape == (64, 64, 3)
        # The next that fails is the first in a row.
        assert decoders._failed_starts == 0
    assert (children(), open_files()) == (before, files)


@linux
def test_too_little_memory_to_start():
    with Decoders(1, memory_mb=16) as decoders, pytest.raises(DecodersError, match="of 16 MB each, do not start"):
        decoders.wait_ready()


def test_no_process_can_be_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DecodersError, match="No process to decode photos can be started: No such file"):
        Decoders(2)


@linux
def test_what_was_started_goes_where_the_next_cannot_be(monkeypatch):
    before, files = children(), open_files()
    spawn, calls = service.decoder_process._spawn, iter(range(9))

    def fail_second(*args: object) -> object:
        if next(calls):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return spawn(*args)

    monkeypatch.setattr(service.decoder_process, "_spawn", fail_second)
    with pytest.raises(DecodersError, match="can be started: Resource temporarily unavailable"):
        Decoders(2)
    assert (children(), open_files()) == (before, files)


# Waiting and closing


@linux
def test_who_finds_no_process_free_waits_so_long_and_no_longer(monkeypatch):
    with Decoders(1, seconds=1) as decoders:
        decoders.wait_ready()
        (pid,) = decoders.process_ids
        os.kill(pid, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(decoders.pixels, SOUND, 64)
            until(decoders._idle.empty)
            monkeypatch.setattr(decoders, "_seconds", 0.1)
            with pytest.raises(OverloadedError, match="All places for decoding are taken") as error:
                decoders.pixels(SOUND, 64)
            assert error.value.retry_after_s == 1
            assert not asked.done()
            with pytest.raises(ImageError, match="within 1 s"):
                asked.result()


def test_who_waits_for_a_start_waits_so_long_and_no_longer(monkeypatch):
    monkeypatch.setattr(service.decoder_process, "_CODE", "import time; time.sleep(60)")
    with Decoders(1, seconds=0.2) as decoders:
        for _ in range(2):
            with pytest.raises(OverloadedError):
                decoders.pixels(SOUND, 64)
        # It may start yet.
        assert decoders.deaths == 0
        assert len(decoders.process_ids) == 1


def test_ready_is_waited_for_as_long_as_asked(monkeypatch):
    monkeypatch.setattr(service.decoder_process, "_CODE", "import time; time.sleep(60)")
    with Decoders(1, seconds=60) as decoders, pytest.raises(OverloadedError):
        decoders.wait_ready(0.1)


def test_a_start_that_takes_for_ever_is_given_up(monkeypatch, caplog):
    code = service.decoder_process._CODE
    monkeypatch.setattr(service.decoder_process, "_CODE", "import time; time.sleep(60)")
    monkeypatch.setattr(service.decoder_process, "_START_S", 0.1)
    with Decoders(1, seconds=2) as decoders:
        monkeypatch.setattr(service.decoder_process, "_CODE", code)
        with pytest.raises(OverloadedError):
            # The new process has no time left of this request's.
            decoders.pixels(SOUND, 64)
        monkeypatch.undo()
        decoders.wait_ready()
        assert decoders.pixels(SOUND, 64).shape == (64, 64, 3)
        assert (decoders.deaths, decoders.restarts) == (1, 1)
    assert "did not start within 0 s" in warnings_of(caplog)[0]


@linux
def test_closing_ends_everything_at_once(caplog):
    before, files = children(), open_files()
    decoders = Decoders(2, seconds=30)
    decoders.wait_ready()
    with ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(decoders.pixels, SLOW, 64) for _ in range(5)]
        until(decoders._idle.empty)
        decoders.close()
        for future in asked:
            with pytest.raises(DecodersError, match="are closed"):
                future.result()
    assert (children(), open_files()) == (before, files)
    assert (decoders.process_ids, decoders.deaths, warnings_of(caplog)) == ([], 0, [])
    for ask in (lambda: decoders.pixels(SOUND, 64), decoders.wait_ready):
        with pytest.raises(DecodersError, match="are closed"):
            ask()
    decoders.close()


@linux
def test_closing_takes_successors_and_starts_along():
    before, files = children(), open_files()
    decoders = Decoders(2, photos=1)
    decoders.pixels(SOUND, 64)
    assert len(decoders.process_ids) == 3
    decoders.close()
    Decoders(2).close()
    assert (children(), open_files()) == (before, files)


@linux
def test_closing_while_many_ask():
    before, files = children(), open_files()
    for _ in range(3):
        decoders = Decoders(2, photos=1)
        decoders.wait_ready()
        outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()

        def ask(decoders: Decoders = decoders, outcomes: queue.SimpleQueue[object] = outcomes) -> None:
            try:
                while True:
                    decoders.pixels(SOUND, 64)
            except Exception as error:
                outcomes.put(error)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        decoders.close()
        for thread in threads:
            thread.join(10)
            assert isinstance(outcomes.get_nowait(), DecodersError)
        assert (children(), open_files()) == (before, files)


def test_a_request_that_is_interrupted_leaves_no_half_an_answer(single, monkeypatch):
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(service.decoder_process, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            single.pixels(SOUND, 64)
    # The answer to the photo before is not the next one's.
    other = photos()[1]
    assert np.array_equal(
        single.pixels(other, 64, Box(0, 0, 0.5, 0.5)), read_pixels(other, 64, box=Box(0, 0, 0.5, 0.5))
    )
    assert single.deaths == 1


def test_frames_come_in_any_pieces():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        content = bytes(range(256)) * 40
        frame = service.decoder.question(service.decoder.JPEG, 7, Box(0.1, 0.2, 0.3, 0.4), content)
        thread = threading.Thread(
            target=lambda: [theirs.sendall(frame[i : i + 100]) for i in range(0, len(frame), 100)]
        )
        thread.start()
        into = bytearray(len(frame))
        service.decoder.receive(ours, into, deadline=time.monotonic() + 10)
        thread.join()
        assert into == frame
        assert service.decoder.QUESTION.unpack_from(into) == (1, 7, 0.1, 0.2, 0.3, 0.4, len(content))
        with pytest.raises(TimeoutError):
            service.decoder.receive(ours, bytearray(1), deadline=time.monotonic() + 0.05)
        theirs.close()
        with pytest.raises(EOFError):
            service.decoder.receive(ours, bytearray(1))


def test_those_of_one_age_are_replaced_one_after_the_other():
    with Decoders(3, photos=2) as decoders:
        decoders.wait_ready()
        most = 0
        until = time.monotonic() + 60
        while decoders.restarts < 3 and time.monotonic() < until:
            decoders.pixels(SOUND, 32)
            most = max(most, len(decoders.process_ids))
        assert decoders.restarts >= 3
        # Three, and the successor of one.
        assert most == 4
