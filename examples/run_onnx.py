"""python run_onnx.py NETWORK.onnx IMAGE OUT.png: the panoptic map of an image, without cupola and without torch."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

network, image, out = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 3  # it warns that the score threshold can be given
session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
names = [output.name for output in session.get_outputs()]
pixels = np.asarray(Image.open(image).convert("RGB"))
result = dict(zip(names, session.run(names, {"image": pixels}), strict=True))  # "score_threshold": np.float32 array

colours = np.random.default_rng(0).integers(60, 256, (len(result["segment_id"]) + 1, 3), dtype=np.uint8)
colours[0] = 0  # void
Image.fromarray((pixels // 2 + colours[result["panoptic"]] // 2).astype(np.uint8)).save(out)
for number, kind in zip(result["segment_id"], result["segment_class"], strict=True):
    area, score = result["segment_area"][number - 1], result["segment_score"][number - 1]
    kept = "stuff" if np.isnan(score) else f"score {score:.2f}"
    print("#{:02x}{:02x}{:02x}".format(*colours[number]), class_names[str(kind)], f"{area} pixels", kept)
