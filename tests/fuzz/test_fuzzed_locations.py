"""Any text as a location: it is kept as it stands, or refused in a line."""

import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raycsr import UserError
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source
from raycsr.models.checkpoints import load_checkpoint
from raycsr.store import Store

NAMES = st.text(st.characters(codec=None) | st.sampled_from("#%?&+= ./\\:@~*'\"[]{}|<>\0\n\x7f\udce9é日"), max_size=20)
PATHS = st.lists(NAMES | st.sampled_from([".", "..", "", "%41", "a?b=c", "x@y", "a" * 300]), max_size=3).map("/".join)
SETTINGS = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def kept_or_refused(root, name):
    """Writes a file at a location and finds it there alone; or returns the line that refuses it."""
    try:
        store = Store(f"{root}/{name}")
        store.write("file", name.encode())
        assert store.read("file") == name.encode() and "file" in store.names("")
        assert store.find("file") in list(store.walk())
        store.remove("file")
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error).isprintable()
        return str(error)
    return None


@SETTINGS
@given(name=PATHS)
def test_on_s3(s3, name):
    s3.client.create_bucket(Bucket="fuzzed")
    refused = kept_or_refused("s3://fuzzed", name)
    if name and set(name) <= set(string.ascii_letters + string.digits + "#%+ ~*'[]é日"):
        assert refused is None or "name is too long" in refused


@SETTINGS
@given(name=NAMES)
def test_in_a_folder(tmp_path, name):
    kept_or_refused(tmp_path, name.replace("..", ""))


@SETTINGS
@given(
    text=st.sampled_from(["", "s3:/", "s3://", "s3:///", "s3://anonymous@", "S3://", "gs://b/", "~"]).flatmap(
        lambda scheme: NAMES.map(lambda name: scheme + name)
    )
)
def test_whatever_a_user_types_is_no_traceback(s3, text):
    for use in (Store, load_checkpoint, lambda path: open_source(DataOptions("imagefolder", path=path)).list()):
        try:
            use(text)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error).isprintable()
