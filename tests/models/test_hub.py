"""Networks to and from the Hugging Face hub, without a connection: a cache as the hub's own library leaves it."""

import json

import pytest
import torch
import yaml
from huggingface_hub import HfApi, errors
from huggingface_hub.file_download import repo_folder_name

import cupola.models.hub as hub
from cupola.errors import CheckpointError, DownloadError
from cupola.models import PanopticNetwork, PretrainedNetwork, load_network, save_network, tiny

CARD = {"things": [3], "stuff": [0, 1, 2], "class_names": {"0": "road", "3": "car"}, "training": {"steps": 5}}


@pytest.fixture
def pretrained():
    torch.manual_seed(0)
    return PretrainedNetwork(PanopticNetwork(tiny(), 1, 3), CARD)


@pytest.fixture
def cache(tmp_path):
    """(cache folder, function that puts files into the snapshot of a repository): refs/main names the snapshot."""

    def put(repository, write):
        folder = tmp_path / "hf" / repo_folder_name(repo_id=repository, repo_type="model")
        commit = "0123456789" * 4
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        (folder / "blobs").mkdir()
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        write(snapshot)

    return tmp_path / "hf", put


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_directory_holds_our_two_files_and_a_page(pretrained, tmp_path):
    pretrained.save_pretrained(tmp_path / "net")
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    network, card = load_network(tmp_path / "net")
    assert same(network, pretrained.network)
    assert card == CARD
    again = PretrainedNetwork.from_pretrained(tmp_path / "net")
    assert same(again.network, pretrained.network)
    assert again.card == CARD
    assert not again.network.training


def test_the_page(pretrained, tmp_path):
    pretrained.card = CARD | {
        "source": {"file": "cups.ckpt", "sha256": "ab", "licence": "CC BY-NC-SA 4.0", "training": {"epoch": 3}},
        "figures": ["PQ 27.8"],
    }
    pretrained.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "cupola"
    assert front["license"] == "cc-by-nc-sa-4.0"
    lines = [
        "# cups.ckpt",
        "1 thing and 3 stuff",
        "- licence: CC BY-NC-SA 4.0",
        "- epoch: 3",
        "- PQ 27.8",
        "- steps: 5",
    ]
    lines += ["- 0: road (stuff)", "- 1: never occurs or has no name (stuff)", "- 3: car (thing)"]
    for line in lines:
        assert line in text


def test_from_a_repository_without_a_connection(pretrained, cache):
    folder, put = cache
    put("someone/streets", lambda snapshot: save_network(snapshot, pretrained.network, CARD))
    found = PretrainedNetwork.from_pretrained("someone/streets", cache_dir=folder, local_files_only=True)
    assert same(found.network, pretrained.network)
    assert found.card == CARD


def test_a_repository_of_something_else(cache):
    folder, put = cache
    put("someone/bert", lambda snapshot: (snapshot / "config.json").write_text("{}"))
    with pytest.raises((CheckpointError, DownloadError), match="someone/bert"):
        PretrainedNetwork.from_pretrained("someone/bert", cache_dir=folder, local_files_only=True)


def test_a_repository_that_was_never_fetched(tmp_path):
    with pytest.raises(
        DownloadError, match=r"hub cannot be reached and someone/streets was not fetched before"
    ) as raised:
        PretrainedNetwork.from_pretrained("someone/streets", cache_dir=tmp_path, local_files_only=True)
    assert "https://huggingface.co/someone/streets" in str(raised.value)


class Answer:
    """What the errors of huggingface_hub want to see of a server's answer."""

    headers: dict = {}  # noqa: RUF012
    status_code = 404
    request = None
    text = ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError, "hf auth login"),
        (errors.RepositoryNotFoundError, "there is no Hugging Face repository someone/streets"),
        (errors.RevisionNotFoundError, "has no revision v9"),
    ],
)
def test_what_the_hub_refuses(monkeypatch, error, message):
    def refuse(*_, **__):
        raise error("long\ntext", response=Answer())

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(DownloadError, match=message) as raised:
        PretrainedNetwork.from_pretrained("someone/streets", revision="v9")
    assert "\n" not in str(raised.value)


def test_a_name_that_is_none():
    with pytest.raises(DownloadError, match="there is no Hugging Face repository"):
        PretrainedNetwork.from_pretrained("a/b/c d")
    with pytest.raises(TypeError, match="takes no num_things"):
        PretrainedNetwork.from_pretrained("a/b", num_things=3)


def test_what_is_pushed(pretrained, monkeypatch):
    """The upload is asked for a folder of exactly the three files."""
    seen = {}

    def create(self, repo_id, **options):
        return type("Url", (), {"repo_id": repo_id})

    def upload(self, *, repo_id, folder_path, **options):
        seen[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        return "commit"

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    pretrained.push_to_hub("me/streets")
    (files,) = seen.values()
    assert sorted(files) == ["README.md", "model.json", "model.safetensors"]
    assert json.loads(files["model.json"])["card"] == CARD
