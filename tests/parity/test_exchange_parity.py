"""Label files on disk, imported, against what the published stage 2 loads (../shared/parity/semantics_fusion.npz).

Unlike test_fusion_parity this goes the whole way: files, their statistics, the store, its split, its labels. Two
defects of the published code are undone as there: a frame without a free pixel loses its lowest id, and the area of a
mask of stuff is ignored only in frames that also hold a mask of a thing.
"""

import cv2
import numpy as np
import pytest
import torch
import yaml

from cupola.pseudo_labels import FusionSettings, export_labels, import_labels

HEIGHT, WIDTH, FRAMES = 48, 64, 15
NAMES = (
    "distribution inside object proposals",
    "distribution per object proposal",
    "distribution all pixels",
)
"""In the order of the rows of `running`."""


@pytest.fixture(scope="module")
def two(shared):
    with np.load(shared / "parity/semantics_fusion.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=["k27", "k40"])
def published(request, two, tmp_path_factory):
    """(group, data set, directory of label files) as the published code leaves them."""
    group, root = request.param, tmp_path_factory.mktemp(request.param)
    for side in ("left", "right"):
        (root / "data" / side).mkdir(parents=True)
    (root / "labels").mkdir()
    for frame in range(FRAMES):
        for side in ("left", "right"):
            cv2.imwrite(str(root / "data" / side / f"{frame:06d}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        aligned, instances = two[f"{group}/aligned/semantic"][frame], two[f"{group}/instances"][frame]
        cv2.imwrite(str(root / "labels" / f"{frame:06d}_semantic.png"), aligned)
        cv2.imwrite(str(root / "labels" / f"{frame:06d}_instance.png"), instances)
    calibration = {"fx": 40.0, "fy": 40.0, "cx": 31.5, "cy": 23.5, "baseline": 0.5}
    (root / "data" / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    running = two[f"{group}/aligned/running"]
    half = FRAMES // 2  # two processes, each of which wrote what it saw
    for number, part in enumerate((running[half], running[-1] - running[half])):
        tensors = {name: torch.from_numpy(row.copy()) for name, row in zip(NAMES, part, strict=True)}
        torch.save(tensors, root / "labels" / f"pseudo_classes_split_{number}.pt")
    return group, root / "data", root / "labels"


def _store(published, tmp_path, threshold, **changed):
    _, data, labels = published
    fusion = FusionSettings(threshold, stuff_instances="drop_and_ignore", movable=0.0, sizes=0)
    return import_labels(labels, data=data, out=tmp_path / "store", fusion=fusion, workers=1, **changed)


def test_the_split_of_every_threshold(published, two, tmp_path):
    group = published[0]
    for threshold, things, raises in zip(
        two["thresholds"], two[f"{group}/aligned/num_things"], two[f"{group}/aligned/raises"], strict=True
    ):
        store = _store(published, tmp_path, float(threshold))
        assert raises or store.things == tuple(two[f"{group}/aligned/order"][:things])
        np.testing.assert_allclose(store.rule.counts.share, two[f"{group}/aligned/share"], rtol=0, atol=1e-7)


def test_files_count_what_the_images_hold(published, two, tmp_path):
    """Only where no pixel is free do masks differ, since the published code left one of them unaligned."""
    store = _store(published, tmp_path, 0.08)
    free = {key: (ids == 0).any() for key, ids in zip(store.keys, two[f"{published[0]}/instances"], strict=True)}
    assert sorted(free.values()) == [False] + [True] * (FRAMES - 1)
    seen = [entry.aligned if free[key] else entry.raw for key, entry in store.entries.items()]
    for field in ("inside", "total"):
        np.testing.assert_array_equal(sum(getattr(one, field) for one in seen), getattr(store.rule.counts, field))


def test_labels_as_stage_two_loads_them(published, two, tmp_path):
    group = published[0]
    loader = f"{group}/loader_{'0.08' if group == 'k27' else '0.06'}"
    store = _store(published, tmp_path, float(loader.rpartition("_")[2]))
    things, stuff = two[f"{loader}/things"].tolist(), two[f"{loader}/stuff"].tolist()
    assert list(store.things) == things
    table = np.full(257, 255)
    table[things], table[stuff] = 0, 1 + np.arange(len(stuff))
    masks = np.unpackbits(two[f"{loader}/masks_packed"], axis=-1)[..., :WIDTH].astype(bool)
    compared = 0
    for frame, key in enumerate(store.keys):
        if not (two[f"{group}/instances"][frame] == 0).any():
            continue
        label = store.label(key)
        found = [label.instances == number for number in np.unique(label.instances[label.instances > 0])]
        ignored = "on" if found else "off"
        target = two[f"{loader}/target_on_{ignored}"][frame]
        if found or not store.instance_map(key).any():
            np.testing.assert_array_equal(table[label.classes], target, key)
            compared += 1
        else:  # masks of stuff alone: theirs keep their class, ours are ignored
            np.testing.assert_array_equal(table[label.classes], np.where(store.instance_map(key) > 0, 255, target), key)
        of_frame = two[f"{loader}/frame"] == frame
        np.testing.assert_array_equal(
            found, masks[of_frame].reshape(-1, HEIGHT, WIDTH)[: of_frame.sum()] if found else []
        )
        ranks = [store.things.index(int(label.classes[mask][0])) for mask in found]
        assert ranks == two[f"{loader}/classes"][of_frame].tolist()
    assert compared >= 10


def test_an_export_gives_the_files_back(published, two, tmp_path):
    group = published[0]
    store = _store(published, tmp_path, 0.08)
    export_labels(store.path, out=tmp_path / "back", workers=1)
    statistics = torch.load(tmp_path / "back/pseudo_classes_split_0.pt", weights_only=True)
    for name, row in zip(NAMES, two[f"{group}/aligned/running"][-1], strict=True):
        np.testing.assert_array_equal(statistics[name].numpy(), row, name)
    for frame, key in enumerate(store.keys):
        instances = two[f"{group}/instances"][frame]
        back = cv2.imread(str(tmp_path / f"back/{key}_instance.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(np.unique(instances[instances > 0], return_inverse=True)[1] + 1, back[back > 0])
        np.testing.assert_array_equal(instances > 0, back > 0)
        if (instances == 0).any():
            semantic = cv2.imread(str(tmp_path / f"back/{key}_semantic.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(semantic, two[f"{group}/aligned/semantic"][frame])
