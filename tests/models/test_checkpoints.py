"""Checkpoints: our own format, locuslab's, and files that are neither."""

import os

import pytest
import torch

from raycsr.errors import UserError
from raycsr.models.checkpoints import is_raycsr_checkpoint, load_checkpoint, load_training_state, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import parse_rules
from raycsr.models.spec import ModelOptions

PIXELS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_round_trip(tmp_path):
    path = tmp_path / "new folder" / "model.pt"
    model = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16), num_classes=2)
    training = {"objective": "gaussian", "sigma": 0.25, "epochs": 3}
    save_checkpoint(path, model, training_info=training, class_names=["cat", "dog"])
    loaded = load_base_classifier(str(path), num_classes=2)
    assert torch.equal(loaded(PIXELS), model(PIXELS))
    assert loaded.components == model.components and loaded.preprocessing == model.preprocessing
    assert (loaded.class_names, loaded.training_info) == (("cat", "dog"), training)
    assert loaded.training_sigma == 0.25
    assert os.listdir(path.parent) == ["model.pt"]


def test_round_trip_through_s3(s3):
    folder = f"s3://{s3.new_bucket()}/folder"
    model = load_base_classifier("cifar_resnet8")
    save_checkpoint(f"{folder}/model.pt", model)
    assert load_base_classifier(f"{folder}/model.pt").components == model.components
    with pytest.raises(UserError, match="cannot read the checkpoint s3://.*/absent"):
        load_base_classifier(f"{folder}/absent")


def test_a_transformer_and_its_arguments_come_back(tmp_path):
    options = ModelOptions("vit_tiny_patch16_224", args={"depth": 2}, input_size=32)
    model = load_base_classifier(options, num_classes=3)
    save_checkpoint(tmp_path / "model.pt", model)
    assert torch.equal(load_checkpoint(tmp_path / "model.pt").eval()(PIXELS), model(PIXELS))


def locuslab_checkpoint(path, arch, prefix, extra):
    """A file as locuslab/smoothing writes it: Sequential(normalisation, network), parts in a DataParallel."""
    model = load_base_classifier(ModelOptions(arch, init_seed=3))
    state_dict = {prefix + name: tensor for name, tensor in model.network.state_dict().items()}
    torch.save({"epoch": 90, "arch": arch, "state_dict": {**extra, **state_dict}, "optimizer": {}}, path)
    return model


@pytest.mark.parametrize(
    ("arch", "prefix", "extra"),
    [
        ("cifar_resnet20", "1.", {}),
        ("resnet50", "1.module.", {}),
        ("cifar_resnet110", "module.1.", {}),
        ("cifar_resnet20", "1.", {"0.means": torch.full((3,), 0.5), "0.sds": torch.full((3,), 0.25)}),
    ],
)
def test_locuslab_checkpoint(tmp_path, arch, prefix, extra):
    path = str(tmp_path / "checkpoint.pth.tar")
    model = locuslab_checkpoint(path, arch, prefix, extra)
    loaded = load_base_classifier(path)
    assert loaded.training_sigma is None and loaded.arch == arch
    expected = model.network((PIXELS - 0.5) / 0.25) if extra else model(PIXELS)
    torch.testing.assert_close(loaded(PIXELS), expected, rtol=1e-4, atol=1e-4)
    if arch == "resnet50":  # tested by its authors on a 224 pixel crop of 256
        assert (loaded.num_classes, loaded.preprocessing.crop_pct) == (1000, 0.875)


def trained(network):
    """A network behind its normalisation after one step of SGD, and that SGD, as the published trainings have them.

    Its batch norms have the statistics of its images, so its logits are of ordinary size on every CPU.
    """
    model = torch.nn.Sequential(torch.nn.Identity(), network.requires_grad_()).train()  # theirs has no state either
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=30, gamma=0.1)
    model(PIXELS).square().mean().backward()
    optimizer.step()
    schedule.step()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches from here on, which is one
            module.reset_running_stats()
    with torch.no_grad():
        model(PIXELS)
        assert 0.01 < model.eval()(PIXELS).abs().max() < 100
    return model, optimizer


CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize("legacy", [False, True])  # the files of PyTorch before 1.6, as most of these are
@pytest.mark.parametrize(
    ("arch", "ours", "num_classes"),
    [
        ("cifar_resnet20", "cifar_resnet20", 10),
        ("imagenet32_resnet110", "cifar_resnet110", 1000),  # SmoothAdv's, before it is fine-tuned
    ],
)
def test_checkpoints_of_smoothadv_consistency_and_smoothmix(tmp_path, arch, ours, num_classes, legacy):
    path = str(tmp_path / "checkpoint.pth.tar")
    model, optimizer = trained(load_base_classifier(ModelOptions(ours), num_classes=num_classes).network)
    content = {"epoch": 90, "arch": arch, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_base_classifier(path, num_classes=num_classes)
    normalised = (PIXELS - torch.tensor(CIFAR_MEAN).view(3, 1, 1)) / torch.tensor(CIFAR_STD).view(3, 1, 1)
    torch.testing.assert_close(loaded(PIXELS), model(normalised), rtol=1e-3, atol=1e-3)
    assert (loaded.arch, loaded.preprocessing.input_size) == (ours, (32, 32))


def test_a_checkpoint_of_cat_rs_on_cifar_100_has_the_normalisation_of_cifar_100(tmp_path):
    path = str(tmp_path / "checkpoint.pth.tar")
    model, optimizer = trained(load_base_classifier(ModelOptions("cifar_resnet110"), num_classes=100).network)
    content = {"epoch": 90, "arch": "cifar100_resnet110", "state_dict": model.state_dict()}
    torch.save({**content, "optimizer": optimizer.state_dict()}, path)
    loaded = load_base_classifier(path)
    assert loaded.num_classes == 100
    assert (loaded.mean, loaded.std) == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    normalised = (PIXELS - torch.tensor(loaded.mean).view(3, 1, 1)) / torch.tensor(loaded.std).view(3, 1, 1)
    torch.testing.assert_close(loaded(PIXELS), model(normalised), rtol=1e-3, atol=1e-3)


def test_the_network_of_a_one_query_ars_model_loads_under_its_architecture(tmp_path):
    """Its state lies behind layers without weights; a two-query model has a mask beside it, and is refused."""
    path = tmp_path / "model_sd.pt"
    network = load_base_classifier("cifar_resnet20").network
    state = {f"base_classifier.1.1.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(state, path)
    loaded = load_base_classifier(ModelOptions("cifar_resnet20", pretrained=str(path)))
    assert all(torch.equal(state[f"base_classifier.1.1.{n}"], t) for n, t in loaded.network.state_dict().items())
    torch.save({**state, "mask_model.inc.double_conv.0.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(UserError, match="unexpected mask_model"):
        load_base_classifier(ModelOptions("cifar_resnet20", pretrained=str(path)))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_macer_takes_pixels_as_they_are(tmp_path, legacy):
    path = str(tmp_path / "440.pth")
    model, _ = trained(load_base_classifier("cifar_resnet110").network)
    torch.save({"net": model[1].state_dict(), "epoch": 440}, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_base_classifier(path, num_classes=10)
    torch.testing.assert_close(loaded(PIXELS), model(PIXELS), rtol=1e-5, atol=1e-5)
    assert (loaded.arch, loaded.mean, loaded.std) == ("cifar_resnet110", (0, 0, 0), (1, 1, 1))
    assert loaded.preprocessing.input_size == (32, 32) and loaded.training_sigma is None


def test_networks_of_theirs_that_we_lack_are_refused(tmp_path):
    lenet = {"conv1.weight": torch.zeros(20, 1, 5, 5), "fc2.weight": torch.zeros(10, 500)}
    torch.save({"net": lenet, "epoch": 440}, tmp_path / "macer-mnist.pth")
    with pytest.raises(UserError, match=r"model\.name ARCH"):
        load_checkpoint(tmp_path / "macer-mnist.pth")
    torch.save({"epoch": 90, "arch": "cifar_densenet40", "state_dict": {}}, tmp_path / "consistency.pth.tar")
    with pytest.raises(UserError, match=r"holds arch 'cifar_densenet40': .*resnet50, cifar.*model\.name ARCH"):
        load_checkpoint(tmp_path / "consistency.pth.tar")
    for content in ({"arch": "resnet50", "state_dict": [1]}, {"arch": ["x"], "state_dict": {}}, {"net": 1, "epoch": 1}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match="not a checkpoint of raycsr"):
            load_checkpoint(tmp_path / "other.pth")


def test_names_and_shapes_are_those_of_the_published_checkpoints():
    torchvision_models = pytest.importorskip("torchvision.models")
    theirs, ours = torchvision_models.resnet50(), load_base_classifier("resnet50").network
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    shapes = {k: tuple(v.shape) for k, v in load_base_classifier("cifar_resnet110").network.state_dict().items()}
    assert len(shapes) == 668  # 111 convolutions, each with 5 entries of batch norm, and the head
    assert shapes["layer2.0.downsample.0.weight"] == (32, 16, 1, 1)
    assert shapes["layer3.17.conv2.weight"] == (64, 64, 3, 3)
    assert shapes["fc.weight"] == (10, 64)


def test_another_number_of_classes_is_refused(tmp_path):
    path = str(tmp_path / "model.pt")
    save_checkpoint(path, load_base_classifier("cifar_resnet8"))
    with pytest.raises(UserError, match="10 classes, 7 are needed"):
        load_base_classifier(path, num_classes=7)
    with pytest.raises(UserError, match=r"10 classes, model\.num_classes says 7"):
        load_base_classifier(ModelOptions(path, num_classes=7))
    with pytest.raises(UserError, match=r"leave out model\.args"):
        load_base_classifier(ModelOptions(path, args={"depth": 8}))


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"arch": "cifar_resnet20", "state_dict": Malicious()}, "malicious.pt")
    torch.save({"arch": "vgg19", "state_dict": {}}, "arch.pt")
    torch.save({"fc.weight": torch.zeros(1)}, "bare.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    model = locuslab_checkpoint("misfit.pt", "cifar_resnet20", "1.", {})
    weights = {f"1.{name}": tensor for name, tensor in model.network.state_dict().items()}
    weights["1.conv1.weight"] = torch.zeros(16, 1, 3, 3)
    weights["1.extra"] = weights.pop("1.fc.bias")
    torch.save({"arch": "cifar_resnet20", "state_dict": weights}, "misfit.pt")
    for name, message in {
        "malicious.pt": r"would run \S+\.mkdir, and code in checkpoints is never run",
        "arch.pt": "those of vgg19: missing features",
        "bare.pt": "not a checkpoint of raycsr",
        "text.pt": "damaged or not a PyTorch checkpoint",
        "empty.pt": "damaged or not a PyTorch checkpoint",
        "absent.pt": "cannot read",
        "misfit.pt": r"missing fc\.bias \(10,\); unexpected extra \(10,\); "
        r"misshapen conv1\.weight \(16, 1, 3, 3\) where \(16, 3, 3, 3\) is expected",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            load_base_classifier(name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_rules_come_with_the_checkpoint_and_are_no_part_of_the_weights(tmp_path):
    model = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16), num_classes=3)
    save_checkpoint(tmp_path / "plain.pt", model, class_names=["cat", "dog", "owl"])
    model.rules = tuple(
        parse_rules(
            ["offset:0.1*pair:cat/dog", "expected_cost:2*uniform"], num_classes=3, class_names=["cat", "dog", "owl"]
        )
    )
    save_checkpoint(tmp_path / "ruled.pt", model)
    plain, ruled = load_checkpoint(tmp_path / "plain.pt"), load_checkpoint(tmp_path / "ruled.pt")
    assert plain.rules == () and ruled.rules == model.rules
    assert [rule.spec for rule in ruled.rules] == ["offset:0.1*pair:cat/dog", "expected_cost:2*uniform"]
    assert ruled.components == plain.components


def test_a_checkpoint_of_before_there_were_rules_loads(tmp_path):
    save_checkpoint(tmp_path / "model.pt", load_base_classifier("cifar_resnet8"))
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    del content["rules"]
    torch.save(content, tmp_path / "model.pt")
    assert load_checkpoint(tmp_path / "model.pt").rules == ()


def test_fields_that_are_added_are_passed_over_and_another_format_of_ours_is_refused_by_name(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(path, load_base_classifier("cifar_resnet8"))
    content = torch.load(path, weights_only=True)
    torch.save({**content, "added": {"of": "later"}}, path)
    assert load_checkpoint(path).num_classes == 10
    torch.save({**content, "format": "raycsr/9"}, path)
    weights_of_it = ModelOptions("cifar_resnet8", pretrained=str(path))
    for read in (load_checkpoint, load_training_state, lambda path: load_base_classifier(weights_of_it)):
        with pytest.raises(UserError, match=r"model.pt is a checkpoint of raycsr in format 'raycsr/9', .* 'raycsr/1'"):
            read(path)


def test_only_our_own_format_is_a_raycsr_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "ours.pt", load_base_classifier("cifar_resnet8"))
    locuslab_checkpoint(tmp_path / "theirs.pt", "cifar_resnet20", "1.", {})
    answers = {name: is_raycsr_checkpoint(tmp_path / name) for name in ("ours.pt", "theirs.pt", "absent.pt")}
    assert answers == {"ours.pt": True, "theirs.pt": False, "absent.pt": False}


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    model = load_base_classifier("cifar_resnet8", num_classes=2)
    with pytest.raises(UserError, match=r"cannot use /proc/nothing/m\.pt: "):
        save_checkpoint("/proc/nothing/m.pt", model)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="no space left on the device; free some"):
        save_checkpoint(tmp_path / "m.pt", model)
    assert not list(tmp_path.iterdir())


def test_credentials_in_a_path_are_refused_and_not_repeated():
    with pytest.raises(UserError, match="a location carries credentials") as caught:
        load_checkpoint("s3://key:hush@bucket/model.pt")
    assert "hush" not in str(caught.value)
