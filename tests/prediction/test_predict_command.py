"""`cupola predict` as a command, on images and videos good and bad; its files read back by others' means."""

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from predicting_doubles import STUFF, THINGS, noise, save_untrained
from pycocotools import mask as coco_mask

import cupola
from cupola.cli import main
from cupola.io import write_rgb
from cupola.io.coco_panoptic import read_index, read_map
from cupola.io.video_stream import VideoOutput, VideoStream
from cupola.prediction import command
from cupola.prediction.pixels import rgb_of
from cupola.prediction.sources import unique_keys

LOW = ("--threshold", "0.01")
"""At which the untrained network finds objects."""


def predict(source, model, out, *options, code=0):
    sources = [source] if isinstance(source, (str, Path)) else source
    assert main(["predict", *map(str, sources), "--model", str(model), "--out", str(out), *LOW, *options]) == code


def write_video(path, image, frames):
    with VideoOutput(path, Fraction(10)) as video:
        for number in range(frames):
            video.write(np.roll(image, 4 * number, 1), Fraction(number, 10))


def contents(out):
    """Files that depend on the input alone. Of videos the name counts: equal frames may give other bytes of H.264."""
    return {
        str(path.relative_to(out)): b"" if path.suffix == ".mp4" else path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("config.yaml", "frames.jsonl")
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def image():
    return noise()


@pytest.fixture
def photos(tmp_path, image):
    folder = tmp_path / "photos"
    for number in range(5):
        write_rgb(folder / f"{number}.png", np.roll(image, number * 7, 1))
    return folder


def read_as_others_do(folder, images):
    """Reads COCO panoptic files by their documented rules alone, with Pillow and pycocotools, and checks all of them.

    Gives the class of every pixel of each image by its id.
    """
    content = json.loads((folder / "panoptic.json").read_text())
    kinds = {category["id"]: category for category in content["categories"]}
    assert all(category["isthing"] in (0, 1) and category["name"] for category in kinds.values())
    about = {image["id"]: image for image in content["images"]}
    assert len(about) == len(content["images"]) == images
    assert sorted(a["image_id"] for a in content["annotations"]) == sorted(about)
    maps = {}
    for annotation in content["annotations"]:
        with Image.open(folder / "panoptic" / annotation["file_name"]) as file:
            assert file.mode == "RGB"
            rgb = np.array(file).astype(np.uint32)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]
        described = annotation["image_id"]
        assert ids.shape == (about[described]["height"], about[described]["width"])
        assert {s["id"] for s in annotation["segments_info"]} == {int(i) for i in np.unique(ids)} - {0}
        classes = np.full(ids.shape, -1)
        for segment in annotation["segments_info"]:
            encoded = coco_mask.encode(np.asfortranarray(ids == segment["id"], np.uint8))
            assert segment["area"] == coco_mask.area(encoded)
            assert segment["bbox"] == coco_mask.toBbox(encoded).tolist()
            assert segment["iscrowd"] == 0
            classes[ids == segment["id"]] = kinds[segment["category_id"]]["id"]
        stuff = [s["category_id"] for s in annotation["segments_info"] if not kinds[s["category_id"]]["isthing"]]
        assert len(stuff) == len(set(stuff)), "a stuff class is one segment"
        maps[described] = classes
    return content, maps


def test_other_readers_read_what_the_predictor_said(model, photos, tmp_path):
    predict(photos, model, tmp_path / "out")
    content, maps = read_as_others_do(tmp_path / "out", 5)
    predictor = cupola.load(model, threshold=0.01)
    things = 0
    for about in content["images"]:
        prediction = predictor(photos / f"{about['key']}.png")
        assert np.array_equal(maps[about["id"]], prediction.panoptic.classes)
        assert about["file_name"] == str(photos / f"{about['key']}.png")
        things += len(prediction.instances)
    assert things > 0
    assert {c["id"]: bool(c["isthing"]) for c in content["categories"]} == {c: c in THINGS for c in (*THINGS, *STUFF)}


def test_the_command_goes_on_past_a_damaged_file(model, photos, tmp_path, capsys):
    (photos / "2.png").write_bytes(b"not an image")
    (photos / "3.png").write_bytes((photos / "3.png").read_bytes()[:300])
    predict([photos, photos / "none.png"], model, tmp_path / "out", code=1)
    told = capsys.readouterr().out
    assert "3 images" in told
    assert told.count("left out: ") == 3
    assert "3 could not be read and are left out" in told
    assert all(f"{name}.png" in told for name in ("2", "3", "none"))
    annotations, _ = read_index(tmp_path / "out" / "panoptic.json")
    assert [a.key for a in annotations] == ["0", "1", "4"]
    assert "2.png" in (tmp_path / "out" / "report.html").read_text()
    # Once mended, they are predicted by the same command, and nothing else is.
    for name in ("2", "3"):
        (photos / f"{name}.png").write_bytes((photos / "0.png").read_bytes())
    predict([photos, photos / "none.png"], model, tmp_path / "out", code=1)
    assert "2 of them now" in capsys.readouterr().out
    assert len(read_index(tmp_path / "out" / "panoptic.json")[0]) == 5


def test_the_same_command_again_predicts_nothing_twice(model, photos, tmp_path, capsys, monkeypatch):
    predict(photos, model, tmp_path / "whole")
    asked = []
    batch = command.Predictor.batch

    def counting(self, images):
        asked.append(len(images))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return batch(self, images)

    monkeypatch.setattr(command.Predictor, "batch", counting)
    predict(photos, model, tmp_path / "out", "--batch", "2", code=130)
    predict(photos, model, tmp_path / "out", "--batch", "4")
    assert asked == [2, 2, 3]
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "whole").keys()
    ours, theirs = (read_index(tmp_path / name / "panoptic.json") for name in ("out", "whole"))
    assert ours == theirs
    predict(photos, model, tmp_path / "out")
    assert asked == [2, 2, 3]
    # An image that has changed is predicted again.
    write_rgb(photos / "1.png", np.zeros((40, 40, 3), np.uint8))
    predict(photos, model, tmp_path / "out")
    assert asked == [2, 2, 3, 1]
    assert read_index(tmp_path / "out" / "panoptic.json")[0][1].width == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", "0.3"), "other settings (overlap: None there, 0.3 now)"),
        (("--legend", "false"), "other settings (legend: True there, False now)"),
        (("--names", "names.yaml"), "predictions of another network or by other settings"),
    ],
)
def test_changed_settings_are_refused(model, photos, tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    Path("names.yaml").write_text("5: car")
    predict(photos / "0.png", model, tmp_path / "out")
    before = contents(tmp_path / "out")
    capsys.readouterr()
    predict(photos / "0.png", model, tmp_path / "out", *options, code=2)
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert contents(tmp_path / "out") == before


def test_names_reach_every_output(model, photos, tmp_path):
    (tmp_path / "names.yaml").write_text("\n".join(f"{c}: name{c}" for c in (*THINGS, *STUFF)))
    predict(photos / "0.png", model, tmp_path / "plain")
    predict(photos / "0.png", model, tmp_path / "out", "--names", str(tmp_path / "names.yaml"))
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [c["name"] for c in content["categories"]] == [f"name{c}" for c in sorted((*THINGS, *STUFF))]
    assert "name5" in (tmp_path / "out" / "report.html").read_text()
    plain, named = (cv2.imread(str(tmp_path / name / "overlays" / "0.png")) for name in ("plain", "out"))
    assert plain.shape != named.shape or not np.array_equal(plain[64:], named[64:])  # the legend tells them


def test_a_legend_stands_below_the_image(model, photos, image, tmp_path):
    predict(photos / "0.png", model, tmp_path / "with")
    predict(photos / "0.png", model, tmp_path / "without", "--legend", "false")
    with_legend, without = (cv2.imread(str(tmp_path / n / "overlays" / "0.png")) for n in ("with", "without"))
    assert without.shape == image.shape
    assert with_legend.shape[0] > image.shape[0]
    assert np.array_equal(with_legend[: image.shape[0], : image.shape[1]], without)


def test_a_video_in_and_out(model, image, tmp_path, capsys):
    write_video(tmp_path / "drive.mp4", image, 7)
    predict(tmp_path / "drive.mp4", model, tmp_path / "out", "--legend", "false", "--batch", "3")
    content, maps = read_as_others_do(tmp_path / "out", 7)
    assert [a["file_name"] for a in content["annotations"]] == [f"drive/{n:06d}.png" for n in range(7)]
    with VideoStream(tmp_path / "out" / "overlays" / "drive.mp4") as stream:
        frames = list(stream.frames())
        assert (stream.rate, stream.count()) == (10, 7)
    assert {frame.image.shape for frame in frames} == {image.shape}
    predictor = cupola.load(model, threshold=0.01)
    with VideoStream(tmp_path / "drive.mp4") as stream:
        for number, frame in enumerate(stream.frames(), 1):
            prediction = predictor(frame.image)
            assert np.array_equal(maps[number], prediction.panoptic.classes)
            seen = np.abs(frames[number - 1].image.astype(int) - prediction.overlay())
            assert seen.mean() < 20  # chroma has half the resolution
    assert "7 images" in capsys.readouterr().out


def test_every_other_frame_of_a_video(model, image, tmp_path):
    write_video(tmp_path / "drive.mp4", image, 7)
    predict(tmp_path / "drive.mp4", model, tmp_path / "out", "--every", "2")
    annotations, _ = read_index(tmp_path / "out" / "panoptic.json")
    assert [a.key for a in annotations] == [f"drive/{n:06d}" for n in (0, 2, 4, 6)]
    with VideoStream(tmp_path / "out" / "overlays" / "drive.mp4") as stream:
        assert stream.rate == 5
        assert [frame.time for frame in stream.frames()] == [Fraction(n, 5) for n in range(4)]


def test_a_video_that_breaks_off_keeps_what_was_decoded(model, image, tmp_path, capsys):
    write_video(tmp_path / "drive.mp4", image, 12)
    content = (tmp_path / "drive.mp4").read_bytes()
    (tmp_path / "drive.mp4").write_bytes(content[: len(content) * 9 // 10])
    for _ in range(2):  # the second time from what the first has noted
        predict(tmp_path / "drive.mp4", model, tmp_path / "out", code=1)
        told = capsys.readouterr().out
        annotations, _ = read_index(tmp_path / "out" / "panoptic.json")
        assert 0 < len(annotations) < 12
        assert f"in part: {tmp_path / 'drive.mp4'} breaks off: {len(annotations)} of 12 frames could be read" in told
    with VideoStream(tmp_path / "out" / "overlays" / "drive.mp4") as stream:
        assert len(list(stream.frames())) == len(annotations)


def test_a_stopped_video_goes_on_without_asking_twice(model, image, tmp_path, monkeypatch):
    write_video(tmp_path / "drive.mp4", image, 7)
    predict(tmp_path / "drive.mp4", model, tmp_path / "whole", "--batch", "2")
    asked = []
    batch = command.Predictor.batch

    def counting(self, images):
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return batch(self, images)

    monkeypatch.setattr(command.Predictor, "batch", counting)
    predict(tmp_path / "drive.mp4", model, tmp_path / "out", "--batch", "2", code=130)
    assert not (tmp_path / "out" / "overlays" / "drive.mp4").exists()
    predict(tmp_path / "drive.mp4", model, tmp_path / "out", "--batch", "2")
    assert asked == [2, 2, 2, 2, 1]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with (
        VideoStream(tmp_path / "out/overlays/drive.mp4") as ours,
        VideoStream(tmp_path / "whole/overlays/drive.mp4") as w,
    ):
        for one, other in zip(ours.frames(), w.frames(), strict=True):
            assert one.time == other.time
            assert np.abs(one.image.astype(int) - other.image).mean() < 20
    predict(tmp_path / "drive.mp4", model, tmp_path / "out", "--batch", "2")
    assert asked == [2, 2, 2, 2, 1]


def test_images_and_videos_from_everywhere_together(model, photos, image, tmp_path, capsys):
    write_video(photos / "drive.mp4", image, 2)
    (photos / "text.mp4").write_text("no video")
    predict([photos, str(photos / "*.png")], model, tmp_path / "out", code=1)
    assert "text.mp4 is not a video" in capsys.readouterr().out
    annotations, _ = read_index(tmp_path / "out" / "panoptic.json")
    keys = [a.key for a in annotations]
    assert keys == [*"01234", "drive/000000", "drive/000001"]


def test_what_the_command_wrote_is_no_input(model, photos, tmp_path, capsys):
    for _ in range(2):
        predict(photos.parent, model, photos.parent / "out")
        assert "5 images" in capsys.readouterr().out


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


STRANGE = {
    "grey": lambda i, p: Image.fromarray(i).convert("L").save(p),
    "one-bit": lambda i, p: Image.fromarray(i).convert("1").save(p),
    "16-bit": lambda i, p: cv2.imwrite(str(p), i[..., ::-1].astype(np.uint16) * 256),
    "16-bit-grey": lambda i, p: cv2.imwrite(str(p), i[..., 1].astype(np.uint16) * 256),
    "rgba": lambda i, p: Image.fromarray(i).convert("RGBA").save(p),
    "palette": lambda i, p: Image.fromarray(i).quantize(64).save(p),
    "pixel": lambda i, p: Image.fromarray(i[:1, :1]).save(p),
    "row": lambda i, p: Image.fromarray(i[:1]).save(p),
}


def test_images_of_any_kind(model, image, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, save in STRANGE.items():
        save(image, folder / f"{name}.png")
    Image.fromarray(image).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(np.ascontiguousarray(np.rot90(image))).save(folder / "lying.jpg", quality=95, exif=exif(6))
    pages = [Image.fromarray(np.roll(image, 9 * n, 1)) for n in range(3)]
    for name in ("moving.png", "moving.webp", "pages.tif", "moving.gif"):
        pages[0].save(folder / name, save_all=True, append_images=pages[1:], duration=100)
    predict(folder, model, tmp_path / "out")
    told = capsys.readouterr().out
    assert "left out" not in told
    assert told.count("holds several pictures; the first was predicted") == 3
    content, _ = read_as_others_do(tmp_path / "out", len(STRANGE) + 5 + 3)
    sizes = {about["key"]: (about["height"], about["width"]) for about in content["images"]}
    assert sizes.pop("pixel") == (1, 1)
    assert sizes.pop("row") == (1, image.shape[1])
    assert set(sizes.values()) == {image.shape[:2]}  # that of lying.jpg, too
    assert {"moving/000000", "moving/000001", "moving/000002"} <= sizes.keys()


def test_pixels_of_strange_images_are_right(image, tmp_path):
    for name in ("grey", "16-bit", "rgba"):
        STRANGE[name](image, tmp_path / "a.png")
        wanted = np.asarray(Image.fromarray(image).convert("L" if name == "grey" else "RGB").convert("RGB"))
        assert np.abs(rgb_of(tmp_path / "a.png").astype(int) - wanted).max() <= 1
    smooth = cv2.GaussianBlur(image, (0, 0), 4)
    for turns, orientation in ((1, 6), (2, 3), (3, 8)):
        turned = Image.fromarray(np.ascontiguousarray(np.rot90(smooth, turns)))
        turned.save(tmp_path / "a.jpg", quality=95, exif=exif(orientation))
        assert np.abs(rgb_of(tmp_path / "a.jpg").astype(int) - smooth).mean() < 3


def test_a_large_image_and_one_that_is_too_large(model, tmp_path, capsys):
    Image.new("L", (3_000, 3_000), 90).save(tmp_path / "large.png")
    predict(tmp_path / "large.png", model, tmp_path / "out", "--max_pixels", "10000", "--legend", "false")
    ((annotation,), _) = read_index(tmp_path / "out" / "panoptic.json")
    assert (annotation.height, annotation.width) == (3_000, 3_000)
    assert Image.open(tmp_path / "out" / "panoptic" / "large.png").size == (3_000, 3_000)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    predict(tmp_path / "huge.png", model, tmp_path / "out2", code=2)
    assert "claims to hold 20000 x 20000 pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes(b"x" * 100), "model.safetensors"),
        (lambda m: (m / "model.json").write_text("{"), "model.json"),
        (lambda m: change(m / "model.json", num_things=3), "3 thing and"),
        (lambda m: change(m / "model.json", num_stuff=7), "7 stuff classes"),
        (lambda m: change(m / "model.json", card={"things": [5], "stuff": [0, 3, 4]}), "names 1 thing"),
        (lambda m: change(m / "model.json", card={}), "names no things"),
        (lambda m: change(m / "model.json", settings={"fpn_channel": 8}), "no setting 'fpn_channel'"),
    ],
)
def test_a_broken_model_is_one_sentence(model, photos, tmp_path, capsys, break_it, sentence):
    broken = tmp_path / "model"
    broken.mkdir()
    for name in ("model.safetensors", "model.json"):
        (broken / name).write_bytes((model / name).read_bytes())
    break_it(broken)
    predict(photos, broken, tmp_path / "out", code=2)
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", ["*.png", "empty"])
def test_no_image_is_one_sentence(model, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    predict(tmp_path / name, model, tmp_path / "out", code=2)
    assert "there is no image or video at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_damaged_images_are_an_error(model, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"no image")
    predict(tmp_path / "a.png", model, tmp_path / "out", code=2)
    error = capsys.readouterr().err
    assert "none of the 1 images and videos could be read" in error
    assert "a.png is not an image" in error


@pytest.mark.parametrize("option", ["--every", "--batch", "--max_pixels"])
def test_numbers_below_one_are_refused(model, photos, tmp_path, capsys, option):
    predict(photos, model, tmp_path / "out", option, "0", code=2)
    assert "must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "keys"),
    [
        (["x/0.png", "y/0.png"], ["x_0", "y_0"]),
        (["x/0.png"], ["0"]),
        (["x/0.png", "x/0.jpg", "x/1.png"], ["0_png", "0_jpg", "1"]),
        (["/a/x/l/0.png", "/a/y/l/0.png", "/a/l_0.png"], ["x_l_0", "y_l_0", "a_l_0"]),
        (["A.png", "a.png"], ["000000_A", "000001_a"]),
    ],
)
def test_keys_are_unique(paths, keys):
    assert unique_keys([Path(path) for path in paths]) == keys


def test_maps_read_back_are_those_predicted(model, photos, tmp_path):
    predict(photos / "0.png", model, tmp_path / "out")
    ((annotation,), _) = read_index(tmp_path / "out" / "panoptic.json")
    prediction = cupola.load(model, threshold=0.01)(photos / "0.png")
    read = read_map(tmp_path / "out" / "panoptic", annotation)
    assert np.array_equal(read.stacked(), prediction.panoptic.stacked())
