"""Fetching, against a server on this machine with and without parts, cut connections, changed files, a full disk."""

import errno
import hashlib
import io
import json
import socket
from pathlib import Path

import pytest
from file_server import Serving, server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cupola.weights.download as module
from cupola.errors import ConfigError, DiskError, DownloadError
from cupola.weights.cache import read_record, record_path
from cupola.weights.download import download

CONTENT = bytes(range(256)) * 40


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def left_behind(folder):
    """Files besides the download and its record."""
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name)


def test_a_whole_file_and_its_record(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    with server(Serving(CONTENT)) as serving:
        record = download(serving.url, path)
        assert path.read_bytes() == CONTENT
        assert (record.sha256, record.size, record.validator) == (digest(CONTENT), len(CONTENT), '"v1"')
        assert read_record(path) == record
        assert left_behind(path.parent) == []
        assert download(serving.url, path) == record
        assert serving.asked == [None]  # the second call asked nobody


@pytest.mark.parametrize("parts", [True, False])
def test_a_cut_connection_costs_what_was_not_there_yet(tmp_path, parts):
    with server(Serving(CONTENT, parts=parts, cuts=[4000, 3000])) as serving:
        record = download(serving.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert record.sha256 == digest(CONTENT)
    assert serving.asked[:2] == [None, "bytes=4000-"]
    assert serving.asked[2] == ("bytes=7000-" if parts else "bytes=3000-")
    assert left_behind(tmp_path) == []


@given(cuts=st.lists(st.integers(1, 6000), max_size=4), parts=st.booleans(), tag=st.sampled_from(['"v1"', None]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_cut_the_file_is_whole_or_not_there(tmp_path_factory, cuts, parts, tag):
    folder = tmp_path_factory.mktemp("cuts")
    with server(Serving(CONTENT, parts=parts, tag=tag, cuts=cuts)) as serving:
        assert download(serving.url, folder / "file.bin").sha256 == digest(CONTENT)
    assert (folder / "file.bin").read_bytes() == CONTENT


def test_an_earlier_process_is_gone_on_with(tmp_path):
    path = tmp_path / "file.bin"
    with (
        server(Serving(CONTENT, cuts=[5000] + [0] * 5)) as serving,
        pytest.raises(DownloadError, match="0 MB are kept"),
    ):
        download(serving.url, path)
    assert left_behind(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    assert not path.exists()
    with server(Serving(CONTENT)) as serving:
        download(serving.url, path)
        assert serving.asked == ["bytes=5000-"]
    assert path.read_bytes() == CONTENT


def test_a_killed_process_that_had_everything_needs_nothing_more(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    (tmp_path / "file.bin.part.json").write_text(json.dumps({"validator": '"v1"'}))
    with server(Serving(CONTENT)) as serving:
        download(serving.url, tmp_path / "file.bin")
        assert serving.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("before", [b"x" * 5000, b"x" * 50_000])
def test_a_file_that_has_changed_meanwhile_begins_anew(tmp_path, before):
    """Also where what is there is longer than the new file."""
    (tmp_path / "file.bin.part").write_bytes(before)
    (tmp_path / "file.bin.part.json").write_text(json.dumps({"validator": '"v0"'}))
    with server(Serving(CONTENT)) as serving:
        record = download(serving.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert record.validator == '"v1"'


@pytest.mark.parametrize("about", ["{", "[]", '{"validator": null}', None])
def test_a_beginning_without_a_mark_is_worth_nothing(tmp_path, about):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 5000)
    if about is not None:
        (tmp_path / "file.bin.part.json").write_text(about)
    with server(Serving(CONTENT)) as serving:
        download(serving.url, tmp_path / "file.bin")
        assert serving.asked == [None]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_joined_file_with_a_wrong_hash_is_fetched_once_more(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 5000)
    (tmp_path / "file.bin.part.json").write_text(json.dumps({"validator": '"v1"'}))  # a server that forgot to change it
    with server(Serving(CONTENT)) as serving:
        download(serving.url, tmp_path / "file.bin", sha256=digest(CONTENT))
        assert serving.asked == ["bytes=5000-", None]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_sends_another_part_is_not_believed(tmp_path):
    with server(Serving(CONTENT, cuts=[4000], lies=True)) as serving, pytest.raises(DownloadError, match="byte 4001"):
        download(serving.url, tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_without_length_the_end_of_the_connection_is_the_end(tmp_path):
    with server(Serving(CONTENT, length=False)) as serving:
        assert download(serving.url, tmp_path / "file.bin", sha256=digest(CONTENT)).size == len(CONTENT)


def test_a_wrong_hash_is_thrown_away(tmp_path):
    with server(Serving(CONTENT)) as serving, pytest.raises(DownloadError) as raised:
        download(serving.url, tmp_path / "file.bin", sha256=digest(b"other"))
    text = str(raised.value)
    assert digest(CONTENT) in text
    assert digest(b"other") in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_changed_on_the_disk(tmp_path):
    path = tmp_path / "file.bin"
    with server(Serving(CONTENT)) as serving:
        download(serving.url, path)
        path.write_bytes(b"other")
        with pytest.raises(DownloadError, match="is not what was published or fetched"):
            download(serving.url, path)


def test_a_file_that_was_put_there_by_hand(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    assert download("https://example.invalid/file.bin", path).sha256 == digest(CONTENT)
    assert record_path(path).exists()
    with pytest.raises(DownloadError, match="delete it and run"):
        download("https://example.invalid/file.bin", path, sha256=digest(b"other"))


@pytest.mark.parametrize("codes", [[500], [503, 429]])
def test_a_server_in_trouble_is_asked_again(tmp_path, codes):
    with server(Serving(CONTENT, refusals=[*codes])) as serving:
        download(serving.url, tmp_path / "file.bin")
        assert len(serving.asked) == len(codes) + 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refusal_is_said_at_once(tmp_path, code):
    path = tmp_path / "file.bin"
    with server(Serving(CONTENT, refusals=[code])) as serving, pytest.raises(DownloadError, match=str(code)) as raised:
        download(serving.url, path)
    assert serving.url in str(raised.value)
    assert str(path) in str(raised.value)
    assert len(serving.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_offline_tells_where_to_fetch_and_where_to_put(tmp_path, monkeypatch):
    def no_name(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    path = tmp_path / "weights" / "cups.ckpt"
    with pytest.raises(DownloadError) as raised:
        download("https://tudatalib.example/cups.ckpt", path)
    text = str(raised.value)
    assert "https://tudatalib.example/cups.ckpt cannot be reached from this machine" in text
    assert text.endswith(f"fetch it on another machine and put it at {path}")
    assert list(path.parent.iterdir()) == []


def test_nobody_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match="cannot be reached"):
            download(url, tmp_path / "x")


def test_a_disk_that_is_full_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with server(Serving(CONTENT)) as serving, pytest.raises(DiskError, match="has 0 MB left"):
        download(serving.url, tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()


def test_a_disk_that_fills_keeps_what_has_come(tmp_path, monkeypatch):
    """The write fails once 4000 bytes are there; with room again, only the rest is asked for."""
    real = Path.open

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() >= 4000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def opened(self, mode="r", *arguments, **more):
        wanted = self.name.endswith(".part") and mode in ("wb", "r+b")
        return Full(self, mode) if wanted else real(self, mode, *arguments, **more)

    path = tmp_path / "file.bin"
    with server(Serving(CONTENT)) as serving:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            with pytest.raises(DiskError, match=r"cannot write .*file\.bin: No space left on device; free some space"):
                download(serving.url, path)
        assert left_behind(tmp_path) == ["file.bin.part", "file.bin.part.json"]
        download(serving.url, path)
        assert serving.asked == [None, "bytes=4000-"]
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError, match="choose another folder with --out"):
        download("https://example.invalid/x", tmp_path / "file" / "x")


def test_no_web_address(tmp_path):
    with pytest.raises(ConfigError, match="no web address"):
        download("file:///etc/passwd", tmp_path / "x")


def test_two_processes_at_once(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "file.bin.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match=r"another process is fetching file\.bin"):
            download("https://example.invalid/x", tmp_path / "file.bin")
