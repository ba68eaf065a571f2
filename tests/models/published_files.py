"""Small files in the layouts of the published ones. Names and shapes are written out from spec-network 1.13 and 1.14,
not taken from cupola's network."""

import pickle
import sys
import types
from contextlib import contextmanager

import torch

STEM, WIDTHS, BLOCKS, FPN, RPN, BOX, MASK, SEMANTIC = 8, (4, 4, 8, 8), (2, 1, 1, 1), 16, 8, 12, 8, 32


def norm(name, channels, counter=True):
    shapes = {f"{name}.norm.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes | ({f"{name}.norm.num_batches_tracked": ()} if counter else {})


def trunk_shapes(counter=True):
    """Of a ResNet without prefix."""
    shapes = {"stem.conv1.weight": (STEM, 3, 7, 7)} | norm("stem.conv1", STEM, counter)
    inputs = STEM
    for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 2):
        for block in range(count):
            name = f"res{stage}.{block}"
            parts = {"conv1": (width, inputs, 1, 1), "conv2": (width, width, 3, 3), "conv3": (4 * width, width, 1, 1)}
            if block == 0:
                parts["shortcut"] = (4 * width, inputs, 1, 1)
            for part, shape in parts.items():
                shapes |= {f"{name}.{part}.weight": shape} | norm(f"{name}.{part}", shape[0], counter)
            inputs = 4 * width
    return shapes


def both(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def network_shapes(things, stuff, counter=True, semantic=True):
    shapes = {f"backbone.bottom_up.{name}": shape for name, shape in trunk_shapes(counter).items()}
    for level, width in enumerate(WIDTHS, 2):
        for part, shape in (("lateral", (FPN, 4 * width, 1, 1)), ("output", (FPN, FPN, 3, 3))):
            name = f"backbone.fpn_{part}{level}"
            shapes |= {f"{name}.weight": shape} | norm(name, FPN, counter)
    rpn = "proposal_generator.rpn_head"
    shapes |= both(f"{rpn}.conv", RPN, FPN, 3, 3) | both(f"{rpn}.objectness_logits", 3, RPN, 1, 1)
    shapes |= both(f"{rpn}.anchor_deltas", 12, RPN, 1, 1)
    for stage in range(3):
        shapes |= both(f"roi_heads.box_head.{stage}.fc1", BOX, FPN * 49)
        shapes |= both(f"roi_heads.box_head.{stage}.fc2", BOX, BOX)
        shapes |= both(f"roi_heads.box_predictor.{stage}.cls_score", things + 1, BOX)
        shapes |= both(f"roi_heads.box_predictor.{stage}.bbox_pred", 4, BOX)
    for layer in range(1, 5):
        shapes |= both(f"roi_heads.mask_head.mask_fcn{layer}", MASK, FPN if layer == 1 else MASK, 3, 3)
    deconv = both("roi_heads.mask_head.deconv", MASK, MASK, 2, 2)
    shapes |= deconv | both("roi_heads.mask_head.predictor", things, MASK, 1, 1)
    if semantic:
        for level, layers in ((2, (0,)), (3, (0,)), (4, (0, 2)), (5, (0, 2, 4))):
            for layer in layers:
                name = f"sem_seg_head.p{level}.{layer}"
                shapes[f"{name}.weight"] = (SEMANTIC, SEMANTIC if layer else FPN, 3, 3)
                shapes |= {f"{name}.norm.weight": (SEMANTIC,), f"{name}.norm.bias": (SEMANTIC,)}
        shapes |= both("sem_seg_head.predictor", stuff + 1, SEMANTIC, 1, 1)
    return shapes


def filled(shapes, seed=0):
    """Random tensors; deviations are positive and counters count."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=generator) + (name.endswith("running_var"))
    return state


def behind(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@contextmanager
def foreign_class(module, name, base=dict):
    """A class of a package that is not installed, so that an object of it can be pickled."""
    made = types.ModuleType(module)
    kind = type(name, (base,), {"__module__": module})
    setattr(made, name, kind)
    parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
    before = {key: sys.modules.get(key) for key in (module, *parents)}
    sys.modules.update({parent: types.ModuleType(parent) for parent in parents} | {module: made})
    try:
        yield kind
    finally:
        for key, value in before.items():
            if value is None:
                del sys.modules[key]
            else:
                sys.modules[key] = value


def write_lightning(path, things, stuff, teacher=True):
    """As stage 3 (`cups.ckpt`; frozen norms count no batches) or stage 2 leaves it."""
    student = filled(network_shapes(things, stuff, counter=not teacher), seed=1)
    state = behind("model.", student)
    if teacher:
        state |= behind("teacher_model.model.", filled(network_shapes(things, stuff, counter=False), seed=2))
    with foreign_class("yacs.config", "CfgNode") as node:
        content = {
            "epoch": 3,
            "global_step": 4000,
            "pytorch-lightning_version": "2.1.0",
            "state_dict": state,
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "x"}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}],
            "lr_schedulers": [],
            "hyper_parameters": {
                "config": node({"MODEL": node({"TTA_SCALES": (0.5, 1.0)})}),
                "thing_pseudo_classes": tuple(range(stuff, stuff + things)),
                "stuff_pseudo_classes": tuple(range(stuff)),
                "class_names": None,
                "classes_mask": None,
            },
        }
        torch.save(content, path)
    return student


def write_detectron2(path, things, stuff, semantic=True):
    """As U2Seg and CutLER leave it."""
    state = filled(network_shapes(things, stuff, semantic=semantic), seed=3)
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.01, "params": [0]}]}
    older = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
    }
    torch.save({"model": state | older, "optimizer": optimizer, "iteration": 89999}, path)
    return state


def write_pickle(path, **more):
    """CutLER's pickle of DINO's ResNet: numpy arrays."""
    state = filled(trunk_shapes(), seed=4)
    content = {
        "model": {name: value.numpy() for name, value in (state | more).items()},
        "__author__": "CutLER",
        "matching_heuristics": True,
    }
    path.write_bytes(pickle.dumps(content, 2))
    return state


def torchvision_name(name):
    """spec-network 1.15, by hand."""
    parts = name.split(".")
    if parts[0] == "stem":
        return ".".join(["bn1", parts[3]] if parts[2] == "norm" else ["conv1", *parts[2:]])
    stage, block, layer, *rest = parts
    tail = ".".join(rest)
    if layer == "shortcut":
        layer = "downsample.1" if rest[0] == "norm" else "downsample.0"
    elif rest[0] == "norm":
        layer = layer.replace("conv", "bn")
    return f"layer{int(stage[3:]) - 1}.{block}.{layer}.{tail.removeprefix('norm.')}"


def torchvision_state(seed=5, classifier=False):
    """(state in the published names, the same in torchvision's)."""
    state = filled(trunk_shapes(), seed=seed)
    named = {torchvision_name(name): value for name, value in state.items()}
    if classifier:
        named |= {"fc.weight": torch.zeros(10, 4 * WIDTHS[3]), "fc.bias": torch.zeros(10)}
    return state, named
