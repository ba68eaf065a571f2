"""`cupola weights list|get|convert|verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cupola.errors import CheckpointError
from cupola.io import content_hash, read_checkpoint
from cupola.weights.cache import path_of, read_record
from cupola.weights.fetching import fetch
from cupola.weights.known import KNOWN, find_known, known
from cupola.weights.records import Converted, Fetched, Listed, Verified


def list_weights() -> list[Listed]:
    """The published weights that cupola knows: what they are, their licences, and which are here.

    `cupola weights get NAME` fetches one into the cache folder ($CUPOLA_CACHE, else ~/.cache/cupola).
    """
    return [Listed(entry, path if (path := path_of(entry)).exists() else None) for entry in KNOWN]


def get_weights(names: list[str], *, out: Path | None = None) -> list[Fetched]:
    """Fetches published weights; a broken download goes on where it stopped.

    A file appears only when it is whole. Its SHA-256 is held to the published one where that is known, and recorded in
    <file>.json else. A file that is there already is checked, not fetched. Mind the licences: `cupola weights list`.

    Args:
        names: names from `cupola weights list`, or names of files.
        out: folder for the files, such as that of `--preset paper --weights FOLDER`; the cache folder by default.

    Raises:
        ConfigError: there is no such name; nothing is fetched then.
        DownloadError: no connection, a refusal, or another content than the known one.
        DiskError: the disk is full or cannot be written; what has come is kept.
    """
    entries = [known(name) for name in names]
    return [Fetched(entry, *fetch(entry, out)) for entry in entries]


def convert_weights(
    file: Path,
    *,
    out: Path,
    which: Literal["student", "teacher"] = "student",
    assignment: Literal["auto", "cityscapes19", "none"] = "auto",
) -> Converted:
    """Converts a published file to safetensors with a card; nothing in it is executed.

    A network (cups.ckpt, checkpoints of CUPS' stages 2 and 3, U2Seg, CutLER's cascade) becomes a directory for
    `cupola predict --model`; CutLER's has no stuff, so all but its objects is void. A ResNet, a DINO transformer, RAFT,
    SMURF or DepthG becomes one file, to be given wherever the published one is.

    Args:
        file: the published file.
        out: directory for what is written.
        which: of the two networks of a stage-3 checkpoint: the student, or the teacher.
        assignment: names for the pseudo classes. cityscapes19 is that of cups.ckpt, found by comparing it with truth;
            auto takes it for a file called cups with its class numbers.

    Raises:
        CheckpointError: the file is missing, damaged, asks for code, or is of a network that cupola does not know.
        ConfigError: the assignment is of other class numbers.
        StoreError: there is another network in `out`.
        DiskError: writing failed.
    """
    from cupola.weights.convert import convert

    return convert(file, out, which, assignment)


def verify_weights(target: str | None = None) -> list[Verified]:
    """Checks that weights are whole: their SHA-256, and that they can be read.

    The hash is held to the published one, or to the one recorded when the file came; a file without either is only
    read.

    Args:
        target: a name from `cupola weights list`, a file, or the directory of a network; by default everything that was
            fetched.

    Raises:
        CheckpointError: something is missing, damaged or another than it was.
        ConfigError: there is no such name or file.
    """
    if target is None:
        return [_verified(path) for entry in KNOWN if (path := path_of(entry)).exists()]
    path = Path(target)
    if not path.exists():
        entry = known(target)
        path = path_of(entry)
        if not path.exists():
            raise CheckpointError(
                f"{entry.name} was not fetched ({path} does not exist); `cupola weights get {entry.name}`"
            )
    return [_verified(path)]


def _verified(path: Path) -> Verified:
    from cupola.models import load_network
    from cupola.models.checkpoint import WEIGHTS
    from cupola.models.published import FOREIGN
    from cupola.weights.convert import kind_of

    if path.is_dir():
        network, _ = load_network(path)
        content = f"network of {network.num_things} thing and {network.num_stuff} stuff pseudo classes"
        return Verified(path, content_hash(path / WEIGHTS), "nothing", content)
    entry, record = find_known(path.name), read_record(path)
    found = content_hash(path)
    published = entry.sha256 if entry else None
    expected = published or (record.sha256 if record else None)
    if expected is not None and found != expected:
        raise CheckpointError(
            f"{path} is not what was {'published' if published else 'fetched'}: its SHA-256 is {found}, not "
            f"{expected}; delete it and fetch it again"
        )
    content = kind_of(read_checkpoint(path, settings=FOREIGN), path)
    return Verified(path, found, "published" if published else "recorded" if record else "nothing", content)
