import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from raycsr import signals


def script(code):
    """Runs Python of its own, and returns its status and what it printed."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of the session, put back afterwards."""
    before, hook = {number: signal.getsignal(number) for number in signals.STOPS}, sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_block_that_stops_are_held_back_from_is_finished_and_then_stopped(number, raised):
    done = []
    signals.handle_stops()
    with pytest.raises(raised), signals.stops_held_back() as arrived:
        os.kill(os.getpid(), number)
        done.append(list(arrived))
    assert done == [[number]]


def test_a_second_stop_while_the_first_unwinds_does_not_lose_what_is_given_back():
    given_back = []
    signals.handle_stops()
    with pytest.raises(SystemExit):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with signals.stops_held_back():
                os.kill(os.getpid(), signal.SIGTERM)
                given_back.append("run")
    assert given_back == ["run"] and signals.was_terminated()


def test_other_threads_need_not_hold_back():
    held = []

    def work():
        with signals.stops_held_back():
            held.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert held == [signal.getsignal(signal.SIGTERM)]


def test_a_handler_of_the_caller_is_kept():
    def mine(number, frame):
        pass

    signal.signal(signal.SIGTERM, mine)
    signals.take_sigterm_back()
    assert signal.getsignal(signal.SIGTERM) is mine


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_stop_that_falls_into_a_del_is_given_again(number):
    status, out, err = script(f"""
        import os, signal, time
        from raycsr import signals
        signals.handle_stops()
        start = time.perf_counter()
        class Deleted:
            def __del__(self):
                os.kill(os.getpid(), signal.{number})
                time.sleep(0.01)
        try:
            Deleted()
            print("goes on", flush=True)
            time.sleep(50)
            print("waited to the end")
        except (SystemExit, KeyboardInterrupt):
            print("stopped", time.perf_counter() - start < 40)
    """)
    assert (status, out, err) == (0, "goes on\nstopped True\n", "")


def test_nothing_stops_what_has_been_stopped():
    status, out, _ = script("""
        import os, signal
        from raycsr import signals
        signals.handle_stops()
        signals.ignore_stops()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        print("in order")
    """)
    assert (status, out) == (0, "in order\n")


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_stop_at_any_step_of_holding_back_stops_and_leaves_neither_signal_deaf(number):
    """Ctrl-C between the two handlers that were put back left SIGTERM unheard for good; all bytecodes are tried."""
    signals.handle_stops()

    def stop_at(step):
        steps = itertools.count(1)

        def trace(frame, event, _):
            if frame.f_code.co_name != "stops_held_back":
                return None
            frame.f_trace_opcodes = True
            if next(steps) == step:
                signal.raise_signal(number)
            return trace

        sys.settrace(trace)
        try:
            with signals.stops_held_back():
                pass
        finally:
            sys.settrace(None)
        return next(steps) <= step  # there are no such many

    for step in itertools.count(1):
        try:
            assert stop_at(step)
            break
        except (KeyboardInterrupt, SystemExit):
            pass
        for one, raised in ((signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)):
            with pytest.raises(raised):
                signal.raise_signal(one)
    assert step > 50
