"""Fine-tuning on true labels: draws, targets, the adapted network, the verb with its resume, and bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_doubles as doubles
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.cli import main
from cupola.errors import ConfigError, DataError
from cupola.finetuning.adapting import adapted, class_names, class_order, knows
from cupola.finetuning.annotated import open_annotated
from cupola.finetuning.scored import Spread
from cupola.finetuning.subsets import draw_subset, read_list
from cupola.finetuning.task import TruthTask
from cupola.finetuning.truth import encode_truth, truth_data
from cupola.io.coco_panoptic import Annotation, Category, to_segments, write_index, write_map
from cupola.models import IGNORE, SOME_THING, PanopticNetwork, load_network, save_network, tiny
from cupola.taxonomy import CITYSCAPES_19
from cupola.training.augment import AugmentSettings
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.sampler import BatchSettings, make_batch, network_generator
from cupola.training.targets import Sample, make_target
from cupola.types import VOID, PanopticMap, Segment

IMAGES = 8


# Which images


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5), st.randoms())
def test_subsets_are_disjoint_and_of_their_size(count, images, seed, random):
    keys = [f"k{number:03d}" for number in range(count)]
    subsets = [set(draw_subset(keys, images, number, seed)) for number in range(count // images)]
    assert all(len(subset) == images for subset in subsets)
    assert len(set().union(*subsets)) == images * len(subsets)
    shuffled = random.sample(keys, count)
    assert [set(draw_subset(shuffled, images, number, seed)) for number in range(count // images)] == subsets


def test_other_seeds_draw_other_subsets():
    keys = [str(number) for number in range(100)]
    assert draw_subset(keys, 10, 0, 0) != draw_subset(keys, 10, 0, 1)


def test_more_than_there_is_cannot_be_drawn():
    with pytest.raises(ConfigError, match="3 disjoint subsets of 4 images need 12 annotated images, but there are 11;"):
        draw_subset([str(number) for number in range(11)], 4, 2, 0)
    for images, subset in ((0, 0), (1, -1)):
        with pytest.raises(ConfigError, match="a subset has a number from 0 on and at least one image"):
            draw_subset(["a"], images, subset, 0)


def test_a_list_of_keys(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("b\n\n a \n")
    assert read_list(path, ["a", "b", "c"]) == ("a", "b")
    for text, sentence in (("d", "lists d, which is no annotated image; they are named like a"), ("a\na", "a twice"),
                           ("\n", "lists no image")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DataError, match=sentence):
            read_list(path, ["a", "b", "c"])
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path / "none.txt", ["a"])


# Truth as targets


def test_crowds_keep_their_semantics_but_give_no_object():
    classes = np.array([[13, 13, 13, 13], [0, 10, VOID, 11]], np.int16)
    instances = np.array([[26001, 26001, 26002, 0], [0, 0, 0, 0]], np.int32)
    things, stuff = class_order(CITYSCAPES_19)
    codes, kinds = encode_truth(PanopticMap(classes, instances), things, stuff)
    assert kinds.tolist() == [things.index(13)] * 2
    target = make_target(Sample(np.zeros((2, 4, 3), np.uint8), codes, kinds))
    stuff_channel = [1 + stuff.index(0), 1 + stuff.index(10)]
    assert target.semantic.tolist() == [[SOME_THING] * 4, [*stuff_channel, IGNORE, SOME_THING]]
    assert target.masks.sum((1, 2)).tolist() == [2, 1]
    assert target.ignore.tolist() == [[False] * 3 + [True]] * 2  # nor evidence against one


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_truth_goes_through_the_codes_unharmed(seed):
    rng = np.random.default_rng(seed)
    classes = rng.integers(-1, 19, (6, 7)).astype(np.int16)
    is_thing = np.append(CITYSCAPES_19.is_thing, False)[classes]
    instances = np.where(is_thing, 1000 * classes + rng.integers(0, 3, classes.shape), 0).astype(np.int32)
    things, stuff = class_order(CITYSCAPES_19)
    codes, kinds = encode_truth(PanopticMap(classes, instances), things, stuff)
    target = make_target(Sample(np.zeros((6, 7, 3), np.uint8), codes, kinds))
    assert len(kinds) == len(np.unique(instances[instances > 0]))
    for mask, kind in zip(target.masks.numpy(), target.classes.tolist(), strict=True):
        assert len(np.unique(instances[mask])) == 1
        assert (classes[mask] == things[kind]).all()
    semantic = target.semantic.numpy()
    assert ((semantic == SOME_THING) == is_thing).all()
    assert ((semantic == IGNORE) == (classes == VOID)).all()
    known = (semantic != SOME_THING) & (semantic != IGNORE)
    assert (np.array(stuff)[semantic[known] - 1] == classes[known]).all()


# The network


def perturbed(network):
    """Every parameter and statistic away from its start, so that what is kept can be told from what begins anew."""
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value += 0.01 + 0.1 * torch.rand(value.shape, generator=generator)
    return network


def changed_names(before, after):
    return {
        name
        for name, value in after.items()
        if name not in before or value.shape != before[name].shape or not torch.equal(value, before[name])
    }


def test_class_predictors_begin_anew_and_all_else_stays():
    old = perturbed(PanopticNetwork(tiny(), 2, 5))
    new = adapted(old, {"things": [5, 6], "stuff": [0, 1, 2, 3, 4]}, CITYSCAPES_19, 0)
    assert (new.num_things, new.num_stuff) == (8, 11)
    assert new.settings.negatives.rule == "all"
    changed = changed_names(old.state_dict(), new.state_dict())
    heads = "roi_heads.box_predictor.0.cls_score", "sem_seg_head.predictor"  # masks are the same for all classes here
    assert changed == {f"{head}.{part}" for head in heads for part in ("weight", "bias")}
    again = adapted(old, {}, CITYSCAPES_19, 0)
    assert not changed_names(new.state_dict(), again.state_dict())
    assert changed_names(new.state_dict(), adapted(old, {}, CITYSCAPES_19, 1).state_dict()) == {
        f"{head}.weight" for head in heads
    }


def test_a_network_of_the_same_classes_keeps_everything():
    things, stuff = class_order(CITYSCAPES_19)
    card = {"things": list(things), "stuff": list(stuff), "class_names": class_names(CITYSCAPES_19)}
    assert knows(card, CITYSCAPES_19)
    assert not knows(card | {"class_names": {"0": "road"}}, CITYSCAPES_19)  # the same numbers, another meaning
    old = perturbed(PanopticNetwork(tiny(), 8, 11))
    assert not changed_names(old.state_dict(), adapted(old, card, CITYSCAPES_19, 0).state_dict())


def test_a_network_without_things_gets_region_heads():
    old = perturbed(PanopticNetwork(tiny(), 0, 5))
    new = adapted(old, {}, CITYSCAPES_19, 0)
    assert new.num_things == 8
    assert torch.equal(
        new.backbone.state_dict()["fpn_lateral2.weight"], old.backbone.state_dict()["fpn_lateral2.weight"]
    )


# The verb, on a street with truth


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return doubles.write_truth(tmp_path_factory.mktemp("annotated"), IMAGES)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return doubles.write_truth(tmp_path_factory.mktemp("held_out"), 3, 100)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of three pseudo classes that has learnt nothing."""
    path = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    save_network(path, PanopticNetwork(tiny(), 1, 2), {"things": [2], "stuff": [1, 0]})
    return path


def words(network, data, out, *more):
    return ["finetune", str(network), str(data), "--out", str(out), "--settings.batch", "2", "--device", "cpu", *more]


def weights_of(path):
    return load_network(path)[0].state_dict()


def test_images_and_truth_move_together(data):
    """N48: the red of the cars is where their masks are, in every random view."""
    annotated = open_annotated(data)
    settings = BatchSettings(4, (64, 96), 0, AugmentSettings(jitter=0.0, grey=0.0, blur=0.0), CopyPasteSettings((0, 0)))
    seen = 0
    for step in range(4):
        batch = make_batch(truth_data(annotated, annotated.keys), step, settings)
        for image, target in zip(batch.images, batch.targets, strict=True):
            red = (image[0] - image[2] > 0.3) & (target.semantic != IGNORE)
            things = target.semantic == SOME_THING
            assert (red & things).sum() >= 0.9 * (red | things).sum()  # colours mix at the rim
            assert not (target.masks.any(0) & ~things).any()
            seen += int(things.sum())
    assert seen > 1000


def test_frozen_means_frozen_with_its_statistics(data):
    annotated = open_annotated(data)
    settings = BatchSettings(2, (64, 96), 0, AugmentSettings(), CopyPasteSettings((0, 0)))
    for trainable in ("heads", "all"):
        task = TruthTask(truth_data(annotated, annotated.keys[:4]), settings, trainable, "source")
        model = PanopticNetwork(tiny(), 8, 11)
        model.requires_grad_(False)
        named = dict(task.parameters(model))
        assert any(name.startswith("backbone.") for name in named) == (trainable == "all")
        assert {n for n, _ in model.named_parameters() if not n.startswith("backbone.")} <= named.keys()
        for parameter in named.values():
            parameter.requires_grad_()
        task.train_mode(model)
        before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        batch = make_batch(task.data, 0, settings)
        losses = model.losses(batch.images, batch.targets, network_generator(0, 0))
        torch.stack(list(losses.values())).sum().backward()
        statistics = changed_names(before, model.backbone.state_dict())
        assert bool(statistics) == (trainable == "all")
        gradients = {name for name, p in model.named_parameters() if p.grad is not None and name.startswith("backbone")}
        assert bool(gradients) == (trainable == "all")


def test_it_learns_true_classes_from_few_images(network, data, held_out, tmp_path, capsys):
    """The subsets' networks, their figures without matching, the report; a second call trains nothing anew."""
    out = tmp_path / "out"
    more = ["--validate", str(held_out), "--images", "[2,4]", "--subsets", "2", "--steps", "30", "--trainable", "all"]
    more += ["--settings.optimizer.learning_rate", "0.01", "--settings.optimizer.warm_up", "5"]
    assert main(words(network, data, out, *more)) == 0
    assert "2 images: PQ" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert [(one["images"], one["subset"]) for one in result["networks"]] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    values = [one["figures"]["pq"] for one in result["networks"] if one["images"] == 4]
    assert result["pq"]["4"]["mean"] == pytest.approx(np.mean(values))
    assert result["pq"]["4"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert result["before"]["pq"] is not None
    scores = json.loads((out / "images-4-subset-0" / "evaluation.json").read_text())["matched"]["standard"]
    assert min(scores["per_class"][name]["pq"] for name in ("sky", "road")) > 0.5  # flat colours, class by class
    card = load_network(out / "images-4-subset-0")[1]
    assert card["class_names"]["13"] == "car"
    assert len(set(card["training"]["keys"]) & set(load_network(out / "images-4-subset-1")[1]["training"]["keys"])) == 0
    assert "PQ against the number of annotated images" in (out / "report.html").read_text()
    assert not list(out.glob("*/training.safetensors"))
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.suffix in (".safetensors", ".json")}
    assert main(words(network, data, out, *more)) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    evaluate = ["evaluate", str(tmp_path / "maps"), str(held_out), "--out", str(tmp_path / "scores")]
    maps = ["--model", str(out / "images-4-subset-0"), "--out", str(tmp_path / "maps"), "--device", "cpu"]
    assert main(["predict", str(held_out), *maps]) == 0
    assert main([*evaluate, "--assignment", str(out / "images-4-subset-0" / "evaluation.json")]) == 0
    scores = json.loads((tmp_path / "scores" / "result.json").read_text())
    figures = next(one["figures"] for one in result["networks"] if one["path"] == "images-4-subset-0")
    assert scores["matched"]["standard"]["all"]["pq"] == pytest.approx(figures["pq"], abs=1e-6)


def test_heads_alone_leave_the_trunk_and_resume_bit_for_bit(network, data, tmp_path, monkeypatch):
    more = ["--images", "3", "--steps", "6"]
    assert main(words(network, data, tmp_path / "whole", *more)) == 0
    path = tmp_path / "whole" / "images-3-subset-0"
    changed = changed_names(weights_of(network), weights_of(path))
    assert changed
    assert not [name for name in changed if name.startswith("backbone.")]

    from cupola.finetuning.task import TruthTask

    def stop(self, step, network):
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TruthTask, "after_step", stop)
        assert main(words(network, data, tmp_path / "parts", *more)) == 130
    assert main(words(network, data, tmp_path / "parts", *more)) == 0
    assert not changed_names(weights_of(path), weights_of(tmp_path / "parts" / "images-3-subset-0"))


def test_the_supervised_bound_from_an_untrained_network(data, tmp_path):
    assert main(words("tiny", data, tmp_path / "bound", "--trainable", "all", "--steps", "2")) == 0
    card = load_network(tmp_path / "bound" / "all")[1]
    assert len(card["training"]["keys"]) == IMAGES
    assert json.loads((tmp_path / "bound" / "result.json").read_text())["pq"] == {}


def test_a_coco_folder_has_its_own_classes(tmp_path, data):
    """Category ids are no class numbers; a crowd gives no object."""
    source, root = open_annotated(data), tmp_path / "coco"
    ids = {10: 40, 0: 7, 13: 90}  # sky, road, car
    (root / "images").mkdir(parents=True)
    entries = []
    for key in source.keys[:2]:
        image, truth = source.read(key)
        classes = np.vectorize(ids.get)(truth.classes).astype(np.int16)
        segment_ids, segments = to_segments(PanopticMap(classes, truth.instances), (90,))
        crowds = [s.is_thing and not (truth.instances[segment_ids == s.id] > 0).any() for s in segments]
        marked = tuple(replace(s, is_crowd=crowd) for s, crowd in zip(segments, crowds, strict=True))
        assert any(crowds)
        write_map(root / "panoptic" / f"{key}.png", segment_ids)
        shutil.copy(data / "left" / f"{key}.png", root / "images")
        entries.append(Annotation(key, f"{key}.png", f"{key}.png", *segment_ids.shape, marked))
    kinds = [Category(90, "car", True), Category(7, "road", False), Category(40, "sky", False)]
    write_index(root / "panoptic.json", entries, kinds, {})
    found = open_annotated(root)
    assert (found.taxonomy.names, found.taxonomy.is_thing) == (("road", "sky", "car"), (False, False, True))
    own = {10: 1, 0: 0, 13: 2}
    for key in found.keys:
        image, truth = found.read(key)
        np.testing.assert_array_equal(image, source.read(key)[0])
        expected = source.read(key)[1]
        np.testing.assert_array_equal(truth.classes, np.vectorize(own.get)(expected.classes))
        np.testing.assert_array_equal(truth.instances > 0, expected.instances > 0)
    escaping = [replace(entries[0], image="../secret.png")]
    write_index(root / "panoptic.json", escaping, kinds, {})
    with pytest.raises(DataError, match=r"the image \.\./secret\.png of .* leaves"):
        open_annotated(root).read(entries[0].key)
    write_index(root / "panoptic.json", [], kinds, {})
    with pytest.raises(DataError, match="lists no annotated image"):
        open_annotated(root)


def test_a_crowd_segment_is_no_instance():
    from cupola.io.coco_panoptic import from_segments

    ids = np.array([[1, 2]], np.int32)
    found = from_segments(ids, [Segment(1, 4, True, 1), Segment(2, 4, True, 1, is_crowd=True)])
    assert found.instances.tolist() == [[1, 0]]
    assert found.classes.tolist() == [[4, 4]]


# Bad input: one sentence, before any work


def refused(capsys, arguments, sentence):
    capsys.readouterr()  # a run before may have shown its bar, on a slow machine
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


def test_bad_input(network, data, tmp_path, capsys):
    out = tmp_path / "out"
    usual = words(network, data, out)
    refused(capsys, [*usual, "--images", "9"], "need 9 annotated images, but there are 8; take fewer --images")
    refused(capsys, [*usual, "--images", "3", "--subsets", "3"], "3 disjoint subsets of 3 images need 9")
    refused(capsys, [*usual, "--subset", "1"], "all images make one set only")
    refused(capsys, [*usual, "--images", "[2,2]"], "several different ones")
    refused(capsys, [*usual, "--images", "2", "--subsets", "0"], "at least one subset, not 0")
    refused(capsys, [*usual, "--steps", "0"], "at least one step, not 0")
    refused(capsys, [*usual, "--images", "2", "--keys", "k.txt"], "leave --images, --subsets and --subset out")
    refused(capsys, words("mask2former", data, out), "of the architecture mask2former; only a cascade")
    refused(capsys, words("tiny", data, out), "an untrained network, in which there is nothing worth freezing")
    refused(capsys, words(tmp_path / "none", data, out), "does not exist; give the directory of a trained network")
    refused(capsys, [*usual, "--backbone", "b.pth"], "--backbone is for an untrained network")
    bound = words("tiny", data, out, "--trainable", "all", "--backbone", str(tmp_path / "b.pth"))
    refused(capsys, bound, "b.pth does not exist; give --backbone the file of a trunk's weights")
    refused(capsys, [*usual, "--settings.batch", "0"], "at least one image")
    refused(capsys, [*usual, "--validate", str(data)], "is what the network learns from; validate on other images")
    assert not out.exists()


def test_data_without_truth_or_with_other_classes(network, data, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(data, bare)
    shutil.rmtree(bare / "truth")
    refused(capsys, words(network, bare, tmp_path / "out"), "holds no truth, so there is nothing to learn from")
    coco = tmp_path / "coco"
    (coco / "images").mkdir(parents=True)
    entry = Annotation("a", "a.png", "a.png", 4, 4, ())
    write_index(coco / "panoptic.json", [entry], [Category(1, "car", True)], {})
    refused(
        capsys, [*words(network, data, tmp_path / "out"), "--validate", str(coco)], "annotated with the same classes"
    )
    cv2.imwrite(str(bare / "left" / "0000.png"), np.zeros((10, 10, 3), np.uint8))
    shutil.copytree(data / "truth", bare / "truth")
    refused(capsys, words(network, bare, tmp_path / "out"), "they must have one size")


def test_another_network_or_other_images_under_the_same_name(network, data, tmp_path, capsys):
    more = ["--images", "2", "--steps", "1"]
    assert main(words(network, data, tmp_path / "out", *more)) == 0
    other = tmp_path / "other"
    save_network(other, perturbed(PanopticNetwork(tiny(), 1, 2)), {"things": [2], "stuff": [1, 0]})
    refused(capsys, words(other, data, tmp_path / "out", *more), "choose another --out")
    refused(capsys, words(network, data, tmp_path / "out", "--images", "2", "--steps", "2"), "of other settings (steps")


def test_a_damaged_network(network, data, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(network, broken)
    card = json.loads((broken / "model.json").read_text())
    card["num_stuff"] = 9
    (broken / "model.json").write_text(json.dumps(card))
    refused(capsys, words(broken, data, tmp_path / "out"), "but 1 thing and 9 stuff classes")


def test_a_network_of_another_architecture(data, tmp_path, capsys, monkeypatch):
    """Whatever else the weights' room finds one day: only a cascade has the heads that are trained here."""
    from torch import nn

    from cupola.finetuning import source

    class Other(nn.Module):
        settings = None

    monkeypatch.setattr(source, "find_network", lambda name: (Other(), {"things": [1], "stuff": [0]}))
    monkeypatch.setattr(source, "architecture_of", lambda settings: "mask2former")
    refused(capsys, words("other", data, tmp_path / "out"), "other is of the architecture mask2former; only a cascade")


def test_spread_of_one_and_of_several():
    assert Spread.of([0.25]) == Spread(0.25, 0.0, 0.25, 0.25)
    assert Spread.of([0.1, 0.2, 0.3]).deviation == pytest.approx(0.1)


def test_the_python_function_has_the_same_name():
    import cupola

    with pytest.raises(DataError, match=r"does not exist|is not a directory|no such"):
        cupola.finetune(Path("tiny"), Path("/nowhere"), out=Path("/nowhere/out"), trainable="all")
