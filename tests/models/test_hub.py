"""Without a network, weights of timm's hub are missed in seconds, and what to give instead is named."""

import http.server
import threading
import time

import pytest
from huggingface_hub import constants

from raycsr.errors import UserError
from raycsr.models.hub import offline_without_network
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    """A hub that nobody serves, and an empty cache."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    "options", [ModelOptions("resnet18", pretrained=True), ModelOptions("hf-hub:timm/resnet18.a1_in1k")]
)
def test_weights_that_cannot_be_downloaded_are_missed_at_once(options):
    start = time.monotonic()
    with pytest.raises(UserError, match="model.pretrained FILE") as raised:
        load_base_classifier(options)
    assert options.name in str(raised.value) and "\n" not in str(raised.value)
    assert time.monotonic() - start < 20, "the hub's own retries take 50 s"
    assert not constants.HF_HUB_OFFLINE, "what comes later may find a network"


def test_a_hub_that_answers_is_asked(monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with offline_without_network():
            assert not constants.HF_HUB_OFFLINE


def test_behind_a_proxy_the_hub_is_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    with offline_without_network():
        assert not constants.HF_HUB_OFFLINE


def test_who_is_offline_by_choice_stays_so(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with offline_without_network():
        assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE
