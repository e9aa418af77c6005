import pytest

from raycsr.credentials import has_credentials, without_credentials
from raycsr.errors import UserError, shown

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # of the kind that AWS hands out, which may have a slash
WITH_SECRETS = {
    f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/x": "s3://***@bucket/x",
    f"s3://key:{SECRET}@x@bucket/x": "s3://***@bucket/x",
    "https://user:hush@host/model.pt": "https://***@host/model.pt",
    "https://hush@host/model.pt": "https://***@host/model.pt",
    "http://hu/sh@host:5000": "http://***@host:5000",
    "postgresql://me:hu/sh@host:5432/db": "postgresql://***@host:5432/db",
    "s3://anonymous@key:hush/x@bucket/y": "s3://***@bucket/y",
    "s3://bucket/x?access_key=AK&secret_key=hush": "s3://bucket/x?access_key=***&secret_key=***",
    "https://h/x?X-Amz-Signature=hush&a=1&X-Amz-Credential=hush": "https://h/x?X-Amz-Signature=***&a=1&X-Amz-Credential=***",
    "https://h/x?AWSAccessKeyId=hush&Signature=hush": "https://h/x?AWSAccessKeyId=***&Signature=***",
    "https://h/x?token=hu@sh&a=1": "https://h/x?token=***&a=1",
    "https://h/x?sv=1&sig=hush": "https://h/x?sv=1&sig=***",
    "https://h/x?token=hush#top&b=2": "https://h/x?token=***&b=2",
    "model AKIAIOSFODNN7EXAMPLE": "model ***",
}
WITHOUT = [
    "s3://bucket/prefix/user@example.com/x",
    "s3://anonymous@bucket/user@example.com",
    "http://host:5000",
    "sqlite:////home/me@work/mlflow.db",
    "https://host/x?page=2&size=10",
    "hf-hub:timm/resnet18.a1_in1k",
    "seed:cat,dog",
    "/data/me@work/x?token=1",
]


@pytest.mark.parametrize("text", WITH_SECRETS)
def test_secrets_are_found_and_left_out_of_every_message(text):
    assert has_credentials(text)
    said = without_credentials(f"cannot read '{text}': no such file")
    assert said == f"cannot read '{WITH_SECRETS[text]}': no such file"
    assert str(UserError(f"cannot read '{text}': no such file")) == said
    assert not has_credentials(without_credentials(text)) or "***" in said


@pytest.mark.parametrize("text", WITHOUT)
def test_what_is_no_secret_stays(text):
    assert not has_credentials(text) and without_credentials(text) == text


def test_a_text_is_cut_off_after_its_secrets_are_left_out():
    location = f"seed:s3://{'k' * 40}:{SECRET}@bucket"
    assert "wJalr" not in str(UserError(f"no class {shown(location)}"))


def test_secrets_of_the_environment_are_left_out(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("SOME_TOKEN", "x")  # would be in each message
    assert without_credentials(f"{SECRET}: 0123456789abcdef, x") == "***: ***, x"
