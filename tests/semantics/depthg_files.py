"""Small DepthG networks, in the layout of the published `depthg.ckpt`."""

import sys
import types

import torch

from cupola.semantics.backbones import random_backbone
from cupola.semantics.depthg.head import ClusterProbe, DepthgHead


def random_parts(classes=5, code_channels=6, seed=0, **sizes):
    """(backbone, head, probe) of random weights; 64 channels a head, as DINO has them."""
    backbone = random_backbone("dino_vits8", seed, **({"width": 64, "depth": 1, "heads": 1, "grid": 4} | sizes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return backbone, DepthgHead(backbone.channels, code_channels), ClusterProbe(classes, code_channels)


def published_state(backbone, head, probe):
    """The tensors of a published file, those that inference ignores among them."""
    state = {f"net.model.{name}": value for name, value in backbone.network.state_dict().items()}
    state |= {f"net.{name}": value for name, value in head.state_dict().items()}
    ignored = ("train_cluster_probe.clusters", "linear_probe.weight", "decoder.weight", "lhp_module.x")
    return state | {"cluster_probe.clusters": probe.clusters} | {name: torch.zeros(2, 2) for name in ignored}


def save_published(path, backbone, head, probe, **changed):
    """A Lightning file as DepthG's training leaves it: OmegaConf's containers hold each other, and callbacks are filed
    under their classes. changed: other entries of the file."""
    classes = {}
    modules = {
        "omegaconf.dictconfig": ("DictConfig",),
        "omegaconf.nodes": ("AnyNode",),
        "pytorch_lightning.utilities.parsing": ("AttributeDict",),
        "pytorch_lightning.callbacks.model_checkpoint": ("ModelCheckpoint",),
    }
    packages = ("omegaconf", "pytorch_lightning", "pytorch_lightning.utilities", "pytorch_lightning.callbacks")
    added = {name: types.ModuleType(name) for name in (*packages, *modules)}
    for module, names in modules.items():
        for name in names:
            bases = (dict,) if name == "AttributeDict" else ()
            classes[name] = type(name, bases, {"__module__": module})
            setattr(added[module], name, classes[name])
    config = classes["DictConfig"]()
    node = classes["AnyNode"]()
    node.__dict__ = {"_parent": config, "_val": "vit_base"}
    config.__dict__ = {"_parent": None, "_content": {"model_type": node}}
    content = {
        "epoch": 1,
        "global_step": 7000,
        "pytorch-lightning_version": "1.4.0",
        "state_dict": published_state(backbone, head, probe),
        "callbacks": {classes["ModelCheckpoint"]: {"best_model_score": torch.tensor(0.3), "best_model_path": "x"}},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 5e-4}]}],
        "lr_schedulers": [],
        "hyper_parameters": classes["AttributeDict"]({"n_classes": 27, "cfg": config}),
    }
    saved = {name: sys.modules.get(name) for name in added}
    sys.modules.update(added)
    try:
        torch.save(content | changed, path)
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return path
