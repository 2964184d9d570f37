"""A folder's lock: held by one process, named, freed by any end of it."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from distail import file_lock
from distail.file_lock import FolderInUseError, lock_folder

HOLD = """
import os, sys, time
from pathlib import Path
from distail.file_lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    if {fork} and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    if not {fork}:
        print("held", flush=True)
    time.sleep(60)
"""


def holder(folder, *, fork=False):
    code = HOLD.format(fork=fork)
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)


def test_a_second_holder_is_told_of_the_first_and_the_end_frees_the_folder(tmp_path):
    with lock_folder(tmp_path), pytest.raises(FolderInUseError) as refused, lock_folder(tmp_path):
        pass
    assert refused.value.holder == f"process {os.getpid()} on {socket.gethostname()}"
    with lock_folder(tmp_path) as lock:
        assert lock.missing == ""


def test_a_killed_process_holds_nothing(tmp_path):
    process = holder(tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FolderInUseError, match=f"process {process.pid} on"), lock_folder(tmp_path):
        pass
    process.kill()
    process.communicate()
    with lock_folder(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_that_outlives_its_killed_parent_does_not_hold_the_folder(tmp_path):
    process = holder(tmp_path, fork=True)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with lock_folder(tmp_path):
            pass
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_file_system_without_locks_says_so_and_is_used(tmp_path, monkeypatch):
    def no_locks(descriptor, blocking=True):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock, "lock_descriptor", no_locks)
    with lock_folder(tmp_path) as lock:
        assert lock.missing == "No locks available"


def test_a_full_disk_has_a_lock_without_a_name(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # nothing can be written
    try:
        with lock_folder(tmp_path), pytest.raises(FolderInUseError) as refused, lock_folder(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.holder == "another process"


def test_a_folder_that_was_removed_and_begun_anew_is_not_ours_any_more(tmp_path):
    with lock_folder(tmp_path) as lock:
        assert lock.still_ours()
        (tmp_path / ".lock").unlink()
        assert not lock.still_ours()
        with lock_folder(tmp_path) as another:
            assert another.still_ours()
            assert not lock.still_ours()
