"""One fit at a time on a GPU, of which there is none here: its name will do."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from types import SimpleNamespace

import pytest
import torch

from skprune.evaluation import _device_queue, queued_for

# Says when it waits and when its turn has come, which lasts until it is told to go on.
PROCESS = """
import sys
from skprune.evaluation import queued_for
print("waits", flush=True)
with queued_for(sys.argv[1]):
    print("in turn", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The temporary folder of this process and of those it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def start():
    processes = []

    def start(device="cuda:0", **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        processes.append(process)
        assert process.stdout.readline() == "waits\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


class Fit(threading.Thread):
    """A thread with a turn, which lasts until it is told to go on."""

    def __init__(self, device="cuda:0"):
        super().__init__(daemon=True)
        self.device, self.entered, self.may_leave = (
            device,
            threading.Event(),
            threading.Event(),
        )
        self.start()

    def run(self):
        with queued_for(self.device):
            self.entered.set()
            self.may_leave.wait(60)

    def end(self):
        self.may_leave.set()
        self.join(60)
        assert not self.is_alive()


@pytest.mark.parametrize(
    "device", [None, "cpu", torch.device("cpu"), "meta", "no such"]
)
def test_nobody_waits_for_anything_but_a_gpu(device, folder):
    with queued_for(device):
        assert list(folder.iterdir()) == []


def test_a_turn_ends_with_its_process(start):
    process = start()
    assert process.stdout.readline() == "in turn\n"
    fit = Fit()
    assert not fit.entered.wait(0.3)
    process.kill()
    assert fit.entered.wait(60)
    fit.end()


def test_a_process_waits_for_a_thread_of_another(start):
    fit = Fit()
    assert fit.entered.wait(60)
    process = start()
    fit.end()
    out, _ = process.communicate("go on\n")
    assert (out, process.returncode) == ("in turn\n", 0)


def test_a_device_is_one_by_what_it_is_not_by_its_number(start, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    process = start(CUDA_VISIBLE_DEVICES="0")
    assert process.stdout.readline() == "in turn\n"
    waiting = Fit("cuda")
    with queued_for("cuda:1"):
        assert not waiting.entered.wait(0.3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with queued_for("cuda:0"):
        assert not waiting.entered.is_set()
    process.communicate("go on\n")
    assert waiting.entered.wait(60)
    waiting.end()


def test_two_numbers_of_one_device_are_one_queue(monkeypatch):
    def properties(index):
        return SimpleNamespace(uuid="GPU-1234/a")

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    paths = {_device_queue._path_of(name) for name in ("cuda:0", "cuda:3", "cuda")}
    assert [os.path.basename(path) for path in paths] == ["cuda-GPU-1234_a.lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_ends_the_waiting(start):
    with queued_for("cuda:0"):
        process = start()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert "KeyboardInterrupt" in err
    assert "in turn" not in out
    fit = Fit()
    assert fit.entered.wait(60)
    fit.end()


def test_a_turn_within_a_turn_is_the_same(monkeypatch):
    released = []
    monkeypatch.setattr(_device_queue, "release_memory", lambda: released.append(1))
    with queued_for("cuda:0"):
        with queued_for("cuda"), queued_for("cuda:1"):
            assert released == []
        assert released == [1], "of the other device"
        fit = Fit()
        assert not fit.entered.wait(0.3)
    assert released == [1, 1]
    assert fit.entered.wait(60)
    fit.end()
    assert released == [1, 1, 1]


def test_memory_is_handed_back_before_the_next_turn(monkeypatch):
    waiting = []

    def release():
        if not waiting:
            waiting.append(Fit())
            assert not waiting[0].entered.wait(0.3)

    monkeypatch.setattr(_device_queue, "release_memory", release)
    with queued_for("cuda:0"):
        pass
    assert waiting[0].entered.wait(60)
    waiting[0].end()


def test_a_turn_ends_with_an_exception():
    for _ in range(2):
        with pytest.raises(KeyError, match="broken"), queued_for("cuda:0"):
            raise KeyError("broken")
        fit = Fit()
        assert fit.entered.wait(60)
        fit.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_fork_has_no_turn_of_its_own():
    with queued_for("cuda:0"):
        child = os.fork()
        if not child:
            signal.alarm(1)
            try:
                with queued_for("cuda:0"):
                    os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert status != 0


@pytest.mark.parametrize("what", ["file", "link", "of another"])
def test_a_folder_of_somebody_else_is_refused(what, folder, monkeypatch):
    mine = folder / "skprune-me"
    monkeypatch.setattr(_device_queue, "_user", lambda: "me")
    if what == "file":
        mine.write_text("")
    elif what == "link":
        mine.symlink_to(folder)
    else:
        mine.mkdir()
        monkeypatch.setattr(os, "getuid", lambda: 54321)
    refused = pytest.raises(PermissionError, match=r"skprune-me.*TMPDIR")
    with refused, queued_for("cuda"):
        raise AssertionError("had a turn")
