"""The pass on a GPU: its votes are the CPU's, it is captured where that can be, and the host waits for votes alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raycsr.models.decisions import Decisions
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import arithmetic, set_precision
from raycsr.models.rules import parse_rules
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.feeder import Feeder
from raycsr.smoothing.forward_pass import KINDS, ForwardPass, PassShape
from raycsr.smoothing.noise import Copies, noise_scheme
from raycsr.smoothing.options import Draws

CPU = torch.device("cpu")
RULES_OF_TWO = ("argmax", "offset:0=0.5")

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Brightness(nn.Module):
    """Sums whole grey levels, which no device rounds: 1 where they are many."""

    def forward(self, pixels):
        score = (pixels.double() * 255).round().sum(dim=(1, 2, 3)) - 127.5 * pixels[0].numel()
        return torch.stack([-score, score], dim=1)


class ThatAsksTheHost(Brightness):
    """Does what no CUDA graph can hold."""

    def forward(self, pixels):
        return super().forward(pixels) if pixels.mean().item() < 1e9 else pixels


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(90, 166, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)


def counted(network, device, *, batch_size=128, rules=RULES_OF_TWO, n=500, given=None):
    draws = Draws(0.5, 70, n, batch_size=batch_size)
    sampler = Sampler(network, draws, rules=parse_rules(rules, num_classes=2), device=device)
    given = given or [Request(image, str(i)) for i, image in enumerate(images(9))]
    found = {one.position: one for one in sampler.sample(given)}
    return sampler, [(found[i].counts0.tolist(), found[i].counts.tolist(), found[i].error) for i in range(len(given))]


def test_a_pass_counts_each_row_where_it_was_told_to():
    noise = noise_scheme("lattice", 0.5, 2, CPU)
    made = ForwardPass(
        Brightness(), Decisions(parse_rules(["argmax"], num_classes=2), CPU), noise, PassShape(4, 2, 3), CPU
    )
    for slot in (0, 2):
        made.put(slot, torch.full((3, 4, 4), 255 * (slot == 2), dtype=torch.uint8))
    made.run([Copies(0, 7, 0), Copies(2, 8, 0)], np.array([0, 0, KINDS * 2 + 1, KINDS * 2 + 2]))
    dark, light = made.fetch([0, 2]).wait()
    assert dark.tolist() == [[[2, 0, 0], [0, 0, 0], [0, 0, 0]]]
    assert light.tolist() == [[[0, 0, 0], [0, 1, 0], [0, 1, 0]]]
    made.put(0, torch.full((3, 4, 4), 255, dtype=torch.uint8))
    made.run([Copies(0, 7, 0)], np.array([0, 0, KINDS * 2 + 2, KINDS * 2 + 2]))
    light, dark = made.fetch([2, 0]).wait()
    assert dark.tolist() == [[[0, 2, 0], [0, 0, 0], [0, 0, 0]]]  # the other image's alone
    assert light[0, :2].tolist() == [[0, 0, 0], [0, 1, 0]]


@on_a_gpu
@pytest.mark.parametrize("batch_size", [1, 16, 64, 128, 1024])
def test_a_gpu_counts_the_votes_of_the_cpu(batch_size):
    sampler, found = counted(Brightness(), "cuda", batch_size=batch_size)
    assert found == counted(Brightness(), "cpu", batch_size=64)[1]
    assert sampler._pass._graph is not None


@on_a_gpu
def test_what_no_graph_can_hold_is_run_as_it_is():
    sampler, found = counted(ThatAsksTheHost(), "cuda")
    assert found == counted(Brightness(), "cpu")[1]
    assert sampler._pass._graph is None


@on_a_gpu
def test_a_network_that_no_graph_can_hold_spoils_the_device_for_none_behind_it():
    counted(ThatAsksTheHost(), "cuda")
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.randn(8, device="cuda")  # a capture that failed may leave its generator as it was within
    held = torch.cuda.memory_allocated()
    sampler, found = counted(Brightness(), "cuda")
    assert found == counted(Brightness(), "cpu")[1]
    assert sampler._pass._graph is not None
    del sampler
    assert torch.cuda.memory_allocated() <= held


@on_a_gpu
def test_a_compiled_network_is_captured_and_recaptured_in_smaller_passes():
    network = Brightness()
    network.compile(dynamic=False, options={"deterministic": True})
    sampler, found = counted(network, "cuda")
    assert found == counted(Brightness(), "cpu")[1]
    first, _ = sampler._pass._graph, sampler.set_batch_size(64)
    given = [Request(image, str(i)) for i, image in enumerate(images(9))]
    again = {one.position: one for one in sampler.sample(given)}
    assert [(again[i].counts0.tolist(), again[i].counts.tolist(), None) for i in range(9)] == found
    assert sampler._pass._graph not in (None, first)


@on_a_gpu
def test_blocks_of_several_threads_have_the_votes_of_the_cpu():
    """Whichever of them drives, launches what another captured."""
    expected = counted(Brightness(), "cpu", given=[Request(image, str(i)) for i, image in enumerate(images(32))])[1]
    sampler = Sampler(
        Brightness(), Draws(0.5, 70, 500, batch_size=128), rules=parse_rules(RULES_OF_TWO, num_classes=2), device="cuda"
    )
    feeder = Feeder(sampler)

    def block(rows):
        given = [Request(images(32)[i], str(i)) for i in rows]
        with feeder.counting(iter(given), len(given), 128) as done:
            return [(rows[one.position], one.counts0.tolist(), one.counts.tolist(), one.error) for one, _ in done]

    blocks = [range(i, i + 4) for i in range(0, 32, 4)]
    with ThreadPoolExecutor(4) as threads:
        found = sorted(one for of_block in threads.map(block, blocks) for one in of_block)
    assert [(counts0, counts, error) for _, counts0, counts, error in found] == expected


@on_a_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second GPU")
def test_gpus_that_are_not_the_current_one_count_their_votes():
    for device in ("cuda:1", "cuda:0"):
        sampler, found = counted(Brightness(), device)
        assert found == counted(Brightness(), "cpu")[1]
        assert sampler._pass._graph is not None


@on_a_gpu
@pytest.mark.parametrize("when", [0, 1, 2])  # eagerly, in the capture, after it
def test_a_gpu_out_of_memory_halves_the_passes_and_loses_nothing(when):
    class Heavy(Brightness):
        calls = 0

        def forward(self, pixels):
            Heavy.calls += 1
            if len(pixels) > 32 and Heavy.calls > when:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(pixels)

    sampler, found = counted(Heavy(), "cuda")
    assert found == counted(Brightness(), "cpu")[1]
    assert sampler.batch_size == (32 if when < 2 else 128)  # a graph asks the network nothing any more


@on_a_gpu
def test_an_image_that_is_not_finite_voids_itself_alone_in_a_graph():
    given = [Request(image, str(i)) for i, image in enumerate(images(6))]
    expected = counted(Brightness(), "cpu", given=given)[1]
    loud = torch.full((3, 4, 4), 255, dtype=torch.uint8)

    class Moody(Brightness):
        def forward(self, pixels):
            logits = super().forward(pixels)
            return torch.where((pixels.mean(dim=(1, 2, 3)) > 0.85)[:, None], torch.nan, logits)

    found = counted(Moody(), "cuda", given=[*given, Request(loud, "loud")])[1]
    assert found[:-1] == expected and found[-1][2] is not None


@on_a_gpu
def test_images_that_stop_by_themselves_have_the_votes_they_would_have_on_the_cpu():
    def enough(counts0, counts, labels):
        return abs(counts[:, 0] - counts[:, 1]) > 40

    draws = Draws(0.5, 64, 64 * 40, batch_size=256)

    def of(device):
        checks = [64 * i for i in range(1, 40)]
        sampler = Sampler(Brightness(), draws, device=device, checks=checks, enough=enough)
        given = [Request(image, str(i)) for i, image in enumerate(images(40))]
        return {one.position: (one.counts.tolist(), one.drawn) for one in sampler.sample(given)}

    assert of("cuda") == of("cpu")


@on_a_gpu
def test_the_host_waits_for_votes_alone():
    sampler, expected = counted(Brightness(), "cuda")
    given = [Request(image, str(i)) for i, image in enumerate(images(9))]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = {one.position: one.counts.tolist() for one in sampler.sample(given)}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [found[i] for i in range(9)] == [counts for _, counts, _ in expected]


@on_a_gpu
@pytest.mark.parametrize("product", [torch.matmul, lambda a, b: nn.functional.conv2d(a[None], b[:, :, None, None])])
def test_fp32_rounds_nothing_to_tf32_and_tf32_does(product):
    factor = torch.full((256, 256), 1 + 2**-12, device="cuda")  # 1 in TF32
    pixels = torch.rand(256, 256, generator=torch.Generator().manual_seed(0)).cuda()[:, :, None]
    pixels = pixels[..., 0] if product is torch.matmul else pixels.expand(-1, -1, 8).contiguous()
    exact = product(pixels.double(), factor.double())

    def off(precision):
        with arithmetic(precision, torch.device("cuda")):
            return ((product(pixels, factor) - exact).abs() / exact).max().item()

    assert off("fp32") < 1e-6 < 1e-5 < off("tf32")


def test_all_that_follows_the_noise_is_one_graph_and_asks_the_host_nothing():
    """As Dynamo sees it, which refuses to break a graph; its votes are those of the pass as it is."""

    def made():
        noise = noise_scheme("lattice", 0.5, 2, CPU)
        rules = parse_rules(["argmax", "offset:0=0.1", "expected_cost:1*pair:0/1"], num_classes=2)
        return ForwardPass(Brightness(), Decisions(rules, CPU), noise, PassShape(4, 2, 3), CPU)

    with torch.inference_mode():
        plain, graph = made(), made()
        for one in (plain, graph):
            for slot, image in zip((0, 2), images(2), strict=True):
                one.put(slot, image)
            one.run([Copies(0, 7, 0), Copies(2, 8, 0)], np.array([0, 0, KINDS * 2, KINDS * 2 + 2]))  # m is known by now
        graph._vote = torch.compile(graph._vote, fullgraph=True, backend="eager")
        for key in range(3):
            for one in (plain, graph):
                one.run([Copies(0, key, 0), Copies(2, 9 + key, 0)], np.array([0, 1, KINDS * 2, KINDS * 2 + 1]))
        votes = graph.fetch([0, 2]).wait()
    assert (votes == plain.fetch([0, 2]).wait()).all()
    assert votes.sum() == 4 * 4 * 3  # passes, rows, rules


class Kernel:
    """Stands for the noise on a GPU."""

    def numbers(self, copies):
        return torch.zeros((len(copies), 4), dtype=torch.int64)

    def __call__(self, pixels, numbers, rows, out):
        out.zero_()


def test_a_thread_captures_what_it_has_run_itself():
    """Each has handles of its own in the device's libraries, and a capture can make none."""

    class Capturing(ForwardPass):
        def _captured(self):
            captured_by.append(threading.current_thread().name)
            return SimpleNamespace(replay=lambda: replayed.append(threading.current_thread().name))

    captured_by, replayed = [], []
    noise = SimpleNamespace(kernel=Kernel(), pixels=lambda image: image.permute(1, 2, 0))
    decide = Decisions(parse_rules(["argmax"], num_classes=2), CPU)
    made = Capturing(Brightness(), decide, noise, PassShape(4, 2, 3), CPU)
    made._is_capturable = True
    made.put(0, torch.zeros((3, 4, 4), dtype=torch.uint8))
    with ThreadPoolExecutor(1, "first") as first, ThreadPoolExecutor(1, "second") as second:
        for thread in (first, second, second, first):
            thread.submit(made.run, [Copies(0, 7, 0)], np.zeros(4, np.int64)).result()
    assert captured_by == ["second_0"] and replayed == ["second_0", "first_0"]


def test_graphs_and_events_are_of_the_device_of_the_pass_and_not_of_the_current_one(monkeypatch):
    """On the current one's stream a graph would hold nothing, and an event would have come before the votes."""
    current = ["cuda:0"]
    done = []

    @contextmanager
    def device(one):
        current.append(str(one))
        yield
        current.pop()

    class Capturing(ForwardPass):
        def _captured(self):
            done.append(("captured", current[-1]))
            return SimpleNamespace(replay=lambda: done.append(("replayed", current[-1])))

        def _pinned(self, tensor):
            return tensor

        def _sent(self, tensor):
            return tensor

    noise = SimpleNamespace(kernel=Kernel(), pixels=lambda image: image.permute(1, 2, 0))
    decide = Decisions(parse_rules(["argmax"], num_classes=2), CPU)
    made = Capturing(Brightness(), decide, noise, PassShape(4, 2, 3), CPU)
    made._is_capturable = True
    made.put(0, torch.zeros((3, 4, 4), dtype=torch.uint8))
    made.run([Copies(0, 7, 0)], np.zeros(4, np.int64))
    made._device = torch.device("cuda:1")  # now that its buffers are there
    event = SimpleNamespace(record=lambda: done.append(("recorded", current[-1])))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **how: empty(*shape, **how))
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: event if blocking else None)  # who waits sleeps
    made.run([Copies(0, 7, 0)], np.zeros(4, np.int64))
    made.fetch([0])
    assert done == [(what, "cuda:1") for what in ("captured", "replayed", "recorded")]
    assert current == ["cuda:0"]


@pytest.mark.parametrize("memory", [False, True])
def test_a_capture_that_fails_is_given_up_and_one_without_memory_is_told(memory, monkeypatch):
    error = RuntimeError("CUDA error: " + ("out of memory" if memory else "operation failed during capture"))
    healed, streams = [], ["the thread's"]

    class Captures:
        def __init__(self, graph, stream, capture_error_mode):
            assert capture_error_mode == "thread_local"
            self.stream = stream

        def __enter__(self):
            streams.append(self.stream)

        def __exit__(self, *_):  # as PyTorch's does, before it is back on the stream it came from
            raise error

    @contextmanager
    def stream(one):
        try:
            yield
        finally:
            streams.append(one)

    generator = SimpleNamespace(clone_state=lambda: "as it was", graphsafe_set_state=healed.append)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Captures)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "Stream", lambda index: f"that of device {index}")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 99)
    monkeypatch.setattr(torch.cuda, "default_generators", {99: generator})
    noise = SimpleNamespace(kernel=Kernel(), pixels=lambda image: image.permute(1, 2, 0))
    decide = Decisions(parse_rules(["argmax"], num_classes=2), CPU)
    made = ForwardPass(Brightness(), decide, noise, PassShape(4, 2, 3), CPU)
    made._is_capturable = True
    made.put(0, torch.zeros((3, 4, 4), dtype=torch.uint8))
    made.run([Copies(0, 7, 0)], np.zeros(4, np.int64))
    with pytest.raises(RuntimeError, match="out of memory") if memory else nullcontext():
        made.run([Copies(0, 7, 0)], np.zeros(4, np.int64))
    assert streams == ["the thread's", "that of device 99", "the thread's"]
    assert made._is_capturable == memory and healed == ([] if memory else ["as it was"])


class OnTheDevice(TorchDispatchMode):
    """Lets no operation make, read or fetch a tensor of the host: a graph could not hold it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "it asks for a value"
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if isinstance(one, torch.Tensor)]
        assert all(one.device.type == "meta" for one in tensors), f"{func} has a tensor of the host"
        return found


RULES = ["argmax", "offset:0=0.1", "offset:0.5,1*pair:0/1", "expected_cost:1*pair:0/1", "expected_cost:2*uniform"]
TINY = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "attention_resolutions": [8], "channel_mult": [1, 2]}
NETWORKS = {
    "a CIFAR ResNet": ModelOptions("cifar_resnet8", input_size=16),
    "a ResNet": ModelOptions("resnet18", input_size=32),
    "a ConvNeXt": ModelOptions("convnext_atto", input_size=32),
    "a vision transformer": ModelOptions("vit_tiny_patch16_224"),
    "rRCM": ModelOptions("rrcm_base_patch4_32", args={"sigma": 0.25}),
    **{
        f"behind {name}": ModelOptions("cifar_resnet8", input_size=16, denoiser=denoiser)
        for name, denoiser in {
            "DnCNN": DenoiserOptions("dncnn"),
            "MemNet": DenoiserOptions("memnet"),
            "DRUNet": DenoiserOptions("drunet", sigma=0.25, levels=[0.2, 0.3]),
            "diffusion": DenoiserOptions("improved_diffusion", args=TINY, sigma=0.25, levels=[0.2, 0.3]),
        }.items()
    },
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_a_pass_of_any_network_and_rule_is_what_a_graph_can_hold(options, precision):
    """Nothing in it is of the host; tensors without data stand for those of a GPU."""
    base = load_base_classifier(options, num_classes=5)
    set_precision(base, precision)
    device = torch.device("meta")
    noise = SimpleNamespace(kernel=Kernel(), pixels=lambda image: image.permute(1, 2, 0))
    decide = Decisions(parse_rules(RULES, num_classes=5), device)
    made = ForwardPass(base.to(device), decide, noise, PassShape(4, 2, 3), device)
    made._is_capturable = True
    with torch.inference_mode():
        made.put(0, torch.zeros((3, *base.preprocessing.input_size), dtype=torch.uint8))
        made.run([Copies(0, 7, 0)], np.zeros(4, np.int64))
        with OnTheDevice():
            made._whole()
