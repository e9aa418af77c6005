"""Folders of Hugging Face's diffusers, as its own library writes them."""

import json

import pytest
import safetensors.torch
import torch
from published import numbered

from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.store import Store

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

PIXELS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(**config):
    return numbered(
        diffusers.UNet2DModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            **config,
        ),
        0.1,
    )


def written(folder, unet, **schedule):
    """A folder as DDPMPipeline writes it."""
    unet.save_pretrained(folder / "unet")
    diffusers.DDPMScheduler(**schedule).save_pretrained(folder / "scheduler")
    return str(folder)


def composition(folder, sigma=0.25, **denoiser):
    asked = DenoiserOptions(folder, sigma=sigma, **denoiser)
    return load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=asked), num_classes=5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_folder_denoises_as_its_library_does(tmp_path, prediction):
    unet = network()
    model = composition(written(tmp_path, unet, prediction_type=prediction))
    denoiser = model.denoisers[0]
    assert (denoiser.input_size, denoiser.steps[0].t) == ((16, 16), 144)
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
    given = scheduler.alphas_cumprod[144].sqrt() * (2 * PIXELS - 1)
    with torch.no_grad():
        answer = unet(given, 144).sample
        expected = scheduler.step(answer, 144, given, generator=torch.Generator()).pred_original_sample
    torch.testing.assert_close(denoiser(PIXELS), (expected + 1) / 2, rtol=0, atol=1e-5)


def test_files_side_by_side_and_older_names_of_attention(tmp_path):
    unet = network()
    written(tmp_path / "new", unet)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in unet.state_dict().items():
        for new, older in old.items():
            name = name.replace(f".{new}.", f".{older}.")
        weights[name] = tensor
    flat = tmp_path / "flat"
    flat.mkdir()
    torch.save(weights, flat / "diffusion_pytorch_model.bin")
    for source in ("unet/config.json", "scheduler/scheduler_config.json"):
        (flat / source.split("/")[1]).write_text((tmp_path / "new" / source).read_text())
    assert composition(str(flat)).components == composition(str(tmp_path / "new")).components


def test_it_casts_and_is_kept_in_a_checkpoint(tmp_path):
    model = composition(written(tmp_path / "folder", network()))
    cast = prepare_for_inference(model, precision="bf16", device="cpu")
    assert cast(PIXELS).dtype == torch.bfloat16
    save_checkpoint(tmp_path / "both.pt", model)
    again = load_base_classifier(str(tmp_path / "both.pt"))
    assert again.components == model.components and torch.equal(again(PIXELS), model(PIXELS))


def test_what_a_folder_lacks_is_one_line(tmp_path):
    folder = written(tmp_path, network())
    with pytest.raises(UserError, match="give model.denoiser.sigma"):
        composition(folder, sigma=None)
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(UserError, match="UNet2DConditionModel"):
        composition(folder)
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "num_class_embeds": 10}))
    with pytest.raises(UserError, match="class of an image"):
        composition(folder)
    (tmp_path / "unet" / "config.json").write_text(json.dumps({**config, "layers_per_block": 2}))
    with pytest.raises(UserError, match="missing "):
        composition(folder)
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json .* no JSON"):
        composition(folder)
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="lacks unet/diffusion_pytorch_model.safetensors"):
        composition(folder)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"sigma_min": 0.01, "num_train_timesteps": 1000}')
    with pytest.raises(UserError, match="lacks scheduler/scheduler_config.json with a beta_schedule"):
        composition(folder)


def test_weights_that_are_not_all_there_are_refused(tmp_path):
    folder = written(tmp_path, network())
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = safetensors.torch.load_file(file)
    del weights["conv_in.bias"]
    safetensors.torch.save_file(weights, file)
    with pytest.raises(UserError, match="missing conv_in.bias"):
        composition(folder)


def test_a_folder_on_s3(tmp_path, s3):
    model = composition(written(tmp_path, network()))
    there = Store(f"s3://{s3.new_bucket()}/ddpm")
    for file in tmp_path.rglob("*.*"):
        there.write(str(file.relative_to(tmp_path)), file.read_bytes())
    assert composition(there.location).components == model.components
    save_checkpoint(f"{there.location}-kept", model)  # a file, whatever it is called
    assert composition(f"{there.location}-kept", sigma=None).components == model.components
    with pytest.raises(UserError, match="ddpm/absent: there is no such file"):
        composition(f"{there.location}/absent")


def test_a_folder_of_something_else_is_one_line(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)) as raised:
        composition(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_several_levels_are_several_steps(tmp_path):
    folder = written(tmp_path, network())
    quarter, half = (composition(folder, sigma=sigma)(PIXELS) for sigma in (0.25, 0.5))
    several = composition(folder, levels=[0.25, 0.5])
    torch.testing.assert_close(several(PIXELS), (quarter + half) / 2)
    assert several.components[0]["levels"] == [0.25, 0.5]
    save_checkpoint(tmp_path / "both.pt", several)
    assert torch.equal(load_base_classifier(str(tmp_path / "both.pt"))(PIXELS), several(PIXELS))
    cast = prepare_for_inference(several, precision="bf16", device="cpu")
    assert (cast(PIXELS).float() - several(PIXELS)).abs().max() < 0.05 * several(PIXELS).abs().max()
