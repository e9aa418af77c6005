"""Weights of anyone's timm model: all of a network's are those of the file, or the file is refused by name."""

import argparse
import json
import os

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from raycsr.errors import UserError
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions

ARCH = "test_resnet"
PIXELS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(arch=ARCH, num_classes=7, seed=5, **args):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(arch, num_classes=num_classes, **args).eval()


def own(path, **options):
    """Loads a file as the documentation says."""
    return load_base_classifier(ModelOptions(**{"name": ARCH, "pretrained": str(path), **options}))


def assert_equal_weights(loaded, theirs):
    state = loaded.network.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def averaged(state):
    return {"n_averaged": torch.tensor(3), **prefixed("module.", state)}  # torch's AveragedModel


WRAPPED = {
    "bare": lambda state: state,
    "DataParallel": lambda state: {"state_dict": prefixed("module.", state), "epoch": 3},
    "torch.compile": lambda state: {"model": prefixed("_orig_mod.", state), "optimizer": {"state": {}}},
    "DataParallel, compiled": lambda state: {"model_state": prefixed("module._orig_mod.", state)},
    "Lightning": lambda state: {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 0.1}},
    "a module's own net": lambda state: {"net": prefixed("net.", state), "acc": 91.2, "epoch": 7},
    "a backbone within": lambda state: {"model_state_dict": prefixed("module.model.backbone.", state)},
    "AveragedModel": averaged,
    "an entry of any name": lambda state: {"weights": state, "epoch": 3},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("num_classes", [7, None])
def test_a_users_network_of_7_classes_is_what_is_certified(tmp_path, wrapper, num_classes):
    theirs = network()
    torch.save(WRAPPED[wrapper](theirs.state_dict()), tmp_path / "own7.pth")
    loaded = own(tmp_path / "own7.pth", num_classes=num_classes)
    assert_equal_weights(loaded, theirs)
    mean, std = torch.tensor(loaded.mean).view(3, 1, 1), torch.tensor(loaded.std).view(3, 1, 1)
    torch.testing.assert_close(loaded(PIXELS), theirs((PIXELS - mean) / std), rtol=1e-3, atol=1e-3)
    assert loaded.num_classes == 7


def test_safetensors(tmp_path, s3):
    theirs = network()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "own7.safetensors")
    assert_equal_weights(own(tmp_path / "own7.safetensors"), theirs)
    bucket = s3.new_bucket()
    s3.client.upload_file(str(tmp_path / "own7.safetensors"), bucket, "own7.safetensors")
    assert_equal_weights(own(f"s3://{bucket}/own7.safetensors"), theirs)
    with pytest.raises(UserError, match=r"model\.name ARCH.*model\.pretrained FILE"):  # which network is it of?
        load_base_classifier(str(tmp_path / "own7.safetensors"))


def test_weights_that_do_not_fit_are_named_with_their_shapes(tmp_path):
    state = network().state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    state["extra.weight"] = state.pop("bn1.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UserError) as caught:
        own(tmp_path / "other.pth")
    for words in (
        "missing bn1.weight (32,)",
        "unexpected extra.weight (32,)",
        "misshapen layer1.0.conv1.weight (1, 2, 3, 3) where (32, 32, 3, 3) is expected",
    ):
        assert words in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_trainer_keeps_beside_the_network_is_named(tmp_path):
    state = prefixed("model.", network().state_dict())
    torch.save({"state_dict": {**state, "criterion.weight": torch.ones(7)}}, tmp_path / "lightning.ckpt")
    with pytest.raises(UserError, match=r"those of test_resnet: unexpected criterion\.weight \(7,\): give"):
        own(tmp_path / "lightning.ckpt")
    both = {**state, **network(seed=6).state_dict()}  # of two networks: neither is taken in the other's place
    torch.save(both, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"unexpected model\.conv1"):
        own(tmp_path / "two.pth")


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)


def behind(layer, mean="mean", std="std", *, network_in="1."):
    """The state of a network behind a layer that normalises."""
    normalisation = {mean: torch.tensor(MEAN).view(1, 3, 1, 1), std: torch.tensor(STD)}
    return prefixed(layer, normalisation) | prefixed(network_in, network().state_dict())


@pytest.mark.parametrize(
    "state",
    [
        behind("0."),
        behind("normalize.", "means", "sds", network_in="model."),
        behind("", "mu", "sigma", network_in="model."),
        prefixed("module.", behind("0.")),
    ],
    ids=["Sequential", "named", "of the module itself", "DataParallel"],
)
def test_a_normalisation_that_stands_in_the_file_is_the_classifiers(tmp_path, state):
    torch.save(state, tmp_path / "own7.pth")
    given = {"pretrained_cfg_overlay": {"mean": list(MEAN), "std": list(STD)}}
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for loaded in (own(tmp_path / "own7.pth"), own(tmp_path / "own7.pth", args=given)):
        assert_equal_weights(loaded, network())
        torch.testing.assert_close(loaded(PIXELS), network()((PIXELS - mean) / std), rtol=1e-3, atol=1e-3)


def test_a_normalisation_that_is_none_or_another_than_was_said_is_refused(tmp_path):
    torch.save(behind("0."), tmp_path / "own7.pth")
    with pytest.raises(UserError, match=r"a normalisation by std \[0\.2023, .* model\.args says \[0\.5, 0\.5, 0\.5\]"):
        own(tmp_path / "own7.pth", args={"pretrained_cfg_overlay": {"std": [0.5, 0.5, 0.5]}})
    for odd, words in ({"0.std": torch.zeros(3)}, "says std"), ({"0.std": torch.ones(4)}, r"unexpected 0\.mean"):
        torch.save({**behind("0."), **odd}, tmp_path / "own7.pth")
        with pytest.raises(UserError, match=words):
            own(tmp_path / "own7.pth")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_code(tmp_path):
    torch.jit.save(torch.jit.trace(network(), PIXELS), tmp_path / "script.pt")
    with pytest.raises(UserError, match="is TorchScript, which is code"):
        own(tmp_path / "script.pt")


def test_whatever_a_files_names_hold_the_message_is_one_line(tmp_path):
    torch.save({**network().state_dict(), "a\nb\x1b[31m": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(UserError) as caught:
        own(tmp_path / "odd.pth")
    assert r"unexpected a\nb\x1b[31m (1,)" in str(caught.value) and str(caught.value).isprintable()


def test_another_number_of_classes_is_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "own7.pth")
    with pytest.raises(UserError, match=r"has 7 classes, model\.num_classes says 3.*raycsr train"):
        own(tmp_path / "own7.pth", num_classes=3)
    with pytest.raises(UserError, match="has 7 classes, 3 are needed"):
        load_base_classifier(ModelOptions(ARCH, pretrained=str(tmp_path / "own7.pth")), num_classes=3)
    state = network().state_dict()
    del state["fc.weight"], state["fc.bias"]  # of a backbone alone: nothing says that its head is to be random
    torch.save(state, tmp_path / "headless.pth")
    for new_head in (False, True):
        options = ModelOptions(ARCH, pretrained=str(tmp_path / "headless.pth"))
        with pytest.raises(UserError, match=r"missing fc\.weight"):
            load_base_classifier(options, num_classes=7, new_head=new_head)


def test_training_makes_a_new_head_only_where_the_files_has_another_size_and_says_so(tmp_path, recwarn):
    theirs = network().state_dict()
    torch.save(theirs, tmp_path / "own7.pth")
    options = ModelOptions(ARCH, pretrained=str(tmp_path / "own7.pth"))
    same = load_base_classifier(options, num_classes=7, new_head=True)
    assert torch.equal(same.network.state_dict()["fc.weight"], theirs["fc.weight"]) and not recwarn.list
    with pytest.warns(UserWarning, match=r"is of 7 classes, so that of 3 is new and untrained: fc\.weight, fc\.bias"):
        new = load_base_classifier(options, num_classes=3, new_head=True).network.state_dict()
    assert len(new["fc.weight"]) == 3
    assert all(name.startswith("fc.") or torch.equal(new[name], tensor) for name, tensor in theirs.items())


def test_a_transformer_is_of_one_size(tmp_path):
    torch.save(network("test_vit", img_size=32).state_dict(), tmp_path / "vit.pth")
    assert_equal_weights(own(tmp_path / "vit.pth", name="test_vit", input_size=32), network("test_vit", img_size=32))
    by_args = own(tmp_path / "vit.pth", name="test_vit", args={"img_size": 32})
    assert by_args.preprocessing.input_size == (32, 32)
    with pytest.raises(UserError, match=r"misshapen pos_embed \(1, 5, 64\) where \(1, 101, 64\) is expected"):
        own(tmp_path / "vit.pth", name="test_vit")


def timm_checkpoint(path, arch=ARCH, **args):
    """A file as timm's train.py writes it, and the networks of its last and its averaged weights."""
    last, average = network(arch), network(arch, seed=6)
    said = {"model": arch, "num_classes": 7, "gp": None, "mean": None, "std": None, "model_kwargs": {}, **args}
    content = {
        "epoch": 3,
        "arch": arch,
        "state_dict": last.state_dict(),
        "state_dict_ema": average.state_dict(),
        "optimizer": {"state": {}, "param_groups": []},
        "version": 2,
        "args": argparse.Namespace(**said),
        "metric": np.float64(81.5),
        "counts": [np.int64(3), np.float32(0.5), np.bool_(True)],
    }
    torch.save(content, path)
    return last, average


@pytest.mark.parametrize("options", [{}, {"name": "FILE", "pretrained": False}])
@pytest.mark.filterwarnings("ignore:.*also holds EMA")
def test_a_checkpoint_of_timms_train_py(tmp_path, options):
    path = tmp_path / "model_best.pth.tar"
    last, average = timm_checkpoint(path, img_size=48, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25], crop_pct=0.9)
    options = {key: str(path) if value == "FILE" else value for key, value in options.items()}
    loaded = own(path, **options)
    assert_equal_weights(loaded, last)
    assert_equal_weights(own(path, ema=True, **options), average)
    assert (loaded.arch, loaded.mean, loaded.std) == (ARCH, (0.5,) * 3, (0.25,) * 3)  # as it was trained
    assert (loaded.preprocessing.input_size, loaded.preprocessing.crop_pct) == ((48, 48), 0.9)


def test_ema_weights_are_offered_and_refused_where_there_are_none(tmp_path):
    timm_checkpoint(tmp_path / "both.pth")
    with pytest.warns(UserWarning, match=r"also holds EMA weights \(state_dict_ema\): model\.ema true takes them"):
        own(tmp_path / "both.pth")
    theirs = network()
    torch.save({"model_ema": averaged(theirs.state_dict()), "model": None}, tmp_path / "average.pth")
    assert_equal_weights(own(tmp_path / "average.pth", ema=True), theirs)
    with pytest.raises(UserError, match=r"EMA weights alone \(model_ema\): take them by model\.ema true"):
        own(tmp_path / "average.pth")
    torch.save(theirs.state_dict(), tmp_path / "last.pth")
    with pytest.raises(UserError, match=r"no EMA weights: leave model\.ema out"):
        own(tmp_path / "last.pth", ema=True)
    with pytest.raises(UserError, match=r"no EMA weights to choose"):
        load_base_classifier(ModelOptions(ARCH, ema=True))


def test_a_checkpoint_of_pytorch_examples(tmp_path):
    theirs = network("resnet18", num_classes=5)
    content = {"epoch": 90, "arch": "resnet18", "state_dict": prefixed("module.", theirs.state_dict())}
    torch.save({**content, "best_acc1": torch.tensor(70.1)}, tmp_path / "checkpoint.pth.tar")
    loaded = load_base_classifier(str(tmp_path / "checkpoint.pth.tar"))
    assert_equal_weights(loaded, theirs)
    assert (loaded.arch, loaded.preprocessing.input_size) == ("resnet18", (224, 224))
    assert (loaded.preprocessing.crop_pct, loaded.mean) == (0.875, (0.485, 0.456, 0.406))


def test_a_network_called_net_is_macers_only_if_it_fits(tmp_path):
    theirs = network()
    torch.save({"net": theirs.state_dict(), "epoch": 440}, tmp_path / "own.pth")
    with pytest.raises(UserError, match=r"model\.name ARCH.*model\.pretrained FILE"):
        load_base_classifier(str(tmp_path / "own.pth"))
    assert_equal_weights(own(tmp_path / "own.pth"), theirs)


def test_weights_of_several_networks_and_of_none_are_refused(tmp_path):
    state = network().state_dict()
    torch.save({"generator": state, "discriminator": state}, tmp_path / "two.pth")
    with pytest.raises(UserError, match="several networks, generator, discriminator"):
        own(tmp_path / "two.pth")
    for content in ({}, {"epoch": 3}, [state], 1, {"state_dict": {}}, {"state_dict": {"fc.weight": [1.0]}}):
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(UserError, match="holds no weights"):
            own(tmp_path / "none.pth")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("hide", [lambda evil: argparse.Namespace(a=evil), lambda evil: np.array([evil], object)])
def test_code_is_run_from_no_place_in_a_file(tmp_path, monkeypatch, hide):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": network().state_dict(), "args": hide(Malicious())}, "evil.pth")
    with pytest.raises(UserError, match="would run .*, and code in checkpoints is never run"):
        own("evil.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.full((7, 96), torch.nan), "fc.weight .* values that are not finite"),
        (torch.full((7, 96), 1e300, dtype=torch.float64), "fc.weight .* values that are not finite"),  # in float32
        (torch.zeros(7, 96, dtype=torch.int8), "fc.weight .* is int8, expected float32"),
        (torch.zeros(7, 96, dtype=torch.complex64), "fc.weight .* is complex64, expected float32"),
        (torch.zeros(7, 96).to_sparse(), "fc.weight .* is sparse_coo, expected float32"),
    ],
)
def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path, tensor, words):
    torch.save({**network().state_dict(), "fc.weight": tensor}, tmp_path / "own7.pth")
    with pytest.raises(UserError, match=words):
        own(tmp_path / "own7.pth")


@pytest.mark.parametrize("save", [torch.save, lambda state, path: torch.save({"state_dict": state, "epoch": 1}, path)])
def test_a_flipped_bit_is_refused(tmp_path, save):
    state = network().state_dict()
    save(state, tmp_path / "own7.pth")
    data = bytearray((tmp_path / "own7.pth").read_bytes())
    at = data.index(state["fc.weight"].numpy().tobytes()) + 100
    data[at] ^= 1
    (tmp_path / "flipped.pth").write_bytes(data)
    with pytest.raises(UserError, match="is damaged: its record .* another checksum"):
        own(tmp_path / "flipped.pth")


def test_old_files_lack_a_count_that_no_logit_depends_on(tmp_path):
    theirs = network()
    torch.save({k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}, tmp_path / "old.pth")
    assert_equal_weights(own(tmp_path / "old.pth"), theirs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"args": {"in_chans": 1}}, "images of 1 channels: give one that takes 3"),
        ({"args": {"features_only": True}}, "gives no logits"),
        ({"name": "test_vit", "args": {"global_pool": ""}}, r"\(1, 101, 1000\) numbers, where \(1, 1000\) logits"),
        ({"args": {"img_size": "big"}, "name": "test_vit"}, "img_size of model.args is .*big"),
        (
            {"name": "test_vit", "args": {"img_size": 32}, "input_size": 48},
            r"input_size \(48, 48\) and img_size .* differ",
        ),
        ({"name": "vit_tiny_patch16_224", "args": {"depth": 1}, "input_size": 8}, "cannot be created|cannot take"),
    ],
)
def test_a_model_that_does_not_map_3_channels_to_logits_is_refused_when_it_is_loaded(options, words):
    with pytest.raises(UserError, match=words) as caught:
        load_base_classifier(ModelOptions(**{"name": ARCH, **options}))
    assert "\n" not in str(caught.value)


def test_a_file_of_grey_images_is_refused(tmp_path):
    torch.save(network(in_chans=1).state_dict(), tmp_path / "grey.pth")
    with pytest.raises(UserError, match=r"misshapen conv1\.0\.weight \(16, 1, 3, 3\) where"):
        own(tmp_path / "grey.pth")
    timm_checkpoint(tmp_path / "grey.pth.tar", in_chans=1)
    with pytest.raises(UserError, match="takes images of 1 channels"):
        own(tmp_path / "grey.pth.tar", ema=True)


def hub_folder(folder, arch=ARCH, **config):
    """A folder as timm pushes it to the hub."""
    theirs = network(arch)
    folder.mkdir()
    facts = {"architecture": arch, "num_classes": 7, "pretrained_cfg": {"num_classes": 7, **config}}
    (folder / "config.json").write_text(json.dumps(facts))
    safetensors.torch.save_file(theirs.state_dict(), folder / "model.safetensors")
    return theirs, f"local-dir:{folder}"


HUB = pytest.mark.skipif(not hasattr(timm.models._hub, "load_model_config_from_path"), reason="timm has no local-dir")


@HUB
def test_a_repository_gives_its_own_weights_all_of_them(tmp_path):
    theirs, name = hub_folder(tmp_path / "hub", classifier="fc", input_size=[3, 160, 160])
    for options in (ModelOptions(name), ModelOptions(name, pretrained=True, num_classes=7)):
        assert_equal_weights(load_base_classifier(options), theirs)
    with pytest.raises(UserError, match="not taken as they are: the head of 3 classes is new, theirs has 7"):
        load_base_classifier(ModelOptions(name, num_classes=3))
    with pytest.warns(UserWarning, match="the head of 3 classes is new, theirs has 7"):
        assert load_base_classifier(ModelOptions(name), num_classes=3, new_head=True).num_classes == 3
    with pytest.raises(UserError, match="weights of its own"):
        load_base_classifier(ModelOptions(name, pretrained="own7.pth"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 3}, "the head of 3 classes is new, theirs has 1000"),
        ({"input_size": 32}, "position embeddings are resampled from 160 to 32 px"),
        ({"args": {"img_size": 32}, "input_size": 32}, "position embeddings are resampled from 160 to 32 px"),
    ],
)
def test_timms_own_weights_are_changed_for_a_training_only_and_not_without_a_word(tmp_path, options, words):
    torch.save(network("test_vit", num_classes=1000).state_dict(), tmp_path / "timm.pth")
    options = {"args": {}, **options}
    options["args"] = {**options["args"], "pretrained_cfg_overlay": {"file": str(tmp_path / "timm.pth")}}
    given = ModelOptions("test_vit", pretrained=True, **options)
    with pytest.raises(UserError, match=words):
        load_base_classifier(given)
    with pytest.warns(UserWarning, match=words):
        load_base_classifier(given, new_head=True)


def test_tensors_that_timm_leaves_random_are_refused_by_name(tmp_path):
    state = network("test_vit", num_classes=1000).state_dict()
    del state["blocks.0.attn.qkv.weight"]
    torch.save(state, tmp_path / "timm.pth")
    overlay = {"file": str(tmp_path / "timm.pth"), "num_classes": 7}  # timm is lenient where the numbers differ
    given = ModelOptions("test_vit", pretrained=True, args={"pretrained_cfg_overlay": overlay}, num_classes=1000)
    with pytest.raises(UserError, match="not taken as they are"):
        load_base_classifier(given)


def test_normalisation_can_be_that_of_the_training(tmp_path):
    torch.save(network().state_dict(), tmp_path / "own7.pth")
    overlay = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    loaded = own(tmp_path / "own7.pth", args={"pretrained_cfg_overlay": overlay})
    assert (tuple(loaded.mean), tuple(loaded.std)) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("option", ["name", "pretrained"])
def test_a_file_of_another_service_is_refused_at_once(option):
    options = {"name": "resnet18", option: "gs://bucket/model.pt"}
    with pytest.raises(UserError, match=r"'gs://bucket/model\.pt' is neither a local path nor s3://"):
        load_base_classifier(ModelOptions(**options))
